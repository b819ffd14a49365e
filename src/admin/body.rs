//! Reads bodies that are JSON.
//!
//! The content type does not decide whether a body is read, because curl sends `application/x-www-form-urlencoded` by
//! default. It only decides the error text of a body that is not JSON.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use actix_web::{Error, FromRequest, HttpRequest, web};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::problem::{CODINGS, Problem};
use crate::base::{json, json_error};

/// Most bytes of a decoded body, unless an endpoint says otherwise.
pub(super) const BYTES_MAX: usize = 64 << 10;
/// Longest time that a body may take to arrive.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);

/// A body that is an object. A list of the members is refused, although serde would accept it.
pub(super) struct Object<T>(pub(super) T);

/// A body that is an object or missing.
pub(super) struct Optional<T>(pub(super) T);

/// A body as it came, with its content type.
struct RawBody {
    bytes: Bytes,
    /// The content type, if it is not JSON.
    other_type: Option<String>,
}

type BodyFuture<T> = Pin<Box<dyn Future<Output = Result<T, Error>>>>;

impl RawBody {
    fn new(bytes: Bytes, other_type: Option<String>) -> Self {
        Self { bytes: bytes.slice_ref(json::without_mark(&bytes)), other_type }
    }

    fn is_empty(&self) -> bool {
        self.bytes.iter().all(u8::is_ascii_whitespace)
    }

    /// The error for a body that cannot be read.
    fn invalid(&self, error: impl std::fmt::Display) -> Problem {
        match &self.other_type {
            _ if self.is_empty() => Problem::bad("the body is empty; send a JSON object"),
            Some(kind) => unsupported(format!(
                "the body is not JSON ({error}); send JSON, with \"Content-Type: application/json\" instead of {kind}"
            )),
            None => Problem::bad(format!("the body is not as it should be: {error}")),
        }
    }

    fn check_depth(&self) -> Result<(), Problem> {
        if json::is_shallow(&self.bytes, json::DEPTH_MAX) {
            return Ok(());
        }
        Err(Problem::bad(format!("the body is {}", json::TOO_DEEP)))
    }

    fn object<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        self.check_depth()?;
        let first = self.bytes.iter().find(|byte| !byte.is_ascii_whitespace());
        if first.is_some_and(|first| *first != b'{') {
            let error = serde_json::from_slice::<&RawValue>(&self.bytes).err();
            return Err(error.map_or_else(|| Problem::bad("the body is a JSON object"), |error| self.invalid(error)));
        }
        serde_json::from_slice(&self.bytes).map_err(|error| match std::str::from_utf8(&self.bytes) {
            Ok(text) if error.is_data() => Problem::bad(json_error::explain(text, &error)),
            _ => self.invalid(error),
        })
    }
}

fn unsupported(detail: String) -> Problem {
    Problem::new(415, "unsupported_media_type", detail)
}

/// The content type of a body, if it is not JSON.
///
/// # Errors
/// The text is not UTF-8, or its coding is not supported.
fn other_type(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase());
    if let Some(coding) = text(CONTENT_ENCODING) {
        let is_known =
            |coding: &str| coding.trim() == "x-gzip" || CODINGS.split(", ").any(|known| known == coding.trim());
        if !coding.split(',').all(is_known) {
            return Err(unsupported(format!("Content-Encoding: {coding}; send one of {CODINGS}")));
        }
    }
    let Some(kind) = text(CONTENT_TYPE) else { return Ok(None) };
    let (essence, parameters) = kind.split_once(';').unwrap_or((&kind, ""));
    let charset = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("charset="));
    if let Some(charset) = charset.map(|charset| charset.trim_matches('"'))
        && !["utf-8", "utf8", "us-ascii"].contains(&charset)
    {
        return Err(unsupported(format!("charset={charset}; JSON is UTF-8")));
    }
    let essence = essence.trim();
    let is_json = essence == "application/json" || essence == "text/json" || essence.ends_with("+json");
    Ok(Some(essence.to_owned()).filter(|_| !is_json))
}

/// The error for a body that did not arrive.
fn incomplete(error: &Error) -> Problem {
    match error.as_error::<PayloadError>() {
        Some(PayloadError::Overflow) => Problem::new(413, "too_large", "the body is larger than this takes"),
        Some(error) => Problem::bad(format!("incomplete body: {error}")),
        None => Problem::bad(error.to_string()),
    }
}

fn late() -> Problem {
    Problem::new(408, "late", format!("the body did not arrive within {} s", TIMEOUT.as_secs()))
}

fn read<T: 'static>(
    request: &HttpRequest,
    payload: &mut Payload,
    parse: impl FnOnce(RawBody) -> Result<T, Problem> + 'static,
) -> BodyFuture<T> {
    let other_type = other_type(request.headers());
    // The limit is the `PayloadConfig` of the endpoint.
    let body = Bytes::from_request(request, payload);
    Box::pin(async move {
        let other_type = other_type?;
        let body = tokio::time::timeout(TIMEOUT, body).await.map_err(|_| late())?;
        let bytes = body.map_err(|error| incomplete(&error))?;
        Ok(parse(RawBody::new(bytes, other_type))?)
    })
}

impl<T: DeserializeOwned + 'static> FromRequest for Object<T> {
    type Error = Error;
    type Future = BodyFuture<Self>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        read(request, payload, |read| read.object().map(Self))
    }
}

impl<T: DeserializeOwned + Default + 'static> FromRequest for Optional<T> {
    type Error = Error;
    type Future = BodyFuture<Self>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        read(request, payload, |read| if read.is_empty() { Ok(Self(T::default())) } else { read.object().map(Self) })
    }
}

/// Reads a body that is any JSON or missing, as the text that came.
///
/// # Errors
/// The text is not JSON, has an unsupported coding, or is nested too deep.
pub(super) fn any(headers: &HeaderMap, bytes: Bytes) -> Result<Bytes, Problem> {
    let read = RawBody::new(bytes, other_type(headers)?);
    if read.is_empty() {
        return Ok(Bytes::new());
    }
    serde_json::from_slice::<&RawValue>(&read.bytes).map_err(|error| read.invalid(error))?;
    read.check_depth()?;
    Ok(read.bytes)
}

/// Limits the bodies of an endpoint, bytes.
pub(super) fn at_most(bytes: usize) -> web::PayloadConfig {
    web::PayloadConfig::new(bytes)
}

/// Reads a member that is an object.
pub(super) fn object<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<T, D::Error> {
    let text = serde_json::Value::from(serde_json::Map::deserialize(deserializer)?).to_string();
    serde_json::from_str(&text).map_err(|error| serde::de::Error::custom(json_error::explain(&text, &error)))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;
    use serde_json::Value;

    use super::*;

    async fn object(headers: &[(&'static str, &'static str)], body: &'static [u8]) -> Result<Value, (u16, String)> {
        let request =
            headers.iter().fold(TestRequest::post().set_payload(body), |request, one| request.insert_header(*one));
        let (request, mut payload) = request.to_http_parts();
        match Object::<Value>::from_request(&request, &mut payload).await {
            Ok(Object(value)) => Ok(value),
            Err(error) => Err((error.as_response_error().status_code().as_u16(), error.to_string())),
        }
    }

    #[actix_web::test]
    async fn json_is_taken_whatever_the_content_type_says() {
        for kind in [
            "application/json",
            "application/x-www-form-urlencoded",
            "text/plain",
            "application/merge-patch+json; charset=utf-8",
        ] {
            assert_eq!(
                object(&[("content-type", kind)], b"{\"a\":1}").await,
                Ok(serde_json::json!({ "a": 1 })),
                "{kind}"
            );
        }
        assert_eq!(
            object(&[], b"\xef\xbb\xbf {\"a\":1}").await,
            Ok(serde_json::json!({ "a": 1 })),
            "a byte order mark"
        );
        assert_eq!(object(&[("content-encoding", "identity")], b"{}").await, Ok(serde_json::json!({})));
    }

    #[actix_web::test]
    async fn what_is_no_json_is_told_what_to_send() {
        let form = [("content-type", "application/x-www-form-urlencoded")];
        let (status, text) = object(&form, b"a=1").await.unwrap_err();
        assert!(status == 415 && text.contains("Content-Type: application/json"), "{text}");
        let (status, text) = object(&[("content-type", "application/json")], b"{a}").await.unwrap_err();
        assert!(status == 400 && text.contains("line 1 column 2"), "{text}");
        assert_eq!(object(&[], b"[1]").await.unwrap_err(), (400, "the body is a JSON object".to_owned()));
        assert_eq!(object(&form, b" ").await.unwrap_err(), (400, "the body is empty; send a JSON object".to_owned()));
        for (name, value) in [("content-encoding", "br"), ("content-type", "application/json; charset=utf-16")] {
            assert_eq!(object(&[(name, value)], b"{}").await.unwrap_err().0, 415, "{value}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_given_up() {
        let request = TestRequest::post().to_http_request();
        let mut payload: Payload = Payload::Stream { payload: Box::pin(futures_util::stream::pending()) };
        let began = tokio::time::Instant::now();
        let error = Object::<Value>::from_request(&request, &mut payload).await.err().unwrap();
        assert_eq!(error.as_response_error().status_code().as_u16(), 408);
        assert_eq!(began.elapsed(), TIMEOUT);
    }
}
