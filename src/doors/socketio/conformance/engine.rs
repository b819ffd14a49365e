//! Tests of the behaviour that clients of Engine.IO v4 rely on.

use super::*;

#[actix_web::test]
async fn a_handshake_over_polling_says_five_things() {
    let client = Client::new();
    let (status, body) = client.get("EIO=4&transport=polling").await;
    assert_eq!(status, 200);
    let open: Value = serde_json::from_str(&body[1..]).expect("JSON");
    let keys: Vec<&String> = open.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["sid", "upgrades", "pingInterval", "pingTimeout", "maxPayload"]);
    assert_eq!(open["upgrades"], json!(["websocket"]));
    assert_eq!((&open["pingInterval"], &open["pingTimeout"]), (&json!(300), &json!(200)));
    assert_eq!(open["maxPayload"], json!(1_000_000));
    assert!(open["sid"].as_str().is_some_and(|sid| sid.starts_with("n1.") && sid.len() > 20));
    let without_slash = client.http.get(format!("http://{}/socket.io?EIO=4&transport=polling", client.at)).send().await;
    assert_eq!(without_slash.expect("an answer").status(), 200);
}

#[actix_web::test]
async fn what_is_wrong_with_a_handshake_is_numbered() {
    let client = Client::new();
    let cases = [
        ("transport=polling", 5),
        ("transport=polling&EIO=abc", 5),
        ("transport=polling&EIO=3", 5),
        ("EIO=4", 0),
        ("EIO=4&transport=abc", 0),
        ("EIO=4&transport=websocket", 3),
        ("EIO=4&transport=polling&sid=n1.unknown", 1),
        ("EIO=4&transport=polling&sid=n9.unknown", 1),
        ("EIO=4&transport=polling&sid=", 1),
    ];
    for (query, code) in cases {
        let (status, body) = client.get(query).await;
        let answer: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!((status, &answer["code"]), (400, &json!(code)), "{query}: {body}");
        assert!(answer["message"].is_string());
    }
    for method in ["POST", "PUT", "DELETE"] {
        let method = method.parse().expect("a method");
        let answer =
            client.http.request(method, client.url("EIO=4&transport=polling")).send().await.expect("an answer");
        assert_eq!(answer.status(), 400);
        let body: Value = serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON");
        assert_eq!(body["code"], 2);
    }
}

#[actix_web::test]
async fn a_handshake_over_websocket_offers_no_upgrade_and_the_wrong_ones_are_closed() {
    let client = Client::new();
    let mut ws = client.ws("EIO=4&transport=websocket").await.expect("an upgrade");
    let open: Value = serde_json::from_str(&text(&mut ws).await[1..]).expect("JSON");
    assert_eq!(open["upgrades"], json!([]));
    assert_eq!(open.as_object().map(serde_json::Map::len), Some(5));
    for query in ["transport=websocket", "EIO=abc&transport=websocket", "EIO=4", "EIO=4&transport=abc"] {
        assert!(client.ws(query).await.is_none(), "{query}");
    }
    assert!(client.ws("EIO=4&transport=websocket&sid=n1.unknown").await.is_none());
}

#[actix_web::test]
async fn packets_over_polling_come_one_by_one_and_together() {
    let client = Client::new();
    let sid = client.sid().await;
    assert_eq!(client.post(&sid, "40").await, (200, "ok".to_owned()));
    let (status, body) = client.poll(&sid).await;
    assert_eq!(status, 200);
    let packets: Vec<&str> = body.split('\u{1e}').collect();
    assert!(packets[0].starts_with("40{") && packets[1] == "42[\"auth\",{}]", "{body}");
    let together = "42[\"message\",1]\u{1e}42[\"message\",2]\u{1e}42[\"message\",3]";
    assert_eq!(client.post(&sid, together).await.0, 200);
    let back = "42[\"message-back\",1]\u{1e}42[\"message-back\",2]\u{1e}42[\"message-back\",3]";
    assert_eq!(client.poll(&sid).await, (200, back.to_owned()));
    let binary = "451-[\"message\",{\"_placeholder\":true,\"num\":0}]\u{1e}bAQIDBA==";
    assert_eq!(client.post(&sid, binary).await.0, 200);
    let back = "451-[\"message-back\",{\"_placeholder\":true,\"num\":0}]\u{1e}bAQIDBA==";
    assert_eq!(client.poll(&sid).await, (200, back.to_owned()));
}

#[actix_web::test]
async fn a_packet_that_is_none_ends_the_session() {
    let client = Client::new();
    for body in ["abc", "", "2", "b!!", "4\u{1e}abc"] {
        let sid = client.sid().await;
        let (status, _) = client.post(&sid, body).await;
        assert_eq!(status, 400, "{body:?}");
        assert_eq!(client.poll(&sid).await.0, 400, "{body:?}");
    }
    let sid = client.sid().await;
    let url = client.url(&format!("EIO=4&transport=polling&sid={sid}"));
    let binary = client.http.post(url).header("content-type", "application/octet-stream").body("40");
    assert_eq!(binary.send().await.expect("an answer").status(), 400);
    assert_eq!(client.poll(&sid).await.0, 400);
}

#[actix_web::test]
async fn a_second_poll_ends_the_session_and_the_first_is_told() {
    let client = Client::new();
    let sid = client.sid().await;
    let (first, second) = futures_util::join!(client.poll(&sid), async {
        pause(20).await;
        client.poll(&sid).await
    });
    assert_eq!(first, (200, "1".to_owned()));
    assert_eq!(second.0, 400);
    assert_eq!(client.poll(&sid).await.0, 400);
}

#[actix_web::test]
async fn a_poll_that_is_cut_ends_the_session() {
    let client = Client::new();
    let sid = client.sid().await;
    assert!(tokio::time::timeout(Duration::from_millis(50), client.poll(&sid)).await.is_err());
    pause(30).await;
    assert_eq!(client.poll(&sid).await.0, 400);
}

#[actix_web::test]
async fn a_body_over_the_limit_is_refused_before_it_is_kept() {
    let client = Client::new();
    let sid = client.sid().await;
    let url = client.url(&format!("EIO=4&transport=polling&sid={sid}"));
    let answer = client.http.post(url).body(vec![b'4'; 1_000_001]).send().await;
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status() == 413));
}

#[actix_web::test]
async fn heartbeats_over_polling_keep_the_session() {
    let client = Client::new();
    let sid = client.sid().await;
    for _ in 0..3 {
        assert_eq!(client.poll(&sid).await, (200, "2".to_owned()));
        assert_eq!(client.post(&sid, "3").await.0, 200);
    }
}

#[actix_web::test]
async fn silence_over_polling_ends_it() {
    let client = Client::new();
    let sid = client.sid().await;
    pause(500).await;
    assert_eq!(client.poll(&sid).await.0, 400);
}

#[actix_web::test]
async fn heartbeats_over_websocket_keep_the_session_and_silence_ends_it() {
    let client = Client::new();
    let mut ws = client.opened().await;
    for _ in 0..3 {
        assert_eq!(text(&mut ws).await, "2");
        send(&mut ws, "3").await;
    }
    closed(ws).await;
}

#[actix_web::test]
async fn a_client_must_not_ping() {
    let client = Client::new();
    let mut ws = client.joined().await;
    send(&mut ws, "2").await;
    closed(ws).await;
}

#[actix_web::test]
async fn a_close_over_polling_answers_the_pending_poll() {
    let client = Client::new();
    let sid = client.sid().await;
    let (polled, posted) = futures_util::join!(client.poll(&sid), client.post(&sid, "1"));
    assert_eq!((polled, posted.0), ((200, "6".to_owned()), 200));
    assert_eq!(client.poll(&sid).await.0, 400);
}

#[actix_web::test]
async fn a_close_over_websocket_ends_the_connection_at_once() {
    let client = Client::new();
    let mut ws = client.opened().await;
    let began = std::time::Instant::now();
    send(&mut ws, "1").await;
    closed(ws).await;
    assert!(began.elapsed() < Duration::from_millis(200), "{:?}", began.elapsed());
}

#[actix_web::test]
async fn what_is_no_packet_ends_a_websocket() {
    let client = Client::new();
    for wrong in ["abc", ""] {
        let mut ws = client.opened().await;
        send(&mut ws, wrong).await;
        closed(ws).await;
    }
}

async fn upgraded(client: &Client) -> (String, Ws) {
    let sid = client.sid().await;
    let mut ws = client.ws(&format!("EIO=4&transport=websocket&sid={sid}")).await.expect("an upgrade");
    send(&mut ws, "2probe").await;
    assert_eq!(text(&mut ws).await, "3probe");
    (sid, ws)
}

#[actix_web::test]
async fn an_upgrade_takes_over_from_polling() {
    let client = Client::new();
    let (sid, mut ws) = upgraded(&client).await;
    assert_eq!(client.poll(&sid).await, (200, "6".to_owned()), "a poll during the upgrade ends at once");
    send(&mut ws, "5").await;
    send(&mut ws, "40").await;
    assert!(event(&mut ws).await.starts_with("40{"));
    assert_eq!(event(&mut ws).await, "42[\"auth\",{}]");
    assert_eq!(client.poll(&sid).await.0, 400, "polling is over");
    assert_eq!(client.post(&sid, "42[\"message\",1]").await.0, 400);
    send(&mut ws, "42[\"message\",1]").await;
    assert_eq!(event(&mut ws).await, "42[\"message-back\",1]");
}

#[actix_web::test]
async fn a_second_websocket_is_accepted_and_closed() {
    let client = Client::new();
    let (sid, mut ws) = upgraded(&client).await;
    send(&mut ws, "5").await;
    let second = client.ws(&format!("EIO=4&transport=websocket&sid={sid}")).await.expect("an upgrade");
    closed(second).await;
    send(&mut ws, "40").await;
    assert!(event(&mut ws).await.starts_with("40{"), "the first goes on");
}

#[actix_web::test]
async fn an_upgrade_that_goes_wrong_leaves_the_session_on_polling() {
    let client = Client::new();
    let sid = client.sid().await;
    let query = format!("EIO=4&transport=websocket&sid={sid}");
    let mut wrong = client.ws(&query).await.expect("an upgrade");
    send(&mut wrong, "5").await;
    closed(wrong).await;
    assert_eq!(client.post(&sid, "40").await.0, 200);
    assert!(client.poll(&sid).await.1.starts_with("40{"));
}

#[actix_web::test]
async fn fragments_are_one_message() {
    use tokio_tungstenite::tungstenite::protocol::frame::Frame;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
    let client = Client::new();
    let mut ws = client.opened().await;
    let part = |text: &'static str, code, last| Message::Frame(Frame::message(text, OpCode::Data(code), last));
    for message in [part("4", Data::Text, false), part("0", Data::Continue, true)] {
        ws.send(message).await.expect("send");
    }
    assert!(event(&mut ws).await.starts_with("40{"));
    assert_eq!(event(&mut ws).await, "42[\"auth\",{}]");
    ws.send(part("42[\"mess", Data::Text, false)).await.expect("send");
    ws.send(Message::Ping(Bytes::from_static(b"between"))).await.expect("send");
    ws.send(part("age\",1]", Data::Continue, true)).await.expect("send");
    assert_eq!(event(&mut ws).await, "42[\"message-back\",1]");
}

#[actix_web::test]
async fn a_message_over_the_limit_ends_the_connection() {
    let client = Client::new();
    let mut ws = client.joined().await;
    let big = format!("42[\"message\",\"{}\"]", "x".repeat(1_000_000));
    // The connection may end before the whole message has left.
    ws.send(Message::text(big)).await.unwrap_or(());
    closed(ws).await;
}

#[actix_web::test]
async fn what_is_not_utf_8_ends_the_connection() {
    use tokio_tungstenite::tungstenite::protocol::frame::Frame;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
    let client = Client::new();
    let mut ws = client.joined().await;
    let wrong = Frame::message(&b"42\xff\xfe"[..], OpCode::Data(Data::Text), true);
    ws.send(Message::Frame(wrong)).await.expect("send");
    closed(ws).await;
}
