//! What every test starts from: a real node process, a raw HTTP client, an SSE reader.

pub(crate) mod bus;
pub(crate) mod cluster;
pub(crate) mod examples;
pub(crate) mod http;
pub(crate) mod node;
/// Figures of a process.
pub(crate) mod proc;
/// What a reading thread shares with a test.
pub(crate) mod shared;
/// Plain JSON over a WebSocket.
pub(crate) mod socket;
pub(crate) mod sse;
/// TLS of clients.
pub(crate) mod tls;
/// Keys of programs of Xbus.
pub(crate) mod xbus;

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Long enough for anything that should happen at once, on a busy machine too.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// Shorthand for a duration in milliseconds.
pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Polls `ready` until it gives a value; panics with `what` after `bound`.
pub(crate) fn wait_for<T>(what: &str, bound: Duration, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + bound;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {bound:?} for: {what}");
        std::thread::sleep(ms(20));
    }
}

/// Percent-encodes everything but unreserved characters.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// A JSON string literal.
pub(crate) fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Joins the failures of a table test into one message.
pub(crate) fn report(what: &str, failures: &[String]) {
    assert!(failures.is_empty(), "{what}: {} rows failed\n{}", failures.len(), failures.join("\n"));
}

/// Copies a directory tree, so that a damaged data directory can be restored.
pub(crate) fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("create a directory of the copy");
    for entry in std::fs::read_dir(from).expect("list the directory to copy") {
        let entry = entry.expect("read an entry of the directory to copy");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("type of an entry").is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copy a file");
        }
    }
}

/// A small generator: reproducible from the seed that a test prints.
pub(crate) struct Rng(u64);

impl Rng {
    /// Seeded by `ROLLBOOK_TEST_SEED`, else by the clock; prints the seed.
    pub(crate) fn from_env(test: &str) -> Self {
        let seed = std::env::var("ROLLBOOK_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            now.map_or(1, |age| u64::from(age.subsec_nanos()) + age.as_secs())
        });
        eprintln!("{test}: ROLLBOOK_TEST_SEED={seed}");
        Self::seeded(seed)
    }

    /// From a seed that was printed.
    pub(crate) const fn seeded(seed: u64) -> Self {
        // Neighbours must not begin alike, and zero would stay zero.
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number of `low..high`.
    pub(crate) fn pick(&mut self, low: u64, high: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let value = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16;
        low + value % (high - low)
    }
}
