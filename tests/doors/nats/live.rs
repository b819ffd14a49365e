//! Live subjects at one node.

use super::client::{Nats, options};
use crate::harness::ms;
use crate::harness::node::Node;

#[test]
fn a_message_goes_to_every_subscription_that_matches() {
    let node = Node::start(&options());
    let mut one = Nats::connect(&node);
    let mut two = Nats::connect(&node);
    one.send("SUB foo.* 1\r\nSUB foo.> 2\r\nSUB bar 3\r\n");
    one.flush();
    two.publish("foo.a", "", "", "hello");
    two.publish("foo.a.b", "re.ply", "", "");
    two.publish("foo", "", "", "nobody");
    two.publish("bar", "", "A: b\r\n", "x");
    two.flush();
    let first = [one.message(), one.message()];
    let mut sids: Vec<&str> = first.iter().map(|message| &*message.sid).collect();
    sids.sort_unstable();
    assert_eq!(sids, ["1", "2"]);
    assert!(first.iter().all(|message| message.subject == "foo.a" && message.payload == "hello"), "{first:?}");
    let second = one.message();
    assert_eq!((&*second.sid, second.reply.as_deref(), &*second.payload), ("2", Some("re.ply"), ""));
    let third = one.message();
    assert_eq!((&*third.sid, &*third.headers), ("3", "NATS/1.0\r\nA: b\r\n\r\n"));
    assert!(one.is_quiet(ms(50)));
}

#[test]
fn a_queue_group_gives_each_message_to_one_member() {
    let node = Node::start(&options());
    let mut members: Vec<Nats> = (0..3).map(|_| Nats::connect(&node)).collect();
    for member in &mut members {
        member.send("SUB work.* workers 1\r\n");
        member.flush();
    }
    let mut all = Nats::connect(&node);
    all.send("SUB work.> 9\r\n");
    all.flush();
    let mut publisher = Nats::connect(&node);
    for number in 0..90 {
        publisher.publish("work.x", "", "", &number.to_string());
    }
    publisher.flush();
    let mut counts: Vec<usize> = Vec::new();
    for member in &mut members {
        let mut count = 0;
        while !member.is_quiet(ms(50)) {
            member.message();
            count += 1;
        }
        counts.push(count);
    }
    assert_eq!(counts.iter().sum::<usize>(), 90, "{counts:?}");
    assert!(counts.iter().all(|count| (20..=40).contains(count)), "{counts:?}");
    assert_eq!(
        (0..90).map(|_| all.message().payload).collect::<Vec<_>>(),
        (0..90).map(|n| n.to_string()).collect::<Vec<_>>()
    );
}

#[test]
fn a_subscription_ends_at_once_or_after_so_many_messages() {
    let node = Node::start(&options());
    let mut client = Nats::connect(&node);
    client.send("SUB a 1\r\nSUB b 2\r\nUNSUB 2 2\r\nSUB c 3\r\nUNSUB 3\r\nUNSUB 77\r\n");
    for _ in 0..3 {
        client.publish("b", "", "", "x");
    }
    client.publish("c", "", "", "x");
    client.publish("a", "", "", "x");
    let sids: Vec<String> = (0..3).map(|_| client.message().sid).collect();
    assert_eq!(sids, ["2", "2", "1"]);
    client.flush();
}

#[test]
fn a_client_may_not_want_its_own_messages() {
    let node = Node::start(&options());
    let mut client = Nats::connect_with(&node, r#""echo":false"#);
    client.send("SUB a 1\r\n");
    client.publish("a", "", "", "own");
    client.flush();
    let mut other = Nats::connect(&node);
    other.publish("a", "", "", "other");
    assert_eq!(client.message().payload, "other");
}

#[test]
fn a_request_that_nobody_gets_is_answered_at_once() {
    let node = Node::start(&options());
    let mut client = Nats::connect(&node);
    client.send("SUB _INBOX.x.* 5\r\n");
    client.publish("nobody.is.here", "_INBOX.x.1", "", "?");
    let answer = client.message();
    assert_eq!((&*answer.subject, &*answer.sid, &*answer.payload), ("_INBOX.x.1", "5", ""));
    assert!(answer.headers.starts_with("NATS/1.0 503\r\n"), "{answer:?}");
    let mut responder = Nats::connect(&node);
    responder.send("SUB somebody 1\r\n");
    responder.flush();
    client.publish("somebody", "_INBOX.x.2", "", "?");
    let asked = responder.message();
    responder.publish(asked.reply.as_deref().unwrap_or_default(), "", "", "!");
    assert_eq!(client.message().payload, "!");
}

#[test]
fn answers_of_the_protocol_come_when_they_were_asked_for() {
    let node = Node::start(&options());
    let mut client = Nats::greeted(super::client::address(&node));
    client.send("CONNECT {}\r\nSUB a 1\r\nPUB a 1\r\nx\r\nUNSUB 1\r\nPING\r\n");
    let mut lines: Vec<String> = (0..6).map(|_| client.line()).collect();
    lines.extend([client.line()]);
    assert_eq!(lines.iter().filter(|line| *line == "+OK").count(), 4, "{lines:?}");
    assert!(lines.contains(&"MSG a 1 1".to_owned()) && lines.contains(&"PONG".to_owned()), "{lines:?}");
}

#[test]
fn connections_and_subscriptions_leave_nothing_behind() {
    let node = Node::start(&options());
    for _ in 0..20 {
        let mut client = Nats::connect(&node);
        client.send("SUB x.> 1\r\nSUB y q 2\r\n");
        client.flush();
    }
    crate::harness::wait_for("the end of all connections", crate::harness::SOON, || {
        (node.actors("nats_connection") == 0).then_some(())
    });
}

#[test]
fn a_client_is_among_the_connections_and_can_be_sent_away() {
    let node = Node::start(&options());
    let mut client = Nats::connect_with(&node, r#""name":"reporter","lang":"test""#);
    let all = node.web("GET", "/api/connections", "").json();
    let own = all["items"].as_array().into_iter().flatten().find(|one| one["door"] == "nats").cloned();
    let own = own.unwrap_or_else(|| panic!("not among the connections: {all}"));
    assert_eq!(own["name"], "reporter", "{own}");
    let id = own["id"].as_str().unwrap_or_else(|| panic!("no id: {own}"));
    let answer = node.web("DELETE", &format!("/api/connections/{id}"), "");
    assert!((200..300).contains(&answer.status), "{} {}", answer.status, answer.text());
    assert_eq!(client.try_line(), None);
}
