//! User and password as HTTP Basic sends them: base64 of `user:password`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rollbook_core::security::principal::{Kind, PRINCIPAL_NAME_BYTES_MAX, Principal};
use zeroize::Zeroizing;

use super::password::PASSWORD_BYTES_MAX;
use super::secret::Secret;

/// Longest base64 text that is decoded: user, colon and password at their longest.
const ENCODED_BYTES_MAX: usize = (PRINCIPAL_NAME_BYTES_MAX + 1 + PASSWORD_BYTES_MAX).div_ceil(3) * 4;

/// What a person presented.
#[derive(Debug, Clone)]
pub struct Basic {
    /// The user, without checking whether there is one.
    pub user: Principal,
    /// The password, not yet checked.
    pub password: Secret,
}

/// Reads the part of the header behind `Basic`; `None` when that is not base64 of a user name and a password in UTF-8.
#[must_use]
pub fn parse(encoded: &str) -> Option<Basic> {
    if encoded.len() > ENCODED_BYTES_MAX {
        return None;
    }
    let decoded = Zeroizing::new(STANDARD.decode(encoded).ok()?);
    let (user, password) = str::from_utf8(&decoded).ok()?.split_once(':')?;
    let fits = (1..=PASSWORD_BYTES_MAX).contains(&password.len()) && !password.contains(char::is_control);
    let user = Principal::new(Kind::User, user).ok().filter(|_| fits)?;
    Some(Basic { user, password: Secret::new(password.to_owned()) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Option<(String, String)> {
        parse(&STANDARD.encode(text)).map(|basic| (basic.user.to_string(), basic.password.expose().clone()))
    }

    #[test]
    fn a_user_and_a_password_are_read() {
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(of("ann@example.com:s:e cret\u{e4}"), pair("user:ann@example.com", "s:e cret\u{e4}"));
        let longest = "x".repeat(PASSWORD_BYTES_MAX);
        assert_eq!(of(&format!("ann:{longest}")), pair("user:ann", &longest));
    }

    #[test]
    fn what_is_no_user_and_password_is_refused() {
        for text in ["", ":", "ann", "ann:", ":secret", "a b:secret", "ann:sec\0ret", "ann:sec\nret"] {
            assert_eq!(of(text), None, "{text:?}");
        }
        assert_eq!(of(&format!("ann:{}", "x".repeat(PASSWORD_BYTES_MAX + 1))), None);
        assert!(parse("not base64!").is_none() && parse(&STANDARD.encode([b'a', b':', 0xff])).is_none());
    }

    #[test]
    fn a_password_does_not_show() {
        let basic = parse(&STANDARD.encode("ann:hunter2")).unwrap();
        assert!(!format!("{basic:?}").contains("hunter2"));
    }

    proptest! {
        #[test]
        fn hostile_texts_do_not_panic(text in any::<String>(), bytes in proptest::collection::vec(any::<u8>(), 0..99)) {
            prop_assert!(parse(&text).is_none_or(|basic| !basic.password.expose().is_empty()));
            prop_assert!(parse(&STANDARD.encode(bytes)).is_none_or(|basic| !basic.user.name().is_empty()));
        }
    }
}
