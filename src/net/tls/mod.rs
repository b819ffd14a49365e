//! TLS 1.2 and 1.3 on the listeners for clients.
//!
//! May import `base` and the crate of the cluster, whose errors of certificate files are used here too. Invariant: the
//! certificate in use is always a whole pair that was valid when the node read the files.
//!
//! ```text
//! settings      the section [tls], and what a listener may say differently
//! validity      from when to when a certificate is good. Pure
//! certificates  the files, read into the configuration of each listener
//! reload        reads the files again when they change or on SIGHUP
//! handshake     a TCP connection becomes a TLS connection
//! stream        the TLS connection; an idle one keeps no buffer of ours
//! ```

pub mod certificates;
pub mod handshake;
pub mod reload;
pub mod settings;
pub mod stream;
pub mod validity;

#[cfg(test)]
mod tests;
