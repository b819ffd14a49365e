//! Errors in the form of JetStream.

use serde::Serialize;

/// An error in the form of JetStream.
#[derive(Debug, Serialize)]
pub(super) struct ApiError<'a> {
    /// The status of HTTP that says the same.
    pub(super) code: u16,
    /// The number of the error in JetStream.
    pub(super) err_code: u32,
    /// A text for people.
    pub(super) description: &'a str,
}
