//! Events in the order of their keys: one of each key is on its way at a time.

use super::random::SplitMix64;
use super::*;
use crate::bus::delivery::order::OrderBy;

/// An event whose key is its subject; without a key when `key` is 0.
fn keyed(sequence: u64, key: u64) -> Arc<StoredEvent> {
    let (mut record, subject, payload) = (Vec::new(), format!("a.k{key}"), format!("{{\"key\":{key}}}"));
    let payload = if key == 0 { "{}" } else { payload.as_str() };
    Event { subject: &subject, payload: Some(payload.as_bytes()), ..Event::default() }.encode(&mut record).unwrap();
    Arc::new(StoredEvent::stored(sequence, Bytes::from(record)))
}

fn ordered() -> Window {
    Window::default().ordered_by(Some(OrderBy::parse("/key").unwrap()))
}

fn ids(items: &[Arc<StoredEvent>], outcome: Outcome) -> Acknowledgement {
    Acknowledgement { which: Which::Ids(items.iter().map(|item| item.id()).collect()), outcome }
}

/// What members were sent, and took at once.
fn taken(window: &mut Window, steps: Vec<Step>, now: Instant) -> Vec<(Member, u64)> {
    for step in &steps {
        if let Step::Send(member, given) = step {
            let sequences: Vec<u64> = given.iter().map(Given::sequence).collect();
            assert!(window.answered(*member, &sequences, true, now).is_empty());
        }
    }
    summary(&steps)
}

#[test]
fn the_next_event_of_a_key_waits_until_the_one_before_is_done() {
    let (mut window, now) = (ordered(), Instant::now());
    let items: Vec<_> = [(1, 7), (2, 7), (3, 8), (4, 0), (5, 0), (6, 7)].map(|(at, key)| keyed(at, key)).into();
    (1..=2).for_each(|member| window.join(member, many(3, 10)));
    window.offer(items.clone());
    let steps = window.assign(now);
    let mut sent = taken(&mut window, steps, now);
    sent.sort_by_key(|(_, sequence)| *sequence);
    assert_eq!(sent.iter().map(|(_, sequence)| *sequence).collect::<Vec<_>>(), [1, 3, 4, 5], "2 and 6 wait behind 1");
    let has_1 = sent[0].0;
    // An event that comes again keeps its key.
    drop(window.acknowledge(has_1, &ids(&items[..1], Outcome::Nack(Some(REDELIVERY))), now));
    assert!(window.assign(now).is_empty());
    assert_eq!((window.floor(7), window.done()), (0, vec![]));
    let later = now + REDELIVERY;
    let steps = window.expire(later);
    let again = taken(&mut window, steps, later);
    assert!(again.iter().any(|(_, sequence)| *sequence == 1) && !again.iter().any(|(_, sequence)| *sequence == 2));
    let has_1 = again.iter().find(|(_, sequence)| *sequence == 1).unwrap().0;
    drop(window.acknowledge(has_1, &ids(&items[..1], Outcome::Ack), later));
    let steps = window.assign(later);
    assert_eq!(taken(&mut window, steps, later).iter().map(|(_, at)| *at).collect::<Vec<_>>(), [2]);
    assert_eq!(window.floor(7), 1);
}

#[test]
fn a_dead_letter_is_stored_before_the_next_event_of_its_key_is_delivered() {
    let (mut window, now) = (ordered(), Instant::now());
    let items: Vec<_> = (1..=2).map(|at| keyed(at, 7)).collect();
    window.join(1, many(3, 10));
    window.offer(items.clone());
    let steps = window.assign(now);
    assert_eq!(taken(&mut window, steps, now), [(1, 1)]);
    let (_, steps) = window.acknowledge(1, &ids(&items[..1], Outcome::Reject("no".to_owned())), now);
    assert_eq!(summary(&steps), [(1001, 1)]);
    assert!(window.assign(now).is_empty());
    window.dead_letter_done(1);
    let steps = window.assign(now);
    assert_eq!(taken(&mut window, steps, now), [(1, 2)]);
}

#[test]
fn events_that_wait_for_their_key_are_bounded_in_bytes() {
    let mut window = ordered();
    window.join(1, many(3, 10));
    let large = |sequence| {
        let payload = format!("{{\"key\":7,\"text\":\"{}\"}}", "x".repeat(1 << 20));
        let mut record = Vec::new();
        Event { subject: "a.b", payload: Some(payload.as_bytes()), ..Event::default() }.encode(&mut record).unwrap();
        Arc::new(StoredEvent::stored(sequence, Bytes::from(record)))
    };
    let mut sequence = 0;
    while window.wants_more() {
        sequence += 1;
        window.offer(vec![large(sequence)]);
        drop(window.assign(Instant::now()));
    }
    assert!((16..20).contains(&sequence), "{sequence} events of 1 MiB wait");
}

/// Random orders of what happens to a window with keys.
struct Simulation {
    random: SplitMix64,
    window: Window,
    now: Instant,
    members: u64,
    /// The keys of the events, from event 1 on.
    keys: Vec<u64>,
    /// What is with a member, by the steps.
    with: BTreeMap<u64, Member>,
    letters: Vec<u64>,
    done: BTreeSet<u64>,
}

impl Simulation {
    fn key(&self, sequence: u64) -> u64 {
        self.keys[usize::try_from(sequence).unwrap() - 1]
    }

    fn item(&self, sequence: u64) -> Arc<StoredEvent> {
        keyed(sequence, self.key(sequence))
    }

    fn carry_out(&mut self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Send(member, given) => {
                    let sequences: Vec<u64> = given.iter().map(Given::sequence).collect();
                    for sequence in &sequences {
                        let key = self.key(*sequence);
                        let mut before = (1..*sequence).filter(|other| key != 0 && self.key(*other) == key);
                        assert!(before.all(|other| self.done.contains(&other)), "{sequence} came before its turn");
                        assert!(!self.done.contains(sequence), "{sequence} is done");
                        self.with.insert(*sequence, member);
                    }
                    let more = self.window.answered(member, &sequences, true, self.now);
                    self.carry_out(more);
                }
                Step::DeadLetter(_, item, ..) => self.letters.push(item.sequence()),
                Step::Record(member, _) => panic!("nothing is recorded, and {member} has something to record"),
            }
        }
    }

    fn store_letters(&mut self) {
        for sequence in std::mem::take(&mut self.letters) {
            assert!(self.done.insert(sequence));
            self.window.dead_letter_done(sequence);
        }
    }

    fn step(&mut self) {
        match self.random.below(16) {
            0 => {
                self.members += 1;
                let most = 1 + u32::try_from(self.random.below(6)).unwrap();
                self.window.join(self.members, many(3, most));
            }
            1 if self.random.below(3) == 0 => {
                let member = 1 + self.random.below(self.members + 1);
                let gone = self.random.below(2) == 0;
                let departure = if gone { Departure::Gone } else { Departure::Returned };
                let steps = self.window.leave(member, departure);
                self.carry_out(steps);
            }
            2..5 => {
                self.keys.push(self.random.below(4));
                let sequence = u64::try_from(self.keys.len()).unwrap();
                let item = self.item(sequence);
                self.window.offer(vec![item]);
            }
            5 => {
                self.now += Duration::from_secs(2);
                let steps = self.window.expire(self.now);
                self.carry_out(steps);
            }
            6 => self.store_letters(),
            7..=15 => self.say(),
            _ => {}
        }
        let steps = self.window.assign(self.now);
        self.carry_out(steps);
        let floor = self.window.floor(u64::try_from(self.keys.len()).unwrap() + 1);
        assert!((1..=floor).all(|sequence| self.done.contains(&sequence)), "floor {floor} of {:?}", self.done);
    }

    fn say(&mut self) {
        let flights: Vec<(u64, Member)> = self.with.iter().map(|(sequence, member)| (*sequence, *member)).collect();
        if flights.is_empty() {
            return;
        }
        let (sequence, member) =
            flights[usize::try_from(self.random.below(flights.len().try_into().unwrap())).unwrap()];
        let outcome = match self.random.below(6) {
            0..3 => Outcome::Ack,
            3 => Outcome::Nack(None),
            4 => Outcome::Nack(Some(REDELIVERY)),
            _ => Outcome::Reject("no".to_owned()),
        };
        let said = ids(&[self.item(sequence)], outcome.clone());
        let (acknowledged, steps) = self.window.acknowledge(member, &said, self.now);
        self.with.remove(&sequence);
        if acknowledged.is_any() && outcome == Outcome::Ack {
            assert!(self.done.insert(sequence), "{sequence} twice");
        }
        self.carry_out(steps);
    }

    /// One member is left, which acknowledges everything.
    fn drain(&mut self) {
        self.members += 1;
        self.window.join(self.members, many(0, 100));
        let all = u64::try_from(self.keys.len()).unwrap();
        for _ in 0..all * 4 + 100 {
            self.store_letters();
            let steps = self.window.assign(self.now);
            self.carry_out(steps);
            let flights: Vec<(u64, Member)> = std::mem::take(&mut self.with).into_iter().collect();
            for (sequence, member) in flights {
                let said = ids(&[self.item(sequence)], Outcome::Ack);
                let (acknowledged, steps) = self.window.acknowledge(member, &said, self.now);
                if acknowledged.is_any() {
                    assert!(self.done.insert(sequence));
                }
                self.carry_out(steps);
            }
            self.now += REDELIVERY;
            let steps = self.window.expire(self.now);
            self.carry_out(steps);
        }
        assert_eq!(self.window.floor(all + 1), all, "an event is stuck behind its key");
        assert_eq!(self.window.keys.len(), 0);
    }
}

#[test]
fn no_order_of_things_delivers_an_event_before_its_turn_or_leaves_one_behind() {
    let given = std::env::var("ROLLBOOK_SEED").ok().map(|text| text.parse().expect("a number"));
    let (mut events, mut letters) = (0, 0);
    for seed in given.map_or(0..300, |seed: u64| seed..seed + 1) {
        println!("ROLLBOOK_SEED={seed}");
        let mut simulation = Simulation {
            random: SplitMix64(seed),
            window: ordered(),
            now: Instant::now(),
            members: 0,
            keys: Vec::new(),
            with: BTreeMap::new(),
            letters: Vec::new(),
            done: BTreeSet::new(),
        };
        for _ in 0..400 {
            simulation.step();
            letters += simulation.letters.len();
        }
        simulation.drain();
        events += simulation.done.len();
    }
    assert!(given.is_some() || (events > 10_000 && letters > 100), "this test has gone blind: {events} {letters}");
}
