//! The actor of one responder: it registers the responder on the roll, and gives it the requests of all doors.
//!
//! The responder is a client of the bus of its own, because a connection may have many. A request becomes a message on
//! the subject of its endpoint for the subscription of this very connection, and the answer comes back to an inbox that
//! nobody else knows.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::{
    Actor, ActorContext, ActorFutureExt as _, AsyncContext, Context, Handler, Message, WrapFuture as _,
};
use bytes::{Bytes, BytesMut};
use rollbook_core::service::InstanceRegister;
use serde_json::json;
use serde_json::value::RawValue;

use super::answers::{Answers, Came, Look};
use super::discovery::{Described, Name, described};
use super::payload::{from_json, to_json};
use crate::base::actors::{Belongs, Kind, Owned};
use crate::base::clock;
use crate::base::fault::FaultKind;
use crate::bus::call::types::Key;
use crate::bus::client::call::{Answer, HandedPayload, Payload, Responder as Awaiting};
use crate::bus::client::clients::{About, ClientHandle, ClientMessage, CloseReason, Enrollment};
use crate::bus::client::no_announcements::NO_ANNOUNCEMENTS;
use crate::bus::client::plain::plain;
use crate::bus::error::Fault;
use crate::bus::live::filter::{LiveFilter, LiveSubject};
use crate::bus::live::message::{Delivered, LiveMessage, LiveSink as _};
use crate::bus::live::subjects::LiveSubscription;
use crate::bus::roll::registration::{Registration, RegistrationResult};
use crate::bus::roll::services::Services;
use crate::bus::security::credentials::base62;
use crate::bus::security::identity::Identity;
use crate::doors::nats::outbox::Outbox;
use crate::doors::nats::wire::headers::{self, Headers};

/// Requests and commands that wait for the actor.
const MAILBOX: usize = 1024;
/// How long after a change of its subscriptions a responder is asked what it is: a program that starts makes several.
const ASK_AFTER: Duration = Duration::from_millis(50);
/// Least time between two questions.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// When a registration that the cluster could not take is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How often the life of the connection counts as a heartbeat.
const BEAT: Duration = Duration::from_secs(1);
/// How inboxes begin: whoever knows the name of one may publish to it.
const INBOX: &str = "_INBOX.";
/// Headers of an answer that is an error.
const ERROR: &str = "Nats-Service-Error";
const ERROR_CODE: &str = "Nats-Service-Error-Code";
/// The trace context of W3C.
const TRACE: &str = "traceparent";

/// The subscriptions of the connection have changed: so may have the endpoints.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(in crate::doors::nats) struct Changed;

/// The responders of a connection, by the numbers of the subscriptions on which they are asked what they are.
pub(in crate::doors::nats) type Responders = HashMap<u64, Owned<Responder>>;

/// The connection of a responder.
#[derive(Debug, Clone)]
pub(in crate::doors::nats) struct Connected {
    pub(in crate::doors::nats) services: Services,
    pub(in crate::doors::nats) outbox: Arc<Outbox>,
    pub(in crate::doors::nats) identity: Arc<Identity>,
    /// The address of the client.
    pub(in crate::doors::nats) address: String,
    /// Largest message of the door.
    pub(in crate::doors::nats) message_bytes_max: usize,
}

/// The actor of one responder.
pub(in crate::doors::nats) struct Responder {
    connected: Connected,
    name: Name,
    /// The subscription on which the responder is asked what it is.
    subscription: u64,
    handle: ClientHandle,
    registration: Registration,
    /// What is on the roll, or on its way there.
    registered: Option<InstanceRegister>,
    /// The subjects of the actions.
    endpoints: HashMap<String, LiveSubject>,
    answers: Arc<Answers>,
    /// Answers come as long as this is there.
    _inbox: LiveSubscription,
    /// When the responder was asked last.
    asked: Option<Instant>,
    /// Whether a timer will ask.
    will_ask: bool,
    /// Whether the node stops: nothing is registered any more.
    draining: bool,
    /// Whether the log says that the responder is not registered.
    warned: bool,
}

impl Responder {
    /// A responder that is not registered yet.
    ///
    /// # Errors
    /// There is no room for one more subscription, or no randomness.
    pub(in crate::doors::nats) fn new(
        connected: Connected,
        (name, subscription): (Name, u64),
        ctx: &mut Context<Self>,
    ) -> Result<Self, Fault> {
        let Connected { services, outbox, identity, .. } = &connected;
        let about = About {
            id: format!("{}-{}", outbox.client(), name.instance),
            address: connected.address.clone(),
            name: name.service.clone(),
            transport: "nats-service",
            ..About::default()
        };
        let client = (Arc::clone(identity), None);
        let handle = services.clients.connect(client, &NO_ANNOUNCEMENTS, ctx.address().recipient(), about);
        // Nobody can guess the name of the inbox.
        let mut prefix = INBOX.to_owned();
        base62::push_secret(&mut prefix).map_err(|error| Fault::internal(error.to_string()))?;
        prefix.push('.');
        let provider = (services.router.clone(), handle.client().serial);
        let answers = Arc::new(Answers::new(prefix, provider, ctx.address().recipient()));
        let filter = LiveFilter::parse(answers.filter().into()).map_err(|error| Fault::internal(error.to_string()))?;
        let sink = Arc::<Answers>::clone(&answers);
        let inbox = services.bus.live_subjects().subscribe(filter, "", (sink, 0), false);
        let inbox = inbox.map_err(|full| Fault::overloaded(full.to_string()))?;
        let registration = Registration::new(services.roll.clone(), Arc::clone(handle.client()));
        Ok(Self {
            connected,
            name,
            subscription,
            handle,
            registration,
            registered: None,
            endpoints: HashMap::new(),
            answers,
            _inbox: inbox,
            asked: None,
            will_ask: false,
            draining: false,
            warned: false,
        })
    }

    fn serial(&self) -> u64 {
        self.handle.client().serial
    }

    /// Gives the client a message of one of its subscriptions. Returns whether the client takes it.
    fn give(&self, subscription: u64, message: &LiveMessage) -> bool {
        let outbox = &self.connected.outbox;
        let delivered = outbox.deliver(subscription, message);
        if delivered == Delivered::Sleeping {
            outbox.wake();
        }
        delivered != Delivered::Refused
    }

    /// Asks the responder what it is, soon, and not too often.
    fn ask_after(&mut self, wait: Duration, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.will_ask, true) {
            return;
        }
        let again = self.asked.map(|asked| (asked + ASK_AGAIN).saturating_duration_since(clock::now()));
        ctx.run_later(wait.max(again.unwrap_or_default()), |act, _| {
            (act.will_ask, act.asked) = (false, Some(clock::now()));
            let (subject, reply) = (act.name.subject(), act.answers.info_subject());
            if !act.give(act.subscription, &LiveMessage { subject, reply, ..LiveMessage::default() }) {
                tracing::debug!(service = act.name.service, "a responder cannot be asked what it is");
            }
        });
    }

    /// The responder has said what it is.
    fn describe(&mut self, json: &[u8], ctx: &mut Context<Self>) {
        if self.draining {
            return;
        }
        match described(&self.name, json) {
            Ok(Some(Described { register, endpoints })) => {
                self.endpoints = endpoints;
                if self.registered.as_ref() != Some(&register) {
                    self.register(register, ctx);
                }
            }
            Ok(None) => self.leave(),
            Err(fault) => self.refused(&fault, ctx),
        }
    }

    fn register(&mut self, register: InstanceRegister, ctx: &mut Context<Self>) {
        self.registered = Some(register.clone());
        match self.registration.register(None, register) {
            Ok(Some(registering)) => self.follow(registering, ctx),
            // The one before is on its way.
            Ok(None) => {}
            Err(fault) => self.refused(&fault, ctx),
        }
    }

    fn follow(&self, registering: impl Future<Output = RegistrationResult> + 'static, ctx: &mut Context<Self>) {
        ctx.spawn(registering.into_actor(self).map(|(_, result), act, ctx| act.registration_ended(&result, ctx)));
    }

    fn registration_ended(&mut self, result: &Result<Enrollment, Fault>, ctx: &mut Context<Self>) {
        self.registration.ended(result);
        match result {
            Ok(_) if self.registered.is_none() => self.leave(),
            Ok(_) => {}
            Err(fault) => self.refused(fault, ctx),
        }
        if let Some(next) = self.registration.begin_next() {
            self.follow(next, ctx);
        }
    }

    /// The responder is not registered. Its client goes on as any client of NATS.
    fn refused(&mut self, fault: &Fault, ctx: &mut Context<Self>) {
        let Name { service, instance } = &self.name;
        // Once: a client may give many descriptions.
        if !std::mem::replace(&mut self.warned, true) {
            tracing::warn!(
                service, instance, client = self.handle.client().identity().name(), reason = %fault,
                "a responder of NATS is not registered as a service"
            );
        }
        self.registered = None;
        if matches!(fault.kind, FaultKind::Unavailable | FaultKind::Overloaded) {
            self.ask_after(RETRY, ctx);
        }
    }

    /// The responder offers nothing any more.
    fn leave(&mut self) {
        self.registered = None;
        self.registration.leave();
        self.handle.client().describe(|about| about.registration = None);
    }

    /// Gives the responder a request.
    fn request(&self, handed: &HandedPayload) {
        let (router, serial) = (&self.connected.services.router, self.serial());
        let message = match self.message(handed) {
            Ok(message) => message,
            Err(fault) => return router.refuse(serial, handed.number, fault),
        };
        let subjects = self.connected.services.bus.live_subjects();
        let subject = LiveSubject::parse(message.subject.clone()).ok();
        let subscription =
            subject.and_then(|subject| subjects.any_subscription_of(self.connected.outbox.client(), &subject));
        if subscription.is_some_and(|subscription| self.give(subscription, &message)) {
            router.taken(serial, handed);
        } else {
            router.decline(serial, handed.number);
        }
    }

    /// A request as a message of NATS.
    fn message(&self, handed: &HandedPayload) -> Result<LiveMessage, Fault> {
        let HandedPayload { number, request, payload, .. } = handed;
        let no_action = || Fault::new(FaultKind::NoAction, "the service has no endpoint of that name");
        let subject = self.endpoints.get(&request.action).ok_or_else(no_action)?.text().clone();
        let mut block = BytesMut::new();
        if let Some(trace) = &request.traceparent {
            headers::write(&mut block, None, [(TRACE, trace.as_str())].into_iter())
                .map_err(|error| Fault::internal(error.to_string()))?;
        }
        let awaited = request.responder != Awaiting::Nobody;
        let reply = if awaited { self.answers.subject(*number) } else { Default::default() };
        let message = LiveMessage { subject, reply, headers: block.freeze(), payload: from_json(plain(payload)?) };
        let most = self.connected.message_bytes_max;
        if message.headers.len().saturating_add(message.payload.len()) > most {
            return Err(Fault::bad(format!("the provider takes messages of at most {most} bytes")));
        }
        Ok(message)
    }

    /// Handles what has come to the inbox.
    fn look(&mut self, ctx: &mut Context<Self>) {
        for came in self.answers.take() {
            match came {
                Came::Info(message) => self.describe(&message.payload, ctx),
                Came::Answer(number, message) => {
                    // Whether somebody still waits is for the router to say.
                    let router = &self.connected.services.router;
                    router.answer(self.serial(), Key::Number(number), answer(&message));
                }
            }
        }
    }

    fn close(&mut self, reason: CloseReason, ctx: &mut Context<Self>) {
        match reason {
            // What the responder has is still answered, as long as its connection lives.
            CloseReason::Draining => {
                self.draining = true;
                self.leave();
            }
            reason => {
                let Name { service, instance } = &self.name;
                tracing::warn!(service, instance, ?reason, "a responder of NATS is no service any more");
                ctx.stop();
            }
        }
    }
}

/// The answer that a message is.
fn answer(message: &LiveMessage) -> Answer {
    let block = Headers::parse(&message.headers).ok();
    let header = |name: &str| block.as_ref().and_then(|block| block.get(name));
    let (text, code) = (header(ERROR), header(ERROR_CODE));
    if text.is_none() && code.is_none() {
        return Answer { success: true, body: Payload::json(to_json(&message.payload)) };
    }
    let mut error = json!({ "code": code.unwrap_or_default(), "message": text.unwrap_or_default() });
    let data = (!message.payload.is_empty()).then(|| to_json(&message.payload));
    let data = data.and_then(|json| serde_json::from_slice::<Box<RawValue>>(&json).ok());
    if let (Some(data), Some(error)) = (data.and_then(|raw| serde_json::to_value(raw).ok()), error.as_object_mut()) {
        error.insert("data".to_owned(), data);
    }
    Answer { success: false, body: Payload::json(Bytes::from(error.to_string())) }
}

impl Actor for Responder {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        self.ask_after(ASK_AFTER, ctx);
        // The connection is known to live: it is pinged, and a dead one ends with its responders.
        ctx.run_interval(BEAT, |act, _| act.handle.client().beats());
    }
}

impl Belongs for Responder {
    const KIND: Kind = Kind::NatsService;
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.registration.leave();
        // The handle goes first: a request that is being routed then finds no client, or is found by `forget`.
        self.handle.vacate();
        self.connected.services.router.forget(self.serial());
    }
}

impl Handler<ClientMessage> for Responder {
    type Result = ();

    fn handle(&mut self, message: ClientMessage, ctx: &mut Self::Context) {
        match message {
            ClientMessage::Request(handed) => self.request(&handed),
            ClientMessage::Close(reason) => self.close(reason, ctx),
            // The services API of NATS knows no commands: whoever gave one hears that nobody has taken it.
            _ => {}
        }
    }
}

impl Handler<Look> for Responder {
    type Result = ();

    fn handle(&mut self, _: Look, ctx: &mut Self::Context) {
        self.look(ctx);
    }
}

impl Handler<Changed> for Responder {
    type Result = ();

    fn handle(&mut self, _: Changed, ctx: &mut Self::Context) {
        self.ask_after(ASK_AFTER, ctx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(lines: &[(&str, &str)], payload: &'static str) -> (bool, String) {
        let mut block = BytesMut::new();
        if !lines.is_empty() {
            headers::write(&mut block, None, lines.iter().copied()).unwrap();
        }
        let message = LiveMessage { headers: block.freeze(), payload: payload.into(), ..LiveMessage::default() };
        let answer = answer(&message);
        (answer.success, answer.body.text().to_owned())
    }

    #[test]
    fn an_answer_is_its_payload_and_an_error_is_what_the_headers_say() {
        assert_eq!(said(&[], "{\"n\": 1}"), (true, "{\"n\": 1}".to_owned()));
        assert_eq!(said(&[("Other", "x")], "hello"), (true, "\"hello\"".to_owned()));
        let error = [(ERROR, "no such user"), (ERROR_CODE, "404")];
        assert_eq!(said(&error, ""), (false, r#"{"code":"404","message":"no such user"}"#.to_owned()));
        let with_data = r#"{"code":"404","message":"no such user","data":{"id":7}}"#;
        assert_eq!(said(&error, "{\"id\":7}"), (false, with_data.to_owned()));
        assert_eq!(said(&error[..1], ""), (false, r#"{"code":"","message":"no such user"}"#.to_owned()));
    }
}
