//! A clone of the machine is a snapshot: later entries do not change it, and it shares all unchanged parts.

use super::services::{connection, register};
use super::*;

#[test]
fn a_clone_stays_as_it_is_and_shares_what_no_entry_changes() {
    let mut replica = Replica::default();
    drop(replica.apply_one(node_up(1, 1)));
    drop(replica.apply_one(register("s", "a", connection(1, 1))));
    drop(replica.apply(&[plain("app"), plain("web")]));
    let snapshot = replica.machine.clone();
    drop(replica.apply_one(plain("app")));
    let next = |machine: &Machine, name: &str| machine.head(name).map(|head| head.next);
    assert_eq!((next(&snapshot, "app"), next(&replica.machine, "app")), (Some(2), Some(3)));
    assert_eq!((next(&snapshot, "web"), next(&replica.machine, "web")), (Some(2), Some(2)));
    let now = &replica.machine;
    assert!(!snapshot.heads.ptr_eq(&now.heads), "a namespace has changed");
    assert!(snapshot.services.instances.ptr_eq(&now.services.instances) && snapshot.nodes.ptr_eq(&now.nodes));
    let row = |machine: &Machine| core::ptr::from_ref(machine.head("web").unwrap());
    assert_eq!(row(&snapshot), row(now), "the other namespace is the same in memory");
}

#[test]
fn an_instance_that_leaves_is_still_on_the_roll_of_the_snapshot_before() {
    let mut replica = Replica::default();
    drop(replica.apply_one(node_up(1, 1)));
    drop(replica.apply_one(register("s", "a", connection(1, 1))));
    let snapshot = replica.machine.clone();
    drop(replica.apply_one(node_down(1, 1)));
    let providers = |machine: &Machine| machine.providers("s-work").count();
    assert_eq!((providers(&snapshot), providers(&replica.machine)), (1, 0));
    snapshot.check_invariants();
}
