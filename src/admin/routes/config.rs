//! `/api/config`: the central configuration, its history, and the rollback.

#![expect(unused_qualifications, reason = "the macro that describes a handler writes them")]

use actix_web::http::header::{ContentType, ETAG};
use actix_web::{HttpRequest, HttpResponse, web};
use rollbook_core::central::{ConfigRevision, ConfigSet, PUBLIC};
use rollbook_core::command::{Command, Done};
use rollbook_core::error::Refusal;
use rollbook_core::limits;
use rollbook_core::security::right::Verb;
use rollbook_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use crate::admin::body::{Object, at_most};
use crate::admin::caller::identity;
use crate::admin::common::{Answer, propose};
use crate::admin::operation::{Need, Operation, get_for, write};
use crate::admin::page::List;
use crate::admin::preconditions::{Conditions, etag, is_known};
use crate::admin::problem::{Problem, Problems};
use crate::admin::query::{ConsistencyQuery, NoParameters, Query};
use crate::admin::resource::resource;
use crate::admin::{Admin, merge, page};

/// Most attempts of a merge when others change the document at the same time.
const MERGES_MAX: u32 = 32;

/// Reads the document without its secrets, which need another right.
const READ: Operation = get_for(Need::Right(Verb::ConfigRead, PUBLIC));
/// The operations of the document.
const CONFIG: [Operation; 3] = [
    READ,
    write("POST", "config.set", Verb::ConfigWrite, "config"),
    write("PATCH", "config.set", Verb::ConfigWrite, "config"),
];

pub(in crate::admin) fn mount(services: &mut web::ServiceConfig) {
    services
        .service(
            resource("/api/config", CONFIG)
                .app_data(at_most(limits::CONFIG_BYTES_MAX))
                .route(web::get().to(show))
                .route(web::post().to(replace))
                .route(web::patch().to(change)),
        )
        .service(resource("/api/config/history", [READ]).route(web::get().to(history)))
        .service(resource("/api/config/diff", [READ]).route(web::get().to(diff)))
        .service(
            resource("/api/config/rollback", [write("POST", "config.set", Verb::ConfigWrite, "config")])
                .route(web::post().to(roll_back)),
        );
}

/// The document of a revision.
fn parse(of: &ConfigRevision) -> Result<&RawValue, Problem> {
    serde_json::from_slice(of.text()).map_err(damaged)
}

fn damaged(error: serde_json::Error) -> Problem {
    Problem::storage(format!("config: {error}"))
}

/// The present revision: there is always a document, if an empty one.
fn present(admin: &Admin) -> Result<Option<u64>, Problem> {
    Ok(Some(admin.bus.node().state().config().revision))
}

/// Finds a revision that is still kept; the present one by default.
async fn find(admin: &Admin, revision: Option<u64>) -> Result<ConfigRevision, Problem> {
    let present = admin.bus.node().state().config();
    let Some(wanted) = revision.filter(|wanted| *wanted != present.revision) else { return Ok(present) };
    let node = admin.bus.node().clone();
    let found = admin.bus.read(move || node.state().config_revision(wanted)).await?;
    found.ok_or_else(|| Problem::new(404, "revision_not_found", format!("revision {wanted} is not in the history")))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct ShowQuery {
    /// An earlier revision; the present one by default.
    revision: Option<u64>,
    /// How fresh the answer is: `linearizable`, which is the default, `leader` or `stale`.
    #[serde(rename = "consistency")]
    _consistency: Option<String>,
}

/// The central configuration, `{}` before anybody has set it, or an earlier revision. The ETag is the revision.
#[utoipa::path(get, path = "/api/config", operation_id = "config_show", tag = "config", params(ShowQuery), responses((status = 200, description = "the document", body = Object), (status = 304, description = "the caller has it"), Problems))]
pub(in crate::admin) async fn show(
    admin: web::Data<Admin>,
    request: HttpRequest,
    Query(query): Query<ShowQuery>,
) -> Answer {
    let found = find(&admin, query.revision).await?;
    let tag = etag(found.revision);
    if is_known(&request, &tag) {
        return Ok(HttpResponse::NotModified().insert_header((ETAG, tag)).finish());
    }
    Ok(stored(found.revision, found.text().to_vec()))
}

/// A revision as the caller may see it.
fn shown(revision: ConfigRevision) -> ConfigRevision {
    ConfigRevision { document: identity().visible_config(revision.document), ..revision }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct ChangeQuery {
    /// Why, for people.
    #[serde(default)]
    reason: String,
}

/// Stores a document and returns its revision.
async fn set(admin: &Admin, document: Vec<u8>, if_revision: Option<u64>, reason: String) -> Result<u64, Problem> {
    let command = Command::ConfigSet(ConfigSet { document, if_revision, reason });
    match propose(admin, command).await? {
        Done::Config(revision) => Ok(revision),
        _ => Err(Problem::storage("no answer")),
    }
}

/// The answer with the document; without it for a caller that may write and not read.
fn stored(revision: u64, document: Vec<u8>) -> HttpResponse {
    if !identity().may(Verb::ConfigRead, PUBLIC) {
        return HttpResponse::NoContent().insert_header((ETAG, etag(revision))).finish();
    }
    let visible = identity().visible_config(document);
    HttpResponse::Ok().insert_header(ContentType::json()).insert_header((ETAG, etag(revision))).body(visible)
}

/// Replaces the document, which is stored as it came. With `If-Match` only if it is still the one with that ETag; 412
/// if others have changed it.
#[utoipa::path(post, path = "/api/config", operation_id = "config_replace", tag = "config", params(ChangeQuery, ("If-Match" = Option<String>, Header, description = "the ETag of a GET", example = "\"7\"")), request_body(content = Object, example = json!({ "level": "info" })), responses((status = 200, description = "the document as it is now", body = Object), Problems))]
pub(in crate::admin) async fn replace(
    admin: web::Data<Admin>,
    request: HttpRequest,
    Query(query): Query<ChangeQuery>,
    Object(body): Object<Box<RawValue>>,
) -> Answer {
    let document = body.get().as_bytes().to_vec();
    let expected = Conditions::of(&request)?.revision(&admin, || present(&admin)).await?;
    let revision = set(&admin, document.clone(), expected, query.reason).await?;
    Ok(stored(revision, document))
}

/// Merges the body into the document, as RFC 7396 says: `null` takes a member away. Numbers stay as they are written.
#[utoipa::path(patch, path = "/api/config", operation_id = "config_merge", tag = "config", params(ChangeQuery, ("If-Match" = Option<String>, Header, description = "the ETag of a GET", example = "\"7\"")), request_body(content = Object, example = json!({ "level": "debug" })), responses((status = 200, description = "the document as it is now", body = Object), Problems))]
pub(in crate::admin) async fn change(
    admin: web::Data<Admin>,
    request: HttpRequest,
    Query(query): Query<ChangeQuery>,
    Object(patch): Object<Box<RawValue>>,
) -> Answer {
    let expected = Conditions::of(&request)?.revision(&admin, || present(&admin)).await?;
    for _ in 0..MERGES_MAX {
        let present = admin.bus.node().state().config();
        let merged = merge::merge(parse(&present)?, &patch).map_err(damaged)?;
        let document = merged.get().as_bytes().to_vec();
        let only_at = Some(expected.unwrap_or(present.revision));
        match set(&admin, document.clone(), only_at, query.reason.clone()).await {
            Ok(revision) => return Ok(stored(revision, document)),
            Err(problem) if expected.is_none() && problem.is(&Refusal::RevisionMismatch(String::new())) => {}
            Err(problem) => return Err(problem),
        }
    }
    Err(Refusal::Overloaded("others change the configuration all the time".to_owned()).into())
}

/// A revision of the configuration.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct RevisionView {
    revision: u64,
    at: String,
    bytes: usize,
    reason: String,
}

/// The newest 100 revisions, newest first, without their documents. `GET /api/config?revision=N` has the document of one.
#[utoipa::path(get, path = "/api/config/history", operation_id = "config_history", tag = "config", params(ConsistencyQuery), responses((status = 200, description = "the revisions", body = List<RevisionView>), Problems))]
pub(in crate::admin) async fn history(admin: web::Data<Admin>, _: Query<ConsistencyQuery>) -> Answer {
    let node = admin.bus.node().clone();
    let revisions = admin.bus.read(move || node.state().config_revisions()).await?;
    let item = |of: &ConfigRevision| RevisionView {
        revision: of.revision,
        at: Timestamp::from_millis(of.millis).to_string(),
        bytes: of.document.len(),
        reason: of.reason.clone(),
    };
    Ok(page::whole(revisions.iter().rev().map(item).collect()))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct DiffQuery {
    /// A revision; the one before `to` by default, 0 for the empty document.
    from: Option<u64>,
    /// A revision; the present one by default.
    to: Option<u64>,
    /// How fresh the answer is: `linearizable`, which is the default, `leader` or `stale`.
    #[serde(rename = "consistency")]
    _consistency: Option<String>,
}

/// What leads from one revision to another, as RFC 6902 says; from the one before the present one by default. 404 for a
/// revision that is not kept.
#[utoipa::path(get, path = "/api/config/diff", operation_id = "config_diff", tag = "config", params(DiffQuery), responses((status = 200, description = "the steps", body = Vec<Object>, content_type = "application/json-patch+json"), Problems))]
pub(in crate::admin) async fn diff(admin: web::Data<Admin>, Query(query): Query<DiffQuery>) -> Answer {
    let to = find(&admin, query.to).await?;
    let from = match query.from.unwrap_or(to.revision.saturating_sub(1)) {
        0 => ConfigRevision::default(),
        from => find(&admin, Some(from)).await?,
    };
    let (from, to) = (shown(from), shown(to));
    let steps = merge::diff(parse(&from)?, parse(&to)?).map_err(damaged)?;
    let body = serde_json::to_vec(&steps).map_err(damaged)?;
    Ok(HttpResponse::Ok().insert_header(("content-type", "application/json-patch+json")).body(body))
}

/// Which revision becomes the newest.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct BackJson {
    /// One of the history.
    #[schema(example = 0)]
    revision: u64,
}

/// An earlier document becomes the newest revision; the history keeps all of them. Clients are told of it as of any other
/// change.
#[utoipa::path(post, path = "/api/config/rollback", operation_id = "config_roll_back", tag = "config", params(("If-Match" = Option<String>, Header, description = "the ETag of a GET", example = "\"7\"")), request_body = BackJson, responses((status = 200, description = "the document as it is now", body = Object), Problems))]
pub(in crate::admin) async fn roll_back(
    admin: web::Data<Admin>,
    request: HttpRequest,
    _: Query<NoParameters>,
    Object(body): Object<BackJson>,
) -> Answer {
    let found = find(&admin, Some(body.revision)).await?;
    let document = found.text().to_vec();
    let reason = format!("back to revision {}", found.revision);
    let expected = Conditions::of(&request)?.revision(&admin, || present(&admin)).await?;
    let revision = set(&admin, document.clone(), expected, reason).await?;
    Ok(stored(revision, document))
}
