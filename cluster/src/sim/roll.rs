//! What changes beside the book: services and nodes that come and go, namespaces that are made and deleted.

use rollbook_core::command::{
    ClockSet, Command, InstanceExpire, NamespaceCreate, NamespaceDelete, NodeDown, NodeUp, Tidy, Trim, TrimMany,
};
use rollbook_core::namespace::Retention;
use rollbook_core::node::Owner;
use rollbook_core::service::{
    Capability, Connection, Instance, InstanceLeave, InstanceMark, InstanceRegister, Leaving, Service, ServiceExpire,
    ServiceRemove,
};

use super::dice::Dice;
use crate::state::clock::now_millis;

/// Any command of a kind that does not touch the events of clients.
pub(super) fn change(dice: &Dice) -> Command {
    // Numbers that no node of the simulation has.
    let (id, incarnation) = (101 + dice.below(2), 1 + dice.below(4));
    let connection = Connection { owner: Owner { node: id, incarnation }, serial: dice.below(3) };
    let service = ["s", "t"][usize::from(dice.below(2) == 1)].to_owned();
    let instance = ["a", "b", "c"][usize::try_from(dice.below(3)).unwrap()].to_owned();
    // Refused below the feature level that knows them.
    if dice.below(6) == 0 {
        return match dice.below(3) {
            0 => Command::InstanceExpire(InstanceExpire {}),
            1 => Command::TrimMany(TrimMany {
                trims: vec![Trim { name: "made".to_owned(), first: 1 + dice.below(3), bytes_first: 0 }],
            }),
            _ => Command::ClockSet(ClockSet { millis: now_millis().saturating_sub(dice.below(2000)) }),
        };
    }
    match dice.below(14) {
        0 | 1 => Command::NodeUp(NodeUp { id, incarnation, address: format!("h{id}:1") }),
        2 => Command::NodeDown(NodeDown { id, incarnation, reason: "lost".to_owned() }),
        3..=5 => {
            let capabilities = vec![Capability { name: format!("{service}-work"), ..Capability::default() }];
            let grace_ms = dice.below(2) * 300;
            let said = Service { id: service.clone(), ..Service::default() };
            let door = "test".to_owned();
            let instance =
                Instance { id: instance, service, connection, door, capabilities, grace_ms, ..Instance::default() };
            Command::InstanceRegister(Box::new(InstanceRegister { service: said, instance }))
        }
        6 => Command::InstanceLeave(InstanceLeave { leaving: vec![Leaving { service, instance, connection }] }),
        7 => Command::InstanceMark(InstanceMark {
            service,
            instance: String::new(),
            draining: Some(dice.below(2) == 0),
            unhealthy: None,
            connection: None,
        }),
        8 => Command::ServiceRemove(ServiceRemove { id: service }),
        9 => Command::ServiceExpire(ServiceExpire { ids: vec![service] }),
        10 => Command::NamespaceCreate(NamespaceCreate { name: "made".to_owned(), retention: Retention::default() }),
        // Below the level that knows this it is refused and changes nothing.
        11 | 12 => Command::Tidy(Tidy {}),
        _ => Command::NamespaceDelete(NamespaceDelete { name: "made".to_owned() }),
    }
}
