//! The node from outside: the real binary, raw sockets, files on disk.
//!
//! Nothing here uses the library, but for the list of refusals. Each test names the behaviour it checks.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stderr,
    reason = "a test fails by panicking and tells what it did on standard error"
)]

/// Processes, HTTP and SSE for all tests.
mod harness;

/// The page of the tour in a real browser.
mod browser;
/// The command line: publish, subscribe, dump, restore, namespaces, config, health.
mod cli;

/// Three nodes: one book, one roll, any node for any request.
mod cluster;
mod config;
/// Pause, resume and reset of durable consumers.
mod consumers;
/// Damaged logs, taken ports, unwritable directories: refused with a clear message.
mod damage;
/// The five doors, one folder entry per chapter of their protocols.
mod doors;
/// `kill -9` under load: acknowledged events survive, in order, once.
mod durability;
/// Input that is too large, too deep or too slow.
mod limits;
/// What all listeners do with HTTP: names of hosts, bounds, odd clients, compressed bodies.
mod listeners;
/// Streams that are closed or full, signals, a limit of open files.
mod process;
/// README.md and the other pages: what they say is what happens.
mod readme;
/// What all of REST has in common.
mod rest;
/// SIGTERM and start: drained streams, nothing lost, everything back.
mod restart;
/// The service bus over Socket.IO and REST.
mod services;
/// Settled events, and retention that gives disk back.
mod settling;
/// Hours of clients that come and go, and consumers whose nodes are killed: nothing stays behind, nobody gets stuck.
mod soak;
/// A full disk, and space that returns.
mod space;
/// Health, metrics and the administration of namespaces.
mod web;
/// Plain JSON services over a WebSocket, and calls across doors.
mod websocket;
