//! Request bodies: nothing is buffered beyond the limit, and nobody may be slow for ever.

use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use actix_web::error::PayloadError;
use actix_web::http::header;
use actix_web::{HttpRequest, web};
use bytes::{Bytes, BytesMut};
use futures_util::Stream as _;

/// Why there is no body.
#[derive(Debug)]
pub enum BodyError {
    /// It is longer than allowed, as announced or as it came.
    TooLarge,
    /// It did not arrive in time.
    Late,
    /// The connection broke.
    Broken(PayloadError),
}

/// Reads a body of at most so many bytes that arrives within `timeout`.
///
/// # Errors
/// Why there is none.
pub async fn read(
    request: &HttpRequest,
    mut payload: web::Payload,
    bytes_max: usize,
    timeout: Duration,
) -> Result<Bytes, BodyError> {
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: u64| usize::try_from(length).map_or(true, |n| n > bytes_max)) {
        return Err(BodyError::TooLarge);
    }
    let read = async {
        let mut first: Option<Bytes> = None;
        let mut joined = BytesMut::new();
        while let Some(chunk) = poll_fn(|cx| Pin::new(&mut payload).poll_next(cx)).await {
            let chunk = chunk.map_err(BodyError::Broken)?;
            let present = first.as_ref().map_or(joined.len(), Bytes::len);
            if present.saturating_add(chunk.len()) > bytes_max {
                return Err(BodyError::TooLarge);
            }
            match first.take() {
                None if joined.is_empty() => first = Some(chunk),
                None => joined.extend_from_slice(&chunk),
                Some(before) => {
                    joined.reserve(before.len().saturating_add(chunk.len()));
                    joined.extend_from_slice(&before);
                    joined.extend_from_slice(&chunk);
                }
            }
        }
        Ok(first.unwrap_or_else(|| joined.freeze()))
    };
    let mut read = pin!(read);
    // Most bodies came with their head: those need no timer.
    match poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx))).await {
        Poll::Ready(body) => body,
        Poll::Pending => tokio::time::timeout(timeout, read).await.map_err(|_| BodyError::Late)?,
    }
}
