//! API tokens: `rb1_<id>_<secret>`, 60 characters. The id names the token in lists and in the audit; the replicated state
//! has the SHA-256 of the secret alone. A secret has 256 random bits, so a fast hash is enough.

use std::fmt;

use aws_lc_rs::{constant_time, digest};

use super::base62::{self, RandomError, SECRET_CHARACTERS};
use super::secret::Secret;

/// How every token begins. Scanners for leaked secrets look for this text.
pub const TOKEN_PREFIX: &str = "rb1_";
/// Characters of the id of a token.
pub const TOKEN_ID_CHARACTERS: usize = 12;
/// Characters of a whole token.
pub const TOKEN_CHARACTERS: usize = TOKEN_PREFIX.len() + TOKEN_ID_CHARACTERS + 1 + SECRET_CHARACTERS;

/// The public half of a token: 12 letters and digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId([u8; TOKEN_ID_CHARACTERS]);

impl TokenId {
    /// Reads an id; `None` when the text is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = <[u8; TOKEN_ID_CHARACTERS]>::try_from(text.as_bytes()).ok()?;
        base62::is_base62(text).then_some(Self(bytes))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The SHA-256 of a secret, as the replicated state stores it.
#[derive(Clone, Copy)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// The hash of this secret: of the text of its 43 characters.
    #[must_use]
    pub fn of(secret: &str) -> Self {
        Self(sha256(secret.as_bytes()))
    }

    /// A stored hash.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes to store.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether this is the hash of that secret. The time does not depend on where they differ.
    #[must_use]
    pub fn is_of(&self, secret: &str) -> bool {
        constant_time::verify_slices_are_equal(&self.0, &sha256(secret.as_bytes())).is_ok()
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(hidden)")
    }
}

/// A token that was just made. Its text is shown once and kept nowhere.
#[derive(Debug, Clone)]
pub struct MintedToken {
    /// The public half.
    pub id: TokenId,
    /// What to store.
    pub hash: SecretHash,
    /// The whole token, for its owner.
    pub text: Secret,
}

/// Makes a token.
///
/// # Errors
/// There are no random bytes.
pub fn mint() -> Result<MintedToken, RandomError> {
    let id = TokenId(base62::random()?);
    let mut text = String::with_capacity(TOKEN_CHARACTERS);
    text.push_str(TOKEN_PREFIX);
    text.push_str(id.as_str());
    text.push('_');
    let start = text.len();
    base62::push_secret(&mut text)?;
    let hash = SecretHash::of(text.get(start..).unwrap_or_default());
    Ok(MintedToken { id, hash, text: Secret::new(text) })
}

/// The id and the secret of a token; `None` when the text is no token.
#[must_use]
pub fn parse(text: &str) -> Option<(&str, &str)> {
    if text.len() != TOKEN_CHARACTERS {
        return None;
    }
    let (id, secret) = text.strip_prefix(TOKEN_PREFIX)?.split_at_checked(TOKEN_ID_CHARACTERS)?;
    let secret = secret.strip_prefix('_')?;
    (base62::is_base62(id) && base62::is_base62(secret)).then_some((id, secret))
}

/// The SHA-256 of these bytes.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, bytes);
    // A SHA-256 always has 32 bytes.
    <[u8; 32]>::try_from(digest.as_ref()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_minted_token_reads_back_and_its_hash_is_of_its_secret() {
        let minted = mint().unwrap();
        let text = minted.text.expose();
        let (id, secret) = parse(text).expect("a minted token is a token");
        assert_eq!((id, text.len()), (minted.id.as_str(), 60));
        assert_eq!(TokenId::parse(id), Some(minted.id));
        assert!(minted.hash.is_of(secret));
        let hash = SecretHash::from_bytes(*minted.hash.as_bytes());
        assert!(hash.is_of(secret) && !hash.is_of("") && !hash.is_of(text));
    }

    #[test]
    fn the_hash_is_sha_256_of_the_text_of_the_secret() {
        let hash = SecretHash::of("abc");
        let hex: String = hash.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn two_tokens_have_nothing_in_common() {
        let (one, two) = (mint().unwrap(), mint().unwrap());
        assert_ne!(one.id, two.id);
        assert_ne!(one.text.expose(), two.text.expose());
    }

    #[test]
    fn a_minted_token_does_not_show_its_secret() {
        let minted = mint().unwrap();
        let (_, secret) = parse(minted.text.expose()).unwrap();
        let shown = format!("{minted:?}");
        assert!(!shown.contains(secret), "{shown}");
        assert!(shown.contains("hidden"), "{shown}");
    }

    #[test]
    fn what_is_nearly_a_token_is_none() {
        let (id, secret) = ("0aZ".repeat(4), "9".repeat(43));
        assert_eq!(parse(&format!("rb1_{id}_{secret}")), Some((id.as_str(), secret.as_str())));
        for text in [
            String::new(),
            "rb1_".to_owned(),
            format!("rb2_{id}_{secret}"),
            format!("RB1_{id}_{secret}"),
            format!("rb1_{id}-{secret}"),
            format!("rb1_{id}_{secret}9"),
            format!("rb1_{id}_{}", &secret[1..]),
            format!(" rb1_{id}_{}", &secret[1..]),
            format!("rb1_{id}_{}_", &secret[1..]),
            format!("rb1_{}_{secret}", "0a_".repeat(4)),
            format!("rb1_{}_{secret}", "\u{e9}".repeat(6)),
            format!("rb1_{}\u{e9}{}", &id[..11], &secret[..43]),
            format!("rb1_{id}_{}\0", &secret[1..]),
        ] {
            assert_eq!(parse(&text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn hostile_texts_are_no_token_and_no_panic(text in any::<String>(), near in "rb1_[0-9a-zA-Zé_]{0,60}") {
            for text in [text, near] {
                if let Some((id, secret)) = parse(&text) {
                    prop_assert_eq!(format!("rb1_{}_{}", id, secret), text.clone());
                    prop_assert!(TokenId::parse(id).is_some());
                }
                prop_assert!(TokenId::parse(&text).is_none_or(|id| id.as_str() == text));
            }
        }
    }
}
