//! Secrets that a command presents to a node: tokens and passwords.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::app::cli::shared::error::Usage;

/// Longest token in bytes. Large JWTs fit, and the head of a request stays within what a node reads.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// What every token of rollbook begins with.
const TOKEN_PREFIX: &str = "rb1_";

/// A text that no message and no debug output shows.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(String);

impl Secret {
    /// Hides a text.
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for the place that sends or stores it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// A token or JWT in the form that a header can carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token(Secret);

impl Token {
    /// Checks a token, without the white space around it. `source` names where it comes from.
    ///
    /// # Errors
    /// The token is empty, too long, or has characters that no token has. The text does not repeat the token.
    pub(crate) fn new(text: &str, source: &str) -> Result<Self, Usage> {
        let token = text.trim();
        if token.is_empty() {
            return Err(Usage(format!("the token in {source} is empty")));
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Usage(format!("the token in {source} has more than {TOKEN_BYTES_MAX} bytes")));
        }
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Usage(format!(
                "{source} is not a token: a token has no blank, line break or letter beyond ASCII"
            )));
        }
        Ok(Self(Secret::new(token.to_owned())))
    }

    /// Reads the token in a file.
    ///
    /// # Errors
    /// The file cannot be read, or holds no token.
    pub(crate) fn from_file(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot read the token file {}", path.display()))?;
        Self::from_reader(file, &path.display().to_string())
    }

    /// Reads the token from a stream, which is not read much further than the longest token.
    ///
    /// # Errors
    /// The stream cannot be read, or holds no token.
    pub(crate) fn from_reader(reader: impl io::Read, source: &str) -> anyhow::Result<Self> {
        let mut text = String::new();
        // White space around the token counts too.
        let most = u64::try_from(TOKEN_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(64);
        let read = reader.take(most).read_to_string(&mut text);
        read.with_context(|| format!("cannot read the token from {source}"))?;
        Ok(Self::new(&text, source)?)
    }

    /// The value of the header `Authorization`.
    pub(crate) fn bearer(&self) -> Secret {
        Secret::new(format!("Bearer {}", self.0.reveal()))
    }

    /// The part of a token of rollbook that names it and is no secret; `None` for tokens of others.
    pub(crate) fn id(&self) -> Option<&str> {
        let (id, secret) = self.0.reveal().strip_prefix(TOKEN_PREFIX)?.split_once('_')?;
        (!id.is_empty() && !secret.is_empty()).then_some(id)
    }

    /// The token as a secret to be stored.
    pub(crate) fn secret(&self) -> &Secret {
        &self.0
    }
}

/// The value of the header `Authorization` for a user with a password.
///
/// # Errors
/// The name is empty or has a colon, which ends the name in this form.
pub(crate) fn basic(user: &str, password: &Secret) -> Result<Secret, Usage> {
    if user.is_empty() || user.contains(':') {
        return Err(Usage("the name of a user is not empty and has no colon".to_owned()));
    }
    Ok(Secret::new(format!("Basic {}", STANDARD.encode(format!("{user}:{}", password.reveal())))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_word_of_bounded_length() {
        let token = Token::new(" rb1_k7_s3cr3t\n", "x").unwrap();
        assert_eq!((token.bearer().reveal(), token.id()), ("Bearer rb1_k7_s3cr3t", Some("k7")));
        assert_eq!(Token::new("eyJh.eyJz.c2ln", "x").unwrap().id(), None);
        for (bad, part) in [
            (" \n", "is empty"),
            ("rb1_a b", "no blank"),
            ("rb1_a\nrb1_b", "line break"),
            ("s3cr\u{e9}t", "beyond ASCII"),
            (&"s3cr3t".repeat(4000), "more than 16384 bytes"),
        ] {
            let error = Token::new(bad, "the file t").unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("the file t"), "{error}");
            assert!(!error.contains("s3cr"), "{error}");
        }
        let endless = Token::from_reader(io::repeat(b'a'), "a stream").unwrap_err().to_string();
        assert!(endless.contains("more than"), "{endless}");
    }

    #[test]
    fn a_debug_text_shows_no_secret() {
        let token = Token::new("rb1_k7_s3cr3t", "x").unwrap();
        let shown = format!("{token:?} {:?} {:?}", token.secret(), basic("ann", token.secret()).unwrap());
        assert!(!shown.contains("s3cr3t") && !shown.contains("YW5u"), "{shown}");
    }

    #[test]
    fn a_user_is_sent_as_basic() {
        let password = Secret::new("open:sesame".to_owned());
        assert_eq!(basic("ann", &password).unwrap().reveal(), "Basic YW5uOm9wZW46c2VzYW1l");
        for bad in ["", "a:b"] {
            assert!(basic(bad, &password).is_err(), "{bad}");
        }
    }
}
