//! `POST /api/definitions/{id}/builds`: an archive becomes the build of a definition.

#![expect(unused_qualifications, reason = "the macro that describes a handler writes them")]

use std::io;
use std::time::Duration;

use actix_web::{HttpResponse, web};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt as _;
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
use crate::bus::docks::builds::folders::UploadFolder;

/// Longest time that an archive may take to arrive.
const ARRIVAL_MAX: Duration = Duration::from_secs(15 * 60);

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
    let most = admin.docks.build_folders().limits().archive_bytes_max;
    let kept = tokio::time::timeout(ARRIVAL_MAX, keep(body, &folder, most)).await;
    let archive = kept.map_err(|_| Problem::new(408, "bad_request", "the archive did not arrive in time"))??;
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

async fn keep(mut body: web::Payload, folder: &UploadFolder, most: u64) -> Result<NamedTempFile, Problem> {
    let disk = |error: io::Error| Problem::storage(error.to_string());
    let file = folder.file().map_err(disk)?;
    let mut writer = tokio::fs::File::from_std(file.reopen().map_err(disk)?);
    let mut written = 0_u64;
    while let Some(bytes) = body.next().await {
        let bytes = bytes.map_err(|error| Problem::bad(format!("the archive did not arrive: {error}")))?;
        written = written.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if written > most {
            return Err(Problem::new(413, "bad_request", format!("an archive has at most {most} bytes")));
        }
        writer.write_all(&bytes).await.map_err(disk)?;
    }
    writer.flush().await.map_err(disk)?;
    Ok(file)
}
