//! When a service counts as ready, for the services that start after the service.

use std::time::Duration;

use serde_json::Value;

use super::duration::parse_duration;

/// How long a service may take to become ready, unless the document says otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// The `ready` key of a service document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Readiness {
    /// What is checked.
    pub(crate) check: ReadinessCheck,
    /// How long the check goes on after a spawn. The service then counts as ready.
    pub(crate) timeout: Duration,
}

/// What shows that a service is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReadinessCheck {
    /// The address accepts a TCP connection.
    Tcp(String),
    /// The URL answers with a status from 200 to 399.
    Http {
        /// `host:port` to connect to.
        address: String,
        /// The path with its query.
        path: String,
    },
    /// The text is in the standard output.
    Line(String),
    /// The process is registered on the bus, which the hub tells.
    Bus,
}

impl Readiness {
    /// Reads `{tcp: port | "host:port"}`, `{http: url}`, `{line: text}` or `{bus: true}`, each with a `timeout`.
    ///
    /// # Errors
    ///
    /// The sentence says what the key must be.
    pub(crate) fn parse(value: &Value) -> Result<Option<Self>, String> {
        let keys = match value {
            Value::Null => return Ok(None),
            Value::Object(keys) => keys,
            _ => return Err("`ready` must be an object with one of tcp, http, line, bus".into()),
        };
        let timeout = match keys.get("timeout") {
            None => DEFAULT_TIMEOUT,
            Some(timeout) => parse_duration("ready.timeout", timeout)?,
        };
        let mut checks = Vec::new();
        for (key, value) in keys {
            match key.as_str() {
                "tcp" => checks.push(parse_tcp(value)?),
                "http" => checks.push(parse_http(value)?),
                "line" => checks.push(parse_line(value)?),
                "bus" if value.as_bool() == Some(true) => checks.push(ReadinessCheck::Bus),
                "bus" => return Err("`ready.bus` must be true".into()),
                _ => {}
            }
        }
        match (checks.pop(), checks.is_empty()) {
            (Some(check), true) => Ok(Some(Self { check, timeout })),
            _ => Err("`ready` must have exactly one of tcp, http, line, bus".into()),
        }
    }
}

fn parse_tcp(value: &Value) -> Result<ReadinessCheck, String> {
    let wrong = || "`ready.tcp` must be a port or \"host:port\"".to_owned();
    let port = match value {
        Value::Number(port) => port.as_u64().and_then(|port| u16::try_from(port).ok()),
        Value::String(text) => match text.parse::<u16>() {
            Ok(port) => Some(port),
            Err(_) if has_port(text) => return Ok(ReadinessCheck::Tcp(text.clone())),
            Err(_) => None,
        },
        _ => None,
    };
    port.map(|port| ReadinessCheck::Tcp(format!("127.0.0.1:{port}"))).ok_or_else(wrong)
}

fn parse_http(value: &Value) -> Result<ReadinessCheck, String> {
    let wrong = || "`ready.http` must be a URL such as \"http://127.0.0.1:8080/health\"".to_owned();
    let text = value.as_str().and_then(|url| url.strip_prefix("http://")).ok_or_else(wrong)?;
    if text.chars().any(|letter| letter.is_control() || letter == ' ') {
        return Err(wrong());
    }
    let (authority, path) = text.split_once('/').unwrap_or((text, ""));
    let address = if has_port(authority) { authority.to_owned() } else { format!("{authority}:80") };
    if authority.is_empty() || authority.contains('@') {
        return Err(wrong());
    }
    Ok(ReadinessCheck::Http { address, path: format!("/{path}") })
}

fn parse_line(value: &Value) -> Result<ReadinessCheck, String> {
    match value.as_str() {
        Some(text) if !text.is_empty() && text.len() <= 4096 => Ok(ReadinessCheck::Line(text.to_owned())),
        _ => Err("`ready.line` must be a text of 1 to 4096 bytes".into()),
    }
}

fn has_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_check_is_read() {
        let check = |value: Value| Readiness::parse(&value).unwrap().unwrap().check;
        assert_eq!(check(json!({"tcp": 8080})), ReadinessCheck::Tcp("127.0.0.1:8080".into()));
        assert_eq!(check(json!({"tcp": "db:5432"})), ReadinessCheck::Tcp("db:5432".into()));
        let http = ReadinessCheck::Http { address: "localhost:80".into(), path: "/health?x=1".into() };
        assert_eq!(check(json!({"http": "http://localhost/health?x=1"})), http);
        assert_eq!(check(json!({"line": "listening"})), ReadinessCheck::Line("listening".into()));
        assert_eq!(check(json!({"bus": true})), ReadinessCheck::Bus);
        let timeout = Readiness::parse(&json!({"bus": true, "timeout": 5})).unwrap().unwrap().timeout;
        assert_eq!(timeout, Duration::from_secs(5));
    }

    #[test]
    fn a_wrong_check_is_refused() {
        for wrong in [
            json!({}),
            json!("tcp"),
            json!({"tcp": 70000}),
            json!({"tcp": "nowhere"}),
            json!({"http": "https://x/"}),
            json!({"http": "http://x/ y"}),
            json!({"line": ""}),
            json!({"bus": false}),
            json!({"tcp": 1, "line": "x"}),
        ] {
            assert!(Readiness::parse(&wrong).is_err(), "{wrong}");
        }
        assert_eq!(Readiness::parse(&Value::Null), Ok(None));
    }
}
