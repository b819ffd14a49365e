//! Processes that need somebody, for operators.

use rollbook_core::machine::xbus::query::LogEntry as StoredEntry;
use rollbook_core::xbus::change::{Attention, AttentionStatus, Change};

use super::change;
use super::process::ids;
use crate::bus::error::Fault;
use crate::doors::nats::xbus::proto::control::{PMProcessQueryReply, PMProcessQueryRequest, PMProcessSetStatusRequest};
use crate::doors::nats::xbus::proto::ids::required;
use crate::doors::nats::xbus::proto::process::PMProcess;
use crate::doors::nats::xbus::service::reply::Answer;
use crate::doors::nats::xbus::service::request::Request;
use crate::doors::nats::xbus::service::rows;
use crate::doors::nats::xbus::service::shared::XbusShared;
use crate::doors::nats::xbus::service::stream::ReplyStream;

/// Processes of one read.
const PAGE: usize = 64;
/// Log entries that are told of a process, the oldest ones.
const LOGS_MAX: usize = 64;
/// About the most bytes of one message.
const MESSAGE_BYTES_MAX: usize = 256 * 1024;

/// Streams the processes that failed and fit.
pub(super) async fn query(shared: &XbusShared, request: &Request) -> Result<Answer, Fault> {
    let wanted: PMProcessQueryRequest = request.read()?;
    let named = ids(&wanted.process_ids, "processIDs")?;
    let mut stream = ReplyStream::of(request);
    if !named.is_empty() {
        for part in named.chunks(PAGE) {
            let mut found = Vec::new();
            for id in part {
                found.extend(shared.client.attention(*id).await?);
            }
            if !tell(shared, &wanted, &mut stream, found).await? {
                return Ok(Answer::Silent);
            }
        }
        return Ok(stream.end());
    }
    let mut behind = None;
    loop {
        let found = shared.client.attentions(behind, PAGE).await?;
        let is_last = found.len() < PAGE;
        behind = found.last().map(|row| required(&row.process, "processID")).transpose()?;
        if !tell(shared, &wanted, &mut stream, found).await? {
            return Ok(Answer::Silent);
        }
        if is_last || behind.is_none() {
            return Ok(stream.end());
        }
    }
}

/// Tells those of the processes that fit. Returns `false` when nobody listens any more.
async fn tell(
    shared: &XbusShared,
    wanted: &PMProcessQueryRequest,
    stream: &mut ReplyStream<'_>,
    found: Vec<Attention>,
) -> Result<bool, Fault> {
    let fits = |row: &Attention| {
        row.level >= wanted.level && (wanted.include_closed || row.status() != AttentionStatus::Closed)
    };
    let (mut list, mut bytes) = (Vec::new(), 0_usize);
    for row in found.into_iter().filter(fits) {
        let told = told(shared, wanted, row).await?;
        bytes = bytes.saturating_add(prost::Message::encoded_len(&told));
        list.push(told);
        if bytes >= MESSAGE_BYTES_MAX {
            bytes = 0;
            let pm_process_list = std::mem::take(&mut list);
            if !stream.send(&PMProcessQueryReply { pm_process_list }).await {
                return Ok(false);
            }
        }
    }
    if list.is_empty() {
        return Ok(stream.keep_alive());
    }
    Ok(stream.send(&PMProcessQueryReply { pm_process_list: list }).await)
}

async fn told(shared: &XbusShared, wanted: &PMProcessQueryRequest, row: Attention) -> Result<PMProcess, Fault> {
    let id = required(&row.process, "processID")?;
    let process = shared.client.process(id).await?.map(|process| rows::process(&process));
    let entries: Vec<StoredEntry> =
        if wanted.return_logs { shared.client.logs(id, None, LOGS_MAX).await? } else { Vec::new() };
    let logs = entries.iter().flat_map(|entry| rows::log(&entry.log)).collect();
    Ok(PMProcess { process, level: row.level, status: row.status, comment: row.comment, logs })
}

/// Notes what an operator makes of a process that failed.
pub(super) async fn set_status(shared: &XbusShared, request: &Request) -> Result<Answer, Fault> {
    let PMProcessSetStatusRequest { process_id, status, comment } = request.read()?;
    let id = required(&process_id, "processID")?;
    let status = AttentionStatus::try_from(status).map_err(|_| Fault::bad("there is no such status"))?;
    let mut row = Attention { process: id.to_vec(), comment, ..Attention::default() };
    row.set_status(status);
    change(shared, request, Change::Attention(row)).await?;
    Ok(Answer::Void)
}
