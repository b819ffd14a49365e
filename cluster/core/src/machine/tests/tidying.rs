//! Rows that no rule needs any more are all removed, in bounded steps, and the same rows on every replica.

use core::cell::Cell;

use super::dedupe::{bounded, raise, set_window, tidy_up, trim};
use super::*;
use crate::entry::FLAG_RESTORE;
use crate::limits::{DEDUPE_WINDOW_MS, TIDY_ROWS_MAX};

/// Number of rows of keys and ids.
fn count_rows(memory: &MemoryStore) -> usize {
    let of = |family: &Family| matches!(family, Family::Ids | Family::Keys | Family::KeyRing);
    memory.rows.keys().filter(|(family, _)| of(family)).count()
}

/// A store that counts the rows that are read.
struct CountingRows<'a> {
    memory: &'a MemoryStore,
    reads: Cell<usize>,
}

impl Rows for CountingRows<'_> {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError> {
        self.reads.set(self.reads.get() + 1);
        self.memory.get(family, key)
    }

    fn scan(&self, family: Family, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, RowsError> {
        let found = self.memory.scan(family, from, to, limit)?;
        self.reads.set(self.reads.get() + found.len() + 1);
        Ok(found)
    }

    fn event_id(&self, head: &Head, sequence: u64) -> Result<Option<String>, RowsError> {
        self.reads.set(self.reads.get() + 1);
        self.memory.event_id(head, sequence)
    }
}

/// Applies one frame. Returns how many rows were read and written.
fn apply_counted(replica: &mut Replica, millis: u64, frame: &[u8]) -> (usize, usize) {
    replica.index += 1;
    let mut builder = EntryBuilder::new(0);
    builder.push(frame);
    let bytes = builder.finish(millis);
    let mut writes = Writes::default();
    let rows = CountingRows { memory: &replica.memory, reads: Cell::new(0) };
    let replies = replica.machine.apply(replica.index, &Entry::parse(&bytes).unwrap(), &rows, &mut writes).unwrap();
    assert!(replies[0].is_ok(), "{replies:?}");
    let counts = (rows.reads.get(), writes.rows().count());
    replica.memory.commit(&mut writes);
    counts
}

/// Applies `Tidy` until nothing is due. Returns the most rows that one step read and wrote.
fn tidy_all(replica: &mut Replica, millis: u64) -> (usize, usize) {
    let mut most = (0, 0);
    while replica.machine.tidy_due().is_some_and(|due| due <= millis) {
        let (reads, writes) = apply_counted(replica, millis, &tidy_up());
        most = (most.0.max(reads), most.1.max(writes));
    }
    most
}

#[test]
fn a_publish_with_a_key_costs_no_more_than_at_the_first_level() {
    let cost = |mut replica: Replica| {
        let mut most = (0, 0);
        for n in 0..2200_u64 {
            // A hundred milliseconds for each: the window of two minutes holds 1200 of them.
            let counts = apply_counted(&mut replica, n * 100, &keyed(&format!("{n:04}")));
            most = if n < 1300 { most } else { (most.0.max(counts.0), most.1.max(counts.1)) };
        }
        most
    };
    // Beside the rows of keys: the namespace, the index and the time.
    assert_eq!(cost(Replica::default()), (3, 5 + 3));
    assert_eq!(cost(bounded()), (3, 4 + 3));
}

#[test]
fn a_publish_with_an_id_reads_one_row_and_writes_one_more_than_at_the_first_level() {
    let cost = |mut replica: Replica| {
        let named = |id: &str| publish("app", &[event("app.x", "", id)], FLAG_CREATE);
        drop(replica.apply_one(named("first")));
        apply_counted(&mut replica, 1000, &named("second"))
    };
    assert_eq!(cost(Replica::default()), (1, 1 + 3));
    assert_eq!(cost(bounded()), (1, 2 + 3));
}

#[test]
fn after_a_trim_and_the_window_nothing_is_left_of_many_ids_and_keys() {
    const EVENTS: u64 = 300_000;
    const BATCH: u64 = 5000;
    let mut replica = bounded();
    let mut millis = 0;
    for with_keys in [false, true] {
        for first in (0..EVENTS).step_by(5000) {
            let names: Vec<_> =
                (first..first + BATCH).map(|n| (format!("app.user{n}"), format!("order-{n}"))).collect();
            let events: Vec<_> = names
                .iter()
                .map(|(subject, id)| if with_keys { event(subject, "welcome", "") } else { event("app.x", "", id) })
                .collect();
            millis += 100;
            replica.apply_at(millis, &[publish("app", &events, FLAG_CREATE)]);
        }
    }
    assert_eq!(count_rows(&replica.memory), usize::try_from(EVENTS * 4).unwrap());
    replica.memory.entries.clear();
    let trimmed = apply_counted(&mut replica, millis, &trim("app", EVENTS * 2 - 1000));
    assert!(trimmed.0 < 2 * TIDY_ROWS_MAX && trimmed.1 < 2 * TIDY_ROWS_MAX, "{trimmed:?}");
    let most = tidy_all(&mut replica, millis);
    assert!(most.0 <= 3 * TIDY_ROWS_MAX + 10 && most.1 <= 2 * TIDY_ROWS_MAX + 10, "{most:?}");
    assert_eq!(count_rows(&replica.memory), usize::try_from(EVENTS * 2).unwrap(), "the ids are gone");
    let most = tidy_all(&mut replica, millis + DEDUPE_WINDOW_MS);
    assert!(most.0 <= 3 * TIDY_ROWS_MAX + 10 && most.1 <= 2 * TIDY_ROWS_MAX + 10, "{most:?}");
    assert_eq!(count_rows(&replica.memory), 0);
    assert_eq!(replica.machine, replica.reloaded());
}

#[test]
fn rows_of_the_first_level_go_in_bounded_steps() {
    let mut replica = Replica::default();
    let mut frames = Vec::new();
    for n in 0..3000 {
        let (subject, id) = (format!("app.user{n}"), format!("order-{n}"));
        frames.push(publish("app", &[event(&subject, "welcome", &id)], FLAG_CREATE));
        frames.push(publish(&format!("ns{}", n % 7), &[event(&format!("ns{}.x", n % 7), &id, &id)], FLAG_CREATE));
    }
    replica.apply_at(1000, &frames);
    replica.memory.entries.clear();
    drop(replica.apply_one(trim("app", 2000)));
    raise(&mut replica);
    // The first entry at the level, and rows of it among those from before.
    let fresh = publish("app", &[event("app.user7", "k", "order-0")], 0);
    assert!(apply_counted(&mut replica, 1000, &fresh).1 < 10);
    let most = tidy_all(&mut replica, 1000);
    assert!(most.0 <= 3 * TIDY_ROWS_MAX && most.1 <= 3 * TIDY_ROWS_MAX + 10, "{most:?}");
    let ids = |replica: &Replica| replica.memory.rows.keys().filter(|(family, _)| *family == Family::Ids).count();
    assert_eq!(ids(&replica), 2 * (1001 + 1 + 3000), "each has two rows, those that were trimmed have none");
    for name in replica.machine.heads.keys().cloned().collect::<Vec<_>>() {
        drop(replica.apply_one(trim(&name, 1 << 40)));
    }
    let most = tidy_all(&mut replica, 1000 + DEDUPE_WINDOW_MS);
    assert!(most.0 <= 3 * TIDY_ROWS_MAX && most.1 <= 3 * TIDY_ROWS_MAX + 10, "{most:?}");
    assert_eq!(count_rows(&replica.memory), 0);
    assert_eq!(replica.machine, replica.reloaded());
    assert_eq!(replica.machine.tidy_due(), None, "nothing will be due any more");
}

#[test]
fn a_namespace_that_is_deleted_leaves_nothing_and_begins_anew() {
    let mut replica = bounded();
    let both = publish("app", &[event("app.x", "k", "one")], FLAG_CREATE);
    assert_eq!(replica.apply_one(both.clone()), published(1, 1));
    let delete = Command::NamespaceDelete(NamespaceDelete { name: "app".into() }).frame().unwrap();
    assert!(replica.apply_one(delete).is_ok());
    assert_eq!((count_rows(&replica.memory), &replica.machine), (0, &replica.reloaded()));
    assert_eq!(replica.apply_one(both), published(2, 1));
}

/// One step of the model: an entry with one frame.
#[derive(Debug, Clone)]
enum Step {
    Publish { name: &'static str, subject: &'static str, key: &'static str, id: &'static str, count: usize, copy: bool },
    Wait(u64),
    Trim { name: &'static str, keep: u64 },
    Delete(&'static str),
    Window { name: &'static str, millis: u64 },
    Tidy,
    Raise,
}

fn model_step() -> impl Strategy<Value = Step> {
    let name = || prop_oneof![Just("app"), Just("web")];
    let subject = prop_oneof![Just("a"), Just("b")];
    let key = prop_oneof![3 => Just(""), 1 => Just("k"), 1 => Just("l"), 1 => Just("m")];
    let id = prop_oneof![3 => Just(""), 1 => Just("x"), 1 => Just("y"), 1 => Just("z")];
    prop_oneof![
        12 => (name(), subject, key, id, 1_usize..4, prop::bool::weighted(0.2)).prop_map(
            |(name, subject, key, id, count, copy)| Step::Publish { name, subject, key, id, count, copy }),
        4 => prop_oneof![0_u64..2000, 0_u64..100_000].prop_map(Step::Wait),
        2 => (name(), 0_u64..4).prop_map(|(name, keep)| Step::Trim { name, keep }),
        1 => name().prop_map(Step::Delete),
        1 => (name(), prop_oneof![1000_u64..5000, 1000_u64..100_000]).prop_map(|(name, millis)| Step::Window { name, millis }),
        3 => Just(Step::Tidy),
        1 => Just(Step::Raise),
    ]
}

/// A model of what the rules should remember, in the simplest form.
#[derive(Default)]
struct Model {
    millis: u64,
    raised: Option<u64>,
    /// By namespace, subject and key: the time, the event, and whether it is from the first level.
    keys: BTreeMap<(String, String, String), (u64, u64, bool)>,
    ids: BTreeMap<(String, String), u64>,
    windows: BTreeMap<String, u64>,
    /// First and next sequence number.
    heads: BTreeMap<String, (u64, u64)>,
}

impl Model {
    fn key_taken(&self, key: &(String, String, String)) -> Option<u64> {
        let (millis, sequence, old) = *self.keys.get(key)?;
        let window = self.windows.get(&key.0).copied().unwrap_or(DEDUPE_WINDOW_MS);
        let taken = match self.raised {
            None => true,
            Some(raised) if old => self.millis < raised + DEDUPE_WINDOW_MS,
            Some(_) => self.millis < millis + window,
        };
        taken.then_some(if old { 0 } else { sequence })
    }

    /// The expected reply to a publish: the sequence number of its first event, or the position of a repeating event
    /// and the sequence number of the stored one.
    fn publish(&mut self, name: &str, events: &[(String, String, String)], copy: bool) -> Result<u64, (usize, u64)> {
        let (first, next) = self.heads.get(name).copied().unwrap_or((1, 1));
        self.heads.insert(name.into(), (first, next));
        for (at, (subject, key, id)) in events.iter().enumerate() {
            let key = (name.to_string(), subject.clone(), key.clone());
            if let Some(taken) = self.key_taken(&key).filter(|_| !(key.2.is_empty() || copy && self.raised.is_some())) {
                return Err((at, taken));
            }
            let taken = self.ids.get(&(name.into(), id.clone())).filter(|sequence| **sequence >= first);
            if let Some(taken) = taken.filter(|_| !id.is_empty()) {
                return Err((at, *taken));
            }
        }
        for (sequence, (subject, key, id)) in (next..).zip(events) {
            if !key.is_empty() {
                let key = (name.to_string(), subject.clone(), key.clone());
                self.keys.insert(key, (self.millis, sequence, self.raised.is_none()));
            }
            if !id.is_empty() {
                self.ids.insert((name.into(), id.clone()), sequence);
            }
        }
        self.heads.insert(name.into(), (first, next + u64::try_from(events.len()).unwrap()));
        Ok(next)
    }
}

/// A replica that commits only now and then, like a node that applies many entries before a commit.
#[derive(Default)]
struct LateReplica {
    replica: Replica,
    held: Writes,
}

impl LateReplica {
    fn apply(&mut self, millis: u64, frame: &[u8]) -> Reply {
        let replica = &mut self.replica;
        replica.index += 1;
        let mut builder = EntryBuilder::new(0);
        builder.push(frame);
        let bytes = builder.finish(millis);
        let entry = Entry::parse(&bytes).unwrap();
        replica.machine.apply(replica.index, &entry, &replica.memory, &mut self.held).unwrap().pop().unwrap()
    }

    fn commit(&mut self) {
        self.replica.memory.commit(&mut self.held);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn keys_and_ids_are_those_of_a_simple_model_and_all_replicas_have_the_same_rows(
        steps in proptest::collection::vec((model_step(), any::<bool>()), 1..80),
        born_bounded in any::<bool>(),
    ) {
        let (mut one, mut late, mut model) = (Replica::default(), LateReplica::default(), Model::default());
        let mut raises = born_bounded;
        for (step, pause) in steps {
            if core::mem::take(&mut raises) && model.raised.is_none() {
                late.commit();
                raise(&mut one);
                raise(&mut late.replica);
                model.raised = Some(model.millis);
                // The first entry at the level says since when.
                drop((one.apply_at(model.millis, &[tidy_up()]), late.apply(model.millis, &tidy_up())));
            }
            let mut expected = None;
            let frame = match step {
                Step::Raise => { raises = true; continue }
                Step::Wait(millis) => { model.millis += millis; continue }
                Step::Tidy => tidy_up(),
                Step::Trim { name, keep } => {
                    let first = model.heads.get(name).map_or(1, |(first, next)| next.saturating_sub(keep).max(*first));
                    if let Some(head) = model.heads.get_mut(name) { head.0 = first; }
                    trim(name, first)
                }
                Step::Delete(name) => {
                    model.keys.retain(|key, _| key.0 != name);
                    model.ids.retain(|key, _| key.0 != name);
                    model.windows.remove(name);
                    if let Some(head) = model.heads.get_mut(name) { head.0 = head.1; }
                    Command::NamespaceDelete(NamespaceDelete { name: name.into() }).frame().unwrap()
                }
                Step::Window { name, millis } => {
                    let there = one.machine.head(name).is_some();
                    let present = model.windows.entry(name.into()).or_insert(DEDUPE_WINDOW_MS);
                    // Only shorter ones: a longer one counts for keys whose rows are still there, and the model
                    // does not know which.
                    let millis = millis.min(*present);
                    if there && model.raised.is_some() { *present = millis; }
                    set_window(name, millis)
                }
                Step::Publish { name, subject, key, id, count, copy } => {
                    let numbered = |text: &str, at: usize| if text.is_empty() { String::new() } else { format!("{text}{at}") };
                    let events: Vec<_> = (0..count)
                        .map(|at| (format!("{name}.{subject}"), numbered(key, at), numbered(id, at)))
                        .collect();
                    expected = Some((model.publish(name, &events, copy), count));
                    let events: Vec<_> = events.iter().map(|(subject, key, id)| event_of(subject, key, id)).collect();
                    publish(name, &events, if copy { FLAG_CREATE | FLAG_RESTORE } else { FLAG_CREATE })
                }
            };
            let reply = one.apply_at(model.millis, core::slice::from_ref(&frame)).pop().unwrap();
            prop_assert_eq!(&reply, &late.apply(model.millis, &frame));
            match (expected, &reply) {
                (Some((Ok(first), count)), reply) => {
                    prop_assert_eq!(reply, &published(first, u32::try_from(count).unwrap()));
                }
                (Some((Err((position, sequence)), _)), Err(refusal)) => {
                    let told = refusal.repeated().map(|told| (usize::try_from(told.position).unwrap(), told.sequence));
                    prop_assert_eq!(told, model.raised.map(|_| (position, sequence)));
                }
                (Some((Err(_), _)), Ok(_)) => prop_assert!(false, "{:?}", reply),
                (None, _) => {}
            }
            if pause {
                late.commit();
                late.replica.machine = late.replica.reloaded();
            }
        }
        late.commit();
        prop_assert_eq!(&one.machine, &late.replica.machine);
        prop_assert_eq!(&one.memory.rows, &late.replica.memory.rows);
        prop_assert_eq!(&one.machine, &one.reloaded());
        if model.raised.is_none() {
            raise(&mut one);
            drop(one.apply_one(tidy_up()));
        }
        for name in ["app", "web"] {
            drop(one.apply_at(model.millis, &[trim(name, u64::MAX)]));
        }
        let end = model.millis + 2 * DEDUPE_WINDOW_MS;
        tidy_all(&mut one, end);
        prop_assert_eq!(count_rows(&one.memory), 0);
        prop_assert!(one.machine.heads().all(|head| head.dedupe.is_none_or(|memory|
            (memory.keys(), memory.key_bytes, memory.ids) == (0, 0, 0))));
        prop_assert_eq!(one.machine.tidy_due(), None);
    }

    #[test]
    fn replicas_agree_across_a_raise_whatever_comes(
        entries in proptest::collection::vec(proptest::collection::vec(step(), 1..4), 1..40),
        raised in 0_usize..40, reload in 0_usize..40,
    ) {
        let (mut one, mut two) = (Replica::default(), Replica::default());
        for (at, frames) in entries.iter().enumerate() {
            if at == raised {
                raise(&mut one);
                raise(&mut two);
            }
            if at == reload {
                two.machine = two.reloaded();
            }
            prop_assert_eq!(one.apply(frames), two.apply(frames));
            prop_assert_eq!(one.apply_one(tidy_up()), two.apply_one(tidy_up()));
        }
        prop_assert_eq!(&one.machine, &two.reloaded());
        prop_assert_eq!(&one.memory, &two.memory);
    }
}
