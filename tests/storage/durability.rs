//! `kill -9` at random moments under load: what was acknowledged is there, in order, once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::http::Http;
use crate::harness::node::{Node, Options};
use crate::harness::sse::Sse;
use crate::harness::{Rng, ms};

/// Bound of reading back what a round stored.
const READ: Duration = Duration::from_secs(20);
/// Events in each batch.
const BATCH: u64 = 40;

/// What became of one publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// 202, with the index of a single event.
    Stored(Option<i64>),
    /// An answer that is not 202.
    Refused,
    /// The connection broke before an answer.
    Unknown,
}

/// One publish: the first payload number, how many events, what became of it.
struct Attempt {
    first: u64,
    count: u64,
    fate: Fate,
}

/// What is known about the whole log.
#[derive(Default)]
struct Ledger {
    attempts: Vec<Attempt>,
    /// Payload numbers in the order of the log: place 0 is index 1.
    stored: Vec<u64>,
    /// Ids, to resume the reading.
    last_id: Option<String>,
}

#[test]
fn acknowledged_events_survive_kills_at_random_moments() {
    let rounds = std::env::var("ROLLBOOK_KILL_ROUNDS");
    let rounds: u64 = rounds.ok().and_then(|text| text.parse().ok()).unwrap_or(50);
    let mut rng = Rng::from_env("kill -9");
    let mut node = Node::start(&Options::namespaces("app,other"));
    let mut ledger = Ledger::default();
    let started = Instant::now();
    for round in 0..rounds {
        let life = ms(rng.pick(50, 400));
        ledger.attempts.extend(load_and_kill(&mut node, round, life));
        let killed = Instant::now();
        node.restart();
        let back = killed.elapsed();
        ledger.read_on(&node);
        ledger.check(round);
        if round % 10 == 9 || round + 1 == rounds {
            ledger.replay_everything(&node);
        }
        eprintln!("round {round}: {life:?} of load, ready after {back:?}, {} events", ledger.stored.len());
    }
    let accepted = ledger.attempts.iter().filter(|own| matches!(own.fate, Fate::Stored(_)));
    let accepted = accepted.count();
    eprintln!("{rounds} kills, {accepted} acknowledged publishes, {:?}", started.elapsed());
    assert!(accepted as u64 > rounds * 5, "too little load to prove anything: {accepted}");
}

/// Three writers of single events, two of batches, one whose every second publish must be refused.
fn load_and_kill(node: &mut Node, round: u64, life: Duration) -> Vec<Attempt> {
    let dead = AtomicBool::new(false);
    let address = node.log;
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..6)
            .map(|writer| {
                let dead = &dead;
                scope.spawn(move || {
                    let base = (round * 8 + writer) << 32;
                    write_until_cut(address, base, writer, dead)
                })
            })
            .collect();
        std::thread::sleep(life);
        node.kill9();
        dead.store(true, Ordering::Relaxed);
        let attempts = writers.into_iter().map(|writer| writer.join().expect("a writer"));
        attempts.flatten().collect()
    })
}

fn write_until_cut(address: SocketAddr, base: u64, writer: u64, dead: &AtomicBool) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    let mut http = Http::connect(address);
    let mut next = base;
    while !dead.load(Ordering::Relaxed) {
        let count = if (3..5).contains(&writer) { BATCH } else { 1 };
        let body = body_of(writer, next, count);
        let answer = http.try_request("POST", "/", &[], body.as_bytes());
        let fate = match answer {
            Ok(answer) if answer.status == 202 && count == 1 => Fate::Stored(Some(answer.published().index)),
            Ok(answer) if answer.status == 202 => Fate::Stored(None),
            Ok(_) => Fate::Refused,
            Err(_) => Fate::Unknown,
        };
        attempts.push(Attempt { first: next, count, fate });
        if fate == Fate::Unknown {
            break;
        }
        next += count;
        if count > 1 {
            // Batches would bury the single events.
            std::thread::sleep(ms(4));
        }
    }
    attempts
}

fn body_of(writer: u64, first: u64, count: u64) -> String {
    let pad = "x".repeat(usize::try_from(first % 300).unwrap_or(0));
    let event = |n: u64| format!("{{\"subject\":\"app.w{writer}\",\"payload\":{{\"n\":{n},\"pad\":\"{pad}\"}}}}");
    if count > 1 {
        let events: Vec<String> = (first..first + count).map(event).collect();
        return format!("[{}]", events.join(","));
    }
    if writer == 5 {
        // Pairs share a key, so that the second of each pair is refused.
        let key = first / 2;
        return event(first).replacen('{', &format!("{{\"key\":\"k{key}\","), 1);
    }
    event(first)
}

impl Ledger {
    /// Reads what is new since the last reading, up to an end mark.
    fn read_on(&mut self, node: &Node) {
        let before = self.stored.len();
        let mark = node.publish("app.mark", "{\"n\":null}");
        let start = self.last_id.take().unwrap_or_else(|| "oldest".to_owned());
        let stream = node.subscribe(&[("subject", "app.>"), ("start", &start)]);
        let fresh = read_to(stream, mark.index, before);
        self.stored.extend(fresh);
        self.last_id = Some(mark.id);
    }

    /// The whole log again from its oldest event: the same numbers at the same places.
    fn replay_everything(&self, node: &Node) {
        let last = i64::try_from(self.stored.len()).expect("a count");
        let again = read_to(node.replay("app.>"), last, 0);
        assert!(again == self.stored, "a full replay differs from what was read before");
        let mut other = node.replay("other.>");
        other.quiet(ms(50));
    }

    /// Compares every publish with what is stored.
    fn check(&self, round: u64) {
        let mut places: BTreeMap<u64, usize> = BTreeMap::new();
        for (place, number) in self.stored.iter().enumerate() {
            if *number != u64::MAX {
                let twice = places.insert(*number, place);
                assert_eq!(twice, None, "round {round}: payload {number} is stored twice");
            }
        }
        let mut known = 0;
        for attempt in &self.attempts {
            let numbers = attempt.first..attempt.first + attempt.count;
            let found: Vec<usize> = numbers.filter_map(|number| places.get(&number).copied()).collect();
            known += found.len();
            let whole = found.len() as u64 == attempt.count;
            let name = format!("round {round}: publish of {} x {}", attempt.count, attempt.first);
            match attempt.fate {
                Fate::Stored(index) => {
                    assert!(whole, "{name} was acknowledged and {} are stored", found.len());
                    if let Some(index) = index {
                        assert_eq!(found.first().map(|place| *place as i64 + 1), Some(index), "{name}: index");
                    }
                }
                Fate::Refused => assert!(found.is_empty(), "{name} was refused and is stored"),
                Fate::Unknown => assert!(whole || found.is_empty(), "{name}: a part is stored"),
            }
            let in_a_row = found.windows(2).all(|pair| pair[0] + 1 == pair[1]);
            assert!(in_a_row, "{name}: places {found:?}");
        }
        assert_eq!(known, places.len(), "round {round}: an event nobody published");
    }
}

/// The payload numbers up to that index; a mark counts as `u64::MAX`.
fn read_to(mut stream: Sse, last: i64, before: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    let mut want = i64::try_from(before).expect("a count") + 1;
    while want <= last {
        let json: Value = stream.next_event(READ).json();
        assert_eq!(json["index"], want, "a gap or a step back");
        numbers.push(json["payload"]["n"].as_u64().unwrap_or(u64::MAX));
        want += 1;
    }
    numbers
}
