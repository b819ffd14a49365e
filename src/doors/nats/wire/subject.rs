//! Which names are those of queue groups. Subjects are live subjects and filters of the bus.
//!
//! Ours: names are UTF-8 without control characters; nats-server 2.15 takes any bytes but blanks.

use bytes::Bytes;
use bytestring::ByteString;

use super::error::ProtocolError;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_groups_have_any_name_that_can_be_shown() {
        for (name, valid) in [("q", true), ("q.*", true), ("q..x", true), (">", true), ("", false), ("a\u{1}", false)] {
            assert_eq!(queue_name(Bytes::from_static(name.as_bytes())).is_ok(), valid, "{name}");
        }
    }
}
