//! Checks of the state in memory, for tests: all that can be computed from other parts is what it should be.

use alloc::collections::BTreeSet;

use super::state::Docks;
use crate::dock::limits::{BUILDS_BYTES_MAX, BUILDS_KEPT, BUILDS_OPEN_MAX, DEFINITIONS_MAX, DOCUMENTS_BYTES_MAX};
use crate::machine::Machine;

impl Machine {
    /// Checks definitions and builds.
    ///
    /// # Panics
    /// When an invariant is broken.
    pub(in crate::machine) fn check_docks(&self) {
        self.docks.check_definitions();
        self.docks.check_builds();
    }
}

impl Docks {
    fn check_definitions(&self) {
        for (key, row) in &self.definitions {
            assert_eq!(*key, row.id);
            assert_eq!(self.order.get(&row.added), Some(key), "{row:?}");
            let build = row.build_id().map(|id| self.build(&id).expect("the build of a definition is there"));
            let newest = self.builds_of(key).filter(|build| !build.is_open()).last();
            assert_eq!(build, newest, "{row:?}");
        }
        assert_eq!(self.order.size(), self.definitions.size());
        assert_eq!(self.document_bytes, self.definitions.values().map(|row| row.document.len()).sum::<usize>());
        assert!(self.document_bytes <= DOCUMENTS_BYTES_MAX && self.definitions.size() <= DEFINITIONS_MAX);
    }

    fn check_builds(&self) {
        let (mut of, mut open) = (BTreeSet::new(), BTreeSet::new());
        for (key, row) in &self.builds {
            assert_eq!(*key, row.id());
            let definition = self.definition(&row.definition).expect("a build outlived its definition");
            assert!(row.revision <= definition.revision, "{row:?}");
            of.insert((row.definition.clone(), row.revision, *key));
            if row.is_open() {
                open.insert((row.touched_at, *key));
            }
            let finished = self.builds_of(&row.definition).filter(|build| !build.is_open()).count();
            assert!(finished <= BUILDS_KEPT, "{finished} finished builds of {}", row.definition);
        }
        assert_eq!(of, self.of.iter().cloned().collect());
        assert_eq!(open, self.open.iter().copied().collect());
        assert_eq!(self.build_bytes, self.builds.values().map(|row| row.bytes).sum::<u64>());
        assert!(self.build_bytes <= BUILDS_BYTES_MAX && open.len() <= BUILDS_OPEN_MAX);
    }
}
