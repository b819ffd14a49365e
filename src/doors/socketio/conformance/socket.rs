//! Tests of the behaviour that clients of Socket.IO v5 rely on, and tests of the same door with the real client
//! libraries.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Client, binary, closed, event, send, send_binary, serve, text};

#[actix_web::test]
async fn a_connect_is_answered_with_a_sid_and_then_the_first_event() {
    let client = Client::new();
    let cases = [
        ("40", "40{", "42[\"auth\",{}]"),
        ("40{\"token\":\"123\"}", "40{", "42[\"auth\",{\"token\":\"123\"}]"),
        ("40/custom,", "40/custom,{", "42/custom,[\"auth\",{}]"),
        ("40/custom", "40/custom,{", "42/custom,[\"auth\",{}]"),
        ("40/custom?a=b,{\"token\":\"abc\"}", "40/custom,{", "42/custom,[\"auth\",{\"token\":\"abc\"}]"),
    ];
    for (connect, start, auth) in cases {
        let mut ws = client.opened().await;
        send(&mut ws, connect).await;
        let reply = text(&mut ws).await;
        let object: Value = serde_json::from_str(&reply[start.len() - 1..]).expect("JSON");
        assert!(reply.starts_with(start), "{connect}: {reply}");
        assert_eq!(object.as_object().map(|keys| keys.keys().collect::<Vec<_>>()), Some(vec![&"sid".to_owned()]));
        assert_eq!(text(&mut ws).await, auth, "{connect}");
    }
}

#[actix_web::test]
async fn an_unknown_namespace_is_refused_and_the_connection_stays() {
    let client = Client::new();
    let mut ws = client.opened().await;
    send(&mut ws, "40/random").await;
    assert_eq!(text(&mut ws).await, "44/random,{\"message\":\"Invalid namespace\"}");
    send(&mut ws, "40").await;
    assert!(event(&mut ws).await.starts_with("40{"));
    assert_eq!(event(&mut ws).await, "42[\"auth\",{}]");
}

#[actix_web::test]
async fn a_client_that_never_connects_is_closed() {
    closed(Client::new().opened().await).await;
}

#[actix_web::test]
async fn malformed_packets_end_the_connection() {
    let client = Client::new();
    let wrong = [
        "4abc",
        "4",
        "42{}",
        "42[]",
        "42[{}]",
        "42[null]",
        "42",
        "42[\"message\"",
        "42[\"connect\"]",
        "42[\"disconnect\",1]",
        "42abc[\"message-with-ack\",1]",
        "42-1[\"message\"]",
        "4299999999999999999999[\"message\"]",
        "43[1]",
        "431{}",
        "41{}",
        "44{\"message\":\"x\"}",
        "40",
        "40/custom,[1]",
        "40/custom,\"x\"",
        "42/custom,[\"message\",1]",
        "41/custom",
        "4511-[\"message\"]",
        "45x-[\"message\"]",
        "45[\"message\"]",
        "45-[\"message\"]",
    ];
    for wrong in wrong {
        let mut ws = client.joined().await;
        send(&mut ws, wrong).await;
        let short: String = wrong.chars().take(40).collect();
        let ended = tokio::time::timeout(Duration::from_millis(250), closed(ws)).await;
        assert!(ended.is_ok(), "{short} must end the connection before the next heartbeat would");
    }
}

#[actix_web::test]
async fn binary_parts_must_fit_their_packet() {
    let client = Client::new();
    // A binary message nobody announced.
    let mut ws = client.joined().await;
    send_binary(&mut ws, &[1]).await;
    closed(ws).await;
    // Text where a part was announced.
    let mut ws = client.joined().await;
    send(&mut ws, "451-[\"message\",{\"_placeholder\":true,\"num\":0}]").await;
    send(&mut ws, "42[\"message\",1]").await;
    closed(ws).await;
    // A placeholder for a part that is not there would break the connection of whoever gets it.
    for num in ["1", "-1", "\"0\"", "1e3"] {
        let mut ws = client.joined().await;
        send(&mut ws, &format!("451-[\"message\",{{\"_placeholder\":true,\"num\":{num}}}]")).await;
        send_binary(&mut ws, &[1]).await;
        closed(ws).await;
    }
}

#[actix_web::test]
async fn leaving_the_last_namespace_keeps_the_connection() {
    let client = Client::new();
    let mut ws = client.joined().await;
    send(&mut ws, "41").await;
    assert_eq!(text(&mut ws).await, "2");
}

#[actix_web::test]
async fn leaving_one_namespace_leaves_the_other() {
    let client = Client::new();
    let mut ws = client.joined().await;
    send(&mut ws, "40/custom").await;
    assert!(event(&mut ws).await.starts_with("40/custom,{"));
    assert_eq!(event(&mut ws).await, "42/custom,[\"auth\",{}]");
    send(&mut ws, "41/custom").await;
    send(&mut ws, "42[\"message\",\"message to main namespace\"]").await;
    assert_eq!(event(&mut ws).await, "42[\"message-back\",\"message to main namespace\"]");
}

#[actix_web::test]
async fn events_and_acknowledgements_keep_their_arguments() {
    let client = Client::new();
    let mut ws = client.joined().await;
    send(&mut ws, "42[\"message\",1,\"2\",{\"3\":[true]}]").await;
    assert_eq!(event(&mut ws).await, "42[\"message-back\",1,\"2\",{\"3\":[true]}]");
    send(&mut ws, "42456[\"message-with-ack\",1,\"2\",{\"3\":[false]}]").await;
    assert_eq!(event(&mut ws).await, "43456[1,\"2\",{\"3\":[false]}]");
    let parts = "{\"_placeholder\":true,\"num\":0},{\"_placeholder\":true,\"num\":1}";
    for (sent, back) in [
        (format!("452-[\"message\",{parts}]"), format!("452-[\"message-back\",{parts}]")),
        (format!("452-789[\"message-with-ack\",{parts}]"), format!("462-789[{parts}]")),
    ] {
        send(&mut ws, &sent).await;
        send_binary(&mut ws, &[1, 2, 3]).await;
        send_binary(&mut ws, &[4, 5, 6]).await;
        assert_eq!(event(&mut ws).await, back);
        assert_eq!(binary(&mut ws).await.as_ref(), [1, 2, 3]);
        assert_eq!(binary(&mut ws).await.as_ref(), [4, 5, 6]);
    }
}

#[actix_web::test]
async fn a_page_of_another_origin_may_poll_when_it_is_listed() {
    let client = Client::new();
    let url = client.url("EIO=4&transport=polling");
    let answer = client.http.get(&url).header("origin", "https://pages.example").send().await.expect("an answer");
    assert_eq!(answer.headers()["access-control-allow-origin"], "https://pages.example");
    assert_eq!(answer.headers()["access-control-allow-credentials"], "true");
    let preflight = client.http.request("OPTIONS".parse().expect("a method"), &url);
    let preflight = preflight.header("origin", "https://pages.example").header("access-control-request-headers", "x-a");
    let answer = preflight.send().await.expect("an answer");
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["access-control-allow-headers"]),
        (204, &"x-a".parse().expect("a value"))
    );
}

/// Sends bytes over a connection of its own, some of them later; the head of the answer.
async fn raw(client: &Client, first: String, later: &str, between: impl AsyncFnOnce()) -> String {
    let mut tcp = tokio::net::TcpStream::connect(client.at).await.expect("connect");
    tcp.write_all(first.as_bytes()).await.expect("write");
    tokio::time::sleep(Duration::from_millis(50)).await;
    between().await;
    tcp.write_all(later.as_bytes()).await.expect("write");
    let mut answer = vec![0; 4096];
    let count = tokio::time::timeout(Duration::from_secs(5), tcp.read(&mut answer)).await.expect("in time");
    String::from_utf8_lossy(&answer[..count.expect("an answer")]).into_owned()
}

#[actix_web::test]
async fn a_broken_upgrade_leaves_the_session_that_it_names_as_it_is() {
    let client = Client::new();
    let sid = client.sid().await;
    let path = format!("/socket.io/?EIO=4&sid={sid}");
    // Without a key; the session has a POST under way meanwhile.
    let upgrade = format!(
        "GET {path}&transport=websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    );
    let head = format!("POST {path}&transport=polling HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n4");
    let break_in = async || {
        let refused = raw(&client, upgrade, "", async || {}).await;
        assert!(refused.starts_with("HTTP/1.1 400"), "{refused}");
    };
    let posted = raw(&client, head, "0", break_in).await;
    assert!(posted.starts_with("HTTP/1.1 200"), "{posted}");
    let (status, joined) = client.poll(&sid).await;
    assert!(status == 200 && joined.starts_with("40{"), "{status} {joined}");
}

#[actix_web::test]
async fn a_post_that_was_cut_ends_its_session() {
    let client = Client::new();
    let sid = client.sid().await;
    let head =
        format!("POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n4");
    let mut tcp = tokio::net::TcpStream::connect(client.at).await.expect("connect");
    tcp.write_all(head.as_bytes()).await.expect("write");
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(tcp);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(client.post(&sid, "40").await.0, 400, "one that waits for ever would be worse");
}

/// Where the client libraries are, when `make test` could install them.
fn clients() -> Option<PathBuf> {
    let cache = std::env::var_os("ROLLBOOK_CACHE").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache/rollbook")))?;
    let clients = cache.join("clients");
    clients.join("ready").exists().then_some(clients)
}

/// Runs a script with the real client libraries against the server.
async fn run(program: PathBuf, script: &str, args: &[&str]) {
    let (clients, at) = (clients().expect("installed"), serve(Duration::from_secs(2)));
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(script);
    let mut command = Command::new(program);
    command.arg(script).arg(format!("http://{at}")).args(args).env("NODE_PATH", clients.join("node_modules"));
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("start");
    let output_text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{output_text}");
}

#[actix_web::test]
async fn the_javascript_clients_find_what_they_expect() {
    if clients().is_none() {
        eprintln!("note: the client libraries are not installed; make test does it");
        return;
    }
    for version in ["socket.io-client-4", "socket.io-client-3"] {
        run("node".into(), "socketio.js", &[version]).await;
    }
    run("node".into(), "socketio_refused.js", &["socket.io-client-2"]).await;
}

#[actix_web::test]
async fn the_python_client_finds_what_it_expects() {
    let Some(clients) = clients().filter(|clients| clients.join("venv/bin/python").exists()) else {
        eprintln!("note: the Python client library is not installed; make test does it");
        return;
    };
    run(clients.join("venv/bin/python"), "python_socketio.py", &[]).await;
}
