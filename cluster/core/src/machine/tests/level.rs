//! The feature level: raised once on all replicas alike, and what is above it stops a node.

use super::*;
use crate::command::{DecodeError, LevelRaise, check_level};
use crate::entry::command_frame;

pub(super) fn raise(level: u32) -> Vec<u8> {
    Command::LevelRaise(LevelRaise { level }).frame().unwrap()
}

/// A replica that follows the newest rules.
pub(super) fn newest() -> Replica {
    let mut replica = Replica::default();
    assert_eq!(replica.one(raise(FeatureLevel::LATEST.get())), Ok(Done::Nothing));
    replica
}

/// Steps of the random test that belong to newer levels.
pub(super) fn step() -> impl Strategy<Value = Vec<u8>> {
    (0..=FeatureLevel::LATEST.get()).prop_map(raise)
}

/// A command frame of these bytes, unless they are a command of a newer release: that stops a replica.
pub(super) fn damaged(junk: Vec<u8>) -> Option<Vec<u8>> {
    let unknown = Command::decode(&junk) == Err(DecodeError::Unknown);
    (!unknown).then(|| command_frame(&junk).unwrap())
}

/// What stops a replica that applies these frames as its first entry.
fn stopped(frames: &[Vec<u8>]) -> String {
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
    assert_eq!(stopped(&[unknown]), "entry 77 has an unknown command: upgrade this node");
    let mut odd = command_frame(b"x").unwrap();
    odd[0] = 200;
    assert_eq!(stopped(&[plain("app"), odd]), "entry 77 has a frame of unknown kind 200: upgrade this node");
    let above = FeatureLevel::LATEST.get() + 1;
    let wanted = format!(
        "entry 77 raises the feature level to {above} and this release knows {}: upgrade this node",
        FeatureLevel::LATEST.get()
    );
    assert_eq!(stopped(&[raise(above)]), wanted);
}

#[test]
fn a_state_above_the_known_level_is_not_loaded() {
    let mut replica = newest();
    let above = u64::from(FeatureLevel::LATEST.get()) + 1;
    replica.memory.rows.insert((Family::Meta, META_LEVEL.to_vec()), above.to_be_bytes().to_vec());
    let meta = vec![(META_LEVEL.to_vec(), above.to_be_bytes().to_vec())];
    let error = Machine::load(&Loaded { meta, ..Loaded::default() }).unwrap_err();
    assert!(error.0.ends_with("upgrade this node") && error.0.contains(&format!("level {above}")), "{error}");
}

#[test]
fn a_level_is_raised_once_and_never_lowered() {
    let mut replica = Replica::default();
    assert_eq!(replica.machine.level(), FeatureLevel::FIRST);
    for level in [FeatureLevel::LATEST.get(), 1, 0, FeatureLevel::LATEST.get()] {
        assert_eq!(replica.one(raise(level)), Ok(Done::Nothing));
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
    let raise = Command::LevelRaise(LevelRaise { level: 9 });
    assert_eq!(raise.check_level(FeatureLevel::FIRST), Ok(()));
    let all = (1..=FeatureLevel::LATEST.get()).filter_map(FeatureLevel::new);
    for level in all.filter(|level| *level < raise.required_level()) {
        assert!(matches!(raise.check_level(level), Err(Refusal::Unavailable(_))));
    }
}
