//! Accounts, actors and their registration.

use super::log::{ConfigEntry, Timestamp};
use rollbook_core::xbus::account::row::{AccountStatus, AccountType, ActorKind, ActorStatus, RequestOrigin};

/// What became of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum RegistrationStatus {
    /// An operator has to accept it.
    Pending = 0,
    /// The certificate is there.
    Accepted = 1,
    /// It cannot be accepted.
    Rejected = 2,
}

/// An account.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Account {
    /// Its id, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// Its name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// What it is for.
    #[prost(enumeration = "AccountType", tag = "3")]
    pub kind: i32,
    /// How far it is.
    #[prost(enumeration = "AccountStatus", tag = "4")]
    pub status: i32,
    /// The certificate request, PEM.
    #[prost(string, tag = "5")]
    pub csr: String,
    /// The certificate, PEM.
    #[prost(string, tag = "6")]
    pub cert: String,
    /// The API key, for the HTTP gateway.
    #[prost(string, tag = "7")]
    pub api_key: String,
    /// By which connection the request came.
    #[prost(enumeration = "RequestOrigin", tag = "8")]
    pub csr_origin: i32,
}

/// An actor.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Actor {
    /// Its id, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// Its name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// What the actor does.
    #[prost(enumeration = "ActorKind", tag = "3")]
    pub kind: i32,
    /// How far it is.
    #[prost(enumeration = "ActorStatus", tag = "4")]
    pub status: i32,
    /// The account, 16 bytes.
    #[prost(bytes = "vec", tag = "5")]
    pub account_id: Vec<u8>,
    /// Its roles.
    #[prost(string, repeated, tag = "6")]
    pub roles: Vec<String>,
    /// When it was connected last.
    #[prost(message, optional, tag = "8")]
    pub last_seen: Option<Timestamp>,
    /// Whether it is connected.
    #[prost(bool, tag = "9")]
    pub online: bool,
    /// Whether it is connected and does not answer.
    #[prost(bool, tag = "10")]
    pub unresponsive: bool,
    /// Its configuration.
    #[prost(message, repeated, tag = "11")]
    pub config: Vec<ConfigEntry>,
}

/// A program registers an account with its actors.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RegistrationRequest {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What the account is for.
    #[prost(enumeration = "AccountType", tag = "2")]
    pub kind: i32,
    /// The certificate request, PEM.
    #[prost(string, tag = "3")]
    pub csr: String,
    /// The actors.
    #[prost(message, repeated, tag = "4")]
    pub actor_list: Vec<Actor>,
}

/// What became of a registration.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Registration {
    /// Its id, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// What became of the request.
    #[prost(enumeration = "RegistrationStatus", tag = "2")]
    pub registration_status: i32,
    /// The certificate, PEM, once accepted.
    #[prost(string, tag = "3")]
    pub signed_certificate: String,
    /// The certificate of the authority, PEM.
    #[prost(string, tag = "4")]
    pub server_ca: String,
    /// The actors.
    #[prost(message, repeated, tag = "5")]
    pub actor_list: Vec<Actor>,
}

/// A program asks for one of its actors.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ClientGetActorsRequest {
    /// The actor, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub actor_id: Vec<u8>,
}

/// The actors of an account.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ClientGetActorsReply {
    /// The actors.
    #[prost(message, repeated, tag = "1")]
    pub actors: Vec<Actor>,
}
