//! What is stored of principals, roles, credentials and issuers: the rows of the replicated state.
//!
//! Tags are never reused. Secrets are never stored in the clear: a token as its SHA-256, a password as argon2id, a
//! secret that is needed itself sealed by the node that proposes it.

use alloc::string::String;
use alloc::vec::Vec;

/// A principal with its roles and rights.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PrincipalRow {
    /// `kind:name`, or `anonymous`.
    #[prost(string, tag = "1")]
    pub principal: String,
    /// The revision of the security state that changed the row last.
    #[prost(uint64, tag = "2")]
    pub revision: u64,
    /// Names of its roles.
    #[prost(string, repeated, tag = "3")]
    pub roles: Vec<String>,
    /// Rights of its own, as [`super::right::Right`] writes them.
    #[prost(string, repeated, tag = "4")]
    pub rights: Vec<String>,
    /// Whether the principal is shut out: its credentials, also JWTs, are refused.
    #[prost(bool, tag = "5")]
    pub disabled: bool,
    /// A text for people.
    #[prost(string, tag = "6")]
    pub description: String,
    /// When the row was made, milliseconds since 1970.
    #[prost(uint64, tag = "7")]
    pub created: u64,
}

/// A named list of rights, with limits.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Role {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The revision of the security state that changed the row last.
    #[prost(uint64, tag = "2")]
    pub revision: u64,
    /// The rights, as [`super::right::Right`] writes them.
    #[prost(string, repeated, tag = "3")]
    pub rights: Vec<String>,
    /// The limits of each principal that has the role.
    #[prost(message, optional, tag = "4")]
    pub limits: Option<RoleLimits>,
    /// A text for people.
    #[prost(string, tag = "5")]
    pub description: String,
}

/// What a principal may use at one node. Absent means without a limit. Of several roles the largest limit counts.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct RoleLimits {
    /// Most connections at a time.
    #[prost(uint64, optional, tag = "1")]
    pub connections: Option<u64>,
    /// Most new connections a second.
    #[prost(uint64, optional, tag = "2")]
    pub connects_per_second: Option<u64>,
    /// Most published events a second.
    #[prost(uint64, optional, tag = "3")]
    pub publishes_per_second: Option<u64>,
    /// Most published bytes a second.
    #[prost(uint64, optional, tag = "4")]
    pub publish_bytes_per_second: Option<u64>,
    /// Most calls a second.
    #[prost(uint64, optional, tag = "5")]
    pub calls_per_second: Option<u64>,
    /// Most open streams at a time.
    #[prost(uint64, optional, tag = "6")]
    pub streams: Option<u64>,
    /// Most stored bytes of a namespace that the principal publishes to.
    #[prost(uint64, optional, tag = "7")]
    pub namespace_bytes: Option<u64>,
}

/// What proves that a client is a principal.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Credential {
    /// Unique id: the id of a token, `password:user:ann`, that of a certificate, or `nkey:UABC...`.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The principal.
    #[prost(string, tag = "2")]
    pub principal: String,
    /// When the credential was made, milliseconds since 1970.
    #[prost(uint64, tag = "3")]
    pub created: u64,
    /// When the credential ends to count, milliseconds since 1970; 0: never.
    #[prost(uint64, tag = "4")]
    pub expires: u64,
    /// About when the credential was used last, milliseconds since 1970; 0: never.
    #[prost(uint64, tag = "5")]
    pub used: u64,
    /// A text for people.
    #[prost(string, tag = "6")]
    pub description: String,
    /// What is compared.
    #[prost(oneof = "Proof", tags = "10, 11, 12, 13")]
    pub proof: Option<Proof>,
}

/// What a credential is compared with.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum Proof {
    /// SHA-256 of the secret of a token.
    #[prost(bytes, tag = "10")]
    Token(Vec<u8>),
    /// A password as argon2id, in PHC form.
    #[prost(string, tag = "11")]
    Password(String),
    /// A client certificate: `sha256:HEX` of the certificate, `cn:NAME` or `uri:NAME`.
    #[prost(string, tag = "12")]
    Certificate(String),
    /// The public key of a user of NATS, `UABC...`. From feature level 6 on.
    #[prost(string, tag = "13")]
    Nkey(String),
}

/// How the ids of credentials begin that are keys of NATS.
pub const NKEY: &str = "nkey:";
/// Characters of the public key of a user of NATS: one for the prefix, 32 bytes of key and 2 of checksum in base32.
const NKEY_CHARACTERS: usize = 56;

impl Credential {
    /// The id of the credential that is a key of NATS.
    #[must_use]
    pub fn nkey_id(key: &str) -> String {
        [NKEY, key].concat()
    }

    /// Whether a proof that is a key of NATS has the form of the key of a user, and is the id. Other proofs pass. The checksum
    /// of the key is for whoever proposes the credential to check.
    #[must_use]
    pub fn nkey_fits(&self) -> bool {
        let Some(Proof::Nkey(key)) = &self.proof else { return true };
        let legal = |byte: u8| byte.is_ascii_uppercase() || matches!(byte, b'2'..=b'7');
        self.id.strip_prefix(NKEY) == Some(key)
            && key.len() == NKEY_CHARACTERS
            && key.starts_with('U')
            && key.bytes().all(legal)
    }

    /// Whether the credential counts at this time, milliseconds since 1970.
    #[must_use]
    pub const fn counts_at(&self, millis: u64) -> bool {
        self.expires == 0 || millis < self.expires
    }
}

/// An issuer of JWTs that is trusted.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Issuer {
    /// Name of the row.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The revision of the security state that changed the row last.
    #[prost(uint64, tag = "2")]
    pub revision: u64,
    /// The claim `iss`, compared exactly.
    #[prost(string, tag = "3")]
    pub iss: String,
    /// The claim `aud` has one of these; empty: any.
    #[prost(string, repeated, tag = "4")]
    pub audiences: Vec<String>,
    /// The algorithms that are accepted, as in RS256.
    #[prost(string, repeated, tag = "5")]
    pub algorithms: Vec<String>,
    /// Address of the keys; or empty.
    #[prost(string, tag = "6")]
    pub jwks_url: String,
    /// The keys themselves, JWKS or PEM; or empty.
    #[prost(string, tag = "7")]
    pub keys: String,
    /// A sealed HMAC secret; or empty.
    #[prost(bytes = "vec", tag = "8")]
    pub sealed_secret: Vec<u8>,
    /// The kind of the principals: `user` or another.
    #[prost(string, tag = "9")]
    pub kind: String,
    /// The claim with the name of the principal; empty: `sub`.
    #[prost(string, tag = "10")]
    pub principal_claim: String,
    /// Which claims give which roles.
    #[prost(message, repeated, tag = "11")]
    pub roles: Vec<RoleClaim>,
}

/// A claim that gives a role.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RoleClaim {
    /// Path of the claim, with dots.
    #[prost(string, tag = "1")]
    pub claim: String,
    /// The claim is this text, or a list that has it.
    #[prost(string, tag = "2")]
    pub contains: String,
    /// The role.
    #[prost(string, tag = "3")]
    pub role: String,
}
