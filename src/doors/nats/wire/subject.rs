//! Which names of clients are subjects and queue groups.
//!
//! A subject is a list of tokens with dots between them. No token is empty. `*` and `>` are wildcards only when they
//! are a whole token: `foo*` is a literal. Ours: names are UTF-8 without control characters; nats-server 2.15 takes
//! any bytes but blanks.

use bytes::Bytes;
use bytestring::ByteString;

use super::error::ProtocolError;

/// The subject of a PUB or HPUB, or the subject that answers go to: no wildcards.
///
/// nats-server checks this in pedantic mode alone, and then still delivers the message; rollbook drops the message in
/// both modes. nats-server does not check the subject for answers.
///
/// # Errors
/// [`ProtocolError::InvalidPublishSubject`].
pub fn publish_subject(subject: Bytes) -> Result<ByteString, ProtocolError> {
    if is_well_formed(&subject, false) { text(subject) } else { None }.ok_or(ProtocolError::InvalidPublishSubject)
}

/// The subject of a SUB: `*` for one token, `>` at the end for one or more.
///
/// # Errors
/// [`ProtocolError::InvalidSubject`].
pub fn subscription_subject(subject: Bytes) -> Result<ByteString, ProtocolError> {
    if is_well_formed(&subject, true) { text(subject) } else { None }.ok_or(ProtocolError::InvalidSubject)
}

/// The name of a queue group. Dots and wildcards have no meaning in these names: `q.*` and `q..x` are two groups.
///
/// # Errors
/// [`ProtocolError::InvalidSubject`], as there is no other text for this.
pub fn queue_name(queue: Bytes) -> Result<ByteString, ProtocolError> {
    if is_plain(&queue) { text(queue) } else { None }.ok_or(ProtocolError::InvalidSubject)
}

fn text(name: Bytes) -> Option<ByteString> {
    ByteString::try_from(name).ok()
}

/// Whether there is no blank or control character. Bytes beyond ASCII are checked where they become text.
fn is_plain(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| *byte > b' ' && *byte != 0x7f)
}

fn is_well_formed(subject: &[u8], with_wildcards: bool) -> bool {
    let mut tail = false;
    is_plain(subject)
        && subject.split(|byte| *byte == b'.').all(|token| {
            let behind_tail = std::mem::replace(&mut tail, token == b">");
            let is_wildcard = tail || token == b"*";
            !token.is_empty() && !behind_tail && (with_wildcards || !is_wildcard)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(subject: &'static [u8]) -> Result<ByteString, ProtocolError> {
        publish_subject(Bytes::from_static(subject))
    }

    fn subscribe(subject: &'static [u8]) -> Result<ByteString, ProtocolError> {
        subscription_subject(Bytes::from_static(subject))
    }

    #[test]
    fn subjects_without_wildcards_are_for_both() {
        let subjects: [&[u8]; 10] =
            [b"a", b"a.b.c", b"foo*", b"a.b>", b"*a", b"f>o", b"a.**", b">>", b"$SYS.x", "größe.ß".as_bytes()];
        for subject in subjects {
            assert_eq!(publish(subject).unwrap().as_bytes(), subject);
            assert_eq!(subscribe(subject).unwrap().as_bytes(), subject);
        }
    }

    #[test]
    fn wildcards_are_for_subscriptions() {
        for subject in [b"*".as_slice(), b">", b"a.*", b"a.>", b"*.b", b"a.*.c", b"*.*.>"] {
            assert_eq!(publish(subject).unwrap_err(), ProtocolError::InvalidPublishSubject);
            assert_eq!(subscribe(subject).unwrap().as_bytes(), subject);
        }
    }

    #[test]
    fn empty_tokens_tails_in_the_middle_and_odd_bytes_are_for_nothing() {
        let subjects: [&[u8]; 14] = [
            b"", b".", b"..", b".a", b"a.", b"a..b", b">.a", b"a.>.b", b">.>", b"a b", b"a\tb", b"a\0b", b"a\x7f",
            b"a\xff",
        ];
        for subject in subjects {
            assert_eq!(publish(subject).unwrap_err(), ProtocolError::InvalidPublishSubject, "{subject:?}");
            assert_eq!(subscribe(subject).unwrap_err(), ProtocolError::InvalidSubject, "{subject:?}");
        }
    }

    #[test]
    fn queue_groups_have_any_name_that_can_be_shown() {
        for (name, valid) in [("q", true), ("q.*", true), ("q..x", true), (">", true), ("", false), ("a\u{1}", false)] {
            assert_eq!(queue_name(Bytes::from_static(name.as_bytes())).is_ok(), valid, "{name}");
        }
    }
}
