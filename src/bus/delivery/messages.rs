//! Messages between the actors of the bus, and their answers.

use std::sync::Arc;

use actix::{Message, Recipient};
use rollbook_core::error::Refusal;
use rollbook_core::subjects::pattern::Pattern;

use super::acknowledgement::{Acknowledged, Acknowledgement};
use super::filter::HeaderFilter;
use super::order::OrderBy;
use super::policy::DeliveryPolicy;
use super::window::{Departure, Member};
use crate::bus::read::stored_event::StoredEvent;

/// The refusal for a message whose receiver has stopped. Takes any error, so that it fits into `map_err`.
pub(in crate::bus) fn stopping<E>(_: E) -> Refusal {
    Refusal::Unavailable("node is stopping".to_owned())
}

/// What other actors ask of a live subscription. One message type, so that one address serves for all commands.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Acknowledged, Refusal>")]
pub enum StreamCommand {
    /// What the client says of events.
    Acknowledge(Arc<Acknowledgement>),
    /// End the stream for this reason.
    Close(EndReason),
}

/// Why the node ends a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// The node drains or leaves. The client should connect again, to another node.
    Draining,
    /// Another connection has the same consumer id or consumer name now.
    TakenOver,
    /// The durable consumer was deleted.
    Deleted,
    /// The client lost the right to what it follows, or is not who it was.
    Forbidden,
}

/// Writes events to a member. The answer comes when the connection of the client has taken them. Without events the
/// answer concerns everything that was written before.
#[derive(Debug, Clone, Message)]
#[rtype(result = "WriteResult")]
pub struct Deliver {
    /// The events, in order.
    pub items: Vec<Arc<StoredEvent>>,
}

/// The result of a [`Deliver`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteResult {
    /// The connection of the client has taken all events.
    Taken,
    /// Nothing was written, because the client had not read an earlier copy. There is room now.
    Skipped,
    /// The client has gone. Nobody knows which events it got.
    Gone,
    /// The node of the client does not answer. Nobody knows whether the events were written.
    Unreachable,
}

/// What the members of one durable consumer have in common. A member with another specification is refused.
#[derive(Debug, Clone, PartialEq)]
pub struct ConsumerSpec {
    /// Name of the consumer. Its namespace is the first token of the pattern.
    pub name: String,
    /// The subjects that the consumer delivers.
    pub pattern: Pattern,
    /// Whether many members share the events.
    pub group: bool,
    /// Whether clients acknowledge.
    pub manual: bool,
    /// Which events of the subjects.
    pub filter: HeaderFilter,
    /// By what events are kept in order.
    pub order_by: Option<OrderBy>,
}

impl ConsumerSpec {
    /// What members must have in common beside the name and the subjects, as parameters.
    #[must_use]
    pub fn terms(&self) -> String {
        let mut terms = format!("ack={}", if self.manual { "manual" } else { "none" });
        if let Some(order_by) = &self.order_by {
            terms.push_str(&format!(", order_by={}", order_by.text()));
        }
        for (name, value) in self.filter.iter() {
            terms.push_str(&format!(", header={name}:{value}"));
        }
        terms
    }
}

/// A member joins a durable consumer. The registry keeps the message while the member is there, to repeat it after a
/// restart of the consumer.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), Refusal>")]
pub struct Join {
    /// The consumer that the member expects.
    pub spec: ConsumerSpec,
    /// Number of the member.
    pub member: Member,
    /// Consumer id of the stream of the member.
    pub consumer_id: String,
    /// Stable name of the member. A member of the same name is replaced.
    pub name: Option<String>,
    /// When and how often the member gets an event again.
    pub policy: DeliveryPolicy,
    /// Where the events of the member go.
    pub deliver: Recipient<Deliver>,
    /// Where the command to end goes.
    pub commands: Recipient<StreamCommand>,
}

/// A member leaves a durable consumer.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Leave {
    /// Namespace of the consumer.
    pub namespace: String,
    /// Name of the consumer.
    pub consumer: String,
    /// Number of the member.
    pub member: Member,
    /// How the member leaves, which decides whether its last delivery counts.
    pub departure: Departure,
}

/// A member gets nothing any more, and keeps what it has until it acknowledges, is late or leaves.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Finish {
    /// Namespace of the consumer.
    pub namespace: String,
    /// Name of the consumer.
    pub consumer: String,
    /// Number of the member.
    pub member: Member,
}

/// What a member says of events. For a member with one event at a time the answer comes when the ack floor is durable; for
/// others at once, and the floor becomes durable with that of others.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Acknowledged, Refusal>")]
pub struct MemberAck {
    /// Namespace of the consumer.
    pub namespace: String,
    /// Name of the consumer.
    pub consumer: String,
    /// Number of the member.
    pub member: Member,
    /// What it says.
    pub said: Arc<Acknowledgement>,
}

/// Asks a consumer for its members.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Vec<MemberState>")]
pub struct Members;

/// One member of a durable consumer, for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberState {
    /// Consumer id of the stream of the member.
    pub consumer_id: String,
    /// Position of the oldest event in flight.
    pub in_flight: Option<u64>,
    /// How many events are in flight.
    pub in_flight_count: u32,
}
