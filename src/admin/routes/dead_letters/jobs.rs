//! `/api/dead-letter-jobs`: jobs of this node that retry or discard many dead letters.

use actix_web::{HttpResponse, web};
use rollbook_core::security::right::Verb;
use rollbook_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::letters::{ALL, check_reads, filter};
use crate::admin::body::{self, Object};
use crate::admin::common::Answer;
use crate::admin::operation::{get, write};
use crate::admin::page::{self, List};
use crate::admin::problem::{Problem, Problems};
use crate::admin::query::{NoParameters, Query};
use crate::admin::resource::resource;
use crate::admin::{Admin, caller};
use crate::bus::consume::letters::filter::LetterFilter;
use crate::bus::consume::letters::jobs::{self, Action, JobProgress, JobRefusal, JobWish};
use crate::bus::consume::letters::read;

pub(super) fn mount(services: &mut web::ServiceConfig) {
    services
        .service(
            resource("/api/dead-letter-jobs", [get(ALL), write("POST", "dead_letter.job", Verb::AdminWrite, ALL)])
                .route(web::get().to(list))
                .route(web::post().to(begin)),
        )
        .service(
            resource(
                "/api/dead-letter-jobs/{id}",
                [get(ALL), write("DELETE", "dead_letter.job_cancel", Verb::AdminWrite, ALL)],
            )
            .route(web::get().to(show))
            .route(web::delete().to(cancel)),
        );
}

/// Which dead letters; those that are done are passed by. What is left out fits all.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = DeadLetterFilter)]
#[serde(deny_unknown_fields, default)]
struct FilterJson {
    /// Subject of the events, with wildcards in any place: `orders.>`.
    subject: Option<String>,
    /// Of this durable consumer only.
    consumer: Option<String>,
    /// Of this group only.
    group: Option<String>,
    /// Only those with this text in their reason.
    reason: Option<String>,
}

impl FilterJson {
    fn filter(self) -> Result<LetterFilter, Problem> {
        filter(self.subject.as_deref(), (self.consumer, self.group), self.reason)
    }
}

/// What is done with the letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = DeadLetterAction)]
#[serde(rename_all = "lowercase")]
enum ActionWord {
    /// Their events are published again.
    Retry,
    /// They are put away.
    Discard,
}

/// A job as it is begun.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = DeadLetterJobBegin)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct JobJson {
    /// What is done with the letters.
    action: ActionWord,
    /// Which letters.
    #[serde(deserialize_with = "body::object")]
    filter: FilterJson,
    /// The subject under which the events are published again; without one each its own. Only with `retry`.
    #[serde(default)]
    to: Option<String>,
    /// Whether the letters that fit are only counted.
    #[serde(default)]
    dry_run: bool,
}

/// Why a letter is still open.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetterRefusal)]
struct RefusalView {
    letter: String,
    reason: String,
}

/// A job and how far it is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetterJob)]
pub(in crate::admin) struct JobView {
    id: String,
    action: ActionWord,
    to: Option<String>,
    /// Who began the job.
    by: String,
    /// `running`, `done`, `canceled` or `failed`.
    state: &'static str,
    /// Whether letters are only counted.
    dry_run: bool,
    /// Position up to which the job has looked for letters.
    index: u64,
    /// Position with which the job ends: that of the newest letter when it began.
    last_index: u64,
    /// Letters that fit, as far as they were looked at.
    matched: u64,
    /// Letters that the job has retried or discarded.
    done: u64,
    /// Letters that somebody else was faster with.
    skipped: u64,
    /// Letters that are still open.
    refused: u64,
    /// Why, of the first 20.
    refusals: Vec<RefusalView>,
    /// Why the job failed; else empty.
    reason: String,
    began_at: Option<String>,
    ended_at: Option<String>,
}

/// A time as text; `None` for 0.
fn time(millis: u64) -> Option<String> {
    (millis != 0).then(|| Timestamp::from_millis(millis).to_string())
}

impl From<JobProgress> for JobView {
    fn from(of: JobProgress) -> Self {
        let refusal = |of: JobRefusal| RefusalView { letter: of.letter, reason: of.reason };
        let (action, to) = match of.action {
            Action::Retry { to } => (ActionWord::Retry, to),
            Action::Discard => (ActionWord::Discard, None),
        };
        Self {
            id: of.id.to_string(),
            action,
            to,
            by: of.by,
            state: of.course.state.word(),
            dry_run: of.dry_run,
            index: of.index,
            last_index: of.last_index,
            matched: of.matched,
            done: of.done,
            skipped: of.skipped,
            refused: of.refused,
            refusals: of.refusals.into_iter().map(refusal).collect(),
            reason: of.course.reason,
            began_at: time(of.course.began),
            ended_at: time(of.course.ended),
        }
    }
}

fn id(named: &str) -> Result<Uuid, Problem> {
    named.parse().map_err(|_| Problem::bad(format!("{named}: the id of a job is a UUID")))
}

fn not_found(named: &str) -> Problem {
    Problem::new(404, "not_found", format!("there is no job {named} at this node"))
}

/// Begins a job: each open letter of the filter that is there now is retried or discarded. The job is of this node, in
/// memory: it ends with the node, and what is done by then stays. The same job begun again goes on with what is left.
#[utoipa::path(post, path = "/api/dead-letter-jobs", operation_id = "dead_letter_job_begin", tag = "dead-letters", request_body = JobJson, responses((status = 202, description = "the job has begun", body = JobView), Problems))]
pub(in crate::admin) async fn begin(
    admin: web::Data<Admin>,
    _: Query<NoParameters>,
    Object(body): Object<JobJson>,
) -> Answer {
    let JobJson { action, filter, to, dry_run } = body;
    let action = match (action, to) {
        (ActionWord::Retry, to) => Action::Retry { to },
        (ActionWord::Discard, None) => Action::Discard,
        (ActionWord::Discard, Some(_)) => return Err(Problem::bad("to: only with the action \"retry\"")),
    };
    let filter = filter.filter()?;
    check_reads(filter.pattern())?;
    if let Action::Retry { to: Some(to) } = &action {
        caller::identity().check_publish(to)?;
    }
    read::fresh(&admin.bus).await?;
    let wish = JobWish { filter, action, dry_run };
    let begun = jobs::begin(&admin.letter_jobs, admin.bus.clone(), wish, caller::identity())?;
    Ok(HttpResponse::Accepted().json(JobView::from(begun)))
}

/// The jobs of this node, newest first: those that run, and the last ones that have ended.
#[utoipa::path(get, path = "/api/dead-letter-jobs", operation_id = "dead_letter_jobs", tag = "dead-letters", responses((status = 200, description = "the jobs of this node", body = List<JobView>), Problems))]
pub(in crate::admin) async fn list(admin: web::Data<Admin>, _: Query<NoParameters>) -> Answer {
    Ok(page::whole(admin.letter_jobs.list().into_iter().map(JobView::from).collect()))
}

/// A job and how far it is. Only the node on which a job began knows it.
#[utoipa::path(get, path = "/api/dead-letter-jobs/{id}", operation_id = "dead_letter_job", tag = "dead-letters", params(("id" = String, Path)), responses((status = 200, description = "how far the job is", body = JobView), Problems))]
pub(in crate::admin) async fn show(
    admin: web::Data<Admin>,
    named: web::Path<String>,
    _: Query<NoParameters>,
) -> Answer {
    let found = admin.letter_jobs.find(id(&named)?).ok_or_else(|| not_found(&named))?;
    Ok(HttpResponse::Ok().json(JobView::from(found)))
}

/// Cancels a job. Letters that are done by now stay done; at most eight more may follow.
#[utoipa::path(delete, path = "/api/dead-letter-jobs/{id}", operation_id = "dead_letter_job_cancel", tag = "dead-letters", params(("id" = String, Path)), responses((status = 204, description = "the job ends"), Problems))]
pub(in crate::admin) async fn cancel(
    admin: web::Data<Admin>,
    named: web::Path<String>,
    _: Query<NoParameters>,
) -> Answer {
    if !admin.letter_jobs.cancel(id(&named)?) {
        return Err(not_found(&named));
    }
    Ok(HttpResponse::NoContent().finish())
}
