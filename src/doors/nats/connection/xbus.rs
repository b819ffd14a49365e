//! Calls of Xbus: handed to the service, which answers on the reply subject.

use std::task::Context as Task;

use super::{Connection, Stage};
use crate::bus::error::Fault;
use crate::bus::live::message::LiveMessage;
use crate::doors::nats::xbus::service::request::Caller;
use crate::doors::nats::xbus::subject::Called;

impl Connection {
    /// Answers a call.
    ///
    /// # Errors
    /// The client may not make the call, or calls too much.
    pub(super) fn call_xbus(
        &mut self,
        called: Called,
        message: &LiveMessage,
        task: &mut Task<'_>,
    ) -> Result<(), Fault> {
        let Stage::Open(client) = &mut self.stage else { return Ok(()) };
        client.live.access().identity().check_live_publish(&message.subject)?;
        client.live.count(message.bytes())?;
        let caller = Caller { access: client.live.access().clone(), connection: self.number };
        client.calls.begin(self.context.xbus.answer(caller, called, message), message.bytes(), task);
        Ok(())
    }
}
