//! Publish requests with payloads that look like real JSON. The text varies, so that compression does not look too
//! good.

use anyhow::{Result, ensure};
use memchr::memmem;

use super::http::Target;
use crate::app::bench::units::count;

/// The bytes before the timestamp of every payload.
const STAMP_KEY: &[u8] = b"\"ts\":\"";
const STAMP_DIGITS: usize = 20;
/// The shortest payload: a timestamp and an empty text.
const SIZE_MIN: usize = 40;
/// From this size on a payload also has a user, a kind and an amount.
const SIZE_RICH: usize = 120;

const WORDS: [&str; 32] = [
    "order",
    "paid",
    "shipped",
    "customer",
    "asked",
    "for",
    "a",
    "later",
    "delivery",
    "to",
    "the",
    "north",
    "gate",
    "invoice",
    "was",
    "corrected",
    "by",
    "support",
    "two",
    "items",
    "missing",
    "refund",
    "sent",
    "parcel",
    "returned",
    "address",
    "unknown",
    "driver",
    "called",
    "again",
    "tomorrow",
    "morning",
];
const KINDS: [&str; 4] = ["order.created", "order.paid", "user.updated", "stock.moved"];

/// The generator xorshift64*, which is cheap and repeatable.
#[derive(Debug, Clone)]
pub(in crate::app::bench) struct Random(u64);

impl Random {
    /// Creates a generator. Any seed will do.
    pub(in crate::app::bench) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next number.
    pub(in crate::app::bench) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 8
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        let n = usize::try_from(self.next()).unwrap_or_default();
        from.get(n % from.len().max(1)).copied().unwrap_or_default()
    }
}

/// The content of one publish request.
#[derive(Debug, Clone)]
pub(in crate::app::bench) struct Shape {
    /// Subject of every event.
    pub(in crate::app::bench) subject: String,
    /// Bytes of each payload.
    pub(in crate::app::bench) size: usize,
    /// Events of a request; `None` sends a single event that is not wrapped in an array.
    pub(in crate::app::bench) batch: Option<usize>,
}

impl Shape {
    /// Single events.
    pub(in crate::app::bench) fn single(subject: &str, size: usize) -> Result<Self> {
        ensure!(size >= SIZE_MIN, "--size must be at least {SIZE_MIN}");
        Ok(Self { subject: subject.to_owned(), size, batch: None })
    }

    /// Arrays of `batch` events.
    pub(in crate::app::bench) fn batch(subject: &str, size: usize, batch: usize) -> Result<Self> {
        ensure!(batch > 0, "--batch must be at least 1");
        Ok(Self { batch: Some(batch), ..Self::single(subject, size)? })
    }

    /// Events of one request.
    pub(in crate::app::bench) fn events(&self) -> u64 {
        self.batch.map_or(1, count)
    }
}

/// One publish request with head and body. Its timestamps can be replaced in place.
#[derive(Debug)]
pub(in crate::app::bench) struct Request {
    bytes: Vec<u8>,
    stamps: Vec<usize>,
}

impl Request {
    /// Creates a request with random payloads.
    pub(in crate::app::bench) fn new(target: &Target, shape: &Shape, random: &mut Random) -> Self {
        let mut body = Vec::with_capacity((shape.size + 64) * shape.batch.unwrap_or(1));
        match shape.batch {
            None => event(&mut body, shape, random),
            Some(batch) => {
                body.push(b'[');
                for i in 0..batch {
                    if i > 0 {
                        body.push(b',');
                    }
                    event(&mut body, shape, random);
                }
                body.push(b']');
            }
        }
        let mut bytes = target.post_head(body.len()).into_bytes();
        bytes.extend_from_slice(&body);
        let stamps = memmem::find_iter(&bytes, STAMP_KEY).map(|at| at + STAMP_KEY.len()).collect();
        Self { bytes, stamps }
    }

    /// Writes `now` into every payload and returns the request.
    pub(in crate::app::bench) fn stamped(&mut self, now: u64) -> &[u8] {
        let mut digits = [b'0'; STAMP_DIGITS];
        let mut rest = now;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + u8::try_from(rest % 10).unwrap_or_default();
            rest /= 10;
        }
        for &at in &self.stamps {
            if let Some(place) = self.bytes.get_mut(at..at + STAMP_DIGITS) {
                place.copy_from_slice(&digits);
            }
        }
        &self.bytes
    }
}

fn event(out: &mut Vec<u8>, shape: &Shape, random: &mut Random) {
    out.extend_from_slice(b"{\"subject\":\"");
    out.extend_from_slice(shape.subject.as_bytes());
    out.extend_from_slice(b"\",\"payload\":");
    let end = out.len() + shape.size;
    out.extend_from_slice(b"{\"ts\":\"00000000000000000000\",");
    if shape.size >= SIZE_RICH {
        let (user, amount) = (random.next() & 0xFFFF_FFFF, random.next() % 1_000_000);
        let kind = random.pick(&KINDS);
        let rich =
            format!("\"user\":\"{user:08x}\",\"kind\":\"{kind}\",\"amount\":{}.{:02},", amount / 100, amount % 100);
        out.extend_from_slice(rich.as_bytes());
    }
    out.extend_from_slice(b"\"text\":\"");
    let text_end = end.saturating_sub(2);
    while out.len() < text_end {
        out.extend_from_slice(random.pick(&WORDS).as_bytes());
        out.push(b' ');
    }
    out.truncate(text_end);
    out.extend_from_slice(b"\"}}");
}

/// Reads timestamps out of delivered frames.
#[derive(Debug)]
pub(in crate::app::bench) struct StampReader(memmem::Finder<'static>);

impl Default for StampReader {
    fn default() -> Self {
        Self(memmem::Finder::new(STAMP_KEY))
    }
}

impl StampReader {
    /// The timestamp in a frame, if there is one.
    pub(in crate::app::bench) fn read(&self, frame: &[u8]) -> Option<u64> {
        let at = self.0.find(frame)? + STAMP_KEY.len();
        frame.get(at..at + STAMP_DIGITS)?.iter().try_fold(0_u64, |n, &b| {
            let digit = b.checked_sub(b'0').filter(|d| *d <= 9)?;
            n.checked_mul(10)?.checked_add(u64::from(digit))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn target() -> Target {
        Target::plain("127.0.0.1:1".parse().unwrap())
    }

    fn body(request: &[u8]) -> Value {
        let at = memmem::find(request, b"\r\n\r\n").unwrap() + 4;
        serde_json::from_slice(request.get(at..).unwrap()).unwrap()
    }

    #[test]
    fn payloads_are_json_of_the_asked_size() {
        let mut random = Random::new(7);
        for size in [40, 41, 119, 120, 200, 4096] {
            let shape = Shape::single("a.b", size).unwrap();
            let mut request = Request::new(&target(), &shape, &mut random);
            let event = body(request.stamped(42));
            assert_eq!(event.get("subject").unwrap(), "a.b");
            let payload = event.get("payload").unwrap();
            assert_eq!(payload.get("ts").unwrap(), "00000000000000000042");
            // Trailing zeros of an amount are lost by re-printing, so the size is taken from the bytes.
            let text = request.stamped(42);
            let at = memmem::find(text, b"\"payload\":").unwrap() + 10;
            assert_eq!(text.len() - at - 1, size);
            assert_eq!(StampReader::default().read(text), Some(42));
        }
        assert!(Shape::single("a.b", 39).is_err());
    }

    #[test]
    fn batches_stamp_every_event() {
        let shape = Shape::batch("a.b", 200, 3).unwrap();
        let mut request = Request::new(&target(), &shape, &mut Random::new(1));
        let events = body(request.stamped(u64::MAX));
        let stamps: Vec<_> = events.as_array().unwrap().iter().map(|e| e.pointer("/payload/ts").unwrap()).collect();
        assert_eq!(stamps, ["18446744073709551615"; 3]);
    }
}
