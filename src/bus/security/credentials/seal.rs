//! Secrets in the replicated state and its snapshots, sealed with AES-256-GCM under a key that is in a file alone.
//!
//! ```text
//! 1 byte    version, 1
//! 4 bytes   id of the key: the begin of its SHA-256
//! 12 bytes  random nonce
//! n bytes   the sealed secret
//! 16 bytes  tag
//! ```
//!
//! What a secret is for is sealed along as its context, so a sealed secret cannot be moved to another place.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use super::secret::Secret;
use super::token::sha256;

/// The form of what is sealed.
const VERSION: u8 = 1;
/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// Bytes of the id of a key.
const ID_BYTES: usize = 4;
/// Bytes of a nonce.
const NONCE_BYTES: usize = 12;
/// Most bytes of a key file: a key has at most 64 characters.
const FILE_BYTES_MAX: u64 = 256;
/// Largest secret.
pub const SEALED_BYTES_MAX: usize = 1024 * 1024;

/// A key that seals secrets.
pub struct SealKey {
    id: [u8; ID_BYTES],
    key: RandomizedNonceKey,
}

/// Why there is no key, or something cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key file cannot be read.
    #[error("cannot read the key file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Others than the owner may read the key file.
    #[error(
        "the key file {} can be read by others (mode {mode:03o}); run `chmod 600` on it, or set the mode of the mounted secret to 0400",
        path.display()
    )]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The key file holds something else than a key.
    #[error(
        "the key file {} holds no key of 32 bytes in hex or base64; make one with `openssl rand -hex 32`",
        path.display()
    )]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// What is to be opened is damaged or from a later release.
    #[error("this is not a sealed secret, or one of a later release")]
    Malformed,
    /// The secret was sealed with another key.
    #[error(
        "sealed with another key: the secret needs the key with the id {sealed}, and the key file holds {present}; put that key back, or store the secret anew"
    )]
    OtherKey {
        /// The id of the key that sealed the secret.
        sealed: String,
        /// The id of this key.
        present: String,
    },
    /// The secret was changed, or belongs elsewhere.
    #[error("the sealed secret was damaged, or was sealed for another purpose; store the secret anew")]
    Damaged,
    /// The secret is larger than 1 MiB.
    #[error("a secret has at most 1 MiB")]
    TooLarge,
    /// The cryptography has failed.
    #[error("a secret cannot be sealed: the operating system gives no random numbers")]
    Random,
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealKey({}, hidden)", self.id())
    }
}

impl SealKey {
    /// Reads a key file: 64 hex digits, or base64 of 32 bytes. Only its owner may be able to read the file.
    ///
    /// # Errors
    /// Says what to do with the file.
    pub fn load(path: &Path) -> Result<Self, SealError> {
        let read = |source| SealError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(read)?;
        // Of the file that is open, or another one could be put there in between.
        let mode = file.metadata().map_err(read)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(SealError::Mode { path: path.to_owned(), mode });
        }
        let mut text = Zeroizing::new(Vec::new());
        file.take(FILE_BYTES_MAX).read_to_end(&mut text).map_err(read)?;
        let bytes = decode(text.trim_ascii());
        bytes.and_then(|bytes| Self::new(&bytes)).ok_or_else(|| SealError::NoKey { path: path.to_owned() })
    }

    fn new(bytes: &[u8]) -> Option<Self> {
        let key = (bytes.len() == KEY_BYTES).then(|| RandomizedNonceKey::new(&AES_256_GCM, bytes))?.ok()?;
        let id = sha256(bytes).first_chunk().copied()?;
        Some(Self { id, key })
    }

    /// The id of the key, which says nothing about the key.
    #[must_use]
    pub fn id(&self) -> String {
        hex(&self.id)
    }

    /// Seals a secret for a purpose, such as `issuer/keycloak/secret`.
    ///
    /// # Errors
    /// The secret is too large, or there are no random bytes.
    pub fn seal(&self, secret: &[u8], context: &str) -> Result<Vec<u8>, SealError> {
        if secret.len() > SEALED_BYTES_MAX {
            return Err(SealError::TooLarge);
        }
        let mut sealed = secret.to_vec();
        let nonce = self.key.seal_in_place_append_tag(Aad::from(self.bound(context)), &mut sealed);
        let nonce = nonce.map_err(|_| SealError::Random)?;
        Ok([&[VERSION][..], &self.id, nonce.as_ref(), &sealed].concat())
    }

    /// Opens a secret that was sealed for this purpose.
    ///
    /// # Errors
    /// The secret was sealed with another key or for another purpose, or was damaged.
    pub fn open(&self, sealed: &[u8], context: &str) -> Result<Secret<Vec<u8>>, SealError> {
        let (version, rest) = sealed.split_first().ok_or(SealError::Malformed)?;
        let (id, rest) = rest.split_first_chunk::<ID_BYTES>().ok_or(SealError::Malformed)?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(SealError::Malformed)?;
        let most = SEALED_BYTES_MAX.saturating_add(AES_256_GCM.tag_len());
        if *version != VERSION || rest.len() > most {
            return Err(SealError::Malformed);
        }
        if *id != self.id {
            return Err(SealError::OtherKey { sealed: hex(id), present: self.id() });
        }
        let mut bytes = Zeroizing::new(rest.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.key.open_in_place(nonce, Aad::from(self.bound(context)), &mut bytes);
        opened.map(|secret| Secret::new(secret.to_vec())).map_err(|_| SealError::Damaged)
    }

    /// What is authenticated along with a secret.
    fn bound(&self, context: &str) -> Vec<u8> {
        [&[VERSION][..], &self.id, context.as_bytes()].concat()
    }
}

/// A key from hex or any form of base64.
fn decode(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    if text.len() == KEY_BYTES.saturating_mul(2) {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let pairs = text.chunks_exact(2).map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        });
        return pairs.collect::<Option<Vec<u8>>>().map(Zeroizing::new);
    }
    let forms = [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD];
    forms.into_iter().find_map(|form| form.decode(text).ok()).map(Zeroizing::new)
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 0xf])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> SealKey {
        SealKey::new(&[byte; 32]).unwrap()
    }

    fn load(content: &str, mode: u32) -> Result<SealKey, SealError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seal.key");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        SealKey::load(&path)
    }

    #[test]
    fn a_secret_opens_with_its_key_and_for_its_purpose_alone() {
        let sealed = key(1).seal(b"hunter2", "issuer/a").unwrap();
        assert_eq!(key(1).open(&sealed, "issuer/a").unwrap().expose(), b"hunter2");
        assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
        assert!(matches!(key(1).open(&sealed, "issuer/b"), Err(SealError::Damaged)));
        let error = key(2).open(&sealed, "issuer/a").unwrap_err().to_string();
        assert!(error.starts_with("sealed with another key"), "{error}");
        assert!(error.contains(&key(1).id()) && error.contains(&key(2).id()), "{error}");
        assert_ne!(sealed, key(1).seal(b"hunter2", "issuer/a").unwrap(), "the nonce is random");
        assert!(key(1).open(&key(1).seal(b"", "").unwrap(), "").unwrap().expose().is_empty());
    }

    #[test]
    fn a_change_of_any_bit_is_noticed() {
        let sealed = key(1).seal(b"secret", "c").unwrap();
        for at in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[at / 8] ^= 1 << (at % 8);
            key(1).open(&changed, "c").expect_err("a changed bit");
        }
        for length in 0..sealed.len() {
            key(1).open(&sealed[..length], "c").expect_err("a cut secret");
        }
    }

    #[test]
    fn a_secret_beyond_the_limit_is_refused() {
        assert!(matches!(key(1).seal(&vec![0; SEALED_BYTES_MAX + 1], "c"), Err(SealError::TooLarge)));
        let largest = key(1).seal(&vec![0; SEALED_BYTES_MAX], "c").unwrap();
        assert_eq!(key(1).open(&largest, "c").unwrap().expose().len(), SEALED_BYTES_MAX);
    }

    #[test]
    fn key_files_in_hex_and_base64_hold_the_same_key() {
        let bytes = [0xfb; 32];
        let id = SealKey::new(&bytes).unwrap().id();
        for content in [
            hex(&bytes),
            hex(&bytes).to_uppercase(),
            format!(" {}\n", hex(&bytes)),
            STANDARD.encode(bytes),
            URL_SAFE_NO_PAD.encode(bytes),
            format!("{}\r\n", STANDARD_NO_PAD.encode(bytes)),
        ] {
            assert_eq!(load(&content, 0o600).unwrap().id(), id, "{content}");
            assert_eq!(load(&content, 0o400).unwrap().id(), id, "{content}");
        }
    }

    #[test]
    fn a_key_file_that_others_can_read_is_refused_with_what_to_do() {
        for mode in [0o644, 0o640, 0o604, 0o620, 0o601] {
            let error = load(&"0".repeat(64), mode).unwrap_err().to_string();
            assert!(error.contains(&format!("{mode:o}")) && error.contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn a_key_file_without_a_key_is_refused_without_showing_its_content() {
        for content in
            ["", "hunter2", &"g".repeat(64), &STANDARD.encode([7; 31]), &STANDARD.encode([7; 33]), &"0".repeat(65)]
        {
            let error = load(content, 0o600).unwrap_err().to_string();
            assert!(error.contains("openssl rand -hex 32"), "{error}");
            assert!(content.is_empty() || !error.contains(content), "{error}");
        }
        assert!(matches!(SealKey::load(Path::new("no/such/file")), Err(SealError::Read { .. })));
    }

    #[test]
    fn a_key_does_not_show() {
        assert_eq!(format!("{:?}", key(1)), format!("SealKey({}, hidden)", key(1).id()));
    }

    proptest! {
        #[test]
        fn hostile_bytes_do_not_open_and_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let key = key(1);
            prop_assert!(key.open(&bytes, "c").is_err());
            let ours = [&[VERSION][..], &key.id, &bytes].concat();
            prop_assert!(key.open(&ours, "c").is_err());
            decode(&bytes);
        }
    }
}
