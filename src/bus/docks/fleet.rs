//! The docks of all nodes: who they are, and what goes to them.
//!
//! A node asks each other node once, however many docks there are, and each node asks its docks at once. The answers of
//! docks are JSON, and stay the text that came.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join, join_all};
use rollbook_cluster::live::Live;
use rollbook_core::error::Refusal;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::order::{DockAnswer, DockAnswers, DockOp};
use super::table::{DockInfo, DockTable, Selection};
use crate::bus::relay::peer_client::PeerClient;

/// The name under which nodes ask each other for their docks.
pub const NAME: &str = "docks";
/// Longest wait for the list of docks of another node.
const LIST_MAX: Duration = Duration::from_secs(2);
/// Time that the way between nodes may take beyond that of the order.
const LINK: Duration = Duration::from_secs(1);
/// Most bytes of what the docks of one node answer to one order.
const ANSWERS_BYTES_MAX: usize = 12 * 1024 * 1024;

/// What a node asks another one.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FleetRequest {
    /// Its docks.
    List,
    /// What they answer to an order.
    Order { selection: Selection, op: DockOp, id: String, payload: Option<Box<RawValue>> },
}

/// What one dock of another node said.
#[derive(Debug, Serialize, Deserialize)]
struct DockReply {
    dock: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<Box<RawValue>>,
}

impl From<DockAnswer> for DockReply {
    fn from(answer: DockAnswer) -> Self {
        let DockAnswer { dock, result } = answer;
        match result.map(|bytes| raw(&bytes)) {
            Ok(Ok(answer)) => Self { dock, error: None, answer },
            Ok(Err(error)) => {
                Self { error: Some(format!("dock {dock} answered no JSON: {error}")), dock, answer: None }
            }
            Err(error) => Self { dock, error: Some(error), answer: None },
        }
    }
}

impl From<DockReply> for DockAnswer {
    fn from(said: DockReply) -> Self {
        let bytes = || said.answer.map(|answer| Bytes::from(answer.get().to_owned())).unwrap_or_default();
        Self { dock: said.dock, result: said.error.map_or_else(|| Ok(bytes()), Err) }
    }
}

/// JSON as it came; nothing for no bytes.
fn raw(bytes: &Bytes) -> serde_json::Result<Option<Box<RawValue>>> {
    if bytes.is_empty() { Ok(None) } else { serde_json::from_slice(bytes).map(Some) }
}

/// The docks of all nodes. Clones share the tables.
#[derive(Debug, Clone)]
pub struct Fleet {
    here: DockTable,
    /// The number of this node.
    node: u64,
    peers: PeerClient,
}

impl Fleet {
    /// The docks of the node of this number, and those of the others.
    #[must_use]
    pub fn new((here, node): (DockTable, u64), peers: PeerClient) -> Self {
        Self { here, node, peers }
    }

    /// The docks of this node.
    #[must_use]
    pub const fn here(&self) -> &DockTable {
        &self.here
    }

    /// All docks, by id, and the nodes that do not tell theirs.
    pub async fn infos(&self) -> (Vec<DockInfo>, Vec<u64>) {
        let asked = self.ask_others(&FleetRequest::List, LIST_MAX).await;
        let (mut infos, mut unanswered) = (self.here.infos(), Vec::new());
        for (node, answer) in asked {
            match read(node, answer) {
                Some(more) => infos.extend::<Vec<DockInfo>>(more),
                None => unanswered.push(node),
            }
        }
        infos.sort_by(|one, other| one.id.cmp(&other.id));
        infos.dedup_by(|one, other| one.id == other.id);
        (infos, unanswered)
    }

    /// Gives an order to the selected docks of all nodes at once, and waits for their answers. `payload` is JSON, or empty.
    pub async fn order(&self, selection: &Selection, (op, id): (DockOp, &str), payload: &Bytes) -> DockAnswers {
        let Ok(document) = raw(payload) else {
            tracing::error!(id, "an order for docks is no JSON");
            return DockAnswers { unanswered: vec![self.node], ..DockAnswers::default() };
        };
        let request = FleetRequest::Order { selection: selection.clone(), op, id: id.to_owned(), payload: document };
        let here = self.here.order(selection, (op, id), payload);
        let (answers, asked) = join(here, self.ask_others(&request, op.within().saturating_add(LINK))).await;
        let mut all = DockAnswers { answers, unanswered: Vec::new() };
        for (node, answer) in asked {
            match read::<Vec<DockReply>>(node, answer) {
                Some(more) => all.answers.extend(more.into_iter().map(DockAnswer::from)),
                None => all.unanswered.push(node),
            }
        }
        all
    }

    async fn ask_others(&self, request: &FleetRequest, within: Duration) -> Vec<(u64, Result<Bytes, Refusal>)> {
        let others = self.peers.others_up();
        if others.is_empty() {
            return Vec::new();
        }
        let Ok(request) = serde_json::to_vec(request) else { return Vec::new() };
        let request = Bytes::from(request);
        let ask = |node| {
            let asked = self.peers.ask_door(node, NAME, request.clone(), within);
            asked.map(move |answer| (node, answer))
        };
        join_all(others.into_iter().map(ask)).await
    }
}

/// What a node answered for its docks.
fn read<T: DeserializeOwned>(node: u64, answer: Result<Bytes, Refusal>) -> Option<T> {
    match answer.as_deref().map(serde_json::from_slice) {
        Ok(Ok(answer)) => return Some(answer),
        Ok(Err(error)) => tracing::warn!(node, %error, "what a node tells of its docks cannot be read"),
        Err(refusal) => tracing::warn!(node, %refusal, "a node does not answer for its docks"),
    }
    None
}

/// Answers other nodes for the docks of this one.
pub struct AnswerForDocks(pub DockTable);

impl Live for AnswerForDocks {
    fn hear(&self, from: u64, _: Bytes) {
        tracing::debug!(from, "a message for docks that wants no answer");
    }

    fn answer(&self, _: u64, message: Bytes) -> BoxFuture<'static, Result<Bytes, Refusal>> {
        let table = self.0.clone();
        async move {
            let request: FleetRequest = serde_json::from_slice(&message)
                .map_err(|error| Refusal::Malformed(format!("a request for docks: {error}")))?;
            let answer = match request {
                FleetRequest::List => serde_json::to_vec(&table.infos()),
                FleetRequest::Order { selection, op, id, payload } => {
                    let payload = payload.map(|text| Bytes::from(text.get().to_owned())).unwrap_or_default();
                    let answers = table.order(&selection, (op, &id), &payload).await;
                    serde_json::to_vec(&answers.into_iter().map(DockReply::from).collect::<Vec<_>>())
                }
            };
            let answer = answer.map_err(|error| Refusal::Malformed(error.to_string()))?;
            if answer.len() > ANSWERS_BYTES_MAX {
                let text = format!("the docks of the node answer {} bytes, at most {ANSWERS_BYTES_MAX}", answer.len());
                return Err(Refusal::Overloaded(text));
            }
            Ok(answer.into())
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_the_same_at_the_other_node() {
        for result in [Ok(Bytes::new()), Ok(Bytes::from_static(br#"{"id":"d1","list":[]}"#)), Err("no".to_owned())] {
            let answer = DockAnswer { dock: "d1".to_owned(), result };
            let text = serde_json::to_vec(&DockReply::from(answer.clone())).unwrap();
            assert_eq!(DockAnswer::from(serde_json::from_slice::<DockReply>(&text).unwrap()), answer);
        }
    }

    #[test]
    fn what_is_no_json_becomes_an_error_of_its_dock() {
        let answer = DockAnswer { dock: "d1".to_owned(), result: Ok(Bytes::from_static(b"oops")) };
        let said = DockAnswer::from(DockReply::from(answer));
        assert!(said.result.unwrap_err().starts_with("dock d1 answered no JSON"));
    }
}
