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
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::order::{DockAnswer, DockOp};
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
enum Question {
    /// Its docks.
    List,
    /// What they answer to an order.
    Order { selection: Selection, op: DockOp, id: String, payload: Option<Box<RawValue>> },
}

/// What one dock of another node said.
#[derive(Debug, Serialize, Deserialize)]
struct Said {
    dock: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<Box<RawValue>>,
}

impl From<DockAnswer> for Said {
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

impl From<Said> for DockAnswer {
    fn from(said: Said) -> Self {
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
    peers: PeerClient,
}

impl Fleet {
    /// The docks of this node, and those of the others.
    #[must_use]
    pub const fn new(here: DockTable, peers: PeerClient) -> Self {
        Self { here, peers }
    }

    /// The docks of this node.
    #[must_use]
    pub const fn here(&self) -> &DockTable {
        &self.here
    }

    /// All docks, by id. The docks of a node that does not answer are left out.
    pub async fn infos(&self) -> Vec<DockInfo> {
        let asked = self.ask_others(&Question::List, LIST_MAX).await;
        let mut infos = self.here.infos();
        for (node, answer) in asked {
            match answer.as_deref().map(serde_json::from_slice::<Vec<DockInfo>>) {
                Ok(Ok(more)) => infos.extend(more),
                Ok(Err(error)) => tracing::warn!(node, %error, "the docks of a node cannot be read"),
                Err(refusal) => tracing::warn!(node, %refusal, "a node does not tell its docks"),
            }
        }
        infos.sort_by(|one, other| one.id.cmp(&other.id));
        infos.dedup_by(|one, other| one.id == other.id);
        infos
    }

    /// Gives an order to the selected docks of all nodes at once, and waits for their answers. A node that does not answer
    /// is an answer with an error, unless `op` only asks.
    pub async fn order(&self, selection: &Selection, (op, id): (DockOp, &str), payload: &Bytes) -> Vec<DockAnswer> {
        let Ok(document) = raw(payload) else { return Vec::new() };
        let question = Question::Order { selection: selection.clone(), op, id: id.to_owned(), payload: document };
        let here = self.here.order(selection, (op, id), payload);
        let (mut answers, asked) = join(here, self.ask_others(&question, op.within().saturating_add(LINK))).await;
        for (node, answer) in asked {
            match answer.as_deref().map(serde_json::from_slice::<Vec<Said>>) {
                Ok(Ok(more)) => answers.extend(more.into_iter().map(DockAnswer::from)),
                Ok(Err(error)) => answers.push(lost(node, &error.to_string())),
                Err(refusal) => answers.push(lost(node, &refusal.to_string())),
            }
        }
        answers
    }

    async fn ask_others(&self, question: &Question, within: Duration) -> Vec<(u64, Result<Bytes, Refusal>)> {
        let others = self.peers.others_up();
        if others.is_empty() {
            return Vec::new();
        }
        let Ok(question) = serde_json::to_vec(question) else { return Vec::new() };
        let question = Bytes::from(question);
        let ask = |node| {
            let asked = self.peers.ask_door(node, NAME, question.clone(), within);
            asked.map(move |answer| (node, answer))
        };
        join_all(others.into_iter().map(ask)).await
    }
}

/// The answer for the docks of a node that did not answer. They have no ids, because only their node knows these.
fn lost(node: u64, why: &str) -> DockAnswer {
    DockAnswer { dock: String::new(), result: Err(format!("the docks of node {node} cannot be asked: {why}")) }
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
            let question: Question = serde_json::from_slice(&message)
                .map_err(|error| Refusal::Malformed(format!("a question for docks: {error}")))?;
            let answer = match question {
                Question::List => serde_json::to_vec(&table.infos()),
                Question::Order { selection, op, id, payload } => {
                    let payload = payload.map(|text| Bytes::from(text.get().to_owned())).unwrap_or_default();
                    let answers = table.order(&selection, (op, &id), &payload).await;
                    serde_json::to_vec(&answers.into_iter().map(Said::from).collect::<Vec<_>>())
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
            let text = serde_json::to_vec(&Said::from(answer.clone())).unwrap();
            assert_eq!(DockAnswer::from(serde_json::from_slice::<Said>(&text).unwrap()), answer);
        }
    }

    #[test]
    fn what_is_no_json_becomes_an_error_of_its_dock() {
        let answer = DockAnswer { dock: "d1".to_owned(), result: Ok(Bytes::from_static(b"oops")) };
        let said = DockAnswer::from(Said::from(answer));
        assert!(said.result.unwrap_err().starts_with("dock d1 answered no JSON"));
    }
}
