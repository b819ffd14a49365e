//! A value that must not be seen: no `Debug`, `Display` or serializer shows the value, and its memory is overwritten when
//! the value is dropped.

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

/// A secret text (`Secret<String>`) or secret bytes (`Secret<Vec<u8>>`).
///
/// There is no `PartialEq`: compare hashes, or use `aws_lc_rs::constant_time`.
#[derive(Clone)]
pub struct Secret<T: Zeroize = String>(Zeroizing<T>);

impl<T: Zeroize> Secret<T> {
    /// Takes over a value. Copies that were made before are not overwritten.
    pub fn new(value: T) -> Self {
        Self(Zeroizing::new(value))
    }

    /// The value itself. Whoever calls this must not log or store the value.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show_in_debug_texts() {
        let (text, bytes) = (Secret::new("hunter2".to_owned()), Secret::new(b"hunter2".to_vec()));
        assert_eq!(format!("{text:?} {bytes:#?}"), "Secret(hidden) Secret(hidden)");
        assert_eq!((text.expose().as_str(), bytes.expose().as_slice()), ("hunter2", b"hunter2".as_slice()));
    }
}
