//! Both sides of the transport, in memory and on simulated time.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::AtomicUsize;

use openraft::impls::BasicNode;

use super::*;
use crate::log::store::LogStore;
use crate::peer::conn::CallError;
use crate::peer::pulse::Pong;
use crate::peer::transport::memory::Memory;
use crate::replicate::machine::StateMachine;
use crate::replicate::network::Network;
use crate::replicate::raft;
use crate::state::state::State;
use crate::store::layout::Layout;
use crate::timing::{HEARTBEAT, Timing};
use crate::types::Runtime;

/// Says which node waiting.
struct Echo;

impl PeerRequestHandler for Echo {
    async fn answer(&self, from: u64, _: Kind, _: Bytes) -> Answer {
        Answer::Done(wire::encode_number(from))
    }

    fn forward(&self, from: u64, _: Bytes) -> impl Future<Output = Answer> + Send + use<> {
        std::future::ready(Answer::Done(wire::encode_number(from)))
    }

    fn hear(&self, _: u64, _: Bytes) {}
}

struct Side {
    _directory: tempfile::TempDir,
    layout: Layout,
    identity: Arc<Identity>,
    state: Arc<State>,
    links: Arc<Links>,
}

fn side(id: u64, memory: &Memory) -> Side {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::open(directory.path(), id).unwrap();
    let founders = BTreeMap::from([(1, "one".to_owned()), (2, "two".to_owned())]);
    let address = founders[&id].clone();
    let identity = Arc::new(Identity::begin(&layout, id, address, founders).unwrap());
    let state = State::open(&layout).unwrap();
    let timing = Timing::new(HEARTBEAT);
    let links = Links::new(Arc::clone(&identity), Arc::clone(&state), None, Box::new(memory.clone()), timing);
    Side { _directory: directory, layout, identity, state, links: Arc::new(links) }
}

async fn raft(side: &Side) -> Raft {
    let log = LogStore::open_simulated(&side.layout, Duration::from_millis(1)).unwrap();
    let network = Network { links: Arc::clone(&side.links), state: Arc::clone(&side.state) };
    let machine = StateMachine::new(Arc::clone(&side.state), &log);
    let settings = raft::settings(Timing::new(HEARTBEAT)).unwrap();
    Raft::new(side.identity.id, settings, network, log, machine).await.unwrap()
}

fn server<H: PeerRequestHandler>(one: &Side, raft: Raft, handler: H) -> Arc<Server<H>> {
    let contact = Arc::new(Contact::new(raft.clone(), Arc::clone(&one.identity), Timing::new(HEARTBEAT)));
    Arc::new(Server {
        identity: Arc::clone(&one.identity),
        gate: Arc::new(Gate::new(Arc::clone(&one.identity), Arc::clone(&one.state))),
        links: Arc::clone(&one.links),
        raft,
        contact,
        receiver: Receiver::new(&one.layout),
        threads: Arc::default(),
        tls: None,
        handler,
    })
}

/// Never answers; counts the requests and the messages.
#[derive(Clone, Default)]
struct Slow {
    requests: Arc<AtomicUsize>,
    messages: Arc<AtomicUsize>,
}

struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl PeerRequestHandler for Slow {
    async fn answer(&self, _: u64, _: Kind, _: Bytes) -> Answer {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let _counted = Counted(Arc::clone(&self.requests));
        std::future::pending().await
    }

    fn forward(&self, _: u64, _: Bytes) -> impl Future<Output = Answer> + Send + use<> {
        std::future::pending()
    }

    fn hear(&self, _: u64, _: Bytes) {
        self.messages.fetch_add(1, Ordering::Relaxed);
    }
}

async fn overload() {
    let memory = Memory::default();
    let (one, two) = (side(1, &memory), side(2, &memory));
    let (raft, handler) = (raft(&one).await, Slow::default());
    let stop = CancellationToken::new();
    let serving = server(&one, raft.clone(), handler.clone()).run(Box::new(memory.listen("one")), stop.clone());
    let serving = tokio::spawn(serving);
    let conn = two.links.conn(1, Purpose::Live, Duration::from_secs(1)).await.unwrap();
    let request = || {
        let conn = Arc::clone(&conn);
        tokio::spawn(async move { conn.call(Kind::Ask, Bytes::new(), Duration::from_secs(600)).await })
    };
    let until = async |count: &AtomicUsize, wanted: usize| {
        while count.load(Ordering::Relaxed) != wanted {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let waiting: Vec<_> = (0..LIVE_REQUESTS_MAX).map(|_| request()).collect();
    until(&handler.requests, LIVE_REQUESTS_MAX).await;
    let refused = request().await.unwrap();
    assert!(matches!(refused, Err(CallError::Refused(Refusal::Overloaded(_)))), "{refused:?}");
    conn.tell(Kind::Tell, Bytes::new()).unwrap();
    until(&handler.messages, 1).await;
    conn.close();
    until(&handler.requests, 0).await;
    for waiting in waiting {
        assert!(waiting.await.unwrap().is_err());
    }
    stop.cancel();
    serving.await.unwrap();
    raft.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn slow_answers_hold_up_nothing_and_end_with_their_connection() {
    let overload = Runtime::scope(1, overload());
    tokio::time::timeout(Duration::from_secs(60), overload).await.unwrap();
}

async fn talk() {
    let memory = Memory::default();
    let (one, two) = (side(1, &memory), side(2, &memory));
    let raft = raft(&one).await;
    let server = server(&one, raft.clone(), Echo);
    let stop = CancellationToken::new();
    let serving = tokio::spawn(server.run(Box::new(memory.listen("one")), stop.clone()));
    let call = async |kind: Kind| {
        let within = Duration::from_secs(1);
        two.links.call(1, Purpose::Control, kind, Bytes::new(), within).await.unwrap()
    };
    assert_eq!(wire::decode_number(&call(Kind::Figures).await).unwrap(), 2);
    let pong = async || Pong::decode(call(Kind::Ping).await).unwrap().majority_millis;
    assert_eq!(pong().await, Some(u64::MAX), "it does not lead");
    raft.initialize(BTreeMap::from([(1, BasicNode::new("one"))])).await.unwrap();
    let led = Some(Duration::from_secs(5));
    raft.wait(led).metrics(|metrics| metrics.current_leader == Some(1), "a leader").await.unwrap();
    assert_eq!(pong().await, Some(0), "a majority by itself");
    let conn = two.links.present(1, Purpose::Control).unwrap();
    stop.cancel();
    serving.await.unwrap();
    conn.closed().await;
    raft.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn nodes_talk_in_memory_and_a_leader_says_what_it_knows_of_its_majority() {
    Runtime::scope(1, talk()).await;
}
