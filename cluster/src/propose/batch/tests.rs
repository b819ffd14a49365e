//! The batcher above a log that loses, repeats and delays what it is given.

use std::sync::Mutex;

use bytes::Bytes;
use rollbook_core::command::{Done, Reply};
use rollbook_core::entry::{Batch, Entry, FLAG_CREATE, Frame, KIND_COMMAND, begin_publish, finish_publish};
use rollbook_core::event::Event;
use rollbook_core::limits::BATCHES_PER_PRODUCER;
use rollbook_core::node::Owner;

use super::*;
use crate::lock::lock;
use crate::propose::proposal::{BatchContent, Committed, ProposalQueue, ReplyTo, queue};

const TIMEOUT: Duration = Duration::from_secs(10);
const LEADERLESS: Duration = Duration::from_secs(3);

/// What becomes of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Stored,
    /// It is stored; the answer is lost.
    AnswerLost,
    /// It is lost, and nobody knows.
    Lost,
    /// It is stored later, perhaps behind others; nobody knows.
    Late,
    NotLeader,
    Full,
    /// No answer, ever.
    Hangs,
}

#[derive(Default)]
struct World {
    leader: Option<u64>,
    alone: bool,
    fates: VecDeque<Fate>,
    /// After the last of `fates`; none: stored.
    then: Option<Fate>,
    numbers: u64,
    in_flight: usize,
    in_flight_max: usize,
    /// Payloads in the order in which they are stored, by their first 8 bytes.
    stored: Vec<u64>,
    /// Replies by number of the batch.
    replies: std::collections::BTreeMap<u64, Vec<Reply>>,
    late: Vec<Bytes>,
}

/// A log that keeps to the rules for marks.
struct Log {
    world: Mutex<World>,
    random: Mutex<u64>,
}

impl Log {
    fn new(world: World, seed: u64) -> Arc<Self> {
        Arc::new(Self { world: Mutex::new(world), random: Mutex::new(seed) })
    }

    fn random(&self, below: u64) -> u64 {
        let mut state = lock(&self.random);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below
    }

    fn stored(&self) -> Vec<u64> {
        lock(&self.world).stored.clone()
    }
}

impl World {
    /// Applies an entry as the rules do.
    fn apply(&mut self, entry: &Bytes) -> Vec<Reply> {
        let entry = Entry::parse(entry).unwrap();
        let mut mark: Option<Batch> = None;
        let mut values = Vec::new();
        for frame in entry.frames() {
            match frame {
                Frame::Batch(batch) => mark = Some(batch),
                Frame::Publish(publish) => {
                    let (event, _) = Event::decode(publish.records).unwrap();
                    values.push(u64::from_le_bytes(*event.payload.unwrap().first_chunk().unwrap()));
                }
                Frame::Command(_) => values.push(u64::MAX),
                Frame::Unknown(_) => panic!("unknown"),
            }
        }
        let newest = self.replies.keys().next_back().copied();
        if let Some(batch) = mark {
            assert_eq!(usize::try_from(batch.frames).unwrap(), values.len());
            if let Some(replies) = self.replies.get(&batch.number) {
                assert_eq!(replies.len(), values.len(), "other frames under the same number");
                return replies.clone();
            }
            if newest.is_some_and(|newest| batch.number + BATCHES_PER_PRODUCER <= newest) {
                let late = || Err(Refusal::OutcomeUnknown("the batch came too late".to_owned()));
                return values.iter().map(|_| late()).collect();
            }
        }
        let first = u64::try_from(self.stored.len()).unwrap();
        self.stored.extend(&values);
        let replies: Vec<Reply> =
            (first..).take(values.len()).map(|first| Ok(Done::Published { first, events: 1 })).collect();
        if let Some(batch) = mark {
            self.replies.insert(batch.number, replies.clone());
        }
        replies
    }
}

impl Submit for Log {
    fn id(&self) -> u64 {
        1
    }

    fn leader(&self) -> Option<u64> {
        lock(&self.world).leader
    }

    fn mark(&self, frames: usize) -> Option<Batch> {
        let mut world = lock(&self.world);
        if world.alone {
            return None;
        }
        world.numbers += BATCHES_PER_PRODUCER;
        let frames = u32::try_from(frames).unwrap();
        Some(Batch { owner: Owner { node: 1, incarnation: 1 }, number: world.numbers, frames })
    }

    async fn attempt(&self, leader: u64, content: &BatchContent, handed: &HandedOver) -> Attempt {
        let attempt = self.try_once(leader, content, handed).await;
        lock(&self.world).in_flight -= 1;
        attempt
    }

    async fn shown(&self, _: u64, within: Duration) {
        tokio::time::sleep(within.min(Duration::from_millis(1))).await;
    }

    async fn changed_within(&self, within: Duration) {
        tokio::time::sleep(within).await;
    }

    fn is_hopeless(&self, waited: Duration) -> bool {
        waited >= LEADERLESS
    }
}

impl Log {
    async fn try_once(&self, leader: u64, content: &BatchContent, handed: &HandedOver) -> Attempt {
        let fate = {
            let mut world = lock(&self.world);
            world.in_flight += 1;
            world.in_flight_max = world.in_flight_max.max(world.in_flight);
            world.fates.pop_front().or(world.then).unwrap_or(Fate::Stored)
        };
        // As on the way to another node: a dial, or a full channel.
        tokio::time::sleep(Duration::from_millis(self.random(4))).await;
        if fate == Fate::NotLeader && self.random(2) == 0 {
            return Attempt::NotLeader;
        }
        if leader != self.id() {
            assert!(content.forward().is_some(), "what is forwarded has a mark");
        }
        let (entry, replies) = {
            let mut world = lock(&self.world);
            let entry = content.entry(1);
            let replies = match fate {
                Fate::Stored | Fate::AnswerLost => world.apply(&entry),
                Fate::Late => {
                    world.late.push(entry.clone());
                    vec![]
                }
                Fate::Lost | Fate::NotLeader | Fate::Full | Fate::Hangs => vec![],
            };
            (entry, replies)
        };
        drop(entry);
        handed.give(self.random(8) > 0);
        tokio::time::sleep(Duration::from_millis(1 + self.random(20))).await;
        if self.random(3) == 0 {
            let mut world = lock(&self.world);
            for late in std::mem::take(&mut world.late) {
                drop(world.apply(&late));
            }
        }
        match fate {
            Fate::Stored => Attempt::Done(Committed { index: 1, replies }),
            Fate::AnswerLost | Fate::Lost | Fate::Late => Attempt::Unknown("the connection was lost".into()),
            Fate::NotLeader => Attempt::NotLeader,
            Fate::Full => Attempt::Refused(Refusal::Overloaded("full".to_owned())),
            Fate::Hangs => std::future::pending().await,
        }
    }
}

fn publish(value: u64, bytes: usize) -> Bytes {
    let mut payload = value.to_le_bytes().to_vec();
    payload.resize(bytes, b'x');
    let mut frame = Vec::new();
    begin_publish(&mut frame, "app").unwrap();
    Event { subject: "app.x", payload: Some(&payload), ..Event::default() }.encode(&mut frame).unwrap();
    finish_publish(&mut frame, 0, FLAG_CREATE, 1).unwrap();
    frame.into()
}

fn propose(queue: &ProposalQueue, frames: Bytes) -> oneshot::Receiver<Reply> {
    let (proposal, reply) = Proposal::of_client(frames, TIMEOUT);
    queue.push(proposal).unwrap();
    reply
}

fn paused<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(future)
}

fn started(world: World, seed: u64) -> (ProposalQueue, Arc<Log>) {
    let (queue, proposals) = queue();
    let log = Log::new(world, seed);
    tokio::spawn(run(Arc::clone(&log), proposals));
    (queue, log)
}

fn leads() -> World {
    World { leader: Some(1), ..World::default() }
}

/// What becomes of one publish when the attempts at it end like this.
fn reply_to(fates: &[Fate], then: Fate) -> (Reply, Vec<u64>, Duration) {
    paused(async {
        let world = World { fates: fates.iter().copied().collect(), then: Some(then), ..leads() };
        let (queue, log) = started(world, 1);
        let began = Instant::now();
        let reply = propose(&queue, publish(7, 100)).await.unwrap();
        (reply, log.stored(), began.elapsed())
    })
}

#[test]
fn an_outcome_that_is_unknown_stays_unknown_until_somebody_knows_it() {
    for then in [Fate::Full, Fate::NotLeader, Fate::Lost, Fate::Hangs] {
        for first in [Fate::AnswerLost, Fate::Lost] {
            let (reply, _, took) = reply_to(&[first], then);
            assert!(matches!(reply, Err(Refusal::OutcomeUnknown(_))), "{first:?}, then {then:?}: {reply:?}");
            assert!(took <= TIMEOUT + Duration::from_millis(100), "{then:?}: {took:?}");
        }
    }
    let (reply, stored, _) = reply_to(&[Fate::AnswerLost, Fate::Full, Fate::NotLeader], Fate::Stored);
    assert!(reply.is_ok() && stored == [7], "stored once, and its client knows: {reply:?} {stored:?}");
    let (reply, stored, _) = reply_to(&[], Fate::Full);
    assert!(matches!(reply, Err(Refusal::Overloaded(_))) && stored.is_empty(), "{reply:?}");
    let (reply, stored, _) = reply_to(&[], Fate::NotLeader);
    assert!(matches!(reply, Err(Refusal::Unavailable(_))) && stored.is_empty(), "{reply:?}");
}

#[test]
fn a_node_that_forwarded_a_batch_is_told_whether_it_was_given_to_raft() {
    for (fate, leader, wanted) in [
        (Fate::NotLeader, Some(1), Failure::NotLeader),
        (Fate::Lost, Some(1), Failure::Unknown("the connection was lost".into())),
        (Fate::Hangs, Some(1), Failure::Unknown("no answer in time".into())),
        (Fate::Stored, Some(2), Failure::NotLeader),
        (Fate::Stored, None, Failure::NotLeader),
    ] {
        let answer = paused(async {
            let (queue, _log) = started(World { leader, then: Some(fate), ..World::default() }, 1);
            let (answer, answered) = oneshot::channel();
            let until = Instant::now() + Duration::from_secs(3);
            let frames = publish(1, 10);
            queue.push(Proposal { frames, replies: 1, until, answer: ReplyTo::Node(answer) }).unwrap();
            answered.await.unwrap()
        });
        assert_eq!(answer, Err(wanted), "{fate:?}, leader {leader:?}");
    }
}

#[test]
fn without_a_leader_all_that_waits_is_refused_at_once_and_nothing_is_written_later() {
    paused(async {
        let (queue, log) = started(World::default(), 1);
        let began = Instant::now();
        let replies: Vec<_> = (0..5000).map(|value| propose(&queue, publish(value, 2000))).collect();
        for reply in replies {
            let reply = reply.await.unwrap();
            assert!(matches!(reply, Err(Refusal::Unavailable(_))), "{reply:?}");
        }
        assert!(began.elapsed() < LEADERLESS + Duration::from_millis(500), "{:?}", began.elapsed());
        // Those that come next wait no longer than the others.
        let began = Instant::now();
        assert!(propose(&queue, publish(1, 10)).await.unwrap().is_err());
        assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
        lock(&log.world).leader = Some(1);
        assert!(propose(&queue, publish(9, 10)).await.unwrap().is_ok());
        assert_eq!(log.stored(), [9]);
    });
}

#[test]
fn what_waits_in_the_queue_has_an_answer_at_its_deadline_and_is_not_written_after_it() {
    paused(async {
        let (queue, log) = started(World { then: Some(Fate::Hangs), ..leads() }, 1);
        let began = Instant::now();
        let first: Vec<_> = (0..200).map(|value| propose(&queue, publish(value, 2000))).collect();
        tokio::time::sleep(Duration::from_secs(4)).await;
        let second: Vec<_> = (200..400).map(|value| propose(&queue, publish(value, 2000))).collect();
        let (mut unknown, mut not_stored) = (0, 0);
        for (number, reply) in first.into_iter().chain(second).enumerate() {
            match reply.await.unwrap() {
                Err(Refusal::OutcomeUnknown(_)) => unknown += 1,
                Err(Refusal::Unavailable(_)) => not_stored += 1,
                other => panic!("{number}: {other:?}"),
            }
            let most = if number < 200 { TIMEOUT } else { TIMEOUT + Duration::from_secs(4) };
            assert!(began.elapsed() <= most + Duration::from_millis(100), "{number}: {:?}", began.elapsed());
        }
        assert!(unknown > 0 && not_stored > 100, "{unknown} {not_stored}");
        assert!(lock(&log.world).stored.is_empty());
        lock(&log.world).then = None;
        assert!(propose(&queue, publish(900, 10)).await.unwrap().is_ok());
        assert_eq!(log.stored(), [900]);
    });
}

#[test]
fn a_publish_whose_client_has_gone_is_not_written_but_what_the_bus_itself_proposed_is() {
    paused(async {
        let (queue, log) = started(World { leader: None, ..World::default() }, 1);
        let gone: Vec<_> = (0..300).map(|value| propose(&queue, publish(value, 2000))).collect();
        drop(propose(&queue, Bytes::from_static(&[KIND_COMMAND, 0, 0, 0, 0, 0])));
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(gone);
        let stays = propose(&queue, publish(1000, 10));
        lock(&log.world).leader = Some(2);
        assert!(stays.await.unwrap().is_ok());
        assert_eq!(log.stored(), [u64::MAX, 1000]);
    });
}

#[test]
fn the_queue_is_bounded_in_bytes_and_in_number() {
    let (queue, mut proposals) = queue();
    let large = Bytes::from(vec![0; 64 << 20]);
    let push = |frames: &Bytes| {
        let (answer, _) = oneshot::channel();
        queue.push(Proposal {
            frames: frames.clone(),
            replies: 1,
            until: Instant::now(),
            answer: ReplyTo::Client(answer),
        })
    };
    (0..4).for_each(|_| push(&large).unwrap());
    assert!(matches!(push(&Bytes::from_static(b"x")), Err(Refusal::Overloaded(_))));
    drop(proposals.try_recv().unwrap());
    push(&large).unwrap();
    while proposals.try_recv().is_some() {}
    push(&Bytes::from(vec![0; 300 << 20])).unwrap();
    drop(proposals.try_recv().unwrap());
    let full = (0..100_000).position(|_| push(&Bytes::new()).is_err());
    assert_eq!(full, Some(65_536));
}

#[test]
fn a_pipeline_is_stored_in_its_order_two_batches_at_a_time_wherever_the_leader_is() {
    for (seed, leader, alone) in [(1, 1, false), (2, 2, false), (3, 1, true)] {
        paused(async {
            let (queue, log) = started(World { leader: Some(leader), alone, ..World::default() }, seed);
            let replies: Vec<_> = (0..3000).map(|value| propose(&queue, publish(value, 2000))).collect();
            for (value, reply) in (0..).zip(replies) {
                let reply = reply.await.unwrap();
                assert!(matches!(reply, Ok(Done::Published { first, .. }) if first == value), "{value}: {reply:?}");
            }
            let world = lock(&log.world);
            assert!(world.stored.iter().copied().eq(0..3000), "seed {seed}");
            assert_eq!(world.in_flight_max, 2, "seed {seed}");
        });
    }
}

/// Clients that send many publishes one behind the other, above a log that does everything that it may.
#[test]
fn publishes_are_stored_in_their_order_once_or_not_at_all_and_every_answer_is_true() {
    for seed in 0..300 {
        paused(async {
            let fates =
                [Fate::Stored, Fate::AnswerLost, Fate::Lost, Fate::Late, Fate::NotLeader, Fate::Full, Fate::Hangs];
            let dice = Log::new(World::default(), seed);
            let bad = dice.random(60);
            let fate =
                || if dice.random(100) < bad { fates[usize::try_from(dice.random(7)).unwrap()] } else { Fate::Stored };
            let fates = (0..200).map(|_| fate()).collect();
            let alone = seed % 5 == 0;
            let leader = Some(if alone { 1 } else { 1 + seed % 2 });
            let (queue, log) = started(World { leader, alone, fates, ..World::default() }, seed ^ 77);
            let mut replies = Vec::new();
            for value in 0..300 {
                let reply = propose(&queue, publish(value, 2000));
                // Some clients leave.
                replies.push((dice.random(20) > 0).then_some(reply));
                if dice.random(10) == 0 {
                    tokio::time::sleep(Duration::from_millis(dice.random(400))).await;
                }
                if dice.random(100) == 0 && !alone {
                    lock(&log.world).leader = [None, Some(1), Some(2)][usize::try_from(dice.random(3)).unwrap()];
                }
            }
            lock(&log.world).leader = leader;
            let mut last = None;
            for (value, reply) in (0..).zip(replies) {
                let Some(reply) = reply else { continue };
                let reply = reply.await.unwrap();
                let at = log.stored().iter().position(|stored| *stored == value);
                match reply {
                    Ok(Done::Published { first, .. }) => {
                        assert_eq!(at, usize::try_from(first).ok(), "seed {seed}: {value} is acknowledged");
                        assert!(last.is_none_or(|last| last < first), "seed {seed}: {value}");
                        last = Some(first);
                    }
                    Err(Refusal::OutcomeUnknown(_)) => {}
                    Err(Refusal::Overloaded(_) | Refusal::Unavailable(_)) => {
                        assert_eq!(at, None, "seed {seed}: {value} was not to be stored");
                    }
                    other => panic!("seed {seed}: {other:?}"),
                }
            }
            tokio::time::sleep(TIMEOUT).await;
            lock(&log.world).fates.clear();
            assert!(propose(&queue, publish(1000, 10)).await.unwrap().is_ok(), "seed {seed}: it does not go on");
            let stored = log.stored();
            // Alone nothing comes late: there is no way to another node.
            if !alone {
                assert!(stored.is_sorted_by(|a, b| a < b), "seed {seed}: {stored:?}");
            }
            assert!(stored.contains(&1000), "seed {seed}");
        });
    }
}
