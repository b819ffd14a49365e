//! The keys of an issuer, from JWKS, PEM or a secret, and which of them a token was signed with.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use super::super::token::sha256;
use super::error::JwtError;

/// Most keys of an issuer.
pub const KEYS_MAX: usize = 100;
/// Largest JWKS document.
pub const JWKS_BYTES_MAX: usize = 256 * 1024;
/// Shortest and longest modulus of an RSA key, in bytes.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// Why keys cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// Larger than [`JWKS_BYTES_MAX`].
    #[error("the keys are larger than 256 KiB")]
    TooLarge,
    /// Neither JWKS nor PEM.
    #[error("the keys are neither a JWKS document (JSON with `keys`) nor public keys in PEM")]
    Malformed,
    /// More than [`KEYS_MAX`].
    #[error("there are more than {KEYS_MAX} keys")]
    TooMany,
    /// None that can verify a signature.
    #[error("there is no usable key: RSA of 2048 to 8192 bits, P-256, P-384 or Ed25519, for signatures")]
    None,
    /// A PEM block that is no public key.
    #[error("a PEM block is no `PUBLIC KEY` or `RSA PUBLIC KEY`; never put a private key here")]
    NotPublic,
}

/// What a key is, by the key alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Rsa,
    P256,
    P384,
    Ed25519,
    Secret,
}

impl Shape {
    /// Whether a signature of this algorithm is made with a key of this shape.
    const fn fits(self, algorithm: Algorithm) -> bool {
        match algorithm {
            Algorithm::RS256 | Algorithm::RS384 | Algorithm::RS512 => matches!(self, Self::Rsa),
            Algorithm::PS256 | Algorithm::PS384 | Algorithm::PS512 => matches!(self, Self::Rsa),
            Algorithm::ES256 => matches!(self, Self::P256),
            Algorithm::ES384 => matches!(self, Self::P384),
            Algorithm::EdDSA => matches!(self, Self::Ed25519),
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => matches!(self, Self::Secret),
            // An algorithm of a later release of the library.
            _ => false,
        }
    }
}

struct Key {
    kid: Option<String>,
    /// The only algorithm that the issuer uses this key for, if the issuer says one.
    only: Option<Algorithm>,
    shape: Shape,
    key: DecodingKey,
}

/// The keys of an issuer.
pub struct KeySet {
    keys: Vec<Key>,
    /// The SHA-256 of the document: tells whether keys have changed.
    digest: [u8; 32],
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeySet({} keys)", self.keys.len())
    }
}

/// A key as JWKS writes it. Private parts are not even read.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

#[derive(Deserialize)]
struct Jwks {
    keys: Vec<Value>,
}

impl KeySet {
    /// Reads a JWKS document, or public keys in PEM. Keys of a JWKS document that are not for signatures or of an unknown
    /// type are left out, and so are shared secrets: a document that anybody can fetch has none.
    ///
    /// # Errors
    /// There is no usable key, or the text is neither.
    pub fn parse(text: &str) -> Result<Self, KeysError> {
        if text.len() > JWKS_BYTES_MAX {
            return Err(KeysError::TooLarge);
        }
        let keys = if text.trim_start().starts_with('{') { of_jwks(text)? } else { of_pem(text)? };
        if keys.is_empty() {
            return Err(KeysError::None);
        }
        Ok(Self { keys, digest: sha256(text.as_bytes()) })
    }

    /// A shared secret as the only key.
    pub(super) fn of_secret(secret: &[u8]) -> Result<Self, KeysError> {
        let key = DecodingKey::from_secret(secret).map_err(|_| KeysError::None)?;
        Ok(Self { keys: vec![Key { kid: None, only: None, shape: Shape::Secret, key }], digest: sha256(secret) })
    }

    /// Tells whether two sets came from the same document.
    #[must_use]
    pub const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The key that a token says it was signed with.
    ///
    /// # Errors
    /// There is no such key, or more than one fits.
    pub fn choose(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<&DecodingKey, JwtError> {
        let fits = |key: &&Key| key.shape.fits(algorithm) && key.only.is_none_or(|only| only == algorithm);
        // Keys without ids, as in PEM, cannot be chosen by one.
        let kid = kid.filter(|_| self.keys.iter().any(|key| key.kid.is_some()));
        let mut fitting = self.keys.iter().filter(fits).filter(|key| kid.is_none() || key.kid.as_deref() == kid);
        match (fitting.next(), fitting.next()) {
            (None, _) => Err(JwtError::UnknownKey),
            (Some(key), None) => Ok(&key.key),
            (Some(_), Some(_)) => Err(JwtError::AmbiguousKey),
        }
    }
}

fn of_jwks(text: &str) -> Result<Vec<Key>, KeysError> {
    let document: Jwks = serde_json::from_str(text).map_err(|_| KeysError::Malformed)?;
    if document.keys.len() > KEYS_MAX {
        return Err(KeysError::TooMany);
    }
    Ok(document.keys.into_iter().filter_map(|value| of_jwk(&serde_json::from_value(value).ok()?)).collect())
}

fn of_jwk(jwk: &Jwk) -> Option<Key> {
    let verifies = |operations: &Vec<String>| operations.iter().any(|operation| operation == "verify");
    if jwk.usage.as_ref().is_some_and(|usage| usage != "sig") || !jwk.key_ops.as_ref().is_none_or(verifies) {
        return None;
    }
    let only = match &jwk.alg {
        // A key for an algorithm that does not exist here, such as encryption.
        Some(name) => Some(name.parse::<Algorithm>().ok()?),
        None => None,
    };
    let bytes = |text: &Option<String>| URL_SAFE_NO_PAD.decode(text.as_ref()?).ok();
    let (shape, key) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => (Shape::Rsa, of_rsa(&bytes(&jwk.n)?, &bytes(&jwk.e)?)?),
        ("EC", Some("P-256")) => (Shape::P256, of_point(&bytes(&jwk.x)?, &bytes(&jwk.y)?, 32)?),
        ("EC", Some("P-384")) => (Shape::P384, of_point(&bytes(&jwk.x)?, &bytes(&jwk.y)?, 48)?),
        ("OKP", Some("Ed25519")) => {
            (Shape::Ed25519, DecodingKey::from_ed_der(&bytes(&jwk.x).filter(|x| x.len() == 32)?))
        }
        _ => return None,
    };
    Some(Key { kid: jwk.kid.clone(), only, shape, key })
}

fn of_rsa(modulus: &[u8], exponent: &[u8]) -> Option<DecodingKey> {
    let start = modulus.iter().position(|byte| *byte != 0)?;
    let modulus = modulus.get(start..)?;
    RSA_BYTES.contains(&modulus.len()).then(|| DecodingKey::from_rsa_raw_components(modulus, exponent))
}

fn of_point(x: &[u8], y: &[u8], length: usize) -> Option<DecodingKey> {
    // An uncompressed point.
    let point = [&[4], x, y].concat();
    (x.len() == length && y.len() == length).then(|| DecodingKey::from_ec_der(&point))
}

fn of_pem(text: &str) -> Result<Vec<Key>, KeysError> {
    let mut keys = Vec::new();
    let mut rest = text;
    while let Some((_, block)) = rest.split_once("-----BEGIN ") {
        let (label, _) = block.split_once("-----").ok_or(KeysError::Malformed)?;
        if !matches!(label, "PUBLIC KEY" | "RSA PUBLIC KEY") {
            return Err(KeysError::NotPublic);
        }
        let end = format!("-----END {label}-----");
        let (body, behind) = block.split_once(&end).ok_or(KeysError::Malformed)?;
        keys.push(of_pem_block(&format!("-----BEGIN {body}{end}\n")).ok_or(KeysError::None)?);
        if keys.len() > KEYS_MAX {
            return Err(KeysError::TooMany);
        }
        rest = behind;
    }
    if keys.is_empty() { Err(KeysError::Malformed) } else { Ok(keys) }
}

fn of_pem_block(block: &str) -> Option<Key> {
    let pem = block.as_bytes();
    let (shape, key) = if let Ok(key) = DecodingKey::from_ec_pem(pem) {
        let shape = match key.try_get_as_bytes().ok()?.len() {
            65 => Shape::P256,
            97 => Shape::P384,
            _ => return None,
        };
        (shape, key)
    } else if let Ok(key) = DecodingKey::from_ed_pem(pem) {
        (Shape::Ed25519, key)
    } else {
        (Shape::Rsa, DecodingKey::from_rsa_pem(pem).ok()?)
    };
    Some(Key { kid: None, only: None, shape, key })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_that_cannot_verify_are_left_out_and_reported_when_nothing_is_left() {
        let x = URL_SAFE_NO_PAD.encode([7; 32]);
        let short = URL_SAFE_NO_PAD.encode([7; 128]);
        for key in [
            r#"{"kty":"oct","k":"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}"#.to_owned(),
            format!(r#"{{"kty":"RSA","n":"{short}","e":"AQAB"}}"#),
            format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","use":"enc"}}"#),
            format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","key_ops":["encrypt"]}}"#),
            format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","alg":"RSA-OAEP"}}"#),
            format!(r#"{{"kty":"OKP","crv":"X25519","x":"{x}"}}"#),
            format!(r#"{{"kty":"EC","crv":"P-384","x":"{x}","y":"{x}"}}"#),
            format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}"}}"#),
            r#"{"kty":7}"#.to_owned(),
            "7".to_owned(),
        ] {
            assert_eq!(KeySet::parse(&format!(r#"{{"keys":[{key}]}}"#)).err(), Some(KeysError::None), "{key}");
        }
        let fine = format!(r#"{{"keys":[{{"kty":"oct"}},{{"kty":"OKP","crv":"Ed25519","x":"{x}","d":"private"}}]}}"#);
        assert_eq!(KeySet::parse(&fine).map(|set| set.keys.len()), Ok(1));
    }

    #[test]
    fn a_document_with_too_many_keys_or_bytes_is_refused() {
        let many = format!(r#"{{"keys":[{}]}}"#, vec!["{}"; KEYS_MAX + 1].join(","));
        assert_eq!(KeySet::parse(&many).err(), Some(KeysError::TooMany));
        assert_eq!(KeySet::parse(&" ".repeat(JWKS_BYTES_MAX + 1)).err(), Some(KeysError::TooLarge));
    }

    #[test]
    fn a_private_key_in_pem_is_refused() {
        let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
        assert_eq!(KeySet::parse(&pem).err(), Some(KeysError::NotPublic));
    }

    proptest! {
        #[test]
        fn hostile_documents_do_not_panic(text in any::<String>(), near in "(\\{\"keys\":\\[)?[{}\":a-z,0-9]{0,60}(\\]\\})?", body in "[A-Za-z0-9+/=\n]{0,80}") {
            for text in [text, near, format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----")] {
                prop_assert!(KeySet::parse(&text).is_err());
            }
        }
    }
}
