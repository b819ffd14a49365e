//! Who may do what, proved with the real binary and real clients.

/// What every administrative operation leaves in the audit.
mod audit;
/// Credentials of every wrong shape.
mod bad_input;
/// The first token, open listeners, and what says that they are open.
mod bootstrap;
/// Secrets that must not be found anywhere.
mod canary;
/// Certificates of clients.
mod certificates;
/// Dead letters of a part of the subjects.
mod dead_letters;
/// Events that wait: who may publish, see and cancel them.
mod delayed;
/// Other ways to what one may not have.
mod edges;
/// What of the log somebody sees who may subscribe to a part of it.
mod events;
/// Tokens of an issuer.
mod hms;
mod jwt;
/// Limits of roles.
mod limits;
/// Every operation of every door for every kind of caller.
mod matrix;
mod nats;
/// The end of credentials and rights, and of what was opened with them.
mod revocation;
/// A node whose clients need credentials.
mod secured;
/// Accounts and pipelines of Xbus.
mod xbus;
