//! The place of a stream in a durable consumer.

use actix::Recipient;

use crate::base::actors::must_tell;
use crate::bus::delivery::messages::{Finish, Leave, MemberAck};
use crate::bus::delivery::window::{Departure, Member};

/// The place of a member in a durable consumer. The member leaves when this is dropped, however its stream ends.
#[derive(Debug)]
pub struct Membership {
    /// Namespace of the consumer.
    pub namespace: String,
    /// Name of the consumer.
    pub consumer: String,
    /// Number of the member.
    pub member: Member,
    /// Whether the client acknowledges.
    pub manual: bool,
    /// Whether the member has more than one event at a time.
    pub many: bool,
    /// How the member would leave now, which decides whether its last delivery counts.
    pub departure: Departure,
    /// Where acknowledgements go.
    pub acknowledge: Recipient<MemberAck>,
    /// Where the message goes that the member leaves.
    pub leave: Recipient<Leave>,
    /// Where the message goes that the member gets nothing any more.
    pub finish: Recipient<Finish>,
}

impl Membership {
    /// The member gets nothing any more, and keeps what it has.
    pub fn finish(&self) {
        let (namespace, consumer) = (self.namespace.clone(), self.consumer.clone());
        must_tell(&self.finish, Finish { namespace, consumer, member: self.member });
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let (namespace, consumer) = (std::mem::take(&mut self.namespace), std::mem::take(&mut self.consumer));
        must_tell(&self.leave, Leave { namespace, consumer, member: self.member, departure: self.departure });
    }
}
