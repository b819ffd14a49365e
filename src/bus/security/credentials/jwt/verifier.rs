//! Verifies JWTs of the configured issuers.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use jsonwebtoken::{Algorithm, DecodingKey, crypto};

use rollbook_core::security::principal::Principal;

use super::super::bearer::JWT_BYTES_MAX;
use super::super::token::sha256;
use super::cache::VerifiedCache;
use super::error::JwtError;
use super::issuer::{ISSUERS_MAX, Issuer, IssuerError, Keys, jwks_url};
use super::jwks::{Jwks, JwksSettings};
use super::keys::KeySet;
use super::token::{Decoded, decode};
use super::verified::Verified;

/// How far the clock of an issuer may be off.
pub const LEEWAY: Duration = Duration::from_secs(30);

/// Verifies JWTs, with the keys of their issuers. Results are kept until they expire or their keys or issuers change.
pub struct Verifier {
    settings: JwksSettings,
    issuers: RwLock<Arc<Issuers>>,
    cache: Mutex<VerifiedCache>,
}

/// The issuers by their `iss`.
type Issuers = HashMap<String, Source>;

#[derive(Debug, Clone)]
struct Source {
    issuer: Issuer,
    keys: SourceKeys,
}

#[derive(Debug, Clone)]
enum SourceKeys {
    Fixed(Arc<KeySet>),
    Fetched(Arc<Jwks>),
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("issuers", &self.issuers()).finish_non_exhaustive()
    }
}

impl Verifier {
    /// A verifier without issuers, which knows no token.
    #[must_use]
    pub fn new(settings: JwksSettings) -> Self {
        Self { settings, issuers: RwLock::default(), cache: Mutex::default() }
    }

    /// Replaces all issuers; all results are forgotten. Keys behind a URL that stays are kept, and go on being fetched.
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// An issuer cannot be used: then nothing has changed.
    pub fn set_issuers(&self, issuers: Vec<Issuer>) -> Result<(), IssuerError> {
        let mut present = self.issuers.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = Issuers::new();
        for issuer in issuers {
            if next.len() >= ISSUERS_MAX {
                return Err(IssuerError::TooMany(issuer.name));
            }
            if next.contains_key(&issuer.iss) || next.values().any(|other| other.issuer.name == issuer.name) {
                return Err(IssuerError::Twice(issuer.name));
            }
            let keys = self.keys_of(&issuer, present.values().chain(next.values()))?;
            next.insert(issuer.iss.clone(), Source { issuer, keys });
        }
        *present = Arc::new(next);
        // Under the lock of the issuers: `verify` keeps no result of issuers that are gone.
        self.cache().clear();
        Ok(())
    }

    fn keys_of<'a>(
        &self,
        issuer: &Issuer,
        mut known: impl Iterator<Item = &'a Source>,
    ) -> Result<SourceKeys, IssuerError> {
        if let Some(keys) = issuer.check()? {
            return Ok(SourceKeys::Fixed(Arc::new(keys)));
        }
        let url = match &issuer.keys {
            Keys::Url(url) => jwks_url(url),
            Keys::Static(_) | Keys::Secret(_) => None,
        };
        let url = url.ok_or_else(|| IssuerError::Url(issuer.name.clone()))?;
        let same = known.find_map(|source| match &source.keys {
            SourceKeys::Fetched(jwks) if *jwks.url() == url => Some(Arc::clone(jwks)),
            _ => None,
        });
        match same {
            Some(jwks) => Ok(SourceKeys::Fetched(jwks)),
            None => match Jwks::start(url, self.settings.clone()) {
                Ok(jwks) => Ok(SourceKeys::Fetched(Arc::new(jwks))),
                Err(error) => Err(IssuerError::Keys(issuer.name.clone(), error)),
            },
        }
    }

    /// Who presents this token. Waits only when the keys of the issuer have to be fetched, and then for a bounded time.
    ///
    /// # Errors
    /// Why the token is refused.
    pub async fn verify(&self, token: &str, now: SystemTime) -> Result<Arc<Verified>, JwtError> {
        if token.len() > JWT_BYTES_MAX {
            return Err(JwtError::TooLarge);
        }
        let hash = sha256(token.as_bytes());
        let issuers = self.issuers();
        let digest =
            |verified: &Verified| issuers.values().find(|source| source.issuer.name == verified.issuer)?.keys.digest();
        if let Some(verified) = self.cache().find(&hash, now, digest) {
            return Ok(verified);
        }
        let decoded = decode(token)?;
        let source = decoded.claims.issuer().and_then(|iss| issuers.get(iss)).ok_or(JwtError::UnknownIssuer)?;
        if !source.issuer.algorithms.contains(&decoded.algorithm) {
            return Err(JwtError::Algorithm);
        }
        // Before the signature: a token that is no use anyhow must not cause a fetch of keys.
        let expires_at = check_times(&decoded, now)?;
        let keys = source.check_signature(&decoded).await?;
        let verified = Arc::new(source.verified(&decoded, expires_at, &hash)?);
        self.keep(&issuers, hash, &verified, *keys.digest());
        Ok(verified)
    }

    /// Keeps a result, unless the issuers have changed meanwhile.
    fn keep(&self, issuers: &Arc<Issuers>, token: [u8; 32], verified: &Arc<Verified>, keys: [u8; 32]) {
        let present = self.issuers.read().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&present, issuers) {
            self.cache().insert(token, Arc::clone(verified), keys);
        }
    }

    fn issuers(&self) -> Arc<Issuers> {
        Arc::clone(&self.issuers.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn cache(&self) -> MutexGuard<'_, VerifiedCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SourceKeys {
    /// What the keys came from; `None` when there are none.
    fn digest(&self) -> Option<[u8; 32]> {
        match self {
            Self::Fixed(keys) => Some(*keys.digest()),
            Self::Fetched(jwks) => jwks.known().map(|keys| *keys.digest()),
        }
    }
}

impl Source {
    /// Checks the signature with the key that the token names. Fetches the keys again when that one is unknown.
    async fn check_signature(&self, decoded: &Decoded<'_>) -> Result<Arc<KeySet>, JwtError> {
        let kid = decoded.kid.as_deref();
        let keys = match &self.keys {
            SourceKeys::Fixed(keys) => Arc::clone(keys),
            SourceKeys::Fetched(jwks) => {
                let known = jwks.keys().await?;
                match known.choose(kid, decoded.algorithm) {
                    Err(JwtError::UnknownKey) => jwks.refreshed().await?,
                    _ => known,
                }
            }
        };
        check(decoded, keys.choose(kid, decoded.algorithm)?, decoded.algorithm)?;
        Ok(keys)
    }

    /// What the claims say, once the signature was checked.
    fn verified(&self, decoded: &Decoded<'_>, expires_at: SystemTime, hash: &[u8; 32]) -> Result<Verified, JwtError> {
        let (issuer, claims) = (&self.issuer, &decoded.claims);
        if !issuer.audiences.is_empty() && !claims.is_for(&issuer.audiences) {
            return Err(JwtError::Audience);
        }
        let name = claims.text(&issuer.principal.claim).ok_or(JwtError::Principal)?;
        let principal = Principal::new(issuer.principal.kind, name).map_err(|_| JwtError::Principal)?;
        let mut roles: Vec<String> = Vec::new();
        for mapping in &issuer.roles {
            if !roles.contains(&mapping.role) && claims.contains(&mapping.claim, &mapping.contains) {
                roles.push(mapping.role.clone());
            }
        }
        let token_id = claims.id().map_or_else(|| short(hash), str::to_owned);
        Ok(Verified { principal, roles, expires_at, issuer: issuer.name.clone(), token_id })
    }
}

fn check(decoded: &Decoded<'_>, key: &DecodingKey, algorithm: Algorithm) -> Result<(), JwtError> {
    match crypto::verify(decoded.signature, decoded.message, key, algorithm) {
        Ok(true) => Ok(()),
        Ok(false) => Err(JwtError::Signature),
        // The signature is no base64url; the type of the key was compared before.
        Err(_) => Err(JwtError::Malformed),
    }
}

/// Looks at `exp` and `nbf`. Returns when the token ends for us.
fn check_times(decoded: &Decoded<'_>, now: SystemTime) -> Result<SystemTime, JwtError> {
    let end = decoded.claims.time("exp")?.ok_or(JwtError::NoExpiry)?;
    let end = end.checked_add(LEEWAY).ok_or(JwtError::Malformed)?;
    if now >= end {
        return Err(JwtError::Expired);
    }
    match decoded.claims.time("nbf")? {
        Some(begin) if begin > now.checked_add(LEEWAY).unwrap_or(now) => Err(JwtError::NotYetValid),
        _ => Ok(end),
    }
}

/// The begin of a hash, which names a token without being one.
fn short(hash: &[u8; 32]) -> String {
    let digits = hash.iter().take(8).flat_map(|byte| [byte >> 4, byte & 0xf]);
    let digits = digits.filter_map(|digit| char::from_digit(digit.into(), 16));
    "sha256:".chars().chain(digits).collect()
}
