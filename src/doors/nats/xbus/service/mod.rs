//! The server of Xbus: answers calls of its clients.
//!
//! ```text
//! request    who calls what, with what
//! reply      one message or an error, in the dialect of the call;   stream   many messages
//! shared     what all handlers need
//! in_flight  the calls of one client that are being answered
//! registration  accounts register          who   who somebody is, and which actors there are
//! control/   the control API, for operators                     rows   rows as messages
//! flow       envelopes, ends of jobs, logs      retrieve   envelopes that an actor asks for
//! ```
//!
//! May import `bus` and the types beside this room, not the connection: the door hands a call over as a future.
//!
//! Invariant: the door has checked that the client may publish on the subject of the call. A handler that looks at rows
//! checks that they are those of the caller all the same where the subject does not name their owner.

pub mod control;
pub mod flow;
pub mod in_flight;
pub mod registration;
pub mod reply;
pub mod request;
mod retrieve;
pub mod rows;
pub mod shared;
pub mod stream;
pub mod who;

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use rollbook_core::level::FeatureLevel;

use super::subject::{Call, Called, whoami_reply};
use crate::bus::error::Fault;
use crate::bus::live::filter::LiveSubject;
use crate::bus::live::message::LiveMessage;
use crate::bus::xbus::jobs::engine::Engine;
use reply::{Answer, Replies};
use request::{Caller, Request};
use shared::XbusShared;

/// Answers the calls of the clients of one node.
#[derive(Debug)]
pub struct XbusService {
    shared: Arc<XbusShared>,
}

impl XbusService {
    /// The service of this engine.
    #[must_use]
    pub fn new(engine: Engine) -> Self {
        Self { shared: Arc::new(XbusShared::new(engine)) }
    }

    /// Answers a call, whose subject the caller may publish on. The future does everything, and holds a copy of the
    /// message alone. Its first poll hands a proposal over, so it has to follow in the order of the calls.
    pub fn answer(&self, caller: Caller, called: Called, message: &LiveMessage) -> impl Future<Output = ()> + use<> {
        let to = reply_subject(&caller, &called, message);
        let subjects = self.shared.client.bus().live_subjects().clone();
        let replies = Replies::new(subjects, to, called.json);
        // A copy: what waits must not hold the buffer of the read.
        let request = Request { caller, called, payload: Bytes::copy_from_slice(&message.payload), replies };
        let shared = Arc::clone(&self.shared);
        async move {
            let answered = handle(&shared, &request).await;
            if let Err(fault) = &answered {
                tracing::debug!(call = ?request.called.call, reason = %fault, "a call of Xbus fails");
            }
            request.replies.finish(answered);
        }
    }
}

/// Where replies go: where the client itself may publish, and never to subjects of the book; or to the subject on which
/// a client hears who it is.
fn reply_subject(caller: &Caller, called: &Called, message: &LiveMessage) -> Option<LiveSubject> {
    let reply = LiveSubject::parse(ByteString::from(&*message.reply)).ok()?;
    if let Call::WhoAmI { identifier } = &called.call
        && reply.as_str() == whoami_reply(identifier)
    {
        return Some(reply);
    }
    let is_stored = caller.access.bus().node().state().has_namespace(reply.first_token());
    (!is_stored && caller.access.identity().may_publish_live(reply.as_str())).then_some(reply)
}

async fn handle(shared: &XbusShared, request: &Request) -> Result<Answer, Fault> {
    shared.client.bus().level().check(FeatureLevel::XBUS)?;
    match &request.called.call {
        Call::Output { actor } => flow::output(shared, request, *actor).await,
        Call::ProcessingEnd { actor } => flow::processing_end(shared, request, *actor).await,
        Call::Log { actor } => flow::log(shared, request, *actor).await,
        Call::Retrieve { actor } => retrieve::retrieve(shared, request, *actor).await,
        // The connection has heard.
        Call::ActorReady { .. } | Call::ActorLeaving { .. } => Ok(Answer::Silent),
        Call::Register => registration::register(shared, request).await,
        Call::Update { account } => registration::update(shared, request, *account).await,
        Call::WhoAmI { identifier } => who::whoami(shared, request, identifier),
        Call::GetActors { account } => who::actors_of(shared, request, *account),
        Call::ListActors => who::list_actors(shared, request),
        Call::Control { service, method } => control::answer(shared, request, service, method).await,
    }
}
