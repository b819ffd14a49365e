//! API keys of accounts: programs behind a gateway show them. The state has SHA-256 of a key alone.

use crate::bus::error::Fault;
use crate::bus::security::credentials::base62::push_secret;
use crate::bus::security::credentials::token::sha256;

/// Length of a key, in bytes.
const BYTES: std::ops::RangeInclusive<usize> = 16..=128;

/// How every key begins that a node makes.
const PREFIX: &str = "rbx_";

/// A new key: `rbx_` and 43 letters and digits.
///
/// # Errors
/// There is no randomness.
pub fn mint() -> Result<String, Fault> {
    let mut key = PREFIX.to_owned();
    push_secret(&mut key).map_err(|error| Fault::internal(error.to_string()))?;
    Ok(key)
}

/// What the state has of a key.
#[must_use]
pub fn hash(key: &str) -> Vec<u8> {
    sha256(key.as_bytes()).to_vec()
}

/// Checks a key that an operator has chosen. A key is a token of a subject.
///
/// # Errors
/// The key cannot be one.
pub fn check(key: &str) -> Result<(), Fault> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if BYTES.contains(&key.len()) && key.bytes().all(legal) {
        return Ok(());
    }
    Err(Fault::bad("an API key has 16 to 128 letters, digits, _ and -"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_token_that_nobody_can_guess() {
        let key = mint().unwrap();
        assert_eq!((check(&key).is_ok(), hash(&key).len()), (true, 32));
        assert_ne!(key, mint().unwrap());
        for bad in ["", "short", "sixteen.letters.x", "sixteen letters x", &"x".repeat(129)] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
