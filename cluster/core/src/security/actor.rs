//! Who has a command done, for the audit.

use alloc::string::String;

/// Who proposed a command, from where and in which request. The rules write it into the audit, in the same entry as
/// the change.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Actor {
    /// The principal, `kind:name` or `anonymous`.
    #[prost(string, tag = "1")]
    pub principal: String,
    /// What the principal showed: the id of a token, the issuer of a JWT, the fingerprint of a certificate, `password`;
    /// empty when it showed nothing.
    #[prost(string, tag = "2")]
    pub credential: String,
    /// Address of the client.
    #[prost(string, tag = "3")]
    pub address: String,
    /// The door, or `rest`.
    #[prost(string, tag = "4")]
    pub door: String,
    /// Id of the request.
    #[prost(string, tag = "5")]
    pub request: String,
}

/// Longest text of an [`Actor`], in bytes: longer ones are cut in the audit.
pub const ACTOR_TEXT_BYTES_MAX: usize = 256;
