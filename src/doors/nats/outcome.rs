//! What becomes of a message that goes into the book.

use bytestring::ByteString;
use futures_util::future::LocalBoxFuture;

use crate::bus::error::Fault;
use crate::bus::live::filter::LiveSubject;
use crate::bus::write::draft::Published;

/// A message on its way into the book.
pub(super) type Recorded = LocalBoxFuture<'static, Outcome>;

/// What became of a message.
pub(super) struct Outcome {
    /// The subject of the message.
    pub(super) subject: LiveSubject,
    /// Where the acknowledgement goes; empty when the client wants none.
    pub(super) reply: ByteString,
    pub(super) namespace: String,
    pub(super) stored: Result<Option<Published>, Fault>,
}
