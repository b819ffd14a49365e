//! Dials that are slow, that end badly, and that cross the beginning of a new life.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use tokio::io::AsyncReadExt as _;

use super::*;
use crate::peer::transport::memory::{Memory, MemoryAcceptor};
use crate::peer::transport::{Acceptor as _, PeerStream};
use crate::store::layout::Layout;
use crate::timing::HEARTBEAT;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The links of node 1, and where node 2 is said to be.
pub(crate) fn links(dialer: impl Dialer + 'static, of_two: &str) -> (tempfile::TempDir, Arc<Links>) {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::open(directory.path(), 1).unwrap();
    let founders = BTreeMap::from([(1, "one".to_owned()), (2, of_two.to_owned())]);
    let identity = Arc::new(Identity::begin(&layout, 1, "one".to_owned(), founders).unwrap());
    let state = State::open(&layout).unwrap();
    let timing = Timing::new(HEARTBEAT);
    (directory, Arc::new(Links::new(identity, state, None, Box::new(dialer), timing)))
}

/// Takes a call, and answers its hello.
pub(crate) async fn answer(acceptor: &mut MemoryAcceptor, with: impl FnOnce(Hello) -> Frame) -> PeerStream {
    let (mut stream, _) = acceptor.accept().await.unwrap();
    let hello = frame::read(&mut stream, HELLO_BYTES_MAX).await.unwrap().unwrap();
    let frame = with(Hello::decode(hello.body).unwrap());
    let mut bytes = frame.header().to_vec();
    bytes.extend_from_slice(&frame.body);
    tokio::io::AsyncWriteExt::write_all(&mut stream, &bytes).await.unwrap();
    stream
}

pub(crate) fn welcome(process: u64) -> Frame {
    Frame::new(Kind::Welcome, 0, Welcome { process, ..Welcome::default() }.encode_to_vec())
}

/// Carries a dial after a while, and counts.
struct Slow {
    memory: Memory,
    takes: Duration,
    dials: Arc<AtomicUsize>,
}

impl Dialer for Slow {
    fn dial<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<PeerStream>> {
        Box::pin(async move {
            self.dials.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(self.takes).await;
            self.memory.dial(address).await
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_dial_goes_on_while_those_who_wait_for_it_come_and_go() {
    let (memory, dials) = (Memory::default(), Arc::<AtomicUsize>::default());
    let mut acceptor = memory.listen("two");
    let (_dir, links) = links(Slow { memory, takes: ms(400), dials: Arc::clone(&dials) }, "two");
    let there = tokio::spawn(async move { answer(&mut acceptor, |_| welcome(7)).await });
    let mut tries = 0;
    let conn = loop {
        tries += 1;
        match links.conn(2, Purpose::Log, ms(75)).await {
            Ok(conn) => break conn,
            Err(error) => assert!(matches!(error, CallError::Unreachable(_)) && tries < 20, "{error}"),
        }
        tokio::time::sleep(ms(5)).await;
    };
    assert!(tries > 2, "nobody had to wait");
    assert_eq!((dials.load(Ordering::Relaxed), conn.process), (1, 7));
    let again = links.conn(2, Purpose::Log, ms(75)).await.unwrap();
    assert!(Arc::ptr_eq(&conn, &again), "one connection");
    assert!(links.present(2, Purpose::Control).is_none(), "another purpose has another");
    drop(there);
}

/// Whoever asks for a connection while the node stops gets an answer, and so does everybody who asks behind that.
#[test]
fn a_dial_that_cannot_begin_any_more_holds_nobody_up() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (_dir, links) = runtime.block_on(async { links(Memory::default(), "two") });
    runtime.shutdown_background();
    let (sender, outcome) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let here = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for _ in 0..2 {
            let failed = here.block_on(links.conn(2, Purpose::Relay, ms(500))).is_err();
            sender.send(failed).unwrap();
        }
    });
    for _ in 0..2 {
        assert_eq!(outcome.recv_timeout(Duration::from_secs(10)), Ok(true));
    }
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_nobody_answers_ends_in_its_own_time_and_another_begins() {
    let (memory, dials) = (Memory::default(), Arc::<AtomicUsize>::default());
    // It accepts and never says a word.
    let mut acceptor = memory.listen("two");
    let (_dir, links) = links(Slow { memory, takes: ms(1), dials: Arc::clone(&dials) }, "two");
    let began = Instant::now();
    let failed = links.conn(2, Purpose::Relay, Duration::from_secs(60)).await.err().unwrap().to_string();
    assert!(failed.contains("two: no answer in time") && began.elapsed() <= ms(3100), "{failed}");
    let at_once = links.conn(2, Purpose::Relay, Duration::from_secs(60)).await.err();
    assert!(at_once.is_some() && dials.load(Ordering::Relaxed) == 1, "dialed again without a pause");
    drop(acceptor.accept().await.unwrap());
    tokio::time::sleep(ms(60)).await;
    let next = tokio::spawn({
        let links = Arc::clone(&links);
        async move { links.conn(2, Purpose::Relay, Duration::from_secs(60)).await }
    });
    let there = answer(&mut acceptor, |_| welcome(8)).await;
    assert_eq!(next.await.unwrap().unwrap().process, 8);
    drop(there);
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_seen_until_it_ends_and_all_of_a_silent_node_are_cut() {
    let memory = Memory::default();
    let mut acceptor = memory.listen("two");
    let (_dir, links) = links(memory, "two");
    let mut theirs = Vec::new();
    for purpose in [Purpose::Control, Purpose::Log] {
        let (conn, there) = tokio::join!(links.conn(2, purpose, ms(500)), answer(&mut acceptor, |_| welcome(7)));
        assert!(!conn.unwrap().is_closed());
        theirs.push(there);
    }
    let control = links.present(2, Purpose::Control).unwrap();
    links.cut(3);
    assert!(links.present(2, Purpose::Control).is_some(), "another node");
    let answer = control.call(Kind::Ping, bytes::Bytes::new(), Duration::from_secs(60));
    let (answer, ()) = tokio::join!(answer, async { links.cut(2) });
    assert!(matches!(answer, Err(CallError::Lost)), "who waits is outcome: {answer:?}");
    assert!(links.present(2, Purpose::Control).is_none() && links.present(2, Purpose::Log).is_none());
    for mut there in theirs {
        // What was sent before, and the end.
        let mut rest = Vec::new();
        there.read_to_end(&mut rest).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_hello_of_the_life_before_does_not_end_a_healthy_process() {
    let memory = Memory::default();
    let mut acceptor = memory.listen("two");
    let (_dir, links) = links(memory, "two");
    let old_life = || {
        Frame::new(Kind::HelloRefused, 0, HelloRefused::because(HelloRefusal::OldLife, "a later life").encode_to_vec())
    };
    let dialed = links.dial(2, Purpose::Control);
    let answered = answer(&mut acceptor, |hello| {
        links.identity.live_again(hello.incarnation).unwrap();
        old_life()
    });
    let (dialed, _there) = tokio::join!(dialed, answered);
    assert!(matches!(dialed, Err(DialError::Failed(_))), "to be tried again");
    assert_eq!(*links.identity.fatal().borrow(), None);
    let (dialed, _there) = tokio::join!(links.dial(2, Purpose::Control), answer(&mut acceptor, |_| old_life()));
    assert!(matches!(dialed, Err(DialError::HelloRefused(_))), "it is the present life that is refused");
    assert!(links.identity.fatal().borrow().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_hello_from_before_the_founding_does_not_end_a_founder() {
    let memory = Memory::default();
    let mut acceptor = memory.listen("two");
    let (_dir, links) = links(memory, "two");
    let lost_data =
        || Frame::new(Kind::HelloRefused, 0, HelloRefused::because(HelloRefusal::LostData, "no data").encode_to_vec());
    let answered = answer(&mut acceptor, |hello| {
        assert_eq!(hello.cluster_id, "");
        links.identity.belong_to("0123456789abcdef0123456789abcdef").unwrap();
        lost_data()
    });
    let (dialed, _there) = tokio::join!(links.dial(2, Purpose::Control), answered);
    assert!(matches!(dialed, Err(DialError::Failed(_))), "to be tried again");
    assert_eq!(*links.identity.fatal().borrow(), None);
    let (dialed, _there) = tokio::join!(links.dial(2, Purpose::Control), answer(&mut acceptor, |_| lost_data()));
    assert!(matches!(dialed, Err(DialError::HelloRefused(_))), "it is the present hello that is refused");
}

#[tokio::test(start_paused = true)]
async fn nobody_dials_any_more_when_the_links_are_closed() {
    let memory = Memory::default();
    let _acceptor = memory.listen("two");
    let (_dir, links) = links(memory, "two");
    let waiting = tokio::spawn({
        let links = Arc::clone(&links);
        async move { links.conn(2, Purpose::Live, Duration::from_secs(60)).await }
    });
    tokio::time::sleep(ms(10)).await;
    let began = Instant::now();
    links.close();
    assert!(waiting.await.unwrap().is_err() && began.elapsed() < ms(10));
    assert_eq!(Arc::strong_count(&links), 1, "nothing is left of it");
}
