//! What clients send.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rollbook_core::xbus::account::row::{AccountType, ActorKind, ActorStatus};
use rollbook_core::xbus::id::Id;
use rollbook_core::xbus::log::{LogLevel, LogLine};
use serde::Deserialize;

use super::value::{IdText, Number, Time, Word, Words};
use crate::bus::error::Fault;

/// The output of a body that names none.
const DEFAULT_OUTPUT: &str = "default";

/// Why a body is refused. The text goes to its sender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The body is not the JSON that is expected.
    #[error("{0}")]
    Json(String),
    /// An item is no base64.
    #[error("item {0} of an event with encoding binary is no base64")]
    Base64(usize),
    /// The event has an unknown encoding.
    #[error("unknown encoding of an event: leave it out, or write binary")]
    Encoding,
    /// Only jobs have outputs to close, or something to forward.
    #[error("context is missing")]
    NoContext,
}

impl From<BodyError> for Fault {
    fn from(error: BodyError) -> Self {
        Self::bad(error.to_string())
    }
}

/// A job, copied from what came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// The process.
    pub process: Id,
    /// Name of the node.
    pub node: String,
}

/// An event, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonEvent {
    /// Its id; `None` when the sender leaves the id to the server.
    pub id: Option<Id>,
    /// Its type.
    pub event_type: String,
    /// The number of the fragment of this event; `None` when the sender does not count.
    pub index: Option<u64>,
    /// Items of the whole event; 0: not known yet.
    pub count: u64,
    /// CRC-32C of id, type and all items; 0: not known yet.
    pub checksum: u32,
    /// The items.
    pub items: Vec<Vec<u8>>,
}

/// An envelope, or a fragment of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonEnvelope {
    /// Its id; `None` when the sender leaves the id to the server.
    pub id: Option<Id>,
    /// Ids of all events; empty: not known yet.
    pub event_ids: Vec<Id>,
    /// The events of this fragment.
    pub events: Vec<JsonEvent>,
    /// Whether nothing follows.
    pub last: bool,
}

/// What happens on an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputBody {
    /// A fragment comes.
    Send {
        /// Name of the output.
        output: String,
        /// Of a worker: its job.
        context: Option<Context>,
        /// The fragment.
        envelope: JsonEnvelope,
    },
    /// Nothing will come.
    Close {
        /// Name of the output.
        output: String,
        /// The job.
        context: Context,
    },
    /// The envelope that the job got goes out unchanged.
    Forward {
        /// Name of the output.
        output: String,
        /// The job.
        context: Context,
        /// That envelope.
        envelope: Id,
    },
}

/// The end of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndBody {
    /// The envelope that was processed, if the sender says so.
    pub envelope: Option<Id>,
    /// The job.
    pub context: Context,
    /// Whether it succeeded.
    pub success: bool,
    /// Why it failed.
    pub messages: Vec<LogLine>,
}

/// Something to log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogBody {
    /// The envelope that it is about, if any.
    pub envelope: Option<Id>,
    /// The job that it is about, if any.
    pub context: Option<Context>,
    /// The messages.
    pub messages: Vec<LogLine>,
}

/// An actor as a program registers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActorBody {
    /// Its name.
    pub name: String,
    /// What it does.
    pub kind: ActorKind,
    /// Its roles.
    pub roles: Vec<String>,
}

/// A registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrationBody {
    /// Name of the account.
    pub name: String,
    /// What the account is for.
    pub kind: AccountType,
    /// The certificate request, PEM.
    pub csr: String,
    /// Its actors.
    pub actors: Vec<ActorBody>,
}

impl Words for LogLevel {
    const WORDS: &'static [(&'static str, Self)] =
        &[("notice", Self::Notice), ("warning", Self::Warning), ("error", Self::Error)];
}

impl Words for AccountType {
    const WORDS: &'static [(&'static str, Self)] =
        &[("actor", Self::Actor), ("user", Self::User), ("gateway", Self::Gateway)];
}

impl Words for ActorKind {
    const WORDS: &'static [(&'static str, Self)] =
        &[("emitter", Self::Emitter), ("worker", Self::Worker), ("consumer", Self::Consumer)];
}

impl Words for ActorStatus {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("pending", Self::Pending),
        ("enabled", Self::Enabled),
        ("disabled", Self::Disabled),
        ("rejected", Self::Rejected),
    ];
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JobResult {
    Success,
    Error,
}

impl Words for JobResult {
    const WORDS: &'static [(&'static str, Self)] = &[("success", Self::Success), ("error", Self::Error)];
}

#[derive(Deserialize)]
struct RawContext {
    #[serde(alias = "processID", alias = "processId")]
    process_id: Option<IdText>,
    #[serde(alias = "nodeID", alias = "nodeId")]
    node_id: Option<String>,
}

#[derive(Deserialize)]
struct RawEvent {
    id: Option<IdText>,
    #[serde(rename = "type")]
    event_type: Option<String>,
    index: Option<Number>,
    #[serde(alias = "itemCount", alias = "item_count")]
    count: Option<Number>,
    checksum: Option<u32>,
    encoding: Option<String>,
    items: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct RawEnvelope {
    id: Option<IdText>,
    #[serde(alias = "eventIDs", alias = "eventIds")]
    event_ids: Option<Vec<IdText>>,
    events: Option<Vec<RawEvent>>,
    last: Option<bool>,
    context: Option<RawContext>,
}

/// A wrapper, or a bare envelope.
#[derive(Deserialize)]
struct RawOutput {
    envelope: Option<RawEnvelope>,
    output: Option<String>,
    close: Option<bool>,
    #[serde(flatten)]
    bare: RawEnvelope,
}

#[derive(Deserialize)]
struct RawLine {
    time: Option<Time>,
    level: Option<Word<LogLevel>>,
    #[serde(alias = "Text")]
    text: Option<String>,
}

#[derive(Deserialize)]
struct RawEnd {
    #[serde(alias = "envelopeID", alias = "envelopeId")]
    envelope_id: Option<IdText>,
    context: Option<RawContext>,
    #[serde(alias = "status")]
    result: Word<JobResult>,
    messages: Option<Vec<RawLine>>,
}

#[derive(Deserialize)]
struct RawLog {
    #[serde(alias = "envelopeID", alias = "envelopeId")]
    envelope_id: Option<IdText>,
    #[serde(alias = "Context")]
    context: Option<RawContext>,
    messages: Option<Vec<RawLine>>,
}

#[derive(Deserialize)]
struct RawActor {
    name: String,
    kind: Word<ActorKind>,
    roles: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct RawRegistration {
    name: String,
    #[serde(rename = "type")]
    kind: Word<AccountType>,
    csr: Option<String>,
    #[serde(alias = "actorList")]
    actor_list: Option<Vec<RawActor>>,
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, BodyError> {
    serde_json::from_slice(body).map_err(|error| BodyError::Json(error.to_string()))
}

impl OutputBody {
    /// Reads the body of an output: a wrapper, a closing, an envelope to forward, or a bare envelope.
    ///
    /// # Errors
    /// The body is none of these.
    pub fn read(body: &[u8]) -> Result<Self, BodyError> {
        Self::of(parse(body)?)
    }

    /// The same, where an envelope without an id that does not say whether it is the last fragment is whole.
    ///
    /// # Errors
    /// The body is none of these.
    pub fn read_whole(body: &[u8]) -> Result<Self, BodyError> {
        let mut raw: RawOutput = parse(body)?;
        let envelope = raw.envelope.as_mut().unwrap_or(&mut raw.bare);
        if envelope.id.is_none() && envelope.last.is_none() {
            envelope.last = Some(true);
        }
        Self::of(raw)
    }

    fn of(raw: RawOutput) -> Result<Self, BodyError> {
        let RawOutput { envelope, output, close, mut bare } = raw;
        let context = bare.context.take().and_then(RawContext::job);
        let output = output.filter(|output| !output.is_empty()).unwrap_or_else(|| DEFAULT_OUTPUT.to_owned());
        if envelope.is_none() && close == Some(true) {
            return Ok(Self::Close { output, context: context.ok_or(BodyError::NoContext)? });
        }
        let mut envelope = envelope.unwrap_or(bare);
        let context = context.or_else(|| envelope.context.take().and_then(RawContext::job));
        let envelope = envelope.checked()?;
        let is_bare = envelope.events.is_empty() && envelope.event_ids.is_empty() && envelope.last;
        match (envelope.id, context) {
            (Some(envelope), Some(context)) if is_bare => Ok(Self::Forward { output, context, envelope }),
            (_, context) => Ok(Self::Send { output, context, envelope }),
        }
    }
}

impl OutputBody {
    /// The same for another output.
    #[must_use]
    pub fn with_output(self, name: &str) -> Self {
        let output = name.to_owned();
        match self {
            Self::Send { context, envelope, .. } => Self::Send { output, context, envelope },
            Self::Close { context, .. } => Self::Close { output, context },
            Self::Forward { context, envelope, .. } => Self::Forward { output, context, envelope },
        }
    }
}

impl EndBody {
    /// Reads the end of a job.
    ///
    /// # Errors
    /// The body is none.
    pub fn read(body: &[u8]) -> Result<Self, BodyError> {
        let raw: RawEnd = parse(body)?;
        let context = raw.context.and_then(RawContext::job).ok_or(BodyError::NoContext)?;
        let (envelope, success) = (raw.envelope_id.map(|id| id.id), raw.result.0 == JobResult::Success);
        // The page has messages only when the result is error.
        let messages = if success { Vec::new() } else { lines(raw.messages) };
        Ok(Self { envelope, context, success, messages })
    }
}

impl LogBody {
    /// Reads something to log.
    ///
    /// # Errors
    /// The body is none.
    pub fn read(body: &[u8]) -> Result<Self, BodyError> {
        let raw: RawLog = parse(body)?;
        let (envelope, context) = (raw.envelope_id.map(|id| id.id), raw.context.and_then(RawContext::job));
        Ok(Self { envelope, context, messages: lines(raw.messages) })
    }
}

impl RegistrationBody {
    /// Reads a registration.
    ///
    /// # Errors
    /// The body is none.
    pub fn read(body: &[u8]) -> Result<Self, BodyError> {
        let raw: RawRegistration = parse(body)?;
        let actor =
            |raw: RawActor| ActorBody { name: raw.name, kind: raw.kind.0, roles: raw.roles.unwrap_or_default() };
        let actors = raw.actor_list.unwrap_or_default().into_iter().map(actor).collect();
        Ok(Self { name: raw.name, kind: raw.kind.0, csr: raw.csr.unwrap_or_default(), actors })
    }
}

impl RawContext {
    /// The job; `None` for the empty context of an emitter.
    fn job(self) -> Option<Context> {
        Some(Context { process: self.process_id?.id, node: self.node_id.unwrap_or_default() })
    }
}

impl RawEnvelope {
    fn checked(self) -> Result<JsonEnvelope, BodyError> {
        let is_base64 = self.id.is_some_and(|id| id.is_base64);
        let events = self.events.unwrap_or_default().into_iter();
        Ok(JsonEnvelope {
            id: self.id.map(|id| id.id),
            event_ids: self.event_ids.unwrap_or_default().into_iter().map(|id| id.id).collect(),
            events: events.map(|event| event.checked(is_base64)).collect::<Result<_, _>>()?,
            last: self.last.unwrap_or_default(),
        })
    }
}

impl RawEvent {
    fn checked(self, envelope_is_base64: bool) -> Result<JsonEvent, BodyError> {
        // A stock caller of nrpc writes all bytes in base64: ids and items.
        let binary = match self.encoding.as_deref() {
            Some("binary") => true,
            None | Some("") => self.id.map_or(envelope_is_base64, |id| id.is_base64),
            Some(_) => return Err(BodyError::Encoding),
        };
        let items = self.items.unwrap_or_default().into_iter().enumerate();
        let item = |(at, item): (usize, String)| {
            if binary { STANDARD.decode(item).map_err(|_| BodyError::Base64(at)) } else { Ok(item.into_bytes()) }
        };
        Ok(JsonEvent {
            id: self.id.map(|id| id.id),
            event_type: self.event_type.unwrap_or_default(),
            index: self.index.map(|index| index.0),
            count: self.count.unwrap_or_default().0,
            checksum: self.checksum.unwrap_or_default(),
            items: items.map(item).collect::<Result<_, _>>()?,
        })
    }
}

fn lines(raw: Option<Vec<RawLine>>) -> Vec<LogLine> {
    let line = |raw: RawLine| LogLine {
        millis: raw.time.unwrap_or_default().0,
        level: raw.level.map_or(LogLevel::Notice, |level| level.0).into(),
        text: raw.text.unwrap_or_default(),
    };
    raw.unwrap_or_default().into_iter().map(line).collect()
}
