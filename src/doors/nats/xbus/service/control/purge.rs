//! What is removed that ended long ago: envelopes and log entries.

use rollbook_core::xbus::change::{Change, Expire};

use super::change;
use crate::base::clock;
use crate::bus::error::Fault;
use crate::doors::nats::xbus::proto::control::{LogsPurgeReply, LogsPurgeRequest, TaskProgress};
use crate::doors::nats::xbus::service::reply::Answer;
use crate::doors::nats::xbus::service::request::Request;
use crate::doors::nats::xbus::service::shared::XbusShared;
use crate::doors::nats::xbus::service::stream::ReplyStream;

/// Removes what is known of all envelopes that have ended, as long as they are older than every process that goes on.
pub(super) async fn envelopes(shared: &XbusShared, request: &Request) -> Result<Answer, Fault> {
    let (mut stream, before, mut removed) = (ReplyStream::of(request), Expire { millis: clock::millis() }, 0_u64);
    loop {
        let done = change(shared, request, Change::EnvelopesPurge(before)).await?;
        removed = removed.saturating_add(done.count);
        let progression = u32::try_from(removed).unwrap_or(u32::MAX);
        // How many are left is not known: one step at least.
        let max_progression = progression.saturating_add(u32::from(done.more));
        let message = format!("removed {removed} envelopes");
        if !stream.send(&TaskProgress { message, progression, max_progression }).await {
            return Ok(Answer::Silent);
        }
        if !done.more {
            return Ok(stream.end());
        }
    }
}

/// Removes the log entries before a time. Each message says how many were removed so far.
pub(super) async fn logs(shared: &XbusShared, request: &Request) -> Result<Answer, Fault> {
    let LogsPurgeRequest { before } = request.read()?;
    let before = before.ok_or_else(|| Fault::bad("before is missing"))?;
    let (mut stream, before, mut removed) = (ReplyStream::of(request), Expire { millis: before.millis() }, 0_u64);
    loop {
        let done = change(shared, request, Change::LogsPurge(before)).await?;
        removed = removed.saturating_add(done.count);
        let count = i64::try_from(removed).unwrap_or(i64::MAX);
        if !stream.send(&LogsPurgeReply { count }).await {
            return Ok(Answer::Silent);
        }
        if !done.more {
            return Ok(stream.end());
        }
    }
}
