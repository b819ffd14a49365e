//! The clients of the load generator: HTTP, SSE and NATS written by hand, so that they cost less CPU than the node.

pub(super) mod chunk;
pub(super) mod http;
pub(super) mod nats;
pub(super) mod pace;
pub(super) mod payload;
pub(super) mod sse;
pub(super) mod stream;
pub(super) mod xbus;
