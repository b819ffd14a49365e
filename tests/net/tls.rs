//! TLS on every listener for clients: who gets in, who is turned away and how, and certificates that change.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::harness::bus::BusClient;
use crate::harness::node::{Exit, Node, Options, run_command};
use crate::harness::socket::Socket;
use crate::harness::sse::Sse;
use crate::harness::tls::{Authority, exchange, secure};
use crate::harness::{SOON, ms, proc, wait_for};

const READY: &str = "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
/// The time that a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The value of a metric whose line begins like that; 0 when it has never been counted.
fn metric(authority: &Authority, node: &Node, line: &str) -> f64 {
    let ask = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let page = exchange(&mut authority.connect(node.web), ask).expect("the metrics");
    let found = page.lines().find_map(|own| own.strip_prefix(line));
    found.and_then(|value| value.trim().parse().ok()).unwrap_or(0.0)
}

fn turned_away(authority: &Authority, node: &Node, listener: &str, reason: &str) -> f64 {
    let line = format!("rollbook_http_refused_total{{listener=\"{listener}\",reason=\"{reason}\"}}");
    metric(authority, node, &line)
}

/// What a listener answers to these bytes without TLS.
fn say(to: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(to).expect("connect");
    stream.set_read_timeout(Some(SOON)).expect("a time");
    stream.write_all(bytes).expect("write");
    let mut answer = Vec::new();
    // A connection that is closed with unread bytes ends in a reset.
    stream.read_to_end(&mut answer).ok();
    String::from_utf8_lossy(&answer).into_owned()
}

fn curl(args: &[&str]) -> Exit {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "10"]).args(args);
    run_command(command, b"", SOON * 2)
}

fn openssl(to: SocketAddr, args: &[&str], input: &str) -> Exit {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &to.to_string(), "-servername", "localhost"]).args(args);
    run_command(command, input.as_bytes(), SOON * 2)
}

#[test]
fn every_protocol_is_the_same_over_tls() {
    let authority = Authority::new(&[]);
    let node = Node::start(&authority.options());
    assert!(node.stdout().contains("sse   https://127.0.0.1:"), "{}", node.stdout());
    let (log, web) = (authority.tunnel(node.log), authority.tunnel(node.web));
    let mut stream = Sse::open(log, "/?subject=app.%3E&start=oldest", &[]);
    let url = format!("https://localhost:{}/", node.log.port());
    let large = format!("{{\"subject\":\"app.large\",\"payload\":\"{}\"}}", "x".repeat(3_000_000));
    fs::write(authority.path("large.json"), &large).expect("a file");
    let body = format!("@{}", authority.text("large.json"));
    for body in ["{\"subject\":\"app.x\",\"payload\":1}", body.as_str()] {
        let said = curl(&["--cacert", &authority.text("ca.pem"), "--http1.1", "-w", "%{http_code}", "-d", body, &url]);
        assert_eq!((said.code, said.stdout.as_str()), (Some(0), "202"), "{said:?}");
    }
    assert_eq!(stream.next_event(SOON).payload(), 1);
    assert!(stream.next_event(SOON).text().len() > 3_000_000);
    let untrusting = curl(&[&url]);
    assert_eq!(untrusting.code, Some(60), "{untrusting:?}");
    let provider = Socket::service(web, "shop", &["buy"]);
    let consumer = Socket::consumer(web, "user");
    for (id, payload) in [("small", json!({ "n": 1 })), ("large", json!("y".repeat(500_000)))] {
        consumer.ask(id, "shop:buy", &payload);
        provider.serve_one(Clone::clone);
        assert_eq!(consumer.next("response")["payload"], payload);
    }
    let (svc, caller) = (BusClient::connect(web), BusClient::connect(web));
    svc.register("svc", &["work"]);
    let id = caller.begin("bus:request", &json!({ "capability": "work", "payload": 7 }));
    svc.serve_one(Clone::clone);
    assert_eq!(caller.acked(id)["data"], 7);
    let days = metric(&authority, &node, "rollbook_tls_certificate_days_left{listener=\"sse\"}");
    assert!((360.0..=366.0).contains(&days), "{days} days");
}

#[test]
fn an_idle_websocket_over_tls_costs_little() {
    let authority = Authority::new(&[]);
    let node = Node::start(&authority.options());
    let upgrade = "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let open = || {
        let mut stream = authority.connect(node.web);
        stream.write_all(upgrade.as_bytes()).expect("an upgrade");
        let mut head = [0; 12];
        stream.read_exact(&mut head).expect("an answer");
        assert_eq!(&head, b"HTTP/1.1 101");
        stream
    };
    let warm: Vec<_> = (0..100).map(|_| open()).collect();
    let before = proc::status(node.pid(), "VmRSS");
    let idle: Vec<_> = (0..500).map(|_| open()).collect();
    let each = proc::status(node.pid(), "VmRSS").saturating_sub(before) * 1024 / 500;
    assert!(each <= 20 * 1024, "{each} bytes per idle WebSocket");
    drop((warm, idle));
}

#[test]
fn versions_1_2_and_1_3_are_spoken_and_sessions_are_resumed() {
    let authority = Authority::new(&[]);
    let node = Node::start(&authority.options());
    let ca = authority.text("ca.pem");
    let session = authority.text("session");
    for version in ["-tls1_2", "-tls1_3"] {
        let args = ["-CAfile", &ca, "-verify_return_error", "-ign_eof", version, "-sess_out", &session];
        let first = openssl(node.web, &args, READY);
        assert!(first.stdout.contains("HTTP/1.1 200") && first.stdout.contains("New, TLSv1."), "{version}: {first:?}");
        let args = ["-CAfile", &ca, "-verify_return_error", "-ign_eof", version, "-sess_in", &session];
        let second = openssl(node.web, &args, READY);
        assert!(second.stdout.contains("Reused, TLSv1."), "{version}: {second:?}");
        // The session belongs to one listener.
        let args = ["-CAfile", &ca, version, "-sess_in", &session];
        let other = openssl(node.log, &args, "");
        assert!(other.stdout.contains("New, TLSv1."), "{version}: {other:?}");
    }
    assert_eq!(metric(&authority, &node, "rollbook_tls_handshakes_total{listener=\"web\",outcome=\"resumed\"}"), 2.0);
    for version in ["-tls1", "-tls1_1"] {
        let old = openssl(node.web, &[version, "-cipher", "ALL:@SECLEVEL=0"], "");
        assert!(old.stdout.contains("Cipher is (NONE)"), "{version}: {old:?}");
    }
    let alpn = openssl(node.web, &["-CAfile", &ca, "-alpn", "h2,http/1.1"], "");
    assert!(alpn.stdout.contains("ALPN protocol: http/1.1"), "{alpn:?}");
}

#[test]
fn a_client_cannot_renegotiate() {
    let authority = Authority::new(&[]);
    let node = Node::start(&authority.options());
    let renegotiates = openssl(node.web, &["-tls1_2", "-CAfile", &authority.text("ca.pem")], "R\n");
    let said = format!("{}{}", renegotiates.stdout, renegotiates.stderr);
    assert!(said.contains("RENEGOTIATING"), "{said}");
    assert_ne!(renegotiates.code, Some(0), "{said}");
    assert_eq!(metric(&authority, &node, "rollbook_tls_handshakes_total{listener=\"web\",outcome=\"full\"}"), 2.0);
}

#[test]
fn plain_http_at_a_tls_listener_is_told_to_use_https() {
    let authority = Authority::new(&[]);
    let node = Node::start(&authority.options());
    for (listener, name) in [(node.log, "sse"), (node.web, "web")] {
        let answer = say(listener, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("use https://"), "{name}: {answer}");
        assert_eq!(say(listener, b"\x00\x01\x02 neither TLS nor HTTP"), "", "{name}");
        // A first message without anything in it is answered by an alert of TLS.
        assert!(say(listener, b"\x16\x03\x01\x00\x04\x01\x00\x00\x00").starts_with('\u{15}'), "{name}");
        // The alert may come before it is counted.
        wait_for(name, SOON, || (turned_away(&authority, &node, name, "tls") > 2.5).then_some(()));
        assert_eq!(turned_away(&authority, &node, name, "tls"), 3.0, "{name}");
    }
    // Whoever only connects, as load balancers do, is no failure.
    drop(TcpStream::connect(node.log).expect("connect"));
    wait_for("the connection that said nothing", SOON, || {
        let line = "rollbook_tls_handshakes_total{listener=\"sse\",outcome=\"left\"}";
        (metric(&authority, &node, line) > 0.5).then_some(())
    });
    assert_eq!(turned_away(&authority, &node, "sse", "tls"), 3.0);
}

#[test]
fn tls_at_a_plain_listener_is_refused_at_once() {
    let authority = Authority::new(&[]);
    let node = Node::start(&authority.options().env("ROLLBOOK_SSE__TLS", "off"));
    assert!(node.stdout().contains("sse   http://") && node.stdout().contains("web   https://"), "{}", node.stdout());
    let began = Instant::now();
    let refused = authority.try_connect(node.log, None).expect_err("no TLS there");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}: {refused}", began.elapsed());
    let hello = [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(), &[7; 32]].concat();
    let answer = say(node.log, &hello);
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("without TLS"), "{answer}");
    node.publish("app.x", "1");
}

#[test]
fn handshakes_that_take_too_long_end_and_give_their_slots_back() {
    let authority = Authority::new(&[]);
    let options = authority.options().env("ROLLBOOK_SSE__CONNECTIONS_MAX", "20");
    let node = Node::start(&options);
    let began = Instant::now();
    let silent: Vec<TcpStream> = (0..10).map(|_| TcpStream::connect(node.log).expect("connect")).collect();
    let mut slow: Vec<TcpStream> = (0..10).map(|_| TcpStream::connect(node.log).expect("connect")).collect();
    // The beginning of a long record, byte by byte.
    let mut hello = b"\x16\x03\x01\x20\x00\x01\x00\x1f\xfc\x03\x03".iter().copied().chain(std::iter::repeat(7));
    let mut open = 10;
    wait_for("too many connections", SOON, || {
        let answer =
            exchange(&mut authority.connect(node.log), "GET /?subject=app.x HTTP/1.1\r\nHost: localhost\r\n\r\n");
        answer.expect("an answer").starts_with("HTTP/1.1 503 ").then_some(())
    });
    while open > 0 {
        let byte = hello.next().expect("no end");
        slow.retain_mut(|stream| stream.write_all(&[byte]).is_ok());
        open = slow.len();
        std::thread::sleep(ms(200));
        assert!(began.elapsed() < HANDSHAKE + SOON, "{open} are open after {:?}", began.elapsed());
    }
    assert!(began.elapsed() >= HANDSHAKE - ms(500), "closed after {:?} already", began.elapsed());
    for mut stream in silent {
        stream.set_read_timeout(Some(SOON)).expect("a time");
        assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)), "closed");
    }
    let late = metric(&authority, &node, "rollbook_tls_handshakes_total{listener=\"sse\",outcome=\"late\"}");
    assert_eq!(late, 20.0);
    let head = "HEAD /?subject=app.x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    for _ in 0..30 {
        let answer = exchange(&mut authority.connect(node.log), head).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

#[test]
fn clients_show_certificates_where_they_are_asked() {
    let authority = Authority::new(&["user:alice"]);
    let foreign = Authority::new(&["user:alice"]);
    let options = authority.options().env("ROLLBOOK_TLS__CLIENT_CERTIFICATES", "optional");
    let node = Node::start(&options.env("ROLLBOOK_WEB__CLIENT_CERTIFICATES", "required"));
    let ready = |of: Option<&Authority>, listener: SocketAddr| {
        let url = format!("https://localhost:{}/readyz", listener.port());
        let ca = authority.text("ca.pem");
        let pair = of.map(|of| (of.text("user-alice.pem"), of.text("user-alice.key")));
        let mut args = vec!["--cacert", &ca, "-o", "/dev/null", "-w", "%{http_code}", &url];
        if let Some((certificate, key)) = &pair {
            args.extend(["--cert", certificate.as_str(), "--key", key.as_str()]);
        }
        curl(&args)
    };
    // The event log has no /readyz: 404 or 405 is an answer.
    assert_eq!(ready(Some(&authority), node.web).stdout, "200");
    assert_eq!(ready(None, node.web).stdout, "000", "the web listener requires a certificate");
    assert_eq!(ready(Some(&foreign), node.web).stdout, "000", "of another CA");
    assert_ne!(ready(Some(&authority), node.log).stdout, "000");
    assert_ne!(ready(None, node.log).stdout, "000", "the event log does not");
    assert_eq!(ready(Some(&foreign), node.log).stdout, "000", "of another CA");
}

#[test]
fn a_changed_certificate_is_used_for_new_connections_and_a_bad_one_never() {
    let authority = Authority::new(&[]);
    let node = Node::start(&authority.options());
    let first = authority.certificate("server.pem");
    assert_eq!(authority.served(node.web), first);
    let mut old = authority.connect(node.web);
    authority.renew();
    let second = authority.certificate("server.pem");
    wait_for("the new certificate", SOON, || (authority.served(node.web) == second).then_some(()));
    assert_eq!(authority.served(node.log), second, "at every listener");
    assert!(exchange(&mut old, READY).expect("an old connection lives on").starts_with("HTTP/1.1 200"));
    // A bad pair, each in another way, is counted once and changes nothing.
    let good = fs::read(authority.path("server.pem")).expect("a file");
    let failed = || metric(&authority, &node, "rollbook_tls_reloads_total{outcome=\"failed\"}");
    let ca = fs::read(authority.path("ca.pem")).expect("a file");
    for (count, bad) in [&b""[..], b"no certificate", &ca].into_iter().enumerate() {
        fs::write(authority.path("server.pem"), bad).expect("write");
        wait_for("the refusal of a bad certificate", SOON, || (failed() > count as f64).then_some(()));
        assert_eq!(authority.served(node.web), second);
    }
    fs::remove_file(authority.path("server.pem")).expect("remove");
    wait_for("the refusal of a missing certificate", SOON, || (failed() > 3.0).then_some(()));
    assert_eq!((authority.served(node.web), failed()), (second.clone(), 4.0));
    // Kubernetes swaps a symbolic link.
    fs::write(authority.path("next.pem"), &good).expect("write");
    std::os::unix::fs::symlink("next.pem", authority.path("server.pem")).expect("a link");
    let loaded = || metric(&authority, &node, "rollbook_tls_reloads_total{outcome=\"loaded\"}");
    wait_for("the good pair", SOON, || (loaded() > 1.0).then_some(()));
    assert_eq!(authority.served(node.web), second);
}

#[test]
fn a_hangup_reads_the_certificate_at_once() {
    if fs::File::open("/dev/tty").is_ok() {
        eprintln!("note: there is a terminal, so SIGHUP would mean that it closes; not tried");
        return;
    }
    let authority = Authority::new(&[]);
    let node = Node::start(&authority.options());
    let loaded = || metric(&authority, &node, "rollbook_tls_reloads_total{outcome=\"loaded\"}");
    let pid = Pid::from_raw(i32::try_from(node.pid()).expect("a number")).expect("a process");
    for times in 1..=2 {
        kill_process(pid, Signal::HUP).expect("a signal");
        wait_for("the reload", SOON, || (loaded() >= f64::from(times)).then_some(()));
    }
    assert_eq!(authority.served(node.web), authority.certificate("server.pem"));
}

#[test]
fn a_stop_ends_tls_connections_with_a_word() {
    let authority = Authority::new(&[]);
    let mut node = Node::start(&authority.options());
    let mut idle = authority.connect(node.web);
    idle.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
    let mut stream = authority.connect(node.log);
    stream.write_all(b"GET /?subject=app.x HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a subscription");
    let mut head = [0; 12];
    for connection in [&mut idle, &mut stream] {
        connection.read_exact(&mut head).expect("an answer");
        assert_eq!(&head, b"HTTP/1.1 200");
    }
    let _shaking = TcpStream::connect(node.web).expect("a connection whose handshake does not come");
    let began = Instant::now();
    node.terminate();
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    for connection in [&mut idle, &mut stream] {
        let mut rest = Vec::new();
        connection.read_to_end(&mut rest).expect("an end that is one of TLS");
    }
}

#[test]
fn a_proxy_header_comes_before_tls_and_its_address_counts() {
    let authority = Authority::new(&[]);
    let options = authority.options().env("ROLLBOOK_WEB__PROXY_PROTOCOL_FROM", "127.0.0.1");
    let options = options.env("ROLLBOOK_NODE__INSECURE", "true").env("ROLLBOOK_LISTENERS__CONNECTS_PER_ADDRESS", "1");
    let node = Node::start(&options.env("ROLLBOOK_LISTENERS__CONNECTS_BURST", "3").env("ROLLBOOK_SSE__TLS", "off"));
    let ask = |header: &str| {
        let mut tcp = TcpStream::connect(node.web).expect("connect");
        tcp.set_read_timeout(Some(SOON)).expect("a time");
        tcp.write_all(header.as_bytes()).expect("write");
        secure(tcp, authority.client(None)).and_then(|mut stream| {
            exchange(&mut stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        })
    };
    let from = |address: &str| ask(&format!("PROXY TCP4 {address} 127.0.0.1 4711 7440\r\n"));
    for _ in 0..3 {
        assert!(from("192.0.2.7").expect("an answer").starts_with("HTTP/1.1 200 "));
    }
    from("192.0.2.7").expect_err("a fourth connection at once");
    let page = from("192.0.2.8").expect("another address");
    let counted = "rollbook_http_refused_total{listener=\"web\",reason=\"address\"} 1";
    assert!(page.contains(counted), "{page}");
    ask("").expect_err("a load balancer that sends no header");
    for _ in 0..20 {
        node.publish("app.x", "1");
    }
}

#[test]
fn tls_that_is_half_configured_stops_the_start() {
    let authority = Authority::new(&[]);
    let data = tempfile::tempdir().expect("a directory");
    let (certificate, key) = (authority.text("server.pem"), authority.text("ca.key"));
    let option = |options: Options, name: &str, value: &str| options.arg(name).arg(value);
    let pair = |key: &str| option(option(Options::new(), "--tls-certificate", &certificate), "--tls-key", key);
    for (options, code, says) in [
        (option(Options::new(), "--tls-certificate", &certificate), 2, "write tls.key"),
        (option(Options::new(), "--tls-key", &key), 2, "write tls.certificate"),
        (Options::new().env("ROLLBOOK_WEB__TLS", "on"), 2, "set tls.certificate and tls.key"),
        (pair(&authority.text("server.key")).env("ROLLBOOK_TLS__CLIENT_CERTIFICATES", "required"), 2, "tls.client_ca"),
        (pair(&key), 1, "is not the key of"),
        (pair("nowhere.key"), 1, "cannot read nowhere.key"),
        (Options::new().listen("0.0.0.0:0"), 2, "there is no TLS"),
        (pair(&authority.text("server.key")).listen("0.0.0.0:0").env("ROLLBOOK_SSE__TLS", "off"), 2, "there is no TLS"),
    ] {
        let exit = Node::launch(&options, data.path()).err().unwrap_or_else(|| panic!("it started: {options:?}"));
        assert_eq!(exit.code, Some(code), "{exit:?}");
        assert!(exit.stderr.contains(says), "{says}: {exit:?}");
    }
    let node = Node::start(&authority.options().listen("0.0.0.0:0"));
    assert_eq!(metric(&authority, &node, "rollbook_insecure "), 0.0);
    let node = Node::start(&Options::new().arg("--insecure"));
    assert!(node.stdout().contains("--insecure"), "{}", node.stdout());
    assert_eq!(
        (node.metric("rollbook_insecure"), node.web("GET", "/api/cluster", "").json()["insecure"] == true),
        (1, true)
    );
}
