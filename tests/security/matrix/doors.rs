//! The operations of the three doors.

use std::cell::RefCell;

use serde_json::{Value, json};

use super::{Cell, Need, Outcome, Run};
use crate::doors::nats::client::{address, refusal};
use crate::harness::SOON;
use crate::harness::bus::BusClient;
use crate::harness::http::Response;
use crate::harness::socket::Socket;
use crate::harness::sse::Sse;
use crate::security::secured::{Secured, connect, log, publish, register, subscribe};

/// What the operations are about: a stream with an event that nobody acknowledged, and a service that answers.
pub(super) struct World<'a> {
    secured: &'a Secured,
    waits: RefCell<Sse>,
    event: String,
    _provider: BusClient,
}

impl<'a> World<'a> {
    pub(super) fn new(secured: &'a Secured) -> Self {
        let root = Some(secured.root.token.as_str());
        let event = publish(secured, root, "orders.first").published().id;
        let query = [("subject", "orders.>"), ("start", "oldest"), ("ack", "manual"), ("redelivery", "1h")];
        let mut waits = subscribe(secured, root, &query);
        assert_eq!(waits.next_event(SOON).event_id(), event);
        let provider = connect(secured.web, root).unwrap_or_else(|error| panic!("{error}"));
        provider.register("prov", &["prov"]);
        Self { secured, waits: RefCell::new(waits), event, _provider: provider }
    }

    fn log(&self, token: Option<&str>, request: (&str, &str, &str)) -> Outcome {
        outcome(&log(self.secured.log, token, request))
    }

    fn stream(&self, token: Option<&str>, query: &[(&str, &str)]) -> Outcome {
        outcome(&subscribe(self.secured, token, query).head)
    }

    fn acknowledge(&self, token: Option<&str>) -> Outcome {
        let path = format!("/?consumer_id={}&event_id={}", self.waits.borrow().consumer_id(), self.event);
        self.log(token, ("PUT", &path, ""))
    }

    /// A connection of the door `websocket`, used by `run` once it is there.
    fn socket(&self, token: Option<&str>, run: impl FnOnce(&Socket) -> Outcome) -> Outcome {
        match Socket::try_with(self.secured.web, token) {
            Ok(client) => run(&client),
            Err(code) => Outcome::of_code(&json!(code)),
        }
    }

    /// The same for one that is registered as a consumer, which needs no right, and sends this frame.
    fn frame(&self, token: Option<&str>, frame: Value) -> Outcome {
        self.socket(token, |client| {
            register(client, self.secured.web, token);
            client.send(&frame);
            // What has no answer of its own is over when the pong comes.
            client.send(&json!({ "type": "ping" }));
            let wanted = ["error", "published", "subscribed", "response", "unhandled", "message"];
            let broadcast = frame["type"] == "broadcast";
            let is_it =
                |one: &Value| wanted.iter().any(|kind| one["type"] == *kind) || broadcast && one["type"] == "pong";
            Outcome::of_code(&client.take_where("the outcome", is_it)["code"])
        })
    }

    /// A connection of Socket.IO, and what is asked over it.
    fn ask(&self, token: Option<&str>, name: &str, arg: &Value) -> Outcome {
        match connect(self.secured.web, token) {
            Ok(client) => Outcome::of_code(&client.ask(name, arg)["error"]["code"]),
            Err(refused) => {
                let refused: Value =
                    serde_json::from_str(refused.trim_start_matches(char::is_numeric)).unwrap_or_default();
                Outcome::of_code(&refused["data"]["code"])
            }
        }
    }
}

fn outcome(answer: &Response) -> Outcome {
    Outcome::of_status(answer.status, || answer.text())
}

/// All operations of the doors.
pub(super) fn cells<'w>(world: &'w World<'_>) -> Vec<Cell<'w>> {
    let mut cells = Vec::new();
    let mut cell = |name: &str, need: Need, run: Run<'w>| {
        cells.push(Cell { name: name.to_owned(), need, run });
    };
    sse(world, &mut cell);
    websocket(world, &mut cell);
    socketio(world, &mut cell);
    nats(world, &mut cell);
    cells
}

type Add<'f, 'w> = &'f mut dyn FnMut(&str, Need, Run<'w>);

fn sse<'w>(world: &'w World<'_>, cell: Add<'_, 'w>) {
    let (publishes, reads) = (Need::Right("publish orders.>"), Need::Right("subscribe orders.>"));
    let one = r#"{"subject":"orders.a","payload":1}"#;
    let many = r#"[{"subject":"orders.a"},{"subject":"orders.b"}]"#;
    let inbox = r#"{"subject":"_bus_.somebody","payload":1}"#;
    cell("sse publish", publishes, Box::new(move |token| world.log(token, ("POST", "/", one))));
    cell("sse publish of a batch", publishes, Box::new(move |token| world.log(token, ("POST", "/", many))));
    cell("sse publish to an inbox", Need::Credential, Box::new(move |token| world.log(token, ("POST", "/", inbox))));
    let restore = move |token: Option<&str>| world.log(token, ("POST", "/?restore=true", one));
    cell("sse restore", publishes, Box::new(restore));
    let live = [("subject", "orders.*")];
    cell("sse subscribe", reads, Box::new(move |token| world.stream(token, &live)));
    let replay = [("subject", "orders.>"), ("start", "oldest")];
    cell("sse replay", reads, Box::new(move |token| world.stream(token, &replay)));
    let durable = [("subject", "orders.>"), ("consumer", "matrix")];
    cell("sse durable consumer", reads, Box::new(move |token| world.stream(token, &durable)));
    let group = [("subject", "orders.>"), ("group", "matrix-group")];
    cell("sse group", reads, Box::new(move |token| world.stream(token, &group)));
    let own = [("subject", "_bus_.own")];
    cell("sse inbox", Need::Credential, Box::new(move |token| world.stream(token, &own)));
    let audit = [("subject", "_audit.>")];
    cell("sse audit", Need::Right("subscribe _audit.>"), Box::new(move |token| world.stream(token, &audit)));
    let head = move |token: Option<&str>| {
        let header = token.map(crate::security::secured::bearer);
        let headers: Vec<_> = header.iter().map(|value| ("Authorization", value.as_str())).collect();
        let mut http = crate::harness::http::Http::connect(world.secured.log);
        outcome(&http.request("HEAD", "/?subject=orders.a", &headers, b""))
    };
    cell("sse head", reads, Box::new(head));
    // The stream is of another principal: the answer is the same as for one that is not there.
    cell("sse acknowledge", Need::Credential, Box::new(|token| world.acknowledge(token)));
}

fn nats<'w>(world: &'w World<'_>, cell: Add<'_, 'w>) {
    let say = move |token: Option<&str>, operation: &str| {
        let text = refusal(address(&world.secured.node), token, operation);
        match text.as_str() {
            "" => Outcome::Done,
            "Authorization Violation" => Outcome::Unauthenticated,
            text if text.starts_with("Permissions Violation") => Outcome::Forbidden,
            _ => Outcome::Odd(text),
        }
    };
    cell("nats connect", Need::Credential, Box::new(move |token| say(token, "")));
    let live = Need::Right("publish news.>");
    cell("nats publish of a live message", live, Box::new(move |token| say(token, "PUB news.today 1\r\nx\r\n")));
    let recorded = Need::Right("publish orders.>");
    cell("nats publish into the book", recorded, Box::new(move |token| say(token, "PUB orders.nats 1\r\n1\r\n")));
    let reads = Need::Right("subscribe orders.>");
    cell("nats subscribe", reads, Box::new(move |token| say(token, "SUB orders.> 1\r\n")));
    cell("nats subscribe in a group", reads, Box::new(move |token| say(token, "SUB orders.* q 1\r\n")));
    let inbox = "SUB _INBOX.0123456789abcdef.> 1\r\nPUB _INBOX.fedcba9876543210.1 0\r\n\r\n";
    cell("nats inboxes", Need::Credential, Box::new(move |token| say(token, inbox)));
    let all = Need::Right("subscribe _INBOX.>");
    cell("nats inboxes of everybody", all, Box::new(move |token| say(token, "SUB _INBOX.> 1\r\n")));
}

fn websocket<'w>(world: &'w World<'_>, cell: Add<'_, 'w>) {
    cell("ws connect", Need::Credential, Box::new(|token| world.socket(token, |_| Outcome::Done)));
    let offers = |token: Option<&str>| {
        world.socket(token, |client| {
            client.send(&json!({ "name": "offered", "version": "1", "methods": ["do"] }));
            let answered = client.take_where("registered", |one| one["type"] == "registered" || one["type"] == "error");
            Outcome::of_code(&answered["code"])
        })
    };
    cell("ws register", Need::Right("offer offered"), Box::new(offers));
    let named = |token: Option<&str>| {
        world.socket(token, |client| {
            client.send(&json!({ "name": "another", "version": "1" }));
            let answered = client.take_where("registered", |one| one["type"] == "registered" || one["type"] == "error");
            Outcome::of_code(&answered["code"])
        })
    };
    cell("ws consumer with the name of another", Need::Right("offer another"), Box::new(named));
    // The provider does not answer: the message is let through when no error comes but the end of its time.
    let message = |token: Option<&str>| {
        let frame = json!({
            "type": "message", "id": "m", "destination": "prov:do", "responder": "r", "timeout_ms": 50, "payload": 1,
        });
        match world.frame(token, frame) {
            Outcome::Odd(code) if code == "timeout" => Outcome::Done,
            outcome => outcome,
        }
    };
    cell("ws message", Need::Right("call prov:do"), Box::new(message));
    let publish = json!({ "type": "publish", "id": "p", "subject": "orders.ws", "payload": 1 });
    cell("ws publish", Need::Right("publish orders.>"), Box::new(move |token| world.frame(token, publish.clone())));
    let subscribe = json!({ "type": "subscribe", "id": "s", "subject": "orders.>" });
    let reads = Need::Right("subscribe orders.>");
    cell("ws subscribe", reads, Box::new(move |token| world.frame(token, subscribe.clone())));
    let broadcast = json!({ "type": "broadcast", "id": "b", "payload": 1 });
    let tells = Need::Right("publish notify.>");
    cell("ws broadcast", tells, Box::new(move |token| world.frame(token, broadcast.clone())));
}

fn socketio<'w>(world: &'w World<'_>, cell: Add<'_, 'w>) {
    let mut ask = |name: &'static str, need: Need, arg: Value| {
        let run = move |token: Option<&str>| match world.ask(token, name, &arg) {
            // The provider does not answer.
            Outcome::Odd(code) if code == "deadline_exceeded" => Outcome::Done,
            outcome => outcome,
        };
        cell(&format!("socketio {name}"), need, Box::new(run));
    };
    ask("bus:register", Need::Right("offer offered"), json!({ "id": "offered", "capabilities": ["offered"] }));
    let call = json!({ "capability": "prov", "action": "do", "timeout": 50 });
    ask("bus:request", Need::Right("call prov:do"), call);
    ask("book:publish", Need::Right("publish orders.>"), json!({ "subject": "orders.sio", "payload": 1 }));
    ask("book:subscribe", Need::Right("subscribe orders.>"), json!({ "id": "s", "subject": "orders.>" }));
    ask("config:request", Need::Right("config:read public"), Value::Null);
    // Only registered clients notify, so all callers offer something first; the right to that is not enough.
    let notify = |token: Option<&str>| match connect(world.secured.web, token) {
        Ok(client) => {
            client.ask("bus:register", &json!({ "id": "teller", "capabilities": [] }));
            let code = client.ask("bus:notify", &json!({ "event": "told" }))["error"]["code"].clone();
            Outcome::of_code(&code)
        }
        Err(_) => world.ask(token, "bus:notify", &Value::Null),
    };
    cell("socketio bus:notify", Need::Right("publish notify.told; offer teller"), Box::new(notify));
}
