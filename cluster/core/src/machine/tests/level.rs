//! The feature level: an entry raises it on all replicas alike, and what needs a higher level stops a node.

use super::*;
use crate::command::admission::{check_level, needs_level};
use crate::command::attributed::Attributed;
use crate::command::{ClockSet, DecodeError, InstanceExpire, LevelRaise, TrimMany};
use crate::entry::{FLAG_HEADERS, command_frame};
use crate::event::headers::HeaderList;

pub(super) fn raise(level: u32) -> Vec<u8> {
    Command::LevelRaise(LevelRaise { level }).frame().unwrap()
}

/// A replica that follows the newest rules.
pub(super) fn latest_replica() -> Replica {
    let mut replica = Replica::default();
    assert_eq!(replica.apply_one(raise(FeatureLevel::LATEST.get())), Ok(Done::Nothing));
    replica
}

/// Steps of the random test that belong to newer levels.
pub(super) fn step() -> impl Strategy<Value = Vec<u8>> {
    let trim = (0_u64..20).prop_map(|first| Trim { name: "app".into(), first, bytes_first: first * 10 });
    let due = proptest::collection::vec(trim, 0..3);
    prop_oneof![
        1 => (0..=FeatureLevel::LATEST.get()).prop_map(raise),
        1 => Just(Command::InstanceExpire(InstanceExpire {}).frame().unwrap()),
        1 => due.prop_map(|trims| Command::TrimMany(TrimMany { trims }).frame().unwrap()),
        1 => (0_u64..400).prop_map(|millis| Command::ClockSet(ClockSet { millis }).frame().unwrap()),
    ]
}

/// A command frame of these bytes; `None` when they are a command of a newer release, which stops a replica.
pub(super) fn damaged(junk: Vec<u8>) -> Option<Vec<u8>> {
    let unknown = Attributed::decode(&junk) == Err(DecodeError::Unknown);
    (!unknown).then(|| command_frame(&junk).unwrap())
}

/// The error that stops a replica that applies these frames as its first entry.
fn stop_error(frames: &[Vec<u8>]) -> String {
    let mut replica = Replica::default();
    let mut builder = EntryBuilder::new(0);
    frames.iter().for_each(|frame| builder.push(frame));
    let bytes = builder.finish(1);
    let applied = replica.machine.apply(77, &Entry::parse(&bytes).unwrap(), &replica.memory, &mut Writes::default());
    applied.unwrap_err().0
}

#[test]
fn what_a_release_does_not_know_stops_it_and_names_the_entry() {
    let unknown = command_frame(&[0xfa, 0x07, 0x00]).unwrap();
    assert_eq!(stop_error(&[unknown]), "entry 77 has an unknown command: upgrade this node");
    let mut odd = command_frame(b"x").unwrap();
    odd[0] = 200;
    assert_eq!(stop_error(&[plain("app"), odd]), "entry 77 has a frame of unknown kind 200: upgrade this node");
    let above = FeatureLevel::LATEST.get() + 1;
    let wanted = format!(
        "entry 77 raises the feature level to {above} and this release knows {}: upgrade this node",
        FeatureLevel::LATEST.get()
    );
    assert_eq!(stop_error(&[raise(above)]), wanted);
}

#[test]
fn a_state_above_the_known_level_is_not_loaded() {
    let mut replica = latest_replica();
    let above = u64::from(FeatureLevel::LATEST.get()) + 1;
    replica.memory.rows.insert((Family::Meta, META_LEVEL.to_vec()), above.to_be_bytes().to_vec());
    let meta = vec![(META_LEVEL.to_vec(), above.to_be_bytes().to_vec())];
    let error = Machine::load(&Loaded { meta, ..Loaded::default() }).unwrap_err();
    assert!(error.0.ends_with("upgrade this node") && error.0.contains(&format!("level {above}")), "{error}");
}

#[test]
fn what_the_bus_writes_is_bounded_from_the_raise_on_unless_somebody_says_otherwise() {
    let retain = |name: &str, retention| {
        Command::NamespaceRetain(NamespaceRetain { name: name.into(), retention }).frame().unwrap()
    };
    let dead = publish("_dead_", &[event("_dead_.a.b", "", "")], FLAG_CREATE | FLAG_INTERNAL);
    let keeps = |replica: &Replica, name: &str| {
        let Retention { age_ms_max, events_max, bytes_max, .. } = replica.machine.head(name).unwrap().retention;
        (age_ms_max / 86_400_000, events_max, bytes_max >> 20)
    };
    let mut replica = Replica::default();
    drop(replica.apply(&[node_up(1, 1), dead.clone(), plain("notify"), plain("app")]));
    let own = Retention { events_max: 7, ..Retention::default() };
    drop(replica.apply_one(retain("notify", own)));
    assert_eq!(keeps(&replica, "roll"), (0, 0, 0));
    drop(replica.apply_one(raise(2)));
    assert_eq!(keeps(&replica, "roll"), (7, 100_000, 256));
    assert_eq!(keeps(&replica, "_dead_"), (30, 1_000_000, 4096));
    assert_eq!(keeps(&replica, "notify"), (0, 7, 0), "somebody has said what");
    assert_eq!(keeps(&replica, "app"), (0, 0, 0));
    drop(replica.apply_one(retain("roll", Retention::default())));
    for level in 2..=FeatureLevel::LATEST.get() {
        drop(replica.apply_one(raise(level)));
        assert_eq!(keeps(&replica, "roll"), (0, 0, 0), "everything, when somebody wants it");
    }
    assert_eq!(&replica.machine, &replica.reloaded());
    let mut new = latest_replica();
    drop(new.apply(&[node_up(1, 1), dead, plain("notify"), plain("app")]));
    assert_eq!(keeps(&new, "roll"), (7, 100_000, 256));
    assert_eq!((keeps(&new, "notify"), keeps(&new, "app")), ((7, 100_000, 256), (0, 0, 0)));
}

#[test]
fn the_time_of_the_log_is_set_back_only() {
    let mut replica = latest_replica();
    let set = |millis| Command::ClockSet(ClockSet { millis }).frame().unwrap();
    let before = replica.machine.millis();
    drop(replica.apply_one(set(before + 1_000_000)));
    assert_eq!(replica.machine.millis(), before + 10, "the time of the entry itself");
    drop(replica.apply_one(set(3)));
    assert_eq!((replica.machine.millis(), replica.reloaded().millis()), (3, 3));
    drop(replica.apply_one(plain("app")));
    assert!(replica.machine.millis() > 3, "and goes on");
}

#[test]
fn a_level_is_raised_once_and_never_lowered() {
    let mut replica = Replica::default();
    assert_eq!(replica.machine.level(), FeatureLevel::FIRST);
    for level in [FeatureLevel::LATEST.get(), 1, 0, FeatureLevel::LATEST.get()] {
        assert_eq!(replica.apply_one(raise(level)), Ok(Done::Nothing));
        assert_eq!(replica.machine.level(), FeatureLevel::LATEST);
        assert_eq!(replica.reloaded().level(), FeatureLevel::LATEST);
    }
}

#[test]
fn a_command_above_the_level_of_the_cluster_is_not_proposed() {
    let unknown = command_frame(&[0xfa, 0x07, 0x00]).unwrap();
    assert!(check_level(&[plain("app"), raise(9)].concat(), 2, FeatureLevel::FIRST).is_ok());
    assert!(matches!(
        check_level(&[plain("app"), unknown].concat(), 2, FeatureLevel::LATEST),
        Err(Refusal::Malformed(_))
    ));
    let expire = Attributed { command: Command::InstanceExpire(InstanceExpire {}), actor: None };
    assert!(matches!(expire.check_level(FeatureLevel::FIRST), Err(Refusal::Unavailable(_))));
    assert_eq!(expire.check_level(FeatureLevel::BOUNDED), Ok(()));
    let mut headers = HeaderList::default();
    headers.push("tenant", "a").unwrap();
    let headed = Event { headers: headers.headers(), ..event("app.x", "", "") };
    let headed = publish("app", &[event("app.x", "", ""), headed], FLAG_CREATE | FLAG_HEADERS);
    assert!(needs_level(&headed) && needs_level(&raise(9)) && !needs_level(&plain("app")) && !needs_level(&[]));
    assert!(matches!(check_level(&headed, 1, FeatureLevel::COUNTED), Err(Refusal::Unavailable(_))));
    assert_eq!(check_level(&headed, 1, FeatureLevel::HEADERS), Ok(()));
    let many = [plain("app"), Command::TrimMany(TrimMany::default()).frame().unwrap()].concat();
    assert!(matches!(check_level(&many, 2, FeatureLevel::FIRST), Err(Refusal::Unavailable(_))));
}
