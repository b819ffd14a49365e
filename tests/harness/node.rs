//! A node as a user runs it: the real binary, its data directory, its two addresses.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::http::{Http, Published, Response};
use super::sse::Sse;
use super::{encode, quote};

/// Bound of a start, recovery of a killed node included.
const READY: Duration = Duration::from_secs(20);
/// Bound of a graceful stop, in which clients have ten seconds and listeners five.
const STOP: Duration = Duration::from_secs(25);
/// Namespaces of the shared node, one a test.
const NAMESPACES: u32 = 250;

/// Flags and environment of a node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    args: Vec<String>,
    env: Vec<(String, String)>,
    listen: Option<String>,
    peer: Option<String>,
}

impl Options {
    /// Namespaces are created by their first publish.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A fixed list of namespaces.
    pub(crate) fn namespaces(list: &str) -> Self {
        Self::new().arg("--namespaces").arg(list)
    }

    pub(crate) fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Where other nodes call, instead of a free port.
    pub(crate) fn peer(mut self, address: &str) -> Self {
        self.peer = Some(address.to_owned());
        self
    }

    /// The address of the event log, instead of a free port.
    pub(crate) fn listen(mut self, address: &str) -> Self {
        self.listen = Some(address.to_owned());
        self
    }
}

/// How a program ended, and what it said.
#[derive(Debug)]
pub(crate) struct Exit {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A running node; killed when dropped.
pub(crate) struct Node {
    /// Address of the event log.
    pub(crate) log: SocketAddr,
    /// Address of the web listener.
    pub(crate) web: SocketAddr,
    /// The data directory.
    pub(crate) data: PathBuf,
    options: Options,
    process: Process,
    keep: Option<TempDir>,
}

struct Process {
    child: Child,
    guard: Child,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
}

/// The program under test, free of settings of the caller's environment and of the caller's contexts.
pub(crate) fn rollbook() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rollbook"));
    for (name, _) in std::env::vars() {
        if name.starts_with("ROLLBOOK_") {
            command.env_remove(name);
        }
    }
    command.env_remove("XDG_CONFIG_HOME").env_remove("HOME");
    command
}

/// Runs a program to its end; panics when that takes longer than `bound`.
pub(crate) fn run_command(mut command: Command, input: &[u8], bound: Duration) -> Exit {
    command.stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("start the program");
    let mut stdin = child.stdin.take().expect("piped stdin");
    let input = input.to_vec();
    std::thread::spawn(move || stdin.write_all(&input));
    let (stdout, out) = collect(child.stdout.take().expect("piped stdout"));
    let (stderr, _) = collect(child.stderr.take().expect("piped stderr"));
    let code = exit_code(&mut child, bound);
    let Some(code) = code else {
        child.kill().expect("kill a program that hangs");
        panic!("{command:?} did not end: {} {}", lock(&stdout), lock(&stderr));
    };
    while out.recv().is_ok() {}
    std::thread::sleep(super::ms(20));
    Exit { code, stdout: lock(&stdout).clone(), stderr: lock(&stderr).clone() }
}

impl Node {
    /// Starts a node on a fresh temporary data directory.
    pub(crate) fn start(options: &Options) -> Self {
        let keep = TempDir::with_prefix("rollbook-test-").expect("temporary directory");
        let mut node = Self::start_at(options, &keep.path().join("data"));
        node.keep = Some(keep);
        node
    }

    /// Starts a node on that data directory.
    pub(crate) fn start_at(options: &Options, data: &Path) -> Self {
        match Self::launch(options, data) {
            Ok(node) => node,
            Err(exit) => panic!("the node did not start: {exit:#?}"),
        }
    }

    /// Starts a node, or says how the attempt ended.
    pub(crate) fn launch(options: &Options, data: &Path) -> Result<Self, Exit> {
        let (mut process, lines) = Self::spawn(options, data);
        match process.await_ready(&lines) {
            Some((log, web)) => {
                Ok(Self { log, web, data: data.to_owned(), options: options.clone(), process, keep: None })
            }
            None => Err(process.into_exit()),
        }
    }

    fn spawn(options: &Options, data: &Path) -> (Process, Receiver<String>) {
        let mut command = rollbook();
        command.arg("serve").arg("--data").arg(data);
        command.args(["--peer", options.peer.as_deref().unwrap_or("127.0.0.1:0")]);
        command.args(["--web", "127.0.0.1:0", "--log"]);
        command.arg(options.listen.as_deref().unwrap_or("127.0.0.1:0"));
        command.args(&options.args);
        command.envs(options.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("start rollbook");
        let (stdout, lines) = collect(child.stdout.take().expect("piped stdout"));
        let (stderr, _) = collect(child.stderr.take().expect("piped stderr"));
        (Process { guard: guard(child.id(), None), child, stdout, stderr }, lines)
    }

    /// Starts a node that must not become ready within `bound`; it is killed afterwards.
    pub(crate) fn not_ready(options: &Options, data: &Path, bound: Duration) -> bool {
        let (mut process, lines) = Self::spawn(options, data);
        let deadline = Instant::now() + bound;
        loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.trim() == "ready" => return false,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return process.child.try_wait().is_ok_and(|code| code.is_none()),
                Err(RecvTimeoutError::Disconnected) => {
                    process.show();
                    return false;
                }
            }
        }
    }

    /// Runs a node for that long, then kills it.
    pub(crate) fn run_for(options: &Options, data: &Path, long: Duration) {
        let (process, _lines) = Self::spawn(options, data);
        std::thread::sleep(long);
        drop(process);
    }

    /// The one node that tests share which only need names of their own.
    pub(crate) fn shared() -> Shared {
        static NODE: OnceLock<Node> = OnceLock::new();
        Shared(NODE.get_or_init(|| {
            let mut names: Vec<String> = (1..=NAMESPACES).map(|n| format!("t{n}")).collect();
            names.extend(["a", "b", "a_b", "my-app"].map(str::to_owned));
            let mut node = Self::start(&Options::namespaces(&names.join(",")));
            // A static is never dropped: its guard removes the directory.
            let keep = node.keep.take().expect("a temporary directory").keep();
            node.process.guard.kill().expect("replace the guard");
            node.process.guard.wait().expect("replace the guard");
            node.process.guard = guard(node.process.child.id(), Some(&keep));
            node
        }))
    }

    /// `kill -9`.
    pub(crate) fn kill9(&mut self) {
        self.process.child.kill().expect("kill the node");
        self.process.child.wait().expect("wait for the killed node");
    }

    /// Sends SIGTERM and does not wait.
    pub(crate) fn signal_term(&self) {
        let pid = self.process.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(sent.expect("run kill").success(), "SIGTERM not sent");
    }

    /// SIGTERM; the node must end with code 0 in time.
    pub(crate) fn terminate(&mut self) {
        self.signal_term();
        self.stopped();
    }

    /// Waits for the end of a node that was told to stop.
    pub(crate) fn stopped(&mut self) {
        let code = exit_code(&mut self.process.child, STOP);
        assert_eq!(code, Some(Some(0)), "exit code after SIGTERM ({STOP:?})");
    }

    /// Waits for the end of a node that ends by itself, and how it ended.
    pub(crate) fn ended(&mut self, bound: Duration) -> Exit {
        let code = exit_code(&mut self.process.child, bound);
        let code = code.unwrap_or_else(|| panic!("the node still runs after {bound:?}"));
        std::thread::sleep(super::ms(20));
        Exit { code, stdout: self.stdout(), stderr: self.stderr() }
    }

    /// Starts again on the same data; a node that still runs is killed first.
    pub(crate) fn restart(&mut self) {
        self.restart_with(&self.options.clone());
    }

    /// Starts again on the same data with other options.
    pub(crate) fn restart_with(&mut self, options: &Options) {
        self.kill9();
        let mut next = Self::start_at(options, &self.data);
        next.keep = self.keep.take();
        *self = next;
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.child.id()
    }

    pub(crate) fn stdout(&self) -> String {
        lock(&self.process.stdout).clone()
    }

    /// What the node wrote into its log.
    pub(crate) fn stderr(&self) -> String {
        lock(&self.process.stderr).clone()
    }

    pub(crate) fn http(&self) -> Http {
        Http::connect(self.log)
    }

    /// One POST on a connection of its own.
    pub(crate) fn post(&self, body: impl AsRef<[u8]>) -> Response {
        self.http().post(body)
    }

    /// One GET on a connection of its own that must not become a stream.
    pub(crate) fn get(&self, target: &str) -> Response {
        self.http().request("GET", target, &[], b"")
    }

    /// Publishes; it must be accepted.
    pub(crate) fn publish(&self, subject: &str, payload: &str) -> Published {
        let subject = quote(subject);
        let body = format!("{{\"subject\":{subject},\"payload\":{payload}}}");
        self.post(body).published()
    }

    /// Subscribes with these query parameters.
    pub(crate) fn subscribe(&self, query: &[(&str, &str)]) -> Sse {
        Sse::open(self.log, &target(query), &[])
    }

    /// Everything a pattern matches, from the oldest event on.
    pub(crate) fn replay(&self, pattern: &str) -> Sse {
        self.subscribe(&[("subject", pattern), ("start", "oldest")])
    }

    pub(crate) fn ack(&self, consumer_id: &str, event_id: &str) -> Response {
        let target = target(&[("consumer_id", consumer_id), ("event_id", event_id)]);
        self.http().request("PUT", &target, &[], b"")
    }

    /// A request to the web listener.
    pub(crate) fn web(&self, method: &str, target: &str, body: &str) -> Response {
        self.web_with(method, target, &[], body)
    }

    /// The same with more headers.
    pub(crate) fn web_with(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Response {
        let mut all = vec![("Content-Type", "application/json")];
        all.extend_from_slice(headers);
        Http::connect(self.web).request(method, target, &all, body.as_bytes())
    }

    /// A number that the node tells about itself.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let text = self.web("GET", "/metrics", "").text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse::<f64>().ok()).unwrap_or_else(|| panic!("{name}: {text}")) as u64
    }

    /// How many actors of a kind live at the node.
    pub(crate) fn actors(&self, kind: &str) -> u64 {
        self.metric(&format!("rollbook_actors{{kind=\"{kind}\"}}"))
    }

    /// The description of a durable consumer, once it is listed.
    pub(crate) fn consumer(&self, namespace: &str, name: &str) -> Option<Value> {
        let listed = self.web("GET", &format!("/api/consumers?namespace={namespace}"), "");
        assert_eq!(listed.status, 200, "/api/consumers: {}", listed.text());
        let items = listed.json()["items"].as_array().cloned();
        let mut items = items.unwrap_or_default().into_iter();
        items.find(|item| item["name"] == name && item["namespace"] == namespace)
    }
}

/// `/?name=value&...`
pub(crate) fn target(query: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = query.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    format!("/?{}", pairs.join("&"))
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.process.show();
        }
    }
}

/// A borrow of the shared node that shows the node's log when its test fails.
pub(crate) struct Shared(&'static Node);

impl Shared {
    /// A namespace that no other test uses.
    pub(crate) fn namespace(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(next <= NAMESPACES, "declare more namespaces");
        format!("t{next}")
    }
}

impl Deref for Shared {
    type Target = Node;

    fn deref(&self) -> &Node {
        self.0
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.process.show();
        }
    }
}

impl Process {
    /// The addresses of the event log and of the web listener; none if it ended.
    fn await_ready(&mut self, lines: &Receiver<String>) -> Option<(SocketAddr, SocketAddr)> {
        let deadline = Instant::now() + READY;
        let (mut log, mut web) = (None, None);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match lines.recv_timeout(left) {
                Ok(line) => {
                    let mut words = line.split_whitespace();
                    match (words.next(), words.next()) {
                        (Some("sse"), Some(url)) => log = Some(address(url)),
                        (Some("web"), Some(url)) => web = Some(address(url)),
                        (Some("ready"), _) => break,
                        _ => {}
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {
                    self.show();
                    panic!("the node was not ready after {READY:?}");
                }
            }
        }
        let missing = || panic!("ready without a line per door: {:?}", lock(&self.stdout));
        Some((log.unwrap_or_else(missing), web.unwrap_or_else(missing)))
    }

    fn into_exit(mut self) -> Exit {
        let code = exit_code(&mut self.child, STOP);
        let code = code.unwrap_or_else(|| panic!("stdout closed but the node runs"));
        std::thread::sleep(super::ms(20));
        Exit { code, stdout: lock(&self.stdout).clone(), stderr: lock(&self.stderr).clone() }
    }

    /// Prints the end of the node's log.
    fn show(&self) {
        let stderr = lock(&self.stderr);
        let lines: Vec<&str> = stderr.lines().collect();
        let tail = lines[lines.len().saturating_sub(40)..].join("\n");
        eprintln!("--- log of node {} ---\n{tail}\n---", self.child.id());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The guard first: it must not see the pipe close and kill a reused id.
        for child in [&mut self.guard, &mut self.child] {
            let killed = child.kill().and_then(|()| child.wait());
            if let Err(error) = killed {
                eprintln!("process {}: {error}", child.id());
            }
        }
    }
}

/// A shell that kills the node when the test process is gone, however it went.
fn guard(pid: u32, remove: Option<&Path>) -> Child {
    let script = r#"cat >/dev/null; kill -9 "$1" 2>/dev/null; [ -z "$2" ] || { sleep 0.3; rm -rf "$2"; }"#;
    let mut command = Command::new("sh");
    command.args(["-c", script, "guard", &pid.to_string()]);
    command.arg(remove.unwrap_or(Path::new("")));
    command.stdin(Stdio::piped());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("start the guard")
}

fn address(url: &str) -> SocketAddr {
    let host =
        url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")).map(|rest| rest.trim_end_matches('/'));
    let parsed = host.and_then(|host| host.parse().ok());
    parsed.unwrap_or_else(|| panic!("not a URL with an address: {url:?}"))
}

/// Reads a pipe to its end; the lines also arrive on the channel.
fn collect(pipe: impl Read + Send + 'static) -> (Arc<Mutex<String>>, Receiver<String>) {
    let text = Arc::new(Mutex::new(String::new()));
    let (sender, lines) = channel();
    let target = Arc::clone(&text);
    std::thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            let string = String::from_utf8_lossy(&line).into_owned();
            line.clear();
            lock(&target).push_str(&string);
            // Nobody listens once the node is ready.
            drop(sender.send(string));
        }
    });
    (text, lines)
}

/// The exit code (none after a signal), or nothing when it still runs.
fn exit_code(child: &mut Child, bound: Duration) -> Option<Option<i32>> {
    let deadline = Instant::now() + bound;
    loop {
        if let Some(status) = child.try_wait().expect("wait for the program") {
            return Some(status.code());
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(super::ms(10));
    }
}

fn lock(text: &Mutex<String>) -> MutexGuard<'_, String> {
    text.lock().expect("no reader panics")
}
