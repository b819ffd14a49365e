//! `/api/xbus/replays`: jobs of this node that have processes go along again.

use actix_web::{HttpResponse, web};
use rollbook_core::security::right::Verb;
use rollbook_core::xbus::process::row::ProcessStatus;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::common::{fresh, id, moment, not_found, time};
use super::processes::{emitter, versions};
use crate::admin::Admin;
use crate::admin::body::Object;
use crate::admin::caller;
use crate::admin::common::Answer;
use crate::admin::operation::{get, write};
use crate::admin::page::{self, List};
use crate::admin::problem::{Problem, Problems};
use crate::admin::query::{NoParameters, Query};
use crate::admin::resource::resource;
use crate::bus::xbus::filter::ProcessFilter;
use crate::bus::xbus::replay::{self, ReplayProgress, ReplayRefusal, ReplayWish};

/// The target of the rights to replay, and to see how far that is.
const ALL: &str = "xbus/replays";
/// Most processes that a filter names.
const IDS_MAX: usize = 1000;

pub(super) fn mount(services: &mut web::ServiceConfig) {
    services
        .service(
            resource("/api/xbus/replays", [get(ALL), write("POST", "xbus.replay", Verb::AdminWrite, ALL)])
                .route(web::get().to(list))
                .route(web::post().to(begin)),
        )
        .service(
            resource(
                "/api/xbus/replays/{id}",
                [get(ALL), write("DELETE", "xbus.replay_cancel", Verb::AdminWrite, ALL)],
            )
            .route(web::get().to(show))
            .route(web::delete().to(cancel)),
        );
}

/// The status of processes that have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ReplayStatus)]
#[serde(rename_all = "lowercase")]
enum EndedWord {
    /// All nodes have ended without error.
    Done,
    /// A node has ended in error, somebody has canceled the process, or no pipeline took its envelope.
    Error,
}

/// Which processes go along again. What is left out fits all.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct FilterJson {
    /// The processes themselves, at most 1000 ids.
    ids: Vec<String>,
    /// `done`, `error` or both; without any both.
    status: Vec<EndedWord>,
    /// Of this pipeline only.
    pipeline: Option<String>,
    /// Of this version only; needs `pipeline`.
    version: Option<String>,
    /// Those that began with an envelope of this emitter: its name or id.
    emitter: Option<String>,
    /// Those along which this envelope went: its id.
    envelope: Option<String>,
    /// Those whose status changed at this time or later.
    from: Option<String>,
    /// Those whose status changed before this time.
    to: Option<String>,
}

impl FilterJson {
    fn filter(&self, admin: &Admin) -> Result<ProcessFilter, Problem> {
        if self.ids.len() > IDS_MAX {
            return Err(Problem::bad(format!("ids: at most {IDS_MAX}")));
        }
        let wanted = |word| self.status.is_empty() || self.status.contains(&word);
        let both = [(EndedWord::Done, ProcessStatus::Done), (EndedWord::Error, ProcessStatus::Error)];
        Ok(ProcessFilter {
            ids: self.ids.iter().map(|text| id(text)).collect::<Result<_, _>>()?,
            statuses: both.into_iter().filter(|(word, _)| wanted(*word)).map(|(_, status)| status).collect(),
            pipelines: versions(admin, self.pipeline.as_deref(), self.version.as_deref())?,
            emitters: self.emitter.as_deref().map(|named| emitter(admin, named)).transpose()?.into_iter().collect(),
            envelopes: self.envelope.as_deref().map(id).transpose()?.into_iter().collect(),
            changed_from: moment("from", self.from.as_deref())?.unwrap_or_default(),
            changed_to: moment("to", self.to.as_deref())?,
            ..ProcessFilter::default()
        })
    }
}

/// Which version the new processes go along.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum VersionWord {
    /// That of the old process.
    #[default]
    Same,
    /// The active version of the same pipeline.
    Active,
}

/// What is replayed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct ReplayJson {
    /// Which processes.
    filter: FilterJson,
    /// The node with which the new processes begin; without one the start.
    #[serde(default)]
    from_node: Option<String>,
    /// `same`, which is the default, or `active`.
    #[serde(default)]
    version: VersionWord,
    /// Whether the processes that fit are only counted.
    #[serde(default)]
    dry_run: bool,
}

/// Why a process was not replayed.
#[derive(Debug, Serialize, ToSchema)]
struct ReplayRefusalView {
    process: String,
    reason: String,
}

/// A replay and how far it is.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct ReplayView {
    id: String,
    /// `running`, `done`, `canceled` or `failed`.
    state: &'static str,
    /// Whether processes are only counted.
    dry_run: bool,
    /// Processes that fit, as far as they were looked at.
    matched: u64,
    /// Processes that go along again.
    replayed: u64,
    /// Processes that do not.
    refused: u64,
    /// Why, of the first 20.
    refusals: Vec<ReplayRefusalView>,
    /// Why the replay failed; else empty.
    reason: String,
    began_at: Option<String>,
    ended_at: Option<String>,
}

impl From<ReplayProgress> for ReplayView {
    fn from(of: ReplayProgress) -> Self {
        let refusal = |of: ReplayRefusal| ReplayRefusalView { process: of.process.to_string(), reason: of.reason };
        Self {
            id: of.id.to_string(),
            state: of.course.state.word(),
            dry_run: of.dry_run,
            matched: of.matched,
            replayed: of.replayed,
            refused: of.refused,
            refusals: of.refusals.into_iter().map(refusal).collect(),
            reason: of.course.reason,
            began_at: time(of.course.began),
            ended_at: time(of.course.ended),
        }
    }
}

/// Begins a replay: each process of the filter that has ended goes along its pipeline again, as a new process with the
/// old envelope. With a node, that node gets what it got before, and nothing in front of it is done again. The replay is
/// a job of this node, in memory: it ends with the node, and what was replayed by then stays.
#[utoipa::path(post, path = "/api/xbus/replays", operation_id = "xbus_replay", tag = "xbus", request_body = ReplayJson, responses((status = 202, description = "the replay has begun", body = ReplayView), Problems))]
pub(in crate::admin) async fn begin(
    admin: web::Data<Admin>,
    _: Query<NoParameters>,
    Object(body): Object<ReplayJson>,
) -> Answer {
    fresh(&admin).await?;
    let wish = ReplayWish {
        filter: body.filter.filter(&admin)?,
        from_node: body.from_node.unwrap_or_default(),
        active: body.version == VersionWord::Active,
        dry_run: body.dry_run,
    };
    // The request has a line of its own in the audit, and each process that is replayed.
    let begun = replay::begin(&admin.replays, admin.xbus.flow().clone(), wish, caller::actor_of_job())?;
    Ok(HttpResponse::Accepted().json(ReplayView::from(begun)))
}

/// The replays of this node, newest first: those that run, and the last ones that have ended.
#[utoipa::path(get, path = "/api/xbus/replays", operation_id = "xbus_replays", tag = "xbus", responses((status = 200, description = "the replays of this node", body = List<ReplayView>), Problems))]
pub(in crate::admin) async fn list(admin: web::Data<Admin>, _: Query<NoParameters>) -> Answer {
    Ok(page::whole(admin.replays.list().into_iter().map(ReplayView::from).collect()))
}

/// A replay and how far it is. Only the node on which a replay began knows it.
#[utoipa::path(get, path = "/api/xbus/replays/{id}", operation_id = "xbus_replay_progress", tag = "xbus", params(("id" = String, Path)), responses((status = 200, description = "the replay", body = ReplayView), Problems))]
pub(in crate::admin) async fn show(
    admin: web::Data<Admin>,
    named: web::Path<String>,
    _: Query<NoParameters>,
) -> Answer {
    let found = admin.replays.find(id(&named)?).ok_or_else(|| not_found("replay", &named))?;
    Ok(HttpResponse::Ok().json(ReplayView::from(found)))
}

/// Cancels a replay. Processes that go along again by now stay; at most eight more may follow.
#[utoipa::path(delete, path = "/api/xbus/replays/{id}", operation_id = "xbus_replay_cancel", tag = "xbus", params(("id" = String, Path)), responses((status = 204, description = "the replay ends"), Problems))]
pub(in crate::admin) async fn cancel(
    admin: web::Data<Admin>,
    named: web::Path<String>,
    _: Query<NoParameters>,
) -> Answer {
    if !admin.replays.cancel(id(&named)?) {
        return Err(not_found("replay", &named));
    }
    Ok(HttpResponse::NoContent().finish())
}
