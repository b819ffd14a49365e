//! Live subjects and the book over three nodes.

use std::time::{Duration, Instant};

use super::client::{Nats, address, options};
use crate::harness::cluster::Cluster;
use crate::harness::{SOON, ms, wait_for};

/// Waits until messages on this subject go from one client to another.
fn connected(from: &mut Nats, to: &mut Nats, subject: &str) {
    wait_for("the interest at the other node", SOON, || {
        from.publish(subject, "", "", "probe");
        from.flush_and_take();
        (!to.is_quiet(ms(50))).then_some(())
    });
    while !to.is_quiet(ms(100)) {
        to.message();
    }
}

#[test]
fn live_messages_go_to_the_subscriptions_of_all_nodes_once() {
    let cluster = Cluster::start_with(options());
    let mut clients: Vec<Nats> = (1..=3).map(|id| Nats::connect(cluster.node(id))).collect();
    for client in &mut clients {
        client.send("SUB live.> 1\r\n");
        client.flush();
    }
    let [first, second, third] = &mut clients[..] else { panic!("three clients") };
    connected(first, second, "live.probe");
    connected(first, third, "live.probe");
    while !first.is_quiet(ms(100)) {
        first.message();
    }
    while !second.is_quiet(ms(100)) {
        second.message();
    }
    for number in 0..100 {
        first.publish("live.x", "", "", &number.to_string());
    }
    let expected: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    for client in [&mut *first, second, third] {
        let found: Vec<String> = (0..100).map(|_| client.message().payload).collect();
        assert_eq!(found, expected, "in order, each once");
        assert!(client.is_quiet(ms(50)));
    }
}

#[test]
fn a_request_at_one_node_is_answered_at_another() {
    let cluster = Cluster::start_with(options());
    let mut responder = Nats::connect(cluster.node(3));
    responder.send("SUB svc.echo q 1\r\n");
    responder.flush();
    let mut client = Nats::connect(cluster.node(1));
    client.send("SUB _INBOX.abcdefghijklmnopqrstuv.* 1\r\n");
    let asked = wait_for("the responder at the other node", SOON, || {
        client.publish("svc.echo", "_INBOX.abcdefghijklmnopqrstuv.1", "", "?");
        // Until the interest has come, nobody is there.
        client.flush_and_take();
        (!responder.is_quiet(ms(50))).then(|| responder.message())
    });
    responder.publish(asked.reply.as_deref().unwrap_or_default(), "", "", "!");
    assert_eq!(client.message().payload, "!", "the answer finds its way at once");
}

#[test]
fn a_queue_group_has_members_at_all_nodes_and_prefers_those_near() {
    let cluster = Cluster::start_with(options());
    let mut near = Nats::connect(cluster.node(1));
    let mut far = Nats::connect(cluster.node(2));
    for member in [&mut near, &mut far] {
        member.send("SUB job q 1\r\n");
        member.flush();
    }
    let mut third = Nats::connect(cluster.node(3));
    let mut counts = [0, 0];
    wait_for("messages for members of other nodes", SOON, || {
        third.publish("job", "", "", "x");
        third.flush();
        std::thread::sleep(ms(20));
        for (member, count) in [&mut near, &mut far].into_iter().zip(&mut counts) {
            while !member.is_quiet(ms(1)) {
                member.message();
                *count += 1;
            }
        }
        (counts[0] > 2 && counts[1] > 2).then_some(())
    });
    let mut publisher = Nats::connect(cluster.node(1));
    for _ in 0..20 {
        publisher.publish("job", "", "", "y");
    }
    publisher.flush();
    let own = (0..20).map(|_| near.message()).filter(|message| message.payload == "y").count();
    assert_eq!(own, 20, "the member at the node of the publisher gets them");
    assert!(far.is_quiet(ms(100)));
}

#[test]
fn recorded_messages_reach_all_nodes_and_one_member_of_a_group() {
    let cluster = Cluster::start_with(options().arg("--namespaces").arg("app"));
    let mut all: Vec<Nats> = (1..=3).map(|id| Nats::connect(cluster.node(id))).collect();
    for client in &mut all {
        client.send("SUB app.> 1\r\nSUB app.x q 2\r\n");
        client.flush();
    }
    // The members of a group are known at all nodes a moment later.
    std::thread::sleep(ms(1500));
    let mut publisher = Nats::connect(cluster.node(2));
    for number in 0..60 {
        let stored = publisher.record("app.x", "", &number.to_string());
        assert!(stored["error"].is_null(), "{stored}");
    }
    let (mut plain, mut group) = (Vec::new(), Vec::new());
    for client in &mut all {
        let (mut own, mut grouped) = (0, 0);
        while own < 60 || !client.is_quiet(ms(200)) {
            match &*client.message().sid {
                "1" => own += 1,
                _ => grouped += 1,
            }
        }
        plain.push(own);
        group.push(grouped);
    }
    assert_eq!((plain, group.iter().sum::<usize>()), (vec![60; 3], 60), "{group:?}");
    assert!(group.iter().all(|count| *count == 20), "{group:?}");
}

#[test]
fn a_node_that_dies_takes_its_interest_along_and_comes_back_with_it() {
    let mut cluster = Cluster::start_with(options());
    let mut client = Nats::connect(cluster.node(1));
    client.send("SUB _INBOX.abcdefghijklmnopqrstuv.* 9\r\n");
    let mut far = Nats::connect(cluster.node(3));
    far.send("SUB there 1\r\n");
    far.flush();
    connected(&mut client, &mut far, "there");
    drop(far);
    cluster.kill(3);
    let since = Instant::now();
    wait_for("nobody is there", Duration::from_secs(20), || {
        client.publish("there", "_INBOX.abcdefghijklmnopqrstuv.1", "", "?");
        client.flush_and_take().into_iter().any(|message| message.headers.contains("503")).then_some(())
    });
    eprintln!("the interest of a dead node is gone after {:?}", since.elapsed());
    cluster.up(&[3]);
    let mut far = Nats::connect(cluster.node(3));
    far.send("SUB there 1\r\n");
    far.flush();
    connected(&mut client, &mut far, "there");
}

#[test]
fn clients_are_told_of_the_other_nodes() {
    let cluster = Cluster::start_with(options());
    let urls = wait_for("the addresses of all nodes", SOON, || {
        let info = Nats::connect(cluster.node(1)).info;
        let urls = info["connect_urls"].as_array().cloned().unwrap_or_default();
        (urls.len() == 3).then_some(urls)
    });
    let mut found: Vec<String> = urls.iter().filter_map(|url| url.as_str().map(str::to_owned)).collect();
    let mut wanted: Vec<String> = (1..=3).map(|id| address(cluster.node(id)).to_string()).collect();
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted);
}

#[test]
fn a_client_is_told_when_nodes_come_and_go_and_never_before_its_first_pong() {
    let mut cluster = Cluster::start_with(options());
    let mut client = Nats::connect(cluster.node(1));
    let mut old = Nats::greeted(address(cluster.node(1)));
    old.send("CONNECT {\"verbose\":false,\"protocol\":0}\r\n");
    old.flush();
    let urls = |client: &mut Nats| client.info["connect_urls"].as_array().map_or(0, Vec::len);
    let mut until = |count: usize| {
        wait_for("the addresses of the nodes", SOON * 2, || {
            client.flush();
            (urls(&mut client) == count).then_some(())
        });
    };
    until(3);
    let third = address(cluster.node(3)).to_string();
    // Silent until its first PING, whatever happens.
    let mut silent = Nats::greeted(address(cluster.node(1)));
    silent.send("CONNECT {\"verbose\":false,\"protocol\":1}\r\n");
    assert!(silent.info["connect_urls"].to_string().contains(&third), "{}", silent.info);
    cluster.kill(3);
    until(2);
    assert!(silent.is_quiet(ms(50)) && silent.info["connect_urls"].to_string().contains(&third), "nothing before PONG");
    silent.send("PING\r\n");
    assert_eq!(silent.any_line().as_deref(), Some("PONG"));
    let info = silent.any_line().unwrap_or_default();
    assert!(info.starts_with("INFO ") && !info.contains(&third), "{info}");
    cluster.up(&[3]);
    until(3);
    // A client of the first protocol takes no INFO at any time.
    let known = old.info.clone();
    old.flush();
    assert!(old.is_quiet(ms(50)) && old.info == known);
}
