//! Messages between the actors of the bus, and their answers.

use std::sync::Arc;

use actix::{Message, Recipient};
use rollbook_core::error::Refusal;
use rollbook_core::subjects::pattern::Pattern;

use super::window::{Departure, Member, Patience};
use crate::bus::read::stored_event::StoredEvent;

/// Nobody answers any more; in the place of whatever says so.
pub(in crate::bus) fn stopping<E>(_: E) -> Refusal {
    Refusal::Unavailable("node is stopping".to_owned())
}

/// What others tell a live subscription. One message, so that one address serves for all of it.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<AckResult, Refusal>")]
pub enum StreamCommand {
    /// Its client has dealt with the event of this id.
    Acknowledge(String),
    /// End the stream.
    Close(EndReason),
}

/// What an acknowledgement did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckResult {
    /// It ended a delivery.
    Yes,
    /// The event was not out to this subscription.
    NotInFlight,
}

/// Why a stream is ended by the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// The node drains or leaves: come back elsewhere.
    Draining,
    /// Another connection has the same consumer id or consumer name now.
    TakenOver,
    /// The durable consumer was deleted.
    Deleted,
}

/// Write these events; the answer comes when the connection of the client has taken them. Without events the answer
/// is about everything that was written before.
#[derive(Debug, Clone, Message)]
#[rtype(result = "WriteResult")]
pub struct Deliver {
    /// In order.
    pub items: Vec<Arc<StoredEvent>>,
}

/// What became of a [`Deliver`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteResult {
    /// The connection of the client has taken all of it.
    Taken,
    /// None of it was written, because a copy waited that the client had not read; there is room now.
    Skipped,
    /// The client has gone; nobody knows what it got.
    Gone,
    /// The node to which the client is connected gives no answer: nobody knows whether it was written.
    Unreachable,
}

/// How the members of a durable consumer are served.
#[derive(Debug, Clone, PartialEq)]
pub struct ConsumerTerms {
    /// Namespace, which is the first token of the pattern, and name of the cursor.
    pub name: String,
    /// What it delivers.
    pub pattern: Pattern,
    /// Members share it.
    pub group: bool,
    /// Clients acknowledge.
    pub manual: bool,
}

/// A member comes to a durable consumer. Held by the registry while it is there.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), Refusal>")]
pub struct Join {
    /// What it expects of the consumer.
    pub terms: ConsumerTerms,
    /// Its number.
    pub member: Member,
    /// Its consumer id.
    pub consumer_id: String,
    /// Stable name; a member of the same name is replaced.
    pub name: Option<String>,
    /// How it wants to be served.
    pub patience: Patience,
    /// Where its events go.
    pub deliver: Recipient<Deliver>,
    /// How it is told to end.
    pub commands: Recipient<StreamCommand>,
}

/// A member goes.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Leave {
    /// Namespace of the consumer.
    pub namespace: String,
    /// Name of the consumer.
    pub consumer: String,
    /// Its number.
    pub member: Member,
    /// How it goes, which says whether what it had counts as delivered.
    pub departure: Departure,
}

/// A member acknowledges. The answer comes when the floor is durable.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<AckResult, Refusal>")]
pub struct MemberAck {
    /// Namespace of the consumer.
    pub namespace: String,
    /// Name of the consumer.
    pub consumer: String,
    /// Its number.
    pub member: Member,
    /// Id of the event.
    pub event_id: String,
}

/// What a consumer is doing now.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Vec<MemberState>")]
pub struct Members;

/// One member of a durable consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberState {
    /// Its consumer id.
    pub consumer_id: String,
    /// Position in flight.
    pub in_flight: Option<u64>,
}
