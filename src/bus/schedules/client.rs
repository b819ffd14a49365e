//! Schedules as this node has applied them, and the way to change them.

use std::borrow::Cow;
use std::sync::Arc;

use rollbook_core::command::Command;
use rollbook_core::error::Refusal;
use rollbook_core::machine::schedules::state::Schedules;
use rollbook_core::schedule::change::{Change, ScheduleSet};
use rollbook_core::schedule::definition::{ScheduleDefinition, is_schedule_name};
use rollbook_core::schedule::limits::NAME_BYTES_MAX;
use rollbook_core::schedule::row::ScheduleRow;
use rollbook_core::security::actor::Actor;
use serde_json::value::RawValue;

use super::event::{self, OWN_HEADERS};
use super::ticks::Ticks;
use crate::base::clock;
use crate::bus::access::Access;
use crate::bus::error::Fault;
use crate::bus::handle::Bus;
use crate::bus::security::identity::Identity;
use crate::bus::write::draft::{Draft, Published};

/// Reads and changes schedules. Clones share one state.
#[derive(Debug, Clone)]
pub struct ScheduleClient {
    access: Access,
}

impl ScheduleClient {
    /// The client of this access to the book.
    #[must_use]
    pub const fn new(access: Access) -> Self {
        Self { access }
    }

    fn bus(&self) -> &Bus {
        self.access.bus()
    }

    /// Looks at the state. The look must be short: entries are not applied meanwhile.
    pub fn look<T>(&self, look: impl FnOnce(&Schedules) -> T) -> T {
        self.bus().node().state().with_machine(|machine| look(machine.schedules()))
    }

    /// A schedule.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<ScheduleRow>> {
        self.look(|schedules| schedules.get(name).cloned())
    }

    /// The next ticks of a schedule, at most `count`, milliseconds since 1970.
    #[must_use]
    pub fn next_ticks(row: &ScheduleRow, count: usize) -> Vec<u64> {
        let Ok(ticks) = Ticks::of(&row.definition) else { return Vec::new() };
        std::iter::successors(Some(row.next), |tick| ticks.after(*tick)).take(count).collect()
    }

    /// Sets a schedule that [`ScheduleClient::check`] has found good.
    ///
    /// # Errors
    /// The rules refuse the change, or the cluster cannot make it now.
    pub async fn set(&self, set: ScheduleSet, if_revision: Option<u64>, actor: Actor) -> Result<(), Refusal> {
        self.change(if_revision, Change::Set(set), actor).await
    }

    /// Deletes a schedule. What it has published stays.
    ///
    /// # Errors
    /// The rules refuse the change, or the cluster cannot make it now.
    pub async fn delete(&self, name: String, if_revision: Option<u64>, actor: Actor) -> Result<(), Refusal> {
        self.change(if_revision, Change::Delete(name), actor).await
    }

    async fn change(&self, if_revision: Option<u64>, change: Change, actor: Actor) -> Result<(), Refusal> {
        let command = Command::schedule(if_revision, change);
        self.bus().proposer().command_of(command, actor).await.map(drop)
    }

    /// Checks what the rules do not know about, and the right of a client to publish the events.
    ///
    /// # Errors
    /// What is wrong with name or definition, or the client may not publish to the subject.
    pub fn check(
        &self,
        identity: &Identity,
        name: String,
        definition: ScheduleDefinition,
    ) -> Result<ScheduleSet, Fault> {
        if !is_schedule_name(&name) {
            let text = format!("the name of a schedule is 1 to {NAME_BYTES_MAX} letters, digits, '-', '_' and '.'");
            return Err(Fault::bad(text));
        }
        definition.check().map_err(Fault::bad)?;
        let is_own =
            |name: &str| name.get(..OWN_HEADERS.len()).is_some_and(|start| start.eq_ignore_ascii_case(OWN_HEADERS));
        if let Some(header) = definition.headers.iter().find(|header| is_own(&header.name)) {
            return Err(Fault::bad(format!("headers: {} is one that the bus adds", header.name)));
        }
        identity.check_publish(&definition.subject)?;
        // An event that could not be published now could not be later.
        draft(&name, &definition)?.publish(clock::timestamp(), &|namespace| self.access.is_writable(namespace))?;
        let ticks = Ticks::of(&definition)?;
        let never = || Fault::bad(format!("cron: {:?} matches no day of the next years", definition.cron));
        let next = ticks.after(self.bus().node().state().log_time()).ok_or_else(never)?;
        Ok(ScheduleSet { name, definition, next })
    }

    /// Publishes one event of a schedule now, in the name of a client. It is no tick.
    ///
    /// # Errors
    /// The client may not publish it, or it is not stored.
    pub async fn run(&self, identity: Arc<Identity>, row: &ScheduleRow) -> Result<Published, Fault> {
        let draft = draft(&row.name, &row.definition)?;
        let parsed = draft.publish(clock::timestamp(), &|namespace| self.access.is_writable(namespace))?;
        let published = self.access.of(identity).publish(parsed).await?;
        published.ok_or_else(|| Fault::internal("a single event has no answer"))
    }
}

/// One event of a schedule that is no tick.
fn draft<'a>(name: &str, definition: &'a ScheduleDefinition) -> Result<Draft<'a>, Fault> {
    let read = |payload: &'a Vec<u8>| serde_json::from_slice::<&RawValue>(payload);
    let payload = definition.payload.as_ref().map(read).transpose();
    let payload = payload.map_err(|error| Fault::bad(format!("payload: {error}")))?.map(Cow::Borrowed);
    let headers = event::headers(definition, name, None).map_err(|error| Fault::bad(format!("headers: {error}")))?;
    Ok(Draft { subject: Cow::Borrowed(&definition.subject), headers, payload, ..Draft::default() })
}
