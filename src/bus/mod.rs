//! The actors between the doors and the cluster.
//!
//! ```text
//! Registry   supervises; knows every live subscription of this node; one per node
//!  +- Consumer       one per durable consumer or group with members here
//!  +- Subscription   one per open stream
//! Relay      streams and consumers of other nodes; a guest for each of their members here
//! Proposer   admission and deadline of recorded writes
//! Feed       one thread: new events to the subscriptions that want them
//! ```
//!
//! Forward edges are bounded and answer by oneshot; delivery is pulled by cursor; nobody
//! waits on a child. Whoever starts an actor owns it (`actors`). Modules in reading order.

pub mod access;
pub mod actors;
pub mod announcement;
pub mod announcer;
pub mod body;
pub mod budget;
pub mod call;
pub mod client;
pub mod clock;
pub mod commands;
pub mod consumer;
pub mod cursor;
pub mod deadletter;
pub mod draft;
pub mod duration;
pub mod event_json;
pub mod feed;
pub mod guard;
pub mod handle;
pub mod http;
pub mod inbox;
pub mod inboxes;
pub mod item;
pub mod json;
mod leavers;
pub mod message;
pub mod metrics;
pub mod notification;
pub mod origin;
pub mod outlet;
pub mod pieces;
pub mod plain;
pub mod proposer;
pub mod registry;
pub mod relay;
pub mod roll;
pub mod router;
pub mod services;
pub mod shares;
pub mod sink;
pub mod socket;
pub mod source;
pub mod streams;
pub mod subscribe;
pub mod subscription;
pub mod supervisor;
pub mod survey;
pub mod websocket;
pub mod window;
pub mod wire;

#[cfg(test)]
mod tests;
