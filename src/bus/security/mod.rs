//! Who a client is, and what the client may do: the one place of the node that decides about rights.
//!
//! ```text
//! credentials   forms of proof: token, JWT, password, certificate, nkey
//! authority     a credential becomes an Identity; changes of the replicated state reach every Identity at once
//! identity      who a client is: every operation of the bus asks it
//! grant         the compiled rights of a principal, shared by its clients     usage   its limits
//! compile       from the replicated rows to rights          accounts     accounts of Xbus as principals
//! escalation    nobody gives more than it has               tickets      credentials for one use in an address
//! denials       what was refused, for the audit
//! bootstrap     the first token of a cluster
//! ```
//!
//! A door hands in what a client presented and gets an [`identity::Identity`]. Invariant: rooms above check with it, and
//! doors decide nothing.

pub mod accounts;
pub mod authority;
pub mod bootstrap;
pub mod compile;
pub mod credentials;
pub mod denials;
pub mod escalation;
mod follow;
pub mod grant;
pub mod http;
pub mod identity;
pub mod issuers;
pub mod origin;
pub mod ticket_peers;
pub mod tickets;
pub mod usage;
