//! Events that wait for their time: none early, each once, none without an end.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;

use super::level::latest_replica;
use super::*;
use crate::command::ClockSet;
use crate::command::admission::{check_level, needs_level};
use crate::entry::{FLAG_RESTORE, Wait, delay_publish};
use crate::error::Repeated;
use crate::limits::{DELAY_MS_MAX, RELEASE_EVENTS_MAX};
use crate::subjects::subject::Namespace;
use crate::timed::delayed::{DelayedCancel, DelayedDone, DelayedId, DelayedRelease};

/// The number of the namespace `app` in these tests, which is the first that a client uses.
const APP: u32 = 2;

/// A publish whose events wait.
fn waiting(namespace: &str, events: &[Event<'_>], wait: Wait) -> Vec<u8> {
    let mut frame = publish(namespace, events, FLAG_CREATE);
    delay_publish(&mut frame, wait).unwrap();
    frame
}

/// A publish of one event without key or id that waits until `at`.
fn until(subject: &str, at: u64) -> Vec<u8> {
    waiting(subject.split('.').next().unwrap(), &[event(subject, "", "")], Wait::Until(at))
}

fn release() -> Vec<u8> {
    Command::DelayedRelease(DelayedRelease {}).frame().unwrap()
}

fn cancel(name: &str, id: DelayedId) -> Vec<u8> {
    Command::DelayedCancel(DelayedCancel::new(name, id)).frame().unwrap()
}

fn delete(name: &str) -> Vec<u8> {
    Command::NamespaceDelete(NamespaceDelete { name: name.into() }).frame().unwrap()
}

fn waits(namespace: u32, due: u64, first: u64, events: u32) -> Reply {
    Ok(Done::Delayed(DelayedDone { namespace, due, first, events }))
}

fn id(namespace: u32, due: u64, number: u64) -> DelayedId {
    DelayedId { namespace, due, number }
}

/// The events of a namespace: subjects of those that have waited, ids of the others.
fn names(replica: &Replica, name: &str) -> Vec<String> {
    let Some(head) = replica.machine.head(name) else { return Vec::new() };
    replica.memory.events(head.id).into_iter().map(|(_, name)| name).collect()
}

/// Steps of the random test of all commands.
pub(super) fn step() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![Just("app"), Just("web")];
    prop_oneof![
        3 => (name.clone(), "[ab]{0,2}", "[ab]{0,2}", 1_u64..60).prop_map(|(name, key, id, millis)| {
            waiting(name, &[event_of(&format!("{name}.s"), &key, &id)], Wait::For(millis))
        }),
        2 => Just(release()),
        1 => (name, 1_u32..4, 0_u64..460, 1_u64..6).prop_map(|(name, of, due, number)| cancel(name, id(of, due, number))),
    ]
}

#[test]
fn an_event_is_in_no_namespace_before_its_time_and_in_one_from_then_on() {
    let mut replica = latest_replica();
    assert_eq!(replica.apply_at(100, &[until("app.x", 200)]), [waits(APP, 200, 1, 1)]);
    let two = [event("app.y", "", ""), event("app.z", "", "")];
    assert_eq!(replica.apply_at(100, &[waiting("app", &two, Wait::For(50))]), [waits(APP, 150, 2, 2)]);
    let delayed = replica.machine.delayed();
    assert_eq!((delayed.due(), delayed.events(), replica.machine.head("app").unwrap().next), (Some(150), 3, 1));
    assert_eq!(replica.apply_at(149, &[release()]), [Ok(Done::Nothing)]);
    assert!(names(&replica, "app").is_empty());
    assert_eq!(replica.apply_at(150, &[release()]), [Ok(Done::Nothing)]);
    assert_eq!(names(&replica, "app"), ["app.y", "app.z"]);
    assert_eq!(replica.machine.delayed().due(), Some(200));
    assert_eq!(replica.apply_at(9000, &[plain("app"), release(), plain("app")]).len(), 3);
    let all = names(&replica, "app");
    assert_eq!((all.len(), all[3].as_str()), (5, "app.x"), "one entry with events of frames and of rows");
    let (delayed, head) = (replica.machine.delayed(), replica.machine.head("app").unwrap());
    assert_eq!((delayed.due(), delayed.events(), delayed.bytes(), head.next), (None, 0, 0, 6));
    assert_eq!(replica.apply_at(9001, &[release()]), [Ok(Done::Nothing)]);
    assert_eq!(names(&replica, "app").len(), 5);
    assert_eq!(&replica.machine, &replica.reloaded());
}

#[test]
fn events_whose_time_has_come_are_published_at_once() {
    let mut replica = latest_replica();
    assert_eq!(replica.apply_at(100, &[until("app.x", 100)]), [published(1, 1)]);
    assert_eq!(replica.apply_at(100, &[until("app.x", 0)]), [published(2, 1)]);
    let now = waiting("app", &[event("app.x", "", "")], Wait::For(0));
    assert_eq!(replica.apply_at(100, &[now]), [published(3, 1)]);
    assert_eq!(replica.machine.delayed().events(), 0);
}

#[test]
fn events_of_one_time_come_in_the_order_of_their_publishes_and_earlier_ones_first() {
    let mut replica = latest_replica();
    let at = [(300, "a"), (200, "b"), (300, "c"), (200, "d"), (250, "e")];
    for (at, name) in at {
        assert!(replica.apply_at(100, &[until(&format!("app.{name}"), at)])[0].is_ok());
    }
    replica.apply_at(300, &[release()]);
    assert_eq!(names(&replica, "app"), ["app.b", "app.d", "app.e", "app.a", "app.c"]);
}

#[test]
fn an_entry_skips_frames_that_wait_between_frames_that_do_not() {
    let mut replica = latest_replica();
    let frames = [until("app.w", 500), plain("app"), until("app.w", 500), plain("app"), until("app.w", 500)];
    let replies = replica.apply_at(100, &frames);
    assert_eq!([&replies[1], &replies[3]], [&published(1, 1), &published(2, 1)]);
    assert_eq!(names(&replica, "app").len(), 2);
    let frames = [plain("app"), release(), until("app.w", 900), plain("app"), release(), plain("app"), delete("web")];
    replica.apply_at(500, &frames);
    let all = names(&replica, "app");
    assert_eq!((all.len(), &all[3..6]), (8, ["app.w", "app.w", "app.w"].map(String::from).as_slice()));
}

#[test]
fn a_command_releases_a_bounded_number_and_says_that_more_are_due() {
    let mut replica = latest_replica();
    let many: Vec<Event<'_>> = (0..RELEASE_EVENTS_MAX + 5).map(|_| event("app.x", "", "")).collect();
    replica.apply_at(100, &[waiting("app", &many, Wait::Until(200)), until("web.x", 199)]);
    assert_eq!(replica.apply_at(200, &[release()]), [Ok(Done::More)]);
    assert_eq!((names(&replica, "web").len(), names(&replica, "app").len()), (1, RELEASE_EVENTS_MAX - 1));
    assert_eq!(replica.machine.delayed().due(), Some(200));
    assert_eq!(replica.apply_at(200, &[release()]), [Ok(Done::Nothing)]);
    assert_eq!(names(&replica, "app").len(), RELEASE_EVENTS_MAX + 5);
    let payload = vec![b'1'; 400 << 10];
    let large = [Event { payload: Some(&payload), ..event("app.x", "", "") }; 4];
    replica.apply_at(300, &[waiting("app", &large, Wait::Until(400))]);
    assert_eq!(replica.apply_at(400, &[release()]), [Ok(Done::More)]);
    assert_eq!(replica.machine.delayed().events(), 1, "a megabyte at a time");
}

#[test]
fn a_key_belongs_to_a_waiting_event_from_its_acceptance_on() {
    let mut replica = latest_replica();
    let keyed_at = |at| waiting("app", &[event("app.x", "k", "")], Wait::Until(at));
    let of_waiting = |number| {
        let created_at = Some(Timestamp { seconds: 5, nanos: 0 });
        let repeated =
            Repeated { id: id(APP, 200, number).to_string(), created_at, waits: true, ..Repeated::default() };
        Err(Refusal::KeyProcessed(Some(Box::new(repeated))))
    };
    assert_eq!(replica.apply_at(100, &[keyed_at(200)]), [waits(APP, 200, 1, 1)]);
    assert_eq!(replica.apply_at(110, &[keyed_at(200), keyed("k")]), [of_waiting(1), of_waiting(1)]);
    assert_eq!(replica.apply_at(120, &[cancel("app", id(APP, 200, 1))]), [waits(APP, 200, 1, 1)]);
    assert_eq!(replica.apply_at(130, &[keyed_at(200), keyed("k")]), [waits(APP, 200, 2, 1), of_waiting(2)]);
    replica.apply_at(200, &[release()]);
    let Err(Refusal::KeyProcessed(Some(repeated))) = replica.apply_at(210, &[keyed("k")]).remove(0) else { panic!() };
    assert_eq!((repeated.sequence, repeated.waits), (1, false), "the refusal names the event");
    assert_eq!(replica.apply_at(130 + limits::DEDUPE_WINDOW_MS, &[keyed("k")]), [published(2, 1)]);
    let late = 200 + limits::DEDUPE_WINDOW_MS * 3;
    let (key, again) = (waiting("app", &[event("app.x", "l", "")], Wait::Until(late)), keyed("l"));
    assert!(replica.apply_at(121_000, &[key])[0].is_ok());
    assert_eq!(replica.apply_at(late - 1, &[again]), [published(3, 1)], "the window ends before the wait");
    replica.apply_at(late, &[release()]);
    assert_eq!(names(&replica, "app").len(), 4, "a release refuses nothing");
    let Err(Refusal::KeyProcessed(Some(repeated))) = replica.apply_at(late, &[keyed("l")]).remove(0) else { panic!() };
    assert_eq!(repeated.sequence, 3, "the key is that of the other event");
}

#[test]
fn a_chosen_id_is_taken_while_its_event_waits_and_as_long_as_it_is_stored() {
    let mut replica = latest_replica();
    let named = |at| waiting("app", &[event("app.x", "", "order-1")], Wait::Until(at));
    let now = || publish("app", &[event("app.x", "", "order-1")], 0);
    let repeated = |reply: Reply| match reply {
        Err(Refusal::EventIdExists(Some(repeated))) => (repeated.id, repeated.sequence, repeated.waits),
        other => panic!("{other:?}"),
    };
    assert_eq!(replica.apply_at(100, &[named(200)]), [waits(APP, 200, 1, 1)]);
    for frame in [named(300), now()] {
        assert_eq!(repeated(replica.apply_at(110, &[frame]).remove(0)), (id(APP, 200, 1).to_string(), 0, true));
    }
    replica.apply_at(120, &[cancel("app", id(APP, 200, 1)), named(200)]);
    replica.apply_at(200, &[plain("app"), release()]);
    assert_eq!(repeated(replica.apply_at(210, &[now()]).remove(0)), ("order-1".into(), 2, false));
    let trim = Command::Trim(Trim { name: "app".into(), first: 3, bytes_first: 0 }).frame().unwrap();
    let replies = replica.apply_at(220, &[trim, named(300)]);
    assert_eq!(replies[1], waits(APP, 300, 3, 1), "the id of a trimmed event is free");
    let odd = EventIdText::of(&replica);
    assert!(replica.apply_at(230, &[waiting("app", &[event("app.x", "", &odd.0)], Wait::For(9))])[0].is_ok());
    let twice = [event("app.x", "", "same"), event("app.x", "", "same")];
    assert!(matches!(
        replica.apply_at(230, &[waiting("app", &twice, Wait::For(9))])[0],
        Err(Refusal::EventIdExists(Some(_)))
    ));
    replica.apply_at(900, &[release()]);
    assert_eq!(&replica.machine, &replica.reloaded());
}

/// The id that the next event of the namespace `app` would get by itself.
struct EventIdText(String);

impl EventIdText {
    fn of(replica: &Replica) -> Self {
        let next = replica.machine.head("app").unwrap().next;
        Self(crate::event::EventId::new(Timestamp { seconds: 5, nanos: 0 }, next).to_string())
    }
}

#[test]
fn a_cancelled_event_never_comes_and_is_cancelled_once() {
    let mut replica = latest_replica();
    replica.apply_at(100, &[until("app.a", 200), until("app.b", 200), until("app.c", 300)]);
    assert_eq!(replica.apply_at(110, &[cancel("app", id(APP, 200, 1))]), [waits(APP, 200, 1, 1)]);
    assert_eq!(replica.machine.delayed().due(), Some(200));
    for (name, id) in [
        ("app", id(APP, 200, 1)),
        ("app", id(APP, 201, 2)),
        ("app", id(APP + 1, 200, 2)),
        ("web", id(APP, 200, 2)),
        ("app", id(APP, 200, 9)),
    ] {
        assert_eq!(replica.apply_at(120, &[cancel(name, id)]), [waits(id.namespace, id.due, id.number, 0)]);
    }
    assert!(replica.apply_at(120, &[cancel("app", id(APP, 200, 2))])[0].is_ok());
    assert_eq!((replica.machine.delayed().due(), replica.machine.delayed().events()), (Some(300), 1));
    replica.apply_at(400, &[release()]);
    assert_eq!(names(&replica, "app"), ["app.c"]);
    assert_eq!(replica.apply_at(410, &[cancel("app", id(APP, 300, 3))]), [waits(APP, 300, 3, 0)], "it was published");
}

#[test]
fn what_waits_for_a_deleted_namespace_is_dropped_and_counted() {
    let mut replica = latest_replica();
    let keyed = waiting("app", &[event("app.x", "k", "order-1")], Wait::Until(200));
    replica.apply_at(100, &[keyed.clone(), until("app.x", 150), until("web.x", 250)]);
    replica.apply_at(150, &[release()]);
    assert_eq!(replica.apply_at(160, &[keyed.clone(), delete("app"), keyed])[2], waits(APP, 200, 3, 1));
    let delayed = replica.machine.delayed();
    assert_eq!((delayed.dropped(), delayed.events(), delayed.due()), (1, 2, Some(200)));
    replica.apply_at(300, &[delete("app"), plain("app"), release()]);
    assert_eq!(replica.machine.delayed().dropped(), 2);
    assert_eq!((names(&replica, "app").len(), names(&replica, "web").len()), (1, 1), "the new one gets none of them");
    replica.apply_at(310, &[delete("web"), delete("app")]);
    assert!(replica.memory.rows.keys().all(|(family, _)| *family != Family::Made), "nothing is left");
    assert_eq!(&replica.machine, &replica.reloaded());
}

#[test]
fn what_may_not_wait_is_refused_and_leaves_nothing() {
    let mut replica = latest_replica();
    let before = replica.machine.clone();
    let far = 100 + DELAY_MS_MAX;
    assert!(matches!(replica.apply_at(100, &[until("app.x", far + 1)])[0], Err(Refusal::Malformed(_))));
    let long = waiting("app", &[event("app.x", "", "")], Wait::For(u64::MAX));
    assert!(matches!(replica.apply_at(100, &[long])[0], Err(Refusal::Malformed(_))));
    for flag in [FLAG_INTERNAL, FLAG_RESTORE] {
        let mut frame = until("app.x", 200);
        frame[1] |= flag;
        assert!(matches!(replica.apply_at(100, &[frame])[0], Err(Refusal::Malformed(_))), "{flag}");
    }
    let mut damaged = until("app.x", 200);
    damaged[27] = 0xff;
    assert!(matches!(replica.apply_at(100, &[damaged])[0], Err(Refusal::Malformed(_))));
    for name in [Namespace::DEAD, Namespace::ROLL, Namespace::AUDIT, Namespace::XBUS] {
        let refused = replica.apply_at(100, &[until(&format!("{name}.x"), 200)]);
        assert!(refused[0].is_err(), "{name}: {refused:?}");
    }
    let mut unknown = until("app.x", 200);
    unknown[1] &= !FLAG_CREATE;
    assert_eq!(replica.apply_at(100, &[unknown]), [Err(Refusal::NamespaceNotFound("app".into()))]);
    assert_eq!((&replica.machine.delayed, &replica.machine.heads), (&before.delayed, &before.heads));
    assert_eq!(replica.apply_at(100, &[until("app.x", far)]), [waits(APP, far, 1, 1)], "the last moment");
}

#[test]
fn no_more_events_and_bytes_wait_than_the_cluster_may_hold() {
    let mut replica = latest_replica();
    replica.apply_at(100, &[until("app.x", 200)]);
    let full = |change: fn(&mut crate::timed::delayed::DelayedState)| {
        let mut head = replica.machine.head("app").unwrap().clone();
        change(head.delayed.as_mut().unwrap());
        let mut full = Replica { machine: Machine::default(), memory: replica.memory.clone(), index: replica.index };
        full.memory.rows.insert((Family::Heads, rows::key(APP, &[])), head.encode_to_vec());
        full.machine = full.reloaded();
        full
    };
    let mut events = full(|of| of.events = limits::DELAYED_EVENTS_MAX);
    assert!(
        matches!(&events.apply_at(110, &[until("web.x", 200)])[0], Err(Refusal::Overloaded(text)) if text.contains("events"))
    );
    let mut bytes = full(|of| of.bytes = limits::DELAYED_BYTES_MAX);
    assert!(
        matches!(&bytes.apply_at(110, &[until("web.x", 200)])[0], Err(Refusal::Overloaded(text)) if text.contains("bytes"))
    );
    assert_eq!(bytes.apply_at(110, &[plain("web")]), [published(1, 1)], "others are published");
}

#[test]
fn below_the_level_no_frame_and_no_command_enters_the_log() {
    for frame in [until("app.x", 200), release(), cancel("app", id(APP, 2, 3))] {
        assert!(needs_level(&frame));
        assert!(matches!(check_level(&frame, 1, FeatureLevel::DOCKS), Err(Refusal::Unavailable(_))));
        assert_eq!(check_level(&frame, 1, FeatureLevel::TIMED), Ok(()));
    }
}

#[test]
fn a_time_of_the_log_that_is_set_back_makes_nothing_early() {
    let mut replica = latest_replica();
    replica.apply_at(1000, &[until("app.x", 1500)]);
    let set = Command::ClockSet(ClockSet { millis: 200 }).frame().unwrap();
    replica.apply_at(1000, &[set, release()]);
    assert_eq!(replica.apply_at(1499, &[release()]), [Ok(Done::Nothing)]);
    assert!(names(&replica, "app").is_empty());
    replica.apply_at(1500, &[release()]);
    assert_eq!(names(&replica, "app"), ["app.x"]);
}

/// One step of the random test.
#[derive(Debug, Clone)]
enum Step {
    /// Publishes events that wait for so long.
    Wait {
        name: &'static str,
        events: u8,
        millis: u64,
        key: bool,
    },
    /// Publishes an event at once.
    Now(&'static str),
    /// Cancels one of the events that ever waited.
    Cancel(usize),
    Release,
    Delete(&'static str),
}

fn story() -> impl Strategy<Value = Vec<(u64, Vec<Step>)>> {
    let name = || prop_oneof![Just("app"), Just("web"), Just("log")];
    let step = prop_oneof![
        6 => (name(), 1_u8..4, 0_u64..300, any::<bool>())
            .prop_map(|(name, events, millis, key)| Step::Wait { name, events, millis, key }),
        3 => name().prop_map(Step::Now),
        3 => any::<prop::sample::Index>().prop_map(|index| Step::Cancel(index.index(1000))),
        4 => Just(Step::Release),
        1 => name().prop_map(Step::Delete),
    ];
    proptest::collection::vec((0_u64..80, proptest::collection::vec(step, 1..6)), 1..40)
}

/// What the random test knows of an event that waited.
#[derive(Debug)]
struct Told {
    name: &'static str,
    id: DelayedId,
    /// Neither cancelled nor dropped with its namespace.
    lives: bool,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn each_event_comes_once_and_not_early_whatever_else_happens(story in story(), reload in 0_usize..40) {
        let (mut one, mut two) = (latest_replica(), latest_replica());
        let mut told = BTreeMap::<String, Told>::new();
        let (mut millis, mut serial) = (1000, 0_u32);
        for (at, (pause, steps)) in story.into_iter().chain([(1000, vec![Step::Release])]).enumerate() {
            millis += pause;
            let order: Vec<String> = told.keys().cloned().collect();
            let mut frames = Vec::new();
            let mut subjects = Vec::new();
            for step in &steps {
                let mut of_frame = Vec::new();
                frames.push(match step {
                    Step::Wait { name, events, millis, key } => {
                        for _ in 0..*events {
                            serial += 1;
                            of_frame.push(format!("{name}.{serial:06}"));
                        }
                        let text = |subject: &str| subject.rsplit('.').next().filter(|_| *key).unwrap_or_default().to_string();
                        let texts: Vec<(&String, String)> = of_frame.iter().map(|subject| (subject, text(subject))).collect();
                        let events: Vec<_> = texts.iter().map(|(subject, text)| event(subject, text, text)).collect();
                        waiting(name, &events, Wait::For(*millis))
                    }
                    Step::Now(name) => plain(name),
                    Step::Cancel(_) if order.is_empty() => release(),
                    Step::Cancel(index) => {
                        let told = &told[&order[index % order.len()]];
                        cancel(told.name, told.id)
                    }
                    Step::Release => release(),
                    Step::Delete(name) => delete(name),
                });
                subjects.push(of_frame);
            }
            if at == reload {
                two.machine = two.reloaded();
            }
            let replies = one.apply_at(millis, &frames);
            prop_assert_eq!(&replies, &two.apply_at(millis, &frames));
            let mut finished = false;
            for ((step, reply), subjects) in steps.iter().zip(&replies).zip(&subjects) {
                match (step, reply) {
                    (Step::Wait { name, .. }, Ok(Done::Delayed(done))) => {
                        for (position, subject) in (0..).zip(subjects) {
                            let id = done.id().behind(position);
                            told.insert(subject.clone(), Told { name, id, lives: true });
                        }
                        finished = false;
                    }
                    (Step::Wait { millis, .. }, Ok(Done::Published { .. })) => prop_assert_eq!(*millis, 0),
                    (Step::Cancel(index), Ok(Done::Delayed(done))) if done.events == 1 => {
                        told.get_mut(&order[index % order.len()]).unwrap().lives = false;
                    }
                    (Step::Delete(name), Ok(_)) => {
                        told.values_mut().filter(|told| told.name == *name).for_each(|told| told.lives = false);
                    }
                    (Step::Release, reply) => finished = *reply == Ok(Done::Nothing),
                    _ => {}
                }
            }
            let visible: Vec<String> = ["app", "log", "web"].iter().flat_map(|name| stored_subjects(&one, name)).collect();
            let unique: BTreeSet<&String> = visible.iter().collect();
            prop_assert_eq!(unique.len(), visible.len(), "an event came twice");
            for (subject, told) in &told {
                let is_visible = unique.contains(subject);
                prop_assert!(!is_visible || told.id.due <= millis, "{} is early", subject);
                prop_assert!(!is_visible || told.lives, "{} was cancelled or dropped", subject);
                if finished && told.lives && told.id.due <= millis {
                    prop_assert!(is_visible, "{} is missing", subject);
                }
            }
            let left = told.iter().filter(|(subject, told)| told.lives && !unique.contains(subject)).count();
            prop_assert_eq!(one.machine.delayed().events(), u64::try_from(left).unwrap());
        }
        prop_assert_eq!(one.machine.delayed().events(), 0);
        prop_assert_eq!(&one.machine, &two.reloaded());
        prop_assert_eq!(&one.memory, &two.memory);
    }
}

/// The subjects of all events of a namespace that have waited.
fn stored_subjects(replica: &Replica, name: &str) -> Vec<String> {
    let mut all = names(replica, name);
    all.retain(|text| text.starts_with(name));
    all
}
