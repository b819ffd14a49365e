//! `/api/xbus/processes` and `/api/xbus/attention`: envelopes on their way, and those that need somebody.

#![expect(unused_qualifications, reason = "the macro that describes a handler writes them")]

use actix_web::{HttpResponse, web};
use rollbook_core::security::right::Verb;
use rollbook_core::xbus::id::Id;
use rollbook_core::xbus::process::row::ProcessStatus;
use serde::Deserialize;
use utoipa::IntoParams;

use super::common::{client, id, look, moment, not_found};
use super::process_view::{AttentionView, ProcessDetail, ProcessView};
use crate::admin::Admin;
use crate::admin::caller::check;
use crate::admin::common::Answer;
use crate::admin::operation::get;
use crate::admin::page::{self, List, Page};
use crate::admin::problem::{Problem, Problems};
use crate::admin::query::{ConsistencyQuery, Query};
use crate::admin::resource::resource;
use crate::bus::xbus::filter::ProcessFilter;
use crate::bus::xbus::reads::ProcessAt;

/// One process, as the target of a right.
pub(super) const ONE: &str = "xbus/processes/{id}";
/// Longest list of statuses: there are four.
const STATUSES_MAX: usize = 4;

pub(super) fn mount(services: &mut web::ServiceConfig) {
    services
        .service(resource("/api/xbus/processes", [get("xbus/processes")]).route(web::get().to(list)))
        .service(resource("/api/xbus/processes/{id}", [get(ONE)]).route(web::get().to(show)))
        .service(resource("/api/xbus/attention", [get("xbus/processes")]).route(web::get().to(attentions)));
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct ProcessesQuery {
    /// `running`, `paused`, `done` or `error`; several are separated by commas.
    status: Option<String>,
    /// Of this pipeline only.
    pipeline: Option<String>,
    /// Of this version only; needs `pipeline`.
    version: Option<String>,
    /// Those that began with an envelope of this emitter: its name or id.
    emitter: Option<String>,
    /// Those along which this envelope goes or went: its id.
    envelope: Option<String>,
    /// Those whose status changed at this time or later.
    from: Option<String>,
    /// Those whose status changed before this time.
    to: Option<String>,
    /// Most items of the page; 100 by default. A page may have fewer and yet not be the last one.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// How fresh the answer is: `linearizable`, which is the default, `leader` or `stale`.
    #[serde(rename = "consistency")]
    _consistency: Option<String>,
}

/// Statuses of a text with commas.
pub(super) fn statuses(text: Option<&str>) -> Result<Vec<ProcessStatus>, Problem> {
    let word = |word: &str| match word {
        "running" => Ok(ProcessStatus::Running),
        "paused" => Ok(ProcessStatus::Paused),
        "done" => Ok(ProcessStatus::Done),
        "error" => Ok(ProcessStatus::Error),
        _ => Err(Problem::bad(format!("status={word}: running, paused, done or error, separated by commas"))),
    };
    let Some(text) = text else { return Ok(Vec::new()) };
    text.split(',').take(STATUSES_MAX).map(word).collect()
}

impl ProcessesQuery {
    fn filter(&self, admin: &Admin) -> Result<ProcessFilter, Problem> {
        let pipelines = versions(admin, self.pipeline.as_deref(), self.version.as_deref())?;
        let emitter = self.emitter.as_deref().map(|named| emitter(admin, named)).transpose()?;
        Ok(ProcessFilter {
            statuses: statuses(self.status.as_deref())?,
            pipelines,
            emitters: emitter.into_iter().collect(),
            envelopes: self.envelope.as_deref().map(id).transpose()?.into_iter().collect(),
            changed_from: moment("from", self.from.as_deref())?.unwrap_or_default(),
            changed_to: moment("to", self.to.as_deref())?,
            ..ProcessFilter::default()
        })
    }
}

/// The versions of a pipeline, or the one that is named; `None`: all of all.
pub(super) fn versions(
    admin: &Admin,
    pipeline: Option<&str>,
    version: Option<&str>,
) -> Result<Option<Vec<Id>>, Problem> {
    let Some(name) = pipeline else {
        return if version.is_some() { Err(Problem::bad("version: needs pipeline")) } else { Ok(None) };
    };
    check(Verb::AdminRead, &format!("xbus/pipelines/{name}"))?;
    let found: Vec<Id> = look(admin, |xbus| {
        let of = xbus.pipelines().map(|pipeline| &pipeline.row);
        let of = of.filter(|row| row.name == *name && version.is_none_or(|of| of == row.version));
        of.filter_map(|row| Id::from_slice(&row.id).ok()).collect()
    });
    if found.is_empty() { Err(not_found("pipeline", name)) } else { Ok(Some(found)) }
}

/// The id of an emitter. The emitter of an old process may be gone, so any id will do.
pub(super) fn emitter(admin: &Admin, named: &str) -> Result<Id, Problem> {
    let known = look(admin, |xbus| xbus.actor_named(named).and_then(|row| Id::from_slice(&row.id).ok()));
    known.or_else(|| named.parse().ok()).ok_or_else(|| not_found("actor", named))
}

/// The place in a cursor.
fn place_of(page: &Page) -> Result<Option<ProcessAt>, Problem> {
    let Some(text) = page.after() else { return Ok(None) };
    let parts = text.split_once('/').and_then(|(millis, id)| Some((millis.parse().ok()?, id.parse().ok()?)));
    parts.map(Some).ok_or_else(|| Problem::bad("cursor: the next_cursor of a page of this list"))
}

/// The processes whose status changed last first, page by page; those that ended too, as long as they are kept.
#[utoipa::path(get, path = "/api/xbus/processes", operation_id = "xbus_processes", tag = "xbus", params(ProcessesQuery), responses((status = 200, description = "a page of processes", body = List<ProcessView>), Problems))]
pub(in crate::admin) async fn list(admin: web::Data<Admin>, Query(query): Query<ProcessesQuery>) -> Answer {
    let page = Page::new("xbus_processes", query.limit, query.cursor.as_deref())?;
    let (filter, behind) = (query.filter(&admin)?, place_of(&page)?);
    let found = client(&admin).processes(filter, behind, page.limit()).await?;
    let views = look(&admin, |xbus| found.items.iter().map(|row| ProcessView::new(xbus, row)).collect::<Vec<_>>());
    let next = found.next.map(|(millis, id)| page.cursor(&format!("{millis}/{id}")));
    Ok(page::list(views, next))
}

/// Answers with a process as it is now.
pub(super) async fn view(admin: &Admin, id: Id) -> Answer {
    let client = client(admin);
    let row = client.process(id).await?.ok_or_else(|| not_found("process", &id.to_string()))?;
    let attention = client.attention(id).await?;
    let detail = look(admin, |xbus| ProcessDetail::new(xbus, &row, attention.as_ref()));
    Ok(HttpResponse::Ok().json(detail))
}

/// One process: its nodes, the jobs of its actors and what they said.
#[utoipa::path(get, path = "/api/xbus/processes/{id}", operation_id = "xbus_process", tag = "xbus", params(("id" = String, Path), ConsistencyQuery), responses((status = 200, description = "the process", body = ProcessDetail), Problems))]
pub(in crate::admin) async fn show(
    admin: web::Data<Admin>,
    named: web::Path<String>,
    _: Query<ConsistencyQuery>,
) -> Answer {
    view(&admin, id(&named)?).await
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct AttentionQuery {
    /// Most items of the page; 100 by default.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// How fresh the answer is: `linearizable`, which is the default, `leader` or `stale`.
    #[serde(rename = "consistency")]
    _consistency: Option<String>,
}

/// What operators make of the processes that failed, by the ids of these, page by page. Each process that fails is `new`
/// here, until it is purged.
#[utoipa::path(get, path = "/api/xbus/attention", operation_id = "xbus_attention", tag = "xbus", params(AttentionQuery), responses((status = 200, description = "a page of processes that failed", body = List<AttentionView>), Problems))]
pub(in crate::admin) async fn attentions(admin: web::Data<Admin>, Query(query): Query<AttentionQuery>) -> Answer {
    let page = Page::new("xbus_attention", query.limit, query.cursor.as_deref())?;
    let behind = page.after().map(id).transpose()?;
    let rows = client(&admin).attentions(behind, page.limit().saturating_add(1)).await?;
    let (rows, next) = page.cut(rows, |row| super::common::text(&row.process));
    Ok(page::list(rows.iter().map(AttentionView::from).collect(), next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_words_with_commas() {
        assert_eq!(statuses(Some("done,error")).unwrap(), [ProcessStatus::Done, ProcessStatus::Error]);
        assert_eq!(statuses(None).unwrap(), []);
        for wrong in ["", "ended", "done,", "Done"] {
            assert!(statuses(Some(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_cursor_is_a_place() {
        let page = Page::new("xbus_processes", None, None).unwrap();
        let at: ProcessAt = (7, "53131466-4e2e-11e7-916e-af2b1e6d242d".parse().unwrap());
        let cursor = page.cursor(&format!("{}/{}", at.0, at.1));
        let next = Page::new("xbus_processes", None, Some(&cursor)).unwrap();
        assert_eq!(place_of(&next).unwrap(), Some(at));
        let odd = Page::new("xbus_processes", None, Some(&page.cursor("7"))).unwrap();
        assert!(place_of(&odd).is_err());
    }
}
