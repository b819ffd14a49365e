//! `/api/xbus/schemas`: what items of a type of events have to look like.

#![expect(unused_qualifications, reason = "the macro that describes a handler writes them")]

use actix_web::{HttpRequest, HttpResponse, web};
use rollbook_core::security::right::Verb;
use rollbook_core::xbus::change::{Change, SchemaSet};
use rollbook_core::xbus::limits::SCHEMA_BYTES_MAX;
use rollbook_core::xbus::schema::{SchemaMode, SchemaRow};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::common::{change, fresh, look, not_found, tagged, time};
use crate::admin::Admin;
use crate::admin::body::{Object, at_most};
use crate::admin::common::Answer;
use crate::admin::operation::{get, write};
use crate::admin::page::{List, Page};
use crate::admin::preconditions::Conditions;
use crate::admin::problem::{Problem, Problems};
use crate::admin::query::{ConsistencyQuery, NoParameters, Query};
use crate::admin::resource::resource;
use crate::bus::xbus::schema::compile;

/// One schema, as the target of a right.
const ONE: &str = "xbus/schemas/{type}";
/// Most bytes of a request: the schema as people write it, with blanks.
const BODY_BYTES_MAX: usize = 4 * SCHEMA_BYTES_MAX;

pub(super) fn mount(services: &mut web::ServiceConfig) {
    services.service(resource("/api/xbus/schemas", [get("xbus/schemas")]).route(web::get().to(list))).service(
        resource(
            "/api/xbus/schemas/{type}",
            [
                get(ONE),
                write("PUT", "xbus.schema_set", Verb::AdminWrite, ONE),
                write("DELETE", "xbus.schema_delete", Verb::AdminWrite, ONE),
            ],
        )
        .app_data(at_most(BODY_BYTES_MAX))
        .route(web::get().to(show))
        .route(web::put().to(set))
        .route(web::delete().to(delete)),
    );
}

/// What becomes of an item that breaks the schema.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum ModeWord {
    /// Nobody looks.
    Off,
    /// The envelope is taken, and a log entry of it says what is wrong.
    Warn,
    /// The fragment with the item is not taken, and its sender is told why.
    Enforce,
}

impl From<SchemaMode> for ModeWord {
    fn from(mode: SchemaMode) -> Self {
        match mode {
            SchemaMode::Off => Self::Off,
            SchemaMode::Warn => Self::Warn,
            SchemaMode::Enforce => Self::Enforce,
        }
    }
}

/// A schema in a list.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct SchemaView {
    event_type: String,
    /// `off`, `warn` or `enforce`.
    mode: ModeWord,
    created_at: Option<String>,
    /// When the schema or its mode was set last.
    changed_at: Option<String>,
    /// Counts its changes.
    revision: u64,
}

/// A schema with its text.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct SchemaDetail {
    event_type: String,
    /// `off`, `warn` or `enforce`.
    mode: ModeWord,
    /// The JSON Schema.
    schema: Value,
    created_at: Option<String>,
    /// When the schema or its mode was set last.
    changed_at: Option<String>,
    /// Counts its changes.
    revision: u64,
}

impl SchemaView {
    fn new(row: &SchemaRow) -> Self {
        Self {
            event_type: row.event_type.clone(),
            mode: row.mode().into(),
            created_at: time(row.created),
            changed_at: time(row.changed),
            revision: row.revision,
        }
    }
}

fn view(row: &SchemaRow) -> Answer {
    let SchemaView { event_type, mode, created_at, changed_at, revision } = SchemaView::new(row);
    let schema = serde_json::from_str(&row.schema).map_err(|error| Problem::storage(error.to_string()))?;
    tagged(row.revision, &SchemaDetail { event_type, mode, schema, created_at, changed_at, revision })
}

fn find(admin: &Admin, event_type: &str) -> Result<SchemaRow, Problem> {
    let found = look(admin, |xbus| xbus.schema(event_type).map(|row| SchemaRow::clone(row)));
    found.ok_or_else(|| not_found("schema", event_type))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct SchemasQuery {
    /// Most items of the page; 100 by default.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// How fresh the answer is: `linearizable`, which is the default, `leader` or `stale`.
    #[serde(rename = "consistency")]
    _consistency: Option<String>,
}

/// The schemas without their texts, page by page. They are in the order of the types of their events.
#[utoipa::path(get, path = "/api/xbus/schemas", operation_id = "xbus_schemas", tag = "xbus", params(SchemasQuery), responses((status = 200, description = "a page of schemas", body = List<SchemaView>), Problems))]
pub(in crate::admin) async fn list(admin: web::Data<Admin>, Query(query): Query<SchemasQuery>) -> Answer {
    let page = Page::new("xbus_schemas", query.limit, query.cursor.as_deref())?;
    let found =
        look(&admin, |xbus| page.of(xbus.schemas().map(|row| SchemaView::new(row)), |view| view.event_type.clone()));
    Ok(HttpResponse::Ok().json(found))
}

/// The schema of a type of events. The ETag begins with its revision, which is what `If-Match` of a change compares.
#[utoipa::path(get, path = "/api/xbus/schemas/{type}", operation_id = "xbus_schema", tag = "xbus", params(("type" = String, Path), ConsistencyQuery), responses((status = 200, description = "the schema", body = SchemaDetail), Problems))]
pub(in crate::admin) async fn show(
    admin: web::Data<Admin>,
    event_type: web::Path<String>,
    _: Query<ConsistencyQuery>,
) -> Answer {
    view(&find(&admin, &event_type)?)
}

/// A schema and its mode.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct SchemaJson {
    /// `off`, `warn` or `enforce`.
    mode: ModeWord,
    /// The JSON Schema: drafts 4 to 2020-12. Nothing is fetched: each `$ref` leads to a place of the schema itself.
    schema: Value,
}

/// Sets the schema of a type of events, or its mode. From then on each item of such an event is held against it when a
/// fragment of an envelope is taken; one item is one JSON document.
#[utoipa::path(put, path = "/api/xbus/schemas/{type}", operation_id = "xbus_schema_set", tag = "xbus", params(("type" = String, Path), ("If-Match" = Option<String>, Header, description = "the ETag of a GET")), request_body = SchemaJson, responses((status = 200, description = "the schema as it is now", body = SchemaDetail), Problems))]
pub(in crate::admin) async fn set(
    admin: web::Data<Admin>,
    request: HttpRequest,
    event_type: web::Path<String>,
    _: Query<NoParameters>,
    Object(body): Object<SchemaJson>,
) -> Answer {
    let (event_type, schema) = (event_type.into_inner(), body.schema.to_string());
    if schema.len() > SCHEMA_BYTES_MAX {
        return Err(Problem::bad(format!("schema: at most {SCHEMA_BYTES_MAX} bytes")));
    }
    compile(&schema).map_err(Problem::bad)?;
    let present = || Ok(find(&admin, &event_type).ok().map(|row| row.revision));
    let expected = Conditions::of(&request)?.revision(&admin, present).await?;
    let mut set = SchemaSet { event_type, schema, ..SchemaSet::default() };
    set.set_mode(match body.mode {
        ModeWord::Off => SchemaMode::Off,
        ModeWord::Warn => SchemaMode::Warn,
        ModeWord::Enforce => SchemaMode::Enforce,
    });
    view(&change(&admin, expected, Change::SchemaSet(set)).await?.schema.unwrap_or_default())
}

/// Deletes the schema of a type of events: nobody looks at its items any more.
#[utoipa::path(delete, path = "/api/xbus/schemas/{type}", operation_id = "xbus_schema_delete", tag = "xbus", params(("type" = String, Path), ("If-Match" = Option<String>, Header, description = "the ETag of a GET")), responses((status = 204, description = "the schema is gone"), Problems))]
pub(in crate::admin) async fn delete(
    admin: web::Data<Admin>,
    request: HttpRequest,
    event_type: web::Path<String>,
    _: Query<NoParameters>,
) -> Answer {
    fresh(&admin).await?;
    let row = find(&admin, &event_type)?;
    let expected = Conditions::of(&request)?.revision(&admin, || Ok(Some(row.revision))).await?;
    change(&admin, expected, Change::SchemaDelete(row.event_type)).await?;
    Ok(HttpResponse::NoContent().finish())
}
