//! The changes of the security state: the body of [`crate::command::Command::Security`].

use alloc::string::String;
use alloc::vec::Vec;

use super::actor::Actor;
use super::model::{Credential, Issuer, PrincipalRow, Proof, Role};

/// One change.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SecurityChange {
    /// When set, the change applies only if the row has this revision: two operators do not overwrite each other. 0:
    /// the row does not exist.
    #[prost(uint64, optional, tag = "1")]
    pub if_revision: Option<u64>,
    /// What is changed.
    #[prost(oneof = "Change", tags = "2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12")]
    pub change: Option<Change>,
}

impl SecurityChange {
    /// Whether the change adds a key of NATS, which releases that know feature level 5 alone cannot read.
    #[must_use]
    pub const fn adds_nkey(&self) -> bool {
        matches!(&self.change, Some(Change::CredentialAdd(Credential { proof: Some(Proof::Nkey(_)), .. })))
    }
}

/// What is changed. Tags are never reused.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum Change {
    /// Create or replace a principal; the rules set revision and time.
    #[prost(message, tag = "2")]
    PrincipalSet(PrincipalRow),
    /// Delete a principal and its credentials.
    #[prost(string, tag = "3")]
    PrincipalDelete(String),
    /// Create or replace a role.
    #[prost(message, tag = "4")]
    RoleSet(Role),
    /// Delete a role. Principals keep its name in their lists, which gives them nothing.
    #[prost(string, tag = "5")]
    RoleDelete(String),
    /// Add a credential; one with its id is replaced when it is a password or a certificate.
    #[prost(message, tag = "6")]
    CredentialAdd(Credential),
    /// Revoke a credential, by its id.
    #[prost(string, tag = "7")]
    CredentialDelete(String),
    /// Note when credentials were used last.
    #[prost(message, tag = "8")]
    CredentialsUsed(CredentialsUsed),
    /// Create or replace an issuer.
    #[prost(message, tag = "9")]
    IssuerSet(Issuer),
    /// Delete an issuer.
    #[prost(string, tag = "10")]
    IssuerDelete(String),
    /// The first token, of `user:root`.
    #[prost(message, tag = "11")]
    Bootstrap(Bootstrap),
    /// Lines for the audit alone.
    #[prost(message, tag = "12")]
    Audited(Audited),
}

/// The body of [`Change::Bootstrap`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Bootstrap {
    /// SHA-256 of the secret of the token.
    #[prost(bytes = "vec", tag = "1")]
    pub hash: Vec<u8>,
    /// Id of the token.
    #[prost(string, tag = "2")]
    pub id: String,
    /// Whether it is added although there are principals, because the operator of a node asked for it.
    #[prost(bool, tag = "3")]
    pub again: bool,
}

/// The body of [`Change::CredentialsUsed`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CredentialsUsed {
    /// The ids.
    #[prost(string, repeated, tag = "1")]
    pub ids: Vec<String>,
}

/// The body of [`Change::Audited`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Audited {
    /// At most [`crate::limits::AUDIT_LINES_MAX`] lines.
    #[prost(message, repeated, tag = "1")]
    pub lines: Vec<AuditLine>,
}

/// A line for the audit that belongs to no command: what was refused to one principal within a second, or what an
/// operator told a client.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AuditLine {
    /// Who asked.
    #[prost(message, optional, tag = "1")]
    pub actor: Option<Actor>,
    /// Area and action, as in `denied.publish` or `service.restart`.
    #[prost(string, tag = "2")]
    pub what: String,
    /// What it was about: the target of the first refusal, or why a credential was refused.
    #[prost(string, tag = "3")]
    pub target: String,
    /// `denied`, `done` or `failed`.
    #[prost(string, tag = "4")]
    pub outcome: String,
    /// How often it happened.
    #[prost(uint64, tag = "5")]
    pub count: u64,
}
