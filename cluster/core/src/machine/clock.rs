//! Sets the time of the log back after a leader with a wrong clock took it ahead.

use alloc::vec::Vec;

use super::{META_MILLIS, Machine};
use crate::command::{ClockSet, Done, Reply};
use crate::rows::{Family, Writes};
use crate::service::Service;

impl Machine {
    /// Continues with an earlier time. Stored events keep their times. Services in their grace time and open builds wait
    /// as long as they would have without the change.
    pub(super) fn clock_set(&mut self, set: ClockSet, writes: &mut Writes) -> Reply {
        let back = self.millis.saturating_sub(set.millis);
        if back == 0 {
            return Ok(Done::Nothing);
        }
        self.millis = set.millis;
        writes.put(Family::Meta, META_MILLIS.into(), self.millis.to_be_bytes().into());
        let waiting: Vec<Service> = self.services.due.iter().filter_map(|(_, id)| self.service(id)).cloned().collect();
        for mut service in waiting {
            // 0 would mean that the service has no grace time.
            service.offline_at = service.offline_at.saturating_sub(back).max(1);
            self.save_service(service, writes);
        }
        self.set_builds_back(back, writes);
        Ok(Done::Nothing)
    }
}
