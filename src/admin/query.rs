//! Reads query parameters. Every endpoint refuses a parameter that is unknown or invalid, and names the parameter.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;

use super::problem::Problem;

/// The query parameters of a request.
pub(super) struct Query<T>(pub(super) T);

/// The query of an endpoint that reads and has no parameter of its own.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ConsistencyQuery {
    /// How fresh the answer is: `linearizable`, which is the default, `leader` or `stale`.
    #[serde(rename = "consistency")]
    _consistency: Option<String>,
}

/// The query of an endpoint without parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoParameters {}

impl<T: DeserializeOwned> FromRequest for Query<T> {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(parse(request.query_string()).map(Self))
    }
}

fn parse<T: DeserializeOwned>(query: &str) -> Result<T, Problem> {
    web::Query::<T>::from_query(query)
        .map(web::Query::into_inner)
        .map_err(|error| Problem::bad(why::<T>(query, &error)))
}

/// The error of a query. All parameters are optional, so an invalid one can be found by parsing each alone.
fn why<T: DeserializeOwned>(query: &str, error: &impl std::fmt::Display) -> String {
    let invalid = form_urlencoded::parse(query.as_bytes()).find_map(|(name, value)| {
        let alone = form_urlencoded::Serializer::new(String::new()).append_pair(&name, &value).finish();
        let error = web::Query::<T>::from_query(&alone).err()?;
        Some(explain(&name, &value, &text(&error)))
    });
    // Otherwise two parameters conflict: the same name stands there twice.
    invalid.unwrap_or_else(|| format!("query: {}", text(error)))
}

/// The text of serde, without the prefix of the framework.
fn text(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    text.strip_prefix("Query deserialize error: ").map_or_else(|| text.clone(), str::to_owned)
}

fn explain(name: &str, value: &str, error: &str) -> String {
    if let Some(rest) = error.strip_prefix("unknown field ") {
        let known = rest.split_once(", expected ").map(|(_, known)| known.trim_start_matches("one of "));
        return match known {
            Some(known) => format!("there is no query parameter {name}; known are {known}"),
            None => format!("there is no query parameter {name}; this takes none"),
        };
    }
    let wanted = match error {
        "invalid digit found in string"
        | "cannot parse integer from empty string"
        | "number too large to fit in target type" => "a whole number from 0",
        "provided string was not `true` or `false`" => "true or false",
        other => other,
    };
    format!("{name}={value}: {wanted}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Known {
        limit: Option<usize>,
        #[serde(default)]
        force: bool,
        word: Option<Word>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Word {
        On,
        Off,
    }

    fn refused<T: DeserializeOwned + std::fmt::Debug>(query: &str) -> String {
        parse::<T>(query).unwrap_err().to_string()
    }

    #[test]
    fn parameters_are_read() {
        let read = parse::<Known>("limit=7&force=true&word=on").unwrap();
        assert_eq!((read.limit, read.force, read.word), (Some(7), true, Some(Word::On)));
        assert!(parse::<NoParameters>("").is_ok());
    }

    #[test]
    fn a_refusal_names_the_parameter_and_what_would_be_right() {
        for (query, text) in [
            ("limit=1&colour=red", "there is no query parameter colour; known are `limit`, `force`, `word`"),
            ("limit=abc", "limit=abc: a whole number from 0"),
            ("force=true&limit=", "limit=: a whole number from 0"),
            ("limit=-1", "limit=-1: a whole number from 0"),
            ("limit=99999999999999999999999", "limit=99999999999999999999999: a whole number from 0"),
            ("force=yes", "force=yes: true or false"),
            ("word=odd", "word=odd: unknown variant `odd`, expected `on` or `off`"),
            ("limit=1&limit=2", "query: duplicate field `limit`"),
        ] {
            assert_eq!(refused::<Known>(query), text);
        }
        assert_eq!(refused::<NoParameters>("a=b"), "there is no query parameter a; this takes none");
    }
}
