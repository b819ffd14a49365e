//! The part of JetStream's API that publishers ask: which streams there are, which here are the namespaces of the book.
//!
//! What is not here answers with the error of a server that does not have it, so that a client hears at once what it
//! cannot do.

use rollbook_core::namespace::Head;
use rollbook_core::security::right::Verb;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api_error::ApiError;
use crate::bus::access::live::LiveClient;
use crate::bus::live::filter::LiveSubject;
use crate::bus::live::message::LiveMessage;

/// How all requests begin.
const PREFIX: &str = "$JS.API.";
/// How the types of answers begin.
const TYPE: &str = "io.nats.jetstream.api.v1.";
/// The code of JetStream for a stream that is not there.
const STREAM_NOT_FOUND: u32 = 10_059;
/// The code of JetStream for what a server does not have.
const NOT_SUPPORTED: u32 = 10_076;
/// A time that is not known, as Go writes it.
const UNKNOWN_TIME: &str = "0001-01-01T00:00:00Z";
/// Longest request that is read.
const REQUEST_BYTES_MAX: usize = 4096;
/// Most names in one answer.
const NAMES_MAX: usize = 1024;

/// What a client asks, if this is a request to JetStream's API.
pub(super) fn asked(subject: &str) -> Option<&str> {
    subject.strip_prefix(PREFIX)
}

/// Answers a request.
pub(super) fn answer(client: &mut LiveClient, asked: &str, request: &LiveMessage) {
    let Ok(reply) = LiveSubject::parse(request.reply.clone()) else { return };
    let filter = Filter::of(&request.payload);
    let answer = match asked.split('.').collect::<Vec<_>>().as_slice() {
        ["INFO"] => account(client),
        ["STREAM", "NAMES"] => names(client, &filter),
        ["STREAM", "LIST"] => list(client, &filter),
        ["STREAM", "INFO", name] => info(client, name),
        parts => error(&kind_of(parts), 503, NOT_SUPPORTED, "rollbook does not have this part of JetStream"),
    };
    client.answer(&reply, serde_json::to_vec(&answer).unwrap_or_default().into());
}

/// The type of the answer to a request that is not understood, as clients that look at types expect it.
fn kind_of(parts: &[&str]) -> String {
    let words: Vec<String> = parts.iter().take(2).map(|part| part.to_lowercase()).collect();
    format!("{}_response", words.join("_"))
}

fn error(kind: &str, code: u16, err_code: u32, description: &str) -> Value {
    json!({ "type": format!("{TYPE}{kind}"), "error": ApiError { code, err_code, description } })
}

/// Whether a client may know of a namespace.
fn may_see(client: &LiveClient, name: &str) -> bool {
    let identity = client.access().identity();
    let target = format!("namespaces/{name}");
    identity.may(Verb::AdminRead, &target) || identity.may_follow_live(&format!("{name}.>"))
}

fn visible(client: &LiveClient) -> Vec<Head> {
    let all = client.access().bus().node().state().namespaces();
    all.into_iter().filter(|head| !head.name.starts_with('_') && may_see(client, &head.name)).collect()
}

fn account(client: &LiveClient) -> Value {
    let streams = visible(client);
    let bytes: u64 = streams.iter().map(Head::bytes).sum();
    let none = json!({ "max_memory": -1, "max_storage": -1, "max_streams": -1, "max_consumers": 0 });
    json!({
        "type": format!("{TYPE}account_info_response"), "memory": 0, "storage": bytes, "streams": streams.len(),
        "consumers": 0, "limits": none, "api": { "total": 0, "errors": 0 },
    })
}

/// What a request for streams wants.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Filter {
    /// The first item.
    offset: usize,
    /// A subject, whose stream is wanted.
    subject: Option<String>,
}

impl Filter {
    /// Reads a request. One that is none wants everything.
    fn of(request: &[u8]) -> Self {
        if request.len() > REQUEST_BYTES_MAX {
            Self::default()
        } else {
            serde_json::from_slice(request).unwrap_or_default()
        }
    }

    /// Whether the request concerns this namespace.
    fn concerns(&self, name: &str) -> bool {
        self.subject.as_deref().is_none_or(|subject| subject.split('.').next() == Some(name))
    }
}

fn names(client: &LiveClient, filter: &Filter) -> Value {
    let all = visible(client).into_iter().map(|head| head.name).filter(|name| filter.concerns(name));
    let (all, offset): (Vec<String>, usize) = (all.collect(), filter.offset);
    let page: Vec<&String> = all.iter().skip(offset).take(NAMES_MAX).collect();
    json!({
        "type": format!("{TYPE}stream_names_response"), "total": all.len(), "offset": offset, "limit": NAMES_MAX,
        "streams": page,
    })
}

fn list(client: &LiveClient, filter: &Filter) -> Value {
    let (all, offset) = (visible(client), filter.offset);
    let page: Vec<Value> = all.iter().skip(offset).take(NAMES_MAX / 4).map(stream).collect();
    json!({
        "type": format!("{TYPE}stream_list_response"), "total": all.len(), "offset": offset, "limit": NAMES_MAX / 4,
        "streams": page,
    })
}

fn info(client: &LiveClient, name: &str) -> Value {
    let found = visible(client).into_iter().find(|head| head.name == name);
    match found {
        None => error("stream_info_response", 404, STREAM_NOT_FOUND, "stream not found"),
        Some(head) => {
            let mut stream = stream(&head);
            if let Some(members) = stream.as_object_mut() {
                members.insert("type".to_owned(), json!(format!("{TYPE}stream_info_response")));
            }
            stream
        }
    }
}

/// A namespace as a stream.
fn stream(head: &Head) -> Value {
    json!({
        "config": {
            "name": head.name, "subjects": [format!("{}.>", head.name)], "retention": "limits", "max_consumers": 0,
            "max_msgs": -1, "max_bytes": -1, "max_age": 0, "max_msgs_per_subject": -1, "max_msg_size": -1,
            "discard": "old", "storage": "file", "num_replicas": 1,
        },
        "created": UNKNOWN_TIME,
        "state": {
            "messages": head.events(), "bytes": head.bytes(), "first_seq": head.first,
            "last_seq": head.last(), "consumer_count": 0,
            "first_ts": UNKNOWN_TIME, "last_ts": UNKNOWN_TIME,
        },
    })
}
