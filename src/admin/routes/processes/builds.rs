//! `POST /api/definitions/{id}/builds`: an archive becomes the build of a definition.

#![expect(unused_qualifications, reason = "the macro that describes a handler writes them")]

use actix_web::error::PayloadError;
use actix_web::{HttpResponse, web};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use utoipa::IntoParams;

use super::problem;
use crate::admin::Admin;
use crate::admin::caller;
use crate::admin::common::Answer;
use crate::admin::operation::checked;
use crate::admin::problem::{Problem, Problems};
use crate::admin::query::Query;
use crate::admin::resource::resource;
use crate::base::actors::hint;
use crate::bus::docks::builds::deploy::Deployed;
use crate::bus::docks::builds::folders::ReceiveError;

pub(super) fn mount(services: &mut web::ServiceConfig) {
    services.service(
        resource("/api/definitions/{id}/builds", [checked("POST", "process.deploy")]).route(web::post().to(deploy)),
    );
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct BuildQuery {
    /// What is deployed, as text: a commit or a version.
    revision: Option<String>,
}

/// Deploys an archive: a gzipped tar, which is the body. The answer is one JSON object in a line for each piece of output
/// of the build, `{"output":"..."}`, and at last `{"deployed":"stored"}`, `{"deployed":"built"}` or `{"error":"..."}`.
/// Docks get the build with a sync.
#[utoipa::path(post, path = "/api/definitions/{id}/builds", operation_id = "process_deploy", tag = "processes", params(("id" = String, Path), BuildQuery), responses((status = 200, description = "lines of JSON while the archive is built"), Problems))]
pub(in crate::admin) async fn deploy(
    admin: web::Data<Admin>,
    id: web::Path<String>,
    Query(query): Query<BuildQuery>,
    body: web::Payload,
) -> Answer {
    let (who, id) = (caller::identity(), id.into_inner());
    let definition = admin.docks.check_deploy(&who, &id).await.map_err(|fault| problem(&id, fault))?;
    let folder = admin.docks.build_folders().open_upload()?;
    let limits = admin.docks.build_folders().limits();
    let received = tokio::time::timeout(limits.upload_timeout, folder.receive(body)).await;
    let received = received.map_err(|_| Problem::new(408, "bad_request", "the archive did not arrive in time"))?;
    let archive = received.map_err(not_received)?;
    let (output, came) = mpsc::channel::<Bytes>(8);
    let (docks, revision) = (admin.docks.clone(), query.revision.unwrap_or_default());
    let (ended, end) = oneshot::channel();
    // The task ends with the reader of the answer, because a build whose output nobody takes is ended.
    actix_web::rt::spawn(async move {
        let deployed = docks.deploy(&who, (&definition, &revision), (&folder, archive), &output).await;
        drop(output);
        let last = match deployed {
            Ok(Deployed::Stored) => json!({ "deployed": "stored" }),
            Ok(Deployed::Built) => json!({ "deployed": "built" }),
            Ok(Deployed::Failed(why)) => json!({ "error": why }),
            Err(fault) => json!({ "error": fault.text }),
        };
        hint(ended, last);
    });
    let pieces = stream::unfold(came, |mut came| async move {
        let piece = came.recv().await?;
        Some((line(json!({ "output": String::from_utf8_lossy(&piece) })), came))
    });
    let last = stream::once(async move { line(end.await.unwrap_or_else(|_| json!({ "error": "the node stops" }))) });
    let lines = pieces.chain(last);
    Ok(HttpResponse::Ok().content_type("application/x-ndjson").streaming(lines.map(Ok::<_, actix_web::Error>)))
}

fn line(value: Value) -> Bytes {
    Bytes::from(format!("{value}\n"))
}

fn not_received(error: ReceiveError<PayloadError>) -> Problem {
    match error {
        ReceiveError::TooLarge(most) => Problem::new(413, "too_large", format!("an archive has at most {most} bytes")),
        ReceiveError::Disk(error) => Problem::storage(error.to_string()),
        ReceiveError::Body(error) => Problem::bad(format!("the archive did not arrive: {error}")),
    }
}
