//! The node from outside: the real binary, raw sockets, files on disk.
//!
//! Nothing here uses the library, but for the list of refusals, the messages of Xbus and the frames of hms. Each test names the behaviour it
//! checks.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stderr,
    reason = "a test fails by panicking and tells what it did on standard error"
)]

/// Processes, HTTP and SSE for all tests.
mod harness;

/// REST, health and metrics.
mod admin;
/// Three nodes: one book, one roll, any node for any request.
mod cluster;
/// The agent that runs processes.
mod dock;
/// The doors, a folder for each protocol.
mod doors;
/// Listeners for clients, whatever door is behind them.
mod net;
/// README.md and the other pages: what they say is what happens. The page of the tour in a real browser.
mod pages;
/// The command line and the process.
mod process;
/// Who may do what: rights, credentials, their end, limits, and the audit.
mod security;
/// Hours of clients that come and go, and consumers whose nodes are killed: nothing stays behind, nobody gets stuck.
mod soak;
/// What is on the disk.
mod storage;
