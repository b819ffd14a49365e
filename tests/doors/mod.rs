//! The doors, seen from outside, one file per chapter of their protocols.

mod line;
mod proxy;
mod sse_ack;
mod sse_batch;
mod sse_cloudevents;
mod sse_conformance;
mod sse_cors;
mod sse_counts;
mod sse_dead;
mod sse_dedupe;
mod sse_groups;
mod sse_headers;
mod sse_inbox;
mod sse_publish;
mod sse_refused;
mod sse_start;
mod sse_stream;
mod sse_subscribe;
