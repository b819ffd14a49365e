//! Services that are called, and clients that call them: on one thread, which is the caller and the service in turn.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::clients::{Plain, SocketIo};
use super::{At, BOUND, left, told};
use crate::harness::http::{Http, head};

/// A service with one method, `do`.
pub(super) enum Service {
    Plain(Plain),
    SocketIo(SocketIo),
}

impl Service {
    /// Registers over `/ws`.
    pub(super) fn plain(at: At, name: &str) -> Result<Self, String> {
        Plain::connect(at.web, name, &["do"]).map(Self::Plain)
    }

    /// Registers over Socket.IO.
    pub(super) fn socket_io(at: At, name: &str) -> Result<Self, String> {
        let mut client = SocketIo::connect(at.web)?;
        client.ask("bus:register", &json!({ "id": name, "capabilities": [name] }))?;
        Ok(Self::SocketIo(client))
    }

    /// The id of the next request, if one comes in time.
    pub(super) fn asked(&mut self, bound: Duration) -> Result<Option<String>, String> {
        let deadline = Instant::now() + bound;
        loop {
            let id = match self {
                Self::Plain(client) => {
                    let Some(frame) = client.next(left(deadline))? else { return Ok(None) };
                    if frame["type"] == "message" { frame["id"].clone() } else { Value::Null }
                }
                Self::SocketIo(client) => {
                    let Some(args) = client.event(left(deadline))? else { return Ok(None) };
                    let asked = args.first().is_some_and(|name| name == "bus:request");
                    let request = args.get(1).filter(|_| asked);
                    request.map_or(Value::Null, |request| request["requestId"].clone())
                }
            };
            if let Some(id) = id.as_str() {
                return Ok(Some(id.to_owned()));
            }
        }
    }

    pub(super) fn answer(&mut self, id: &str) -> Result<(), String> {
        match self {
            Self::Plain(client) => client.send(&json!({ "type": "response", "id": id, "payload": 1 })),
            Self::SocketIo(client) => {
                client.emit("bus:response", &json!({ "requestId": id, "success": true, "data": 1 }))
            }
        }
    }
}

/// The ways to call a service.
#[derive(Clone, Copy, Debug)]
pub(super) enum By {
    Plain,
    SocketIo,
    Rest,
}

pub(super) const WAYS: [By; 3] = [By::Plain, By::SocketIo, By::Rest];

/// A client that calls, one call at a time. A call that is not waited for is left behind by the next one.
pub(super) enum Caller {
    Plain { client: Plain, calls: u64 },
    SocketIo { client: SocketIo, asked: u64 },
    Rest { web: SocketAddr, http: Option<Http> },
}

impl Caller {
    pub(super) fn connect(by: By, at: At) -> Result<Self, String> {
        Ok(match by {
            By::Plain => Self::Plain { client: Plain::connect(at.web, "soak", &[])?, calls: 0 },
            By::SocketIo => Self::SocketIo { client: SocketIo::connect(at.web)?, asked: 0 },
            By::Rest => Self::Rest { web: at.web, http: None },
        })
    }

    /// Sends a call and does not wait for its answer.
    pub(super) fn call(&mut self, service: &str, timeout_ms: u64) -> Result<(), String> {
        match self {
            Self::Plain { client, calls } => {
                *calls += 1;
                client.send(&json!({
                    "type": "message", "id": format!("m{calls}"), "destination": format!("{service}:do"),
                    "responder": "cb", "payload": { "n": calls }, "timeout_ms": timeout_ms,
                }))
            }
            Self::SocketIo { client, asked } => {
                let request = json!({ "capability": service, "action": "do", "payload": 1, "timeout": timeout_ms });
                *asked = client.begin("bus:request", &request)?;
                Ok(())
            }
            Self::Rest { web, http } => {
                let timeout = format!("{timeout_ms}ms");
                let headers = [
                    ("Content-Type", "application/json"),
                    ("Content-Length", "1"),
                    ("X-Rollbook-Timeout", timeout.as_str()),
                ];
                let request = [head("POST", &format!("/api/call/{service}/do"), &headers), b"\r\n1".to_vec()].concat();
                let mut fresh = Http::connect_within(*web, BOUND).map_err(told)?;
                fresh.send(&request).map_err(told)?;
                *http = Some(fresh);
                Ok(())
            }
        }
    }

    /// Waits for the answer of the newest call, which must be a success.
    pub(super) fn answered(&mut self) -> Result<(), String> {
        match self {
            Self::Plain { client, calls } => {
                let id = format!("m{calls}");
                let answer = client.wait(|frame| frame["id"] == *id)?;
                if answer["type"] == "response" { Ok(()) } else { Err(answer.to_string()) }
            }
            Self::SocketIo { client, asked } => client.acked(*asked).map(|_| ()),
            Self::Rest { http, .. } => {
                let mut http = http.take().ok_or("nothing was asked")?;
                let answer = http.read_response(false).map_err(told)?;
                if answer.status == 200 { Ok(()) } else { Err(format!("{}: {}", answer.status, answer.text())) }
            }
        }
    }
}
