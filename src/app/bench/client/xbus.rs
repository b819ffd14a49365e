//! The messages of Xbus that the load generator needs, as the published clients have them, and the accounts and
//! pipelines that a run needs.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use prost::Message as _;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use rollbook_core::xbus::envelope::part::checksum;
use rollbook_core::xbus::id::Id;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::http::{Connection, Target};

/// The account, and in front of the names of its actors.
const ACCOUNT: &str = "bench";
/// Tries to register, and the pause between them.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(50);
/// The version of the pipeline. One that was active is never saved again.
const VERSION: &str = "1";
/// The pipeline: an emitter, a worker and a consumer in a line.
const PIPELINE: &str = "nodes:
- {id: in, type: emitter, actorids: [bench.emitter]}
- {id: work, type: worker, actorids: [bench.worker]}
- {id: out, type: consumer, actorids: [bench.consumer]}
edges:
- in.default->work.default
- work.default->out.default
";

/// The type of all events.
const TYPE: &str = "bench";

/// An event, or a part of one.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in crate::app::bench) struct Event {
    #[prost(bytes = "vec", tag = "1")]
    pub(in crate::app::bench) id: Vec<u8>,
    #[prost(string, tag = "2")]
    pub(in crate::app::bench) event_type: String,
    #[prost(uint64, tag = "3")]
    pub(in crate::app::bench) index: u64,
    #[prost(uint64, tag = "4")]
    pub(in crate::app::bench) item_count: u64,
    #[prost(uint32, tag = "5")]
    pub(in crate::app::bench) checksum: u32,
    #[prost(bytes = "vec", repeated, tag = "6")]
    pub(in crate::app::bench) items: Vec<Vec<u8>>,
}

/// An envelope, or a fragment of one.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in crate::app::bench) struct Envelope {
    #[prost(bytes = "vec", tag = "1")]
    pub(in crate::app::bench) id: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub(in crate::app::bench) event_ids: Vec<Vec<u8>>,
    #[prost(message, repeated, tag = "4")]
    pub(in crate::app::bench) events: Vec<Event>,
    #[prost(bool, tag = "5")]
    pub(in crate::app::bench) last: bool,
}

/// A job. The fields are copied from the request to whatever is said about the job.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in crate::app::bench) struct Job {
    #[prost(bytes = "vec", tag = "1")]
    pub(in crate::app::bench) process: Vec<u8>,
    #[prost(string, tag = "2")]
    pub(in crate::app::bench) node: String,
}

/// A fragment for an output.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in crate::app::bench) struct Output {
    #[prost(message, optional, tag = "1")]
    pub(in crate::app::bench) context: Option<Job>,
    #[prost(string, tag = "2")]
    pub(in crate::app::bench) output: String,
    #[prost(message, optional, tag = "4")]
    pub(in crate::app::bench) envelope: Option<Envelope>,
}

/// What became of a fragment: 1 is received, 2 is accepted, 3 is in error.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in crate::app::bench) struct Acknowledgement {
    #[prost(int32, tag = "2")]
    pub(in crate::app::bench) status: i32,
    #[prost(string, tag = "3")]
    pub(in crate::app::bench) reason: String,
}

/// An input of a job.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in crate::app::bench) struct Input {
    #[prost(message, optional, tag = "3")]
    pub(in crate::app::bench) envelope: Option<Envelope>,
    #[prost(message, optional, tag = "4")]
    pub(in crate::app::bench) position: Option<Position>,
}

/// How far an envelope is covered.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in crate::app::bench) struct Position {
    #[prost(bytes = "vec", tag = "1")]
    pub(in crate::app::bench) envelope: Vec<u8>,
    #[prost(bool, tag = "2")]
    pub(in crate::app::bench) start: bool,
    #[prost(bool, tag = "3")]
    pub(in crate::app::bench) complete: bool,
}

/// A fragment of an envelope that was asked for.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in crate::app::bench) struct Fragment {
    #[prost(message, optional, tag = "1")]
    pub(in crate::app::bench) fragment: Option<Envelope>,
    #[prost(message, optional, tag = "2")]
    pub(in crate::app::bench) position: Option<Position>,
}

/// A request of a job.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in crate::app::bench) struct Request {
    #[prost(message, optional, tag = "1")]
    pub(in crate::app::bench) context: Option<Job>,
    #[prost(message, repeated, tag = "2")]
    pub(in crate::app::bench) inputs: Vec<Input>,
}

/// How far a job is: 2 is its end.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in crate::app::bench) struct State {
    #[prost(message, optional, tag = "2")]
    pub(in crate::app::bench) context: Option<Job>,
    #[prost(int32, tag = "3")]
    pub(in crate::app::bench) status: i32,
}

/// What became of an envelope: 4 is done, 5 is in error.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(in crate::app::bench) struct Outcome {
    #[prost(int32, tag = "1")]
    pub(in crate::app::bench) status: i32,
}

/// The end of a stream of one message.
pub(in crate::app::bench) const END_OF_STREAM: [u8; 5] = [0, 8, 3, 24, 1];

/// A new id.
pub(in crate::app::bench) fn new_id() -> Id {
    Id::new(uuid::Uuid::new_v4().into_bytes())
}

/// An envelope with one event that has one item.
pub(in crate::app::bench) fn envelope(id: Id, item: Vec<u8>) -> Envelope {
    let (event_id, items, event_type) = (new_id(), vec![item], TYPE.to_owned());
    let checksum = checksum(event_id, TYPE, items.iter().map(Vec::as_slice));
    let event = Event { id: event_id.to_vec(), event_type, index: 1, item_count: 1, checksum, items };
    Envelope { id: id.to_vec(), event_ids: vec![event_id.to_vec()], events: vec![event], last: false }
}

/// An envelope with one event of so many items, in fragments of one item each.
pub(in crate::app::bench) fn fragments(id: Id, item: &[u8], count: u64) -> impl Iterator<Item = Envelope> + use<> {
    let (event_id, item) = (new_id(), item.to_vec());
    let sum = checksum(event_id, TYPE, (0..count).map(|_| item.as_slice()));
    (1..=count).map(move |index| {
        let (item_count, checksum) = if index == count { (count, sum) } else { (0, 0) };
        let event_ids = if index == count { vec![event_id.to_vec()] } else { Vec::new() };
        let (event_type, items) = (TYPE.to_owned(), vec![item.clone()]);
        let event = Event { id: event_id.to_vec(), event_type, index, item_count, checksum, items };
        Envelope { id: id.to_vec(), event_ids, events: vec![event], last: false }
    })
}

/// The request that forwards an envelope unchanged.
pub(in crate::app::bench) fn forward(context: Job, id: Vec<u8>) -> Vec<u8> {
    output(Some(context), Envelope { id, last: true, ..Envelope::default() })
}

/// The fragment for an output.
pub(in crate::app::bench) fn output(context: Option<Job>, envelope: Envelope) -> Vec<u8> {
    Output { context, output: "default".to_owned(), envelope: Some(envelope) }.encode_to_vec()
}

/// The ids of the account and its actors.
#[derive(Debug, Clone)]
pub(in crate::app::bench) struct Actors {
    /// The account.
    pub(in crate::app::bench) account: String,
    /// The emitter.
    pub(in crate::app::bench) emitter: String,
    /// The worker.
    pub(in crate::app::bench) worker: String,
    /// The consumer.
    pub(in crate::app::bench) consumer: String,
}

async fn ask(web: &Target, method: &str, path: &str, body: &str) -> Result<(u16, Value)> {
    let mut connection = Connection::open(web).await?;
    let head = web.head(method, &format!("/api/xbus/{path}"), body.len());
    let reply = connection.ask(format!("{head}{body}").as_bytes()).await?;
    let status = reply.status;
    Ok((status, serde_json::from_slice(&reply.body).unwrap_or(Value::Null)))
}

async fn done(web: &Target, method: &str, path: &str, body: &str) -> Result<Value> {
    let (status, answer) = ask(web, method, path, body).await?;
    ensure!((200..300).contains(&status), "{method} /api/xbus/{path}: {status} {answer}");
    Ok(answer)
}

fn id(of: &Value) -> Result<String> {
    of.get("id").and_then(Value::as_str).map(str::to_owned).context("an answer without an id")
}

/// Makes the account, its actors and the pipeline, unless they are there.
///
/// # Errors
/// The server cannot be reached, or does not let the caller.
pub(in crate::app::bench) async fn set_up(web: &Target) -> Result<Actors> {
    let actor = |kind: &str| json!({ "name": format!("{ACCOUNT}.{kind}"), "kind": kind });
    if ask(web, "GET", &format!("accounts/{ACCOUNT}"), "").await?.0 == 404 {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, ACCOUNT);
        let csr = params.serialize_request(&key)?.pem()?;
        let actors = [actor("emitter"), actor("worker"), actor("consumer")];
        let body = json!({ "name": ACCOUNT, "type": "actor", "csr": csr, "actors": actors });
        let mut tries = 0;
        // The feature level of a new cluster is raised a moment after its start.
        while let Err(error) = done(web, "POST", "accounts", &body.to_string()).await {
            tries += 1;
            ensure!(tries < TRIES, "{error:#}");
            sleep(PAUSE).await;
        }
        params.subject_alt_names = vec![SanType::URI(format!("xbus-account:{ACCOUNT}").as_str().try_into()?)];
        // Nobody connects with this certificate: the load is for a bus without security.
        let certificate = json!({ "certificate": params.self_signed(&key)?.pem() });
        done(web, "POST", &format!("accounts/{ACCOUNT}/accept"), &certificate.to_string()).await?;
        for kind in ["emitter", "worker", "consumer"] {
            done(web, "POST", &format!("actors/{ACCOUNT}.{kind}/accept"), "{}").await?;
        }
        let version = format!("pipelines/{ACCOUNT}/{VERSION}");
        done(web, "PUT", &version, PIPELINE).await?;
        done(web, "POST", &format!("{version}/status"), r#"{"status":"active"}"#).await?;
    }
    let account = id(&done(web, "GET", &format!("accounts/{ACCOUNT}"), "").await?)?;
    let of = async |kind: &str| id(&done(web, "GET", &format!("actors/{ACCOUNT}.{kind}"), "").await?);
    Ok(Actors { account, emitter: of("emitter").await?, worker: of("worker").await?, consumer: of("consumer").await? })
}
