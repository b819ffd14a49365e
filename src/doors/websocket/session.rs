//! What a client may say when, and what it means: the state machine of one connection. Pure.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use bytes::Bytes;
use bytestring::ByteString;

use super::error::{ErrorCode, FrameError};
use super::outbound::{self, OutboundFrame, PendingMessage};
use super::payloads::{ClientFrame, MessagePayload, PublishPayload, RegisterPayload, SubscribePayload};
use super::{close_codes, codec};
use crate::bus::client::call::{Answer, Outcome, Responder};

/// Frames that wait while a registration is on its way, and their bytes.
const BACKLOG_MAX: usize = 64;
const BACKLOG_BYTES_MAX: usize = 256 << 10;
/// How long the id of a message that has ended may not be used again.
const IDS_FOR: Duration = Duration::from_secs(60);
/// The newest of them that are remembered.
const IDS_MAX: usize = 10_000;
/// Room for so many is kept, whether they are there or not.
const ROOM_MIN: usize = 64;

/// Bounds of a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Most messages of one client that have no end yet.
    pub(super) in_flight_max: usize,
    /// How long a message may take that does not say so.
    pub(super) timeout: Duration,
    /// How long one may take that does.
    pub(super) timeout_max: Duration,
}

/// Who a client is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    /// Of its service, or its own when it is a consumer.
    pub(super) name: String,
    /// Empty when it is a consumer.
    pub(super) instance: String,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// Write this.
    Send(OutboundFrame),
    /// Put it on the roll; [`Session::registered`] follows.
    Register(RegisterPayload),
    /// Ask a service; [`Session::ended`] follows.
    Call(u64, MessagePayload, Duration),
    /// It answers a request that it was asked.
    Answer(String, Answer),
    /// Tell all services.
    Broadcast(Option<String>, Bytes),
    /// A command was understood, and whether something takes it.
    Done(u64, bool),
    /// Put an event into the book.
    Publish(Box<PublishPayload>),
    /// Open a stream of the book.
    Subscribe(Box<SubscribePayload>),
    /// An event of that stream was dealt with.
    Ack(String, String),
    /// End that stream.
    Unsubscribe(String),
    /// It wants to leave.
    Leave,
    /// Write this, and end it with this code for this reason.
    Close(OutboundFrame, u16, &'static str),
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Connected,
    Registering(Backlog),
    Registered,
    Draining,
    Closed,
}

/// Frames that wait.
#[derive(Debug, Default, PartialEq, Eq)]
struct Backlog {
    frames: VecDeque<ByteString>,
    bytes: usize,
}

impl Backlog {
    /// `false` when it does not fit.
    fn takes(&mut self, frame: ByteString) -> bool {
        let bytes = self.bytes.saturating_add(frame.len());
        let fits = self.frames.len() < BACKLOG_MAX && bytes <= BACKLOG_BYTES_MAX;
        if fits {
            self.bytes = bytes;
            self.frames.push_back(frame);
        }
        fits
    }
}

/// The state machine.
#[derive(Debug)]
pub(super) struct Session {
    bounds: Bounds,
    state: State,
    identity: Option<Identity>,
    asked: HashMap<u64, PendingMessage>,
    ticket: u64,
    ids: Ids,
}

impl Session {
    pub(super) fn new(bounds: Bounds) -> Self {
        let ids = Ids::default();
        Self { bounds, state: State::Connected, identity: None, asked: HashMap::new(), ticket: 0, ids }
    }

    /// Who it is, once it is registered.
    pub(super) const fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Whether it is told events.
    pub(super) fn is_registered(&self) -> bool {
        self.state == State::Registered
    }

    /// Whether its registration is on its way.
    pub(super) const fn is_registering(&self) -> bool {
        matches!(self.state, State::Registering(_))
    }

    /// Bytes of the frames that wait for that.
    pub(super) const fn backlog_bytes(&self) -> usize {
        match &self.state {
            State::Registering(backlog) => backlog.bytes,
            _ => 0,
        }
    }

    /// Whether it has not registered in time.
    pub(super) fn is_waited_for(&self) -> bool {
        self.state == State::Connected
    }

    /// Whether it is over.
    pub(super) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Messages of this client that have no end yet.
    pub(super) fn in_flight(&self) -> usize {
        self.asked.len()
    }

    /// It leaves: what it has and what it asked may end, nothing new begins.
    pub(super) fn drain(&mut self) {
        if self.state != State::Closed {
            self.state = State::Draining;
        }
    }

    /// It is over.
    pub(super) fn close(&mut self) {
        self.state = State::Closed;
    }

    /// Forgets ids whose time is over.
    pub(super) fn tidy(&mut self, now: Instant) {
        self.ids.trim(now);
    }

    /// A frame came; `None` when there is nothing to do.
    pub(super) fn hear(&mut self, frame: ByteString, now: Instant) -> Option<Step> {
        if let State::Registering(backlog) = &mut self.state {
            return match codec::parse(&frame, false) {
                Ok(ClientFrame::Ping) => Some(Step::Send(outbound::pong())),
                _ if backlog.takes(frame) => None,
                _ => refuse(FrameError::new(ErrorCode::Overloaded, "wait for the registration")),
            };
        }
        let said = match codec::parse(&frame, self.state == State::Connected) {
            Ok(said) => said,
            Err(wrong) => return self.wrong(wrong),
        };
        let refused = |code: ErrorCode, text: &str| {
            let wrong = FrameError::new(code, text);
            refuse(match said.id() {
                Some(id) => wrong.of(id),
                None => wrong,
            })
        };
        match (&said, &self.state) {
            (_, State::Closed) | (ClientFrame::Pong, _) | (ClientFrame::Disconnect, State::Draining) => return None,
            (ClientFrame::Register(_), State::Connected) => self.state = State::Registering(Backlog::default()),
            (ClientFrame::Register(_), _) => {
                return refused(ErrorCode::AlreadyRegistered, "this connection is registered");
            }
            (ClientFrame::Ping | ClientFrame::Disconnect, _) => {}
            (_, State::Connected) => return refused(ErrorCode::NotRegistered, "register first"),
            (
                ClientFrame::Answer { .. }
                | ClientFrame::Done { .. }
                | ClientFrame::Ack { .. }
                | ClientFrame::Unsubscribe { .. },
                _,
            ) => {}
            (_, State::Draining) => {
                return refused(ErrorCode::Unavailable, "this connection is about to end");
            }
            _ => {}
        }
        match said {
            ClientFrame::Ping => Some(Step::Send(outbound::pong())),
            ClientFrame::Register(registers) => Some(Step::Register(registers)),
            ClientFrame::Answer { id, answer } => Some(Step::Answer(id, answer)),
            ClientFrame::Done { id, handled } => Some(Step::Done(id, handled)),
            ClientFrame::Message(message) => self.message(message, now),
            ClientFrame::Broadcast { id, payload } => Some(Step::Broadcast(id, payload)),
            ClientFrame::Publish(publishes) => Some(Step::Publish(publishes)),
            ClientFrame::Subscribe(subscribes) => Some(Step::Subscribe(subscribes)),
            ClientFrame::Ack { id, event } => Some(Step::Ack(id, event)),
            ClientFrame::Unsubscribe { id } => Some(Step::Unsubscribe(id)),
            ClientFrame::Disconnect => Some(Step::Leave),
            ClientFrame::Pong => None,
        }
    }

    fn wrong(&self, wrong: FrameError) -> Option<Step> {
        let reason = match wrong.code {
            ErrorCode::BadJson => "bad first frame",
            ErrorCode::BadRegistration => "bad registration",
            _ => return refuse(wrong),
        };
        match self.state {
            State::Connected => Some(Step::Close(OutboundFrame::from(&wrong), close_codes::BAD_REGISTRATION, reason)),
            _ => refuse(wrong),
        }
    }

    fn message(&mut self, mut message: MessagePayload, now: Instant) -> Option<Step> {
        let wrong = |code: ErrorCode, text: &str| refuse(FrameError::new(code, text).of(&message.id));
        let Some(identity) = &self.identity else { return wrong(ErrorCode::NotRegistered, "register first") };
        if message.consumer.as_ref().is_some_and(|consumer| *consumer != identity.name) {
            return wrong(ErrorCode::ConsumerMismatch, "consumer: not the name of this connection");
        }
        if self.asked.len() >= self.bounds.in_flight_max {
            return wrong(ErrorCode::Overloaded, "too many messages of this connection have no end yet");
        }
        if !self.ids.begin(&message.id, now) {
            return wrong(ErrorCode::DuplicateId, "a message of this id was sent before");
        }
        let timeout = message.timeout.unwrap_or(self.bounds.timeout).min(self.bounds.timeout_max);
        message.consumer = Some(identity.name.clone());
        self.ticket = self.ticket.wrapping_add(1);
        let asked = PendingMessage {
            id: message.id.clone(),
            destination: format!("{}:{}", message.service, message.method),
            responder: match &message.responder {
                Responder::Named(name) => Some(name.clone()),
                Responder::Caller | Responder::Nobody => None,
            },
            timeout,
        };
        self.asked.insert(self.ticket, asked);
        Some(Step::Call(self.ticket, message, timeout))
    }

    /// A message of this client has ended: what it was, and what its sender is told.
    pub(super) fn ended(
        &mut self,
        ticket: u64,
        outcome: Outcome,
        now: Instant,
    ) -> Option<(PendingMessage, Option<OutboundFrame>)> {
        let asked = self.asked.remove(&ticket)?;
        self.ids.end(&asked.id, now);
        let told = outbound::outcome(&asked, outcome);
        Some((asked, told))
    }

    /// Its registration is done: what it said meanwhile is heard now.
    pub(super) fn registered(&mut self, identity: Identity) -> VecDeque<ByteString> {
        self.identity = Some(identity);
        match std::mem::replace(&mut self.state, State::Registered) {
            State::Registering(backlog) => backlog.frames,
            _ => VecDeque::new(),
        }
    }
}

fn refuse(wrong: FrameError) -> Option<Step> {
    Some(Step::Send(OutboundFrame::from(&wrong)))
}

/// Ids of messages that may not be used again yet. Only hashes are kept, with a key of their own.
#[derive(Debug, Default)]
struct Ids {
    random: RandomState,
    known: HashSet<u64>,
    ended: VecDeque<(Instant, u64)>,
}

impl Ids {
    /// `false` when it is known.
    fn begin(&mut self, id: &str, now: Instant) -> bool {
        self.trim(now);
        self.known.insert(self.random.hash_one(id))
    }

    fn end(&mut self, id: &str, now: Instant) {
        self.ended.push_back((now, self.random.hash_one(id)));
        self.trim(now);
    }

    fn trim(&mut self, now: Instant) {
        while let Some((at, hash)) = self.ended.front() {
            if self.ended.len() <= IDS_MAX && now.saturating_duration_since(*at) < IDS_FOR {
                break;
            }
            self.known.remove(hash);
            self.ended.pop_front();
        }
        // A busy minute leaves nothing behind.
        if self.known.capacity() > self.known.len().saturating_mul(4).max(ROOM_MIN) {
            self.known.shrink_to_fit();
            self.ended.shrink_to_fit();
        }
    }

    /// How many of them there is memory for.
    #[cfg(test)]
    fn room(&self) -> usize {
        self.known.capacity().max(self.ended.capacity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_minute_leaves_no_memory_behind() {
        let (mut ids, start) = (Ids::default(), Instant::now());
        for n in 0..10_000 {
            assert!(ids.begin(&n.to_string(), start));
            ids.end(&n.to_string(), start);
        }
        assert!(ids.begin("still on its way", start) && ids.room() >= 10_000);
        ids.trim(start + IDS_FOR);
        assert!(ids.room() <= ROOM_MIN, "room for {}", ids.room());
        assert!(!ids.begin("still on its way", start + IDS_FOR), "it has no end yet");
        assert!(ids.begin("7", start + IDS_FOR));
    }
}
