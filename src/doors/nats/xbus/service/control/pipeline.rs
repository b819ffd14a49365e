//! Pipelines, for operators.

use std::sync::Arc;

use rollbook_core::machine::xbus::state::Pipeline;
use rollbook_core::xbus::change::{Change, PipelineSave, PipelineStatusSet};
use rollbook_core::xbus::pipeline::graph::Graph;
use rollbook_core::xbus::pipeline::version::PipelineStatus;

use super::change;
use crate::base::fault::FaultKind;
use crate::bus::error::Fault;
use crate::bus::xbus::actor_calls::new_id;
use crate::bus::xbus::yaml;
use crate::doors::nats::xbus::proto::control::{
    PipelineQueryReply, PipelineQueryRequest, PipelineSaveReply, PipelineSaveRequest, PipelineSetStatusReply,
};
use crate::doors::nats::xbus::proto::ids::optional;
use crate::doors::nats::xbus::proto::log::StringReply;
use crate::doors::nats::xbus::proto::process::PipelineInfo;
use crate::doors::nats::xbus::service::reply::Answer;
use crate::doors::nats::xbus::service::request::Request;
use crate::doors::nats::xbus::service::rows;
use crate::doors::nats::xbus::service::shared::XbusShared;

/// The version that a message names, by id or by name and version.
fn named(shared: &XbusShared, info: &PipelineInfo) -> Result<Arc<Pipeline>, Fault> {
    let id = optional(&info.id, "id of the pipeline").map_err(|fault| Fault::bad(fault.to_string()))?;
    let found = shared.client.look(|xbus| match id {
        Some(id) => xbus.pipeline(id).cloned(),
        None => xbus.pipeline_named(&info.name, &info.version).cloned(),
    });
    found.ok_or_else(|| Fault::new(FaultKind::NotFound, "there is no such version of a pipeline"))
}

pub(super) fn query(shared: &XbusShared, request: &Request) -> Result<Answer, Fault> {
    let PipelineQueryRequest { name } = request.read()?;
    let pipeline_list = shared.client.look(|xbus| {
        let wanted = xbus.pipelines().filter(|pipeline| name.is_empty() || pipeline.row.name == name);
        wanted.map(|pipeline| rows::pipeline(&pipeline.row)).collect()
    });
    Ok(request.message(&PipelineQueryReply { pipeline_list }))
}

/// Saves a draft. A text that is no pipeline is not saved, and the answer says what is wrong.
pub(super) async fn save(shared: &XbusShared, request: &Request) -> Result<Answer, Fault> {
    let PipelineSaveRequest { info, graph } = request.read()?;
    let info = info.ok_or_else(|| Fault::bad("info is missing"))?;
    let document = match yaml::read(&graph) {
        Ok(document) => document,
        Err(error) => {
            let validation_messages = vec![error.to_string()];
            let reply = PipelineSaveReply { info: Some(info), graph, is_valid: false, validation_messages };
            return Ok(request.message(&reply));
        }
    };
    let (name, version) = (info.name, info.version);
    let save = PipelineSave { id: new_id().to_vec(), name, version, source: graph, document };
    let done = change(shared, request, Change::PipelineSave(save)).await?;
    let done = done.pipeline.ok_or_else(|| Fault::internal("the rules say nothing of the pipeline"))?;
    Ok(request.message(&PipelineSaveReply {
        info: Some(rows::pipeline(&done.row)),
        is_valid: done.faults.is_empty(),
        validation_messages: done.faults,
        graph: done.row.source,
    }))
}

/// Gives a version another status. One with faults does not become active, and the answer says what is wrong.
pub(super) async fn set_status(shared: &XbusShared, request: &Request) -> Result<Answer, Fault> {
    let info: PipelineInfo = request.read()?;
    let present = named(shared, &info)?;
    let status = PipelineStatus::try_from(info.status).map_err(|_| Fault::bad("there is no such status"))?;
    let faults = if status == PipelineStatus::Active && present.graph.is_none() {
        Graph::parse(&present.row.document).err().unwrap_or_default()
    } else {
        Vec::new()
    };
    if !faults.is_empty() {
        let validation_messages = faults.iter().map(ToString::to_string).collect();
        let info = Some(rows::pipeline(&present.row));
        return Ok(request.message(&PipelineSetStatusReply { info, is_valid: false, validation_messages }));
    }
    let wish = PipelineStatusSet { id: present.row.id.clone(), status: status.into() };
    let done = change(shared, request, Change::PipelineStatus(wish)).await?;
    let done = done.pipeline.ok_or_else(|| Fault::internal("the rules say nothing of the pipeline"))?;
    let info = Some(rows::pipeline(&done.row));
    Ok(request.message(&PipelineSetStatusReply { info, is_valid: true, validation_messages: Vec::new() }))
}

pub(super) fn graph(shared: &XbusShared, request: &Request) -> Result<Answer, Fault> {
    let info: PipelineInfo = request.read()?;
    let value = named(shared, &info)?.row.source.clone();
    Ok(request.message(&StringReply { value }))
}
