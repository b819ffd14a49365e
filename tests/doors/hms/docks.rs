//! What docks are asked to do, and what becomes of docks that are lost.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::{Hms, address, op, options};
use crate::harness::node::Node;
use crate::harness::{SOON, ms};

#[test]
fn a_start_is_an_update_and_a_start_on_every_dock() {
    let node = Node::start(&options());
    let mut client = Hms::client(&node);
    let mut docks = [Hms::dock(&node, "d1", &[]), Hms::dock(&node, "d2", &["web"])];
    client.ask(op::ADD, "app1", &json!({"start": "node .", "tags": ["web"], "revision": "r"})).expect("added");
    for (operation, name, stopped) in
        [(op::START, "start", false), (op::STOP, "stop", true), (op::RESTART, "restart", false)]
    {
        let number = client.request(operation, "app1", b"");
        for dock in &mut docks {
            let (id, update) = dock.asked();
            let sent: Value = serde_json::from_slice(&update.payload).expect("JSON");
            assert_eq!(
                (update.op, update.id.as_str(), sent),
                (op::UPDATE, "app1", json!({"start": "node .", "tags": ["web"]}))
            );
            dock.answer(id, b"");
            assert!(client.is_quiet(ms(20)), "answered before the docks did {name}");
        }
        for dock in &mut docks {
            assert_eq!(dock.obey(), format!("{name} app1"));
        }
        assert_eq!(client.answered(number), Ok(Vec::new()), "{name}");
        let definition = client.do_(op::GET, "app1").expect("a definition");
        assert_eq!(definition["stopped"], json!(stopped), "{name}");
    }
}

#[test]
fn the_first_error_of_a_dock_is_the_answer() {
    let node = Node::start(&options());
    let mut client = Hms::client(&node);
    let mut docks = [Hms::dock(&node, "d1", &[]), Hms::dock(&node, "d2", &[])];
    client.ask(op::ADD, "app1", &json!({})).expect("added");
    let number = client.request(op::START, "app1", b"");
    docks[0].obey();
    let (id, _) = docks[1].asked();
    docks[1].fail(id, "no room");
    assert_eq!(client.answered(number), Err("no room".to_owned()));
}

#[test]
fn a_dock_that_is_lost_meanwhile_is_an_error_and_no_wait() {
    let node = Node::start(&options());
    let mut client = Hms::client(&node);
    let mut dock = Hms::dock(&node, "d1", &[]);
    client.ask(op::ADD, "app1", &json!({})).expect("added");
    for operation in [op::START, op::RESTART, op::REMOVE] {
        let number = client.request(operation, "app1", b"");
        dock.asked();
        let begun = Instant::now();
        drop(dock);
        let answer = client.answered(number);
        assert_eq!(answer, Err("dock d1 was lost before it answered".to_owned()));
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        dock = Hms::dock(&node, "d1", &[]);
    }
}

#[test]
fn ps_has_what_every_dock_tells_and_survives_one_that_tells_nothing_good() {
    let node = Node::start(&options());
    let mut client = Hms::client(&node);
    let mut docks = [Hms::dock(&node, "d1", &[]), Hms::dock(&node, "d2", &[]), Hms::dock(&node, "d3", &[])];
    let number = client.request(op::PS, "", b"");
    let process = json!({"id": "app1", "status": "running", "pid": 7, "command": ["node", "."], "cwd": "/", "env": {}});
    let (id, _) = docks[0].asked();
    docks[0].answer(id, json!({"id": "d1", "list": [process]}).to_string().as_bytes());
    let (id, _) = docks[1].asked();
    docks[1].answer(id, b"null");
    let (id, _) = docks[2].asked();
    docks[2].fail(id, "busy");
    let all: Value = serde_json::from_slice(&client.answered(number).expect("an answer")).expect("JSON");
    assert_eq!(all[0], json!({"id": "d1", "list": [process]}));
    for (place, id) in [(1, "d2"), (2, "d3")] {
        assert_eq!((&all[place]["id"], &all[place]["list"]), (&json!(id), &json!([])), "{all}");
        assert!(all[place]["error"].is_string(), "{all}");
    }
}

#[test]
fn a_frozen_dock_does_not_hold_up_ps_for_long() {
    let node = Node::start(&options());
    let mut client = Hms::client(&node);
    let mut frozen = Hms::dock(&node, "d1", &[]);
    let mut dock = Hms::dock(&node, "d2", &[]);
    let (begun, number) = (Instant::now(), client.request(op::PS, "", b""));
    frozen.asked();
    dock.obey();
    let all: Value = serde_json::from_slice(&client.answered(number).expect("an answer")).expect("JSON");
    assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
    assert!(all[0]["error"].as_str().is_some_and(|text| text.contains("did not answer")), "{all}");
    assert_eq!(all[1], json!({"list": [], "id": "d2"}));
}

#[test]
fn a_sync_brings_a_build_to_the_docks_that_fit_and_ends_the_rest() {
    let node = Node::start(&options());
    let mut client = Hms::client(&node);
    let mut web = Hms::dock(&node, "d1", &["web"]);
    let mut other = Hms::dock(&node, "d2", &[]);
    client.ask(op::ADD, "app1", &json!({"start": "x", "tags": ["web"]})).expect("added");
    assert_eq!(client.do_(op::SYNC, "app1"), Ok(Value::Null), "nothing was deployed");
    assert!(web.is_quiet(ms(50)));
    super::builds::deploy(&node, "app1", "r1").expect("deployed");
    let number = client.request(op::SYNC, "app1", b"null");
    let (id, sync) = web.asked();
    let sent: Value = serde_json::from_slice(&sync.payload).expect("JSON");
    assert_eq!(
        (sync.op, &sent["id"], &sent["revision"], &sent["docks"]),
        (op::SYNC, &json!("app1"), &json!("r1"), &json!(["d1"]))
    );
    assert!(sent["deployed"].as_str().is_some_and(|at| at.contains('T')), "{sent}");
    web.answer(id, b"");
    assert_eq!(web.obey(), "start app1");
    assert_eq!(other.obey(), "remove app1");
    assert_eq!(client.answered(number), Ok(Vec::new()));
    let stored = client.do_(op::GET, "app1").expect("a definition");
    assert_eq!(stored["docks"], json!(["d1"]));
}

#[test]
fn a_limit_is_kept_and_a_process_stays_where_it_is() {
    let node = Node::start(&options());
    let mut client = Hms::client(&node);
    let mut docks: Vec<Hms> = (0..4).map(|number| Hms::dock(&node, &format!("d{number}"), &[])).collect();
    client.ask(op::ADD, "app1", &json!({"start": "x", "limit": 2})).expect("added");
    super::builds::deploy(&node, "app1", "r1").expect("deployed");
    let mut chosen = Vec::new();
    for _ in 0..3 {
        let number = client.request(op::SYNC, "app1", b"");
        let mut asked: Vec<Vec<String>> = vec![Vec::new(); docks.len()];
        while client.is_quiet(ms(5)) {
            for (dock, asked) in docks.iter_mut().zip(&mut asked) {
                if !dock.is_quiet(ms(5)) {
                    asked.push(dock.obey());
                }
            }
        }
        client.answered(number).expect("synced");
        let told = |what: &[&str]| (0..4).filter(|place| asked[*place] == what).collect::<Vec<usize>>();
        let synced = told(&["sync app1", "start app1"]);
        assert_eq!(told(&["remove app1"]).len(), 2, "{asked:?}");
        assert_eq!(synced.len(), 2, "{synced:?}");
        assert!(chosen.is_empty() || chosen == synced, "{chosen:?} became {synced:?}");
        chosen = synced;
    }
}

#[test]
fn two_docks_with_one_id_do_not_go_and_one_that_is_dead_makes_room() {
    let node = Node::start(&options());
    let mut first = Hms::dock(&node, "d1", &[]);
    let second = std::thread::spawn({
        let address = address(&node);
        move || Hms::try_dock(address, "d1", &[]).err()
    });
    assert_eq!(first.obey(), "ps ", "the one that is there is asked whether it lives");
    let refused = second.join().expect("ran");
    assert_eq!(refused, Some("a dock with the id d1 is connected already".to_owned()));
    // This one does not answer: it loses its place.
    let begun = Instant::now();
    let _second = Hms::dock(&node, "d1", &[]);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    first.asked();
    assert!(first.is_closed());
}

#[test]
fn what_happens_to_processes_is_in_the_book() {
    let node = Node::start(&options());
    let mut dock = Hms::dock(&node, "d1", &[]);
    dock.tell(op::SPAWN, "app1@lies", b"4711");
    dock.tell(op::SPAWN, "no id@x", b"1");
    dock.tell(op::EXIT, "app1@d1", b"3");
    dock.tell(op::SPAWN, "app1@d1", b"");
    dock.tell(op::EXIT, "app1@d1", b"null");
    dock.tell(op::EXIT, "app1@d1", b"\"crashed: 10 restarts within 60 s\"");
    let stream = node.replay("roll.process.>").events(5, SOON);
    let events: Vec<Value> = stream
        .iter()
        .map(|frame| serde_json::from_str(frame.data.as_deref().unwrap_or_default()).expect("JSON"))
        .collect();
    let told: Vec<(String, Value)> = events
        .iter()
        .map(|event| {
            let payload = &event["payload"];
            assert_eq!((&payload["definition"], &payload["dock"]), (&json!("app1"), &json!("d1")), "{event}");
            let what = [&payload["pid"], &payload["code"], &payload["text"]].into_iter().find(|part| !part.is_null());
            (event["subject"].as_str().unwrap_or_default().to_owned(), what.cloned().unwrap_or_default())
        })
        .collect();
    assert_eq!(
        told,
        [
            ("roll.process.spawn".to_owned(), json!(4711)),
            ("roll.process.exit".to_owned(), json!(3)),
            ("roll.process.spawn".to_owned(), Value::Null),
            ("roll.process.exit".to_owned(), Value::Null),
            ("roll.process.crashed".to_owned(), json!("crashed: 10 restarts within 60 s")),
        ]
    );
}
