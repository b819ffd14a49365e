//! The actors between the doors and the cluster.
//!
//! ```text
//! Registry   supervises; knows every live subscription of this node; one per node
//!  +- Consumer       one per durable consumer or group with members here
//!  +- Subscription   one per open stream
//! Proposer   admission and deadline of recorded writes
//! Feed       one thread: new events to the subscriptions that want them
//! ```
//!
//! Forward edges are bounded and answer by oneshot; delivery is pulled by cursor; nobody
//! waits on a child. Modules in reading order.

pub mod clock;
pub mod duration;
pub mod wire;
pub mod item;
pub mod event_json;
pub mod metrics;
pub mod proposer;
pub mod inbox;
pub mod inboxes;
pub mod feed;
pub mod handle;
pub mod outlet;
pub mod source;
pub mod window;
pub mod message;
pub mod deadletter;
pub mod subscription;
pub mod consumer;
pub mod supervisor;
pub mod registry;
