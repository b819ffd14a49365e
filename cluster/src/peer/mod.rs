//! The peer network: how nodes talk to each other.
//!
//! One listener per node. Every node calls every other one, a connection for each [`link::Purpose`], so
//! that no heartbeat waits behind bulk; for live messages each thread of the floor above has its own
//! ([`thread_connections`]). Many exchanges share a connection: a [`conn`] carries sessions. The first frame is the
//! hello: who calls whom, in which cluster, in which life; the [`gate`] decides.
//!
//! ```text
//! network (openraft's client) --> link --> conn ==frames==> server --> raft, forwarded writes, live messages
//! ```

pub(crate) mod conn;
pub(crate) mod frame;
pub(crate) mod gate;
pub(crate) mod hello;
pub(crate) mod identity;
pub(crate) mod link;
pub(crate) mod pulse;
pub(crate) mod thread_connections;
pub(crate) mod transport;
pub(crate) mod wire;
