//! The changes of schedules, and the condition of a publish that is a tick.

use alloc::string::String;
use alloc::vec::Vec;

use prost::Message as _;

use super::definition::ScheduleDefinition;

/// One change: the body of one command of the log.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ScheduleChange {
    /// When set, the change applies only if the schedule has this revision. 0: the schedule does not exist.
    #[prost(uint64, optional, tag = "1")]
    pub if_revision: Option<u64>,
    /// What is changed.
    #[prost(oneof = "Change", tags = "2, 3, 4")]
    pub change: Option<Change>,
}

/// What is changed. Tags are never reused.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum Change {
    /// A schedule is added, or its definition is replaced.
    #[prost(message, tag = "2")]
    Set(ScheduleSet),
    /// A schedule is removed, by name.
    #[prost(string, tag = "3")]
    Delete(String),
    /// Ticks pass without an event.
    #[prost(message, tag = "4")]
    Skip(Tick),
}

/// The body of [`Change::Set`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ScheduleSet {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What is published, and when.
    #[prost(message, required, tag = "2")]
    pub definition: ScheduleDefinition,
    /// The first tick of the definition, milliseconds since 1970. When the schedule has the same ticks already, the tick
    /// that it waits for stays.
    #[prost(uint64, tag = "3")]
    pub next: u64,
}

/// Which tick of a schedule happens: the condition of a publish, or the ticks that pass without one.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Tick {
    /// Name of the schedule.
    #[prost(string, tag = "1")]
    pub schedule: String,
    /// The revision of the schedule that the proposer knew.
    #[prost(uint64, tag = "2")]
    pub revision: u64,
    /// The tick that the proposer knew as the next one, milliseconds since 1970.
    #[prost(uint64, tag = "3")]
    pub from: u64,
    /// The tick that happens: `from`, or the newest one of those that were missed.
    #[prost(uint64, tag = "4")]
    pub tick: u64,
    /// The tick behind.
    #[prost(uint64, tag = "5")]
    pub next: u64,
    /// Number of ticks that have no event of their own.
    #[prost(uint64, tag = "6")]
    pub missed: u64,
}

impl Tick {
    /// The bytes for [`crate::entry::put_tick`].
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_what_it_was_before_it_was_stored() {
        let definition = ScheduleDefinition {
            subject: "app.tick".into(),
            payload: Some(b"{}".to_vec()),
            every_ms: 1000,
            ..ScheduleDefinition::default()
        };
        let tick = Tick { schedule: "s".into(), revision: 3, from: 1, tick: 2, next: 3, missed: 1 };
        let all = [
            Change::Set(ScheduleSet { name: "s".into(), definition, next: 7 }),
            Change::Delete("s".into()),
            Change::Skip(tick),
        ];
        for change in all {
            let change = ScheduleChange { if_revision: Some(3), change: Some(change) };
            assert_eq!(ScheduleChange::decode(&change.encode_to_vec()[..]), Ok(change));
        }
    }
}
