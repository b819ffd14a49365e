//! Random changes and ticks, in time and not, on replicas that commit at different times. proptest prints the input that
//! fails, and keeps its seed.

use super::*;
use crate::command::ClockSet;
use crate::machine::tests::late::Late;

/// One step, whose frame depends on what the cluster has.
#[derive(Debug, Clone)]
enum Step {
    /// A definition of this interval and pause, with the expected revision off by so much; `None`: any.
    Set {
        name: &'static str,
        every_ms: u64,
        paused: bool,
        off: Option<u64>,
    },
    Delete {
        name: &'static str,
    },
    /// The next tick, with revision and tick off by so much, and so many missed ones folded in.
    Fire {
        name: &'static str,
        revision_off: u64,
        tick_off: u64,
        missed: u64,
        create: bool,
    },
    /// The same without an event.
    Skip {
        name: &'static str,
        revision_off: u64,
        missed: u64,
    },
    /// A frame of before once more, as a second leader or a lost answer brings it.
    Again {
        back: usize,
    },
    Other(Vec<u8>),
}

fn a_name() -> impl Strategy<Value = &'static str> + Clone {
    prop_oneof![3 => Just("s"), 2 => Just("t"), 1 => Just("no name")]
}

/// Mostly 0.
fn off() -> impl Strategy<Value = u64> + Clone {
    prop_oneof![6 => Just(0_u64), 1 => Just(1)]
}

fn a_step() -> impl Strategy<Value = Step> {
    let delete = Command::NamespaceDelete(NamespaceDelete { name: "app".into() }).frame().unwrap();
    prop_oneof![
        4 => (a_name(), prop_oneof![Just(1000_u64), Just(2000), Just(1)], prop::bool::weighted(0.2), proptest::option::of(off()))
            .prop_map(|(name, every_ms, paused, off)| Step::Set { name, every_ms, paused, off }),
        1 => a_name().prop_map(|name| Step::Delete { name }),
        9 => (a_name(), off(), off(), 0_u64..3, any::<bool>()).prop_map(|(name, revision_off, tick_off, missed, create)|
            Step::Fire { name, revision_off, tick_off, missed, create }),
        2 => (a_name(), off(), 1_u64..3).prop_map(|(name, revision_off, missed)| Step::Skip { name, revision_off, missed }),
        6 => (0_usize..6).prop_map(|back| Step::Again { back }),
        1 => Just(Step::Other(dedupe::tidy_up())),
        1 => Just(Step::Other(publish("app", &[event_of("app.tick", "k", "")], FLAG_CREATE))),
        1 => Just(Step::Other(delete)),
        1 => (0_u64..90_000).prop_map(|millis| Step::Other(Command::ClockSet(ClockSet { millis }).frame().unwrap())),
    ]
}

fn folded(row: &ScheduleRow, revision_off: u64, tick_off: u64, missed: u64) -> Tick {
    let (from, every) = (row.next + tick_off, row.definition.every_ms);
    let tick = from + missed * every;
    Tick { schedule: row.name.clone(), revision: row.revision + revision_off, from, tick, next: tick + every, missed }
}

/// The frame of a step, as a leader makes it that knows this machine.
fn frame_of(step: &Step, machine: &Machine, before: &[Vec<u8>]) -> Vec<u8> {
    let row = |name: &str| {
        let found = machine.schedules().get(name).map(|row| ScheduleRow::clone(row));
        found.unwrap_or_else(|| ScheduleRow { name: name.into(), next: 1, ..ScheduleRow::default() })
    };
    match step {
        Step::Set { name, every_ms, paused, off } => {
            let present = row(name);
            let definition = ScheduleDefinition { every_ms: *every_ms, paused: *paused, ..secondly() };
            let next = present.next.max(machine.millis()) + every_ms;
            command(off.map(|off| present.revision + off), set(name, definition, next))
        }
        Step::Delete { name } => command(None, Change::Delete((*name).into())),
        Step::Fire { name, revision_off, tick_off, missed, create } => {
            let tick = folded(&row(name), *revision_off, *tick_off, *missed);
            tick_frame(&tick, "app.tick", if *create { FLAG_CREATE } else { 0 })
        }
        Step::Skip { name, revision_off, missed } => {
            command(None, Change::Skip(folded(&row(name), *revision_off, 0, *missed)))
        }
        Step::Again { back } => before.iter().rev().nth(*back).cloned().unwrap_or_else(dedupe::tidy_up),
        Step::Other(frame) => frame.clone(),
    }
}

/// The tick of a frame that has one.
fn tick_of(frame: &[u8]) -> Option<Tick> {
    match entry::frames(frame, 1).next()? {
        Frame::Publish(publish) => Tick::decode(publish.tick?).ok(),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn replicas_agree_and_each_tick_has_at_most_one_event(
        steps in proptest::collection::vec((a_step(), 0_u64..1500), 1..80),
        reload in 0_usize..80,
    ) {
        let (mut one, mut two, mut late) = (Replica::default(), Replica::default(), Late::default());
        let mut millis = 9_000;
        let first = command(None, set("s", secondly(), 10_000));
        let beginning = [level::raise(FeatureLevel::LATEST.get()), first];
        prop_assert!(one.apply_at(millis, &beginning).iter().all(Result::is_ok));
        drop((two.apply_at(millis, &beginning), late.apply_at(millis, &beginning)));
        let (mut before, mut fired) = (Vec::new(), alloc::collections::BTreeSet::new());
        for (at, (step, passes)) in steps.iter().enumerate() {
            if at == reload {
                two.machine = two.reloaded();
            }
            millis += passes;
            one.apply_at(millis, &[]);
            let frame = frame_of(step, &one.machine, &before);
            // The frame comes twice in one entry.
            let frames = [frame.clone(), frame.clone()];
            let (machine, rows) = (one.machine.clone(), one.memory.rows.clone());
            let replies = one.apply_at(millis, &frames);
            if let Some(tick) = tick_of(&frame) {
                let passed = |of: &Machine| of.schedules().get(&tick.schedule).map(|row| (row.fired, row.failed, row.next));
                for reply in replies.iter().filter(|reply| reply.is_ok()) {
                    prop_assert!(fired.insert((tick.schedule.clone(), tick.tick)), "{:?} came twice: {:?}", &tick, reply);
                }
                if passed(&machine) == passed(&one.machine) {
                    prop_assert_eq!(&one.machine.schedules(), &machine.schedules());
                    prop_assert_eq!(&one.memory.rows, &rows, "a refused tick did something: {:?}", &replies);
                } else {
                    let row = one.machine.schedules().get(&tick.schedule).unwrap();
                    prop_assert_eq!((row.last, row.next), (tick.tick, tick.next));
                    prop_assert!(row.last <= one.machine.millis());
                }
            }
            two.apply_at(millis, &[]);
            prop_assert_eq!(&two.apply_at(millis, &frames), &replies);
            late.apply_at(millis, &[]);
            prop_assert_eq!(&late.apply_at(millis, &frames), &replies);
            before.push(frame);
        }
        late.replica.memory.commit(&mut late.writes);
        prop_assert_eq!(&two.machine, &two.reloaded());
        prop_assert_eq!(&one.machine, &two.machine);
        prop_assert_eq!(&late.replica.machine, &two.machine);
        prop_assert_eq!(&late.replica.memory, &two.memory);
        let namespace = two.machine.heads().find(|head| head.name == "app" && !head.deleted).map(|head| head.id);
        let stored = namespace.map(|id| two.memory.events(id)).unwrap_or_default();
        prop_assert!(stored.windows(2).all(|pair| pair[0].0 < pair[1].0), "{:?}", stored);
    }
}
