//! `GET /api/definitions/{id}/logs` and `GET /api/processes/logs`: output of processes as it comes, as server-sent events.

use std::time::Duration;

use actix_web::{HttpResponse, web};
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use serde_json::{Value, json};

use super::problem;
use crate::admin::Admin;
use crate::admin::caller;
use crate::admin::common::Answer;
use crate::admin::operation::{Need, get_for};
use crate::admin::problem::{Problem, Problems};
use crate::admin::query::{NoParameters, Query};
use crate::admin::resource::resource;
use crate::bus::docks::output::{Output, OutputKind};
use crate::bus::docks::tail::{Tail, TailItem};

/// Silence after which a comment shows that the stream lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(super) fn mount(services: &mut web::ServiceConfig) {
    services
        .service(resource("/api/definitions/{id}/logs", [get_for(Need::Caller)]).route(web::get().to(one)))
        .service(resource("/api/processes/logs", [get_for(Need::Caller)]).route(web::get().to(all)));
}

/// The output of a process from now on, on all docks. Server-sent events: `stdout` and `stderr` with `text`, `spawn` with
/// `pid`, `exit` with `code`, and `dropped` with `messages` that were not read in time; each with `definition` and `dock`.
#[utoipa::path(get, path = "/api/definitions/{id}/logs", operation_id = "process_logs", tag = "processes", params(("id" = String, Path)), responses((status = 200, description = "a stream of server-sent events"), Problems))]
pub(in crate::admin) async fn one(admin: web::Data<Admin>, id: web::Path<String>, _: Query<NoParameters>) -> Answer {
    let tail = admin.docks.tail(caller::identity(), Some(&id)).await.map_err(|fault| problem(&id, fault))?;
    Ok(answer(tail))
}

/// The output of all processes that the caller may see, from now on. The events are those of one process.
#[utoipa::path(get, path = "/api/processes/logs", operation_id = "processes_logs", tag = "processes", responses((status = 200, description = "a stream of server-sent events"), Problems))]
pub(in crate::admin) async fn all(admin: web::Data<Admin>, _: Query<NoParameters>) -> Answer {
    let tail = admin.docks.tail(caller::identity(), None).await.map_err(Problem::from)?;
    Ok(answer(tail))
}

fn answer(tail: Tail) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header(("Cache-Control", "no-store"))
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(events(tail))
}

fn events(tail: Tail) -> impl Stream<Item = Result<Bytes, actix_web::Error>> {
    stream::unfold(Some((tail, true)), |state| async move {
        let (mut tail, first) = state?;
        if first {
            return Some((Ok(Bytes::from_static(b": follows\n\n")), Some((tail, false))));
        }
        let frame = match tokio::time::timeout(KEEP_ALIVE, tail.next()).await {
            Err(_) => Bytes::from_static(b": alive\n\n"),
            Ok(TailItem::End) => return None,
            Ok(TailItem::Dropped(messages)) => event("dropped", &json!({ "messages": messages })),
            Ok(TailItem::Output(output)) => frame(&output),
        };
        Some((Ok(frame), Some((tail, false))))
    })
}

fn frame(output: &Output) -> Bytes {
    let Output { kind, id, dock, data, .. } = output;
    let parsed = || serde_json::from_slice::<Value>(data).unwrap_or_default();
    let (name, member, value) = match kind {
        OutputKind::Stdout => ("stdout", "text", String::from_utf8_lossy(data).into()),
        OutputKind::Stderr => ("stderr", "text", String::from_utf8_lossy(data).into()),
        OutputKind::Spawn => ("spawn", "pid", parsed()),
        OutputKind::Exit => ("exit", "code", parsed()),
    };
    event(name, &json!({ "definition": id, "dock": dock, member: value }))
}

fn event(name: &str, data: &Value) -> Bytes {
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}
