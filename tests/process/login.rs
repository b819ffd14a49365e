//! `rollbook login`, and what commands do with a context: addresses, tokens, TLS. The node is one of this test that
//! writes down what it is asked, or a real one behind a front that speaks TLS.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tempfile::TempDir;

use crate::harness::SOON;
use crate::harness::node::{Exit, Node, Options, rollbook, run_command};

const TOKEN: &str = "rb1_k7_s3cr3t";
const SELF: &str = r#"{"principal":"user:ann","roles":["operator"]}"#;

/// A user with a home of his own.
struct User(TempDir);

impl User {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("temporary directory"))
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("rollbook/config.toml")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = rollbook();
        command.args(args).env("XDG_CONFIG_HOME", self.0.path()).current_dir(self.0.path());
        command
    }

    fn run(&self, args: &[&str], input: &str) -> Exit {
        let exit = run_command(self.command(args), input.as_bytes(), SOON);
        assert!(!exit.stdout.contains("s3cr3t") && !exit.stderr.contains("s3cr3t"), "a secret is shown: {exit:#?}");
        exit
    }

    fn done(&self, args: &[&str], input: &str) -> String {
        let exit = self.run(args, input);
        assert_eq!(exit.code, Some(0), "{exit:#?}");
        exit.stdout
    }
}

/// A node that answers each request by its path and writes the requests down.
struct Recorder {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    fn start(answer: impl Fn(&str) -> (u16, String) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        // Ends with the process of the tests.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count > 0) {
                    head.push(byte[0]);
                }
                let head = String::from_utf8_lossy(&head).to_lowercase();
                let (status, body) = answer(&head);
                seen.lock().expect("no panic").push(head);
                let length = body.len();
                let whole =
                    format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
                // A client that is gone needs no answer.
                stream.write_all(whole.as_bytes()).ok();
            }
        });
        Self { address, requests }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn last(&self) -> String {
        self.requests.lock().expect("no panic").last().cloned().expect("a request")
    }
}

/// Knows the token, and gives it for ann's password.
fn node() -> Recorder {
    Recorder::start(|head| {
        let bearer = format!("authorization: bearer {TOKEN}");
        match head.split(' ').nth(1).unwrap_or_default() {
            "/api/security/login" if head.contains("authorization: basic yw5uom9wzw46cznjcjn0") => {
                (200, format!(r#"{{"token":"{TOKEN}","expires_at":"2030-01-01T00:00:00Z"}}"#))
            }
            "/api/security/login" => (401, "no".to_owned()),
            _ if !head.contains(&bearer) => (401, "who are you?\n".to_owned()),
            "/api/security/self" => (200, SELF.to_owned()),
            "/readyz" => (200, "ready".to_owned()),
            _ => (403, r#"{"title":"Forbidden","detail":"user:ann has no right","code":"forbidden"}"#.to_owned()),
        }
    })
}

#[test]
fn a_piped_token_is_kept_for_later_commands_until_logout() {
    let (user, node) = (User::new(), node());
    let told = user.done(&["login", "--url", &node.url(), "--name", "lab"], &format!("{TOKEN}\n"));
    assert_eq!(told, "logged in to lab as user:ann (operator)\n");
    let mode = std::fs::metadata(user.file()).expect("the contexts").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "{mode:o}");
    assert_eq!(user.done(&["health"], ""), "ready\n");
    assert!(node.last().contains("authorization: bearer rb1_k7_"), "{}", node.last());
    let list = user.done(&["context", "list"], "");
    assert!(list.contains("lab") && list.contains("rb1_k7"), "{list}");
    user.done(&["context", "show", "-o", "json"], "");
    user.done(&["logout"], "");
    let exit = user.run(&["consumers", "list"], "");
    assert_eq!(exit.code, Some(1), "{exit:#?}");
    assert!(exit.stderr.contains("log in with `rollbook login`"), "{exit:#?}");
}

#[test]
fn a_token_that_the_node_does_not_know_is_not_kept() {
    let (user, node) = (User::new(), node());
    for (input, part) in
        [("rb1_k8_s3cr3t\n", "does not accept the token"), ("", "ended before"), ("a s3cr3t\n", "not a token")]
    {
        let exit = user.run(&["login", "--url", &node.url()], input);
        assert!(exit.code != Some(0) && exit.stderr.contains(part), "{part}: {exit:#?}");
        assert!(!user.file().exists());
    }
}

#[test]
fn a_password_is_sent_once_and_the_token_for_it_is_kept() {
    let (user, node) = (User::new(), node());
    let login = ["login", "--password", "--url", &node.url(), "--name", "lab"];
    let exit = user.run(&login, "ann\nwrong\n");
    assert!(exit.stderr.contains("user or password is wrong"), "{exit:#?}");
    user.done(&login, "ann\nopen:s3cr3t\n");
    let kept = std::fs::read_to_string(user.file()).expect("the contexts");
    assert!(kept.contains(TOKEN) && kept.contains("2030-01-01") && !kept.contains("open"), "{kept}");
    let by_flag = [&login[..], &["--user", "ann"]].concat();
    user.done(&by_flag, "open:s3cr3t\n");
    assert_eq!(user.done(&["health"], ""), "ready\n");
}

#[test]
fn the_environment_gives_a_token_and_a_refusal_says_what_explains_it() {
    let (user, node) = (User::new(), node());
    let mut command = user.command(&["consumers", "list", "--web-url", &node.url()]);
    command.env("ROLLBOOK_TOKEN", TOKEN);
    let exit = run_command(command, b"", SOON);
    assert_eq!(exit.code, Some(1), "{exit:#?}");
    assert!(exit.stderr.contains("has no right (HTTP 403); `rollbook can"), "{exit:#?}");
    let mut command = user.command(&["health", "--web-url", "http://192.0.2.1:7440"]);
    command.env("ROLLBOOK_TOKEN", TOKEN);
    let exit = run_command(command, b"", SOON);
    assert_eq!(exit.code, Some(2), "{exit:#?}");
    assert!(exit.stderr.contains("in clear text"), "{exit:#?}");
}

#[test]
fn contexts_that_others_can_read_are_refused() {
    let (user, node) = (User::new(), node());
    user.done(&["login", "--url", &node.url()], TOKEN);
    std::fs::set_permissions(user.file(), std::fs::Permissions::from_mode(0o644)).expect("change the mode");
    let exit = user.run(&["health"], "");
    assert_eq!(exit.code, Some(2), "{exit:#?}");
    assert!(exit.stderr.contains("run `chmod 600 "), "{exit:#?}");
    // A node that is named needs no context.
    let exit = user.run(&["health", "--web-url", &node.url()], "");
    assert!(exit.stderr.contains("who are you?"), "{exit:#?}");
}

/// Whether that program is on this machine; says so when not.
fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(program).exists());
    if !found {
        eprintln!("skipped: there is no {program}");
    }
    found
}

#[test]
fn a_terminal_does_not_show_the_token_and_echoes_again_afterwards() {
    if !has("python3") {
        return;
    }
    let (user, node) = (User::new(), node());
    // Types the token on a pseudo terminal, and says whether the terminal echoes before, while and after it is asked.
    let script = r#"
import os, pty, sys, termios, time
child, terminal = pty.fork()
if child == 0:
    os.execv(sys.argv[1], sys.argv[1:])
echo = lambda: bool(termios.tcgetattr(terminal)[3] & termios.ECHO)
print("before", echo())
end = time.monotonic() + 20
while echo() and time.monotonic() < end:
    time.sleep(0.01)
print("asked", echo())
os.write(terminal, b"rb1_k7_s3cr3t\n")
shown = b""
try:
    while chunk := os.read(terminal, 4096):
        shown += chunk
except OSError:
    pass
print("status", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(shown.decode())
"#;
    let mut command = Command::new("python3");
    command.args(["-c", script, env!("CARGO_BIN_EXE_rollbook"), "login", "--url", &node.url(), "--name", "lab"]);
    command.env("XDG_CONFIG_HOME", user.0.path()).env_remove("ROLLBOOK_TOKEN");
    let exit = run_command(command, b"", SOON * 2);
    for part in ["before True", "asked False", "status 0", "Token: ", "logged in to lab as user:ann"] {
        assert!(exit.stdout.contains(part), "{part}: {exit:#?}");
    }
    assert!(!exit.stdout.contains("s3cr3t"), "{exit:#?}");
}

/// A front that speaks TLS and hands the clear text to a node.
struct Front {
    child: Child,
    address: SocketAddr,
}

impl Drop for Front {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Front {
    fn start(certs: &Path, to: SocketAddr) -> Self {
        let script = r#"
import socket, ssl, sys, threading
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(sys.argv[1] + "/node-1.pem", sys.argv[1] + "/node-1.key")
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
def pump(a, b):
    try:
        while data := a.recv(65536):
            b.sendall(data)
        b.shutdown(socket.SHUT_WR)
    except OSError:
        a.close(), b.close()
def serve(raw):
    try:
        near = context.wrap_socket(raw, server_side=True)
    except OSError:
        return raw.close()
    far = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
    threading.Thread(target=pump, args=(near, far), daemon=True).start()
    threading.Thread(target=pump, args=(far, near), daemon=True).start()
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"#;
        let mut command = Command::new("python3");
        command.args(["-c", script]).arg(certs).arg(to.port().to_string()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("start the front");
        let mut output = child.stdout.take().expect("piped stdout");
        let (mut line, mut byte, end) = (String::new(), [0], Instant::now() + SOON);
        while !line.ends_with('\n') && Instant::now() < end && output.read(&mut byte).is_ok_and(|count| count > 0) {
            line.push(char::from(byte[0]));
        }
        let port = line.trim().parse().unwrap_or_else(|_| panic!("the front did not start: {line:?}"));
        Self { child, address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    fn url(&self) -> String {
        format!("https://{}", self.address)
    }
}

#[test]
fn commands_and_the_benchmark_talk_to_a_node_over_tls() {
    if !has("python3") {
        return;
    }
    let (user, node) = (User::new(), Node::start(&Options::new()));
    user.done(&["cert", "dev", "--nodes", "1"], "");
    let certs = user.0.path().join("certs");
    let (log, web) = (Front::start(&certs, node.log), Front::start(&certs, node.web));
    let urls = ["--log-url", &log.url(), "--web-url", &web.url()];
    let with_ca = [&urls[..], &["--ca", "certs/ca.pem"]].concat();
    let run = |args: &[&str], options: &[&str]| user.run(&[args, options].concat(), "");
    let subject = "tls.x";
    for args in [
        &["health"][..],
        &["publish", subject, "{\"n\":1}"],
        &["subscribe", subject, "--start", "oldest", "--count", "1"],
        &["namespaces", "list"],
        &["bench", "publish", "--connections", "2", "--n", "20", "--runs", "1"],
        &["bench", "handshake", "--connections", "2", "--n", "10", "--runs", "1"],
    ] {
        // Python's TLS gives tickets, so a handshake can be resumed.
        let exit = run(args, &with_ca);
        assert_eq!(exit.code, Some(0), "{args:?}: {exit:#?}");
    }
    user.done(&["cert", "dev", "--dir", "others", "--nodes", "1"], "");
    let exit = run(&["health"], &[&urls[..], &["--ca", "others/ca.pem"]].concat());
    assert_eq!(exit.code, Some(1), "{exit:#?}");
    assert!(exit.stderr.contains("pass the CA of the node with --ca"), "{exit:#?}");
    let exit =
        run(&["publish", subject, "1"], &["--log-url", &format!("https://{}", node.log), "--ca", "certs/ca.pem"]);
    assert!(exit.stderr.contains("may not speak TLS"), "{exit:#?}");
}
