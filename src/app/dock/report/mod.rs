//! What goes to the hub: events, output and answers, in one order.
//!
//! Lives here: the events of processes, the queue before the connection, the room for output in the queue, and what the
//! hub has subscribed to.
//! May import: the wire of the door.
//! Invariant: an event leaves the queue only when the hub is known to have read the event; all else is bounded in bytes
//! and belongs to one connection.

pub(super) mod event;
pub(super) mod outbox;
pub(super) mod room;
pub(super) mod subscriptions;
