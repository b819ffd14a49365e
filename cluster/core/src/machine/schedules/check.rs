//! Checks of the state in memory, for tests: all that can be computed from other parts is what it should be.

use crate::machine::Machine;
use crate::persistent::Set;
use crate::schedule::limits::{DEFINITIONS_BYTES_MAX, SCHEDULES_MAX};

impl Machine {
    /// Checks schedules.
    ///
    /// # Panics
    /// When an invariant is broken.
    pub(in crate::machine) fn check_schedules(&self) {
        let all = &self.schedules;
        for (name, row) in &all.rows {
            assert_eq!(*name, row.name);
            assert!(row.revision >= 1 && row.revision <= all.revision, "{row:?}");
            assert_eq!(row.definition.check(), Ok(()), "{row:?}");
        }
        let due = all.rows.values().filter_map(|row| Some((row.due()?, row.name.clone())));
        assert_eq!(all.due, due.collect::<Set<_>>());
        assert_eq!(all.definition_bytes, all.rows.values().map(|row| row.definition.bytes()).sum::<usize>());
        assert!(all.definition_bytes <= DEFINITIONS_BYTES_MAX && all.rows.size() <= SCHEDULES_MAX);
    }
}
