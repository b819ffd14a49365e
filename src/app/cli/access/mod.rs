//! How a command reaches a node and who it is there: addresses, trusted CAs, client certificate and token, from flags,
//! the environment and the saved contexts.
//!
//! Imports the options of `shared`. Knows no command. Invariant: no secret is shown, neither in an error nor in a
//! debug text.

pub(crate) mod contexts;
pub(crate) mod environment;
pub(crate) mod resolve;
pub(crate) mod secret;
pub(crate) mod terminal;
pub(crate) mod tls;

#[cfg(test)]
pub(crate) mod test_ca;
