//! Ids in messages: 16 bytes, or none.

use rollbook_core::xbus::id::Id;

/// A field of a message is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdFault {
    /// The field is needed.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// There are not 16 bytes.
    #[error("{0} has not 16 bytes")]
    Malformed(&'static str),
}

/// The id in a field that may be empty.
///
/// # Errors
/// The field has something else.
pub fn optional(bytes: &[u8], field: &'static str) -> Result<Option<Id>, IdFault> {
    if bytes.is_empty() {
        return Ok(None);
    }
    Id::from_slice(bytes).map(Some).map_err(|_| IdFault::Malformed(field))
}

/// The id in a field.
///
/// # Errors
/// The field is empty, or has something else.
pub fn required(bytes: &[u8], field: &'static str) -> Result<Id, IdFault> {
    optional(bytes, field)?.ok_or(IdFault::Missing(field))
}

/// The id in a token of a subject: with dashes, in any case.
#[must_use]
pub fn of_token(token: &str) -> Option<Id> {
    token.parse().ok()
}
