//! Services and instances on the roll, and the roll events that announce their changes.

use alloc::boxed::Box;

use super::*;
use crate::service::{
    Capability, Connection, Instance, InstanceLeave, InstanceMark, InstanceRegister, Leaving, Service, ServiceExpire,
    ServiceRemove, ServiceUpdate,
};

/// The connection `serial` of the first life of a node.
pub(super) const fn connection(node: u64, serial: u64) -> Connection {
    Connection { owner: Owner { node, incarnation: 1 }, serial }
}

pub(super) fn registration(service: &str, id: &str, connection: Connection) -> InstanceRegister {
    let capability = Capability { name: format!("{service}-work"), ..Capability::default() };
    let instance = Instance {
        id: id.into(),
        service: service.into(),
        connection,
        door: "test".into(),
        capabilities: vec![capability],
        ..Instance::default()
    };
    InstanceRegister { service: Service { id: service.into(), ..Service::default() }, instance }
}

pub(super) fn register(service: &str, id: &str, connection: Connection) -> Vec<u8> {
    Command::InstanceRegister(Box::new(registration(service, id, connection))).frame().unwrap()
}

pub(super) fn leave(service: &str, id: &str, connection: Connection) -> Vec<u8> {
    let leaving = Leaving { service: service.into(), instance: id.into(), connection };
    Command::InstanceLeave(InstanceLeave { leaving: vec![leaving] }).frame().unwrap()
}

pub(super) fn mark_instance(service: &str, id: &str, draining: Option<bool>, unhealthy: Option<bool>) -> Vec<u8> {
    let mark = InstanceMark { service: service.into(), instance: id.into(), draining, unhealthy, connection: None };
    Command::InstanceMark(mark).frame().unwrap()
}

pub(super) fn remove(id: &str) -> Vec<u8> {
    Command::ServiceRemove(ServiceRemove { id: id.into() }).frame().unwrap()
}

/// Two nodes that are up.
fn two_nodes() -> Replica {
    let mut replica = Replica::default();
    assert!(replica.apply_one(node_up(1, 1)).is_ok() && replica.apply_one(node_up(2, 1)).is_ok());
    replica
}

/// The subjects of the roll events of services, without `roll.service.`.
fn roll_events(replica: &Replica) -> Vec<String> {
    roll_subjects(replica)
        .iter()
        .filter_map(|subject| subject.strip_prefix("roll.service."))
        .map(ToString::to_string)
        .collect()
}

/// The payload of the newest roll event.
fn newest_payload(replica: &Replica) -> String {
    let head = replica.machine.head("roll").unwrap();
    let record = replica.memory.rows.get(&(Family::Made, rows::index_key(head.id, head.last()))).unwrap();
    String::from_utf8(Event::decode(record).unwrap().0.payload.unwrap().to_vec()).unwrap()
}

#[test]
fn online_is_told_with_the_first_instance_and_offline_with_the_last_wherever_they_are() {
    let mut replica = two_nodes();
    assert!(replica.apply_one(register("s", "a", connection(1, 1))).is_ok());
    assert!(replica.apply_one(register("s", "b", connection(2, 1))).is_ok());
    assert!(replica.apply_one(leave("s", "a", connection(1, 1))).is_ok());
    assert!(replica.apply_one(leave("s", "b", connection(2, 1))).is_ok());
    let wanted = ["registered", "connect", "online", "connect", "disconnect", "disconnect", "offline"];
    assert_eq!(roll_events(&replica), wanted);
    let payload = newest_payload(&replica);
    let wanted = r#"{"service":{"id":"s","name":"s","version":"","type":""},"instance":{"id":"b","node":2,"door":"test","version":"","capabilities":[{"name":"s-work","actions":[]}]},"at":"#;
    assert!(payload.starts_with(wanted), "what it was is told with its end: {payload}");
    assert!(replica.machine.service("s").is_some_and(|service| !service.online), "it stays registered");
    assert!(replica.apply_one(register("s", "c", connection(1, 2))).is_ok());
    assert_eq!(roll_events(&replica)[7..], ["connect", "online"]);
}

#[test]
fn the_same_instance_on_another_connection_is_a_replacement() {
    let mut replica = two_nodes();
    drop(replica.apply_one(register("s", "a", connection(1, 1))));
    drop(replica.apply_one(mark_instance("s", "a", Some(true), None)));
    let Ok(Done::Registered(registered)) = replica.apply_one(register("s", "a", connection(2, 7))) else {
        panic!("registered")
    };
    assert_eq!(registered.replaced, Some(connection(1, 1)));
    assert!(registered.instance.draining, "what the operator said stays said");
    assert!(replica.apply_one(leave("s", "a", connection(1, 1))).is_ok(), "the old connection ends later");
    assert_eq!(replica.machine.instances("s").count(), 1);
    let wanted = ["registered", "connect", "online", "updated", "disconnect", "connect"];
    assert_eq!(roll_events(&replica), wanted, "the service was there all the time");
    let Ok(Done::Registered(again)) = replica.apply_one(register("s", "a", connection(2, 7))) else {
        panic!("registered")
    };
    assert_eq!(again.replaced, None, "the same connection again");
    assert_eq!(roll_events(&replica).len(), wanted.len(), "which says nothing new");
}

#[test]
fn a_node_that_is_lost_takes_its_instances_along() {
    let mut replica = two_nodes();
    drop(replica.apply_one(register("s", "a", connection(1, 1))));
    drop(replica.apply_one(register("s", "b", connection(2, 1))));
    drop(replica.apply_one(register("t", "a", connection(1, 2))));
    drop(replica.apply_one(node_down(1, 1)));
    assert_eq!(roll_events(&replica)[7..], ["disconnect", "disconnect", "offline"]);
    assert_eq!(replica.machine.providers("s-work").count(), 1);
    assert!(replica.machine.providers("t-work").next().is_none());
    let late = replica.apply_one(register("t", "a", connection(1, 2)));
    assert!(matches!(late, Err(Refusal::Unavailable(_))), "a dead life registers nothing: {late:?}");
    drop(replica.apply_one(node_up(2, 2)));
    assert_eq!(replica.machine.instances("s").count(), 0, "a start that nobody saw the end before");
}

#[test]
fn a_grace_keeps_a_service_online_until_it_has_ended() {
    let mut replica = two_nodes();
    let mut patient = registration("s", "a", connection(1, 1));
    patient.instance.grace_ms = 50;
    drop(replica.apply_one(Command::InstanceRegister(Box::new(patient.clone())).frame().unwrap()));
    let expire = || Command::ServiceExpire(ServiceExpire { ids: vec!["s".into(), "x".into()] }).frame().unwrap();
    drop(replica.apply_one(leave("s", "a", connection(1, 1))));
    drop(replica.apply_one(expire()));
    assert_eq!(roll_events(&replica), ["registered", "connect", "online", "disconnect"], "too early");
    assert!(replica.machine.services_due(u64::MAX).any(|id| id == "s"));
    drop(replica.apply_one(Command::InstanceRegister(Box::new(patient)).frame().unwrap()));
    assert_eq!(roll_events(&replica)[4..], ["connect"], "it never was offline");
    drop(replica.apply_one(leave("s", "a", connection(1, 1))));
    (0..6).for_each(|_| drop(replica.apply_one(node_up(1, 1))));
    drop(replica.apply_one(expire()));
    assert_eq!(roll_events(&replica)[5..], ["disconnect", "offline"]);
    assert!(replica.machine.services_due(u64::MAX).next().is_none());
}

#[test]
fn a_capability_is_found_first_and_the_id_of_a_service_else() {
    let mut replica = two_nodes();
    drop(replica.apply_one(register("users", "a", connection(1, 1))));
    let mut other = registration("people", "b", connection(2, 1));
    other.instance.capabilities = vec![Capability { name: "users".into(), ..Capability::default() }];
    let ids = |replica: &Replica, name| {
        replica.machine.providers(name).map(|instance| instance.id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&replica, "users"), ["a"], "nobody offers it, but a service has that id");
    drop(replica.apply_one(Command::InstanceRegister(Box::new(other)).frame().unwrap()));
    assert_eq!(
        (ids(&replica, "users"), ids(&replica, "users-work"), ids(&replica, "people")),
        (vec!["b".to_string()], vec!["a".to_string()], vec!["b".to_string()])
    );
    drop(replica.apply_one(leave("people", "b", connection(2, 1))));
    assert_eq!(ids(&replica, "users"), ["a"]);
    assert!(ids(&replica, "nothing").is_empty());
}

#[test]
fn draining_and_unhealthy_instances_say_so_once() {
    let mut replica = two_nodes();
    drop(replica.apply_one(register("s", "a", connection(1, 1))));
    drop(replica.apply_one(register("s", "b", connection(2, 1))));
    for _ in 0..2 {
        assert!(replica.apply_one(mark_instance("s", "", Some(true), None)).is_ok());
        assert!(replica.apply_one(mark_instance("s", "a", None, Some(true))).is_ok());
    }
    assert_eq!(roll_events(&replica)[4..], ["updated", "updated", "updated"]);
    assert!(newest_payload(&replica).contains(r#""reason":"unhealthy""#), "{}", newest_payload(&replica));
    assert!(replica.machine.instances("s").all(|instance| !instance.is_available()));
    assert!(matches!(replica.apply_one(mark_instance("s", "c", Some(true), None)), Err(Refusal::InstanceNotFound(_))));
    assert!(matches!(replica.apply_one(mark_instance("x", "", Some(true), None)), Err(Refusal::ServiceNotFound(_))));
}

#[test]
fn a_service_that_is_removed_is_gone_with_its_instances_and_may_come_back() {
    let mut replica = two_nodes();
    drop(replica.apply_one(register("s", "a", connection(1, 1))));
    let Ok(Done::Removed(removed)) = replica.apply_one(remove("s")) else { panic!("removed") };
    assert_eq!(removed.instances.iter().map(|instance| instance.connection).collect::<Vec<_>>(), [connection(1, 1)]);
    assert_eq!(roll_events(&replica)[3..], ["disconnect", "offline", "removed"]);
    assert!(matches!(replica.apply_one(remove("s")), Err(Refusal::ServiceNotFound(_))));
    assert!(replica.apply_one(leave("s", "a", connection(1, 1))).is_ok(), "its connection ends later");
    drop(replica.apply_one(register("s", "a", connection(1, 2))));
    assert_eq!(roll_events(&replica)[6..], ["registered", "connect", "online"]);
}

#[test]
fn metadata_belongs_to_the_operator() {
    let mut replica = two_nodes();
    drop(replica.apply_one(register("s", "a", connection(1, 1))));
    let update = |metadata: &str, if_revision| {
        let update = ServiceUpdate { id: "s".into(), metadata: metadata.into(), if_revision };
        Command::ServiceUpdate(update).frame().unwrap()
    };
    assert!(matches!(replica.apply_one(update(r#"{"team":"x"}"#, Some(1))), Ok(Done::Service(_))));
    assert!(matches!(replica.apply_one(update("{}", Some(1))), Err(Refusal::RevisionMismatch(_))));
    for metadata in ["[]", "1", "{", "nonsense"] {
        assert!(matches!(replica.apply_one(update(metadata, None)), Err(Refusal::Malformed(_))), "{metadata}");
    }
    drop(replica.apply_one(register("s", "a", connection(1, 1))));
    let kept = replica.machine.service("s").map(|service| service.metadata.as_str());
    assert_eq!(kept, Some(r#"{"team":"x"}"#), "a registration does not touch it");
}

#[test]
fn what_cannot_be_a_service_is_refused_and_leaves_nothing() {
    let mut replica = two_nodes();
    let long = "x".repeat(limits::NAME_BYTES_MAX + 1);
    let names = ["", " ", " a", "a\u{0}", "a\nb", long.as_str()];
    for name in names {
        assert!(
            matches!(replica.apply_one(register(name, "a", connection(1, 1))), Err(Refusal::Malformed(_))),
            "service {name:?}"
        );
        assert!(
            matches!(replica.apply_one(register("s", name, connection(1, 1))), Err(Refusal::Malformed(_))),
            "instance {name:?}"
        );
    }
    let twice = Capability { name: "c".into(), ..Capability::default() };
    let odd: [fn(&mut Instance, &Capability); 4] = [
        |instance, twice| instance.capabilities = vec![twice.clone(), twice.clone()],
        |instance, _| instance.port = 65_536,
        |instance, twice| instance.capabilities = vec![twice.clone(); limits::CAPABILITIES_MAX + 1],
        |instance, _| instance.service = "other".into(),
    ];
    for (at, change) in odd.iter().enumerate() {
        let mut register = registration("s", "a", connection(1, 1));
        change(&mut register.instance, &twice);
        let reply = replica.apply_one(Command::InstanceRegister(Box::new(register)).frame().unwrap());
        assert!(matches!(reply, Err(Refusal::Malformed(_))), "{at}: {reply:?}");
    }
    assert_eq!(roll_events(&replica), Vec::<String>::new());
    assert_eq!(replica.machine.services().count(), 0);
}
