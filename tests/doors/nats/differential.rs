//! The same bytes to nats-server and to rollbook, and what both answer: equal, but for what stands in [`DIFFERENCES`].

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use super::client::{address, options};
use crate::harness::examples::clients;
use crate::harness::node::Node;
use crate::harness::{SOON, report, wait_for};

/// One step: which of two connections says what. Behind a PING the answer is awaited.
type Step = (usize, &'static str);

/// A CONNECT as most clients make it.
const CONNECT: &str =
    "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true,\"protocol\":1}\r\n";
const VERBOSE: &str = "CONNECT {\"verbose\":true,\"pedantic\":false,\"headers\":true}\r\n";
const PEDANTIC: &str = "CONNECT {\"verbose\":false,\"pedantic\":true,\"headers\":true}\r\n";

const A: usize = 0;
const B: usize = 1;

/// What the clients say. A CONNECT of both connections and a PING come first, but for scripts that begin with `!`.
const SCRIPTS: &[(&str, &[Step])] = &[
    ("publish and subscribe", &[(A, "SUB foo 1\r\nPING\r\n"), (B, "PUB foo 5\r\nhello\r\nPING\r\n")]),
    ("own messages", &[(A, "SUB foo 1\r\nPUB foo 2\r\nhi\r\nPUB foo.x 2\r\nno\r\nPUB foo 0\r\n\r\n")]),
    ("a reply subject", &[(A, "SUB foo 1\r\nPUB foo answers.here 2\r\nhi\r\n")]),
    ("names of any form", &[(A, "SUB foo-_/:é. x\r\nSUB foo-_/:é a-b.c\r\nPUB foo-_/:é 1\r\nx\r\n")]),
    ("lower case, and blanks", &[(A, "sub  foo \t 1 \r\npub\tfoo   2  \r\nhi\r\nping\r\nPing \r\nPONG\r\npong\r\n")]),
    ("two subscriptions", &[(A, "SUB foo 1\r\nSUB foo 2\r\nUNSUB 1\r\nPUB foo 1\r\nx\r\n")]),
    ("the name of a subscription twice", &[(A, "SUB foo 1\r\nSUB bar 1\r\nPUB bar 1\r\nx\r\nPUB foo 1\r\ny\r\n")]),
    (
        "wildcards",
        &[(A, "SUB a.* 1\r\nSUB *.b.> 3\r\nPUB a.x 1\r\n1\r\nPUB a 1\r\n2\r\nPUB a.b 1\r\n3\r\nPUB a.b.c 1\r\n4\r\n")],
    ),
    ("a tail", &[(A, "SUB a.> 1\r\nPUB a 1\r\n1\r\nPUB a.b 1\r\n2\r\nPUB a.b.c.d 1\r\n3\r\nPUB b.a 1\r\n4\r\n")]),
    ("everything", &[(A, "SUB > 1\r\nPUB a 1\r\n1\r\nPUB a.b.c 1\r\n2\r\n")]),
    ("wildcards inside of a token are none", &[(A, "SUB foo* 1\r\nPUB foox 1\r\nx\r\nPUB foo* 1\r\ny\r\n")]),
    ("a queue group of one", &[(A, "SUB foo q 1\r\nSUB foo 2\r\nPING\r\n"), (B, "PUB foo 1\r\nx\r\nPING\r\n")]),
    ("two queue groups", &[(A, "SUB foo q1 1\r\nPING\r\n"), (B, "SUB foo q2 7\r\nPUB foo 1\r\nx\r\nPING\r\n")]),
    (
        "an end after some messages",
        &[(A, "SUB foo 1\r\nUNSUB 1 2\r\nPUB foo 1\r\n1\r\nPUB foo 1\r\n2\r\nPUB foo 1\r\n3\r\n")],
    ),
    (
        "an end after as many as came",
        &[(A, "SUB foo 1\r\nPUB foo 1\r\n1\r\nPUB foo 1\r\n2\r\nUNSUB 1 2\r\nPUB foo 1\r\n3\r\n")],
    ),
    (
        "an end that is moved",
        &[(A, "SUB foo 1\r\nUNSUB 1 1\r\nUNSUB 1 2\r\nPUB foo 1\r\n1\r\nPUB foo 1\r\n2\r\nPUB foo 1\r\n3\r\n")],
    ),
    ("the end of nothing", &[(A, "UNSUB 9\r\nUNSUB 9 5\r\n")]),
    ("headers", &[(A, "SUB foo 1\r\nHPUB foo 22 33\r\nNATS/1.0\r\nBar: Baz\r\n\r\nHello NATS!\r\n")]),
    ("headers and a reply subject", &[(A, "SUB foo 1\r\nHPUB foo re.ply 22 22\r\nNATS/1.0\r\nBar: Baz\r\n\r\n\r\n")]),
    ("empty headers", &[(A, "SUB foo 1\r\nHPUB foo 12 14\r\nNATS/1.0\r\n\r\nhi\r\n")]),
    ("a status in headers", &[(A, "SUB foo 1\r\nHPUB foo 16 16\r\nNATS/1.0 503\r\n\r\n\r\n")]),
    (
        "headers for a client without them",
        &[
            (B, "CONNECT {\"verbose\":false,\"headers\":false}\r\nSUB foo 1\r\nPING\r\n"),
            (A, "HPUB foo 22 33\r\nNATS/1.0\r\nBar: Baz\r\n\r\nHello NATS!\r\nPING\r\n"),
        ],
    ),
    (
        "nobody answers",
        &[(A, "SUB in.* 1\r\nPUB foo in.1 2\r\nhi\r\nPUB foo 2\r\nhi\r\nPUB foo elsewhere 2\r\nhi\r\n")],
    ),
    (
        "nobody answers a client that does not ask",
        &[(A, "CONNECT {\"no_responders\":false}\r\nSUB in.* 1\r\nPUB foo in.1 2\r\nhi\r\n")],
    ),
    (
        "a request",
        &[
            (A, "SUB work 1\r\nPING\r\n"),
            (B, "SUB in.1 9\r\nPUB work in.1 2\r\nhi\r\nPING\r\n"),
            (A, "PUB in.1 3\r\nfor\r\nPING\r\n"),
        ],
    ),
    (
        "!verbose",
        &[
            (A, VERBOSE),
            (A, "SUB foo 1\r\nPUB foo 2\r\nhi\r\nUNSUB 1\r\nPING\r\nHPUB foo 12 12\r\nNATS/1.0\r\n\r\n\r\n"),
        ],
    ),
    ("!verbose by default", &[(A, "CONNECT {}\r\n"), (A, "SUB foo 1\r\nPING\r\n")]),
    (
        "!pedantic",
        &[(A, PEDANTIC), (A, "PUB foo.* 2\r\nhi\r\nPUB foo..bar 2\r\nhi\r\nPUB foo. 2\r\nhi\r\nPUB foo 2\r\nhi\r\n")],
    ),
    (
        "!own messages are not wanted",
        &[(A, "CONNECT {\"verbose\":false,\"echo\":false}\r\nSUB foo 1\r\nPUB foo 2\r\nhi\r\n")],
    ),
    ("!a PING before the CONNECT", &[(A, "PING\r\n"), (A, CONNECT), (A, "SUB foo 1\r\nPUB foo 1\r\nx\r\n")]),
    ("!a SUB before the CONNECT", &[(A, "SUB foo 1\r\nPUB foo 1\r\nx\r\nPING\r\n")]),
    (
        "two CONNECTs",
        &[(A, "CONNECT {\"verbose\":true}\r\nSUB foo 1\r\nPING\r\nCONNECT {\"echo\":false}\r\nPUB foo 1\r\nx\r\n")],
    ),
    (
        "!unknown members of the CONNECT",
        &[(A, "CONNECT {\"verbose\":false,\"new\":{\"a\":[1]},\"name\":null}\r\nPING\r\n")],
    ),
    ("!a strange protocol", &[(A, "CONNECT {\"verbose\":false,\"protocol\":2}\r\n")]),
    ("!no responders without headers", &[(A, "CONNECT {\"verbose\":false,\"no_responders\":true}\r\n")]),
    ("!a CONNECT that is no JSON", &[(A, "CONNECT {nonsense\r\n")]),
    ("subjects of SUB that are none", &[(A, "SUB foo..bar 1\r\nSUB .foo 2\r\nSUB foo. 3\r\nSUB foo.>.bar 4\r\n")]),
    ("subjects of PUB that are none", &[(A, "SUB > 1\r\nPUB foo..bar 1\r\nx\r\nPUB .foo 1\r\nx\r\n")]),
    ("a publish with wildcards", &[(A, "SUB foo.* 1\r\nPUB foo.* 1\r\nx\r\nPUB foo.> 1\r\nx\r\n")]),
    (
        "bytes at every place of a line",
        &[
            (A, "SU"),
            (A, "B foo"),
            (A, " 1"),
            (A, "\r"),
            (A, "\nP"),
            (A, "UB foo 4\r"),
            (A, "\nab"),
            (A, "cd\r"),
            (A, "\n"),
        ],
    ),
    ("lines that end with a line feed alone", &[(A, "SUB foo 1\nPUB foo 2\r\nhi\r\nPING\n")]),
    ("empty lines", &[(A, "\r\n\r\nPING\r\n")]),
    ("an unknown verb", &[(A, "HELLO\r\n")]),
    ("a verb that is nearly one", &[(A, "PINGS\r\n")]),
    ("verbs of the server", &[(A, "+OK\r\nINFO {}\r\nPING\r\n")]),
    ("an error of the client", &[(A, "-ERR 'x'\r\n")]),
    ("a message of the server", &[(A, "MSG foo 1 1\r\nx\r\n")]),
    ("no line end behind the payload", &[(A, "PUB foo 1\r\nxyz\r\nPING\r\n")]),
    ("a negative size", &[(A, "PUB foo -1\r\n")]),
    ("a size that is no number", &[(A, "PUB foo two\r\n")]),
    ("a huge size", &[(A, "PUB foo 99999999999999999999\r\n")]),
    ("no size", &[(A, "PUB foo\r\n")]),
    ("too many words of PUB", &[(A, "PUB foo re ply 1\r\nx\r\n")]),
    ("too many words of SUB", &[(A, "SUB foo q 1 2\r\n")]),
    ("too few words of SUB", &[(A, "SUB foo\r\n")]),
    ("no words of UNSUB", &[(A, "UNSUB\r\n")]),
    ("headers larger than all", &[(A, "HPUB foo 22 10\r\n")]),
    ("no size of headers", &[(A, "HPUB foo 22\r\n")]),
    ("a negative size of headers", &[(A, "HPUB foo -1 10\r\n")]),
    (
        "!headers without a CONNECT that says so",
        &[(A, "CONNECT {\"verbose\":false}\r\nHPUB foo 12 12\r\nNATS/1.0\r\n\r\n\r\n")],
    ),
    ("a max that is no number", &[(A, "SUB foo 1\r\nUNSUB 1 x\r\nPUB foo 1\r\nx\r\n")]),
    ("a max of nothing", &[(A, "SUB foo 1\r\nUNSUB 1 0\r\nPUB foo 1\r\nx\r\n")]),
    ("line ends in a payload", &[(A, "SUB foo 1\r\nPUB foo 4\r\n\r\n\r\n\r\n")]),
    ("sizes of headers that do not fit the block", &[(A, "SUB foo 1\r\nHPUB foo 5 12\r\nNATS/1.0\r\n\r\n\r\n")]),
    ("a block of headers that is none", &[(A, "SUB foo 1\r\nHPUB foo 5 7\r\nhello+1\r\n")]),
    ("a queue group with wildcards", &[(A, "SUB a.* q 1\r\nPUB a.b 1\r\nx\r\nPUB a.b.c 1\r\nx\r\n")]),
    ("an inbox", &[(A, "SUB _INBOX.x.* 1\r\nPUB _INBOX.x.1 1\r\nx\r\n")]),
    ("blanks behind a line", &[(A, "SUB foo 1  \r\nPUB foo 1  \r\nx\r\nUNSUB 1  \r\n")]),
    ("a long line", &[(A, "SUB {LONG} 1\r\n")]),
    ("a long line of PUB", &[(A, "PUB {LONG} 1\r\nx\r\n")]),
    ("a line without an end", &[(A, "SUB {LONG}")]),
    ("headers and a payload that are too large", &[(A, "HPUB foo 12 1048577\r\n")]),
    ("a payload that is too large", &[(A, "PUB foo 1048577\r\n")]),
];

/// What `{LONG}` in a script stands for: longer than a line may be.
const LONG_CHARACTERS: usize = 5000;

/// Where rollbook does not say what nats-server 2.15 says: the scripts, what is said by nats-server and by rollbook, and
/// why. Ends of lines are `|`.
const DIFFERENCES: &[(&[&str], &str, &str, &str)] = &[
    (
        &[
            "an error of the client",
            "a negative size",
            "a size that is no number",
            "a huge size",
            "no size",
            "too many words of PUB",
            "too many words of SUB",
            "too few words of SUB",
            "headers larger than all",
            "no size of headers",
            "a negative size of headers",
        ],
        "PONG| closed",
        "PONG|-ERR 'Unknown Protocol Operation'| closed",
        "nats-server closes without a word; rollbook says why",
    ),
    (
        &["!a CONNECT that is no JSON"],
        " closed",
        "-ERR 'Unknown Protocol Operation'| closed",
        "nats-server closes without a word; rollbook says why",
    ),
    (
        &["!headers without a CONNECT that says so"],
        " closed",
        "-ERR 'message headers not supported'| closed",
        "nats-server closes without a word; rollbook says why",
    ),
    (
        &["subjects of PUB that are none"],
        "PONG|PONG|",
        "PONG|-ERR 'Invalid Publish Subject'|-ERR 'Invalid Publish Subject'|PONG|",
        "nats-server drops the message without a word unless the client is pedantic",
    ),
    (
        &["a publish with wildcards"],
        "PONG|MSG foo.* 1 1|x|MSG foo.> 1 1|x|PONG|",
        "PONG|-ERR 'Invalid Publish Subject'|-ERR 'Invalid Publish Subject'|PONG|",
        "nats-server passes the message on to the same filter unless the client is pedantic; the subject of an event has none",
    ),
];

/// What one connection was told, without INFO, and whether the server closed it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    bytes: Vec<u8>,
    closed: bool,
}

impl Told {
    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes).replace("\r\n", "|");
        format!("{text}{}", if self.closed { " closed" } else { "" })
    }
}

/// A connection to either server.
struct Peer {
    socket: TcpStream,
    read: Vec<u8>,
    closed: bool,
    pings: usize,
}

impl Peer {
    fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).expect("a connection");
        socket.set_nodelay(true).expect("an option");
        socket.set_read_timeout(Some(SOON)).expect("a timeout");
        let mut peer = Self { socket, read: Vec::new(), closed: false, pings: 0 };
        while !peer.read.ends_with(b"\r\n") {
            peer.more();
        }
        peer
    }

    fn more(&mut self) {
        let mut buffer = [0; 65536];
        match self.socket.read(&mut buffer) {
            Ok(0) => self.closed = true,
            Ok(count) => self.read.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => self.closed = true,
            Err(error) => panic!("nothing comes: {error}: {}", String::from_utf8_lossy(&self.read).escape_debug()),
        }
    }

    /// Says something. A server that has closed does not hear it.
    fn say(&mut self, bytes: &[u8]) {
        self.closed |= self.socket.write_all(bytes).is_err();
        // Both servers take a word that begins so for a PING.
        self.pings += bytes.to_ascii_uppercase().windows(4).filter(|window| window == b"PING").count();
    }

    /// Waits for the answers to all PINGs, or for the end.
    fn settle(&mut self) {
        while !self.closed && self.read.windows(6).filter(|window| *window == b"PONG\r\n").count() < self.pings {
            self.more();
        }
    }

    /// What was told since `from` bytes.
    fn told(&self) -> Told {
        let mut bytes = Vec::new();
        for line in self.read.split_inclusive(|byte| *byte == b'\n') {
            if !line.starts_with(b"INFO ") {
                bytes.extend_from_slice(line);
            }
        }
        Told { bytes, closed: self.closed }
    }
}

/// Plays a script, and says what both connections were told.
fn play(address: SocketAddr, (name, steps): (&str, &[Step])) -> [Told; 2] {
    let mut peers = [Peer::connect(address), Peer::connect(address)];
    if !name.starts_with('!') {
        for peer in &mut peers {
            peer.say(CONNECT.as_bytes());
            peer.say(b"PING\r\n");
            peer.settle();
        }
    }
    for (who, bytes) in steps {
        peers[*who].say(bytes.replace("{LONG}", &"x".repeat(LONG_CHARACTERS)).as_bytes());
        if bytes.ends_with("PING\r\n") {
            peers[*who].settle();
        } else if !bytes.ends_with('\n') {
            // The next part comes in a segment of its own.
            std::thread::sleep(crate::harness::ms(2));
        }
    }
    peers.map(|mut peer| {
        peer.say(b"PING\r\n");
        peer.settle();
        peer.told()
    })
}

/// A real nats-server.
struct Server {
    child: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let clients = clients().expect("nats-server, which `make test-clients` installs");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut command = Command::new(clients.python().with_file_name("nats-server"));
        command.args(["-a", "127.0.0.1", "-p", "-1", "--ports_file_dir"]).arg(directory.path());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("nats-server, which `make test-clients` installs");
        let address = wait_for("the port of nats-server", SOON, || {
            let file = std::fs::read_dir(directory.path()).ok()?.next()?.ok()?.path();
            let ports: serde_json::Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
            ports["nats"][0].as_str()?.strip_prefix("nats://")?.parse().ok()
        });
        Self { child, address, _directory: directory }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn the_same_bytes_get_the_same_answers_as_from_nats_server() {
    let (server, node) = (Server::start(), Node::start(&options()));
    let mut failures = Vec::new();
    for script in SCRIPTS {
        let theirs = play(server.address, *script);
        let ours = play(address(&node), *script);
        let known = DIFFERENCES.iter().find(|(names, ..)| names.contains(&script.0));
        for (their, our) in theirs.iter().zip(&ours) {
            let allowed = known.is_some_and(|(_, nats, rollbook, _)| their.text() == *nats && our.text() == *rollbook);
            if their != our && !allowed {
                failures.push(format!("{}:\n  nats-server {}\n  rollbook    {}", script.0, their.text(), our.text()));
            }
        }
        if known.is_some() && theirs == ours {
            failures.push(format!("{}: no difference any more", script.0));
        }
    }
    report("nats-server", &failures);
}
