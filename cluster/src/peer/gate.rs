//! The gate: decides by the hello which calls of other nodes are accepted.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio_util::sync::CancellationToken;

use super::hello::{self, Hello, HelloRefusal, HelloRefused, VERSION};
use super::identity::Identity;
use crate::lock::lock;
use crate::state::state::State;

/// The process that a node number belongs to, as far as this node knows.
#[derive(Debug, Clone)]
struct Caller {
    process: u64,
    incarnation: u64,
    connections: usize,
    /// Ends its connections.
    ended: CancellationToken,
}

/// Decides on hellos.
pub(crate) struct Gate {
    identity: Arc<Identity>,
    state: Arc<State>,
    callers: Mutex<BTreeMap<u64, Caller>>,
}

/// A connection that was let in. Counts while it lives.
pub(crate) struct Pass {
    gate: Arc<Gate>,
    from: u64,
    process: u64,
    ended: CancellationToken,
}

impl Pass {
    /// Resolves when the caller is not to be served any more: the cluster removed it.
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(caller) = self.gate.callers().get_mut(&self.from)
            && caller.process == self.process
        {
            caller.connections = caller.connections.saturating_sub(1);
        }
    }
}

fn no(reason: HelloRefusal, text: String) -> HelloRefused {
    HelloRefused::because(reason, text)
}

impl Gate {
    pub(crate) fn new(identity: Arc<Identity>, state: Arc<State>) -> Self {
        Self { identity, state, callers: Mutex::default() }
    }

    fn callers(&self) -> MutexGuard<'_, BTreeMap<u64, Caller>> {
        lock(&self.callers)
    }

    /// Takes or refuses a call. `certified`: node numbers of the caller's certificate, when there is one.
    /// `initialized`: whether this node has a log of the cluster. `answering`: which process answers at the
    /// address of the caller now, asked only when two processes claim one number.
    pub(crate) async fn admit(
        self: &Arc<Self>,
        hello: &Hello,
        certified: Option<&[u64]>,
        initialized: bool,
        answering: impl Future<Output = Option<u64>>,
    ) -> Result<Pass, HelloRefused> {
        self.check_who(hello, certified)?;
        self.check_cluster(hello, initialized)?;
        self.check_life(hello)?;
        self.check_level(hello)?;
        let known = self.callers().get(&hello.from).cloned().filter(|other| other.process != hello.process);
        if known.as_ref().is_some_and(|other| other.incarnation > hello.incarnation) {
            return Err(no(HelloRefusal::OldLife, format!("a later life of node {} was here", hello.from)));
        }
        if let Some(other) = known.filter(|other| other.connections > 0)
            && (other.incarnation == hello.incarnation || answering.await == Some(other.process))
        {
            let text = format!("node number {} is in use by another process", hello.from);
            return Err(no(HelloRefusal::InUse, text));
        }
        let mut callers = self.callers();
        let fresh = || Caller {
            process: hello.process,
            incarnation: hello.incarnation,
            connections: 0,
            ended: CancellationToken::new(),
        };
        let caller = callers.entry(hello.from).or_insert_with(fresh);
        if caller.process != hello.process {
            *caller = fresh();
        }
        caller.incarnation = caller.incarnation.max(hello.incarnation);
        caller.connections = caller.connections.saturating_add(1);
        let ended = caller.ended.clone();
        Ok(Pass { gate: Arc::clone(self), from: hello.from, process: hello.process, ended })
    }

    /// Ends the connections of nodes that were removed. They call again, and hear why they are refused.
    pub(crate) fn end_removed(&self) {
        let callers: Vec<u64> = self.callers().keys().copied().collect();
        let removed: Vec<u64> = {
            let machine = self.state.machine();
            callers.into_iter().filter(|id| machine.node(*id).is_some_and(|node| node.removed)).collect()
        };
        for id in removed {
            if let Some(caller) = self.callers().remove(&id) {
                tracing::info!(node = id, "a node was removed; its connections end");
                caller.ended.cancel();
            }
        }
    }

    fn check_who(&self, hello: &Hello, certified: Option<&[u64]>) -> Result<(), HelloRefused> {
        let Hello { version, from, to, .. } = hello;
        if *version != VERSION {
            return Err(no(
                HelloRefusal::Version,
                format!("peer protocol {version} is not spoken here, only {VERSION}"),
            ));
        }
        if *to != self.identity.id || *from == self.identity.id || *from == 0 {
            return Err(no(
                HelloRefusal::WrongNode,
                format!("this is node {}, called was {to} by {from}", self.identity.id),
            ));
        }
        if certified.is_some_and(|nodes| !nodes.contains(from)) {
            return Err(no(HelloRefusal::Certificate, format!("the certificate is not that of node {from}")));
        }
        Ok(())
    }

    fn check_cluster(&self, hello: &Hello, initialized: bool) -> Result<(), HelloRefused> {
        let (ours, theirs, from) = (self.identity.cluster_id(), &hello.cluster_id, hello.from);
        let founder = self.identity.founders.contains_key(&from);
        match (ours.is_empty(), theirs.is_empty()) {
            (false, false) if ours != *theirs => {
                Err(no(HelloRefusal::WrongCluster, format!("this is cluster {ours}, not {theirs}")))
            }
            (false, false) => Ok(()),
            (false, true) if initialized => Err(no(HelloRefusal::LostData, hello::lost_data(from, &ours))),
            (true, false) => {
                let text = hello::lost_data(self.identity.id, theirs);
                // Founding nodes that wait for others which may be gone for good would never hear of this otherwise.
                if hello.founded {
                    self.identity.fail(text.clone());
                }
                Err(no(HelloRefusal::NotFounded, text))
            }
            _ if founder => Ok(()),
            _ => Err(no(HelloRefusal::Stranger, format!("node {from} is not among the founding nodes"))),
        }
    }

    /// A node that does not know the rules of the cluster would apply the same entries in another way.
    fn check_level(&self, hello: &Hello) -> Result<(), HelloRefused> {
        let (known, needed) = (hello::level(hello.level), self.state.machine().level());
        if known < needed {
            return Err(no(HelloRefusal::Level, hello::too_low(hello.from, known, needed)));
        }
        Ok(())
    }

    fn check_life(&self, hello: &Hello) -> Result<(), HelloRefused> {
        let machine = self.state.machine();
        let Some(node) = machine.node(hello.from) else { return Ok(()) };
        if node.removed {
            return Err(no(HelloRefusal::Removed, format!("node {} was removed from the cluster", hello.from)));
        }
        if node.incarnation > hello.incarnation {
            let text = format!("a later life of node {} is known: is this a copy of its data?", hello.from);
            return Err(no(HelloRefusal::OldLife, text));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rollbook_core::command::{Command, LevelRaise};
    use rollbook_core::entry::{Entry, EntryBuilder};
    use rollbook_core::level::FeatureLevel;
    use rollbook_core::machine::Machine;
    use rollbook_core::namespace::Head;
    use rollbook_core::rows::{Family, Row, Rows, RowsError, Writes};

    use super::*;
    use crate::store::layout::Layout;

    const X: &str = "0123456789abcdef0123456789abcdef";
    const Y: &str = "fedcba9876543210fedcba9876543210";

    fn gate() -> (tempfile::TempDir, Arc<Gate>) {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::open(directory.path(), 1).unwrap();
        let founders = BTreeMap::from([(1, "a:1".to_owned()), (2, "b:1".to_owned())]);
        let identity = Arc::new(Identity::begin(&layout, 1, "a:1".to_owned(), founders).unwrap());
        let state = State::open(&layout).unwrap();
        (directory, Arc::new(Gate::new(identity, state)))
    }

    fn hello(from: u64, cluster: &str, incarnation: u64, process: u64) -> Hello {
        let (cluster_id, address) = (cluster.to_owned(), "b:1".to_owned());
        let (version, founded) = (VERSION, false);
        Hello { version, cluster_id, purpose: 1, from, to: 1, incarnation, process, address, level: 0, founded }
    }

    async fn why(gate: &Arc<Gate>, hello: &Hello, initialized: bool) -> Option<HelloRefusal> {
        gate.admit(hello, None, initialized, async { None }).await.err().map(|no| no.why())
    }

    #[tokio::test]
    async fn strangers_other_clusters_and_wrong_numbers_are_refused() {
        let (_dir, gate) = gate();
        assert_eq!(why(&gate, &hello(2, "", 1, 7), false).await, None);
        assert_eq!(why(&gate, &hello(9, "", 1, 7), false).await, Some(HelloRefusal::Stranger));
        assert_eq!(why(&gate, &hello(1, "", 1, 7), false).await, Some(HelloRefusal::WrongNode));
        assert_eq!(why(&gate, &hello(2, X, 1, 7), false).await, Some(HelloRefusal::NotFounded));
        let old = Hello { version: 0, ..hello(2, "", 1, 7) };
        assert_eq!(why(&gate, &old, false).await, Some(HelloRefusal::Version));
        gate.identity.belong_to(X).unwrap();
        assert_eq!(why(&gate, &hello(2, "", 1, 7), false).await, None, "the founding is not complete");
        assert_eq!(why(&gate, &hello(2, "", 1, 7), true).await, Some(HelloRefusal::LostData));
        assert_eq!(why(&gate, &hello(2, Y, 1, 7), true).await, Some(HelloRefusal::WrongCluster));
        assert_eq!(why(&gate, &hello(9, X, 1, 7), true).await, None, "a member that joined later");
        let certified = gate.admit(&hello(2, X, 1, 7), Some(&[3]), true, async { None }).await;
        assert_eq!(certified.err().map(|no| no.why()), Some(HelloRefusal::Certificate));
    }

    #[tokio::test]
    async fn a_node_without_data_that_a_founded_cluster_calls_must_not_go_on() {
        let (_dir, gate) = gate();
        assert_eq!(why(&gate, &hello(2, X, 1, 7), false).await, Some(HelloRefusal::NotFounded));
        assert_eq!(gate.identity.failure(), None, "it is being founded, and node 2 has heard of that earlier");
        let member = Hello { founded: true, ..hello(9, X, 1, 7) };
        assert_eq!(why(&gate, &Hello { to: 2, ..member.clone() }, false).await, Some(HelloRefusal::WrongNode));
        assert_eq!(gate.identity.failure(), None, "another node was called");
        assert_eq!(why(&gate, &member, false).await, Some(HelloRefusal::NotFounded));
        assert_eq!(gate.identity.failure(), Some(hello::lost_data(1, X)));
    }

    #[tokio::test]
    async fn a_node_that_belongs_to_the_cluster_and_has_no_log_yet_waits_for_it() {
        let (_dir, gate) = gate();
        gate.identity.belong_to(X).unwrap();
        assert_eq!(why(&gate, &Hello { founded: true, ..hello(2, X, 1, 7) }, false).await, None);
        assert_eq!(gate.identity.failure(), None);
    }

    #[tokio::test]
    async fn a_node_that_does_not_know_the_rules_of_the_cluster_is_refused() {
        let (_dir, gate) = gate();
        let knows = |level| Hello { level, ..hello(2, "", 1, 7) };
        assert_eq!(why(&gate, &knows(0), false).await, None, "the cluster is at the first level");
        let mut entry = EntryBuilder::new(0);
        let level = FeatureLevel::BOUNDED.get();
        entry.push(&Command::LevelRaise(LevelRaise { level }).frame().unwrap());
        let (entry, mut writes) = (entry.finish(1), Writes::default());
        let entry = Entry::parse(&entry).unwrap();
        let mut machine = Machine::clone(&gate.state.machine());
        machine.apply(1, &entry, &NoRows, &mut writes).unwrap();
        gate.state.publish(&machine, || Ok(())).unwrap();
        for old in [0, 1] {
            let no = gate.admit(&knows(old), None, false, async { None }).await.err().unwrap();
            assert_eq!(no.why(), HelloRefusal::Level);
            assert!(no.text.ends_with("the cluster follows level 2: upgrade node 2"), "{}", no.text);
            assert!(no.why().ends_the_caller());
        }
        assert_eq!(why(&gate, &knows(2), false).await, None);
        assert_eq!(why(&gate, &knows(3), false).await, None, "a node that knows more");
    }

    /// A store without rows.
    struct NoRows;

    impl Rows for NoRows {
        fn get(&self, _: Family, _: &[u8]) -> Result<Option<Vec<u8>>, RowsError> {
            Ok(None)
        }

        fn scan(&self, _: Family, _: &[u8], _: &[u8], _: usize) -> Result<Vec<Row>, RowsError> {
            Ok(Vec::new())
        }

        fn event_id(&self, _: &Head, _: u64) -> Result<Option<String>, RowsError> {
            Ok(None)
        }
    }

    #[tokio::test]
    async fn two_processes_never_have_one_number() {
        let (_dir, gate) = gate();
        let first = gate.admit(&hello(2, "", 4, 7), None, false, async { None }).await.unwrap_or_else(|_| panic!());
        assert_eq!(why(&gate, &hello(2, "", 4, 8), false).await, Some(HelloRefusal::InUse), "a copy of its data");
        let alive = gate.admit(&hello(2, "", 5, 8), None, false, async { Some(7) }).await;
        assert_eq!(alive.err().map(|no| no.why()), Some(HelloRefusal::InUse), "the first one still answers");
        let gone = gate.admit(&hello(2, "", 5, 8), None, false, async { None }).await;
        assert!(gone.is_ok(), "its machine lost power, its connections are only not closed yet");
        drop(first);
        assert_eq!(why(&gate, &hello(2, "", 4, 7), false).await, Some(HelloRefusal::OldLife), "the earlier process");
    }
}
