//! Request bodies. Invariant: a body is bounded in bytes and in time, and all bodies that are being received share one
//! budget.

use std::cell::Cell;
use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use actix_web::error::PayloadError;
use actix_web::http::header;
use actix_web::{HttpRequest, web};
use bytes::{Bytes, BytesMut};
use futures_util::Stream as _;

use super::budget::{Budget, Lease};

/// Why there is no body.
#[derive(Debug)]
pub enum BodyError {
    /// The body is longer than allowed, as announced or as received.
    TooLarge,
    /// The body did not arrive in time.
    Late,
    /// The budget for bodies is used up; a retry may succeed.
    Crowded,
    /// The connection broke.
    Broken(PayloadError),
}

/// The bounds of a body.
#[derive(Debug, Clone, Copy)]
pub struct Bounds<'b> {
    /// Most bytes.
    pub bytes_max: usize,
    /// Longest time until the body is complete.
    pub timeout: Duration,
    /// Counts the bytes of the body while it is being received. A body that comes with its head is not counted.
    pub budget: &'b Budget,
}

/// Reads a body.
///
/// # Errors
/// Why there is none.
pub async fn read(request: &HttpRequest, payload: web::Payload, bounds: Bounds<'_>) -> Result<Bytes, BodyError> {
    let Bounds { bytes_max, timeout, budget } = bounds;
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: u64| usize::try_from(length).map_or(true, |n| n > bytes_max)) {
        return Err(BodyError::TooLarge);
    }
    let (here, lease) = (Cell::new(0), Cell::new(None));
    let mut read = pin!(gather(payload, bytes_max, &here, &lease));
    // Most bodies came with their head: those need no timer, and are counted nowhere.
    match poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx))).await {
        Poll::Ready(body) => body,
        Poll::Pending => {
            let mut begun = budget.lease();
            if !begun.cover(here.get()) {
                return Err(BodyError::Crowded);
            }
            lease.set(Some(begun));
            tokio::time::timeout(timeout, read).await.map_err(|_| BodyError::Late)?
        }
    }
}

/// Joins the pieces of a body. `here` counts the bytes; `lease` covers them as soon as there is one.
async fn gather(
    mut payload: web::Payload,
    bytes_max: usize,
    here: &Cell<usize>,
    lease: &Cell<Option<Lease>>,
) -> Result<Bytes, BodyError> {
    let mut first: Option<Bytes> = None;
    let mut joined = BytesMut::new();
    while let Some(chunk) = poll_fn(|cx| Pin::new(&mut payload).poll_next(cx)).await {
        let chunk = chunk.map_err(BodyError::Broken)?;
        let present = here.get().saturating_add(chunk.len());
        if present > bytes_max {
            return Err(BodyError::TooLarge);
        }
        here.set(present);
        if let Some(mut held) = lease.take() {
            if !held.cover(present) {
                return Err(BodyError::Crowded);
            }
            lease.set(Some(held));
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
}

#[cfg(test)]
mod tests {
    use actix_http::BoxedPayloadStream;
    use actix_web::FromRequest as _;
    use actix_web::dev::Payload;
    use actix_web::test::TestRequest;
    use futures_util::stream;
    use tokio::sync::mpsc;

    use super::*;

    type Chunks = mpsc::Sender<Result<Bytes, PayloadError>>;

    /// A request whose body comes piece by piece; ends when the sender is dropped.
    async fn sent() -> (HttpRequest, web::Payload, Chunks) {
        let (sender, mut chunks) = mpsc::channel(16);
        let body: BoxedPayloadStream = Box::pin(stream::poll_fn(move |cx| chunks.poll_recv(cx)));
        let request = TestRequest::default().to_http_request();
        let mut payload = Payload::Stream { payload: body };
        let payload = web::Payload::from_request(&request, &mut payload).await.expect("a payload");
        (request, payload, sender)
    }

    async fn send(to: &Chunks, bytes: usize) {
        to.send(Ok(Bytes::from(vec![b'x'; bytes]))).await.expect("somebody reads");
        tokio::task::yield_now().await;
    }

    #[actix_web::test]
    async fn bodies_that_are_waited_for_have_one_bound_together() {
        let budget = Budget::new(1000);
        let bounds = Bounds { bytes_max: 2000, timeout: Duration::from_secs(9), budget: &budget };
        let ((one, first, to_one), (two, second, to_two)) = (sent().await, sent().await);
        let (mut one, mut two) = (Box::pin(read(&one, first, bounds)), Box::pin(read(&two, second, bounds)));
        send(&to_one, 600).await;
        assert!(futures_util::poll!(&mut one).is_pending());
        assert_eq!(budget.used(), 600, "what is here counts, not what was announced");
        send(&to_two, 300).await;
        assert!(futures_util::poll!(&mut two).is_pending());
        send(&to_two, 300).await;
        assert!(matches!(two.await, Err(BodyError::Crowded)), "for each piece that comes");
        assert_eq!(budget.used(), 600, "it gives back what it had");
        // What comes whole with its head is not counted, and one alone may be larger.
        let (three, third, to_three) = sent().await;
        send(&to_three, 1500).await;
        drop(to_three);
        assert_eq!(read(&three, third, bounds).await.map(|body| body.len()).ok(), Some(1500));
        send(&to_one, 900).await;
        assert!(futures_util::poll!(&mut one).is_pending());
        drop(to_one);
        assert_eq!(one.await.map(|body| body.len()).ok(), Some(1500));
        assert_eq!(budget.used(), 0);
    }

    #[actix_web::test]
    async fn a_body_that_is_too_large_or_late_gives_back_what_it_had() {
        let budget = Budget::new(1000);
        let bounds = Bounds { bytes_max: 500, timeout: Duration::from_millis(50), budget: &budget };
        let (request, payload, chunks) = sent().await;
        send(&chunks, 400).await;
        assert!(matches!(read(&request, payload, bounds).await, Err(BodyError::Late)));
        let (request, payload, chunks) = sent().await;
        let mut reading = Box::pin(read(&request, payload, bounds));
        send(&chunks, 400).await;
        assert!(futures_util::poll!(&mut reading).is_pending());
        send(&chunks, 101).await;
        assert!(matches!(reading.await, Err(BodyError::TooLarge)));
        assert_eq!(budget.used(), 0);
    }
}
