//! Translates the events of one client into calls of the bus, and messages of the bus into events.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use serde_json::json;

use super::acks::{AckTarget, Acks};
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
use crate::bus::subscribe::listener::Listener;
use crate::bus::write::notification::From;
use crate::doors::socketio::cluster::recovery::Recovery;
use crate::doors::socketio::cluster::session_state::SessionState;
use crate::doors::socketio::session::{Disconnect, Event, Out, Socket};
use crate::net::websocket::reader::code;
use crate::net::websocket::writer::Frame;

/// Most requests, and most notifications, of one client that may be in flight at a time.
const IN_FLIGHT_MAX: usize = 1024;

/// What the node needs to save the state of a client when its connection breaks.
pub(in crate::doors::socketio) struct RecoverableClient {
    recovery: Arc<Recovery>,
    pid: String,
    /// No event of the book up to here concerns the client.
    floor: AnnouncedUpTo,
    /// The client got everything up to here when it reconnected, so these events are not sent again.
    caught_up_to: Option<AnnouncedUpTo>,
}

impl RecoverableClient {
    /// Creates the value for a client that connected when the bus had announced everything up to `floor`.
    pub(in crate::doors::socketio) fn new(recovery: &Arc<Recovery>, pid: String, floor: AnnouncedUpTo) -> Self {
        Self { recovery: Arc::clone(recovery), pid, floor, caught_up_to: None }
    }
}

/// A request of this client that has no outcome yet.
struct PendingRequest {
    /// The id that the client gave the request.
    id: String,
    /// The number of the acknowledgement by which the client wants the response.
    ack: Option<u64>,
}

/// One client in the main namespace.
pub(in crate::doors::socketio) struct BusSocket {
    /// The roll and the calls.
    pub(in crate::doors::socketio) services: Services,
    /// The publishes and streams of the client.
    pub(in crate::doors::socketio) book: BookClient,
    /// What the bus subscribes to for the client when it is registered.
    pub(super) listeners: Vec<Listener>,
    /// Makes the client known to the bus until the client disconnects.
    handle: ClientHandle,
    /// The Socket.IO id of the client.
    pub(in crate::doors::socketio) sid: String,
    /// The names that the client gave in its CONNECT.
    pub(in crate::doors::socketio) auth: Auth,
    /// Saves the state when the connection breaks, if recovery is on.
    recoverable: Option<RecoverableClient>,
    /// The registrations of the client on the roll.
    pub(in crate::doors::socketio) registration: Registration,
    /// Requests of the client without an outcome, by ticket: the outcome goes back under the id of the client.
    pending: HashMap<u64, PendingRequest>,
    /// The last ticket that was given to a request.
    ticket: u64,
    /// Notifications that are being written, for their bound.
    notifying: usize,
    /// Commands that wait for the acknowledgement of the client.
    commands: Commands,
    /// What the acknowledgement numbers of the client stand for.
    acks: Acks,
}

/// The content of an acknowledgement.
pub(in crate::doors::socketio) type AckOutcome = Result<serde_json::Value, AckError>;

/// The error in an acknowledgement: code and message.
pub(in crate::doors::socketio) struct AckError(serde_json::Value);

impl std::convert::From<Fault> for AckError {
    fn from(fault: Fault) -> Self {
        let mut error = error_json(&fault);
        if let (Some(error), Some(first)) = (error.as_object_mut(), fault.first) {
            if first.waits {
                error.extend(first.due().map(|due| ("delayed_until".to_owned(), due.to_string().into())));
                error.insert("delayed_id".to_owned(), first.id.into());
                return Self(serde_json::Value::Object(std::mem::take(error)));
            }
            error.insert("id".to_owned(), first.id.into());
            error.insert("index".to_owned(), first.index.into());
            error.extend(first.created_at.map(|time| ("created_at".to_owned(), time.to_string().into())));
        }
        Self(error)
    }
}

/// What a client is told that is disconnected because of what it may not do any more.
const fn lost(reason: CloseReason) -> Option<(&'static str, &'static str)> {
    match reason {
        CloseReason::Unauthenticated => Some(("unauthenticated", "the credential does not count any more")),
        CloseReason::Forbidden => Some(("forbidden", "the right to this registration was taken away")),
        _ => None,
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
        recoverable: Option<RecoverableClient>,
    ) -> Self {
        let registration = Registration::new(services.roll.clone(), Arc::clone(handle.client()));
        Self {
            services,
            book: BookClient::new(access, Arc::clone(handle.client())),
            listeners: Vec::new(),
            handle,
            sid: sid.to_owned(),
            auth,
            recoverable,
            registration,
            pending: HashMap::new(),
            ticket: 0,
            notifying: 0,
            commands: Commands::new(0),
            acks: Acks::default(),
        }
    }

    pub(in crate::doors::socketio) const fn client(&self) -> &Arc<Client> {
        self.handle.client()
    }

    /// Notes that the client got the events that it missed behind `floor`, up to `caught_up_to`.
    pub(in crate::doors::socketio) fn set_missed_range(&mut self, floor: AnnouncedUpTo, caught_up_to: AnnouncedUpTo) {
        if let Some(recoverable) = &mut self.recoverable {
            (recoverable.floor, recoverable.caught_up_to) = (floor, Some(caught_up_to));
        }
    }

    /// Answers an event by its acknowledgement. When the client wants none, only an error is sent, as an event.
    pub(in crate::doors::socketio) fn answer(name: &str, id: Option<u64>, outcome: AckOutcome, out: &mut Out) {
        match (outcome, id) {
            (Ok(mut members), Some(id)) => {
                let mut object = serde_json::Map::new();
                object.insert("success".to_owned(), true.into());
                if let Some(more) = members.as_object_mut() {
                    object.append(more);
                }
                out.ack(id, &[&serde_json::Value::from(object).to_string()], Vec::new());
            }
            (Ok(_), None) => {}
            (Err(AckError(error)), Some(id)) => {
                let failed = json!({ "success": false, "error": error });
                out.ack(id, &[&failed.to_string()], Vec::new());
            }
            (Err(AckError(error)), None) => {
                let failed = json!({ "event": name, "error": error });
                out.emit(None, "bus:error", &[&failed.to_string()], Vec::new());
            }
        }
    }

    /// Returns a function that sends messages to this client, for tasks that take time.
    pub(in crate::doors::socketio) fn mailbox(&self) -> impl Fn(ClientMessage) + Send + use<> {
        let client = Arc::clone(self.handle.client());
        move |message| client.must_tell(message)
    }

    /// Notifications concern the client from its first registration on.
    pub(in crate::doors::socketio) fn notify_from_now(&mut self) {
        if let Some(recoverable) = &mut self.recoverable {
            recoverable.floor.notify = self.services.clients.position().notify;
        }
    }

    fn heartbeat(&self, arg: &ByteString) -> AckOutcome {
        self.registration.heartbeat(arg.as_bytes())?;
        Ok(json!({}))
    }

    fn request(&mut self, event: &Event, out: &mut Out) {
        let parsed = RequestPayload::parse(first(event), event.id.is_some());
        let request = match parsed {
            Ok(request) => request,
            Err(refused) => {
                let outcome = Err(refused.error);
                return Self::respond(event.id, refused.id.as_deref().unwrap_or_default(), outcome, out);
            }
        };
        if self.pending.len() >= IN_FLIGHT_MAX {
            let error = Fault::overloaded(format!("at most {IN_FLIGHT_MAX} requests in flight for each client"));
            return Self::respond(event.id, &request.id, Err(error), out);
        }
        self.ticket = self.ticket.wrapping_add(1);
        let (ticket, tell) = (self.ticket, self.mailbox());
        self.pending.insert(ticket, PendingRequest { id: request.id.clone(), ack: event.id });
        let bounds = self.services.router.config();
        let timeout = request.timeout.unwrap_or(bounds.timeout).min(bounds.timeout_max);
        let Identity { service, instance } = self.registration.identity().cloned().unwrap_or_default();
        let connection = self.services.roll.connection(self.handle.client().serial);
        let json = event.args.first().map(|arg| payloads::part(arg, request.payload)).unwrap_or_default();
        let payload = Payload { json, attachments: event.attachments.clone() };
        let request = Request {
            id: request.id,
            capability: request.capability,
            action: request.action,
            from: Caller { service, instance, connection: Some(connection) },
            deadline: clock::now() + timeout,
            retries: request.retries,
            key: request.key,
            responder: Responder::Caller,
            traceparent: request.traceparent,
        };
        let requester = Requester::Client(self.handle.client().serial);
        let reply = Box::new(move |outcome| tell(ClientMessage::Outcome(ticket, outcome)));
        self.services.router.call(self.handle.client().identity(), requester, (request, payload), reply);
    }

    /// Sends the outcome of a request, by acknowledgement or by event, as the client asked.
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

    /// Sends a request of another client to this client.
    fn deliver(&mut self, HandedPayload { id, number, request, payload }: &HandedPayload, out: &mut Out) {
        let left = request.deadline.saturating_duration_since(clock::now());
        let Caller { service, instance, .. } = &request.from;
        let request = payloads::RequestJson {
            request_id: id,
            capability: &request.capability,
            action: &request.action,
            payload: serde_json::from_str(payload.text()).ok(),
            from: json!({ "service": service, "instance": instance }),
            timeout: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            traceparent: request.traceparent.as_deref(),
        };
        let Ok(text) = serde_json::to_string(&request) else { return };
        let ack = self.ack_number(AckTarget::Request(*number));
        out.emit(Some(ack), "bus:request", &[&text], payload.attachments.clone());
    }

    fn ack_number(&mut self, of: AckTarget) -> u64 {
        let (router, commands, serial) = (&self.services.router, &self.commands, self.handle.client().serial);
        self.acks.give(of, |acked| match acked {
            AckTarget::Request(number) => router.holds(serial, number),
            AckTarget::Command(number) => commands.is_awaited(number),
        })
    }

    fn response(&self, event: &Event) -> AckOutcome {
        let response = ResponsePayload::parse(first(event))?;
        let Some(id) = &response.id else {
            return Err(Fault::bad("requestId: missing").into());
        };
        let answer = response.answer(&event.args, &event.attachments);
        self.answered(Key::Id(id), answer)?;
        Ok(json!({}))
    }

    fn answered(&self, key: Key<'_>, answer: Answer) -> Result<(), Fault> {
        match self.services.router.answer(self.handle.client().serial, key, answer) {
            // The caller did not want an answer, so the provider gets no error.
            Answered::Yes | Answered::NotAwaited => Ok(()),
            Answered::Late => Err(Fault::deadline_exceeded()),
            Answered::CallerGone => Err(Fault::cancelled()),
            Answered::Unknown => Err(Fault::new(FaultKind::Forbidden, "this client was not asked that")),
        }
    }

    fn notify(&mut self, event: &Event) -> Result<(), Fault> {
        let Identity { service, instance } = self.registration.identity()?.clone();
        let notification = NotifyPayload::parse(first(event))?;
        if self.notifying >= IN_FLIGHT_MAX {
            return Err(Fault::overloaded(format!("at most {IN_FLIGHT_MAX} notifications on their way")));
        }
        self.notifying = self.notifying.saturating_add(1);
        let (services, tell, id) = (self.services.clone(), self.mailbox(), event.id);
        let client = Arc::clone(self.handle.client().identity());
        // The task is not awaited: notifications of one client enter the book in their order, many at a time.
        actix_web::rt::spawn(async move {
            let NotifyPayload { event, data, volatile } = notification;
            let from = From { service, instance };
            let notice = Notice { from, id: None, event: &event, data: data.as_deref() };
            let result = match volatile {
                true => services.notify_now(&client, notice),
                false => services.notify(&client, notice).await,
            };
            tell(ClientMessage::Notified(id, result));
        });
        Ok(())
    }

    fn config(&self, id: Option<u64>, out: &mut Out) -> Result<(), Fault> {
        let config = self.services.config(self.handle.client().identity())?;
        let text = std::str::from_utf8(&config).unwrap_or("{}");
        match id {
            Some(id) => out.ack(id, &[text], Vec::new()),
            None => out.emit(None, "config:updated", &[text], Vec::new()),
        }
        Ok(())
    }

    fn command(&mut self, Command { name, json, done }: Command, out: &mut Out) {
        let Some(number) = self.commands.give(done) else { return };
        let text = std::str::from_utf8(&json).unwrap_or("{}");
        let ack = self.ack_number(AckTarget::Command(number));
        out.emit(Some(ack), &format!("bus:{name}"), &[text], Vec::new());
    }

    fn close(&mut self, reason: CloseReason, out: &mut Out) {
        self.refuse_registrations(out);
        if reason == CloseReason::Replaced {
            let by = self.handle.client().about().replaced_by.unwrap_or_default();
            let message = format!("another connection is this instance now: {by}");
            let error = json!({ "code": "replaced", "message": message.trim_end_matches(": ") });
            let error = json!({ "event": "bus:register", "error": error });
            out.emit(None, "bus:error", &[&error.to_string()], Vec::new());
        }
        if let Some((code, message)) = lost(reason) {
            let error = json!({ "event": "connect", "error": { "code": code, "message": message } });
            out.emit(None, "bus:error", &[&error.to_string()], Vec::new());
        }
        out.disconnect = Some(match reason {
            CloseReason::Draining => Disconnect::Drop("server shutting down", code::RESTART),
            CloseReason::Replaced | CloseReason::Removed => Disconnect::Kick,
            CloseReason::Unresponsive => Disconnect::Drop("no sign of life", code::NORMAL),
            // The library of the client does not come back by itself after this, and the event before says why.
            CloseReason::Unauthenticated | CloseReason::Forbidden => Disconnect::Kick,
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
        // `None` means that the answer comes later, from the cluster or the book.
        let outcome = match &*event.name {
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
            "config:request" => later(self.config(id, out)),
            other => {
                let known = "bus:register, bus:heartbeat, bus:request, bus:response, bus:notify, book:publish, \
                             book:subscribe, book:ack, book:unsubscribe and config:request";
                let message = format!("there is no event \"{other}\" of the bus; it takes {known}");
                Some(Err(Fault::bad(message).into()))
            }
        };
        let Some(outcome) = outcome else { return };
        Self::answer(&event.name, event.id, outcome, out);
    }

    fn acked(&mut self, id: u64, args: Vec<ByteString>, attachments: Vec<Bytes>, _: &mut Out) {
        let number = match self.acks.take(id) {
            Some(AckTarget::Command(number)) => {
                let handled = args.first().is_none_or(|arg| payloads::is_handled(arg));
                return self.commands.done(number, handled);
            }
            Some(AckTarget::Request(number)) => number,
            None => return tracing::debug!(id, sid = self.sid, "a client acknowledged a message that expects none"),
        };
        // The acknowledgement of a request counts as its response too, for providers that prefer acknowledgements.
        let answered = ResponsePayload::parse(args.first().map_or("null", |arg| arg))
            .and_then(|response| self.answered(Key::Number(number), response.answer(&args, &attachments)));
        if let Err(error) = answered {
            tracing::debug!(%error, number, sid = self.sid, "the acknowledgement of a request is no response to it");
        }
    }

    fn client_message(&mut self, message: ClientMessage, out: &mut Out) {
        if self.handle.client().has_lost() {
            self.services.bus.metrics().clients_slow.inc();
            return self.close(CloseReason::Unresponsive, out);
        }
        match message {
            ClientMessage::Request(handed) => {
                self.deliver(&handed, out);
                self.services.router.taken(self.handle.client().serial, &handed);
            }
            ClientMessage::Outcome(ticket, outcome) => {
                if let Some(PendingRequest { id, ack }) = self.pending.remove(&ticket) {
                    Self::respond(ack, &id, outcome, out);
                }
            }
            ClientMessage::Event(event) => {
                let caught_up_to = self.recoverable.as_ref().and_then(|recoverable| recoverable.caught_up_to);
                if caught_up_to.is_some_and(|index| event.is_within(index)) {
                    return;
                }
                if let Ok(frame) = ByteString::try_from(event.frame(self.handle.client().encoder())) {
                    out.frames.push(Frame::Text(frame));
                }
            }
            ClientMessage::Command(command) => self.command(command, out),
            ClientMessage::Registered(id, result) => self.registered(id, result, out),
            ClientMessage::Notified(id, result) => {
                self.notifying = self.notifying.saturating_sub(1);
                let outcome = result.map_err(AckError::from).map(|result| match result.index {
                    Some(index) => json!({ "id": result.id, "index": index }),
                    None => json!({ "id": result.id }),
                });
                Self::answer("bus:notify", id, outcome, out);
            }
            ClientMessage::Stream(number, update) => self.update(number, update, out),
            // This door has no live subscriptions.
            ClientMessage::RightsChanged => {}
            ClientMessage::Remind => {
                let reminder = json!({ "reason": "not registered", "timestamp": clock::millis() });
                out.emit(None, "bus:reregister-request", &[&reminder.to_string()], Vec::new());
            }
            ClientMessage::Close(reason) => self.close(reason, out),
        }
    }

    fn pid(&self) -> Option<&str> {
        self.recoverable.as_ref().map(|recoverable| &*recoverable.pid)
    }

    fn disconnected(&mut self, connection_broke: bool) {
        if let Some(RecoverableClient { recovery, pid, floor, .. }) =
            self.recoverable.take().filter(|_| connection_broke)
        {
            let registration = self.handle.client().about().registration.map(|register| *register);
            let principal = self.handle.client().identity().name();
            recovery.keep(SessionState::new(&pid, &self.sid, registration, floor, principal));
        }
        self.book.close();
        // The handle goes first. A request that is being routed then finds no client, or is found by `forget`.
        self.handle.vacate();
        self.registration.leave();
        self.services.router.forget(self.handle.client().serial);
    }
}

impl Drop for BusSocket {
    /// Also runs when the session ended without a disconnect.
    fn drop(&mut self) {
        self.disconnected(false);
    }
}
