//! Random changes, legal and not, on replicas that commit at different times. proptest prints the input that fails, and
//! keeps its seed.

use super::*;
use crate::command::ClockSet;
use crate::command::attributed::Attributed;
use crate::entry::KIND_COMMAND;
use crate::machine::tests::late::Late;
use crate::security::actor::Actor;

fn an_id() -> impl Strategy<Value = &'static str> + Clone {
    prop_oneof![4 => Just("web"), 4 => Just("mail"), 1 => Just("no id")]
}

/// Chunks that differ in length, and few enough that the same comes again.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![Just(b"a".to_vec()), Just(b"8 bytes.".to_vec()), Just(vec![9; 300]), Just(Vec::new())]
}

fn an_event() -> impl Strategy<Value = DockEvent> {
    (0_i32..5, an_id(), any::<Option<u8>>(), "[ab]{0,2}").prop_map(|(kind, definition, number, text)| DockEvent {
        kind,
        definition: definition.into(),
        dock: "dock".into(),
        pid: number.map(u64::from),
        code: number.map(i64::from),
        text: Some(text).filter(|text| !text.is_empty()),
        ..DockEvent::default()
    })
}

fn a_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => (an_id(), "[{}1]{0,3}").prop_map(|(id, document)| set(id, document.as_bytes())),
        1 => an_id().prop_map(remove),
        4 => (1_u8..7, an_id()).prop_map(|(build, definition)| begin(build, definition)),
        8 => (1_u8..7, 0_u32..3, bytes()).prop_map(|(build, ordinal, bytes)| chunk(build, ordinal, &bytes)),
        2 => (1_u8..7, 0_u32..4, 0_u64..10).prop_map(|(build, chunks, bytes)| finish_with(build, chunks, bytes)),
        1 => (1_u8..7).prop_map(abandon),
        2 => proptest::collection::vec(an_event(), 0..3).prop_map(|events| Change::Events(Events { events })),
    ]
}

/// A build that comes as it should: begin, chunks and finish in one entry. So many chunks that they go as a range, at
/// times.
fn a_build() -> impl Strategy<Value = Vec<Change>> {
    (1_u8..7, an_id(), prop_oneof![9 => 0_usize..4, 1 => 14_usize..18], any::<bool>()).prop_map(
        |(build, definition, count, finished)| {
            let chunks: Vec<&[u8]> = vec![b"8 bytes."; count];
            let sent = (0..).zip(&chunks).map(|(ordinal, bytes)| chunk(build, ordinal, bytes));
            let finish = finished.then(|| finish(build, &chunks));
            [begin(build, definition)].into_iter().chain(sent).chain(finish).collect()
        },
    )
}

/// The frames of one step.
fn a_step() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let frame = |change: Change| Command::dock(None, change).frame().unwrap();
    let revision = proptest::option::weighted(0.3, 0_u64..4);
    prop_oneof![
        8 => (revision, a_change()).prop_map(|(if_revision, change)|
            vec![Command::dock(if_revision, change).frame().unwrap()]),
        1 => a_change().prop_map(|change| {
            let actor = Actor { principal: "user:ann".into(), ..Actor::default() };
            vec![Command::dock(None, change).frame_of(Some(actor)).unwrap()]
        }),
        4 => a_build().prop_map(move |changes| changes.into_iter().map(frame).collect()),
        1 => Just(vec![dedupe::tidy_up()]),
        1 => Just(vec![publish("app", &[event_of("app.x", "k", "chosen")], FLAG_CREATE)]),
        1 => Just(vec![Command::NamespaceDelete(NamespaceDelete { name: "app".into() }).frame().unwrap()]),
        1 => (0_u64..2_000_000).prop_map(|millis| vec![Command::ClockSet(ClockSet { millis }).frame().unwrap()]),
    ]
}

/// Whether a frame is a change of docks that no audit notes.
fn is_plain(frame: &[u8]) -> bool {
    let body = frame.get(6..).filter(|_| frame[0] == KIND_COMMAND).map(|body| Attributed::decode(body).unwrap());
    body.is_some_and(|body| matches!(body.command, Command::Dock(_)) && body.actor.is_none())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn two_replicas_agree_whenever_they_commit_and_a_refused_change_does_nothing(
        entries in proptest::collection::vec((a_step(), prop_oneof![9 => Just(10_u64), 1 => Just(400_000)]), 1..40),
        reload in 0_usize..40,
    ) {
        let (mut one, mut two, mut late) = (Replica::default(), Replica::default(), Late::default());
        let mut millis = 1_000_000;
        let beginning = [level::raise(FeatureLevel::LATEST.get()), Command::dock(None, set("web", b"{}")).frame().unwrap()];
        let begun = one.apply_at(millis, &beginning);
        prop_assert!(begun.iter().all(Result::is_ok), "{:?}", begun);
        drop((two.apply_at(millis, &beginning), late.apply_at(millis, &beginning)));
        for (at, (frames, passes)) in entries.iter().enumerate() {
            if at == reload {
                two.machine = two.reloaded();
            }
            millis += passes;
            // One frame alone shows that a refusal does nothing; the others get all frames in one entry.
            let mut replies = Vec::new();
            for frame in frames {
                one.apply_at(millis, &[]);
                let (machine, rows) = (one.machine.clone(), one.memory.rows.clone());
                let reply = one.apply_at(millis, core::slice::from_ref(frame)).pop().unwrap();
                if reply.is_err() && is_plain(frame) {
                    prop_assert_eq!(&one.machine, &machine, "{:?}", &reply);
                    prop_assert_eq!(&one.memory.rows, &rows, "{:?}", &reply);
                }
                check_chunks(&one);
                replies.push(reply);
            }
            prop_assert_eq!(&two.apply_at(millis, frames), &replies);
            prop_assert_eq!(&late.apply_at(millis, frames), &replies);
        }
        late.replica.memory.commit(&mut late.writes);
        prop_assert_eq!(&two.machine, &two.reloaded());
        prop_assert_eq!(one.machine.docks(), two.machine.docks());
        prop_assert_eq!(&late.replica.machine, &two.machine);
        prop_assert_eq!(&late.replica.memory, &two.memory);
    }
}
