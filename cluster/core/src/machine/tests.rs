//! Tests of the rules: what each command does, and that two replicas that apply the same entries never differ.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

use super::*;
use crate::command::{ConsumerAdvance, ConsumerOpen, ConsumerSet, Trim};
use crate::command::{
    ConsumerDelete, NamespaceCreate, NamespaceDelete, NamespaceRetain, NodeAllocate, NodeDown, NodeRemove, NodeUp,
};
use crate::entry::{
    Batch, EntryBuilder, FLAG_CREATE, FLAG_INTERNAL, FLAG_KEYED, batch_frame, begin_publish, finish_publish,
};
use crate::event::Event;
use crate::limits;
use crate::namespace::Retention;
use crate::node::Owner;
use crate::rows::IndexRow;
use crate::time::Timestamp;

mod bounded;
mod central;
mod counted;
mod dedupe;
mod delayed;
mod docks;
mod first;
mod late;
mod level;
mod order;
mod schedules;
mod security;
mod services;
mod snapshots;
mod tidying;
mod xbus;

/// A store in memory with the rows and the entries of a node.
#[derive(Default, Clone, PartialEq, Debug)]
struct MemoryStore {
    rows: BTreeMap<(Family, Vec<u8>), Vec<u8>>,
    entries: BTreeMap<u64, Vec<u8>>,
    names: BTreeMap<u32, String>,
}

impl Rows for MemoryStore {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError> {
        Ok(self.rows.get(&(family, key.to_vec())).cloned())
    }

    fn scan(&self, family: Family, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, RowsError> {
        let (from, to) = ((family, from.to_vec()), (family, to.to_vec()));
        Ok(self.rows.range(from..to).take(limit).map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    fn event_id(&self, head: &Head, sequence: u64) -> Result<Option<String>, RowsError> {
        Ok(self.events(head.id).into_iter().find(|(at, _)| *at == sequence).map(|(_, id)| id))
    }
}

impl MemoryStore {
    fn commit(&mut self, writes: &mut Writes) {
        for (family, from, to) in writes.ranges() {
            self.rows.retain(|(of, key), _| of != family || key < from || key >= to);
        }
        for (family, key, value) in writes.rows() {
            match value {
                Some(value) => self.rows.insert((family, key.to_vec()), value.to_vec()),
                None => self.rows.remove(&(family, key.to_vec())),
            };
        }
        writes.clear();
    }

    /// Sequence number and id of every stored event of a namespace, read through its index rows.
    fn events(&self, namespace: u32) -> Vec<(u64, String)> {
        let mut found = Vec::new();
        for ((family, key), value) in &self.rows {
            let Some(first) = rows::index_sequence(namespace, key).filter(|_| *family == Family::Index) else {
                continue;
            };
            let row = IndexRow::decode(value.as_slice()).unwrap();
            let entry = Entry::parse(&self.entries[&row.entry]).unwrap();
            let mut sequence = first;
            while row.made && sequence < first + row.events {
                let record = &self.rows[&(Family::Made, rows::index_key(namespace, sequence))];
                found.push((sequence, String::from(Event::decode(record).unwrap().0.subject)));
                sequence += 1;
            }
            let frames = (!row.made).then(|| row.frames(&entry, &self.names[&namespace]));
            for publish in frames.into_iter().flatten() {
                let mut rest = publish.records;
                for _ in 0..publish.events {
                    let (event, used) = Event::decode(rest).unwrap();
                    let mut id = Vec::new();
                    event.write_id(sequence, &mut id);
                    found.push((sequence, String::from_utf8(id).unwrap()));
                    rest = &rest[used..];
                    sequence += 1;
                }
            }
            assert_eq!(sequence, first + row.events, "an index row counts what its frames hold");
        }
        found
    }
}

#[derive(Default)]
struct Replica {
    machine: Machine,
    memory: MemoryStore,
    index: u64,
}

impl Replica {
    fn apply(&mut self, frames: &[Vec<u8>]) -> Vec<Reply> {
        self.apply_at((self.index + 1) * 10, frames)
    }

    fn apply_at(&mut self, millis: u64, frames: &[Vec<u8>]) -> Vec<Reply> {
        self.index += 1;
        let mut builder = EntryBuilder::new(0);
        frames.iter().for_each(|frame| builder.push(frame));
        let bytes = builder.finish(millis);
        let mut writes = Writes::default();
        let replies =
            self.machine.apply(self.index, &Entry::parse(&bytes).unwrap(), &self.memory, &mut writes).unwrap();
        self.memory.entries.insert(self.index, bytes);
        self.memory.names = self.machine.heads().map(|head| (head.id, head.name.clone())).collect();
        self.memory.commit(&mut writes);
        self.machine.check_invariants();
        replies
    }

    fn apply_one(&mut self, frame: Vec<u8>) -> Reply {
        self.apply(&[frame]).pop().unwrap()
    }

    fn reloaded(&self) -> Machine {
        let of = |wanted: Family| {
            let rows = self.memory.rows.iter().filter(move |((family, _), _)| *family == wanted);
            rows.map(|((_, key), value)| (key.clone(), value.clone())).collect::<Vec<_>>()
        };
        let heads = of(Family::Heads).into_iter().map(|(_, value)| value).collect();
        let nodes = of(Family::Nodes).into_iter().map(|(_, value)| value).collect();
        let batches = of(Family::Batches).into_iter().map(|(key, _)| key).collect();
        let config = of(Family::Config).pop().map(|(_, value)| value);
        let values = |of: Vec<(Vec<u8>, Vec<u8>)>| of.into_iter().map(|(_, value)| value).collect::<Vec<_>>();
        let (services, instances) = (values(of(Family::Services)), values(of(Family::Instances)));
        let (meta, consumers) = (of(Family::Meta), of(Family::Consumers));
        let (from, to) = Machine::xbus_bounds();
        let xbus = of(Family::Ids).into_iter().filter(|(key, _)| *key >= from && *key < to).collect();
        let loaded = Loaded { meta, heads, consumers, nodes, batches, config, services, instances, xbus };
        Machine::load(&loaded).unwrap()
    }
}

fn event<'a>(subject: &'a str, key: &'a str, id: &'a str) -> Event<'a> {
    Event { subject, key, id, created_at: Timestamp { seconds: 5, nanos: 0 }, ..Event::default() }
}

/// [`event`] under a name that the strategies below do not hide.
fn event_of<'a>(subject: &'a str, key: &'a str, id: &'a str) -> Event<'a> {
    event(subject, key, id)
}

fn publish(namespace: &str, events: &[Event<'_>], flags: u8) -> Vec<u8> {
    let mut out = Vec::new();
    begin_publish(&mut out, namespace).unwrap();
    events.iter().for_each(|event| event.encode(&mut out).unwrap());
    let keyed = if events.iter().any(|e| !e.key.is_empty() || !e.id.is_empty()) { FLAG_KEYED } else { 0 };
    finish_publish(&mut out, 0, flags | keyed, u32::try_from(events.len()).unwrap()).unwrap();
    out
}

fn plain(namespace: &str) -> Vec<u8> {
    publish(namespace, &[event(&format!("{namespace}.x"), "", "")], FLAG_CREATE)
}

fn keyed(key: &str) -> Vec<u8> {
    publish("app", &[event("app.x", key, "")], FLAG_CREATE)
}

fn published(first: u64, events: u32) -> Reply {
    Ok(Done::Published { first, events })
}

#[test]
fn a_reset_of_a_consumer_is_not_undone_by_what_was_done_before() {
    let mut replica = Replica::default();
    for _ in 0..5 {
        drop(replica.apply_one(plain("app")));
    }
    let consumer = Consumer { name: "c".into(), subject: "app.>".into(), ack_floor: 4, ..Consumer::default() };
    let open = ConsumerOpen { namespace: "app".into(), consumer, claimant: None };
    drop(replica.apply_one(Command::ConsumerOpen(open).frame().unwrap()));
    let mut set = |ack_floor, paused| {
        let set = ConsumerSet { namespace: "app".into(), name: "c".into(), ack_floor, paused };
        match replica.apply_one(Command::ConsumerSet(set).frame().unwrap()) {
            Ok(Done::Consumer(consumer)) => (consumer.ack_floor, consumer.generation, consumer.paused),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(set(None, Some(true)), (4, 0, true));
    assert_eq!(set(Some(1), None), (1, 1, true), "a pause outlives a reset");
    assert_eq!(set(Some(99), Some(false)), (5, 2, false), "not behind what there is");
    assert_eq!(set(Some(0), None), (0, 3, false));
    let mut advance = |generation| {
        let advance = ConsumerAdvance {
            namespace: "app".into(),
            name: "c".into(),
            ack_floor: 3,
            generation,
            ..ConsumerAdvance::default()
        };
        replica.apply_one(Command::ConsumerAdvance(advance).frame().unwrap())
    };
    assert!(matches!(advance(2), Err(Refusal::Unavailable(_))), "an acknowledgement from before the reset");
    assert!(matches!(advance(3), Ok(Done::Consumer(Consumer { ack_floor: 3, .. }))));
}

#[test]
fn each_namespace_numbers_its_events_from_one_without_gaps() {
    let mut replica = Replica::default();
    let replies = replica.apply(&[plain("app"), plain("web"), plain("app"), plain("app")]);
    assert_eq!(replies, [published(1, 1), published(1, 1), published(2, 1), published(3, 1)]);
    assert_eq!(replica.apply_one(plain("web")), published(2, 1));
    assert_eq!(replica.machine.head("app").unwrap().events(), 3);
}

#[test]
fn a_namespace_is_created_only_by_a_publish_that_may() {
    let mut replica = Replica::default();
    let refused = publish("app", &[event("app.x", "", "")], 0);
    assert_eq!(replica.apply_one(refused.clone()), Err(Refusal::NamespaceNotFound("app".into())));
    assert_eq!(replica.apply(&[refused, plain("app")])[1], published(1, 1));
    assert_eq!(replica.memory.events(1).len(), 1, "the refused frame of the entry is not an event");
}

#[test]
fn clients_cannot_write_to_reserved_namespaces_and_the_bus_can() {
    let mut replica = Replica::default();
    for name in ["_bus_", "_dead_", "roll"] {
        assert_eq!(replica.apply_one(plain(name)), Err(Refusal::NamespaceReserved(name.into())));
    }
    let dead = publish("_dead_", &[event("_dead_.a.b", "", "")], FLAG_CREATE | FLAG_INTERNAL);
    assert_eq!(replica.apply_one(dead), published(1, 1));
}

#[test]
fn a_deleted_namespace_loses_everything_but_its_numbering() {
    let mut replica = Replica::default();
    replica.apply(&[keyed("k"), keyed("l")]);
    let delete = Command::NamespaceDelete(NamespaceDelete { name: "app".into() }).frame().unwrap();
    assert_eq!(replica.apply_one(delete.clone()), Ok(Done::Nothing));
    assert_eq!(replica.apply_one(delete.clone()), Err(Refusal::NamespaceNotFound("app".into())));
    assert_eq!(replica.apply_one(keyed("k")), published(3, 1), "its keys are forgotten, its numbers are not");
    let replies = replica.apply(&[keyed("z"), delete, keyed("z")]);
    assert_eq!(replies[2], published(5, 1));
    assert_eq!(replica.memory.events(1).iter().map(|(at, _)| *at).collect::<Vec<_>>(), [5]);
}

#[test]
fn a_trim_moves_the_first_event_and_never_back() {
    let mut replica = Replica::default();
    (0..5).for_each(|_| drop(replica.apply_one(plain("app"))));
    let trim = |first| Command::Trim(Trim { name: "app".into(), first, bytes_first: 40 }).frame().unwrap();
    let Ok(Done::Namespace(head)) = replica.apply_one(trim(4)) else { panic!("trimmed") };
    assert_eq!((head.first, head.events(), head.bytes_first), (4, 2, 40));
    let Ok(Done::Namespace(head)) = replica.apply_one(trim(2)) else { panic!("unchanged") };
    assert_eq!(head.first, 4);
    let Ok(Done::Namespace(head)) = replica.apply_one(trim(99)) else { panic!("all gone") };
    assert_eq!((head.first, head.events(), head.next), (6, 0, 6));
}

#[test]
fn a_consumer_keeps_its_subject_and_its_floor_only_grows() {
    let mut replica = Replica::default();
    (0..5).for_each(|_| drop(replica.apply_one(plain("app"))));
    let open = |name: &str, subject: &str, group| {
        let consumer =
            Consumer { name: name.into(), subject: subject.into(), group, ack_floor: 2, ..Consumer::default() };
        Command::ConsumerOpen(ConsumerOpen { namespace: "app".into(), consumer, claimant: None }).frame().unwrap()
    };
    let advance = |ack_floor| {
        let advance =
            ConsumerAdvance { namespace: "app".into(), name: "c".into(), ack_floor, ..ConsumerAdvance::default() };
        Command::ConsumerAdvance(advance).frame().unwrap()
    };
    let floor = |reply: Reply| match reply {
        Ok(Done::Consumer(consumer)) => consumer.ack_floor,
        other => panic!("{other:?}"),
    };
    assert_eq!(floor(replica.apply_one(open("c", "app.>", false))), 2);
    assert_eq!(floor(replica.apply_one(advance(4))), 4);
    assert_eq!(floor(replica.apply_one(advance(3))), 4);
    assert_eq!(floor(replica.apply_one(advance(99))), 5, "never beyond the newest event");
    assert_eq!(floor(replica.apply_one(open("c", "app.>", false))), 5, "coming back resumes");
    assert!(matches!(replica.apply_one(open("c", "app.x", false)), Err(Refusal::ConsumerSubject { .. })));
    assert!(matches!(replica.apply_one(open("c", "app.>", true)), Err(Refusal::ConsumerKind(_))));
}

#[test]
fn a_subject_with_combining_marks_has_no_consumer_before_all_nodes_know_it() {
    let mut replica = Replica::default();
    replica.apply_one(plain("app")).unwrap();
    let mut open = |subject: &str| {
        let consumer = Consumer { name: "c".into(), subject: subject.into(), ..Consumer::default() };
        let open = ConsumerOpen { namespace: "app".into(), consumer, claimant: None };
        replica.apply_one(Command::ConsumerOpen(open).frame().unwrap())
    };
    assert!(matches!(open("app.हिन्दी"), Err(Refusal::Malformed(_))));
    assert!(open("app.हिदी").is_ok(), "these vowel signs are letters");
}

fn node_up(id: u64, incarnation: u64) -> Vec<u8> {
    Command::NodeUp(NodeUp { id, incarnation, address: format!("h{id}:1") }).frame().unwrap()
}

fn node_down(id: u64, incarnation: u64) -> Vec<u8> {
    Command::NodeDown(NodeDown { id, incarnation, reason: "lost".into() }).frame().unwrap()
}

fn batch_mark(node: u64, incarnation: u64, number: u64, frames: u32) -> Vec<u8> {
    batch_frame(Batch { owner: Owner { node, incarnation }, number, frames }).into()
}

fn roll_subjects(replica: &Replica) -> Vec<String> {
    let id = replica.machine.head("roll").unwrap().id;
    replica.memory.events(id).into_iter().map(|(_, subject)| subject).collect()
}

#[test]
fn each_life_of_a_node_begins_and_ends_once_in_the_roll() {
    let mut replica = Replica::default();
    assert!(replica.apply_one(node_up(1, 1)).is_ok());
    assert!(replica.apply_one(node_up(1, 1)).is_ok(), "the same again is no news");
    assert!(replica.apply_one(node_down(1, 2)).is_ok(), "another life is not touched");
    assert!(replica.apply_one(node_up(1, 3)).is_ok(), "a start that nobody saw the end before");
    assert!(matches!(replica.apply_one(node_up(1, 2)), Err(Refusal::Membership(_))), "an old life never comes back");
    assert!(replica.apply_one(node_down(1, 3)).is_ok() && replica.apply_one(node_down(1, 3)).is_ok());
    assert!(matches!(replica.apply_one(node_up(1, 3)), Err(Refusal::Membership(_))), "an ended one needs a new number");
    assert_eq!(roll_subjects(&replica), ["roll.node.up", "roll.node.down", "roll.node.up", "roll.node.down"]);
    assert!(matches!(replica.apply_one(plain("roll")), Err(Refusal::NamespaceReserved(_))));
}

#[test]
fn numbers_of_nodes_are_never_used_twice() {
    let mut replica = Replica::default();
    drop(replica.apply_one(node_up(3, 1)));
    let allocate = |above| Command::NodeAllocate(NodeAllocate { address: "h:1".into(), above }).frame().unwrap();
    let id = |reply: Reply| match reply {
        Ok(Done::Node(node)) => node.id,
        other => panic!("{other:?}"),
    };
    assert_eq!(id(replica.apply_one(allocate(0))), 4);
    assert!(replica.apply_one(Command::NodeRemove(NodeRemove { id: 4 }).frame().unwrap()).is_ok());
    assert_eq!(id(replica.apply_one(allocate(7))), 8);
    assert!(matches!(replica.apply_one(node_up(4, 9)), Err(Refusal::Membership(_))), "removed is removed");
}

#[test]
fn a_forwarded_batch_that_comes_twice_is_stored_once_and_answered_alike() {
    let mut replica = Replica::default();
    let batch =
        |number| [batch_mark(2, 5, number, 2), plain("app"), publish("app", &[event("app.k", "key", "")], FLAG_CREATE)];
    let first = replica.apply(&batch(1));
    assert_eq!(first.len(), 2, "the mark itself has no answer");
    let mut again = vec![plain("app")];
    again.extend(batch(1));
    again.push(plain("app"));
    let replies = replica.apply(&again);
    assert_eq!(replies[1..3], first[..], "although the key was used by then");
    assert_eq!(replica.memory.events(replica.machine.head("app").unwrap().id).len(), 4);
    assert!(matches!(replica.apply(&batch(2))[1], Err(Refusal::KeyProcessed(None))), "a new batch is judged anew");
    replica.machine = replica.reloaded();
    assert_eq!(replica.apply(&batch(1)), first, "remembered by a node that has just started");
    let old = [batch_mark(2, 4, 9, 1), plain("app")];
    assert!(matches!(replica.apply(&old)[0], Err(Refusal::OutcomeUnknown(_))), "an earlier life of the sender");
    for number in 10..200 {
        drop(replica.apply(&[batch_mark(2, 5, number, 1), plain("app")]));
    }
    assert!(matches!(replica.apply(&batch(1))[0], Err(Refusal::OutcomeUnknown(_))), "too old to be remembered");
    let kept = replica.memory.rows.keys().filter(|(family, _)| *family == Family::Batches).count();
    assert_eq!(u64::try_from(kept).unwrap(), limits::BATCHES_PER_PRODUCER);
}

#[test]
fn a_consumer_is_served_by_one_living_node() {
    let mut replica = Replica::default();
    drop(replica.apply_one(plain("app")));
    let open = |node, incarnation| {
        let consumer = Consumer { name: "c".into(), subject: "app.>".into(), ..Consumer::default() };
        let claimant = Some(Owner { node, incarnation });
        Command::ConsumerOpen(ConsumerOpen { namespace: "app".into(), consumer, claimant }).frame().unwrap()
    };
    let owner = |reply: Reply| match reply {
        Ok(Done::Consumer(consumer)) => consumer.owner.map(|owner| owner.node),
        other => panic!("{other:?}"),
    };
    assert_eq!(owner(replica.apply_one(open(1, 1))), None, "a node that is not here serves nobody");
    drop((replica.apply_one(node_up(1, 1)), replica.apply_one(node_up(2, 1))));
    assert_eq!(owner(replica.apply_one(open(1, 1))), Some(1));
    assert_eq!(owner(replica.apply_one(open(2, 1))), Some(1));
    drop(replica.apply_one(node_down(1, 1)));
    assert_eq!(owner(replica.apply_one(open(2, 1))), Some(2));
    drop(replica.apply_one(node_up(1, 2)));
    assert_eq!(owner(replica.apply_one(open(1, 2))), Some(2));
}

/// One step of the simulation.
fn step() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![Just("app"), Just("web"), Just("_dead_")];
    let text = "[ab]{0,2}";
    let event = (name.clone(), text, text).prop_map(|(name, key, id)| (name, key, id));
    prop_oneof![
        6 => (event, 1_usize..4, any::<bool>()).prop_map(|((name, key, id), count, create)| {
            let subject = format!("{name}.s");
            let keys: Vec<_> = (0..count).map(|at| if key.is_empty() { String::new() } else { format!("{key}{at}") }).collect();
            let ids: Vec<_> = (0..count).map(|at| if id.is_empty() { String::new() } else { format!("{id}{at}") }).collect();
            let events: Vec<_> = keys.iter().zip(&ids).map(|(key, id)| event_of(&subject, key, id)).collect();
            publish(name, &events, if create { FLAG_CREATE } else { 0 })
        }),
        1 => name.clone().prop_map(|name| Command::NamespaceDelete(NamespaceDelete { name: name.into() }).frame().unwrap()),
        1 => name.clone().prop_map(|name| Command::NamespaceCreate(NamespaceCreate {
            name: name.into(), retention: Retention::default() }).frame().unwrap()),
        1 => name.clone().prop_map(|name| Command::NamespaceRetain(NamespaceRetain {
            name: name.into(), retention: Retention { events_max: 3, ..Retention::default() } }).frame().unwrap()),
        1 => (name.clone(), 0_u64..20).prop_map(|(name, first)| Command::Trim(Trim {
            name: name.into(), first, bytes_first: first * 10 }).frame().unwrap()),
        1 => (name.clone(), 0_u64..20).prop_map(|(name, ack_floor)| Command::ConsumerAdvance(ConsumerAdvance {
            namespace: name.into(), name: "c".into(), ack_floor,
            owner: Some(Owner { node: 1, incarnation: 2 }), generation: ack_floor % 2,
            ..ConsumerAdvance::default() }).frame().unwrap()),
        1 => (name.clone(), prop::option::of(0_u64..20), prop::option::of(any::<bool>())).prop_map(|(name, ack_floor, paused)|
            Command::ConsumerSet(ConsumerSet { namespace: name.into(), name: "c".into(), ack_floor, paused }).frame().unwrap()),
        1 => name.clone().prop_map(|name| Command::ConsumerOpen(ConsumerOpen { namespace: name.into(),
            consumer: Consumer { name: "c".into(), subject: format!("{name}.>"), ..Consumer::default() }, claimant: Some(Owner { node: 1, incarnation: 2 }) }).frame().unwrap()),
        1 => name.prop_map(|name| Command::ConsumerDelete(ConsumerDelete {
            namespace: name.into(), name: "c".into() }).frame().unwrap()),
        1 => (1_u64..3, 1_u64..4).prop_map(|(id, incarnation)| node_up(id, incarnation)),
        1 => (1_u64..3, 1_u64..4).prop_map(|(id, incarnation)| node_down(id, incarnation)),
        1 => (1_u64..3, 1_u64..3, 1_u64..6, 1_u32..3).prop_map(|(node, incarnation, number, frames)| batch_mark(
            node, incarnation, number, frames)),
        1 => (0_u64..4, "[{}1]{0,2}").prop_map(|(revision, document)| central::config(&document, Some(revision).filter(|it| *it > 0))),
        2 => ("[st]", "[ab]", 1_u64..3, 1_u64..3).prop_map(|(service, id, node, serial)| services::register(
            &service, &id, services::connection(node, serial))),
        1 => ("[st]", "[ab]", 1_u64..3, 1_u64..3).prop_map(|(service, id, node, serial)| services::leave(
            &service, &id, services::connection(node, serial))),
        1 => ("[st]", "[ab]?", any::<Option<bool>>(), any::<Option<bool>>()).prop_map(|(service, id, one, two)|
            services::mark_instance(&service, &id, one, two)),
        1 => "[st]".prop_map(|id| services::remove(&id)),
        1 => proptest::collection::vec(any::<u8>(), 0..20).prop_filter_map("damaged", level::damaged),
        1 => level::step(),
        2 => counted::step(),
        3 => delayed::step(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn two_replicas_agree_and_a_reloaded_one_goes_on_alike(entries in proptest::collection::vec(
        proptest::collection::vec(step(), 1..4), 1..40), reload in 0_usize..40) {
        let (mut one, mut two) = (Replica::default(), Replica::default());
        for (at, frames) in entries.iter().enumerate() {
            if at == reload {
                two.machine = two.reloaded();
            }
            prop_assert_eq!(one.apply(frames), two.apply(frames));
        }
        prop_assert_eq!(&one.machine, &two.reloaded());
        prop_assert_eq!(&one.memory, &two.memory);
        for head in one.machine.heads() {
            let stored = one.memory.events(head.id);
            let expected = if head.deleted { 0 } else { stored.len() };
            prop_assert_eq!(stored.len(), expected);
            prop_assert!(stored.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0), "gap in {:?}", stored);
        }
    }
}
