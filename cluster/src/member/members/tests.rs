//! Changes of the membership by a real leader, on our stores, with nodes in one process on simulated time.

use std::future::Future;
use std::sync::Mutex as SyncMutex;

use openraft::AnyError;
use openraft::alias::SnapshotOf;
use openraft::base::{BoxFuture as RaftFuture, BoxStream};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::impls::EntryPayload;
use openraft::network::{
    Backoff, NetAppend, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
    RaftNetworkFactory, stream_append_sequential,
};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{Membership, TokioRuntime};
use openraft_rt::deterministic_rng::DeterministicRng;
use rollbook_core::command::NodeUp;
use rollbook_core::entry::EntryBuilder;
use rollbook_core::level::FeatureLevel;

use super::*;
use crate::book::snapshot::Checkpoint;
use crate::log::store::LogStore;
use crate::peer::gate::Gate;
use crate::peer::hello::{Hello, HelloRefusal, VERSION};
use crate::replicate::machine::StateMachine;
use crate::replicate::raft;
use crate::state::clock::now_millis;
use crate::status;
use crate::store::layout::Layout;
use crate::timing::{HEARTBEAT, Timing};
use crate::types::EntryData;

/// Who can be called now.
type Hub = Arc<SyncMutex<BTreeMap<u64, Raft>>>;

#[derive(Clone)]
struct Network {
    hub: Hub,
    from: u64,
}

struct Peer {
    network: Network,
    to: u64,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, to: u64, _: &BasicNode) -> Peer {
        Peer { network: self.clone(), to }
    }
}

fn gone() -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::new(&AnyError::error("it is down")))
}

impl Peer {
    fn raft(&self) -> Result<Raft, RPCError<Types>> {
        let hub = self.network.hub.lock().unwrap();
        // Who is silent does not call either.
        hub.get(&self.to).filter(|_| hub.contains_key(&self.network.from)).cloned().ok_or_else(gone)
    }

    async fn travel(&self) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

impl NetAppend<Types> for Peer {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        self.travel().await;
        self.raft()?.append_entries(rpc).await.map_err(|_| gone())
    }
}

impl NetStreamAppend<Types> for Peer {
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> RaftFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>, RPCError<Types>>>
    where
        S: futures_util::Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
    {
        stream_append_sequential(self, input, option)
    }
}

impl NetVote<Types> for Peer {
    async fn vote(&mut self, rpc: VoteRequest<Types>, _: RPCOption) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.travel().await;
        self.raft()?.vote(rpc).await.map_err(|_| gone())
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        _: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.travel().await;
        self.raft()?.pre_vote(rpc).await.map_err(|_| gone())
    }
}

impl NetTransferLeader<Types> for Peer {
    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<Types>,
        _: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        self.raft()?.handle_transfer_leader(rpc).await.map_err(|_| gone())
    }
}

impl NetBackoff<Types> for Peer {
    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(Duration::from_millis(100))))
    }
}

impl NetSnapshot<Types> for Peer {
    type SnapshotData = Checkpoint;

    async fn full_snapshot(
        &mut self,
        _: Vote,
        _: SnapshotOf<Types, Checkpoint>,
        _: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        Err(gone().into())
    }
}

/// Nodes in one process.
struct World {
    hub: Hub,
    directory: tempfile::TempDir,
    nodes: BTreeMap<u64, Members>,
}

fn entry(command: Command) -> EntryData {
    let mut builder = EntryBuilder::new(0);
    builder.push(&command.frame().unwrap());
    EntryData(builder.finish(now_millis()).into())
}

fn promote(id: u64) -> ChangeRequest {
    ChangeRequest { change: Change::Promote(id), force: false }
}

fn remove(id: u64) -> ChangeRequest {
    ChangeRequest { change: Change::Remove(id), force: false }
}

fn forced(request: ChangeRequest) -> ChangeRequest {
    ChangeRequest { force: true, ..request }
}

fn text(result: Result<Node, CallError>) -> String {
    match result {
        Err(CallError::Refused(refusal)) => refusal.to_string(),
        other => panic!("{other:?}"),
    }
}

impl World {
    /// A cluster of these voters that run, led by node 1.
    async fn found(voters: u64) -> Self {
        // Memory where there is some: these tests are about order, not about disks.
        let memory = std::path::Path::new("/dev/shm");
        let directory = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let directory = directory.unwrap();
        let mut world = Self { hub: Hub::default(), directory, nodes: BTreeMap::new() };
        for id in 1..=voters {
            world.start(id).await;
        }
        let members: BTreeMap<u64, BasicNode> = (1..=voters).map(|id| (id, BasicNode::new(id))).collect();
        world.raft(1).initialize(members).await.unwrap();
        world.led_by(1).await;
        world
    }

    async fn start(&mut self, id: u64) {
        let layout = Layout::open(&self.directory.path().join(id.to_string()), id).unwrap();
        let log = LogStore::open_simulated(&layout, Duration::from_millis(1)).unwrap();
        let state = State::open(&layout).unwrap();
        let identity = Identity::begin(&layout, id, format!("h:{id}"), BTreeMap::new()).unwrap();
        let machine = StateMachine::new(Arc::clone(&state), &log);
        let network = Network { hub: Arc::clone(&self.hub), from: id };
        let raft = Raft::new(id, raft::settings(Timing::new(HEARTBEAT)).unwrap(), network, log, machine).await.unwrap();
        self.hub.lock().unwrap().insert(id, raft.clone());
        let (runtime, turn) = (tokio::runtime::Handle::current(), Mutex::new(()));
        self.nodes.insert(id, Members { raft, identity: Arc::new(identity), state, runtime, turn });
    }

    /// The node answers nobody from now on.
    fn silence(&self, id: u64) {
        self.hub.lock().unwrap().remove(&id);
    }

    fn raft(&self, id: u64) -> &Raft {
        &self.nodes[&id].raft
    }

    /// Resolves when that node leads and a majority knows it.
    async fn led_by(&self, id: u64) {
        self.raft(id).wait(Some(Duration::from_secs(20))).current_leader(id, "a leader").await.unwrap();
        // Its lease begins with the first answers.
        while self.raft(id).write_blank().await.is_err() {
            tokio::time::sleep(LOOK).await;
        }
    }

    fn leader(&self) -> &Members {
        self.nodes.values().find(|members| members.raft.is_leader()).expect("a leader")
    }

    async fn write(&self, command: Command) -> Reply {
        self.leader().raft.client_write(entry(command)).await.unwrap().data.pop().unwrap()
    }

    async fn change(&self, request: ChangeRequest) -> Result<Node, CallError> {
        let leader = self.leader();
        let raft = leader.raft.clone();
        let propose = move |command| -> BoxFuture<'static, Reply> {
            let raft = raft.clone();
            Box::pin(async move { raft.client_write(entry(command)).await.unwrap().data.pop().unwrap() })
        };
        leader.change(request, &propose).await
    }

    async fn join(&self) -> u64 {
        self.change(ChangeRequest { change: Change::Join("h:9".to_owned()), force: false }).await.unwrap().id
    }

    /// Configurations and learners as the leader has them.
    fn members(&self) -> (Vec<Vec<u64>>, Vec<u64>) {
        let raft = &self.leader().raft;
        let configs = raft.metrics().borrow_watched().membership_config.get_joint_config().clone();
        (configs.into_iter().map(|set| set.into_iter().collect()).collect(), raft.learner_ids().collect())
    }

    fn row(&self, id: u64) -> Node {
        self.leader().state.machine().node(id).cloned().unwrap_or_default()
    }

    async fn end(self) {
        for members in self.nodes.values() {
            members.raft.shutdown().await.unwrap();
        }
    }
}

/// Runs a test on simulated time, with numbers drawn from a seed.
fn simulate(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(DeterministicRng::<TokioRuntime>::scope(1, test));
}

#[test]
fn a_node_that_was_never_started_gets_no_vote_and_the_cluster_goes_on() {
    simulate(async {
        let world = World::found(2).await;
        let id = world.join().await;
        let why = text(world.change(promote(id)).await);
        assert!(why.contains(&format!("node {id} was never heard: start it")), "{why}");
        assert_eq!(world.members(), (vec![vec![1, 2]], vec![id]));
        // With force once: two of three still answer. A second one would have stopped the cluster for good.
        world.change(forced(promote(id))).await.unwrap();
        let other = world.join().await;
        let why = text(world.change(forced(promote(other))).await);
        assert!(why.contains("the cluster would stop"), "{why}");
        assert_eq!(world.members(), (vec![vec![1, 2, id]], vec![other]));
        world.leader().raft.write_blank().await.expect("a majority");
        world.end().await;
    });
}

#[test]
fn a_node_that_answers_and_has_caught_up_gets_a_vote_and_one_that_fell_silent_does_not() {
    simulate(async {
        let mut world = World::found(1).await;
        let (first, second) = (world.join().await, world.join().await);
        world.start(first).await;
        world.start(second).await;
        world.change(promote(first)).await.unwrap();
        assert_eq!(world.members(), (vec![vec![1, first]], vec![second]));
        world.change(promote(first)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.silence(second);
        let why = text(world.change(promote(second)).await);
        assert!(why.contains(&format!("node {second} does not answer")), "{why}");
        world.end().await;
    });
}

#[test]
fn a_removal_that_would_cost_the_majority_is_refused_and_force_takes_the_votes_of_the_dead_too() {
    simulate(async {
        let world = World::found(3).await;
        // A moment ago it did answer.
        tokio::time::sleep(Duration::from_millis(300)).await;
        world.silence(3);
        let why = text(world.change(remove(2)).await);
        assert!(why.contains("node 3 does not") && why.contains("force"), "{why}");
        assert_eq!(world.members(), (vec![vec![1, 2, 3]], vec![]));
        world.change(forced(remove(2))).await.unwrap();
        assert_eq!(world.members(), (vec![vec![1]], vec![3]));
        assert!(world.row(2).removed && !world.row(3).removed);
        world.end().await;
    });
}

#[test]
fn without_a_majority_a_change_is_refused_in_time_and_leaves_nothing_behind() {
    simulate(async {
        let world = World::found(3).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        world.silence(2);
        world.silence(3);
        let before = world.raft(1).metrics().borrow_watched().last_log_index;
        for request in [
            remove(2),
            forced(remove(2)),
            forced(promote(3)),
            ChangeRequest { change: Change::Join("h:9".to_owned()), force: false },
        ] {
            let began = Instant::now();
            let why = text(world.change(request.clone()).await);
            assert!(why.contains("no majority of the cluster answers"), "{request:?}: {why}");
            assert!(began.elapsed() < PATIENCE * 2, "{request:?}: {:?}", began.elapsed());
        }
        assert_eq!(world.raft(1).metrics().borrow_watched().last_log_index, before);
        world.end().await;
    });
}

#[test]
fn a_removal_that_was_cut_anywhere_is_completed_by_repeating_it() {
    simulate(async {
        let world = World::found(3).await;
        let raft = || &world.leader().raft;
        let up = NodeUp { id: 2, incarnation: 1, address: "h:2".to_owned() };
        world.write(Command::NodeUp(up)).await.unwrap();
        // As releases before this one left it: no member any more, and nobody knows that it was removed.
        raft().change_membership(ChangeMembers::RemoveVoters(BTreeSet::from([2])), false).await.unwrap();
        assert_eq!(world.members(), (vec![vec![1, 3]], vec![]));
        world.change(remove(2)).await.unwrap();
        assert!(world.row(2).removed);
        world.change(remove(2)).await.expect("once more does no harm");
        // Without its vote, but still a learner.
        let learner = world.join().await;
        world.change(remove(learner)).await.unwrap();
        // Known as removed, but still a learner.
        let learner = world.join().await;
        world.write(Command::NodeRemove(NodeRemove { id: learner })).await.unwrap();
        world.change(remove(learner)).await.unwrap();
        // It has a number, and was never added.
        let reply = world.write(Command::NodeAllocate(NodeAllocate { address: "h:7".to_owned(), above: 0 })).await;
        let Ok(Done::Node(abandoned)) = reply else { panic!("{reply:?}") };
        assert!(text(world.change(promote(abandoned.id)).await).contains("node not found"));
        let (metrics, state) = (raft().metrics(), &world.leader().state);
        let shown = status::members(&metrics.borrow_watched(), Some(1), &state.machine(), "h:1");
        let shown: Vec<_> = shown.iter().map(|member| (member.id, member.role, member.state)).collect();
        assert_eq!(shown, [(1, "leader", "up"), (3, "voter", "new"), (abandoned.id, "none", "new")]);
        world.change(remove(abandoned.id)).await.unwrap();
        assert!(world.row(abandoned.id).removed);
        assert_eq!(world.members(), (vec![vec![1, 3]], vec![]));
        assert!(text(world.change(remove(99)).await).contains("node not found: 99"));
        world.end().await;
    });
}

#[test]
fn what_a_leader_left_between_two_steps_is_completed_by_the_next_one_or_by_repeating_it() {
    simulate(async {
        let mut world = World::found(2).await;
        let joint = async |world: &World, id: u64| {
            let raft = &world.leader().raft;
            let now = raft.metrics().borrow_watched().membership_config.membership().clone();
            let voters = now.get_joint_config().last().cloned().unwrap();
            let next = voters.iter().copied().chain([id]).collect();
            let nodes: BTreeMap<u64, BasicNode> = now.nodes().map(|(id, node)| (*id, node.clone())).collect();
            let both = Membership::new(vec![voters, next], nodes).unwrap();
            raft.append_membership(both, EntryPayload::Blank, []).await.unwrap();
        };
        let (first, second) = (world.join().await, world.join().await);
        world.start(first).await;
        world.start(second).await;
        joint(&world, first).await;
        assert_eq!(world.members().0, [vec![1, 2], vec![1, 2, first]]);
        assert!(world.leader().is_halfway());
        world.change(promote(first)).await.unwrap();
        assert_eq!(world.members(), (vec![vec![1, 2, first]], vec![second]));
        assert!(!world.leader().is_halfway());
        // The next leader does it by itself, and takes out who is known to be removed.
        let gone = world.join().await;
        world.write(Command::NodeRemove(NodeRemove { id: gone })).await.unwrap();
        joint(&world, second).await;
        world.leader().transfer(2).await.unwrap();
        world.raft(2).wait(Some(Duration::from_secs(20))).current_leader(2, "the next leader").await.unwrap();
        // The new leader may not know yet that it is committed.
        let halfway = async {
            while !world.raft(2).is_leader() || !world.leader().is_halfway() {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), halfway).await.expect("it sees what was left");
        world.leader().complete_left().await.unwrap();
        assert_eq!(world.members(), (vec![vec![1, 2, first, second]], vec![]));
        world.end().await;
    });
}

#[test]
fn a_second_change_waits_for_the_first_and_is_refused_when_that_takes_long() {
    simulate(async {
        let world = World::found(1).await;
        let turn = world.leader().turn.lock().await;
        let why = text(world.change(remove(2)).await);
        assert!(why.contains("another change is being made"), "{why}");
        drop(turn);
        world.end().await;
    });
}

#[test]
fn a_node_that_was_removed_is_cut_off_and_told_why_when_it_calls_again() {
    simulate(async {
        let world = World::found(2).await;
        let (identity, state) = (Arc::clone(&world.leader().identity), Arc::clone(&world.leader().state));
        identity.belong_to("0123456789abcdef0123456789abcdef").unwrap();
        let gate = Arc::new(Gate::new(Arc::clone(&identity), state));
        let hello = Hello {
            level: FeatureLevel::LATEST.get(),
            founded: true,
            version: VERSION,
            cluster_id: identity.cluster_id(),
            purpose: 1,
            from: 2,
            to: 1,
            incarnation: 1,
            process: 7,
            address: "h:2".to_owned(),
        };
        let pass = gate.admit(&hello, None, true, async { None }).await.expect("a member");
        gate.end_removed();
        let ended = async |within| tokio::time::timeout(within, pass.ended()).await.is_ok();
        assert!(!ended(Duration::from_millis(10)).await);
        world.change(remove(2)).await.unwrap();
        gate.end_removed();
        assert!(ended(Duration::from_millis(10)).await);
        let again = gate.admit(&hello, None, true, async { None }).await.err().expect("it was removed");
        assert_eq!(again.why(), HelloRefusal::Removed);
        world.end().await;
    });
}

#[test]
fn a_change_crosses_the_wire_with_its_force_and_without() {
    for change in [Change::Join("h:1".to_owned()), Change::Promote(7), Change::Remove(8), Change::Transfer(0)] {
        for force in [false, true] {
            let request = ChangeRequest { change: change.clone(), force };
            assert_eq!(ChangeRequest::from_bytes(&request.to_bytes()), Some(request));
        }
    }
    // As a release before force sent it.
    assert_eq!(ChangeRequest::from_bytes(&[0x18, 9]), Some(remove(9)));
    assert_eq!(ChangeRequest::from_bytes(&[]), None);
}
