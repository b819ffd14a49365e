//! Retention: the leader proposes what every node takes out of sight.

use rollbook_core::command::{Command, Trim};
use rollbook_core::namespace::Head;

use crate::error::ReadError;
use crate::settle::trim_point;
use crate::state::State;

/// The trims that are due at `now`, milliseconds since 1970.
pub(crate) fn due(state: &State, now: u64) -> Result<Vec<Command>, ReadError> {
    let limited = |head: &&Head| !head.deleted && !head.retention.is_unlimited() && head.events() > 0;
    let heads: Vec<Head> = state.machine().heads().filter(limited).cloned().collect();
    let mut commands = Vec::new();
    for head in heads {
        if let Some((first, bytes_first)) = trim_point(state, &head, now)? {
            commands.push(Command::Trim(Trim { name: head.name, first, bytes_first }));
        }
    }
    Ok(commands)
}
