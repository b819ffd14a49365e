//! Checks of the state in memory, for tests: all that can be computed from other parts is what it should be.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;

use prost::Message as _;

use super::index::Holder;
use super::state::{Xbus, bytes_of};
use super::waiting::Waiting;
use crate::machine::Machine;
use crate::subjects::subject::Namespace;
use crate::xbus::account::row::ActorRow;
use crate::xbus::id::Id;
use crate::xbus::limits::{ACTORS_PER_ACCOUNT_MAX, PROCESS_MESSAGES_BYTES_MAX};
use crate::xbus::log;
use crate::xbus::pipeline::graph::Graph;
use crate::xbus::pipeline::version::PipelineStatus;
use crate::xbus::process::row::{JobState, NodeState, ProcessRow, ProcessStatus};

fn id(bytes: &[u8]) -> Id {
    Id::from_slice(bytes).expect("the id of a row has 16 bytes")
}

impl Machine {
    /// Checks accounts, actors, pipelines, envelopes and processes.
    ///
    /// # Panics
    /// When an invariant is broken.
    pub(in crate::machine) fn check_xbus(&self) {
        self.xbus.check_accounts();
        self.xbus.check_pipelines();
        self.xbus.check_envelopes();
        self.xbus.check_processes();
        self.xbus.check_schemas();
        if let (Some(pinned), Some(head)) = (self.xbus.pinned(), self.head(Namespace::XBUS)) {
            assert!(head.first <= pinned && pinned < head.next, "{pinned} is needed and gone: {head:?}");
        }
    }
}

impl Xbus {
    fn check_accounts(&self) {
        let mut bytes = 0;
        for (key, row) in &self.accounts {
            assert_eq!(*key, id(&row.id));
            assert_eq!(self.account_names.get(&row.name), Some(key), "{row:?}");
            assert!(self.actors_of(*key).count() <= ACTORS_PER_ACCOUNT_MAX);
            bytes += row.encoded_len();
        }
        for (key, row) in &self.actors {
            assert_eq!(*key, id(&row.id));
            assert_ne!(*key, Id::default());
            assert_eq!(self.actor_names.get(&row.name), Some(key), "{row:?}");
            assert!(self.account(id(&row.account)).is_some(), "{row:?} outlived its account");
            bytes += row.encoded_len();
        }
        assert_eq!(self.account_names.size(), self.accounts.size());
        assert_eq!(self.actor_names.size(), self.actors.size());
        let owned = self.actors.values().map(|row: &Arc<ActorRow>| (id(&row.account), id(&row.id)));
        assert_eq!(owned.collect::<BTreeSet<_>>(), self.owned.iter().copied().collect());
        assert_eq!(self.account_bytes, bytes);
    }

    fn check_pipelines(&self) {
        let (mut bytes, mut active) = (0, BTreeMap::new());
        for (key, pipeline) in &self.pipelines {
            let row = &pipeline.row;
            assert_eq!(*key, id(&row.id));
            assert_eq!(self.versions.get(&(row.name.clone(), row.version.clone())), Some(key));
            assert_eq!(pipeline.graph, Graph::parse(&row.document).ok());
            if row.status() == PipelineStatus::Active {
                assert!(pipeline.graph.is_some(), "an active version has no faults");
                assert_eq!(active.insert(row.name.clone(), *key), None, "two versions of {} are active", row.name);
            }
            bytes += bytes_of(row);
        }
        assert_eq!(self.versions.size(), self.pipelines.size());
        assert_eq!(active, self.active.iter().map(|(name, id)| (name.clone(), *id)).collect());
        assert_eq!(self.pipeline_bytes, bytes);
    }

    fn check_envelopes(&self) {
        let mut touched = BTreeSet::new();
        for (key, row) in &self.envelopes {
            assert_eq!(*key, id(&row.id));
            assert!(!row.is_final(), "{row:?} has ended");
            assert!(row.first_sequence != 0 || row.fragments == 0, "{row:?} is nowhere in the book");
            touched.insert((row.touched, *key));
        }
        assert_eq!(touched, self.touched.iter().copied().collect());
    }

    fn check_schemas(&self) {
        for (event_type, row) in &self.schemas {
            assert_eq!(*event_type, row.event_type);
        }
        assert_eq!(self.schema_bytes, self.schemas.values().map(|row| row.encoded_len()).sum::<usize>());
    }

    fn check_processes(&self) {
        let mut bytes = 0;
        let (mut waiting, mut concerned, mut served) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let (mut away, mut without_actor, mut began) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let (mut load, mut pins) = (BTreeMap::new(), BTreeSet::new());
        for row in self.envelopes.values().filter(|row| row.first_sequence != 0) {
            pins.insert((row.first_sequence, Holder::Envelope(id(&row.id))));
        }
        for (key, row) in &self.processes {
            assert_eq!(*key, id(&row.id));
            check_process(row);
            bytes += row.encoded_len();
            began.insert((row.needs_since(), *key));
            if row.pinned != 0 {
                pins.insert((row.pinned, Holder::Process(*key)));
            }
            let pipeline = id(&row.pipeline);
            assert!(self.pipeline(pipeline).is_some_and(|pipeline| pipeline.graph.is_some()), "{row:?}");
            for (node, state) in (0_u32..).zip(&row.nodes) {
                if state.state() == NodeState::Ready && state.jobs.is_empty() {
                    without_actor.insert(*key);
                }
                for job in state.jobs.iter().filter(|job| !job.state().is_final()) {
                    let actor = Id::from_slice(&job.actor).unwrap_or_default();
                    if actor != Id::default() {
                        concerned.insert((actor, *key));
                    }
                    if job.state() == JobState::Ready && row.status() == ProcessStatus::Running {
                        waiting.insert(Waiting { pipeline, node, actor, since: row.created, process: *key });
                    }
                    if job.state().is_live() {
                        *load.entry(actor).or_insert(0_u32) += 1;
                        served.extend(job.owner.map(|owner| (owner, *key, actor)));
                    }
                    if job.away_since != 0 {
                        away.insert((job.away_since, *key));
                    }
                }
            }
        }
        assert_eq!(self.process_bytes, bytes);
        let index = &self.index;
        assert_eq!(waiting, index.waiting.iter().copied().collect());
        assert_eq!(concerned, index.concerned.iter().copied().collect());
        assert_eq!(served, index.served.iter().copied().collect());
        assert_eq!(away, index.away.iter().copied().collect());
        assert_eq!(without_actor, index.without_actor.iter().copied().collect());
        assert_eq!(began, index.began.iter().copied().collect());
        assert_eq!(pins, index.pins.iter().copied().collect());
        assert_eq!(load, index.load.iter().map(|(actor, count)| (*actor, *count)).collect());
        let nodes: BTreeSet<_> = waiting.iter().map(|job| (job.pipeline, job.node, job.actor)).collect();
        assert_eq!(nodes, self.waiting_nodes().collect());
        assert_eq!(concerned.iter().map(|(actor, _)| *actor).collect::<BTreeSet<_>>(), self.concerned().collect());
        assert_eq!(served.iter().map(|(owner, ..)| *owner).collect::<BTreeSet<_>>(), self.serving().collect());
    }
}

fn check_process(row: &ProcessRow) {
    assert!(!row.status().is_final() || row.has_live_jobs(), "{row:?} has ended");
    let messages: usize = row.nodes.iter().flat_map(|node| &node.jobs).map(|job| log::bytes(&job.messages)).sum();
    assert!(messages <= PROCESS_MESSAGES_BYTES_MAX, "{messages}");
}
