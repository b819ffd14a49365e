//! The lab: a cluster of real processes under load and under faults, and a judge of what its clients saw.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stderr,
    reason = "a test fails by panicking and tells what it did on standard error"
)]

/// From a history to what is wrong with it.
mod checker;
/// Processes, HTTP and SSE for all tests.
#[path = "../harness/mod.rs"]
#[expect(dead_code, reason = "the lab starts its nodes itself")]
mod harness;
/// What clients did and saw.
mod history;
