//! `/api/dead-letters`: events that were given up, what has become of them, and what the operator does with them.

#![expect(unused_qualifications, reason = "the macro that describes a handler writes them")]

use actix_web::{HttpResponse, web};
use rollbook_core::security::right::Verb;
use rollbook_core::subjects::pattern::Pattern;
use rollbook_core::subjects::subject::Namespace;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use crate::admin::body::Optional;
use crate::admin::common::Answer;
use crate::admin::operation::{Need, checked, get_for, write};
use crate::admin::page::{List, Page};
use crate::admin::problem::{Problem, Problems};
use crate::admin::query::{ConsistencyQuery, NoParameters, Query};
use crate::admin::resource::resource;
use crate::admin::{Admin, caller, page};
use crate::bus::consume::letters::disposition::{Disposition, Outcome};
use crate::bus::consume::letters::filter::{LetterFilter, WantedState};
use crate::bus::consume::letters::letter::Letter;
use crate::bus::consume::letters::read::{self, Span, WholeLetter};
use crate::bus::consume::letters::retry::{self, Done};
use crate::bus::error::Fault;

/// The target of the rights to discard letters, and to begin and see jobs.
pub(super) const ALL: &str = "dead-letters";

pub(super) fn mount(services: &mut web::ServiceConfig) {
    services
        .service(resource("/api/dead-letters", [get_for(Need::Caller)]).route(web::get().to(list)))
        .service(resource("/api/dead-letters/{id}", [get_for(Need::Caller)]).route(web::get().to(show)))
        .service(
            resource("/api/dead-letters/{id}/retry", [checked("POST", "dead_letter.retry")])
                .route(web::post().to(retry_one)),
        )
        .service(
            resource("/api/dead-letters/{id}/discard", [write("POST", "dead_letter.discard", Verb::AdminWrite, ALL)])
                .route(web::post().to(discard_one)),
        );
}

/// What has become of letters.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum StateWord {
    /// Nothing yet.
    #[default]
    Open,
    /// Their events were published again.
    Retried,
    /// They were put away.
    Discarded,
    /// Anything.
    All,
}

impl StateWord {
    const fn wanted(self) -> WantedState {
        match self {
            Self::Open => WantedState::Open,
            Self::Retried => WantedState::Retried,
            Self::Discarded => WantedState::Discarded,
            Self::All => WantedState::All,
        }
    }
}

/// The query of the list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct ListQuery {
    /// Subject of the events, with wildcards in any place: `orders.>`.
    subject: Option<String>,
    /// Of this durable consumer only.
    consumer: Option<String>,
    /// Of this group only.
    group: Option<String>,
    /// Only those with this text in their reason.
    reason: Option<String>,
    /// `open`, which is the default, `retried`, `discarded` or `all`.
    #[param(inline)]
    state: Option<StateWord>,
    /// Most items of a page.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// How fresh the answer is: `linearizable`, which is the default, `leader` or `stale`.
    #[serde(rename = "consistency")]
    _consistency: Option<String>,
}

/// What has become of a letter.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetterDone)]
struct DoneView {
    at: String,
    /// Who did it.
    by: String,
    /// The subject under which the event was published again.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    /// The new event.
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_index: Option<u64>,
}

/// A dead letter.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetter)]
pub(in crate::admin) struct LetterView {
    id: String,
    /// Position in the namespace `_dead_`.
    index: u64,
    /// When the event was given up.
    at: String,
    /// Subject of the event.
    subject: String,
    event_id: String,
    /// Position of the event in its namespace; -1 for a message of an inbox.
    event_index: i64,
    /// The stream that got the event last.
    consumer_id: Option<String>,
    consumer: Option<String>,
    group: Option<String>,
    /// How often a client got the event.
    deliveries: u32,
    /// Why it was given up.
    reason: String,
    /// `open`, `retried` or `discarded`.
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    done: Option<DoneView>,
    /// The event; left out in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    event: Option<Box<RawValue>>,
}

impl LetterView {
    fn new(letter: Letter, disposition: Option<Disposition>, event: Option<Box<RawValue>>) -> Self {
        Self {
            id: letter.id,
            index: letter.index,
            at: letter.at.to_string(),
            subject: letter.subject,
            event_id: letter.event_id,
            event_index: letter.event_index,
            consumer_id: letter.consumer_id,
            consumer: letter.consumer,
            group: letter.group,
            deliveries: letter.deliveries,
            reason: letter.reason,
            state: match disposition.as_ref().map(|disposition| &disposition.outcome) {
                None => "open",
                Some(Outcome::Retried { .. }) => "retried",
                Some(Outcome::Discarded) => "discarded",
            },
            done: disposition.map(done_view),
            event,
        }
    }
}

fn done_view(disposition: Disposition) -> DoneView {
    let (at, by) = (disposition.at.to_string(), disposition.by);
    match disposition.outcome {
        Outcome::Retried { to, event_id, event_index } => {
            DoneView { at, by, to: Some(to), event_id: Some(event_id), event_index: Some(event_index) }
        }
        Outcome::Discarded => DoneView { at, by, to: None, event_id: None, event_index: None },
    }
}

/// Checks that the caller may read letters under this subject of theirs.
pub(super) fn check_reads(pattern: &Pattern) -> Result<(), Problem> {
    caller::identity().check_subscription(pattern).map_err(Problem::from)
}

/// The letters of a filter, as a request names it.
pub(super) fn filter(
    subject: Option<&str>,
    (consumer, group): (Option<String>, Option<String>),
    reason: Option<String>,
) -> Result<LetterFilter, Problem> {
    let mut filter = LetterFilter::new(subject)?.with_reason(reason)?;
    (filter.consumer, filter.group) = (consumer, group);
    Ok(filter)
}

/// Dead letters, oldest first, without their events. A search is bounded, so a page may have fewer items than `limit`,
/// or none, and still be followed by another one.
#[utoipa::path(get, path = "/api/dead-letters", operation_id = "dead_letters", tag = "dead-letters", params(ListQuery), responses((status = 200, description = "a page of dead letters", body = List<LetterView>), Problems))]
pub(in crate::admin) async fn list(admin: web::Data<Admin>, Query(query): Query<ListQuery>) -> Answer {
    let mut filter = filter(query.subject.as_deref(), (query.consumer, query.group), query.reason)?;
    filter.state = query.state.unwrap_or_default().wanted();
    let page = Page::new("dead-letters", query.limit, query.cursor.as_deref())?;
    check_reads(filter.pattern())?;
    let wrong = || Problem::bad("cursor: the next_cursor of a page of this list");
    let from = page.after().map_or(Ok(1), |index| index.parse().map_err(|_| wrong()))?;
    let found = read::page(&admin.bus, &filter, Span { from, until: u64::MAX }, page.limit()).await?;
    let views = found.letters.into_iter().map(|(letter, disposition)| LetterView::new(letter, disposition, None));
    Ok(page::list(views.collect(), found.next.map(|next| page.cursor(&next.to_string()))))
}

/// Checks that the caller may read a letter. Whether there is such a letter is told to whoever may read all of them.
fn check_reads_one(found: Option<&WholeLetter>) -> Result<(), Problem> {
    let subject = found.map_or(">", |found| found.letter.subject.as_str());
    let pattern = Pattern::parse(&format!("{}.{subject}", Namespace::DEAD));
    check_reads(&pattern.map_err(|error| Problem::storage(error.to_string()))?)
}

/// The letter that a path names, for a caller who may read it.
async fn find(admin: &Admin, named: &str) -> Result<WholeLetter, Problem> {
    let found = read::find(&admin.bus, named).await?;
    check_reads_one(found.as_ref())?;
    found.ok_or_else(|| not_found(named))
}

fn not_found(named: &str) -> Problem {
    Problem::new(404, "not_found", format!("there is no dead letter {named}"))
}

/// A dead letter with its event. It is named by its id, or by its position in the namespace `_dead_`.
#[utoipa::path(get, path = "/api/dead-letters/{id}", operation_id = "dead_letter", tag = "dead-letters", params(("id" = String, Path), ConsistencyQuery), responses((status = 200, description = "the dead letter", body = LetterView), Problems))]
pub(in crate::admin) async fn show(
    admin: web::Data<Admin>,
    named: web::Path<String>,
    _: Query<ConsistencyQuery>,
) -> Answer {
    let WholeLetter { letter, disposition, event } = find(&admin, &named).await?;
    Ok(HttpResponse::Ok().json(LetterView::new(letter, disposition, Some(event))))
}

/// Where the event of a letter goes.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct RetryJson {
    /// The subject under which the event is published again; without one its own.
    #[serde(default)]
    to: Option<String>,
}

/// The answer to a request that has done something, or comes too late.
fn answer(letter: Letter, done: Result<Done, Fault>) -> Answer {
    match done? {
        Done::Now(disposition) => Ok(HttpResponse::Ok().json(LetterView::new(letter, Some(disposition), None))),
        Done::Before(disposition) => Err(Problem::new(409, "conflict", disposition.text())),
    }
}

/// Publishes the event of a letter again: under its subject or another one, with its payload, headers and trace id, and
/// the header `rollbook-dead-letter`. The event gets a new id and time, and in place of its dedupe key one of the retry.
/// The letter is not open any more; 409 when it was not.
#[utoipa::path(post, path = "/api/dead-letters/{id}/retry", operation_id = "dead_letter_retry", tag = "dead-letters", params(("id" = String, Path)), request_body = RetryJson, responses((status = 200, description = "the letter as it is now", body = LetterView), Problems))]
pub(in crate::admin) async fn retry_one(
    admin: web::Data<Admin>,
    named: web::Path<String>,
    _: Query<NoParameters>,
    Optional(body): Optional<RetryJson>,
) -> Answer {
    read::fresh(&admin.bus).await?;
    let found = find(&admin, &named).await?;
    let done = retry::retry(&admin.bus, &caller::identity(), &found, body.to.as_deref()).await;
    answer(found.letter, done)
}

/// Puts a letter away: it is not open any more. It stays in the namespace `_dead_` as long as that keeps it. 409 when
/// it was not open.
#[utoipa::path(post, path = "/api/dead-letters/{id}/discard", operation_id = "dead_letter_discard", tag = "dead-letters", params(("id" = String, Path)), responses((status = 200, description = "the letter as it is now", body = LetterView), Problems))]
pub(in crate::admin) async fn discard_one(
    admin: web::Data<Admin>,
    named: web::Path<String>,
    _: Query<NoParameters>,
) -> Answer {
    read::fresh(&admin.bus).await?;
    // The path has asked for the right to discard any letter, so whether there is this one is no secret.
    let found = read::find(&admin.bus, &named).await?.ok_or_else(|| not_found(&named))?;
    check_reads_one(Some(&found))?;
    let done = retry::discard(&admin.bus, &caller::identity(), &found).await;
    answer(found.letter, done)
}
