//! The door `sse`: the event log over HTTP, one file per chapter of its protocol.

mod ack;
mod batch;
mod cloudevents;
mod conformance;
mod cors;
mod counts;
mod dead;
mod dedupe;
mod delayed;
mod groups;
mod headers;
mod inbox;
mod keys;
mod publish;
mod pull;
mod refused;
mod since;
mod start;
mod stream;
mod subscribe;
mod window;
