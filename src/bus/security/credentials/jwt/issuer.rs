//! What the operator says about an issuer of JWTs.

use std::fmt;
use std::net::IpAddr;

use jsonwebtoken::Algorithm;
use reqwest::Url;
use rollbook_core::security::principal::Kind;

use super::super::secret::Secret;
use super::keys::KeySet;

/// Fewest bytes of a secret for HMAC: RFC 7518 wants as many as the hash has.
const HMAC_BYTES_MIN: usize = 32;
/// Most issuers of a cluster.
pub const ISSUERS_MAX: usize = 32;
/// Most role mappings of an issuer.
const MAPPINGS_MAX: usize = 256;

/// An issuer of JWTs.
#[derive(Debug, Clone)]
pub struct Issuer {
    /// The name for operators, such as `keycloak`.
    pub name: String,
    /// The claim `iss` of its tokens, compared byte for byte.
    pub iss: String,
    /// One of these must be in `aud`. Without any, `aud` is not looked at: then a token for another program is good here.
    pub audiences: Vec<String>,
    /// The algorithms that its tokens may be signed with.
    pub algorithms: Vec<Algorithm>,
    /// Where its keys are.
    pub keys: Keys,
    /// How a token names its principal.
    pub principal: PrincipalClaim,
    /// Which claims give which roles.
    pub roles: Vec<RoleMapping>,
}

/// Where the keys of an issuer are.
#[derive(Clone)]
pub enum Keys {
    /// A JWKS document at a URL, `https` unless the host is loopback.
    Url(String),
    /// A JWKS document, or public keys in PEM.
    Static(String),
    /// A secret that both sides know, for HS256, HS384 and HS512.
    Secret(Secret<Vec<u8>>),
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => write!(f, "Url({url})"),
            Self::Static(_) => f.write_str("Static(public keys)"),
            Self::Secret(_) => f.write_str("Secret(hidden)"),
        }
    }
}

/// How a token names its principal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrincipalClaim {
    /// What the principals of this issuer are.
    pub kind: Kind,
    /// The claim with the name; a dotted path for a nested one. Usually `sub`.
    pub claim: String,
}

/// A claim that gives a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleMapping {
    /// The claim: a text, words with spaces between, or a list of texts. A dotted path for a nested one, as in
    /// `realm_access.roles`.
    pub claim: String,
    /// The text that must be among them.
    pub contains: String,
    /// The role that the principal then has.
    pub role: String,
}

/// Why an issuer cannot be used. The first text is the name of the issuer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssuerError {
    /// A text is empty.
    #[error("issuer {0}: `{1}` must not be empty")]
    Empty(String, &'static str),
    /// Two issuers have the same `iss` or the same name.
    #[error("issuer {0}: another issuer has the same `iss` or the same name; tokens would belong to both")]
    Twice(String),
    /// Too many issuers.
    #[error("issuer {0}: there are at most {ISSUERS_MAX} issuers")]
    TooMany(String),
    /// Too many role mappings.
    #[error("issuer {0}: there are at most {MAPPINGS_MAX} role mappings")]
    TooManyMappings(String),
    /// An HMAC algorithm with public keys, or another one with a secret.
    #[error(
        "issuer {0}: {1:?} does not go with these keys; HS256, HS384 and HS512 need a secret, all others public keys"
    )]
    AlgorithmAndKeys(String, Algorithm),
    /// The secret is too short.
    #[error("issuer {0}: a secret has at least {HMAC_BYTES_MIN} bytes; make one with `openssl rand -base64 48`")]
    ShortSecret(String),
    /// The URL is not one of `https`, or has a password in it.
    #[error("issuer {0}: the URL of the keys must be https://HOST/PATH without a user (http only for loopback)")]
    Url(String),
    /// The static keys cannot be used.
    #[error("issuer {0}: {1}")]
    Keys(String, String),
}

impl Issuer {
    /// Checks one issuer by itself. Returns its keys when they are known without fetching.
    ///
    /// # Errors
    /// What is wrong with the issuer.
    pub(in crate::bus::security) fn check(&self) -> Result<Option<KeySet>, IssuerError> {
        let name = || self.name.clone();
        for (text, what) in [(&self.name, "name"), (&self.iss, "iss"), (&self.principal.claim, "principal.claim")] {
            if text.is_empty() {
                return Err(IssuerError::Empty(name(), what));
            }
        }
        if self.algorithms.is_empty() {
            return Err(IssuerError::Empty(name(), "algorithms"));
        }
        if self.roles.len() > MAPPINGS_MAX {
            return Err(IssuerError::TooManyMappings(name()));
        }
        let secret = matches!(self.keys, Keys::Secret(_));
        if let Some(wrong) = self.algorithms.iter().find(|algorithm| is_hmac(**algorithm) != secret) {
            return Err(IssuerError::AlgorithmAndKeys(name(), *wrong));
        }
        match &self.keys {
            Keys::Url(url) => match jwks_url(url) {
                Some(_) => Ok(None),
                None => Err(IssuerError::Url(name())),
            },
            Keys::Static(text) => {
                KeySet::parse(text).map(Some).map_err(|error| IssuerError::Keys(name(), error.to_string()))
            }
            Keys::Secret(secret) if secret.expose().len() < HMAC_BYTES_MIN => Err(IssuerError::ShortSecret(name())),
            Keys::Secret(secret) => KeySet::of_secret(secret.expose())
                .map(Some)
                .map_err(|error| IssuerError::Keys(name(), error.to_string())),
        }
    }
}

/// Whether an algorithm needs a shared secret.
pub(super) const fn is_hmac(algorithm: Algorithm) -> bool {
    matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512)
}

/// The URL of a JWKS document that may be fetched.
pub(super) fn jwks_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let plain = url.username().is_empty() && url.password().is_none();
    (plain && may_be_fetched(&url)).then_some(url)
}

/// Whether the connection to a URL cannot be overheard or changed: keys that come over it are trusted.
pub(super) fn may_be_fetched(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let loopback = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    url.scheme() == "https" || url.scheme() == "http" && loopback
}
