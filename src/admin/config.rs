//! `/api/config`: the central configuration, its history, and the way back.

#![expect(unused_qualifications, reason = "the macro that describes a handler writes them")]

use actix_web::http::header::{ContentType, ETAG};
use actix_web::{HttpRequest, HttpResponse, web};
use rollbook_core::central::{ConfigRevision, ConfigSet};
use rollbook_core::command::{Command, Done};
use rollbook_core::error::Refusal;
use rollbook_core::limits;
use rollbook_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::body::Object;
use super::common::{Answer, propose};
use super::page::List;
use super::preconditions::{etag, expected, is_known};
use super::problem::{Problem, Problems, resource};
use super::{Admin, body, page};

/// How often a merge is tried anew when others change the document at the same time.
const MERGES_MAX: u32 = 32;

pub(super) fn mount(services: &mut web::ServiceConfig) {
    let json = web::JsonConfig::default().limit(limits::CONFIG_BYTES_MAX).error_handler(body::unreadable);
    services
        .service(
            resource("/api/config", "GET, POST, PATCH")
                .app_data(json)
                .route(web::get().to(show))
                .route(web::post().to(replace))
                .route(web::patch().to(merge)),
        )
        .service(resource("/api/config/history", "GET").route(web::get().to(history)))
        .service(resource("/api/config/diff", "GET").route(web::get().to(diff)))
        .service(resource("/api/config/rollback", "POST").route(web::post().to(roll_back)));
}

fn wrong(detail: impl Into<String>) -> Problem {
    Problem::new(400, "bad_request", detail)
}

fn parse(of: &ConfigRevision) -> Result<Value, Problem> {
    serde_json::from_slice(of.text()).map_err(|error| Problem::storage(format!("config: {error}")))
}

/// A revision that is still there; the present one when none is named.
async fn find(admin: &Admin, revision: Option<u64>) -> Result<ConfigRevision, Problem> {
    let present = admin.bus.node().config();
    let Some(wanted) = revision.filter(|wanted| *wanted != present.revision) else { return Ok(present) };
    let node = admin.bus.node().clone();
    let found = admin.bus.read(move || node.config_revision(wanted)).await?;
    found.ok_or_else(|| Problem::new(404, "revision_not_found", format!("revision {wanted} is not in the history")))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ShowQuery {
    revision: Option<u64>,
    /// Seen by [`super::consistency`].
    #[serde(rename = "consistency")]
    _consistency: Option<String>,
}

#[utoipa::path(get, path = "/api/config", operation_id = "config_show", tag = "config", params(ShowQuery), responses((status = 200, description = "done", body = Object), (status = 304, description = "the caller has it"), Problems))]
pub(super) async fn show(admin: web::Data<Admin>, request: HttpRequest, query: web::Query<ShowQuery>) -> Answer {
    let found = find(&admin, query.revision).await?;
    if is_known(&request, found.revision) {
        return Ok(HttpResponse::NotModified().insert_header((ETAG, etag(found.revision))).finish());
    }
    Ok(stored(found.revision, found.text().to_vec()))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangeQuery {
    /// Why, for people.
    #[serde(default)]
    reason: String,
}

/// Stores a document and shows what it is then.
async fn set(admin: &Admin, document: Vec<u8>, if_revision: Option<u64>, reason: String) -> Result<u64, Problem> {
    let command = Command::ConfigSet(ConfigSet { document, if_revision, reason });
    match propose(admin, command).await? {
        Done::Config(revision) => Ok(revision),
        _ => Err(Problem::storage("no answer")),
    }
}

fn stored(revision: u64, document: Vec<u8>) -> HttpResponse {
    HttpResponse::Ok().insert_header(ContentType::json()).insert_header((ETAG, etag(revision))).body(document)
}

#[utoipa::path(post, path = "/api/config", operation_id = "config_replace", tag = "config", params(ChangeQuery), request_body = Object, responses((status = 200, description = "done", body = Object), Problems))]
pub(super) async fn replace(
    admin: web::Data<Admin>,
    request: HttpRequest,
    query: web::Query<ChangeQuery>,
    body: web::Json<Box<RawValue>>,
) -> Answer {
    let body = body.into_inner();
    // Stored as it came, and only if everybody can read it.
    let value: Value = serde_json::from_str(body.get()).map_err(|error| wrong(error.to_string()))?;
    if !value.is_object() {
        return Err(wrong("the configuration is an object"));
    }
    let document = body.get().as_bytes().to_vec();
    let revision = set(&admin, document.clone(), expected(&request)?, query.into_inner().reason).await?;
    Ok(stored(revision, document))
}

/// Merges the body into the document, as RFC 7396 says.
#[utoipa::path(patch, path = "/api/config", operation_id = "config_merge", tag = "config", params(ChangeQuery), request_body = Object, responses((status = 200, description = "done", body = Object), Problems))]
pub(super) async fn merge(
    admin: web::Data<Admin>,
    request: HttpRequest,
    query: web::Query<ChangeQuery>,
    patch: web::Json<Value>,
) -> Answer {
    let (expected, reason) = (expected(&request)?, query.into_inner().reason);
    if !patch.is_object() {
        return Err(wrong("the configuration is an object, and so is a merge patch for it"));
    }
    for _ in 0..MERGES_MAX {
        let present = admin.bus.node().config();
        let mut value = parse(&present)?;
        json_patch::merge(&mut value, &patch);
        let document = serde_json::to_vec(&value).map_err(|error| wrong(error.to_string()))?;
        let only_at = Some(expected.unwrap_or(present.revision));
        match set(&admin, document.clone(), only_at, reason.clone()).await {
            Ok(revision) => return Ok(stored(revision, document)),
            Err(problem) if expected.is_none() && problem.is(&Refusal::RevisionMismatch(String::new())) => {}
            Err(problem) => return Err(problem),
        }
    }
    Err(Refusal::Overloaded("others change the configuration all the time".to_owned()).into())
}

/// A revision of the configuration.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RevisionView {
    revision: u64,
    at: String,
    bytes: usize,
    reason: String,
}

#[utoipa::path(get, path = "/api/config/history", operation_id = "config_history", tag = "config", responses((status = 200, description = "done", body = List<RevisionView>), Problems))]
pub(super) async fn history(admin: web::Data<Admin>) -> Answer {
    let node = admin.bus.node().clone();
    let revisions = admin.bus.read(move || node.config_revisions()).await?;
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
pub(super) struct DiffQuery {
    from: Option<u64>,
    to: Option<u64>,
    #[serde(rename = "consistency")]
    _consistency: Option<String>,
}

/// What leads from one revision to another, as RFC 6902 says; from the one before the present one by default.
#[utoipa::path(get, path = "/api/config/diff", operation_id = "config_diff", tag = "config", params(DiffQuery), responses((status = 200, description = "done", body = Vec<Object>, content_type = "application/json-patch+json"), Problems))]
pub(super) async fn diff(admin: web::Data<Admin>, query: web::Query<DiffQuery>) -> Answer {
    let to = find(&admin, query.to).await?;
    let from = match query.from.unwrap_or(to.revision.saturating_sub(1)) {
        0 => ConfigRevision::default(),
        from => find(&admin, Some(from)).await?,
    };
    let patch = json_patch::diff(&parse(&from)?, &parse(&to)?);
    let body = serde_json::to_vec(&patch).map_err(|error| Problem::storage(error.to_string()))?;
    Ok(HttpResponse::Ok().insert_header(("content-type", "application/json-patch+json")).body(body))
}

/// Which revision becomes the newest.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BackJson {
    revision: u64,
}

/// An earlier document becomes the newest revision.
#[utoipa::path(post, path = "/api/config/rollback", operation_id = "config_roll_back", tag = "config", request_body = BackJson, responses((status = 200, description = "done", body = Object), Problems))]
pub(super) async fn roll_back(admin: web::Data<Admin>, request: HttpRequest, Object(body): Object<BackJson>) -> Answer {
    let found = find(&admin, Some(body.revision)).await?;
    let document = found.text().to_vec();
    let reason = format!("back to revision {}", found.revision);
    let revision = set(&admin, document.clone(), expected(&request)?, reason).await?;
    Ok(stored(revision, document))
}
