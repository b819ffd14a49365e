//! From feature level `BOUNDED` on, no entry takes long to apply, however large the state is.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::level::latest_replica;
use super::services::{connection, register, registration};
use super::*;
use crate::command::{ClockSet, ConsumerDelete, InstanceExpire, LevelRaise, TrimMany};
use crate::level::FeatureLevel;
use crate::limits::{NAMESPACES_DELETED_MAX, ROLL_STEP_BYTES_MAX, ROLL_STEP_MAX, TRIMS_MAX};
use crate::service::{Capability, InstanceLeave, InstanceMark, Leaving, ServiceExpire, ServiceRemove};

extern crate std;

/// A replica for many entries, without a check of the invariants after each entry.
#[derive(Default)]
struct FastReplica {
    replica: Replica,
    /// Most rows that one entry wrote; how many entries there were, and how long they took in all.
    rows: usize,
    entries: u32,
    time: Duration,
}

impl FastReplica {
    fn new() -> Self {
        let mut fast = Self { replica: latest_replica(), ..Self::default() };
        // The entry that leads to the level also notes where the migration of rows begins.
        fast.apply(Command::LevelRaise(LevelRaise { level: FeatureLevel::LATEST.get() })).unwrap();
        fast.cost("the raise");
        fast
    }

    fn apply(&mut self, command: Command) -> Reply {
        self.apply_frame(&command.frame().unwrap())
    }

    fn apply_frame(&mut self, frame: &[u8]) -> Reply {
        let Replica { machine, memory, index } = &mut self.replica;
        *index += 1;
        let mut builder = EntryBuilder::new(0);
        builder.push(frame);
        let bytes = builder.finish(*index * 10);
        let mut writes = Writes::default();
        let began = Instant::now();
        let reply = machine.apply(*index, &Entry::parse(&bytes).unwrap(), memory, &mut writes).unwrap().pop();
        (self.entries, self.time) = (self.entries + 1, self.time + began.elapsed());
        self.rows = self.rows.max(writes.rows().count());
        memory.commit(&mut writes);
        reply.unwrap()
    }

    /// The most rows that one entry has written since the last call.
    fn cost(&mut self, what: &str) -> usize {
        std::println!("{what}: {} rows at most, {:?} an entry", self.rows, self.time / self.entries.max(1));
        (self.entries, self.time) = (0, Duration::ZERO);
        core::mem::take(&mut self.rows)
    }

    /// The roll events of services after the index `after`: the subject without `roll.service.`, and the instance.
    fn roll_events(&self, after: u64) -> Vec<(String, String)> {
        let head = self.replica.machine.head("roll").unwrap();
        let record = |at| &self.replica.memory.rows[&(Family::Made, rows::index_key(head.id, at))];
        let of = |at| {
            let event = Event::decode(record(at)).unwrap().0;
            let payload: serde_json::Value = serde_json::from_slice(event.payload.unwrap()).unwrap();
            let subject = event.subject.strip_prefix("roll.").unwrap();
            let instance = payload["instance"]["id"].as_str().unwrap_or_default();
            (subject.strip_prefix("service.").unwrap_or(subject).to_string(), instance.to_string())
        };
        (after + 1..head.next).map(of).collect()
    }

    fn last_roll_index(&self) -> u64 {
        self.replica.machine.head("roll").map_or(0, Head::last)
    }
}

const MANY: u64 = 60_000;

/// A replica with `count` instances of `services` services, all on node 1.
fn replica_with_instances(count: u64, services: u64) -> FastReplica {
    let mut fast = FastReplica::new();
    drop((fast.apply_frame(&node_up(1, 1)), fast.apply_frame(&node_up(2, 1))));
    for at in 0..count {
        let id = format!("{at:06}");
        assert!(fast.apply_frame(&register(&format!("s{}", at % services), &id, connection(1, at))).is_ok());
    }
    fast.cost("registrations");
    fast
}

/// The most rows that one step writes: for each instance two events, the row of the instance and the row of its
/// service; the head, and the index row.
const STEP_ROWS: usize = 4 * ROLL_STEP_MAX + 8;

#[test]
fn a_node_with_sixty_thousand_instances_ends_at_once_and_its_instances_leave_in_steps() {
    let mut fast = replica_with_instances(MANY, 100);
    for service in 0..50 {
        drop(fast.apply_frame(&register(&format!("s{service}"), "other", connection(2, service))));
    }
    let before = fast.last_roll_index();
    fast.cost("before");
    assert!(fast.apply_frame(&node_down(1, 1)).is_ok());
    assert!(fast.cost("the end of the node") <= STEP_ROWS);
    let machine = &fast.replica.machine;
    assert!(machine.is_expiring());
    assert_eq!(machine.providers("s7-work").map(|one| one.id.as_str()).collect::<Vec<_>>(), ["other"]);
    assert_eq!(machine.providers("s77-work").count() + machine.providers("s77").count(), 0, "none is left to be asked");
    // Some come back through another node before their end was told.
    drop(fast.apply_frame(&register("s99", "059999", connection(2, 1000))));
    let mut steps = 0;
    loop {
        if steps == 100 {
            fast.replica.machine = fast.replica.reloaded();
        }
        steps += 1;
        match fast.apply(Command::InstanceExpire(InstanceExpire {})) {
            Ok(Done::More) => {}
            other => break assert_eq!(other, Ok(Done::Nothing)),
        }
    }
    assert!(fast.cost("a step") <= STEP_ROWS);
    assert!(steps >= MANY / 256 && !fast.replica.machine.is_expiring());
    fast.replica.machine.check_invariants();
    let told = fast.roll_events(before);
    assert_eq!(told[0].0, "node.down");
    let gone: Vec<&String> = told.iter().filter(|(what, _)| what == "disconnect").map(|(_, id)| id).collect();
    assert_eq!(gone.iter().collect::<BTreeSet<_>>().len(), gone.len(), "each is told once");
    assert_eq!(u64::try_from(gone.len()).unwrap(), MANY);
    let place = |what: &str, id: &str| told.iter().position(|(w, i)| w == what && i == id).unwrap();
    assert!(place("disconnect", "059999") < place("connect", "059999"), "it left before it came");
    let offline = told.iter().filter(|(what, _)| what == "offline").count();
    assert_eq!(offline, 49, "the other services have an instance left");
    for (at, (_, id)) in told.iter().enumerate().filter(|(_, (what, _))| what == "offline") {
        assert_eq!(told[at - 1], ("disconnect".to_string(), id.clone()), "behind the last instance");
    }
    assert_eq!(&fast.replica.machine, &fast.replica.reloaded());
}

#[test]
fn the_instances_of_every_kind_of_end_are_as_many_as_fit_into_a_step() {
    for end in ["restart", "remove"] {
        let mut fast = replica_with_instances(5_000, 1);
        match end {
            "restart" => drop(fast.apply_frame(&node_up(1, 2))),
            _ => drop(fast.apply(Command::NodeRemove(NodeRemove { id: 1 }))),
        }
        assert!(fast.cost(end) <= STEP_ROWS);
        assert!(fast.replica.machine.is_expiring() && fast.replica.machine.providers("s0").next().is_none());
        while fast.apply(Command::InstanceExpire(InstanceExpire {})) == Ok(Done::More) {}
        assert!(fast.cost("a step") <= STEP_ROWS);
        assert!(!fast.replica.machine.is_expiring());
        assert!(fast.replica.machine.service("s0").is_some_and(|service| !service.online));
        assert_eq!(fast.replica.machine.instances("s0").count(), 0);
    }
}

#[test]
fn a_service_with_sixty_thousand_instances_is_marked_left_and_removed_in_steps() {
    let mut fast = replica_with_instances(MANY, 1);
    let mark = InstanceMark { service: "s0".into(), draining: Some(true), ..InstanceMark::default() };
    while fast.apply(Command::InstanceMark(mark.clone())) == Ok(Done::More) {}
    assert!(fast.cost("a mark") <= STEP_ROWS);
    assert!(fast.replica.machine.instances("s0").all(|one| one.draining));
    let leaving =
        |at: u64| Leaving { service: "s0".into(), instance: format!("{at:06}"), connection: connection(1, at) };
    let leave = InstanceLeave { leaving: (0..1000).map(leaving).collect() };
    while fast.apply(Command::InstanceLeave(leave.clone())) == Ok(Done::More) {}
    assert!(fast.cost("a leave") <= STEP_ROWS);
    assert_eq!(fast.replica.machine.instances("s0").count(), 59_000);
    let mut removed = 0;
    loop {
        let Ok(Done::Removed(gone)) = fast.apply(Command::ServiceRemove(ServiceRemove { id: "s0".into() })) else {
            panic!("removed")
        };
        removed += gone.instances.len();
        if !gone.more {
            break;
        }
    }
    assert!(fast.cost("a removal") <= STEP_ROWS);
    assert_eq!(removed, 59_000);
    let last = fast.last_roll_index();
    let told: Vec<String> = fast.roll_events(last - 3).into_iter().map(|(what, _)| what).collect();
    assert_eq!(told, ["disconnect", "offline", "removed"]);
    fast.replica.machine.check_invariants();
}

#[test]
fn a_step_is_bounded_in_bytes_too() {
    let mut fast = FastReplica::new();
    drop(fast.apply_frame(&node_up(1, 1)));
    let mut large = registration("s", "", connection(1, 0));
    large.instance.capabilities = (0..200)
        .map(|at| Capability { name: format!("{at:0100}"), description: "x".repeat(500), ..Capability::default() })
        .collect();
    for at in 0..40_u64 {
        (large.instance.id, large.instance.connection) = (format!("{at:02}"), connection(1, at));
        assert!(fast.apply(Command::InstanceRegister(Box::new(large.clone()))).is_ok());
    }
    let bytes = |fast: &FastReplica| fast.replica.machine.head("roll").unwrap().bytes_end;
    let mut before = bytes(&fast);
    drop(fast.apply_frame(&node_down(1, 1)));
    let mut steps = 0;
    loop {
        let told = bytes(&fast) - before;
        assert!(told < 2 * u64::try_from(ROLL_STEP_BYTES_MAX).unwrap(), "{told} bytes in one step");
        before = bytes(&fast);
        if !fast.replica.machine.is_expiring() {
            break;
        }
        steps += 1;
        drop(fast.apply(Command::InstanceExpire(InstanceExpire {})));
    }
    assert!(steps > 5, "{steps}");
}

#[test]
fn services_go_offline_in_steps_and_those_that_waited_longest_first() {
    let mut fast = FastReplica::new();
    drop(fast.apply_frame(&node_up(1, 1)));
    for at in 0..2000_u64 {
        let mut patient = registration(&format!("s{at:04}"), "a", connection(1, at));
        patient.instance.grace_ms = 5_000_000 - at;
        drop(fast.apply(Command::InstanceRegister(Box::new(patient))));
    }
    drop(fast.apply_frame(&node_down(1, 1)));
    while fast.apply(Command::InstanceExpire(InstanceExpire {})) == Ok(Done::More) {}
    let machine = &fast.replica.machine;
    assert_eq!(machine.services_due(machine.millis()).count(), 0);
    let due =
        |fast: &FastReplica| fast.replica.machine.services_due(u64::MAX).map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(due(&fast).len(), 2000);
    // An old fault of a clock: all of them are due at once.
    fast.replica.index += 600_000;
    fast.cost("before");
    let all = due(&fast);
    while fast.apply(Command::ServiceExpire(ServiceExpire { ids: all.clone() })) == Ok(Done::More) {}
    assert!(fast.cost("services that go offline") <= STEP_ROWS);
    assert!(due(&fast).is_empty());
    fast.replica.machine.check_invariants();
}

#[test]
fn services_wait_as_long_as_before_when_the_time_is_set_back() {
    let mut replica = latest_replica();
    drop(replica.apply_one(node_up(1, 1)));
    let mut patient = registration("s", "a", connection(1, 1));
    patient.instance.grace_ms = 1000;
    drop(replica.apply_one(Command::InstanceRegister(Box::new(patient)).frame().unwrap()));
    drop(replica.apply_one(services::leave("s", "a", connection(1, 1))));
    let due = |replica: &Replica| replica.machine.service("s").unwrap().offline_at - replica.machine.millis();
    let left = due(&replica);
    let now = replica.machine.millis();
    replica.index += 90_000;
    drop(replica.apply_one(plain("app")));
    let late = replica.machine.service("s").unwrap().offline_at;
    assert!(late < replica.machine.millis(), "a wrong clock has taken the log far ahead");
    replica.index -= 90_001;
    drop(replica.apply_one(Command::ClockSet(ClockSet { millis: now }).frame().unwrap()));
    assert!(replica.machine.service("s").unwrap().offline_at >= 1 && left == 1000);
}

#[test]
fn what_namespaces_and_consumers_cost_does_not_grow_with_how_many_there_are() {
    let mut fast = FastReplica::new();
    let create = |name: String| {
        Command::NamespaceCreate(NamespaceCreate {
            name,
            retention: Retention { events_max: 1, ..Retention::default() },
        })
    };
    let open = |namespace: &str, at: u64| {
        let consumer = Consumer { name: format!("c{at}"), subject: format!("{namespace}.>"), ..Consumer::default() };
        Command::ConsumerOpen(ConsumerOpen { namespace: namespace.into(), consumer, claimant: None })
    };
    for at in 0..10_000_u64 {
        assert!(fast.apply(create(format!("n{at}"))).is_ok());
    }
    for at in 0..10_000_u64 {
        for namespace in 0..10 {
            assert!(fast.apply(open(&format!("n{namespace}"), at)).is_ok());
        }
    }
    assert!(fast.cost("100 000 consumers in 10 000 namespaces") <= 3);
    assert_eq!(fast.apply(open("n3", 77_777)), Err(Refusal::ConsumersExhausted("n3".into())));
    let advance = ConsumerAdvance { namespace: "n1".into(), name: "c5".into(), ..ConsumerAdvance::default() };
    assert_eq!(fast.apply(Command::ConsumerAdvance(advance)), Ok(Done::Nothing), "nobody wants the whole of it");
    let delete = ConsumerDelete { namespace: "n1".into(), name: "c5".into() };
    assert_eq!(fast.apply(Command::ConsumerDelete(delete)), Ok(Done::Nothing));
    let trims = (0..64).map(|at| Trim { name: format!("n{at}"), first: 1, bytes_first: 0 }).collect();
    assert_eq!(fast.apply(Command::TrimMany(TrimMany { trims })), Ok(Done::Nothing));
    assert!(fast.cost("consumers and trims") <= TRIMS_MAX + 1);
    for at in 0..10 {
        assert!(fast.apply(Command::NamespaceDelete(NamespaceDelete { name: format!("n{at}") })).is_ok());
    }
    assert!(fast.cost("deletions of namespaces with 10 000 consumers") <= 2);
    assert_eq!(&fast.replica.machine, &fast.replica.reloaded());
    fast.replica.machine.check_invariants();
}

#[test]
fn many_trims_are_one_command() {
    let mut replica = latest_replica();
    for name in ["app", "web"] {
        (0..5).for_each(|_| drop(replica.apply_one(plain(name))));
    }
    let trim = |name: &str, first| Trim { name: name.into(), first, bytes_first: 0 };
    let trims = vec![trim("app", 3), trim("gone", 9), trim("web", 99)];
    assert_eq!(replica.apply_one(Command::TrimMany(TrimMany { trims }).frame().unwrap()), Ok(Done::Nothing));
    let first = |name| replica.machine.head(name).unwrap().first;
    assert_eq!((first("app"), first("web")), (3, 6));
}

#[test]
fn namespaces_that_are_made_and_deleted_for_ever_leave_a_bounded_trace() {
    let mut fast = FastReplica::new();
    let cycle = |fast: &mut FastReplica, name: &str| {
        let create = NamespaceCreate { name: name.into(), retention: Retention::default() };
        assert!(fast.apply(Command::NamespaceCreate(create)).is_ok(), "{name}");
        assert_eq!(fast.apply(Command::NamespaceDelete(NamespaceDelete { name: name.into() })), Ok(Done::Nothing));
    };
    drop(fast.apply_frame(&plain("first")));
    drop(fast.apply(Command::NamespaceDelete(NamespaceDelete { name: "first".into() })));
    assert_eq!(fast.apply_frame(&plain("first")), published(2, 1), "the numbering goes on");
    for at in 0..200_000_u32 {
        cycle(&mut fast, &format!("n{at}"));
    }
    assert!(fast.cost("200 000 namespaces made and deleted") <= 4);
    assert_eq!(fast.replica.machine.heads().filter(|head| head.deleted).count(), NAMESPACES_DELETED_MAX);
    let kept = fast.replica.memory.rows.keys().filter(|(family, _)| *family == Family::Heads).count();
    assert_eq!(kept, NAMESPACES_DELETED_MAX + 2, "beside them `first` and `xbus`");
    assert_eq!(fast.apply_frame(&plain("n199999")), published(1, 1));
    assert!(fast.replica.machine.head("n199999").unwrap().id > 199_000);
    drop(fast.apply_frame(&plain("n0")));
    assert!(fast.replica.machine.head("n0").unwrap().id > 200_000, "a forgotten one has a new number");
    assert_eq!(&fast.replica.machine, &fast.replica.reloaded());
    fast.replica.machine.check_invariants();
}

#[test]
fn an_old_cluster_with_many_deleted_namespaces_forgets_them_step_by_step() {
    let mut fast = FastReplica { replica: Replica::default(), ..FastReplica::default() };
    for at in 0..12_000 {
        drop(fast.apply_frame(&plain(&format!("n{at}"))));
        drop(fast.apply(Command::NamespaceDelete(NamespaceDelete { name: format!("n{at}") })));
    }
    drop(fast.apply_frame(&level::raise(2)));
    fast.cost("before");
    for at in 0..140 {
        drop(fast.apply_frame(&plain(&format!("m{at}"))));
        drop(fast.apply(Command::NamespaceDelete(NamespaceDelete { name: format!("m{at}") })));
    }
    assert!(fast.cost("deletions") <= 20);
    assert_eq!(fast.replica.machine.heads().count(), NAMESPACES_DELETED_MAX);
    fast.replica.machine.check_invariants();
}
