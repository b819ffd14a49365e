//! Durable consumers and groups: cursors that outlive streams, one event to one member.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::harness::node::{Node, Options};
use crate::harness::sse::{End, Frame, Sse};
use crate::harness::{SOON, ms, wait_for};

/// A durable, manually acknowledged stream from the oldest event.
fn durable(node: &Node, subject: &str, names: &[(&str, &str)]) -> Sse {
    let mut query = vec![("subject", subject), ("start", "oldest"), ("ack", "manual"), ("redelivery", "30s")];
    query.extend_from_slice(names);
    node.subscribe(&query)
}

fn ack_next(node: &Node, stream: &mut Sse) -> Frame {
    let event = stream.next_event(SOON);
    let answer = node.ack(&stream.consumer_id(), &event.event_id());
    assert_eq!(answer.status, 202, "{}", answer.text());
    event
}

/// Waits until the listing shows this acknowledged floor, and gives the entry.
fn await_floor(node: &Node, ns: &str, name: &str, floor: i64) -> serde_json::Value {
    wait_for(&format!("{name} with ack_floor {floor}"), SOON, || {
        node.consumer(ns, name).filter(|item| item["ack_floor"] == floor)
    })
}

#[test]
fn a_consumer_resumes_after_the_last_acked_event() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    for n in 1..=5 {
        node.publish(&subject, &n.to_string());
    }
    let names = [("consumer", "c1")];
    let mut stream = durable(&node, &subject, &names);
    for n in 1..=2 {
        assert_eq!(ack_next(&node, &mut stream).payload(), n);
    }
    assert_eq!(stream.next_event(SOON).payload(), 3, "in flight, not acked");
    drop(stream);
    let mut again = durable(&node, &subject, &names);
    for n in 3..=5 {
        assert_eq!(ack_next(&node, &mut again).payload(), n);
    }
    again.quiet(ms(100));
}

#[test]
fn the_cursor_beats_start_and_last_event_id() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    let first = node.publish(&subject, "1").id;
    for n in 2..=4 {
        node.publish(&subject, &n.to_string());
    }
    let mut stream = durable(&node, &subject, &[("consumer", "c1")]);
    ack_next(&node, &mut stream);
    ack_next(&node, &mut stream);
    await_floor(&node, &ns, "c1", 2);
    drop(stream);
    for start in ["newest", "oldest", &first, "e_unknown"] {
        // For ever, since each of these streams ends with an event that was delivered to it.
        let target = format!("/?subject={subject}&ack=manual&redelivery_count=0&consumer=c1&start={start}");
        let mut stream = Sse::open(node.log, &target, &[("Last-Event-ID", &first)]);
        assert_eq!(stream.next_event(SOON).payload(), 3, "start={start}");
    }
}

#[test]
fn a_consumer_survives_a_stop_and_a_kill() {
    let mut node = Node::start(&Options::new());
    for n in 1..=6 {
        node.publish("app.x", &n.to_string());
    }
    let mut next = 1;
    for graceful in [true, false] {
        let mut stream = durable(&node, "app.x", &[("consumer", "c1")]);
        for _ in 0..2 {
            assert_eq!(ack_next(&node, &mut stream).payload(), next);
            next += 1;
        }
        assert_eq!(stream.next_event(SOON).payload(), next, "in flight");
        await_floor(&node, "app", "c1", next - 1);
        if graceful {
            node.terminate();
        }
        node.restart();
        let listed = await_floor(&node, "app", "c1", next - 1);
        assert_eq!(listed["lag"], 6 - (next - 1), "{listed}");
    }
    let mut stream = durable(&node, "app.x", &[("consumer", "c1")]);
    assert_eq!(ack_next(&node, &mut stream).payload(), 5);
}

#[test]
fn the_listing_shows_floor_lag_and_members() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    for n in 1..=10 {
        node.publish(&subject, &n.to_string());
    }
    let mut stream = durable(&node, &subject, &[("consumer", "lagging")]);
    ack_next(&node, &mut stream);
    assert_eq!(stream.next_event(SOON).index(), 2);
    let item = await_floor(&node, &ns, "lagging", 1);
    assert_eq!(item["subject"], subject.as_str());
    assert_eq!(item["group"], false);
    assert_eq!(item["lag"], 9);
    assert_eq!(item["paused"], false);
    assert_eq!(item["members"][0]["consumer_id"], stream.consumer_id().as_str());
    assert_eq!(item["members"][0]["in_flight"], serde_json::json!([2]));
    drop(stream);
    wait_for("no member after the stream is gone", SOON, || {
        let item = node.consumer(&ns, "lagging")?;
        item["members"].as_array().is_some_and(Vec::is_empty).then_some(())
    });
    let deleted = node.web("DELETE", &format!("/api/consumers/{ns}/lagging"), "");
    assert_eq!(deleted.status, 204, "{}", deleted.text());
    assert_eq!(node.consumer(&ns, "lagging"), None);
}

#[test]
fn a_name_with_another_subject_is_a_conflict() {
    let node = Node::shared();
    let ns = node.namespace();
    let (subject, other) = (format!("{ns}.x"), format!("{ns}.y"));
    node.publish(&subject, "1");
    for kind in ["consumer", "group"] {
        let _first = durable(&node, &subject, &[(kind, kind)]);
        let answer = node.get(&format!("/?subject={other}&ack=manual&{kind}={kind}"));
        let text = format!("consumer {kind} exists with subject {subject}");
        let text = if kind == "group" && answer.text().starts_with("group") {
            text.replacen("consumer", "group", 1)
        } else {
            text
        };
        answer.refusal(409, &text).unwrap_or_else(|problem| panic!("{kind}: {problem}"));
    }
}

#[test]
fn a_second_connection_takes_a_consumer_over() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    node.publish(&subject, "1");
    node.publish(&subject, "2");
    let mut old = durable(&node, &subject, &[("consumer", "c1")]);
    assert_eq!(old.next_event(SOON).payload(), 1);
    let mut new = durable(&node, &subject, &[("consumer", "c1")]);
    assert_ne!(old.consumer_id(), new.consumer_id());
    assert_eq!(old.end(SOON), End::Clean);
    assert_eq!(ack_next(&node, &mut new).payload(), 1, "in flight on the old stream");
    assert_eq!(ack_next(&node, &mut new).payload(), 2);
}

#[test]
fn without_manual_ack_the_cursor_moves_with_the_stream() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    for n in 1..=3 {
        node.publish(&subject, &n.to_string());
    }
    let query = [("subject", subject.as_str()), ("start", "oldest"), ("consumer", "auto")];
    let mut stream = node.subscribe(&query);
    assert_eq!(stream.events(3, SOON).len(), 3);
    await_floor(&node, &ns, "auto", 3);
    drop(stream);
    node.publish(&subject, "4");
    let mut again = node.subscribe(&query);
    assert_eq!(again.next_event(SOON).payload(), 4);
    again.quiet(ms(100));
}

#[test]
fn each_event_goes_to_one_member_of_a_group() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    let mut members: Vec<Sse> = (0..3).map(|_| durable(&node, &subject, &[("group", "g")])).collect();
    for n in 1..=60 {
        node.publish(&subject, &n.to_string());
    }
    let mut seen = Vec::new();
    let deadline = Instant::now() + SOON;
    while seen.len() < 60 && Instant::now() < deadline {
        for member in &mut members {
            if let Some(event) = member.try_event(ms(20)) {
                assert_eq!(node.ack(&member.consumer_id(), &event.event_id()).status, 202);
                seen.push(event.index());
            }
        }
    }
    let distinct: BTreeSet<i64> = seen.iter().copied().collect();
    assert_eq!(seen.len(), 60, "an event was lost or delivered twice: {seen:?}");
    assert_eq!(distinct, (1..=60).collect());
    for member in &mut members {
        assert!(member.raw().matches("\nevent: msg\n").count() > 0, "a member got nothing");
        member.quiet(ms(50));
    }
    let item = await_floor(&node, &ns, "g", 60);
    assert_eq!((&item["group"], &item["lag"]), (&true.into(), &0.into()));
}

#[test]
fn a_member_has_at_most_one_event_in_flight() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    for n in 1..=3 {
        node.publish(&subject, &n.to_string());
    }
    let mut first = durable(&node, &subject, &[("group", "g")]);
    assert_eq!(first.next_event(SOON).index(), 1);
    first.quiet(ms(100));
    let mut second = durable(&node, &subject, &[("group", "g")]);
    let event = second.next_event(SOON);
    assert_eq!(event.index(), 2);
    node.ack(&second.consumer_id(), &event.event_id());
    assert_eq!(second.next_event(SOON).index(), 3);
    // The floor waits for the first event although later ones are acked.
    assert_eq!(node.consumer(&ns, "g").expect("listed")["ack_floor"], 0);
}

#[test]
fn the_event_of_a_lost_member_goes_to_another_at_once() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    node.publish(&subject, "1");
    let mut lost = durable(&node, &subject, &[("group", "g")]);
    let event = lost.next_event(SOON);
    let mut other = durable(&node, &subject, &[("group", "g")]);
    other.quiet(ms(100));
    drop(lost);
    // Long before the redelivery time of 30 s.
    let again = other.next_event(SOON);
    assert_eq!(again.raw, event.raw);
    node.ack(&other.consumer_id(), &again.event_id());
    await_floor(&node, &ns, "g", 1);
}

#[test]
fn the_event_of_a_silent_member_goes_to_another_after_the_redelivery_time() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    let query = [
        ("subject", subject.as_str()),
        ("start", "oldest"),
        ("ack", "manual"),
        ("redelivery", "400ms"),
        ("redelivery_count", "0"),
        ("group", "g"),
    ];
    node.publish(&subject, "1");
    let mut silent = node.subscribe(&query);
    assert_eq!(silent.next_event(SOON).index(), 1);
    let mut willing = node.subscribe(&query);
    let mut served = willing.try_event(ms(300));
    assert!(served.is_none(), "before the redelivery time: {served:?}");
    let deadline = Instant::now() + SOON;
    while served.is_none() && Instant::now() < deadline {
        served = willing.try_event(ms(100));
    }
    let event = served.expect("the event after the redelivery time");
    node.ack(&willing.consumer_id(), &event.event_id());
    await_floor(&node, &ns, "g", 1);
}

#[test]
fn groups_and_plain_subscribers_do_not_disturb_each_other() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    let mut one = durable(&node, &subject, &[("group", "one")]);
    let mut two = durable(&node, &subject, &[("group", "two")]);
    let mut plain = node.subscribe(&[("subject", &subject)]);
    for n in 1..=5 {
        node.publish(&subject, &n.to_string());
    }
    for n in 1..=5 {
        assert_eq!(ack_next(&node, &mut one).payload(), n);
        assert_eq!(ack_next(&node, &mut two).payload(), n);
        assert_eq!(plain.next_event(SOON).payload(), n);
    }
}

#[test]
fn a_group_member_with_a_stable_name_takes_its_own_place() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    node.publish(&subject, "1");
    let names = [("group", "g"), ("consumer", "worker-1")];
    let mut old = durable(&node, &subject, &names);
    assert_eq!(old.next_event(SOON).index(), 1);
    let mut new = durable(&node, &subject, &names);
    assert_eq!(old.end(SOON), End::Clean);
    assert_eq!(ack_next(&node, &mut new).index(), 1);
    await_floor(&node, &ns, "g", 1);
}

#[test]
fn a_group_survives_a_kill_with_events_in_flight() {
    let mut node = Node::start(&Options::new());
    for n in 1..=4 {
        node.publish("app.x", &n.to_string());
    }
    let mut first = durable(&node, "app.x", &[("group", "g")]);
    let mut second = durable(&node, "app.x", &[("group", "g")]);
    assert_eq!(first.next_event(SOON).index(), 1);
    assert_eq!(ack_next(&node, &mut second).index(), 2);
    assert_eq!(second.next_event(SOON).index(), 3);
    node.restart();
    // Event 2 is acked; 1 and 3 come again, 4 for the first time.
    let mut stream = durable(&node, "app.x", &[("group", "g")]);
    let mut seen = vec![ack_next(&node, &mut stream).index()];
    while let Some(event) = stream.try_event(ms(500)) {
        node.ack(&stream.consumer_id(), &event.event_id());
        seen.push(event.index());
    }
    // The ack of 2 had no time to be replicated for certain: it may come again.
    seen.retain(|index| *index != 2);
    assert_eq!(seen, [1, 3, 4]);
}
