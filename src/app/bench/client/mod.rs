//! The clients that make the load: HTTP and SSE by hand, so that they cost less than the node.

pub(super) mod chunk;
pub(super) mod http;
pub(super) mod pace;
pub(super) mod payload;
pub(super) mod sse;
