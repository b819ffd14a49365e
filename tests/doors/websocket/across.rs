//! Every pair of doors calls each other, on one node and on three.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::doors::nats::client::{address as nats_address, options as nats_options};
use crate::doors::nats::responder::{Responder, call};
use crate::harness::bus::BusClient;
use crate::harness::cluster::Cluster;
use crate::harness::http::Http;
use crate::harness::node::{Node, Options, rollbook, run_command};
use crate::harness::socket::Socket;
use crate::harness::{SOON, wait_for};

/// Bytes in the place where a Socket.IO client puts them.
fn placeholder() -> Value {
    json!({ "_placeholder": true, "num": 0 })
}

#[test]
fn bytes_of_socket_io_clients_are_base64_for_those_who_have_text_alone() {
    let node = Node::start(&Options::new());
    let pictures = BusClient::connect(node.web);
    pictures.register("pics", &["pics"]);
    let answer = |success: bool| {
        let id = pictures.event("bus:request").args[0]["requestId"].clone();
        let member = if success { "data" } else { "error" };
        let says = json!(["bus:response", { "requestId": id, "success": success, member: { "img": placeholder() } }]);
        pictures.send_with(&format!("451-{says}"), b"\x00\xff\x01IMAGE");
    };
    let image = json!({ "img": { "$base64": "AP8BSU1BR0U=" } });
    for success in [true, false] {
        std::thread::scope(|scope| {
            scope.spawn(|| answer(success));
            let called = node.web("POST", "/api/call/pics/get", "{}");
            let (status, said) = if success { (200, called.json()) } else { (422, called.json()["error"].clone()) };
            assert_eq!((called.status, &said), (status, &image));
        });
    }
    let caller = Socket::consumer(node.web, "caller");
    caller.ask("m1", "pics:get", &json!({}));
    answer(true);
    assert_eq!(caller.next("response")["payload"], image);
    caller.ask("m2", "pics:get", &json!({}));
    answer(false);
    assert_eq!(caller.next("error")["data"], image);
    // The other way, and what cannot be passed on.
    let plain = Socket::service(node.web, "plain", &["put"]);
    let asks = |id: u64, file: &Value| {
        let request = json!(["bus:request", { "capability": "plain", "action": "put", "payload": { "file": file } }]);
        pictures.send_with(&format!("451-{id}{request}"), b"\x00\xff\x01FILE");
        pictures.acked(id)
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let asked = plain.serve_one(|_| json!("got it"));
            assert_eq!(asked["payload"], json!({ "file": { "$base64": "AP8BRklMRQ==" } }));
        });
        assert_eq!(asks(901, &placeholder())["data"], "got it");
    });
    let long = json!({ "_placeholder": true, "num": 0, "x": "y".repeat(300) });
    assert_eq!(asks(902, &long)["error"]["code"], "bad_request");
    // Nowhere else do bytes go missing.
    for event in ["bus:notify", "book:publish", "bus:register", "bus:heartbeat", "config:request"] {
        let says =
            json!([event, { "event": "x", "subject": "app.x", "data": placeholder(), "payload": placeholder() }]);
        pictures.send_with(&format!("451-903{says}"), b"x");
        assert_eq!(pictures.acked(903)["error"]["code"], "bad_request", "{event}");
    }
}

/// Where the doors of a node are.
#[derive(Clone, Copy)]
struct At {
    web: SocketAddr,
    nats: SocketAddr,
}

impl At {
    fn of(node: &Node) -> Self {
        Self { web: node.web, nats: nats_address(node) }
    }
}

/// Somebody who can be asked, through some door.
enum Provider {
    WebSocket(Socket),
    SocketIo(BusClient),
    Nats(std::cell::RefCell<Responder>),
}

const PROVIDERS: [fn(At, &str) -> Provider; 3] = [
    |at, name| Provider::WebSocket(Socket::service(at.web, name, &["get"])),
    |at, name| {
        // Another instance each time: one that has gone away may be on the roll for a moment longer.
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        let id = format!("I{}", NEXT.fetch_add(1, Ordering::Relaxed));
        Provider::Nats(Responder::start(at.nats, name, &id, &["get"]).into())
    },
    |at, name| {
        let client = BusClient::connect(at.web);
        let capabilities = json!([{ "name": name, "actions": ["get"] }]);
        let register = json!({ "id": format!("{name}-service"), "capabilities": capabilities });
        assert_eq!(client.ask("bus:register", &register)["success"], true);
        Provider::SocketIo(client)
    },
];

impl Provider {
    const fn door(&self) -> &'static str {
        match self {
            Self::WebSocket(_) => "websocket",
            Self::SocketIo(_) => "socketio",
            Self::Nats(_) => "nats",
        }
    }

    /// Answers the next request with what it was given.
    fn echo(&self) {
        match self {
            Self::WebSocket(socket) => drop(socket.serve_one(|payload| json!({ "echo": payload }))),
            Self::SocketIo(client) => drop(client.serve_one(|payload| json!({ "echo": payload }))),
            Self::Nats(responder) => drop(responder.borrow_mut().serve_one(|payload| json!({ "echo": payload }))),
        }
    }

    /// Fails the next request.
    fn fail(&self) {
        match self {
            Self::WebSocket(socket) => {
                let id = socket.next("message")["id"].clone();
                socket.send(&json!({ "type": "error", "id": id, "code": "E7", "message": "no" }));
            }
            Self::SocketIo(client) => {
                let id = client.event("bus:request").args[0]["requestId"].clone();
                let error = json!({ "code": "E7", "message": "no" });
                client.emit("bus:response", &json!({ "requestId": id, "success": false, "error": error }));
            }
            Self::Nats(responder) => responder.borrow_mut().fail_one("E7", "no"),
        }
    }

    /// Takes the next request and goes away with it.
    fn vanish(self) {
        match &self {
            Self::WebSocket(socket) => drop(socket.next("message")),
            Self::SocketIo(client) => drop(client.event("bus:request")),
            Self::Nats(responder) => drop(responder.borrow_mut().request()),
        }
    }
}

/// Somebody who asks, through some door: the data, or the code of the error.
type Asks = fn(At, &str, &Value) -> Result<Value, String>;

const CALLERS: [(&str, Asks); 5] = [
    ("nats", |At { nats, .. }, capability, payload| call(nats, capability, "get", &payload.to_string())),
    ("websocket", |At { web, .. }, capability, payload| {
        let socket = Socket::consumer(web, "caller");
        socket.ask("m", &format!("{capability}:get"), payload);
        let told = socket.take_where("an end", |frame| frame["id"] == "m");
        match told["type"].as_str() {
            Some("response") => Ok(told["payload"].clone()),
            Some("unhandled") => Err("no_provider".to_owned()),
            _ => Err(match told["code"].as_str().unwrap_or_default() {
                "instance_lost" => "provider_lost".to_owned(),
                code => code.to_owned(),
            }),
        }
    }),
    ("socketio", |At { web, .. }, capability, payload| {
        let client = BusClient::connect(web);
        let request = json!({ "requestId": "m", "capability": capability, "action": "get", "payload": payload });
        let told = client.ask("bus:request", &request);
        match told["success"] {
            Value::Bool(true) => Ok(told["data"].clone()),
            _ => Err(told["error"]["code"].as_str().unwrap_or_default().to_owned()),
        }
    }),
    ("http", |At { web, .. }, capability, payload| {
        let mut http = Http::connect(web);
        http.set_read_timeout(SOON);
        let target = format!("/api/call/{capability}/get");
        let answer = http.request("POST", &target, &[], payload.to_string().as_bytes());
        match answer.status {
            200 => Ok(answer.json()),
            // What the provider said is inside.
            422 => Err(answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned()),
            404 => Err("no_provider".to_owned()),
            _ => Err(answer.json()["code"].as_str().unwrap_or_default().to_owned()),
        }
    }),
    ("command line", |At { web, .. }, capability, payload| {
        let mut command = rollbook();
        let url = format!("http://{web}");
        command.args(["call", &format!("{capability}:get"), &payload.to_string(), "--web-url", &url]);
        let exit = run_command(command, b"", SOON);
        if exit.code == Some(0) {
            return Ok(serde_json::from_str(&exit.stdout).expect("JSON"));
        }
        let known =
            [("HTTP 404", "no_provider"), ("HTTP 503", "no_provider"), ("HTTP 502", "provider_lost"), ("E7", "E7")];
        let found = known.into_iter().find(|(text, _)| exit.stderr.contains(text));
        Err(found.map_or(exit.stderr, |(_, code)| code.to_owned()))
    }),
];

/// All callers at one node ask all providers at the other.
fn matrix(callers_at: At, providers_at: At, names: &str) {
    for (turn, provide) in PROVIDERS.iter().enumerate() {
        for (door, ask) in CALLERS {
            let capability = format!("{names}{turn}");
            let payload = json!({ "n": 1.5, "text": "Ñandú", "list": [null, true] });
            let provider = provide(providers_at, &capability);
            let pair = format!("{door} -> {}", provider.door());
            wait_for("the provider to be known", SOON, || {
                let list = Http::connect(callers_at.web).request("GET", "/api/services", &[], b"").text();
                list.contains(&capability).then_some(())
            });
            if let Provider::Nats(responder) = &provider {
                // Nobody tells a responder when it is registered.
                let id = format!("\"{}\"", responder.borrow().id);
                let target = format!("/api/services/{capability}");
                wait_for("the instance to be known", SOON, || {
                    let service = Http::connect(callers_at.web).request("GET", &target, &[], b"").text();
                    service.contains(&id).then_some(())
                });
            }
            std::thread::scope(|scope| {
                let asking = scope.spawn(|| ask(callers_at, &capability, &payload));
                provider.echo();
                assert_eq!(asking.join().expect("no panic"), Ok(json!({ "echo": payload })), "{pair}");
                let asking = scope.spawn(|| ask(callers_at, &capability, &payload));
                provider.fail();
                assert_eq!(asking.join().expect("no panic"), Err("E7".to_owned()), "{pair}");
                let asking = scope.spawn(|| ask(callers_at, &capability, &payload));
                provider.vanish();
                assert_eq!(asking.join().expect("no panic"), Err("provider_lost".to_owned()), "{pair}");
            });
            assert_eq!(ask(callers_at, "nobody", &payload), Err("no_provider".to_owned()), "{pair}");
        }
    }
}

#[test]
fn all_doors_call_each_other_on_one_node() {
    let node = Node::start(&nats_options());
    matrix(At::of(&node), At::of(&node), "cap");
}

#[test]
fn all_doors_call_each_other_across_three_nodes() {
    let cluster = Cluster::start_with(nats_options());
    for (from, to) in [(1, 2), (2, 3), (3, 1)] {
        matrix(At::of(cluster.node(from)), At::of(cluster.node(to)), &format!("cap{from}{to}"));
    }
}

#[test]
fn the_context_of_a_trace_and_the_deadline_reach_the_provider() {
    let node = Node::start(&Options::new());
    let web = node.web;
    let users = Socket::service(web, "users", &["get"]);
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let asking = std::thread::spawn(move || {
        let headers = [("traceparent", trace), ("X-Rollbook-Timeout", "300ms")];
        Http::connect(web).request("POST", "/api/call/users/get", &headers, b"{}").status
    });
    let asked = users.next("message");
    assert_eq!((&asked["traceparent"], &asked["responder"]), (&json!(trace), &json!("response")));
    assert_eq!(asking.join().expect("no panic"), 504, "it was not answered in time");
    let web_service = BusClient::connect(web);
    web_service.register("web", &["mail"]);
    users.send(
        &json!({ "type": "message", "id": "m", "destination": "mail:send", "traceparent": trace, "responder": "cb" }),
    );
    assert_eq!(web_service.event("bus:request").args[0]["traceparent"], trace);
    users.send(
        &json!({ "type": "message", "id": "n", "destination": "mail:send", "traceparent": "mine", "responder": "cb" }),
    );
    assert_eq!(web_service.event("bus:request").args[0].get("traceparent"), None, "what is none is not passed on");
}
