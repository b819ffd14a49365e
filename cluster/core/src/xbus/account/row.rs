//! What is kept of an account and of an actor.

use alloc::string::String;
use alloc::vec::Vec;

use crate::xbus::id::Id;
use crate::xbus::pipeline::document::NodeKind;
use crate::xbus::pipeline::graph::{ActorView, Node};

/// What an account is for. The numbers are those of the Xbus protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum AccountType {
    /// Not said.
    NoType = 0,
    /// For actors.
    Actor = 1,
    /// For a person with the control tool.
    User = 2,
    /// For the HTTP gateway.
    Gateway = 3,
}

/// Whether an account may connect. The numbers are those of the Xbus protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum AccountStatus {
    /// No such account.
    NoStatus = 0,
    /// Waits for an operator.
    Pending = 1,
    /// May connect.
    Enabled = 2,
    /// May not connect any more.
    Disabled = 3,
}

/// By which connection a certificate request came. The numbers are those of the Xbus protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum RequestOrigin {
    /// By one without a certificate.
    Anonymous = 0,
    /// By one of the account itself.
    Account = 1,
}

/// What an actor does. The numbers are those of the Xbus protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ActorKind {
    /// Takes envelopes.
    Consumer = 0,
    /// Sends envelopes.
    Emitter = 1,
    /// Takes envelopes and sends envelopes.
    Worker = 2,
}

/// Whether an actor may work. The numbers are those of the Xbus protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ActorStatus {
    /// Waits for an operator.
    Pending = 0,
    /// May work.
    Enabled = 1,
    /// May not work any more.
    Disabled = 2,
    /// An operator said no.
    Rejected = 3,
}

/// An account.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AccountRow {
    /// Its id, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// Its name, which is the common name of its certificate; unique.
    #[prost(string, tag = "2")]
    pub name: String,
    /// What it is for.
    #[prost(enumeration = "AccountType", tag = "3")]
    pub kind: i32,
    /// Whether it may connect.
    #[prost(enumeration = "AccountStatus", tag = "4")]
    pub status: i32,
    /// The certificate request, PEM.
    #[prost(string, tag = "5")]
    pub csr: String,
    /// SHA-256 of the public key of that request; empty after an operator asked for another key.
    #[prost(bytes = "vec", tag = "6")]
    pub public_key: Vec<u8>,
    /// By which connection the request came.
    #[prost(enumeration = "RequestOrigin", tag = "7")]
    pub origin: i32,
    /// The certificate, PEM; empty as long as the account, or its new key, is not accepted.
    #[prost(string, tag = "8")]
    pub certificate: String,
    /// SHA-256 of the API key; empty: none.
    #[prost(bytes = "vec", tag = "9")]
    pub api_key: Vec<u8>,
    /// When the account was registered, milliseconds since 1970.
    #[prost(uint64, tag = "10")]
    pub created: u64,
    /// Counts its changes.
    #[prost(uint64, tag = "11")]
    pub revision: u64,
}

/// An entry of the configuration of an actor.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConfigEntry {
    /// The key.
    #[prost(string, tag = "1")]
    pub key: String,
    /// The value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// An actor.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ActorRow {
    /// Its id, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// Its name, unique.
    #[prost(string, tag = "2")]
    pub name: String,
    /// What it does.
    #[prost(enumeration = "ActorKind", tag = "3")]
    pub kind: i32,
    /// Whether it may work.
    #[prost(enumeration = "ActorStatus", tag = "4")]
    pub status: i32,
    /// Its account, 16 bytes.
    #[prost(bytes = "vec", tag = "5")]
    pub account: Vec<u8>,
    /// Its roles, by which nodes of pipelines name it.
    #[prost(string, repeated, tag = "6")]
    pub roles: Vec<String>,
    /// Its configuration.
    #[prost(message, repeated, tag = "7")]
    pub config: Vec<ConfigEntry>,
    /// About when it was connected last, milliseconds since 1970; 0: never.
    #[prost(uint64, tag = "8")]
    pub last_seen: u64,
    /// Counts its changes.
    #[prost(uint64, tag = "9")]
    pub revision: u64,
}

impl ActorRow {
    /// The actor as nodes of pipelines see it; `None` when the id of the row is damaged.
    #[must_use]
    pub fn view(&self) -> Option<ActorView<'_>> {
        Id::from_slice(&self.id).ok().map(|id| ActorView { id, name: &self.name, roles: &self.roles })
    }

    /// Whether the actor is enabled, does what the node wants, and the node names it. The account must be enabled too.
    #[must_use]
    pub fn may_work(&self, node: &Node) -> bool {
        let wanted = match node.kind {
            NodeKind::Emitter => ActorKind::Emitter,
            NodeKind::Worker => ActorKind::Worker,
            NodeKind::Consumer => ActorKind::Consumer,
            NodeKind::Unknown => return false,
        };
        let named = self.view().is_some_and(|actor| node.names(actor));
        self.status() == ActorStatus::Enabled && self.kind() == wanted && named
    }
}
