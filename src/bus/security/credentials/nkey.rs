//! Keys of NATS, of the kind "user": the client signs what the server has asked it to sign, with a key that never leaves
//! the client. The server knows the public key, `UABC...`, alone.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use nkeys::{KeyPair, KeyPairType};

use super::base62::{self, RandomError};
use super::secret::Secret;

/// Characters of a public key.
const KEY_CHARACTERS: usize = 56;
/// Bytes of a signature, and the characters of its longest encoding.
const SIGNATURE_BYTES: usize = 64;
const SIGNATURE_CHARACTERS_MAX: usize = 88;

/// Clients of NATS write signatures in either alphabet, with and without padding.
const CONFIG: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, CONFIG);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, CONFIG);

/// What a client shows that has a key.
#[derive(Debug, Clone, Copy)]
pub struct NkeyProof<'a> {
    /// The public key, as the client names it.
    pub key: &'a str,
    /// What the server has asked this connection to sign. Empty: nothing, and then nothing is proven.
    pub nonce: &'a str,
    /// The signature, in base64 of either alphabet.
    pub signature: &'a str,
}

impl NkeyProof<'_> {
    /// Whether the owner of the key has signed the nonce.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        if self.nonce.is_empty() || self.signature.len() > SIGNATURE_CHARACTERS_MAX {
            return false;
        }
        let decoded = URL_SAFE.decode(self.signature).or_else(|_| STANDARD.decode(self.signature));
        let Some(signature) = decoded.ok().filter(|bytes| bytes.len() == SIGNATURE_BYTES) else { return false };
        user_key(self.key).is_some_and(|key| key.verify(self.nonce.as_bytes(), &signature).is_ok())
    }
}

/// The key of a user that this text is, its checksum included.
fn user_key(text: &str) -> Option<KeyPair> {
    if text.len() != KEY_CHARACTERS || !text.starts_with('U') {
        return None;
    }
    KeyPair::from_public_key(text).ok()
}

/// Whether a text is the public key of a user, its checksum included.
#[must_use]
pub fn is_user_key(text: &str) -> bool {
    user_key(text).is_some()
}

/// A new key: the public key, and the seed that its owner keeps.
///
/// # Errors
/// There is no randomness, as the text says.
pub fn generate() -> Result<(String, Secret), nkeys::error::Error> {
    let pair = KeyPair::new(KeyPairType::User);
    Ok((pair.public_key(), Secret::new(pair.seed()?)))
}

/// Something to sign that no other connection gets.
///
/// # Errors
/// There are no random bytes.
pub fn nonce() -> Result<String, RandomError> {
    let mut text = String::new();
    base62::push_secret(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    use super::*;

    fn signed(key: &str, nonce: &str, signature: &str) -> bool {
        NkeyProof { key, nonce, signature }.is_signed()
    }

    #[test]
    fn the_owner_of_a_key_signs_in_either_alphabet() {
        let pair = KeyPair::new_user();
        let (key, nonce) = (pair.public_key(), nonce().unwrap());
        let signature = pair.sign(nonce.as_bytes()).unwrap();
        for text in [URL_SAFE_NO_PAD.encode(&signature), STANDARD.encode(&signature)] {
            assert!(signed(&key, &nonce, &text), "{text}");
        }
    }

    #[test]
    fn nobody_else_is_taken_for_the_owner() {
        let (pair, other) = (KeyPair::new_user(), KeyPair::new_user());
        let (key, asked) = (pair.public_key(), nonce().unwrap());
        let sign = |pair: &KeyPair, nonce: &str| URL_SAFE_NO_PAD.encode(pair.sign(nonce.as_bytes()).unwrap());
        let good = sign(&pair, &asked);
        assert!(!signed(&key, &asked, &sign(&other, &asked)), "another key");
        assert!(!signed(&key, &nonce().unwrap(), &good), "the signature of another connection");
        assert!(!signed(&key, "", &sign(&pair, "")), "nothing was asked");
        for signature in ["", "AAAA", &good[1..], &"A".repeat(86), &"A".repeat(1000)] {
            assert!(!signed(&key, &asked, signature), "{signature}");
        }
        for key in ["", "U", &key[1..], &key.to_lowercase(), &format!("U{}", "A".repeat(55))] {
            assert!(!signed(key, &asked, &good), "{key}");
        }
        let account = KeyPair::new_account();
        assert!(!signed(&account.public_key(), &asked, &sign(&account, &asked)), "accounts are no users");
    }

    #[test]
    fn a_new_key_is_one_of_a_user_and_its_seed_does_not_show() {
        let (key, seed) = generate().unwrap();
        assert!(is_user_key(&key) && seed.expose().starts_with("SU"));
        assert!(format!("{seed:?}").contains("hidden"));
        let changed = key.chars().rev().collect::<String>();
        assert!(!is_user_key(&changed));
    }
}
