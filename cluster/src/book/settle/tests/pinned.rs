//! Retention of the namespace of Xbus takes what nobody needs, also while an old envelope still waits for its rest.

use rollbook_core::command::{Command, LevelRaise};
use rollbook_core::entry::{FLAG_INTERNAL, FLAG_KEYED, begin_publish, finish_publish};
use rollbook_core::event::Event;
use rollbook_core::level::FeatureLevel;
use rollbook_core::xbus::account::register::{ActorRequest, Registration};
use rollbook_core::xbus::account::row::{ActorKind, ActorStatus};
use rollbook_core::xbus::change::{AccountAccept, ActorStatusSet, Change, Expire, FragmentReceived};
use rollbook_core::xbus::envelope::part::{EventView, Fragment, Part};
use rollbook_core::xbus::id::Id;

use super::rig::{Rig, temporary};
use crate::book::retain;

const DAY: u64 = 24 * 3_600_000;

fn id(number: u8) -> Vec<u8> {
    vec![number; 16]
}

/// An account with an enabled emitter.
fn emitter() -> Vec<Command> {
    let mut actor = ActorRequest { id: id(10), name: "emitter".to_owned(), ..ActorRequest::default() };
    actor.set_kind(ActorKind::Emitter);
    let (name, csr) = ("shop".to_owned(), "PEM".to_owned());
    let register = Registration {
        id: id(1),
        name,
        kind: 1,
        csr,
        public_key: vec![1; 32],
        authenticated: false,
        actors: vec![actor],
    };
    let (certificate, fingerprint) = ("CERT".to_owned(), "sha256:01".to_owned());
    let accept = AccountAccept { id: id(1), public_key: vec![1; 32], certificate, fingerprint, expires: u64::MAX };
    let status = ActorStatusSet { id: id(10), status: ActorStatus::Enabled.into(), config: Vec::new() };
    let changes = [Change::Register(register), Change::AccountAccept(accept), Change::ActorStatus(status)];
    let raise = Command::LevelRaise(LevelRaise { level: FeatureLevel::LATEST.get() });
    [raise].into_iter().chain(changes.map(|change| Command::xbus(None, change))).collect()
}

/// Publishes of the namespace of Xbus, each with its id.
fn stored(ids: &[&str]) -> Vec<u8> {
    let mut frame = Vec::new();
    begin_publish(&mut frame, "xbus").unwrap();
    for id in ids {
        let event = Event { subject: "xbus.envelope", id, payload: Some(&[b'7'; 100]), ..Event::default() };
        event.encode(&mut frame).unwrap();
    }
    finish_publish(&mut frame, 0, FLAG_INTERNAL | FLAG_KEYED, u32::try_from(ids.len()).unwrap()).unwrap();
    frame
}

/// The first fragment of an envelope whose rest does not come.
fn fragment(event: &str) -> Command {
    let (id_of_event, items) = (Some(Id::new([1; 16])), [b"item".as_slice()]);
    let view = EventView { id: id_of_event, event_type: "t", index: Some(1), item_count: 2, checksum: 0, items };
    let fragment = Fragment { event_ids: Vec::new(), parts: vec![Part::measure(view)], last: false };
    let (output, event) = ("o".to_owned(), event.to_owned());
    let received = FragmentReceived { envelope: id(100), actor: id(10), output, fragment, event, ..Default::default() };
    Command::xbus(None, Change::Fragment(received))
}

/// The first event that retention leaves, and the byte offset that belongs to it.
fn trims(rig: &Rig, now: u64) -> Option<(u64, u64)> {
    match retain::due(&rig.state, now).unwrap().as_slice() {
        [] => None,
        [Command::Trim(trim)] => Some((trim.first, trim.bytes_first)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn retention_goes_up_to_what_an_envelope_needs_and_on_when_nobody_needs_it() {
    for settled in [false, true] {
        let keep = temporary();
        let mut rig = Rig::open(&keep.path().join("node"), 1).unwrap();
        emitter().into_iter().for_each(|command| rig.command(command));
        rig.apply(&[stored(&["a"]), stored(&["b"])], 1000);
        // Events 3 to 6 are in one frame, and with the settler in one block.
        rig.apply(&[stored(&["c", "d", "e", "f"])], 2000);
        rig.apply(&[fragment("e").frame().unwrap()], 2000);
        rig.apply(&[stored(&["g"])], 3000);
        if settled {
            rig.step().unwrap();
        }
        let head = rig.head("xbus");
        let record = head.bytes_end / 7;
        assert_eq!(trims(&rig, 3000 + 6 * DAY), None, "nothing is too old");
        let now = 4000 + 7 * DAY;
        assert_eq!(trims(&rig, now), Some((5, 4 * record)), "the fragment is in event 5, settled: {settled}");
        rig.apply(
            &[Command::Trim(rollbook_core::command::Trim {
                name: "xbus".to_owned(),
                first: 5,
                bytes_first: 4 * record,
            })
            .frame()
            .unwrap()],
            now,
        );
        assert_eq!(rig.head("xbus").first, 5);
        assert_eq!(trims(&rig, now), None, "what is needed stays");
        for _ in 0..2 {
            rig.apply(&[Command::xbus(None, Change::EnvelopesExpire(Expire { millis: 1 })).frame().unwrap()], now);
        }
        assert_eq!(trims(&rig, now + 1000), None, "looked at again after a while");
        assert_eq!(trims(&rig, now + 60_000), Some((8, head.bytes_end)), "the envelope was given up");
    }
}
