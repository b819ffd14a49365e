//! The events of the service bus, for one client: translates them into what the bus can do, and back.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use serde_json::json;

use super::acks::{Acked, Acks};
use super::payloads::{self, Auth, NotifyPayload, RequestPayload, ResponsePayload};
use crate::base::clock;
use crate::base::fault::FaultKind;
use crate::base::json;
use crate::bus::access::Access;
use crate::bus::book_client::BookClient;
use crate::bus::call::types::{Answered, Key, Requester};
use crate::bus::client::announcement::AnnouncedUpTo;
use crate::bus::client::call::{Answer, Caller, HandedPayload, Outcome, Payload, Request, Responder};
use crate::bus::client::clients::{Client, ClientHandle, ClientMessage, CloseReason, Command};
use crate::bus::client::commands::Commands;
use crate::bus::error::Fault;
use crate::bus::roll::registration::{Identity, Registration};
use crate::bus::roll::services::{Notice, Services};
use crate::bus::write::notification::From;
use crate::doors::socketio::cluster::recovery::Recovery;
use crate::doors::socketio::cluster::session_state::Kept;
use crate::doors::socketio::session::{Away, Event, Out, Socket};
use crate::net::websocket::reader::code;
use crate::net::websocket::writer::Frame;

/// Most requests that one client may have on their way, and most notifications.
const IN_FLIGHT_MAX: usize = 1024;

/// What is known of a client that may come back for its state.
pub(in crate::doors::socketio) struct Memory {
    recovery: Arc<Recovery>,
    pid: String,
    /// Nothing of the book up to here concerns it.
    floor: AnnouncedUpTo,
    /// It has been told everything up to here when it came back.
    told: Option<AnnouncedUpTo>,
}

impl Memory {
    /// Of a client that came when everything up to `floor` had been told.
    pub(in crate::doors::socketio) fn new(recovery: &Arc<Recovery>, pid: String, floor: AnnouncedUpTo) -> Self {
        Self { recovery: Arc::clone(recovery), pid, floor, told: None }
    }
}

/// A request of this client that has no end yet.
struct Asked {
    /// What it called it.
    id: String,
    /// It wants the response as an acknowledgement.
    ack: Option<u64>,
}

/// One client.
pub(in crate::doors::socketio) struct BusSocket {
    pub(in crate::doors::socketio) services: Services,
    pub(in crate::doors::socketio) book: BookClient,
    handle: ClientHandle,
    pub(in crate::doors::socketio) sid: String,
    pub(in crate::doors::socketio) auth: Auth,
    memory: Option<Memory>,
    pub(in crate::doors::socketio) registration: Registration,
    asked: HashMap<u64, Asked>,
    ticket: u64,
    notifying: usize,
    commands: Commands,
    acks: Acks,
}

/// What an acknowledgement says.
pub(in crate::doors::socketio) type Said = Result<serde_json::Value, Failure>;

/// What it says when it failed: code and message.
pub(in crate::doors::socketio) struct Failure(serde_json::Value);

impl std::convert::From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        let mut error = error_json(&fault);
        if let (Some(error), Some(first)) = (error.as_object_mut(), fault.first) {
            error.insert("id".to_owned(), first.id.into());
            error.insert("index".to_owned(), first.index.into());
            error.extend(first.created_at.map(|time| ("created_at".to_owned(), time.to_string().into())));
        }
        Self(error)
    }
}

fn error_json(fault: &Fault) -> serde_json::Value {
    json!({ "code": fault.code(), "message": fault.text })
}

impl BusSocket {
    pub(in crate::doors::socketio) fn new(
        (services, access): (Services, Access),
        handle: ClientHandle,
        sid: &str,
        auth: Auth,
        memory: Option<Memory>,
    ) -> Self {
        let registration = Registration::new(services.roll.clone(), Arc::clone(handle.client()));
        Self {
            services,
            book: BookClient::new(access, Arc::clone(handle.client())),
            handle,
            sid: sid.to_owned(),
            auth,
            memory,
            registration,
            asked: HashMap::new(),
            ticket: 0,
            notifying: 0,
            commands: Commands::new(0),
            acks: Acks::default(),
        }
    }

    pub(in crate::doors::socketio) const fn client(&self) -> &Arc<Client> {
        self.handle.client()
    }

    /// It was told what it had missed behind `floor`, up to `told`.
    pub(in crate::doors::socketio) fn was_told(&mut self, floor: AnnouncedUpTo, told: AnnouncedUpTo) {
        if let Some(memory) = &mut self.memory {
            (memory.floor, memory.told) = (floor, Some(told));
        }
    }

    /// Answers an event: by its acknowledgement, or, when it wants none, by an event if it failed.
    pub(in crate::doors::socketio) fn answer(name: &str, id: Option<u64>, said: Said, out: &mut Out) {
        match (said, id) {
            (Ok(mut says), Some(id)) => {
                let mut object = serde_json::Map::new();
                object.insert("success".to_owned(), true.into());
                if let Some(more) = says.as_object_mut() {
                    object.append(more);
                }
                out.ack(id, &[&serde_json::Value::from(object).to_string()], Vec::new());
            }
            (Ok(_), None) => {}
            (Err(Failure(error)), Some(id)) => {
                let failed = json!({ "success": false, "error": error });
                out.ack(id, &[&failed.to_string()], Vec::new());
            }
            (Err(Failure(error)), None) => {
                let failed = json!({ "event": name, "error": error });
                out.emit(None, "bus:error", &[&failed.to_string()], Vec::new());
            }
        }
    }

    /// The way back to this client, for what takes time.
    pub(in crate::doors::socketio) fn mailbox(&self) -> impl Fn(ClientMessage) + Send + use<> {
        let client = Arc::clone(self.handle.client());
        move |message| client.must_tell(message)
    }

    /// Notifications concern it from the first time on that it is registered.
    pub(in crate::doors::socketio) fn is_told_from_now(&mut self) {
        if let Some(memory) = &mut self.memory {
            memory.floor.notify = self.services.clients.position().notify;
        }
    }

    fn heartbeat(&self, arg: &ByteString) -> Said {
        self.registration.heartbeat(arg.as_bytes())?;
        Ok(json!({}))
    }

    fn request(&mut self, event: &Event, out: &mut Out) {
        let parsed = RequestPayload::parse(first(event), event.id.is_some());
        let asks = match parsed {
            Ok(asks) => asks,
            Err(refused) => {
                let outcome = Err(refused.error);
                return Self::respond(event.id, refused.id.as_deref().unwrap_or_default(), outcome, out);
            }
        };
        if self.asked.len() >= IN_FLIGHT_MAX {
            let error = Fault::overloaded(format!("at most {IN_FLIGHT_MAX} requests in flight for each client"));
            return Self::respond(event.id, &asks.id, Err(error), out);
        }
        self.ticket = self.ticket.wrapping_add(1);
        let (ticket, tell) = (self.ticket, self.mailbox());
        self.asked.insert(ticket, Asked { id: asks.id.clone(), ack: event.id });
        let bounds = self.services.router.config();
        let timeout = asks.timeout.unwrap_or(bounds.timeout).min(bounds.timeout_max);
        let Identity { service, instance } = self.registration.identity().cloned().unwrap_or_default();
        let connection = self.services.roll.connection(self.handle.client().serial);
        let json = event.args.first().map(|arg| payloads::part(arg, asks.payload)).unwrap_or_default();
        let payload = Payload { json, attachments: event.attachments.clone() };
        let request = Request {
            id: asks.id,
            capability: asks.capability,
            action: asks.action,
            from: Caller { service, instance, connection: Some(connection) },
            deadline: clock::now() + timeout,
            retries: asks.retries,
            key: asks.key,
            responder: Responder::Caller,
            traceparent: asks.traceparent,
        };
        let requester = Requester::Client(self.handle.client().serial);
        let reply = Box::new(move |outcome| tell(ClientMessage::Outcome(ticket, outcome)));
        self.services.router.call(requester, request, payload, reply);
    }

    /// Gives a client the outcome of its request, in the one way that it asked for.
    fn respond(ack: Option<u64>, id: &str, outcome: Outcome, out: &mut Out) {
        let (success, member, text, attachments) = match outcome {
            Ok(Answer { success: true, body }) => (true, "data", body.text().to_owned(), body.attachments),
            Ok(Answer { success: false, body }) => (false, "error", body.text().to_owned(), body.attachments),
            Err(error) => (false, "error", error_json(&error).to_string(), Vec::new()),
        };
        let id = serde_json::Value::from(id);
        let response = format!("{{\"requestId\":{id},\"success\":{success},\"{member}\":{text}}}");
        match ack {
            Some(ack) => out.ack(ack, &[&response], attachments),
            None => out.emit(None, "bus:response", &[&response], attachments),
        }
    }

    /// Hands a request of somebody else to this client.
    fn ask(&mut self, HandedPayload { id, number, request, payload }: &HandedPayload, out: &mut Out) {
        let left = request.deadline.saturating_duration_since(clock::now());
        let Caller { service, instance, .. } = &request.from;
        let asks = payloads::Asked {
            request_id: id,
            capability: &request.capability,
            action: &request.action,
            payload: serde_json::from_str(payload.text()).ok(),
            from: json!({ "service": service, "instance": instance }),
            timeout: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            traceparent: request.traceparent.as_deref(),
        };
        let Ok(text) = serde_json::to_string(&asks) else { return };
        let ack = self.ack_number(Acked::Request(*number));
        out.emit(Some(ack), "bus:request", &[&text], payload.attachments.clone());
    }

    fn ack_number(&mut self, of: Acked) -> u64 {
        let (router, commands, serial) = (&self.services.router, &self.commands, self.handle.client().serial);
        self.acks.give(of, |acked| match acked {
            Acked::Request(number) => router.holds(serial, number),
            Acked::Command(number) => commands.is_awaited(number),
        })
    }

    fn response(&self, event: &Event) -> Said {
        let responds = ResponsePayload::parse(first(event))?;
        let Some(id) = &responds.id else {
            return Err(Fault::bad("requestId: missing").into());
        };
        let answer = responds.answer(&event.args, &event.attachments);
        self.answered(Key::Id(id), answer)?;
        Ok(json!({}))
    }

    fn answered(&self, key: Key<'_>, answer: Answer) -> Result<(), Fault> {
        match self.services.router.answer(self.handle.client().serial, key, answer) {
            // Whoever asked without waiting for an answer is not told of it.
            Answered::Yes | Answered::NotAwaited => Ok(()),
            Answered::Late => Err(Fault::deadline_exceeded()),
            Answered::CallerGone => Err(Fault::cancelled()),
            Answered::Unknown => Err(Fault::new(FaultKind::Forbidden, "this client was not asked that")),
        }
    }

    fn notify(&mut self, event: &Event) -> Result<(), Fault> {
        let Identity { service, instance } = self.registration.identity()?.clone();
        let notifies = NotifyPayload::parse(first(event))?;
        if self.notifying >= IN_FLIGHT_MAX {
            return Err(Fault::overloaded(format!("at most {IN_FLIGHT_MAX} notifications on their way")));
        }
        self.notifying = self.notifying.saturating_add(1);
        let (services, tell, id) = (self.services.clone(), self.mailbox(), event.id);
        // Not waited for: those of one client go into the book in their order, many at a time.
        actix_web::rt::spawn(async move {
            let NotifyPayload { event, data, volatile } = notifies;
            let from = From { service, instance };
            let notice = Notice { from, id: None, event: &event, data: data.as_deref() };
            let noted = if volatile { services.notify_now(notice) } else { services.notify(notice).await };
            tell(ClientMessage::Notified(id, noted.map_err(|refusal| Fault::of_service(&refusal))));
        });
        Ok(())
    }

    fn config(&self, id: Option<u64>, out: &mut Out) {
        let config = self.services.bus.node().state().config();
        let text = std::str::from_utf8(config.text()).unwrap_or("{}");
        match id {
            Some(id) => out.ack(id, &[text], Vec::new()),
            None => out.emit(None, "config:updated", &[text], Vec::new()),
        }
    }

    fn command(&mut self, Command { name, json, done }: Command, out: &mut Out) {
        let Some(number) = self.commands.give(done) else { return };
        let text = std::str::from_utf8(&json).unwrap_or("{}");
        let ack = self.ack_number(Acked::Command(number));
        out.emit(Some(ack), &format!("bus:{name}"), &[text], Vec::new());
    }

    fn close(&mut self, why: CloseReason, out: &mut Out) {
        self.refuse_registrations(out);
        if why == CloseReason::Replaced {
            let by = self.handle.client().about().replaced_by.unwrap_or_default();
            let message = format!("another connection is this instance now: {by}");
            let error = json!({ "code": "replaced", "message": message.trim_end_matches(": ") });
            let says = json!({ "event": "bus:register", "error": error });
            out.emit(None, "bus:error", &[&says.to_string()], Vec::new());
        }
        out.away = Some(match why {
            CloseReason::Draining => Away::Drop("server shutting down", code::RESTART),
            CloseReason::Replaced | CloseReason::Removed => Away::Kick,
            CloseReason::Unresponsive => Away::Drop("no sign of life", code::NORMAL),
        });
    }
}

fn first(event: &Event) -> &str {
    event.args.first().map_or("null", |arg| arg)
}

impl Socket for BusSocket {
    fn joined(&mut self, _: &mut Out) {}

    fn event(&mut self, event: Event, out: &mut Out) {
        let later = |done: Result<(), Fault>| done.err().map(|error| Err(error.into()));
        let (id, arg) = (event.id, first(&event));
        if event.deep {
            let error = Fault::bad(format!("an argument is {}", json::TOO_DEEP));
            return Self::answer(&event.name, id, Err(error.into()), out);
        }
        // `None`: the answer comes when the cluster, or the book, has given its own.
        let said = match &*event.name {
            name if !event.attachments.is_empty() && !matches!(name, "bus:request" | "bus:response") => {
                let message = "binary data is taken in bus:request and bus:response only";
                Some(Err(Fault::bad(message).into()))
            }
            "bus:register" => later(self.register(id, arg, out)),
            "bus:heartbeat" => Some(self.heartbeat(&event.args.first().cloned().unwrap_or_default())),
            "bus:request" => return self.request(&event, out),
            "bus:response" => Some(self.response(&event)),
            "bus:notify" => later(self.notify(&event)),
            "book:publish" => later(self.publish(id, arg, out)),
            "book:subscribe" => later(self.subscribe(id, arg)),
            "book:ack" => later(self.acknowledge(id, arg)),
            "book:unsubscribe" => later(self.unsubscribe(id, arg, out)),
            "config:request" => return self.config(id, out),
            other => {
                let known = "bus:register, bus:heartbeat, bus:request, bus:response, bus:notify, book:publish, \
                             book:subscribe, book:ack, book:unsubscribe and config:request";
                let message = format!("there is no event \"{other}\" of the bus; it takes {known}");
                Some(Err(Fault::bad(message).into()))
            }
        };
        let Some(said) = said else { return };
        Self::answer(&event.name, event.id, said, out);
    }

    fn acked(&mut self, id: u64, args: Vec<ByteString>, attachments: Vec<Bytes>, _: &mut Out) {
        let number = match self.acks.take(id) {
            Some(Acked::Command(number)) => {
                let handled = args.first().is_none_or(|arg| payloads::is_handled(arg));
                return self.commands.done(number, handled);
            }
            Some(Acked::Request(number)) => number,
            None => return tracing::debug!(id, "an acknowledgement of nothing"),
        };
        // The acknowledgement of a request is a response too, for providers that like it.
        let answered = ResponsePayload::parse(args.first().map_or("null", |arg| arg))
            .and_then(|responds| self.answered(Key::Number(number), responds.answer(&args, &attachments)));
        if let Err(error) = answered {
            tracing::debug!(%error, "an acknowledgement of nothing");
        }
    }

    fn told(&mut self, told: ClientMessage, out: &mut Out) {
        if self.handle.client().has_lost() {
            self.services.bus.metrics().clients_slow.inc();
            return self.close(CloseReason::Unresponsive, out);
        }
        match told {
            ClientMessage::Request(handed) => {
                self.ask(&handed, out);
                self.services.router.taken(self.handle.client().serial, &handed);
            }
            ClientMessage::Outcome(ticket, outcome) => {
                if let Some(Asked { id, ack }) = self.asked.remove(&ticket) {
                    Self::respond(ack, &id, outcome, out);
                }
            }
            ClientMessage::Event(event) => {
                let told = self.memory.as_ref().and_then(|memory| memory.told);
                if told.is_some_and(|told| event.is_within(told)) {
                    return;
                }
                if let Ok(frame) = ByteString::try_from(event.frame(self.handle.client().encoder())) {
                    out.frames.push(Frame::Text(frame));
                }
            }
            ClientMessage::Command(command) => self.command(command, out),
            ClientMessage::Registered(id, result) => self.registered(id, result, out),
            ClientMessage::Notified(id, noted) => {
                self.notifying = self.notifying.saturating_sub(1);
                let said = noted.map_err(Failure::from).map(|noted| match noted.index {
                    Some(index) => json!({ "id": noted.id, "index": index }),
                    None => json!({ "id": noted.id }),
                });
                Self::answer("bus:notify", id, said, out);
            }
            ClientMessage::Stream(number, update) => self.update(number, update, out),
            ClientMessage::Remind => {
                let reminder = json!({ "reason": "not registered", "timestamp": clock::millis() });
                out.emit(None, "bus:reregister-request", &[&reminder.to_string()], Vec::new());
            }
            ClientMessage::Close(why) => self.close(why, out),
        }
    }

    fn pid(&self) -> Option<&str> {
        self.memory.as_ref().map(|memory| &*memory.pid)
    }

    fn left(&mut self, broke: bool) {
        if let Some(Memory { recovery, pid, floor, .. }) = self.memory.take().filter(|_| broke) {
            let registration = self.handle.client().about().registration.map(|register| *register);
            recovery.keep(Kept::new(&pid, &self.sid, registration, floor));
        }
        self.book.close();
        // In this order: a request that is being routed now finds nobody, or is found here.
        self.handle.vacate();
        self.registration.leave();
        self.services.router.forget(self.handle.client().serial);
    }
}

impl Drop for BusSocket {
    /// Also when its session died without a word.
    fn drop(&mut self) {
        self.left(false);
    }
}
