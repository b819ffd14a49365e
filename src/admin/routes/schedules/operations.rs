//! `/api/schedules`: the handlers.

#![expect(unused_qualifications, reason = "the macro that describes a handler writes them")]

use std::sync::Arc;

use actix_web::http::header::{ContentType, ETAG};
use actix_web::{HttpRequest, HttpResponse, web};
use rollbook_core::error::Refusal;
use rollbook_core::schedule::row::ScheduleRow;
use rollbook_core::security::right::Verb;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::view::{ScheduleJson, ScheduleView};
use crate::admin::Admin;
use crate::admin::body::{Object, at_most};
use crate::admin::caller;
use crate::admin::common::Answer;
use crate::admin::merge;
use crate::admin::operation::{get, write};
use crate::admin::page::{List, Page};
use crate::admin::preconditions::{Conditions, etag_of, is_known};
use crate::admin::problem::{Problem, Problems};
use crate::admin::query::{ConsistencyQuery, NoParameters, Query};
use crate::admin::resource::resource;
use crate::base::json_error;

/// One schedule, as the target of a right.
const ONE: &str = "schedules/{name}";
/// Most bytes of a body: the payload as people write it, with blanks.
const BODY_BYTES_MAX: usize = 256 << 10;
/// How many of the next ticks are shown of one schedule.
const TICKS_SHOWN: usize = 5;
/// How often a merge is tried again after somebody else has changed the schedule meanwhile.
const MERGES_MAX: u32 = 16;

pub(in crate::admin) fn mount(services: &mut web::ServiceConfig) {
    services
        .service(resource("/api/schedules", [get("schedules")]).route(web::get().to(list)))
        .service(
            resource(
                "/api/schedules/{name}",
                [
                    get(ONE),
                    write("PUT", "schedule.set", Verb::AdminWrite, ONE),
                    write("PATCH", "schedule.set", Verb::AdminWrite, ONE),
                    write("DELETE", "schedule.delete", Verb::AdminWrite, ONE),
                ],
            )
            .app_data(at_most(BODY_BYTES_MAX))
            .route(web::get().to(show))
            .route(web::put().to(set))
            .route(web::patch().to(change))
            .route(web::delete().to(delete)),
        )
        .service(
            resource("/api/schedules/{name}/run", [write("POST", "schedule.run", Verb::AdminWrite, ONE)])
                .route(web::post().to(run)),
        );
}

fn find(admin: &Admin, name: &str) -> Result<Arc<ScheduleRow>, Problem> {
    admin.schedules.get(name).ok_or_else(|| Refusal::ScheduleNotFound(name.to_owned()).into())
}

/// The representation of one schedule, with its tag.
fn whole(row: &ScheduleRow) -> Result<(String, Vec<u8>), Problem> {
    let storage = |error: serde_json::Error| Problem::storage(error.to_string());
    let body = serde_json::to_vec(&ScheduleView::whole(row, TICKS_SHOWN).map_err(storage)?).map_err(storage)?;
    Ok((etag_of(row.revision, &body), body))
}

fn view(row: &ScheduleRow) -> Answer {
    let (tag, body) = whole(row)?;
    Ok(HttpResponse::Ok().insert_header((ETAG, tag)).insert_header(ContentType::json()).body(body))
}

/// Which page of the schedules.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct SchedulesQuery {
    /// Most items of the page; 100 by default.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// How fresh the answer is: `linearizable`, which is the default, `leader` or `stale`.
    #[serde(rename = "consistency")]
    _consistency: Option<String>,
}

/// The schedules by name, page by page, without payloads and headers. `next_tick` is `null` while a schedule is paused.
#[utoipa::path(get, path = "/api/schedules", operation_id = "schedules_list", tag = "schedules", params(SchedulesQuery), responses((status = 200, description = "a page of schedules", body = List<ScheduleView>), Problems))]
pub(in crate::admin) async fn list(admin: web::Data<Admin>, Query(query): Query<SchedulesQuery>) -> Answer {
    let page = Page::new("schedules", query.limit, query.cursor.as_deref())?;
    let found = admin.schedules.look(|all| page.of(all.iter().map(|row| ScheduleView::short(row)), ScheduleView::key));
    Ok(HttpResponse::Ok().json(found))
}

/// One schedule with its payload, headers and next five ticks. The ETag begins with the revision, which is what `If-Match`
/// of a change compares, and changes whenever the answer does.
#[utoipa::path(get, path = "/api/schedules/{name}", operation_id = "schedules_show", tag = "schedules", params(("name" = String, Path), ConsistencyQuery), responses((status = 200, description = "the schedule", body = ScheduleView), (status = 304, description = "the caller has it"), Problems))]
pub(in crate::admin) async fn show(
    admin: web::Data<Admin>,
    request: HttpRequest,
    name: web::Path<String>,
    _: Query<ConsistencyQuery>,
) -> Answer {
    let (tag, body) = whole(&*find(&admin, &name)?)?;
    if is_known(&request, &tag) {
        return Ok(HttpResponse::NotModified().insert_header((ETAG, tag)).finish());
    }
    Ok(HttpResponse::Ok().insert_header((ETAG, tag)).insert_header(ContentType::json()).body(body))
}

/// Sets a schedule in the name of the caller.
async fn store(admin: &Admin, name: &str, body: ScheduleJson, expected: Option<u64>) -> Result<(), Problem> {
    let set = admin.schedules.check(&caller::identity(), name.to_owned(), body.into_definition()?)?;
    Ok(admin.schedules.set(set, expected, caller::actor()).await?)
}

/// Creates or replaces a schedule. The caller needs the right to publish to its subject. What it has counted stays, and so
/// does the tick that it waits for, unless `cron`, `every` or `time_zone` are others. With `If-None-Match: *` only if there
/// is none of this name.
#[utoipa::path(put, path = "/api/schedules/{name}", operation_id = "schedules_set", tag = "schedules", params(("name" = String, Path), ("If-Match" = Option<String>, Header, description = "the ETag of a GET")), request_body = ScheduleJson, responses((status = 200, description = "the schedule as it is now", body = ScheduleView), Problems))]
pub(in crate::admin) async fn set(
    admin: web::Data<Admin>,
    request: HttpRequest,
    name: web::Path<String>,
    _: Query<NoParameters>,
    Object(body): Object<ScheduleJson>,
) -> Answer {
    let present = || Ok(admin.schedules.get(&name).map(|row| row.revision));
    let expected = Conditions::of(&request)?.revision(&admin, present).await?;
    store(&admin, &name, body, expected).await?;
    view(&*find(&admin, &name)?)
}

/// Changes a schedule: the given members are merged into the present ones, as RFC 7396 says. `{"paused": true}` holds it,
/// `{"paused": false}` lets it go on.
#[utoipa::path(patch, path = "/api/schedules/{name}", operation_id = "schedules_change", tag = "schedules", params(("name" = String, Path), ("If-Match" = Option<String>, Header, description = "the ETag of a GET")), request_body(content = Object, description = "members to be merged", example = json!({ "paused": true })), responses((status = 200, description = "the schedule as it is now", body = ScheduleView), Problems))]
pub(in crate::admin) async fn change(
    admin: web::Data<Admin>,
    request: HttpRequest,
    name: web::Path<String>,
    _: Query<NoParameters>,
    Object(patch): Object<Box<RawValue>>,
) -> Answer {
    let present = || Ok(Some(find(&admin, &name)?.revision));
    let expected = Conditions::of(&request)?.revision(&admin, present).await?;
    let wrong = |error: serde_json::Error| Problem::bad(error.to_string());
    for _ in 0..MERGES_MAX {
        let row = find(&admin, &name)?;
        let own = ScheduleJson::of(&row.definition).and_then(|json| serde_json::value::to_raw_value(&json));
        let merged = merge::merge(&own.map_err(wrong)?, &patch).map_err(wrong)?;
        let body: ScheduleJson = serde_json::from_str(merged.get())
            .map_err(|error| Problem::bad(json_error::explain(merged.get(), &error)))?;
        match store(&admin, &name, body, Some(expected.unwrap_or(row.revision))).await {
            Ok(()) => return view(&*find(&admin, &name)?),
            Err(problem) if expected.is_none() && problem.is(&Refusal::RevisionMismatch(String::new())) => {}
            Err(problem) => return Err(problem),
        }
    }
    Err(Refusal::Overloaded("others change the schedule all the time".to_owned()).into())
}

/// Deletes a schedule. What it has published stays.
#[utoipa::path(delete, path = "/api/schedules/{name}", operation_id = "schedules_delete", tag = "schedules", params(("name" = String, Path), ("If-Match" = Option<String>, Header, description = "the ETag of a GET")), responses((status = 204, description = "the schedule is gone"), Problems))]
pub(in crate::admin) async fn delete(
    admin: web::Data<Admin>,
    request: HttpRequest,
    name: web::Path<String>,
    _: Query<NoParameters>,
) -> Answer {
    let present = || Ok(admin.schedules.get(&name).map(|row| row.revision));
    let expected = Conditions::of(&request)?.revision(&admin, present).await?;
    admin.schedules.delete(name.into_inner(), expected, caller::actor()).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// An event that was published.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct RunView {
    /// Id of the event.
    id: String,
    /// Its index in the namespace.
    index: i64,
    /// When it was created.
    created_at: String,
}

/// Publishes one event of a schedule now, also while it is paused. The event is no tick: it has the header
/// `rollbook-schedule` alone, and the ticks come as they would without it. The caller needs the right to publish to the
/// subject.
#[utoipa::path(post, path = "/api/schedules/{name}/run", operation_id = "schedules_run", tag = "schedules", params(("name" = String, Path)), responses((status = 200, description = "the event", body = RunView), Problems))]
pub(in crate::admin) async fn run(admin: web::Data<Admin>, name: web::Path<String>, _: Query<NoParameters>) -> Answer {
    let row = find(&admin, &name)?;
    let event = admin.schedules.run(caller::identity(), &row).await?;
    let created_at = event.created_at.to_string();
    Ok(HttpResponse::Ok().json(RunView { id: event.id, index: event.index, created_at }))
}
