//! A door of another program: `examples/line.rs`, driven by `nc`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::harness::cluster::free_addresses;
use crate::harness::node::rollbook;
use crate::harness::{SOON, wait_for};

/// Killed when dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().expect("kill");
        self.0.wait().expect("its end");
    }
}

/// A client of the door.
struct Nc {
    process: Killed,
    lines: BufReader<ChildStdout>,
}

impl Nc {
    fn connect(address: &str) -> Self {
        let (host, port) = address.split_once(':').expect("HOST:PORT");
        let mut command = Command::new("nc");
        // Ends when nothing came for so many seconds, so that a door without a word fails the test.
        command.args(["-w", "10", host, port]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("nc, which `make test-packages` installs");
        let lines = BufReader::new(process.stdout.take().expect("piped"));
        Self { process: Killed(process), lines }
    }

    fn say(&mut self, line: &str) {
        let stdin = self.process.0.stdin.as_mut().expect("piped");
        writeln!(stdin, "{line}").expect("write to nc");
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("read from nc");
        line.trim_end().to_owned()
    }
}

/// The example, with its door at `address`.
fn start(data: &Path, address: &str) -> Killed {
    let program = Path::new(env!("CARGO_BIN_EXE_rollbook")).with_file_name("examples").join("line");
    assert!(program.exists(), "{} is not built: cargo build --release --examples", program.display());
    let mut command = Command::new(program);
    // Free of settings of the caller's environment.
    for (name, _) in rollbook().get_envs() {
        command.env_remove(name);
    }
    for (name, value) in [("SSE__LISTEN", "off"), ("WEB__LISTEN", "off"), ("PEER__LISTEN", "off")] {
        command.env(format!("ROLLBOOK_{name}"), value);
    }
    command.env("ROLLBOOK_NODE__DATA", data).arg(address).stdout(Stdio::null()).stderr(Stdio::null());
    Killed(command.spawn().expect("start the example"))
}

#[test]
fn a_protocol_is_added_by_one_file_and_spoken_with_nc() {
    let here = tempfile::tempdir().expect("temporary directory");
    let [address] = free_addresses(1).try_into().expect("one");
    let _node = start(here.path(), &address);
    // It listens before it is ready.
    let mut publisher = wait_for("the door is open", SOON, || {
        std::net::TcpStream::connect(&address).ok()?;
        let mut nc = Nc::connect(&address);
        nc.say(r#"PUB app.first 1"#);
        nc.hear().starts_with("+OK e_").then_some(nc)
    });
    let mut subscriber = Nc::connect(&address);
    subscriber.say("SUB app.>");
    assert_eq!(subscriber.hear(), "+OK");
    publisher.say(r#"PUB app.greeting {"hello":"world"}"#);
    assert!(publisher.hear().starts_with("+OK e_"));
    let heard = subscriber.hear();
    let event: serde_json::Value = serde_json::from_str(heard.strip_prefix("MSG ").expect(&heard)).expect("JSON");
    assert_eq!((event["subject"].as_str(), event["index"].as_u64()), (Some("app.greeting"), Some(2)), "{heard}");
    assert_eq!(event["payload"]["hello"], "world", "{heard}");
    for (line, refusal) in [
        ("PUB app.> 1", "-ERR subject should not have * or >"),
        ("PUB app.x {", "-ERR EOF while parsing an object at line 1 column 1"),
        ("SUB a..b", "-ERR subject should not have two dots in a row"),
        ("HELLO", "-ERR write PUB subject json, or SUB pattern"),
    ] {
        publisher.say(line);
        let heard = publisher.hear();
        assert!(heard.starts_with(refusal), "{line}: {heard}");
    }
}
