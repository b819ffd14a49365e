//! The control API in JSON: bodies become the messages of protobuf, and messages become answers.
//!
//! The specification page does not have this API. Names and words are those that it uses elsewhere.

use rollbook_core::time::Timestamp as Time3339;
use rollbook_core::xbus::account::row::{AccountStatus, AccountType, ActorKind, ActorStatus, RequestOrigin};
use rollbook_core::xbus::id::Id;
use rollbook_core::xbus::pipeline::version::PipelineStatus;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::proto::account::{Account, Actor};
use super::super::proto::control::{
    AccountIDRequest, AccountListReply, AccountListRequest, AccountUpdateRequest, ActorReply, ActorRequest,
    PipelineQueryReply, PipelineQueryRequest, PipelineSaveReply, PipelineSaveRequest, PipelineSetStatusReply,
};
use super::super::proto::log::{ConfigEntry, StringReply, Timestamp};
use super::super::proto::process::PipelineInfo;
use crate::bus::xbus::envelopes::json::body::BodyError;
use crate::bus::xbus::envelopes::json::value::{IdText, Time, Word, Words, word};

impl Words for PipelineStatus {
    const WORDS: &'static [(&'static str, Self)] =
        &[("draft", Self::Draft), ("active", Self::Active), ("inactive", Self::Inactive)];
}

impl Words for RequestOrigin {
    const WORDS: &'static [(&'static str, Self)] = &[("anonymous", Self::Anonymous), ("authaccount", Self::Account)];
}

/// A message that is read from JSON.
pub trait FromJson: Sized {
    /// Reads a body.
    ///
    /// # Errors
    /// The body is none.
    fn from_json(body: &[u8]) -> Result<Self, BodyError>;
}

/// A message that is written as JSON.
pub trait ToJson {
    /// The members of the answer, beside its status.
    fn members(&self) -> Value;

    /// The answer.
    fn to_json(&self) -> String {
        let mut answer = Map::new();
        answer.insert("status".to_owned(), "success".into());
        if let Value::Object(members) = self.members() {
            answer.extend(members);
        }
        Value::Object(answer).to_string()
    }
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, BodyError> {
    serde_json::from_slice(body).map_err(|error| BodyError::Json(error.to_string()))
}

/// What comes without a body asks for nothing in particular.
fn parse_or_default<'a, T: Deserialize<'a> + Default>(body: &'a [u8]) -> Result<T, BodyError> {
    if body.is_empty() { Ok(T::default()) } else { parse(body) }
}

fn bytes(id: Option<IdText>) -> Vec<u8> {
    id.map(|id| id.id.to_vec()).unwrap_or_default()
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawAccount {
    id: Option<IdText>,
    name: String,
    status: Option<Word<AccountStatus>>,
    #[serde(alias = "apiKey")]
    api_key: String,
}

#[derive(Deserialize)]
struct RawAccountUpdate {
    account: RawAccount,
    expire: Option<Time>,
}

#[derive(Deserialize)]
struct RawAccountId {
    #[serde(alias = "accountID", alias = "accountId")]
    account_id: IdText,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawEntry {
    key: String,
    value: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawActor {
    id: Option<IdText>,
    name: String,
    kind: Option<Word<ActorKind>>,
    status: Option<Word<ActorStatus>>,
    #[serde(alias = "accountID", alias = "accountId")]
    account_id: Option<IdText>,
    roles: Vec<String>,
    config: Vec<RawEntry>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawActors {
    #[serde(alias = "actorList")]
    actor_list: Vec<RawActor>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawInfo {
    id: Option<IdText>,
    name: String,
    version: String,
    status: Option<Word<PipelineStatus>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawQuery {
    name: String,
}

#[derive(Deserialize)]
struct RawSave {
    info: RawInfo,
    graph: String,
}

impl From<RawInfo> for PipelineInfo {
    fn from(raw: RawInfo) -> Self {
        let status = raw.status.map_or(PipelineStatus::Draft, |status| status.0).into();
        Self { id: bytes(raw.id), name: raw.name, version: raw.version, status }
    }
}

impl FromJson for AccountListRequest {
    fn from_json(_: &[u8]) -> Result<Self, BodyError> {
        Ok(Self {})
    }
}

impl FromJson for AccountUpdateRequest {
    fn from_json(body: &[u8]) -> Result<Self, BodyError> {
        let RawAccountUpdate { account, expire } = parse(body)?;
        let status = account.status.map_or(AccountStatus::NoStatus, |status| status.0).into();
        let account = Account {
            id: bytes(account.id),
            name: account.name,
            status,
            api_key: account.api_key,
            ..Account::default()
        };
        Ok(Self { account: Some(account), expire: expire.map(|time| Timestamp::from_millis(time.0)) })
    }
}

impl FromJson for AccountIDRequest {
    fn from_json(body: &[u8]) -> Result<Self, BodyError> {
        let RawAccountId { account_id } = parse(body)?;
        Ok(Self { account_id: account_id.id.to_vec() })
    }
}

impl FromJson for ActorRequest {
    fn from_json(body: &[u8]) -> Result<Self, BodyError> {
        let raw: RawActors = parse_or_default(body)?;
        let entry = |entry: RawEntry| ConfigEntry { key: entry.key, value: entry.value };
        let actor = |raw: RawActor| Actor {
            id: bytes(raw.id),
            name: raw.name,
            kind: raw.kind.map_or(ActorKind::Consumer, |kind| kind.0).into(),
            status: raw.status.map_or(ActorStatus::Pending, |status| status.0).into(),
            account_id: bytes(raw.account_id),
            roles: raw.roles,
            config: raw.config.into_iter().map(entry).collect(),
            ..Actor::default()
        };
        Ok(Self { actor_list: raw.actor_list.into_iter().map(actor).collect() })
    }
}

impl FromJson for PipelineQueryRequest {
    fn from_json(body: &[u8]) -> Result<Self, BodyError> {
        let RawQuery { name } = parse_or_default(body)?;
        Ok(Self { name })
    }
}

impl FromJson for PipelineSaveRequest {
    fn from_json(body: &[u8]) -> Result<Self, BodyError> {
        let RawSave { info, graph } = parse(body)?;
        Ok(Self { info: Some(info.into()), graph })
    }
}

impl FromJson for PipelineInfo {
    fn from_json(body: &[u8]) -> Result<Self, BodyError> {
        parse::<RawInfo>(body).map(Self::from)
    }
}

/// An id; null when there is none.
fn id(bytes: &[u8]) -> Value {
    Id::from_slice(bytes).map_or(Value::Null, |id| id.to_string().into())
}

fn account(account: &Account) -> Value {
    let kind = AccountType::try_from(account.kind).unwrap_or(AccountType::NoType);
    let status = AccountStatus::try_from(account.status).unwrap_or(AccountStatus::NoStatus);
    let origin = RequestOrigin::try_from(account.csr_origin).unwrap_or(RequestOrigin::Anonymous);
    let mut told = json!({
        "id": id(&account.id), "name": account.name, "type": word(kind), "status": word(status),
        "csr_origin": word(origin),
    });
    if let Some(told) = told.as_object_mut() {
        for (key, text) in [("csr", &account.csr), ("cert", &account.cert), ("api_key", &account.api_key)] {
            if !text.is_empty() {
                told.insert(key.to_owned(), text.as_str().into());
            }
        }
    }
    told
}

fn actor(actor: &Actor) -> Value {
    let kind = ActorKind::try_from(actor.kind).unwrap_or(ActorKind::Consumer);
    let status = ActorStatus::try_from(actor.status).unwrap_or(ActorStatus::Pending);
    let seen = actor.last_seen.map(|seen| Time3339::from_millis(seen.millis()).to_string());
    let config: Vec<Value> =
        actor.config.iter().map(|entry| json!({ "key": entry.key, "value": entry.value })).collect();
    json!({
        "id": id(&actor.id), "name": actor.name, "kind": word(kind), "status": word(status),
        "account_id": id(&actor.account_id), "roles": actor.roles, "visible": true, "online": actor.online,
        "last_seen": seen, "config": config,
    })
}

fn info(info: Option<&PipelineInfo>) -> Value {
    let Some(info) = info else { return Value::Null };
    let status = PipelineStatus::try_from(info.status).unwrap_or(PipelineStatus::Draft);
    json!({ "id": id(&info.id), "name": info.name, "version": info.version, "status": word(status) })
}

impl ToJson for Account {
    fn members(&self) -> Value {
        json!({ "account": account(self) })
    }
}

impl ToJson for AccountListReply {
    fn members(&self) -> Value {
        json!({ "account_list": self.account_list.iter().map(account).collect::<Value>() })
    }
}

impl ToJson for ActorReply {
    fn members(&self) -> Value {
        json!({ "actor_list": self.actor_list.iter().map(actor).collect::<Value>() })
    }
}

impl ToJson for PipelineQueryReply {
    fn members(&self) -> Value {
        json!({ "pipeline_list": self.pipeline_list.iter().map(|one| info(Some(one))).collect::<Value>() })
    }
}

impl ToJson for PipelineSaveReply {
    fn members(&self) -> Value {
        json!({
            "info": info(self.info.as_ref()), "graph": self.graph, "is_valid": self.is_valid,
            "validation_messages": self.validation_messages,
        })
    }
}

impl ToJson for PipelineSetStatusReply {
    fn members(&self) -> Value {
        json!({
            "info": info(self.info.as_ref()), "is_valid": self.is_valid,
            "validation_messages": self.validation_messages,
        })
    }
}

impl ToJson for StringReply {
    fn members(&self) -> Value {
        json!({ "value": self.value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "53131466-4e2e-11e7-916e-af2b1e6d242d";

    #[test]
    fn an_account_is_accepted_with_words_of_either_dialect() {
        let update = |body: &Value| AccountUpdateRequest::from_json(body.to_string().as_bytes()).unwrap();
        let wanted = Account { id: ID.parse::<Id>().unwrap().to_vec(), status: 2, ..Account::default() };
        for status in ["enabled", "ENABLED"] {
            let read = update(&json!({"account": {"id": ID, "status": status}, "expire": "2030-01-01T00:00:00Z"}));
            assert_eq!(read.account, Some(wanted.clone()));
            assert_eq!(read.expire.map(|time| time.millis()), Some(1_893_456_000_000));
        }
        assert!(AccountIDRequest::from_json(b"{}").is_err());
        let read = AccountIDRequest::from_json(format!(r#"{{"accountID":"{ID}"}}"#).as_bytes()).unwrap();
        assert_eq!(read.account_id, wanted.id);
    }

    #[test]
    fn answers_say_success_beside_what_was_asked_for() {
        let row = Actor { id: vec![1; 16], name: "a".into(), kind: 2, status: 1, ..Actor::default() };
        let answer: Value = serde_json::from_str(&ActorReply { actor_list: vec![row] }.to_json()).unwrap();
        assert_eq!((&answer["status"], &answer["actor_list"][0]["kind"]), (&json!("success"), &json!("worker")));
        let account = Account { kind: 1, status: 1, api_key: "k".into(), ..Account::default() };
        let answer: Value = serde_json::from_str(&account.to_json()).unwrap();
        assert_eq!((&answer["account"]["status"], &answer["account"]["api_key"]), (&json!("pending"), &json!("k")));
        let answer: Value = serde_json::from_str(&StringReply { value: "x".into() }.to_json()).unwrap();
        assert_eq!(answer, json!({"status": "success", "value": "x"}));
    }

    #[test]
    fn actors_and_pipelines_are_named_by_what_is_known_of_them() {
        assert_eq!(ActorRequest::from_json(b"").unwrap().actor_list.len(), 0);
        let body = json!({"actorList": [{"name": "a", "kind": "WORKER", "status": "enabled", "config": [{"key": "k", "value": "v"}]}]});
        let read = ActorRequest::from_json(body.to_string().as_bytes()).unwrap().actor_list.remove(0);
        assert_eq!((read.kind, read.status, read.config[0].key.as_str()), (2, 1, "k"));
        let body = json!({"name": "p", "version": "1", "status": "active"});
        let read = PipelineInfo::from_json(body.to_string().as_bytes()).unwrap();
        assert_eq!((read.name.as_str(), read.version.as_str(), read.status), ("p", "1", 1));
    }
}
