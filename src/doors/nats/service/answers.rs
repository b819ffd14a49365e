//! What is published to the inbox of a responder: its description, and its answers to requests.
//!
//! Answers wait here until the actor of the responder takes them: a publisher must not go on to the caller of a request by
//! itself, because that may be a responder too, and so on without end. Invariant: what waits is bounded in bytes, and is
//! an answer to a request that the responder has.

use std::collections::VecDeque;
use std::mem;
use std::sync::Mutex;

use actix::prelude::{Message, Recipient};
use bytestring::ByteString;
use rollbook_cluster::lock::lock;

use super::discovery::INFO_BYTES_MAX;
use crate::base::actors::must_tell;
use crate::bus::call::router::Router;
use crate::bus::live::message::{Delivered, LiveMessage, LiveSink};

/// The last token of the subject of the description.
const INFO: &str = "info";
/// Most bytes of answers that wait for the actor.
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Tells the responder to look at its answers.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Look;

/// Something that came to the inbox.
#[derive(Debug)]
pub(super) enum Came {
    /// The description of the responder.
    Info(LiveMessage),
    /// The answer to the request with this number.
    Answer(u64, LiveMessage),
}

#[derive(Debug, Default)]
struct Waiting {
    all: VecDeque<Came>,
    bytes: usize,
    /// Whether the responder was told to look, and has not looked.
    told: bool,
}

/// The inbox of a responder.
#[derive(Debug)]
pub(super) struct Answers {
    /// How the subjects of the inbox begin, with the last dot.
    prefix: String,
    router: Router,
    /// The serial number of the responder.
    provider: u64,
    responder: Recipient<Look>,
    waiting: Mutex<Waiting>,
}

impl Answers {
    pub(super) fn new(prefix: String, (router, provider): (Router, u64), responder: Recipient<Look>) -> Self {
        Self { prefix, router, provider, responder, waiting: Mutex::default() }
    }

    /// The filter of the inbox.
    pub(super) fn filter(&self) -> String {
        format!("{}*", self.prefix)
    }

    /// Where the description goes.
    pub(super) fn info_subject(&self) -> ByteString {
        format!("{}{INFO}", self.prefix).into()
    }

    /// Where the answer to a request goes.
    pub(super) fn subject(&self, request: u64) -> ByteString {
        format!("{}{request}", self.prefix).into()
    }

    /// Takes what has come.
    pub(super) fn take(&self) -> VecDeque<Came> {
        mem::take(&mut *lock(&self.waiting)).all
    }
}

impl LiveSink for Answers {
    fn deliver(&self, _: u64, message: &LiveMessage) -> Delivered {
        let token = message.subject.strip_prefix(self.prefix.as_str());
        let number = token.and_then(|token| token.parse::<u64>().ok());
        let came = match (number, token) {
            // What answers nothing would only take memory.
            (Some(number), _) if self.router.holds(self.provider, number) => Came::Answer(number, message.clone()),
            (None, Some(INFO)) if message.payload.len() <= INFO_BYTES_MAX => Came::Info(message.clone()),
            _ => return Delivered::Refused,
        };
        let mut waiting = lock(&self.waiting);
        let bytes = waiting.bytes.saturating_add(message.bytes());
        if bytes > WAITING_BYTES_MAX {
            return Delivered::Refused;
        }
        waiting.bytes = bytes;
        waiting.all.push_back(came);
        let told = mem::replace(&mut waiting.told, true);
        drop(waiting);
        if !told {
            must_tell(&self.responder, Look);
        }
        Delivered::Queued
    }

    fn wake(&self) {}

    fn client(&self) -> u64 {
        // No client has this number: answers of a client that does not want its own messages come here too.
        u64::MAX
    }
}
