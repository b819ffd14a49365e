//! The service bus: services that find and call each other, as their clients see it.

/// Requests between services, and every way in which they end.
mod calls;
/// Three nodes behind a balancer that remembers nothing.
mod cluster;
/// Clients that send what they should not.
mod hostile;
/// How fast it must be, beside Node's own server.
pub(crate) mod limits;
/// Notifications and the central configuration.
mod notify;
/// Coming, going, being replaced, forgotten heartbeats.
mod presence;
/// Clients whose connection breaks, and who find their state again.
mod recovery;
/// REST over services.
mod rest;
