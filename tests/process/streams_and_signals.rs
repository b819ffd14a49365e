//! The process and what is around it: streams that are closed or full, signals, a limit of open files.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::harness::http::Http;
use crate::harness::node::{Node, Options, rollbook};
use crate::harness::sse::{End, Sse};
use crate::harness::{SOON, ms, wait_for};

/// Longest time a stop may take here.
const STOP: Duration = Duration::from_secs(20);

/// A node whose streams, limits and signals are a test's own. Killed when dropped.
struct Raw {
    child: Child,
    log: SocketAddr,
    web: SocketAddr,
    _keep: TempDir,
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

impl Raw {
    /// Starts it. `before` is a part of a shell script that runs in the process that becomes the node.
    fn spawn(before: &str, env: &[(&str, &str)], stdout: Stdio, stderr: Stdio) -> Self {
        let keep = tempfile::tempdir().expect("temporary directory");
        let (log, web) = (free_address(), free_address());
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{before}\nexec \"$@\""), "sh", env!("CARGO_BIN_EXE_rollbook"), "serve"]);
        command.arg("--data").arg(keep.path().join("data"));
        command.args(["--log", &log.to_string(), "--web", &web.to_string(), "--peer", "off"]);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ROLLBOOK_")) {
            command.env_remove(name);
        }
        command.env_remove("RUST_BACKTRACE").envs(env.iter().copied());
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        Self { child: command.spawn().expect("start a node"), log, web, _keep: keep }
    }

    fn await_ready(&mut self) {
        wait_for("the node to be ready", SOON * 2, || {
            assert_eq!(self.child.try_wait().expect("its state"), None, "the node ended at its start");
            let mut http = Http::try_connect(self.web).ok()?;
            http.try_request("GET", "/readyz", &[], b"").ok().filter(|answer| answer.status == 200).map(drop)
        });
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("its number");
        kill_process(pid, signal).expect("a signal that is sent");
    }

    /// Code and signal of its end.
    fn ended(&mut self, bound: Duration) -> (Option<i32>, Option<i32>) {
        let status = wait_for("the node to end", bound, || self.child.try_wait().expect("its state"));
        (status.code(), status.signal())
    }

    /// It does all that it should, and ends well when it is told to stop.
    fn serves_and_stops(&mut self, what: &str) {
        self.await_ready();
        for _ in 0..3 {
            let event = b"{\"subject\":\"app.x\",\"payload\":1}";
            assert_eq!(Http::connect(self.log).request("POST", "/", &[], event).status, 202, "{what}");
            let json = [("Content-Type", "application/json")];
            let config = Http::connect(self.web).request("POST", "/api/config", &json, b"{\"a\":1}");
            assert_eq!(config.status, 200, "{what}");
            assert_eq!(Http::connect(self.web).request("GET", "/api/stats", &[], b"").status, 200, "{what}");
        }
        let mut stream = Sse::open(self.log, "/?subject=app.x&start=oldest", &[]);
        stream.next_event(SOON);
        self.signal(Signal::TERM);
        while stream.try_event(SOON).is_some() {}
        assert_eq!(stream.end(SOON), End::Clean, "{what}: {}", stream.raw());
        assert!(stream.raw().contains("retry: "), "{what}: {}", stream.raw());
        assert_eq!(self.ended(STOP), (Some(0), None), "{what}");
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // It has ended already when its test went well.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").expect("/dev/full").into()
}

const DEBUG: [(&str, &str); 1] = [("ROLLBOOK_LOG__FILTER", "debug")];

#[test]
fn log_lines_that_cannot_be_written_cost_nothing_else() {
    let mut node = Raw::spawn("", &DEBUG, Stdio::null(), full());
    node.serves_and_stops("standard error on a full disk");
    let mut node = Raw::spawn("exec 2>&-", &DEBUG, Stdio::null(), Stdio::null());
    node.serves_and_stops("without standard error");
    let mut node = Raw::spawn("", &DEBUG, Stdio::null(), Stdio::piped());
    node.await_ready();
    drop(node.child.stderr.take());
    node.serves_and_stops("standard error whose reader has gone");
}

#[test]
fn log_lines_that_nobody_reads_do_not_hold_up_the_node() {
    let mut node = Raw::spawn("", &[("ROLLBOOK_LOG__FILTER", "trace")], Stdio::null(), Stdio::piped());
    // Far more than a pipe and the queue take.
    let pipe = node.child.stderr.take().expect("a pipe");
    node.await_ready();
    let event = format!("{{\"subject\":\"app.x\",\"payload\":\"{}\"}}", "x".repeat(500));
    let began = Instant::now();
    for _ in 0..500 {
        assert_eq!(Http::connect(node.log).request("POST", "/", &[], event.as_bytes()).status, 202);
    }
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    node.serves_and_stops("standard error that nobody reads");
    drop(pipe);
}

#[test]
fn standard_output_that_is_closed_or_full_costs_nothing_else() {
    let mut node = Raw::spawn("", &[], full(), Stdio::null());
    node.serves_and_stops("standard output on a full disk");
    let mut node = Raw::spawn("exec 1>&-", &[], Stdio::null(), Stdio::null());
    node.serves_and_stops("without standard output");
    let mut node = Raw::spawn("", &[], Stdio::piped(), Stdio::null());
    drop(node.child.stdout.take());
    node.serves_and_stops("a reader that leaves at once");
    let mut node = Raw::spawn("", &[], Stdio::piped(), Stdio::null());
    let mut line = String::new();
    BufReader::new(node.child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    assert!(line.starts_with("sse   http://"), "{line}");
    node.serves_and_stops("a reader that leaves after the first line");
}

#[test]
fn a_start_tells_who_starts_and_where() {
    let mut node = Raw::spawn("", &[], Stdio::null(), Stdio::piped());
    node.await_ready();
    node.signal(Signal::TERM);
    assert_eq!(node.ended(STOP), (Some(0), None));
    let mut text = String::new();
    node.child.stderr.take().expect("a pipe").read_to_string(&mut text).expect("its log");
    let (log, web) = (format!("http://{}/", node.log), format!("http://{}/", node.web));
    for part in [env!("CARGO_PKG_VERSION"), "node=1", "data=", "peer=", "last=", "applied=", &log, &web, "ready"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    for line in text.lines().filter(|line| line.contains(" INFO ")) {
        assert!(!line.contains("Some(") && !line.contains("None"), "{line}");
    }
}

#[test]
fn a_hangup_means_nothing_to_a_service() {
    // Without a terminal, as systemd starts it.
    let mut node = Raw::spawn("", &[], Stdio::null(), Stdio::null());
    if File::open("/dev/tty").is_ok() {
        eprintln!("note: there is a terminal, so SIGHUP would mean that it closes; not tried");
        return;
    }
    node.await_ready();
    let mut stream = Sse::open(node.log, "/?subject=app.x&start=newest", &[]);
    for _ in 0..3 {
        node.signal(Signal::HUP);
        std::thread::sleep(ms(50));
    }
    let event = b"{\"subject\":\"app.x\",\"payload\":1}";
    assert_eq!(Http::connect(node.log).request("POST", "/", &[], event).status, 202);
    assert_eq!(stream.next_event(SOON).payload(), 1);
    node.signal(Signal::TERM);
    assert_eq!(node.ended(STOP), (Some(0), None));
}

#[test]
fn a_terminal_that_closes_stops_the_node_it_started() {
    // `script` gives the node a terminal of its own.
    let Ok(true) = Command::new("script").arg("--version").stdout(Stdio::null()).status().map(|s| s.success()) else {
        eprintln!("note: there is no `script`; not tried");
        return;
    };
    let keep = tempfile::tempdir().expect("temporary directory");
    let (log, web) = (free_address(), free_address());
    let (code, pid) = (keep.path().join("code"), keep.path().join("pid"));
    let inner = format!(
        "{} serve --data {} --log {log} --web {web} --peer off & echo $! >{}; wait $!; echo $? >{}",
        env!("CARGO_BIN_EXE_rollbook"),
        keep.path().join("data").display(),
        pid.display(),
        code.display()
    );
    let mut command = Command::new("script");
    command.args(["--quiet", "--command", &inner, "/dev/null"]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut terminal = command.spawn().expect("a terminal");
    wait_for("the node to be ready", SOON * 2, || {
        let mut http = Http::try_connect(web).ok()?;
        http.try_request("GET", "/readyz", &[], b"").ok().filter(|answer| answer.status == 200).map(drop)
    });
    let number = std::fs::read_to_string(&pid).ok().and_then(|text| text.trim().parse().ok());
    kill_process(Pid::from_raw(number.expect("its number")).expect("its number"), Signal::HUP).expect("a signal");
    let code =
        wait_for("the node to end", STOP, || std::fs::read_to_string(&code).ok().filter(|text| text.ends_with('\n')));
    assert_eq!(code, "0\n");
    drop(terminal.kill());
    drop(terminal.wait());
}

#[test]
fn told_twice_the_node_waits_for_no_client() {
    let options = Options::new().env("ROLLBOOK_WEBSOCKET__DRAIN_TIMEOUT", "1m");
    let mut node = Node::start(&options);
    let (users, shop) = crate::doors::websocket::asked(node.web);
    node.signal_term();
    // Two that come together are one.
    node.signal_term();
    users.next("disconnect");
    assert!(!users.hears("disconnect", ms(1500)));
    users.send(&serde_json::json!({ "type": "ping" }));
    users.next("pong");
    let began = Instant::now();
    node.signal_term();
    node.stopped();
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    drop(shop);
}

/// What the kernel says of the open files of a process: the soft limit, and how many there are.
fn open_files(pid: u32) -> (u64, usize) {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("its limits");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line about files");
    let soft = line.split_whitespace().nth(3).and_then(|soft| soft.parse().ok());
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("its files").count();
    (soft.expect("a number"), open)
}

#[test]
fn the_soft_limit_of_open_files_is_raised_to_the_hard_one() {
    let mut node = Raw::spawn(
        "ulimit -Sn 100; ulimit -Hn 4000; export ROLLBOOK_SSE__STREAMS_MAX=9999",
        &[],
        Stdio::null(),
        Stdio::piped(),
    );
    node.await_ready();
    assert_eq!(open_files(node.child.id()).0, 4000);
    node.signal(Signal::TERM);
    assert_eq!(node.ended(STOP), (Some(0), None));
    let mut text = String::new();
    node.child.stderr.take().expect("a pipe").read_to_string(&mut text).expect("its log");
    assert!(text.contains("WARN") && text.contains("open_files=4000") && text.contains("LimitNOFILE"), "{text}");
}

#[test]
fn a_crowd_of_connections_leaves_the_store_its_files() {
    let mut node = Raw::spawn("ulimit -n 256", &[], Stdio::null(), Stdio::null());
    node.await_ready();
    let pid = node.child.id();
    assert_eq!(open_files(pid).0, 256);
    let mut publisher = Http::connect(node.log);
    let event = format!("{{\"subject\":\"app.large\",\"payload\":\"{}\"}}", "x".repeat(200_000));
    assert_eq!(publisher.request("POST", "/", &[], event.as_bytes()).status, 202);
    let mut crowd = Vec::new();
    for at in 0..200 {
        let (target, path) = if at % 2 == 0 { (node.log, "/?subject=app.x") } else { (node.web, "/readyz") };
        let stream = TcpStream::connect_timeout(&target, SOON).expect("a place in the queue of the listener");
        let head = format!("GET {path} HTTP/1.1\r\nHost: {target}\r\n\r\n");
        drop(std::io::Write::write_all(&mut &stream, head.as_bytes()));
        crowd.push(stream);
    }
    let mut most = 0;
    // Enough for many files of the log and of the state.
    for nth in 0..400 {
        // A connection that is idle makes room for others.
        let answer = publisher.try_request("POST", "/", &[], event.as_bytes()).unwrap_or_else(|_| {
            publisher = Http::connect(node.log);
            publisher.request("POST", "/", &[], event.as_bytes())
        });
        assert_eq!(answer.status, 202, "publish {nth}: {}", answer.text());
        most = most.max(open_files(pid).1);
    }
    assert!(most < 256, "{most} files are open");
    drop(crowd);
    wait_for("room for others", SOON, || {
        let mut http = Http::try_connect(node.log).ok()?;
        http.set_read_timeout(ms(1000));
        http.try_request("POST", "/", &[], b"{\"subject\":\"app.y\"}")
            .ok()
            .filter(|answer| answer.status == 202)
            .map(drop)
    });
    node.serves_and_stops("after the crowd");
}

#[test]
fn too_few_open_files_are_refused_with_a_reason() {
    let mut node = Raw::spawn("ulimit -n 64", &[], Stdio::null(), Stdio::piped());
    assert_eq!(node.ended(SOON), (Some(1), None));
    let mut text = String::new();
    node.child.stderr.take().expect("a pipe").read_to_string(&mut text).expect("its last line");
    assert!(
        text.contains("error: the system allows this process 64 open files") && text.contains("ulimit -n"),
        "{text}"
    );
}

#[test]
fn a_subscription_ends_when_nobody_reads_what_it_prints() {
    let node = Node::shared();
    let ns = node.namespace();
    node.publish(&format!("{ns}.x"), "1");
    let mut command = rollbook();
    command.args(["subscribe", &format!("{ns}.>"), "--start", "oldest", "--log-url", &format!("http://{}", node.log)]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("start the program");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
    assert!(line.contains("\"payload\":1"), "{line}");
    // As `| head -1` does: no further event comes.
    let ended = wait_for("the end of the command", SOON, || child.try_wait().expect("its state"));
    assert_eq!(ended.code(), Some(0));
}
