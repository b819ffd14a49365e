//! The id of an account, actor, pipeline, envelope, event or process.

use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

/// A UUID: 16 bytes, big-endian in messages; lower case with dashes in subjects and texts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Id([u8; 16]);

/// The text or the bytes are no UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no UUID: write 32 hexadecimal digits with dashes, as in 53131466-4e2e-11e7-916e-af2b1e6d242d, or 16 bytes")]
pub struct IdError;

impl Id {
    /// The id of these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The id of bytes as messages and rows have them.
    ///
    /// # Errors
    /// There are not exactly 16 bytes.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, IdError> {
        bytes.try_into().map(Self).map_err(|_| IdError)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The bytes, for a row or message.
    #[must_use]
    pub fn to_vec(self) -> Vec<u8> {
        self.0.to_vec()
    }

    /// The id of an event that came without one, at this position of its envelope. The same envelope that comes again
    /// gets the same ids, so that it is recognised.
    #[must_use]
    pub fn of_event(envelope: Self, position: u32) -> Self {
        let mut number = u128::from_be_bytes(envelope.0) ^ u128::from(position.wrapping_add(1));
        // Version 8 of RFC 9562: made in a way of one's own. An id of a client has another version.
        number = (number & !(0xf << 76)) | (8 << 76);
        Self(number.to_be_bytes())
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Id {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let text = text.as_bytes();
        let dashes = [8, 13, 18, 23];
        if text.len() != 36 || dashes.iter().any(|at| text.get(*at) != Some(&b'-')) {
            return Err(IdError);
        }
        let mut number = 0_u128;
        for (_, byte) in text.iter().enumerate().filter(|(at, _)| !dashes.contains(at)) {
            let digit = char::from(*byte).to_digit(16).ok_or(IdError)?;
            number = number << 4 | u128::from(digit);
        }
        Ok(Self(number.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;

    use super::*;

    #[test]
    fn an_id_is_32_hexadecimal_digits_with_dashes() {
        let text = "53131466-4e2e-11e7-916e-af2b1e6d242d";
        let id: Id = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(text.to_uppercase().parse(), Ok(id));
        assert_eq!(Id::from_slice(id.as_bytes()), Ok(id));
        for wrong in ["", "53131466", "531314664-e2e-11e7-916e-af2b1e6d242d", "5313146g-4e2e-11e7-916e-af2b1e6d242d"] {
            assert_eq!(wrong.parse::<Id>(), Err(IdError), "{wrong}");
        }
        assert_eq!(Id::from_slice(&[0; 15]), Err(IdError));
    }

    #[test]
    fn the_events_of_an_envelope_get_ids_that_differ() {
        let envelope = Id::new([7; 16]);
        let ids: alloc::collections::BTreeSet<Id> = (0..1000).map(|at| Id::of_event(envelope, at)).collect();
        assert_eq!(ids.len(), 1000);
        assert_eq!(Id::of_event(envelope, 3), Id::of_event(envelope, 3));
        assert_ne!(Id::of_event(envelope, 3), Id::of_event(Id::new([9; 16]), 3));
        assert_eq!(Id::of_event(envelope, 3).to_string().as_bytes()[14], b'8');
    }
}
