//! `/api/audit`: who changed what, and what was refused to whom, out of the book.

#![expect(unused_qualifications, reason = "the macro that describes a handler writes them")]

use std::collections::VecDeque;
use std::ops::ControlFlow;

use actix_web::web;
use rollbook_core::subjects::pattern::Pattern;
use rollbook_core::subjects::subject::Namespace;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::IntoParams;

use crate::admin::Admin;
use crate::admin::common::Answer;
use crate::admin::operation::get;
use crate::admin::page::{self, Page};
use crate::admin::problem::{Problem, Problems, resource};
use crate::admin::query::Query;
use crate::bus::read::event_json;

/// How many events one request looks at, newest first.
const DEPTH: u64 = 100_000;

pub(super) fn mount(services: &mut web::ServiceConfig) {
    services.service(resource("/api/audit", [get("audit")]).route(web::get().to(list)));
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct AuditQuery {
    /// Most events; 100 by default.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// Only events before this index: the index of the last event of the page before.
    before: Option<u64>,
    /// Only what this principal did or was refused.
    principal: Option<String>,
    /// Only this area, or this area and change: `security`, `security.role_set`, `denied`.
    what: Option<String>,
    /// How fresh the answer is: `linearizable`, which is the default, `leader` or `stale`.
    #[serde(rename = "consistency")]
    _consistency: Option<String>,
}

#[derive(Deserialize)]
struct WhoJson<'a> {
    #[serde(borrow)]
    principal: std::borrow::Cow<'a, str>,
}

/// Whether an event is about this principal.
fn is_of(payload: Option<&[u8]>, principal: &str) -> bool {
    let who = payload.and_then(|payload| serde_json::from_slice::<WhoJson<'_>>(payload).ok());
    who.is_some_and(|who| who.principal == principal)
}

/// The newest events of the audit, newest first. They are events of the namespace `_audit`, which can be followed as any
/// other.
#[utoipa::path(get, path = "/api/audit", operation_id = "audit", tag = "security", params(AuditQuery), responses((status = 200, description = "events of the namespace _audit", body = List<Object>), Problems))]
pub(in crate::admin) async fn list(admin: web::Data<Admin>, Query(query): Query<AuditQuery>) -> Answer {
    let limit = Page::new("audit", query.limit, None)?.limit();
    let what = query.what.as_deref().map_or(">".to_owned(), |what| format!("{what}.>"));
    let invalid = |_| Problem::bad("what: an area as security, or an area and a change as security.role_set");
    let pattern = Pattern::parse(&format!("{}.{what}", Namespace::AUDIT)).map_err(invalid)?;
    let state = admin.bus.node().state();
    let (book, head) = (state.book(), state.namespace(Namespace::AUDIT));
    let read = move || {
        let Some(head) = head else { return Ok(VecDeque::new()) };
        let mut found: VecDeque<Vec<u8>> = VecDeque::new();
        let end = query.before.unwrap_or(head.next).clamp(head.first, head.next);
        let mut from = end.saturating_sub(DEPTH).max(head.first);
        while from < end {
            let before = from;
            from = book.read(Namespace::AUDIT, from, Some(&pattern), &mut |sequence, event, _| {
                if sequence >= end {
                    return ControlFlow::Break(());
                }
                if query.principal.as_deref().is_none_or(|principal| is_of(event.payload, principal)) {
                    let mut json = Vec::new();
                    event_json::write(i64::try_from(sequence).unwrap_or(i64::MAX), event, &mut json);
                    found.push_front(json);
                    found.truncate(limit);
                }
                ControlFlow::Continue(())
            })?;
            if from == before {
                break;
            }
        }
        Ok(found)
    };
    let found = admin.bus.read(read).await?;
    let parse = |json: Vec<u8>| RawValue::from_string(String::from_utf8(json).ok()?).ok();
    let items: Vec<Box<RawValue>> = found.into_iter().filter_map(parse).collect();
    Ok(page::whole(items))
}
