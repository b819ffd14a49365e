//! The clients of the load generator: HTTP and SSE written by hand, so that they cost less CPU than the node.

pub(super) mod chunk;
pub(super) mod http;
pub(super) mod pace;
pub(super) mod payload;
pub(super) mod sse;
pub(super) mod stream;
