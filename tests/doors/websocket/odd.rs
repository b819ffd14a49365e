//! JSON that is odd but legal: every door hands it on as it was written, and no connection ends because of it.

use std::net::{SocketAddr, TcpStream};

use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

use crate::harness::SOON;
use crate::harness::node::{Node, Options};

/// Numbers that no language holds exactly, halves of surrogate pairs, names that mean something elsewhere.
const ODD: &str = r#"{"big":1e400,"long":12345678901234567890123,"i":9007199254740993,"f":1.0,"z":1.10,"half":"a\ud83d","nul":"\u0000","\udc00":0,"__proto__":{"x":1},"a":1,"a":2}"#;

/// A connection of which frames are read as text.
struct Raw(WebSocket<TcpStream>);

impl Raw {
    fn open(web: SocketAddr, path: &str) -> Self {
        let tcp = TcpStream::connect(web).expect("a connection");
        tcp.set_read_timeout(Some(SOON)).expect("an option");
        Self(tungstenite::client(format!("ws://{web}{path}"), tcp).expect("an upgrade").0)
    }

    /// A consumer of the door `websocket`.
    fn plain(web: SocketAddr, register: &str) -> Self {
        let mut raw = Self::open(web, "/ws");
        raw.send(register);
        raw.until("\"registered\"");
        raw
    }

    /// A client of the door `socketio`.
    fn socketio(web: SocketAddr) -> Self {
        let mut raw = Self::open(web, "/socket.io/?EIO=4&transport=websocket");
        raw.until("0{");
        raw.send("40");
        raw.until("40{");
        raw
    }

    fn send(&mut self, text: &str) {
        self.0.send(Message::text(text)).expect("written");
    }

    /// The next frame that has this in it.
    fn until(&mut self, part: &str) -> String {
        loop {
            match self.0.read() {
                Ok(Message::Text(text)) if text.contains(part) => return text.to_string(),
                Ok(Message::Close(why)) => panic!("closed before {part}: {why:?}"),
                Ok(_) => {}
                Err(error) => panic!("no {part}: {error}"),
            }
        }
    }
}

fn nested(levels: usize) -> String {
    format!("{}1{}", "[".repeat(levels), "]".repeat(levels))
}

#[test]
fn what_is_published_at_one_door_is_the_same_at_all_others() {
    let node = Node::start(&Options::new());
    let mut plain = Raw::plain(node.web, r#"{"name":"plain","version":"1"}"#);
    let mut socketio = Raw::socketio(node.web);
    let deep = nested(128);
    for (n, payload) in [ODD, &deep].into_iter().enumerate() {
        assert_eq!(node.post(format!("{{\"subject\":\"app.a{n}\",\"payload\":{payload}}}")).status, 202);
        plain.send(&format!(r#"{{"type":"publish","id":"p","subject":"app.b{n}","payload":{payload}}}"#));
        plain.until("\"published\"");
        socketio.send(&format!(r#"421["book:publish",{{"subject":"app.c{n}","payload":{payload}}}]"#));
        assert!(socketio.until("431").contains("\"success\":true"));
        for subject in ["a", "b", "c"].map(|name| format!("app.{name}{n}")) {
            let wanted = format!("\"payload\":{payload},");
            assert!(node.replay(&subject).next_event(SOON).text().contains(&wanted), "{subject} over HTTP");
            plain.send(&format!(r#"{{"type":"subscribe","id":"{subject}","subject":"{subject}","start":"oldest"}}"#));
            assert!(plain.until("\"delivery\"").contains(&wanted), "{subject} at websocket");
            socketio
                .send(&format!(r#"42["book:subscribe",{{"id":"{subject}","subject":"{subject}","start":"oldest"}}]"#));
            assert!(socketio.until("book:event").contains(&wanted), "{subject} at socketio");
        }
    }
}

#[test]
fn a_request_and_its_answer_are_handed_on_as_they_were_written() {
    let node = Node::start(&Options::new());
    let mut service = Raw::plain(node.web, r#"{"name":"echo","version":"1","methods":["say"]}"#);
    let mut socketio = Raw::socketio(node.web);
    socketio.send(&format!(r#"421["bus:request",{{"capability":"echo","action":"say","payload":{ODD}}}]"#));
    let asked = service.until("\"message\"");
    assert!(asked.contains(ODD), "{asked}");
    let id = asked.split("\"id\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("an id").to_owned();
    service.send(&format!(r#"{{"type":"response","id":"{id}","payload":{ODD}}}"#));
    assert!(socketio.until("431").contains(ODD));
    // A failure whose text was cut in the middle of a character reaches its caller.
    let mut shop = Raw::plain(node.web, r#"{"name":"shop","version":"1"}"#);
    shop.send(r#"{"type":"message","id":"m","destination":"echo:say","responder":"r","payload":1}"#);
    service.until("\"message\"");
    service.send(r#"{"type":"error","id":"m","code":"odd","message":"cut \ud83d","data":1e400}"#);
    let failed = shop.until("\"error\"");
    assert!(
        failed.contains("\"code\":\"odd\"") && failed.contains("cut \u{fffd}") && failed.contains("1e400"),
        "{failed}"
    );
}

#[test]
fn what_is_nested_too_deep_is_refused_and_the_connection_stays() {
    let node = Node::start(&Options::new());
    let mut plain = Raw::plain(node.web, r#"{"name":"plain","version":"1"}"#);
    let mut socketio = Raw::socketio(node.web);
    let text = "nested deeper than 128 levels";
    for levels in [129, 100_000] {
        let deep = nested(levels);
        for body in [
            format!("{{\"subject\":\"app.x\",\"payload\":{deep}}}"),
            format!("[{{\"subject\":\"app.x\",\"payload\":{deep}}}]"),
        ] {
            node.post(body).refusal(400, &format!("invalid payload: {text}")).expect("a refusal");
        }
        plain.send(&format!(r#"{{"type":"publish","id":"p","subject":"app.x","payload":{deep}}}"#));
        let refused = plain.until("\"error\"");
        assert!(
            refused.contains(text) && refused.contains("bad_message") && refused.contains("\"id\":\"p\""),
            "{refused}"
        );
        socketio.send(&format!(r#"421["book:publish",{{"subject":"app.x","payload":{deep}}}]"#));
        let refused = socketio.until("431");
        assert!(refused.contains(text) && refused.contains("bad_request"), "{refused}");
        socketio.send(&format!(r#"42["bus:notify",{{"event":"x","data":{deep}}}]"#));
        assert!(socketio.until("bus:error").contains(text));
        let refused = node.web("POST", "/api/config", &format!("{{\"a\":{deep}}}"));
        assert!(refused.status == 400 && refused.text().contains("nested deeper"), "{}", refused.text());
        assert_eq!(node.web("POST", "/api/call/nobody/x", &deep).status, 400);
    }
    plain.send(r#"{"type":"ping"}"#);
    plain.until("\"pong\"");
    // A name that is no text, and one that nobody knows, are answered as well.
    socketio.send(r#"427["\ud83d",1]"#);
    assert!(socketio.until("437").contains("bad_request"));
}

#[test]
fn options_may_be_written_as_other_languages_do() {
    let node = Node::start(&Options::new());
    node.publish("app.x", "1");
    let mut plain = Raw::plain(node.web, "\u{feff}{\"name\":\"plain\",\"version\":\"1\",\"instance\":null}");
    plain.send(
        r#"{"type":"subscribe","id":"s","subject":"app.x","start":"oldest","ack":"manual","redelivery":200.0,"redelivery_count":2e0,"group":null}"#,
    );
    assert!(plain.until("\"delivery\"").contains("app.x"));
    assert!(plain.until("\"delivery\"").contains("app.x"), "after 200 ms");
    let mut socketio = Raw::socketio(node.web);
    let wanted = r#"{"id":"s","subject":"app.x","start":"oldest","ack":"manual","redelivery":200.0,"redelivery_count":2.0,"consumer":null}"#;
    socketio.send(&format!(r#"42["book:subscribe",{wanted}]"#));
    assert!(socketio.until("book:event").contains("app.x"));
    assert!(socketio.until("book:event").contains("app.x"), "after 200 ms");
    socketio
        .send(r#"421["book:publish",{"subject":"app.y","payload":1,"key":null,"trace_id":null,"created_at":null}]"#);
    assert!(socketio.until("431").contains("\"success\":true"));
    socketio.send(r#"422["bus:request",{"capability":"nobody","timeout":5000.0,"retries":1.0,"key":null}]"#);
    assert!(socketio.until("432").contains("no_provider"));
    socketio.send(r#"423["bus:register",{"id":"svc","port":4000.0,"capabilities":null,"type":null}]"#);
    assert!(socketio.until("433").contains("\"success\":true"));
    let posted = node.post("\u{feff}{\"subject\":\"app.z\",\"payload\":1,\"key\":null,\"created_at\":null}");
    assert_eq!(posted.status, 202, "{}", posted.text());
}

#[test]
fn options_may_be_called_as_they_were_before() {
    let node = Node::start(&Options::new());
    node.publish("app.x", "1");
    let mut plain = Raw::plain(node.web, "\u{feff}{\"name\":\"plain\",\"version\":\"1\",\"instance\":null}");
    plain.send(
        r#"{"type":"subscribe","id":"s","subject":"app.x","start":"oldest","ack":"manual","redelivery_ms":200,"max_deliveries":2,"group":null}"#,
    );
    assert!(plain.until("\"delivery\"").contains("app.x"));
    assert!(plain.until("\"delivery\"").contains("app.x"), "after 200 ms");
    let mut socketio = Raw::socketio(node.web);
    let wanted = r#"{"id":"s","subject":"app.x","start":"oldest","ack":"manual","redelivery":200,"maxDeliveries":2,"consumer":null}"#;
    socketio.send(&format!(r#"42["book:subscribe",{wanted}]"#));
    assert!(socketio.until("book:event").contains("app.x"));
    assert!(socketio.until("book:event").contains("app.x"), "after 200 ms");
    socketio.send(r#"421["book:publish",{"subject":"app.y","payload":1,"traceId":"t","createdAt":"2026-01-01T00:00:00Z","responseSubject":"_bus_.x"}]"#);
    assert!(socketio.until("431").contains("\"created_at\":\"2026-01-01T00:00:00Z\""));
}

#[test]
fn one_odd_heartbeat_does_not_hide_the_other_clients() {
    let node = Node::start(&Options::new());
    let (mut odd, mut other) = (Raw::socketio(node.web), Raw::socketio(node.web));
    for (client, id) in [(&mut odd, "odd"), (&mut other, "other")] {
        client.send(&format!(r#"421["bus:register",{{"id":"{id}"}}]"#));
        assert!(client.until("431").contains("\"success\":true"));
    }
    odd.send(&format!(r#"422["bus:heartbeat",{ODD}]"#));
    assert!(odd.until("432").contains("\"success\":true"));
    let listed = node.web("GET", "/api/connections", "").text();
    assert!(listed.contains(ODD) && listed.contains("\"other\""), "{listed}");
    let put = node.web("PUT", "/api/services/odd", r#"{"n":1e400,"f":1.0}"#);
    assert!(put.text().contains(r#""metadata":{"n":1e400,"f":1.0}"#), "{}", put.text());
    let put = node.web("PUT", "/api/services/odd", r#"{"m":1.50}"#);
    assert!(put.text().contains(r#""metadata":{"n":1e400,"f":1.0,"m":1.50}"#), "{}", put.text());
}

#[test]
fn the_configuration_keeps_what_a_merge_does_not_name() {
    let node = Node::start(&Options::new());
    let mut socketio = Raw::socketio(node.web);
    assert_eq!(node.web("POST", "/api/config", ODD).status, 200);
    assert!(socketio.until("config:updated").contains(ODD));
    let merged = node.web("PATCH", "/api/config", r#"{"f":2.50,"i":null,"n":1E5}"#);
    let wanted = ODD.replace(r#""i":9007199254740993,"#, "").replace("1.0", "2.50");
    // Of a name that comes twice the last one counts.
    let wanted = wanted.replace(r#""a":1,"a":2}"#, r#""a":2,"n":1E5}"#);
    assert_eq!(merged.text(), wanted);
    assert_eq!(node.web("GET", "/api/config", "").text(), wanted);
    let difference = node.web("GET", "/api/config/diff", "").text();
    assert!(difference.contains(r#"{"op":"replace","path":"/f","value":2.50}"#), "{difference}");
    assert!(difference.contains("1E5") && !difference.contains("1e400"), "{difference}");
}
