//! `/api/xbus/actors/{actor}/output`: an operator sends an envelope in the name of an actor.

#![expect(unused_qualifications, reason = "the macro that describes a handler writes them")]

use actix_web::{HttpResponse, web};
use rollbook_core::security::right::Verb;
use rollbook_core::xbus::envelope::assembly::Ack;
use rollbook_core::xbus::id::Id;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::common::{actor, fresh, look, text};
use crate::admin::Admin;
use crate::admin::body::{Object, at_most};
use crate::admin::caller::check;
use crate::admin::common::Answer;
use crate::admin::operation::write;
use crate::admin::problem::{Problem, Problems};
use crate::admin::query::Query;
use crate::admin::resource::resource;
use crate::bus::error::Fault;
use crate::bus::xbus::actor_calls::{self, check_sender};
use crate::bus::xbus::envelopes::json::body::OutputBody;

/// The right, apart from that to change the actor.
const RIGHT: &str = "xbus/actors/{actor}/output";
/// Largest body, bytes.
const BODY_BYTES_MAX: usize = 8 << 20;

pub(super) fn mount(services: &mut web::ServiceConfig) {
    services.service(
        resource("/api/xbus/actors/{actor}/output", [write("POST", "xbus.actor_output", Verb::AdminWrite, RIGHT)])
            .app_data(at_most(BODY_BYTES_MAX))
            .route(web::post().to(output)),
    );
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct OutputQuery {
    /// Name of the output; `default` when nothing is said.
    output: Option<String>,
}

/// An envelope in the JSON of the specification page of Xbus. Ids, counts and checksums may be left out when the envelope
/// comes in one piece.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = Object, example = json!({ "events": [{ "type": "order", "items": ["one", "two"] }] }))]
pub(in crate::admin) struct EnvelopeJson(serde_json::Map<String, Value>);

/// What became of an envelope that was sent.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct SentView {
    /// Id of the envelope; empty when an output was closed.
    id: String,
    /// `receiving` or `accepted`.
    reception_status: &'static str,
}

/// Sends an envelope in the name of an actor, as its program would. An envelope that is itself at fault is refused with
/// 422.
#[utoipa::path(post, path = "/api/xbus/actors/{actor}/output", operation_id = "xbus_actor_output", tag = "xbus", params(("actor" = String, Path), OutputQuery), request_body = EnvelopeJson, responses((status = 200, description = "the id of the envelope", body = SentView), Problems))]
pub(in crate::admin) async fn output(
    admin: web::Data<Admin>,
    named: web::Path<String>,
    Query(query): Query<OutputQuery>,
    Object(body): Object<EnvelopeJson>,
) -> Answer {
    fresh(&admin).await?;
    let row = actor(&admin, &named, Verb::AdminRead)?;
    check(Verb::AdminWrite, &format!("xbus/actors/{}/output", row.name))?;
    look(&admin, |xbus| check_sender(xbus, &row))?;
    let bytes = Value::Object(body.0).to_string();
    let mut body = OutputBody::read_whole(bytes.as_bytes()).map_err(Fault::from)?;
    if let Some(output) = &query.output {
        body = body.with_output(output);
    }
    let id = Id::from_slice(&row.id).map_err(|error| Problem::storage(error.to_string()))?;
    let (id, ack) = actor_calls::output(&admin.xbus, id, body).await?;
    let reception_status = match ack {
        Ack::Receiving => "receiving",
        Ack::Accepted => "accepted",
        Ack::Error(reason) => return Err(Problem::new(422, "envelope", reason)),
    };
    let id = id.map(|id| text(id.as_bytes())).unwrap_or_default();
    Ok(HttpResponse::Ok().json(SentView { id, reception_status }))
}
