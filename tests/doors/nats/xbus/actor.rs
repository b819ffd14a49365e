//! An actor over the raw protocol: protobuf in nrpc.

use std::collections::VecDeque;
use std::time::Duration;

use prost::Message as _;
use rollbook::doors::nats::xbus::proto::envelope::{
    Envelope, EnvelopeAck, EnvelopeFragmentAndPosition, EnvelopePosition, Event, OutputRequest, ProcessingContext,
    ReceptionStatus,
};
use rollbook::doors::nats::xbus::proto::job::{ActorProcessRequest, ActorProcessingState, JobStatus};
use rollbook::doors::nats::xbus::proto::log::LogMessage;
use rollbook::doors::nats::xbus::proto::nrpc::{self, Reply};
use rollbook::doors::nats::xbus::proto::process::EmitterEnvelopeState;
use uuid::Uuid;

use super::setup::Setup;
use super::wire::{Delivery, Wire};
use crate::doors::nats::client::address;
use crate::harness::SOON;
use crate::harness::node::Node;

const PREFIX: &str = "xbus.default";

/// CRC-32C over id, type and items, as the specification says.
pub(super) fn checksum(event: &Event) -> u32 {
    let parts = [&event.id[..], event.event_type.as_bytes()].into_iter().chain(event.items.iter().map(Vec::as_slice));
    let mut crc = !0_u32;
    for byte in parts.flatten() {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

pub(super) fn new_id() -> Vec<u8> {
    Uuid::new_v4().into_bytes().to_vec()
}

/// Where answers for one connection of an account go: all its connections may hear what is there.
pub(super) fn inbox(account: &str) -> String {
    format!("_INBOX.{account}.in.{}", Uuid::new_v4().simple())
}

/// The text of an id.
pub(super) fn text(id: &[u8]) -> String {
    Uuid::from_slice(id).expect("16 bytes").to_string()
}

/// A whole event.
pub(super) fn event(event_type: &str, items: &[&str]) -> Event {
    let items: Vec<Vec<u8>> = items.iter().map(|item| item.as_bytes().to_vec()).collect();
    let item_count = u64::try_from(items.len()).expect("few");
    let mut event = Event { id: new_id(), event_type: event_type.to_owned(), index: 1, item_count, checksum: 0, items };
    event.checksum = checksum(&event);
    event
}

/// A whole envelope in one fragment.
pub(super) fn envelope(events: Vec<Event>) -> Envelope {
    let event_ids = events.iter().map(|event| event.id.clone()).collect();
    Envelope { id: new_id(), event_ids, events, last: false }
}

/// One event with so many items, in fragments of one item each.
pub(super) fn fragments(texts: &[&str]) -> Vec<Envelope> {
    let whole = event("order.placed", texts);
    let id = new_id();
    let part = |(number, item): (u64, &Vec<u8>)| {
        let mut part = whole.clone();
        part.index = number;
        part.items = vec![item.clone()];
        let is_last = usize::try_from(number).is_ok_and(|number| number == texts.len());
        if !is_last {
            (part.item_count, part.checksum) = (0, 0);
        }
        let event_ids = if is_last { vec![whole.id.clone()] } else { Vec::new() };
        Envelope { id: id.clone(), event_ids, events: vec![part], last: false }
    };
    (1..).zip(&whole.items).map(part).collect()
}

/// An envelope with one event with one item.
pub(super) fn order(text: &str) -> Envelope {
    envelope(vec![event("order.placed", &[text])])
}

/// The items of an envelope, as text.
pub(super) fn items(envelope: &Envelope) -> Vec<String> {
    let items = envelope.events.iter().flat_map(|event| &event.items);
    items.map(|item| String::from_utf8(item.clone()).expect("UTF-8")).collect()
}

/// A job that came.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) context: ProcessingContext,
    pub(super) request: ActorProcessRequest,
    /// Where its states go.
    pub(super) inbox: String,
}

impl Job {
    pub(super) fn of(delivery: &Delivery) -> Self {
        let request = ActorProcessRequest::decode(&*delivery.payload).expect("a request");
        let context = request.context.clone().expect("a context");
        Self { context, request, inbox: delivery.reply.clone() }
    }

    /// The one input that has an envelope.
    pub(super) fn envelope(&self) -> &Envelope {
        self.request.inputs.iter().find_map(|input| input.envelope.as_ref()).expect("an envelope")
    }

    pub(super) fn items(&self) -> Vec<String> {
        items(self.envelope())
    }

    pub(super) fn process(&self) -> String {
        text(&self.context.process_id)
    }
}

/// A request of an output.
pub(super) fn output(job: Option<&Job>, output: &str, envelope: Envelope) -> OutputRequest {
    let context = job.map(|job| job.context.clone());
    OutputRequest { context, output: output.to_owned(), close: false, envelope: Some(envelope) }
}

/// What a job says at its end.
pub(super) fn state(job: &Job, status: JobStatus, texts: &[&str]) -> ActorProcessingState {
    let message = |text: &&str| LogMessage { time: None, level: 2, text: (*text).to_owned() };
    let messages = texts.iter().map(message).collect();
    let mut state = ActorProcessingState { context: Some(job.context.clone()), messages, ..Default::default() };
    state.set_status(status);
    state
}

/// An actor that is connected.
pub(super) struct Peer {
    wire: Wire,
    actor: String,
    inbox: String,
    next: u64,
    /// What came while something else was awaited.
    waiting: VecDeque<Delivery>,
}

impl Peer {
    pub(super) fn connect(node: &Node, setup: &Setup, name: &str) -> Self {
        let mut wire = Wire::connect(address(node)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let inbox = inbox(&setup.account);
        wire.subscribe(&format!("{inbox}.*"), "answers");
        Self { wire, actor: setup.actor(name).to_owned(), inbox, next: 0, waiting: VecDeque::new() }
    }

    /// Connects and takes jobs.
    pub(super) fn ready(node: &Node, setup: &Setup, name: &str) -> Self {
        let mut peer = Self::connect(node, setup, name);
        peer.wire.subscribe(&format!("{PREFIX}.actoragent.{}.>", peer.actor), "jobs");
        peer.send(&format!("sentinel.actorready.{}", peer.actor), "", &[]);
        peer
    }

    pub(super) fn send(&mut self, subject: &str, reply: &str, payload: &[u8]) {
        self.wire.publish(&format!("{PREFIX}.{subject}"), reply, payload);
        self.wire.flush().expect("write");
    }

    pub(super) fn subscribe(&mut self, filter: &str, sid: &str) {
        self.wire.subscribe(filter, sid);
        self.wire.flush().expect("write");
    }

    pub(super) fn unsubscribe(&mut self, sid: &str) {
        self.wire.unsubscribe(sid);
        self.wire.flush().expect("write");
    }

    /// The next message of a subscription in time.
    pub(super) fn within(&mut self, sid: &str, wait: Duration) -> Option<Delivery> {
        if let Some(at) = self.waiting.iter().position(|delivery| delivery.sid == sid) {
            return self.waiting.remove(at);
        }
        let until = std::time::Instant::now() + wait;
        loop {
            let left = until.saturating_duration_since(std::time::Instant::now());
            match self.wire.next(left).unwrap_or_else(|error| panic!("awaiting {sid}: {error}")) {
                Some(delivery) if delivery.sid == sid => return Some(delivery),
                Some(delivery) => self.waiting.push_back(delivery),
                None => return None,
            }
        }
    }

    pub(super) fn next(&mut self, sid: &str) -> Delivery {
        self.within(sid, SOON).unwrap_or_else(|| panic!("nothing came for {sid}: {:?}", self.waiting))
    }

    /// Calls, and the payload of the answer.
    pub(super) fn call(&mut self, subject: &str, payload: &[u8]) -> Result<Vec<u8>, nrpc::Error> {
        self.next += 1;
        let inbox = format!("{}.{}", self.inbox, self.next);
        self.send(subject, &inbox, payload);
        let answer = loop {
            let answer = self.next("answers");
            if answer.subject == inbox {
                break answer;
            }
        };
        match Reply::read(&answer.payload).expect("a reply") {
            Reply::Error(error) => Err(error),
            Reply::Message(message) => Ok(message.to_vec()),
            other => panic!("{other:?}"),
        }
    }

    /// The error of a call that must fail.
    pub(super) fn refused(&mut self, subject: &str, payload: &[u8]) -> (i32, String) {
        let error = self.call(subject, payload).expect_err("an error");
        (error.error, error.message)
    }

    pub(super) fn output(&mut self, request: &OutputRequest) -> Result<EnvelopeAck, nrpc::Error> {
        let subject = format!("broker.{}.output", self.actor);
        self.call(&subject, &request.encode_to_vec()).map(|ack| EnvelopeAck::decode(&*ack).expect("an ack"))
    }

    /// The error of an output that must fail.
    pub(super) fn output_refused(&mut self, request: &OutputRequest) -> String {
        let error = self.output(request).expect_err("an error");
        assert_eq!(error.error, i32::from(nrpc::ErrorType::Client), "{error:?}");
        error.message
    }

    /// Emits a fragment, and what became of it.
    pub(super) fn emit(&mut self, envelope: &Envelope) -> (ReceptionStatus, String) {
        let ack = self.output(&output(None, "default", envelope.clone())).expect("an answer");
        assert_eq!(ack.id, envelope.id);
        (ack.status(), ack.reason)
    }

    /// Emits a whole envelope, which must be accepted.
    pub(super) fn emit_whole(&mut self, envelope: &Envelope) {
        assert_eq!(self.emit(envelope), (ReceptionStatus::Accepted, String::new()));
    }

    pub(super) fn job_within(&mut self, wait: Duration) -> Option<Job> {
        self.within("jobs", wait).map(|delivery| Job::of(&delivery))
    }

    pub(super) fn job(&mut self) -> Job {
        self.job_within(SOON).unwrap_or_else(|| panic!("no job came: {:?}", self.waiting))
    }

    /// Says something on the stream of a job.
    pub(super) fn say(&mut self, job: &Job, payload: &[u8]) {
        self.wire.publish(&job.inbox, "", payload);
        self.wire.flush().expect("write");
    }

    /// Says a state, and that the stream ends.
    pub(super) fn end(&mut self, job: &Job, state: &ActorProcessingState) {
        self.say(job, &state.encode_to_vec());
        self.say(job, &nrpc::end_of_stream(1));
    }

    pub(super) fn succeed(&mut self, job: &Job) {
        self.end(job, &state(job, JobStatus::Success, &[]));
    }

    /// Sends an envelope on the output of a job, which must be accepted, and succeeds.
    pub(super) fn pass(&mut self, job: &Job, on: &str, envelope: Envelope) {
        let ack = self.output(&output(Some(job), on, envelope)).expect("an answer");
        assert_eq!(ack.status(), ReceptionStatus::Accepted, "{ack:?}");
        self.succeed(job);
    }

    /// Says by itself how a job ends.
    pub(super) fn processing_end(&mut self, state: &ActorProcessingState) -> Result<Vec<u8>, nrpc::Error> {
        let subject = format!("director.processingend.{}", self.actor);
        self.call(&subject, &state.encode_to_vec())
    }

    pub(super) fn leave(&mut self) {
        let subject = format!("sentinel.actorleaving.{}", self.actor);
        self.send(&subject, "", &[]);
    }

    /// All fragments behind a position.
    pub(super) fn retrieve(
        &mut self,
        position: &EnvelopePosition,
    ) -> Result<Vec<EnvelopeFragmentAndPosition>, nrpc::Error> {
        self.next += 1;
        let inbox = format!("{}.{}", self.inbox, self.next);
        let subject = format!("envelopestorage.retrieve.actor.{}", self.actor);
        self.send(&subject, &inbox, &position.encode_to_vec());
        let mut found = Vec::new();
        loop {
            let answer = self.next("answers");
            match Reply::read(&answer.payload).expect("a reply") {
                Reply::KeepAlive => {}
                Reply::Error(error) => return Err(error),
                Reply::End(count) => {
                    assert_eq!(count.map(|count| usize::try_from(count).expect("few")), Some(found.len()));
                    return Ok(found);
                }
                Reply::Message(message) => {
                    found.push(EnvelopeFragmentAndPosition::decode(message).expect("a fragment"))
                }
            }
        }
    }

    /// From now on the actor hears what becomes of its envelopes.
    pub(super) fn follow_states(&mut self) {
        let filter = format!("{PREFIX}.processstate.{}.>", self.actor);
        self.subscribe(&filter, "states");
        // What was subscribed counts when the answer to something later is there.
        self.refused("control.none.none", &[]);
    }

    /// What became of an envelope, once its process has ended.
    pub(super) fn outcome(&mut self, envelope: &Envelope) -> EmitterEnvelopeState {
        let subject = format!("{PREFIX}.processstate.{}.envelope.{}", self.actor, text(&envelope.id));
        loop {
            let delivery = self.next("states");
            let state = EmitterEnvelopeState::decode(&*delivery.payload).expect("a state");
            // 4 is done, 5 is error.
            if delivery.subject == subject && state.status >= 4 {
                return state;
            }
        }
    }
}
