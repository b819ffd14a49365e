//! Clients and docks at different nodes.

use serde_json::{Value, json};

use super::client::{Hms, address, op, options};
use crate::harness::cluster::Cluster;
use crate::harness::socket::Socket;
use crate::harness::{SOON, ms, wait_for};

/// Waits until output of a dock at one node comes to a client at another.
fn followed(dock: &mut Hms, client: &mut Hms) {
    client.do_(op::SUBSCRIBE, "*").expect("subscribed");
    wait_for("the interest at the other node", SOON, || {
        dock.tell(op::STDOUT, "probe@x", b"probe");
        (!client.is_quiet(ms(50))).then_some(())
    });
    while !client.is_quiet(ms(200)) {
        client.heard();
    }
}

#[test]
fn commands_reach_the_docks_of_all_nodes_and_output_comes_back_in_order() {
    let cluster = Cluster::start_with(options());
    let mut client = Hms::client(cluster.node(1));
    let mut near = Hms::dock(cluster.node(1), "d1", &[]);
    let mut far = Hms::dock(cluster.node(3), "d3", &[]);
    client.ask(op::ADD, "app1", &json!({"start": "x"})).expect("added");
    let number = client.request(op::START, "app1", b"");
    for name in ["update app1", "start app1"] {
        for dock in [&mut near, &mut far] {
            assert_eq!(dock.obey(), name);
        }
    }
    client.answered(number).expect("started");
    let number = client.request(op::PS, "", b"");
    near.obey();
    let (id, _) = far.asked();
    far.answer(id, br#"{"id":"d3","list":[{"id":"app1","status":"running","command":["x"]}]}"#);
    let all: Value = serde_json::from_slice(&client.answered(number).expect("an answer")).expect("JSON");
    assert_eq!(all[1], json!({"id": "d3", "list": [{"id": "app1", "status": "running", "command": ["x"]}]}), "{all}");
    followed(&mut far, &mut client);
    far.tell(op::SPAWN, "app1@d3", b"9");
    for number in 0..500 {
        far.tell(op::STDOUT, "app1@d3", format!("{number}").as_bytes());
    }
    far.tell(op::EXIT, "app1@d3", b"0");
    let mut heard = Vec::new();
    while heard.last().is_none_or(|(operation, _)| *operation != op::EXIT) {
        let message = client.heard();
        assert_eq!(message.id, "app1@d3");
        heard.push((message.op, message.text()));
    }
    assert_eq!(heard.len(), 502);
    let lines: Vec<&str> = heard[1..501].iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(lines, (0..500).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_dock_id_is_one_in_the_whole_cluster() {
    let cluster = Cluster::start_with(options());
    let mut first = Hms::dock(cluster.node(1), "d1", &[]);
    let second = std::thread::spawn({
        let address = address(cluster.node(2));
        move || Hms::try_dock(address, "d1", &[]).err()
    });
    assert_eq!(first.obey(), "ps ");
    let refused = second.join().expect("ran");
    assert_eq!(refused, Some("a dock with the id d1 is connected already".to_owned()));
}

#[test]
fn a_node_that_is_killed_takes_its_docks_along_and_they_come_back_elsewhere() {
    let mut cluster = Cluster::start_with(options());
    let mut client = Hms::client(cluster.node(1));
    client.ask(op::ADD, "app1", &json!({})).expect("added");
    let mut dock = Hms::dock(cluster.node(3), "d1", &[]);
    let number = client.request(op::START, "app1", b"");
    dock.asked();
    cluster.kill(3);
    let error = client.answered(number).expect_err("the dock was lost");
    assert!(error.contains("cannot be asked") || error.contains("lost"), "{error}");
    let mut dock = Hms::dock(cluster.node(2), "d1", &[]);
    wait_for("the cluster without the node", SOON, || {
        let number = client.request(op::START, "app1", b"");
        for _ in 0..2 {
            if dock.is_quiet(ms(500)) {
                break;
            }
            dock.obey();
        }
        client.answered(number).ok()
    });
}

/// A definition with `"ready":{"bus":true}` lets the dock wait for that.
#[test]
fn a_dock_is_told_that_its_process_has_registered_at_any_node() {
    let cluster = Cluster::start_with(options());
    let mut client = Hms::client(cluster.node(1));
    client.ask(op::ADD, "waits", &json!({"ready": {"bus": true}})).expect("added");
    client.ask(op::ADD, "other", &json!({})).expect("added");
    let mut dock = Hms::dock(cluster.node(3), "d1", &[]);
    let mut services = Vec::new();
    for (name, process) in [("other", "d1/other/1"), ("shop", "d1/waits/0d4e")] {
        let service = Socket::connect(cluster.node(2).web);
        service.send(&json!({
            "type": "register", "name": name, "version": "1", "methods": ["x"], "metadata": {"process": process}
        }));
        service.next("registered");
        services.push(service);
    }
    let (id, told) = dock.asked();
    assert_eq!(
        (told.op, told.id.as_str(), told.text().as_str()),
        (op::UPDATE, "waits", r#"{"registered":"d1/waits/0d4e"}"#)
    );
    dock.answer(id, b"");
    assert!(dock.is_quiet(ms(1500)), "told once, and no dock of a process that does not wait");
}
