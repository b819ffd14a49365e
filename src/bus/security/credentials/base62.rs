//! Random texts of letters and digits, which survive every header, shell and URL as they are.

use aws_lc_rs::rand;
use zeroize::Zeroize as _;

/// Digits of a number of 256 bits in base 62.
pub const SECRET_CHARACTERS: usize = 43;
/// The digits in their order.
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The operating system gave no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no random numbers; try again, and look at its random device")]
pub struct RandomError;

/// Whether all bytes are letters and digits.
#[must_use]
pub fn is_base62(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Appends 32 random bytes as 43 characters; leading zeros are kept.
///
/// # Errors
/// There are no random bytes.
pub fn push_secret(text: &mut String) -> Result<(), RandomError> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).map_err(|_| RandomError)?;
    let mut digits = encode(bytes);
    text.extend(digits.iter().copied().map(char::from));
    bytes.zeroize();
    digits.zeroize();
    Ok(())
}

/// So many random characters, each equally likely.
///
/// # Errors
/// There are no random bytes.
pub fn random<const N: usize>() -> Result<[u8; N], RandomError> {
    let (mut text, mut filled) = ([b'0'; N], 0);
    while filled < N {
        let mut bytes = [0; 32];
        rand::fill(&mut bytes).map_err(|_| RandomError)?;
        // Six bits of each byte; the two values that are no digit are left out, so that no digit is likelier.
        for digit in bytes.iter().filter_map(|byte| DIGITS.get(usize::from(byte & 0x3f))) {
            let Some(place) = text.get_mut(filled) else { break };
            *place = *digit;
            filled = filled.saturating_add(1);
        }
    }
    Ok(text)
}

/// The number of these bytes, the first of which weighs most, in base 62.
fn encode(mut number: [u8; 32]) -> [u8; SECRET_CHARACTERS] {
    let mut digits = [b'0'; SECRET_CHARACTERS];
    for digit in digits.iter_mut().rev() {
        let mut remainder = 0_u16;
        for byte in &mut number {
            let value = (remainder << 8) | u16::from(*byte);
            // Below 256, because the remainder is below 62.
            *byte = u8::try_from(value / 62).unwrap_or(u8::MAX);
            remainder = value % 62;
        }
        *digit = DIGITS.get(usize::from(remainder)).copied().unwrap_or(b'0');
    }
    number.zeroize();
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: [u8; 32]) -> String {
        encode(bytes).iter().copied().map(char::from).collect()
    }

    #[test]
    fn numbers_of_256_bits_have_43_digits_with_leading_zeros() {
        let mut one_byte = [0; 32];
        one_byte[31] = 61;
        assert_eq!(text([0; 32]), "0".repeat(43));
        assert_eq!(text(one_byte), format!("{}z", "0".repeat(42)));
        one_byte[31] = 62;
        assert_eq!(text(one_byte), format!("{}10", "0".repeat(41)));
        // 2^256 - 1, from an independent calculator.
        assert_eq!(text([0xff; 32]), LARGEST);
    }

    /// 2^256 - 1 in base 62.
    const LARGEST: &str = "yhjskwdA6OZ1AL1YmHWZWm8LLG7HjnuCA2j5rOw8Xp1";

    #[test]
    fn random_characters_use_every_digit() {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            seen.extend(random::<62>().unwrap());
        }
        assert_eq!(seen.len(), 62, "{seen:?}");
    }
}
