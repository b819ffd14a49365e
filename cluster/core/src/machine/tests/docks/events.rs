//! What happened to processes becomes events of the roll; and which changes of docks are in the audit.

use super::*;
use crate::security::actor::Actor;

fn happened(kind: DockEventKind) -> DockEvent {
    DockEvent { kind: kind.into(), definition: "web".into(), dock: "dock1".into(), at: 1500, ..Default::default() }
}

fn events(events: Vec<DockEvent>) -> Change {
    Change::Events(Events { events })
}

/// Subjects and payloads of the events that the rules made in a namespace.
fn made(replica: &Replica, namespace: &str) -> Vec<(String, String)> {
    let Some(head) = replica.machine.head(namespace) else { return Vec::new() };
    let prefix = rows::key(head.id, &[]);
    let of = |((family, key), _): &(&(Family, Vec<u8>), _)| *family == Family::Made && key.starts_with(&prefix);
    let records = replica.memory.rows.iter().filter(of);
    let decode = |record: &Vec<u8>| {
        let event = Event::decode(record).unwrap().0;
        (event.subject.to_string(), String::from_utf8(event.payload.unwrap().to_vec()).unwrap())
    };
    records.map(|(_, record)| decode(record)).collect()
}

#[test]
fn what_happened_to_processes_is_in_the_roll_in_its_order() {
    let mut story = Story::with_web();
    let docks = story.replica.machine.docks().clone();
    let (spawned, exited) = (happened(DockEventKind::Spawned), happened(DockEventKind::Exited));
    let crashed = DockEvent { text: Some("10 exits in \"60\" s".into()), ..happened(DockEventKind::Crashed) };
    story.done(events(vec![
        DockEvent { pid: Some(7), ..spawned },
        DockEvent { pid: Some(7), code: Some(-1), ..exited.clone() },
        DockEvent { text: Some("SIGTERM".into()), definition: "gone".into(), ..exited },
    ]));
    story.done(events(vec![crashed]));
    let wanted = [
        ("roll.process.spawn", r#"{"definition":"web","dock":"dock1","pid":7,"at":"1970-01-01T00:00:01.5Z"}"#),
        ("roll.process.exit", r#"{"definition":"web","dock":"dock1","pid":7,"code":-1,"at":"1970-01-01T00:00:01.5Z"}"#),
        ("roll.process.exit", r#"{"definition":"gone","dock":"dock1","text":"SIGTERM","at":"1970-01-01T00:00:01.5Z"}"#),
        (
            "roll.process.crashed",
            r#"{"definition":"web","dock":"dock1","text":"10 exits in \"60\" s","at":"1970-01-01T00:00:01.5Z"}"#,
        ),
    ];
    assert_eq!(made(&story.replica, "roll"), wanted.map(|(subject, payload)| (subject.into(), payload.into())));
    assert_eq!(story.replica.machine.docks(), &docks, "no state of docks changes");
}

#[test]
fn process_events_are_stored_all_together_or_not_at_all() {
    let mut story = Story::new();
    let good = || happened(DockEventKind::Spawned);
    let bad = DockEvent { text: Some("x".repeat(TEXT_BYTES_MAX + 1)), ..good() };
    for refused in [vec![], vec![good(), bad], vec![good(); EVENTS_MAX + 1], vec![good(), DockEvent::default()]] {
        assert!(matches!(story.refused(events(refused)), Refusal::Malformed(_)));
    }
    assert_eq!(made(&story.replica, "roll").len(), 0);
    story.done(events(vec![good(); EVENTS_MAX]));
    assert_eq!(made(&story.replica, "roll").len(), EVENTS_MAX);
}

#[test]
fn changes_of_definitions_and_finished_builds_are_in_the_audit_and_nothing_else() {
    let mut story = Story::new();
    let actor = Actor { principal: "user:ann".into(), door: "hms".into(), ..Actor::default() };
    let changes = [
        set("web", b"{}"),
        begin(1, "web"),
        chunk(1, 0, b"a"),
        finish(1, &[b"a"]),
        finish(2, &[b"a"]),
        events(vec![happened(DockEventKind::Spawned)]),
        begin(3, "web"),
        abandon(3),
        remove("web"),
        remove(&"x".repeat(5000)),
    ];
    for change in changes {
        let frame = Command::dock(None, change).frame_of(Some(actor.clone())).unwrap();
        story.millis += 10;
        drop(story.replica.apply_at(story.millis, &[frame]));
    }
    let lines = made(&story.replica, "_audit");
    let part = |payload: &str, from: &str| payload.split(from).nth(1).unwrap().split('"').next().unwrap().to_string();
    let lines: Vec<String> = lines
        .iter()
        .map(|(subject, payload)| {
            let (target, outcome) = (part(payload, r#""target":""#), part(payload, r#""outcome":""#));
            format!("{subject} {} {outcome}", target.get(..20).unwrap_or(&target))
        })
        .collect();
    let wanted = [
        "_audit.dock.definition_set web done",
        "_audit.dock.build_finish web/01010101-0101-01 done",
        "_audit.dock.build_finish /02020202-0202-0202- refused",
        "_audit.dock.definition_remove web done",
        "_audit.dock.definition_remove xxxxxxxxxxxxxxxxxxxx refused",
    ];
    assert_eq!(lines, wanted);
}
