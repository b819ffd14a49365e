//! Bodies that are JSON objects.

use std::future::Future;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::error::JsonPayloadError;
use actix_web::{FromRequest, HttpRequest, web};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::problem::Problem;

/// A body that is an object; a list of its members in their order is none, whatever serde thinks.
pub(super) struct Object<T>(pub(super) T);

fn wrong(error: impl std::fmt::Display) -> Problem {
    Problem::new(400, "bad_request", error.to_string())
}

fn is_empty(body: &[u8]) -> bool {
    body.iter().all(u8::is_ascii_whitespace)
}

fn parse<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, Problem> {
    if body.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|first| *first != b'{') {
        return Err(wrong("the body is a JSON object"));
    }
    serde_json::from_slice(body).map_err(wrong)
}

/// Reads a member that is an object.
pub(super) fn object<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<T, D::Error> {
    let members = serde_json::Map::deserialize(deserializer)?;
    serde_json::from_value(members.into()).map_err(serde::de::Error::custom)
}

/// Reads an object that may be left out.
pub(super) fn optional<'b, T: Deserialize<'b> + Default>(body: &'b [u8]) -> Result<T, Problem> {
    if is_empty(body) { Ok(T::default()) } else { parse(body) }
}

/// Checks a body that is any JSON, or left out.
pub(super) fn any(body: &[u8]) -> Result<(), Problem> {
    if is_empty(body) {
        return Ok(());
    }
    serde_json::from_slice::<&RawValue>(body).map(drop).map_err(wrong)
}

/// The answer to a body that cannot be read.
pub(super) fn unreadable(error: JsonPayloadError, _: &HttpRequest) -> actix_web::Error {
    let status = match error {
        JsonPayloadError::Overflow { .. } | JsonPayloadError::OverflowKnownLength { .. } => 413,
        _ => 400,
    };
    Problem::new(status, "bad_request", error.to_string()).into()
}

impl<T: DeserializeOwned> FromRequest for Object<T> {
    type Error = actix_web::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Self::Error>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        // Limit, content type and errors are those of every other JSON body.
        let read = web::Json::<Box<RawValue>>::from_request(request, payload);
        Box::pin(async move { Ok(Self(parse(read.await?.get().as_bytes())?)) })
    }
}
