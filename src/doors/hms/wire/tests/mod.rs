//! The wire by the vectors that were captured from the original, and by random bytes.
//!
//! `receiver` is a peer that tells what it receives; `golden` and `malformed` are the vectors; `random` is what nobody wrote;
//! `rules` is what no vector shows.

mod golden;
mod malformed;
mod random;
mod receiver;
mod rules;

use std::fmt::Write as _;

/// Bytes as hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut digits, byte| {
        write!(digits, "{byte:02x}").unwrap();
        digits
    })
}

/// Bytes of hexadecimal digits.
fn unhex(digits: &str) -> Vec<u8> {
    assert!(digits.len().is_multiple_of(2) && digits.is_ascii(), "no bytes: {digits}");
    digits.as_bytes().chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}
