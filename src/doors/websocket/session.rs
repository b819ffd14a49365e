//! The state machine of one connection: which frames a client may send in which state, and what they mean. Pure.

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
use crate::bus::delivery::acknowledgement::Acknowledgement;

/// Most frames that may wait for the registration, and most bytes of them.
const BACKLOG_MAX: usize = 64;
const BACKLOG_BYTES_MAX: usize = 256 << 10;
/// How long the id of an ended message may not be used again.
const ID_RETENTION: Duration = Duration::from_secs(60);
/// Most ids that are remembered. The oldest go first.
const IDS_MAX: usize = 10_000;
/// Least capacity that the table of ids keeps.
const CAPACITY_MIN: usize = 64;

/// The bounds of a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Most messages of one client without an outcome.
    pub(super) in_flight_max: usize,
    /// The deadline of a message that names none.
    pub(super) timeout: Duration,
    /// The longest deadline that a message may name.
    pub(super) timeout_max: Duration,
}

/// The names of a registered client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    /// Name of the service, or of the consumer.
    pub(super) name: String,
    /// Id of the instance; empty for a consumer.
    pub(super) instance: String,
}

/// A step that the caller of [`Session`] has to take.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// Write a frame.
    Send(OutboundFrame),
    /// Register the client. [`Session::registered`] follows.
    Register(RegisterPayload),
    /// Send a message to a service. [`Session::ended`] follows.
    Call(u64, MessagePayload, Duration),
    /// Answer a request of another client.
    Answer(String, Answer),
    /// Tell all services.
    Broadcast(Option<String>, Bytes),
    /// Report that the client got a command, and whether the client takes the command.
    Done(u64, bool),
    /// Publish an event.
    Publish(Box<PublishPayload>),
    /// Open a stream of the book.
    Subscribe(Box<SubscribePayload>),
    /// Take what the client says of events of that stream.
    Ack(String, Acknowledgement),
    /// End that stream.
    Unsubscribe(String),
    /// Drain the connection because the client wants to disconnect.
    Leave,
    /// Write a frame, then close with this code and reason.
    Close(OutboundFrame, u16, &'static str),
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Only a registration may come.
    Connected,
    /// The registration is under way, and other frames wait.
    Registering(Backlog),
    /// All frames may come.
    Registered,
    /// Only answers and acknowledgements may come.
    Draining,
    /// No frame is taken.
    Closed,
}

/// Frames that wait for the registration, so that their order is kept.
#[derive(Debug, Default, PartialEq, Eq)]
struct Backlog {
    frames: VecDeque<ByteString>,
    bytes: usize,
}

impl Backlog {
    /// Adds a frame. Returns `false` when the frame does not fit.
    fn push(&mut self, frame: ByteString) -> bool {
        let bytes = self.bytes.saturating_add(frame.len());
        let fits = self.frames.len() < BACKLOG_MAX && bytes <= BACKLOG_BYTES_MAX;
        if fits {
            self.bytes = bytes;
            self.frames.push_back(frame);
        }
        fits
    }
}

/// The state of one connection.
#[derive(Debug)]
pub(super) struct Session {
    /// The bounds that this client must keep.
    bounds: Bounds,
    /// Decides which frames the client may send.
    state: State,
    /// The names of the client, which are known once it has registered.
    identity: Option<Identity>,
    /// Messages without an outcome, by ticket: the outcome goes back under the id of the client.
    pending: HashMap<u64, PendingMessage>,
    /// The last ticket that was given to a message.
    ticket: u64,
    /// The ids of recent messages, so that no id is used twice.
    ids: Ids,
}

impl Session {
    pub(super) fn new(bounds: Bounds) -> Self {
        let ids = Ids::default();
        Self { bounds, state: State::Connected, identity: None, pending: HashMap::new(), ticket: 0, ids }
    }

    /// The names of the client, once it has registered.
    pub(super) const fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Whether the client has registered and gets events.
    pub(super) fn is_registered(&self) -> bool {
        self.state == State::Registered
    }

    /// Whether the registration is under way.
    pub(super) const fn is_registering(&self) -> bool {
        matches!(self.state, State::Registering(_))
    }

    /// Bytes of the frames that wait for the registration.
    pub(super) const fn backlog_bytes(&self) -> usize {
        match &self.state {
            State::Registering(backlog) => backlog.bytes,
            _ => 0,
        }
    }

    /// Whether the client has sent no registration.
    pub(super) fn is_unregistered(&self) -> bool {
        self.state == State::Connected
    }

    /// Whether the connection is over.
    pub(super) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// The number of messages without an outcome.
    pub(super) fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// Drains the session. Requests and messages may finish, and nothing new begins.
    pub(super) fn drain(&mut self) {
        if self.state != State::Closed {
            self.state = State::Draining;
        }
    }

    /// Closes the session.
    pub(super) fn close(&mut self) {
        self.state = State::Closed;
    }

    /// Removes ids whose time is over.
    pub(super) fn expire_ids(&mut self, now: Instant) {
        self.ids.trim(now);
    }

    /// Handles a frame. `None` means that there is nothing to do.
    pub(super) fn receive(&mut self, frame: ByteString, now: Instant) -> Option<Step> {
        if let State::Registering(backlog) = &mut self.state {
            return match codec::parse(&frame, false) {
                Ok(ClientFrame::Ping) => Some(Step::Send(outbound::pong())),
                _ if backlog.push(frame) => None,
                _ => refuse(FrameError::new(ErrorCode::Overloaded, "wait for the registration")),
            };
        }
        let frame = match codec::parse(&frame, self.state == State::Connected) {
            Ok(frame) => frame,
            Err(error) => return self.refuse_frame(error),
        };
        let refused = |code: ErrorCode, text: &str| {
            let error = FrameError::new(code, text);
            refuse(match frame.id() {
                Some(id) => error.of(id),
                None => error,
            })
        };
        match (&frame, &self.state) {
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
        match frame {
            ClientFrame::Ping => Some(Step::Send(outbound::pong())),
            ClientFrame::Register(payload) => Some(Step::Register(payload)),
            ClientFrame::Answer { id, answer } => Some(Step::Answer(id, answer)),
            ClientFrame::Done { id, handled } => Some(Step::Done(id, handled)),
            ClientFrame::Message(message) => self.message(message, now),
            ClientFrame::Broadcast { id, payload } => Some(Step::Broadcast(id, payload)),
            ClientFrame::Publish(payload) => Some(Step::Publish(payload)),
            ClientFrame::Subscribe(payload) => Some(Step::Subscribe(payload)),
            ClientFrame::Ack { id, said } => Some(Step::Ack(id, said)),
            ClientFrame::Unsubscribe { id } => Some(Step::Unsubscribe(id)),
            ClientFrame::Disconnect => Some(Step::Leave),
            ClientFrame::Pong => None,
        }
    }

    fn refuse_frame(&self, error: FrameError) -> Option<Step> {
        let reason = match error.code {
            ErrorCode::BadJson => "bad first frame",
            ErrorCode::BadRegistration => "bad registration",
            _ => return refuse(error),
        };
        match self.state {
            State::Connected => Some(Step::Close(OutboundFrame::from(&error), close_codes::BAD_REGISTRATION, reason)),
            _ => refuse(error),
        }
    }

    fn message(&mut self, mut message: MessagePayload, now: Instant) -> Option<Step> {
        let refuse_message = |code: ErrorCode, text: &str| refuse(FrameError::new(code, text).of(&message.id));
        let Some(identity) = &self.identity else { return refuse_message(ErrorCode::NotRegistered, "register first") };
        if message.consumer.as_ref().is_some_and(|consumer| *consumer != identity.name) {
            return refuse_message(ErrorCode::ConsumerMismatch, "consumer: not the name of this connection");
        }
        if self.pending.len() >= self.bounds.in_flight_max {
            return refuse_message(ErrorCode::Overloaded, "too many messages of this connection have no end yet");
        }
        if !self.ids.begin(&message.id, now) {
            return refuse_message(ErrorCode::DuplicateId, "a message of this id was sent before");
        }
        let timeout = message.timeout.unwrap_or(self.bounds.timeout).min(self.bounds.timeout_max);
        message.consumer = Some(identity.name.clone());
        self.ticket = self.ticket.wrapping_add(1);
        let pending_message = PendingMessage {
            id: message.id.clone(),
            destination: format!("{}:{}", message.service, message.method),
            responder: match &message.responder {
                Responder::Named(name) => Some(name.clone()),
                Responder::Caller | Responder::Nobody => None,
            },
            timeout,
        };
        self.pending.insert(self.ticket, pending_message);
        Some(Step::Call(self.ticket, message, timeout))
    }

    /// Handles the outcome of a message. Returns the message, and the frame for its sender.
    pub(super) fn ended(
        &mut self,
        ticket: u64,
        outcome: Outcome,
        now: Instant,
    ) -> Option<(PendingMessage, Option<OutboundFrame>)> {
        let message = self.pending.remove(&ticket)?;
        self.ids.end(&message.id, now);
        let frame = outbound::outcome(&message, outcome);
        Some((message, frame))
    }

    /// Ends the registration, and returns the frames that waited for it.
    pub(super) fn registered(&mut self, identity: Identity) -> VecDeque<ByteString> {
        self.identity = Some(identity);
        match std::mem::replace(&mut self.state, State::Registered) {
            State::Registering(backlog) => backlog.frames,
            _ => VecDeque::new(),
        }
    }
}

fn refuse(error: FrameError) -> Option<Step> {
    Some(Step::Send(OutboundFrame::from(&error)))
}

/// The ids of messages that may not be used again yet. The table holds keyed hashes, which are smaller than ids.
#[derive(Debug, Default)]
struct Ids {
    /// The key of the hashes, so that a client cannot choose ids that collide.
    random: RandomState,
    /// The hashes of all remembered ids.
    known: HashSet<u64>,
    /// The ids of ended messages with the time of the end, oldest first, for their removal.
    ended: VecDeque<(Instant, u64)>,
}

impl Ids {
    /// Adds an id. Returns `false` when the id is known.
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
            if self.ended.len() <= IDS_MAX && now.saturating_duration_since(*at) < ID_RETENTION {
                break;
            }
            self.known.remove(hash);
            self.ended.pop_front();
        }
        // The table gives memory back after a busy minute.
        if self.known.capacity() > self.known.len().saturating_mul(4).max(CAPACITY_MIN) {
            self.known.shrink_to_fit();
            self.ended.shrink_to_fit();
        }
    }

    /// How many ids the table has memory for.
    #[cfg(test)]
    fn capacity(&self) -> usize {
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
        assert!(ids.begin("still on its way", start) && ids.capacity() >= 10_000);
        ids.trim(start + ID_RETENTION);
        assert!(ids.capacity() <= CAPACITY_MIN, "room for {}", ids.capacity());
        assert!(!ids.begin("still on its way", start + ID_RETENTION), "it has no end yet");
        assert!(ids.begin("7", start + ID_RETENTION));
    }
}
