//! `/api/xbus/pipelines`: the graphs along which envelopes go, and their versions.

#![expect(unused_qualifications, reason = "the macro that describes a handler writes them")]

use actix_web::{HttpResponse, web};
use rollbook_core::xbus::pipeline::document::{Document, NodeDocument, NodeKind};
use rollbook_core::xbus::pipeline::graph::Graph;
use rollbook_core::xbus::pipeline::version::{PipelineRow, PipelineStatus};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::common::{look, not_found, tagged, text, time};
use crate::admin::Admin;
use crate::admin::common::Answer;
use crate::admin::operation::get;
use crate::admin::page::{List, Page};
use crate::admin::problem::{Problem, Problems};
use crate::admin::query::{ConsistencyQuery, Query};
use crate::admin::resource::resource;

/// All versions of one pipeline, as the target of a right.
pub(super) const ONE: &str = "xbus/pipelines/{name}";

pub(super) fn mount(services: &mut web::ServiceConfig) {
    services
        .service(resource("/api/xbus/pipelines", [get("xbus/pipelines")]).route(web::get().to(list)))
        .service(resource("/api/xbus/pipelines/{name}", [get(ONE)]).route(web::get().to(versions)));
}

/// A version of a pipeline in a list.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct PipelineView {
    id: String,
    name: String,
    version: String,
    /// `draft`, `active` or `inactive`. Of all versions of a pipeline at most one is active.
    status: &'static str,
    /// Whether the graph has no faults. One with faults cannot be active.
    is_valid: bool,
    created_at: Option<String>,
    /// When it was saved last, or got another status.
    changed_at: Option<String>,
    /// Counts its changes.
    revision: u64,
}

/// A version of a pipeline with its text.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct PipelineDetail {
    id: String,
    name: String,
    version: String,
    /// `draft`, `active` or `inactive`.
    status: &'static str,
    /// Whether the graph has no faults.
    is_valid: bool,
    /// What is wrong with the graph.
    faults: Vec<String>,
    /// The text as it was saved, YAML.
    source: String,
    /// What the text says.
    graph: GraphView,
    created_at: Option<String>,
    /// When it was saved last, or got another status.
    changed_at: Option<String>,
    /// Counts its changes.
    revision: u64,
}

/// Nodes and edges.
#[derive(Debug, Serialize, ToSchema)]
struct GraphView {
    nodes: Vec<NodeView>,
    /// `node.output->node.input`.
    edges: Vec<String>,
}

/// A node of a graph.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PipelineNode)]
struct NodeView {
    id: String,
    /// `emitter`, `worker` or `consumer`; `unknown` when the text does not tell.
    r#type: &'static str,
    /// Actors, by name or id.
    actors: Vec<String>,
    /// Roles of actors.
    roles: Vec<String>,
    /// Whether each actor of the roles gets the envelopes, and not one of them.
    role_broadcast: bool,
    /// Of an emitter: the types of events; empty: all.
    event_types: Vec<String>,
    inputs: Vec<String>,
    outputs: Vec<String>,
}

impl NodeView {
    fn new(node: &NodeDocument) -> Self {
        Self {
            id: node.id.clone(),
            r#type: match node.kind() {
                NodeKind::Unknown => "unknown",
                NodeKind::Emitter => "emitter",
                NodeKind::Worker => "worker",
                NodeKind::Consumer => "consumer",
            },
            actors: node.actors.clone(),
            roles: node.roles.clone(),
            role_broadcast: node.role_broadcast,
            event_types: node.event_types.clone(),
            inputs: node.inputs.clone(),
            outputs: node.outputs.clone(),
        }
    }
}

pub(super) const fn word(status: PipelineStatus) -> &'static str {
    match status {
        PipelineStatus::Draft => "draft",
        PipelineStatus::Active => "active",
        PipelineStatus::Inactive => "inactive",
    }
}

/// What is wrong with a graph.
fn faults(document: &Document) -> Vec<String> {
    let faults = Graph::parse(document).err();
    faults.into_iter().flatten().map(|fault| fault.to_string()).collect()
}

impl PipelineDetail {
    fn new(row: &PipelineRow) -> Self {
        let faults = faults(&row.document);
        Self {
            id: text(&row.id),
            name: row.name.clone(),
            version: row.version.clone(),
            status: word(row.status()),
            is_valid: faults.is_empty(),
            faults,
            source: row.source.clone(),
            graph: GraphView {
                nodes: row.document.nodes.iter().map(NodeView::new).collect(),
                edges: row.document.edges.clone(),
            },
            created_at: time(row.created),
            changed_at: time(row.changed),
            revision: row.revision,
        }
    }
}

/// A version of this name.
pub(super) fn find(admin: &Admin, name: &str, version: &str) -> Result<PipelineRow, Problem> {
    let found = look(admin, |xbus| xbus.pipeline_named(name, version).map(|pipeline| pipeline.row.clone()));
    found.ok_or_else(|| not_found("pipeline", &format!("{name}, version {version}")))
}

/// Answers with a version as it is now.
pub(super) fn view(row: &PipelineRow) -> Answer {
    tagged(row.revision, &PipelineDetail::new(row))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct PipelinesQuery {
    /// Only the active versions, or only the others.
    active: Option<bool>,
    /// Most items of the page; 100 by default.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// How fresh the answer is: `linearizable`, which is the default, `leader` or `stale`.
    #[serde(rename = "consistency")]
    _consistency: Option<String>,
}

fn page_of(admin: &Admin, query: &PipelinesQuery, name: Option<&str>) -> Result<List<PipelineView>, Problem> {
    let page = Page::new("xbus_pipelines", query.limit, query.cursor.as_deref())?;
    let key = |name: &str, version: &str| format!("{name}\0{version}");
    Ok(look(admin, |xbus| {
        let fits = |row: &PipelineRow| {
            let is_active = row.status() == PipelineStatus::Active;
            name.is_none_or(|name| row.name == name) && query.active.is_none_or(|active| active == is_active)
        };
        let found = xbus.pipelines().filter(|pipeline| fits(&pipeline.row));
        let views = found.map(|pipeline| PipelineView {
            id: text(&pipeline.row.id),
            name: pipeline.row.name.clone(),
            version: pipeline.row.version.clone(),
            status: word(pipeline.row.status()),
            is_valid: pipeline.graph.is_some(),
            created_at: time(pipeline.row.created),
            changed_at: time(pipeline.row.changed),
            revision: pipeline.row.revision,
        });
        page.of(views, |view| key(&view.name, &view.version))
    }))
}

/// The versions of all pipelines, page by page. They are in the order of their names and versions.
#[utoipa::path(get, path = "/api/xbus/pipelines", operation_id = "xbus_pipelines", tag = "xbus", params(PipelinesQuery), responses((status = 200, description = "a page of versions", body = List<PipelineView>), Problems))]
pub(in crate::admin) async fn list(admin: web::Data<Admin>, Query(query): Query<PipelinesQuery>) -> Answer {
    Ok(HttpResponse::Ok().json(page_of(&admin, &query, None)?))
}

/// The versions of one pipeline, page by page. They are in the order of their versions.
#[utoipa::path(get, path = "/api/xbus/pipelines/{name}", operation_id = "xbus_pipeline_versions", tag = "xbus", params(("name" = String, Path), PipelinesQuery), responses((status = 200, description = "a page of versions", body = List<PipelineView>), Problems))]
pub(in crate::admin) async fn versions(
    admin: web::Data<Admin>,
    name: web::Path<String>,
    Query(query): Query<PipelinesQuery>,
) -> Answer {
    let is_known = look(&admin, |xbus| xbus.pipelines().any(|pipeline| pipeline.row.name == *name));
    if !is_known {
        return Err(not_found("pipeline", &name));
    }
    Ok(HttpResponse::Ok().json(page_of(&admin, &query, Some(&name))?))
}

/// A version of a pipeline: its text, its graph, and what is wrong with it. The ETag begins with its revision, which is
/// what `If-Match` of a change compares.
#[utoipa::path(get, path = "/api/xbus/pipelines/{name}/{version}", operation_id = "xbus_pipeline", tag = "xbus", params(("name" = String, Path), ("version" = String, Path), ConsistencyQuery), responses((status = 200, description = "the version", body = PipelineDetail), Problems))]
pub(in crate::admin) async fn show(
    admin: web::Data<Admin>,
    path: web::Path<(String, String)>,
    _: Query<ConsistencyQuery>,
) -> Answer {
    view(&find(&admin, &path.0, &path.1)?)
}
