//! The bus: events into and out of the book, and requests between services. The bus knows no protocol.
//!
//! ```text
//! Registry       supervises the durable consumers of this node
//!  +- Consumer   one per durable consumer or group with members here
//! Subscription   one per open stream
//! Relay          streams and consumers of other nodes; a remote member for each of their members here
//! Proposer       admission and deadline of recorded writes
//! Feed           one thread: new events to the subscriptions that want them
//! ```
//!
//! Queues between actors are bounded, and answers come by oneshot. A stream pulls events by its cursor, so a slow
//! client costs no memory. No actor waits for an actor that it has started. Whoever starts an actor owns the actor
//! (`base::actors`).
//!
//! The rooms from the bottom up; each may import those before it, and `base` and `net`: the files `error` and `jobs`, `xbus`, `security`,
//! `write`, `read`, `live`, `delivery`, the file `handle`, `consume`, `subscribe`, `client`, `call`, `relay`, `docks`, `roll`,
//! `access`, `schedules`, and the files `guard`, `tickets`, `live_peers`, `live_events`,
//! `book_client` and `call_handler`, by which doors and other nodes use the
//! bus.
//!
//! Invariant: whoever asks the bus for something does so as an identity (`security`), and the bus checks it; a door has
//! the access of nobody until its client is admitted.

pub mod access;
pub mod book_client;
pub mod call;
pub mod client;
pub mod consume;
pub mod delivery;
pub mod docks;
pub mod error;
pub mod guard;
pub mod handle;
pub mod jobs;
pub mod live;
pub mod live_events;
pub mod live_peers;
pub mod read;
pub mod relay;
pub mod roll;
pub mod schedules;
pub mod security;
pub mod subscribe;
pub mod tickets;
pub mod write;
pub mod xbus;

pub mod call_handler;
#[cfg(test)]
mod tests;
