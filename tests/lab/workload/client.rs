//! What all clients do alike: connections that are kept, and what an answer means.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;

use super::{BRIEF, BRIEF_AGE, BULK, BULK_BYTES, DAY, namespace};
use crate::cluster::Cluster;
use crate::harness::http::{Http, Response};
use crate::history::{Log, Phase};

/// A client gives up after this and does not know what happened.
pub(super) const PATIENCE: Duration = Duration::from_millis(1200);

/// Connections to several addresses, opened when they are needed.
#[derive(Default)]
pub(super) struct Client {
    links: BTreeMap<SocketAddr, Http>,
    /// None: [`PATIENCE`].
    patience: Option<Duration>,
}

/// What came back.
pub(super) enum Answer {
    Said(Response),
    /// There was no connection, so nothing was asked.
    NotAsked,
    /// The connection broke, or nothing came in time.
    Lost,
}

/// A request.
#[derive(Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    pub(super) body: &'a str,
}

impl Client {
    /// One that waits for so long.
    pub(super) fn patient(patience: Duration) -> Self {
        Self { patience: Some(patience), ..Self::default() }
    }

    /// Asks once. A connection whose answer did not come is not used again.
    pub(super) fn ask(&mut self, address: SocketAddr, ask: Ask<'_>) -> Answer {
        let patience = self.patience.unwrap_or(PATIENCE);
        let link = self.links.remove(&address).map_or_else(|| Http::connect_within(address, patience), Ok);
        let Ok(mut link) = link else { return Answer::NotAsked };
        let headers = [("Content-Type", "application/json")];
        match link.try_request(ask.method, ask.target, &headers, ask.body.as_bytes()) {
            Ok(answer) => {
                self.links.insert(address, link);
                Answer::Said(answer)
            }
            Err(_) => Answer::Lost,
        }
    }
}

impl Answer {
    /// What became of the request, when that status means that it was done.
    pub(super) fn phase(&self, done: u16) -> Phase {
        match self {
            Self::Said(answer) if answer.status == done => Phase::Ok,
            Self::Said(answer) if answer.status == 503 && unknown(&answer.text()) => Phase::Unknown,
            Self::Said(_) | Self::NotAsked => Phase::Fail,
            Self::Lost => Phase::Unknown,
        }
    }

    pub(super) const fn response(&self) -> Option<&Response> {
        match self {
            Self::Said(answer) => Some(answer),
            Self::NotAsked | Self::Lost => None,
        }
    }
}

/// The text of the event log, the code of REST.
pub(super) fn unknown(text: &str) -> bool {
    text.contains("outcome unknown") || text.contains("outcome_unknown")
}

/// The namespaces exist before the first consumer comes.
pub(super) fn create_namespaces(cluster: &Cluster) {
    let kept = |age: &str| json!({ "max_age": age });
    let others = [
        (namespace(Log::Lab), json!({})),
        (namespace(Log::Work), json!({})),
        (namespace(Log::Burst), json!({})),
        (namespace(Log::Aged), kept(DAY)),
        (BRIEF, kept(&format!("{}s", BRIEF_AGE.as_secs()))),
        // Written to need a snapshot, read by nobody: it must not fill the disk of a long run.
        (BULK, json!({ "max_bytes": BULK_BYTES })),
    ];
    for (name, retention) in others {
        cluster.insist("POST", "/api/namespaces", &json!({ "name": name, "retention": retention }));
    }
}
