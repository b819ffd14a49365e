//! Pages in a real browser: that of the tour receives events and acknowledges them, another one is a service.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use crate::harness::node::{Node, Options, run_command};
use crate::harness::{SOON, ms, wait_for};
use crate::pages::{blocks, page};

/// A browser starts slowly on a busy machine.
const BROWSER: Duration = Duration::from_secs(60);

/// Put behind the page: sends what the page shows to the server of the page, at each change.
const REPORTER: &str = r#"
<script>
  const shown = document.getElementById("events");
  const tell = () => fetch("/report", { method: "POST", body: shown.innerText });
  new MutationObserver(tell).observe(shown, { childList: true, subtree: true, characterData: true });
  tell();
</script>
"#;

/// Serves the page and hands on what it reports.
fn serve(page: String) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port for the page");
    let address = listener.local_addr().expect("the address of the page");
    let (sender, reports) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (page, sender) = (page.clone(), sender.clone());
            // Browsers open connections before they need them.
            std::thread::spawn(move || answer(stream, &page, &sender));
        }
    });
    (address, reports)
}

fn answer(stream: TcpStream, page: &str, reports: &Sender<String>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(std::io::Error::other)?;
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let (status, text) = if first.starts_with("GET / ") {
        ("200 OK", page)
    } else if first.starts_with("POST /report ") {
        // The test may have ended.
        drop(reports.send(String::from_utf8_lossy(&body).into_owned()));
        ("200 OK", "")
    } else {
        ("404 Not Found", "")
    };
    let length = text.len();
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}"
    )
}

/// A browser in a process group of its own, so that its helpers end with it.
struct Browser(Child);

impl Browser {
    fn open(program: &str, profile: &Path, url: &str) -> Self {
        // It also ends when this process is killed.
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", "120", program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"]);
        command.args(["--no-first-run", "--disable-background-networking", "--disable-component-update"]);
        command.args(["--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-port=0"]);
        command.arg(format!("--user-data-dir={}", profile.display())).arg(url);
        // Snapshots of the user's own settings stay out of it.
        command.env("HOME", profile).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.process_group(0).spawn().expect("start the browser"))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let group = format!("-{}", self.0.id());
        let killed = Command::new("kill").args(["-KILL", "--", &group]).status().and_then(|_| self.0.wait());
        if let Err(error) = killed {
            eprintln!("browser {group}: {error}");
        }
    }
}

/// The next report that holds all the parts.
fn await_report(reports: &Receiver<String>, parts: &[&str]) -> String {
    let deadline = Instant::now() + BROWSER;
    let mut last = String::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match reports.recv_timeout(left) {
            Ok(text) if parts.iter().all(|part| text.contains(part)) => return text,
            Ok(text) => last = text,
            Err(_) => panic!("the page did not show {parts:?} within {BROWSER:?}; it showed {last:?}"),
        }
    }
}

fn browser() -> Option<&'static str> {
    let programs = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
    let found = programs.into_iter().find(|program| Path::new(program).exists());
    if found.is_none() {
        eprintln!("skipped: there is no browser at {programs:?}");
    }
    found
}

#[test]
fn a_page_in_a_browser_is_a_service_that_curl_calls() {
    let Some(program) = browser() else { return };
    let node = Node::start(&Options::new());
    let profile = tempfile::tempdir().expect("temporary directory");
    let url = format!("http://{}/docs/service.html", node.web);
    let browser = Browser::open(program, profile.path(), &format!("{url}?name=my-page"));
    let curl = |method: &str, body: &str| {
        let mut curl = Command::new("curl");
        curl.args(["-s", "-d", body, &format!("http://{}/api/call/my-page/{method}", node.web)]);
        run_command(curl, b"", BROWSER).stdout
    };
    let greeted = wait_for("the page to be there", BROWSER, || {
        let answer = curl("greet", "{\"name\":\"Ada\"}");
        answer.contains("Hello").then_some(answer)
    });
    assert!(greeted.contains("\"text\":\"Hello, Ada\"") && greeted.contains("Chrome"), "{greeted}");
    assert_eq!(curl("add", "[1,2,3.5]"), "6.5");
    assert!(curl("add", "{}").contains("\"code\":\"failed\""), "what it throws comes back");
    let shown = node.web("GET", "/api/services/my-page", "").json();
    assert_eq!(shown["instances"][0]["metadata"]["page"], true, "{shown}");
    drop(browser);
    wait_for("it to be offline", BROWSER, || {
        (node.web("GET", "/api/services/my-page", "").json()["status"] == "offline").then_some(())
    });
    let page = node.web("GET", "/docs/service.html", "");
    assert!(page.header("content-security-policy").is_some_and(|policy| policy.contains("default-src 'none'")));
}

#[test]
fn the_page_of_the_tour_receives_and_acknowledges() {
    let Some(program) = browser() else { return };
    let blocks = blocks(&page("docs/tour.md"));
    let page = blocks.iter().find(|block| block.language == "html").expect("a page in the tour");
    let node = Node::start(&Options::new());
    assert!(page.text.contains("http://127.0.0.1:2021/"), "the page names its node");
    let page = page.text.replace("127.0.0.1:2021", &node.log.to_string()) + REPORTER;
    let (address, reports) = serve(page);
    node.publish("shop.orders.created", "{\"order\":1}");

    let profile = tempfile::tempdir().expect("temporary directory");
    let browser = Browser::open(program, profile.path(), &format!("http://{address}/"));
    await_report(&reports, &["1 shop.orders.created {\"order\":1} acknowledged"]);
    // Live, and with line breaks that the stream must carry.
    node.publish("shop.orders.paid", "{\r\n\"order\":\n2}");
    let shown = await_report(&reports, &["2 shop.orders.paid {\"order\":2} acknowledged"]);
    assert_eq!(shown.lines().count(), 2, "each event is shown once: {shown:?}");
    let floor = || node.consumer("shop", "page")?["ack_floor"].as_u64().filter(|floor| *floor == 2);
    wait_for("the consumer of the page to have done both events", SOON, floor);
    drop(browser);

    let query = [("subject", "shop.orders.>"), ("start", "oldest"), ("ack", "manual"), ("consumer", "page")];
    let mut second = node.subscribe(&query);
    second.quiet(ms(700));
    node.publish("shop.orders.created", "{\"order\":3}");
    assert_eq!(second.next_event(SOON).index(), 3, "what was acknowledged does not come again");
}
