//! What operators do with processes: pause, resume, cancel, note and purge.

use actix_web::{HttpResponse, web};
use rollbook_core::limits::ROLL_STEP_MAX;
use rollbook_core::security::right::Verb;
use rollbook_core::xbus::change::{Attention, AttentionStatus, Change, Ids, ProcessChange};
use rollbook_core::xbus::id::Id;
use rollbook_core::xbus::process::event::{Event, ProcessEvent, Unit};
use rollbook_core::xbus::process::row::ProcessStatus;
use serde::Deserialize;
use utoipa::ToSchema;

use super::common::{RemovedView, before, change, client, fresh, id};
use super::process_view::ProcessDetail;
use super::processes::{ONE, view};
use crate::admin::Admin;
use crate::admin::body::Object;
use crate::admin::common::Answer;
use crate::admin::operation::{Operation, write};
use crate::admin::problem::Problems;
use crate::admin::query::{NoParameters, Query};
use crate::admin::resource::resource;
use crate::bus::xbus::filter::ProcessFilter;

const fn post(action: &'static str) -> [Operation; 1] {
    [write("POST", action, Verb::AdminWrite, ONE)]
}

pub(super) fn mount(services: &mut web::ServiceConfig) {
    let path = |rest: &str| format!("/api/xbus/processes/{{id}}/{rest}");
    services
        .service(
            resource(
                "/api/xbus/processes/purge",
                [write("POST", "xbus.processes_purge", Verb::AdminWrite, "xbus/processes")],
            )
            .route(web::post().to(purge)),
        )
        .service(resource(&path("pause"), post("xbus.process_pause")).route(web::post().to(pause)))
        .service(resource(&path("resume"), post("xbus.process_resume")).route(web::post().to(resume)))
        .service(resource(&path("cancel"), post("xbus.process_cancel")).route(web::post().to(cancel)))
        .service(
            resource(&path("attention"), [write("PUT", "xbus.attention", Verb::AdminWrite, ONE)])
                .route(web::put().to(note)),
        );
}

async fn control(admin: &Admin, named: &str, event: Event) -> Answer {
    let id = id(named)?;
    let event = ProcessEvent { event: Some(event) };
    change(admin, None, Change::Process(ProcessChange { id: id.to_vec(), event })).await?;
    view(admin, id).await
}

/// Pauses a process: no job of it is started, and those that run may end.
#[utoipa::path(post, path = "/api/xbus/processes/{id}/pause", operation_id = "xbus_process_pause", tag = "xbus", params(("id" = String, Path)), responses((status = 200, description = "the process as it is now", body = ProcessDetail), Problems))]
pub(in crate::admin) async fn pause(
    admin: web::Data<Admin>,
    named: web::Path<String>,
    _: Query<NoParameters>,
) -> Answer {
    control(&admin, &named, Event::Pause(Unit {})).await
}

/// Lets a process go on that was paused. Its jobs go to the programs of actors again.
#[utoipa::path(post, path = "/api/xbus/processes/{id}/resume", operation_id = "xbus_process_resume", tag = "xbus", params(("id" = String, Path)), responses((status = 200, description = "the process as it is now", body = ProcessDetail), Problems))]
pub(in crate::admin) async fn resume(
    admin: web::Data<Admin>,
    named: web::Path<String>,
    _: Query<NoParameters>,
) -> Answer {
    control(&admin, &named, Event::Resume(Unit {})).await
}

/// Cancels a process: it is in error with the state `canceled`. Jobs that run may end; no other one is started.
#[utoipa::path(post, path = "/api/xbus/processes/{id}/cancel", operation_id = "xbus_process_cancel", tag = "xbus", params(("id" = String, Path)), responses((status = 200, description = "the process as it is now", body = ProcessDetail), Problems))]
pub(in crate::admin) async fn cancel(
    admin: web::Data<Admin>,
    named: web::Path<String>,
    _: Query<NoParameters>,
) -> Answer {
    control(&admin, &named, Event::Cancel(Unit {})).await
}

/// How far somebody is with a process that failed.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum AttentionWord {
    /// Nobody has looked yet.
    New,
    /// Somebody looks.
    Opened,
    /// Done with.
    Closed,
}

/// What an operator makes of a process that failed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct AttentionJson {
    /// `new`, `opened` or `closed`.
    status: AttentionWord,
    /// A text for others, at most 1024 bytes.
    #[serde(default)]
    comment: String,
}

/// Notes what an operator makes of a process that failed. The process itself stays as it is.
#[utoipa::path(put, path = "/api/xbus/processes/{id}/attention", operation_id = "xbus_process_attention", tag = "xbus", params(("id" = String, Path)), request_body = AttentionJson, responses((status = 200, description = "the process as it is now", body = ProcessDetail), Problems))]
pub(in crate::admin) async fn note(
    admin: web::Data<Admin>,
    named: web::Path<String>,
    _: Query<NoParameters>,
    Object(body): Object<AttentionJson>,
) -> Answer {
    let id = id(&named)?;
    let mut attention = Attention { process: id.to_vec(), comment: body.comment, ..Attention::default() };
    attention.set_status(match body.status {
        AttentionWord::New => AttentionStatus::New,
        AttentionWord::Opened => AttentionStatus::Opened,
        AttentionWord::Closed => AttentionStatus::Closed,
    });
    change(&admin, None, Change::Attention(attention)).await?;
    view(&admin, id).await
}

/// The status of processes that are removed.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum EndedWord {
    /// All nodes have ended without error.
    Done,
    /// A node has ended in error, or somebody has canceled the process.
    Error,
}

/// Which processes are removed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct PurgeJson {
    /// `done` or `error`.
    status: EndedWord,
    /// Only those whose status has not changed for so long; a duration as `168h`.
    #[schema(example = "168h")]
    unchanged_for: String,
}

/// Removes processes that have ended, with their logs and what operators made of them. Envelopes have a purge of their
/// own.
#[utoipa::path(post, path = "/api/xbus/processes/purge", operation_id = "xbus_processes_purge", tag = "xbus", request_body = PurgeJson, responses((status = 200, description = "how many were removed", body = RemovedView), Problems))]
pub(in crate::admin) async fn purge(
    admin: web::Data<Admin>,
    _: Query<NoParameters>,
    Object(body): Object<PurgeJson>,
) -> Answer {
    let status = match body.status {
        EndedWord::Done => ProcessStatus::Done,
        EndedWord::Error => ProcessStatus::Error,
    };
    let changed_to = Some(before("unchanged_for", &body.unchanged_for)?);
    let filter = ProcessFilter { statuses: vec![status], changed_to, ..ProcessFilter::default() };
    fresh(&admin).await?;
    let (client, mut behind, mut removed) = (client(&admin), None, 0_u64);
    loop {
        let page = client.processes(filter.clone(), behind, ROLL_STEP_MAX).await?;
        // A process in error of which an actor still has a job is left out by the rules.
        let ids: Vec<Vec<u8>> = page.items.iter().map(|row| row.id()).map(Id::to_vec).collect();
        if !ids.is_empty() {
            removed = removed.saturating_add(change(&admin, None, Change::ProcessesPurge(Ids { ids })).await?.count);
        }
        behind = page.next;
        if behind.is_none() {
            return Ok(HttpResponse::Ok().json(RemovedView { removed }));
        }
    }
}
