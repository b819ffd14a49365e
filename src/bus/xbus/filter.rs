//! Which processes somebody asks for.

use rollbook_core::xbus::id::Id;
use rollbook_core::xbus::process::row::{ProcessRow, ProcessStatus};

/// Which processes somebody asks for. Of each list one has to fit; an empty list fits all.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ProcessFilter {
    /// The processes themselves.
    pub ids: Vec<Id>,
    /// Their status.
    pub statuses: Vec<ProcessStatus>,
    /// The versions of pipelines; `None`: any, and an empty list: no process fits.
    pub pipelines: Option<Vec<Id>>,
    /// The emitters of the envelopes with which they began.
    pub emitters: Vec<Id>,
    /// The envelopes with which they began.
    pub triggers: Vec<Id>,
    /// Envelopes that came to a node of theirs, or went out of one.
    pub envelopes: Vec<Id>,
    /// Their status changed at this time or later, milliseconds since 1970.
    pub changed_from: u64,
    /// Their status changed before this time; `None`: whenever.
    pub changed_to: Option<u64>,
}

impl ProcessFilter {
    /// Whether a process fits.
    #[must_use]
    pub fn fits(&self, process: &ProcessRow) -> bool {
        let one_of = |wanted: &[Id], id: &[u8]| {
            wanted.is_empty() || wanted.iter().any(|wanted| wanted.as_bytes().as_slice() == id)
        };
        let pipeline = |wanted: &Vec<Id>| wanted.iter().any(|wanted| wanted.as_bytes().as_slice() == process.pipeline);
        (self.statuses.is_empty() || self.statuses.contains(&process.status()))
            && process.status_changed >= self.changed_from
            && self.changed_to.is_none_or(|to| process.status_changed < to)
            && one_of(&self.ids, &process.id)
            && one_of(&self.emitters, &process.emitter)
            && one_of(&self.triggers, &process.envelope)
            && self.pipelines.as_ref().is_none_or(pipeline)
            && (self.envelopes.is_empty() || passes(process, &self.envelopes))
    }

    /// Whether a process that has ended can fit.
    pub(super) fn wants_ended(&self) -> bool {
        self.statuses.is_empty() || self.statuses.iter().any(|status| status.is_final())
    }
}

/// Whether one of the envelopes went along the process.
fn passes(process: &ProcessRow, envelopes: &[Id]) -> bool {
    let is_wanted = |id: &[u8]| envelopes.iter().any(|wanted| wanted.as_bytes().as_slice() == id);
    let inputs = || process.nodes.iter().flat_map(|node| &node.inputs).any(|input| is_wanted(&input.envelope));
    let jobs = || process.nodes.iter().flat_map(|node| &node.jobs);
    is_wanted(&process.envelope)
        || inputs()
        || jobs().flat_map(|job| &job.outputs).any(|output| is_wanted(&output.envelope))
}

#[cfg(test)]
mod tests {
    use rollbook_core::xbus::process::row::{InputRow, NodeRow};

    use super::*;

    fn process(status: ProcessStatus, changed: u64) -> ProcessRow {
        let mut row =
            ProcessRow { id: vec![1; 16], emitter: vec![2; 16], envelope: vec![3; 16], ..ProcessRow::default() };
        row.set_status(status);
        row.status_changed = changed;
        let inputs = vec![InputRow { envelope: vec![4; 16], ..InputRow::default() }];
        row.nodes = vec![NodeRow { inputs, ..NodeRow::default() }];
        row
    }

    #[test]
    fn every_part_of_a_filter_has_to_fit() {
        let running = process(ProcessStatus::Running, 100);
        let id = |byte: u8| Id::new([byte; 16]);
        let all = ProcessFilter::default();
        assert!(all.fits(&running) && all.wants_ended());
        for fits in [
            ProcessFilter { ids: vec![id(9), id(1)], ..all.clone() },
            ProcessFilter { statuses: vec![ProcessStatus::Running], ..all.clone() },
            ProcessFilter { emitters: vec![id(2)], triggers: vec![id(3)], ..all.clone() },
            ProcessFilter { envelopes: vec![id(3)], ..all.clone() },
            ProcessFilter { envelopes: vec![id(4)], ..all.clone() },
            ProcessFilter { changed_from: 100, changed_to: Some(101), ..all.clone() },
        ] {
            assert!(fits.fits(&running), "{fits:?}");
        }
        for other in [
            ProcessFilter { ids: vec![id(9)], ..all.clone() },
            ProcessFilter { statuses: vec![ProcessStatus::Done], ..all.clone() },
            ProcessFilter { emitters: vec![id(2)], triggers: vec![id(9)], ..all.clone() },
            ProcessFilter { envelopes: vec![id(9)], ..all.clone() },
            ProcessFilter { pipelines: Some(Vec::new()), ..all.clone() },
            ProcessFilter { changed_from: 101, ..all.clone() },
            ProcessFilter { changed_to: Some(100), ..all.clone() },
        ] {
            assert!(!other.fits(&running), "{other:?}");
        }
        assert!(!ProcessFilter { statuses: vec![ProcessStatus::Running, ProcessStatus::Paused], ..all }.wants_ended());
    }
}
