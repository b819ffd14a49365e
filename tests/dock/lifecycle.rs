//! Commands and what they do to processes.

use std::time::Duration;

use rollbook::doors::hms::wire::op::Op;
use serde_json::{Value, json};

use crate::dock::agent::{Agent, is_alive, wait_for};
use crate::dock::hub::Hub;

#[test]
fn a_service_is_started_shown_and_stopped() {
    let hub = Hub::new();
    let agent = Agent::start(&[&hub], &[]);
    let mut dock = hub.accept();
    dock.run("app", json!({"start": "sleep $TIME", "env": {"TIME": "1000"}, "revision": "r1"}));
    let event = dock.next_event();
    assert_eq!((event.op, event.id.as_str(), event.origin()), (Op::Spawn, "app", agent.id.as_str()));
    let pid: u32 = String::from_utf8_lossy(&event.payload).parse().unwrap();
    let answer = dock.request(Op::Ps, "", "").unwrap();
    assert_eq!(answer[0]["id"], agent.id);
    let element = &answer[0]["list"][0];
    let expected = json!({"id": "app", "status": "running", "pid": pid, "command": ["sleep", "1000"],
        "env": {"SERVICE_NAME": "app", "TIME": "1000"}, "revision": "r1", "restarts": 0, "ready": true});
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&element[key], value, "{key}");
    }
    assert!(element["started"].as_str().unwrap().ends_with('Z'));
    // A process has no memory in the moment in which the kernel replaces its program.
    wait_for("memory is told", || (dock.ps("app")["rss"].as_u64().unwrap() > 0).then_some(()));
    assert!(element["cwd"].as_str().unwrap().ends_with("work/app"));
    dock.request(Op::Start, "app", "").unwrap();
    assert_eq!(dock.ps("app")["pid"], pid, "a start of a running service changes nothing");
    dock.request(Op::Stop, "app", "").unwrap();
    assert!(!is_alive(pid), "stop is answered after the exit");
    assert_eq!(dock.wait(Op::Exit, "app"), "null");
    let element = dock.ps("app");
    assert_eq!((&element["status"], element.get("pid"), element.get("started")), (&json!("stopped"), None, None));
    let service = dock.request(Op::Get, "app", "").unwrap();
    assert_eq!((&service["stopped"], &service["start"]), (&json!(true), &json!("sleep $TIME")));
    dock.request(Op::Remove, "app", "").unwrap();
    assert_eq!(dock.request(Op::Get, "app", "").unwrap(), Value::Null);
    assert_eq!(dock.request(Op::Ps, "", "").unwrap()[0]["list"], json!([]));
    assert!(!agent.path("logs/app").exists() && !agent.path("work/app").exists());
}

#[test]
fn answers_are_those_of_a_stock_dock() {
    let hub = Hub::new();
    let _agent = Agent::start(&[&hub], &[]);
    let mut dock = hub.accept();
    for op in [Op::Start, Op::Stop, Op::Restart, Op::Remove] {
        assert_eq!(dock.request(op, "none", ""), Ok(Value::Null));
    }
    assert_eq!(dock.request(Op::Update, "none", "{}"), Ok(Value::Null));
    assert_eq!(dock.request(Op::Get, "none", ""), Ok(Value::Null));
    let error = |text: &str| Err(text.to_owned());
    assert_eq!(dock.request(Op::Sync, "app", "null"), error("Service must be passed"));
    assert_eq!(dock.request(Op::Sync, "app", ""), error("Service must be passed"));
    assert_eq!(dock.request(Op::Sync, "../app", "{}"), error("Service name should be alphanumericish"));
    assert_eq!(dock.request(Op::Sync, "..", "{}"), error("Service name should be alphanumericish"));
    assert_eq!(dock.request(Op::Add, "app", "{}"), error("Command is not supported"));
    assert_eq!(dock.request(Op::Handshake, "", "{}"), error("Command is not supported"));
    assert_eq!(dock.request(Op::Subscribe, "", ""), error("Service not found"));
    assert!(dock.request(Op::Sync, "app", "{").is_err() && dock.request(Op::Sync, "app", "7").is_err());
    let wrong = dock.request(Op::Sync, "app", r#"{"env":{"A":[]}}"#);
    assert_eq!(wrong, error("`env.A` must be a text"));
    dock.request(Op::Sync, "app", r#"{"start":"a | b","restart":"never"}"#).unwrap();
    let text = "start runs without a shell: | is not supported; use sh -c '...'";
    assert_eq!(dock.request(Op::Start, "app", ""), error(text));
    dock.request(Op::Sync, "gone", r#"{"start":"./not-there","restart":"never"}"#).unwrap();
    assert_eq!(dock.request(Op::Start, "gone", ""), error("./not-there: No such file or directory"));
    assert_eq!(dock.ps("gone")["status"], "stopped");
    assert!(dock.try_next_event(Duration::from_millis(100)).is_none(), "nothing was spawned");
}

#[test]
fn only_services_with_the_tags_of_the_dock_are_started() {
    let hub = Hub::new();
    let agent = Agent::start(&[&hub], &["--tag", "web", "--tag", "big"]);
    let mut dock = hub.accept();
    dock.run("other", json!({"start": "sleep 1000", "tags": ["db"]}));
    dock.request(Op::Restart, "other", "").unwrap();
    assert_eq!(dock.ps("other")["status"], "stopped");
    dock.run("tagged", json!({"start": "sleep 1000", "tags": ["db", "web"]}));
    dock.run("named", json!({"start": "sleep 1000", "tags": [agent.id]}));
    dock.run("default", json!({"start": "sleep 1000"}));
    for service in ["tagged", "named", "default"] {
        assert_eq!(dock.ps(service)["status"], "running", "{service}");
    }
}

#[test]
fn a_restart_runs_the_new_process_before_the_old_one_ends() {
    let hub = Hub::new();
    let _agent = Agent::start(&[&hub], &[]);
    let mut dock = hub.accept();
    dock.run("app", json!({"start": "sleep 1000"}));
    let old = dock.spawned("app");
    dock.request(Op::Update, "app", r#"{"start":"sleep 2000","tags":["nowhere"]}"#).unwrap();
    assert_eq!(dock.ps("app")["command"], json!(["sleep", "1000"]), "a running process shows what it was started with");
    dock.request(Op::Restart, "app", "").unwrap();
    let events: Vec<_> = (0..2).map(|_| dock.next_event()).collect();
    assert_eq!((events[0].op, events[1].op), (Op::Spawn, Op::Exit));
    let element = dock.ps("app");
    assert_eq!(element["command"], json!(["sleep", "2000"]));
    assert_ne!(element["pid"], old);
    assert!(!is_alive(old));
}

#[test]
fn a_service_that_ends_is_restarted_and_given_up_when_it_ends_too_often() {
    let hub = Hub::new();
    let _agent = Agent::start(&[&hub], &[]);
    let mut dock = hub.accept();
    dock.request(Op::Subscribe, "app", "").unwrap();
    let definition = json!({"start": "sh -c 'echo hello; exit 3'", "restart": {"max": 3, "delay": "5ms"}});
    dock.run("app", definition);
    let mut events = Vec::new();
    while events.last().is_none_or(|last: &String| !last.contains("crashed")) {
        let event = dock.next_event();
        let payload = String::from_utf8_lossy(&event.payload).into_owned();
        match event.op {
            Op::Spawn => events.push("spawn".into()),
            Op::Exit => events.push(payload),
            Op::Stdout => events.push(payload.trim().into()),
            _ => {}
        }
    }
    let once = ["spawn", "hello", "3"];
    let mut expected: Vec<&str> = once.into_iter().cycle().take(12).collect();
    expected.push(r#""crashed: 3 restarts within 60 s""#);
    assert_eq!(events, expected);
    let element = dock.ps("app");
    assert_eq!((&element["status"], &element["restarts"]), (&json!("crashed"), &json!(3)));
    dock.request(Op::Update, "app", r#"{"start":"sleep 1000"}"#).unwrap();
    dock.request(Op::Start, "app", "").unwrap();
    assert_eq!(dock.ps("app")["status"], "running");
}

#[test]
fn the_restart_policy_decides_what_follows_an_exit() {
    let hub = Hub::new();
    let _agent = Agent::start(&[&hub], &[]);
    let mut dock = hub.accept();
    dock.run("never", json!({"start": "false", "restart": "never"}));
    dock.run("good", json!({"start": "true", "restart": "on-failure"}));
    dock.run("bad", json!({"start": "sh -c 'kill -9 $$'", "restart": {"policy": "on-failure", "delay": "1h"}}));
    assert_eq!(dock.wait_status("never", "stopped")["restarts"], 0);
    dock.wait_status("good", "stopped");
    dock.wait_status("bad", "sleeping");
    dock.request(Op::Stop, "bad", "").unwrap();
    assert_eq!(dock.ps("bad")["status"], "stopped");
}

#[test]
fn commands_of_one_service_are_done_in_their_order() {
    let hub = Hub::new();
    let _agent = Agent::start(&[&hub], &[]);
    let mut dock = hub.accept();
    let definition = r#"{"start":"sleep 1000"}"#;
    let commands = [(Op::Sync, definition), (Op::Start, ""), (Op::Stop, ""), (Op::Start, ""), (Op::Get, "")];
    let ids: Vec<_> = commands.iter().map(|(op, payload)| (*op, dock.send(*op, "app", payload))).collect();
    let mut last = Value::Null;
    for (op, id) in ids {
        last = dock.answer(op, id).unwrap();
    }
    assert_eq!(last["stopped"], false);
    let ops: Vec<Op> = (0..3).map(|_| dock.next_event().op).collect();
    assert_eq!(ops, [Op::Spawn, Op::Exit, Op::Spawn]);
}

#[test]
fn a_process_has_its_environment_its_limits_and_its_user() {
    let hub = Hub::new();
    let agent = Agent::start(&[&hub], &["--no-cgroups"]);
    let mut dock = hub.accept();
    dock.request(Op::Subscribe, "*", "").unwrap();
    let script = "env; echo nofile=$(ulimit -n) memory=$(ulimit -v) uid=$(id -u) cwd=$(pwd); read x; echo end=$?";
    let root = rustix::process::geteuid().is_root();
    let mut definition = json!({"start": format!("sh -c '{script}'"), "env": {"OWN": "a b"}, "nofile": 64,
        "memory": 1_u64 << 30, "restart": "never"});
    if root {
        definition["user"] = json!("65534:65534");
    }
    dock.run("app", definition);
    let text = dock.read_until("app", "end=");
    let lines: Vec<&str> = text.lines().collect();
    for expected in ["OWN=a b", "SERVICE_NAME=app", "ROLLBOOK_URL=http://public", "end=1"] {
        assert!(lines.contains(&expected), "{expected}\n{text}");
    }
    assert!(lines.contains(&format!("ROLLBOOK_DOCK={}", agent.id).as_str()));
    let marker = format!("ROLLBOOK_PROCESS={}/app/", agent.id);
    assert!(lines.iter().any(|line| line.starts_with(&marker)), "{text}");
    assert!(!text.contains("ROLLBOOK_TOKEN"), "the child has no secret of the agent");
    assert!(text.contains("nofile=64 memory=1048576"), "{text}");
    if root {
        assert!(text.contains("uid=65534"), "{text}");
    }
    dock.request(Op::Sync, "wrong", r#"{"start":"true","user":"no-such-user","restart":"never"}"#).unwrap();
    assert_eq!(dock.request(Op::Start, "wrong", ""), Err("user \"no-such-user\" is unknown".into()));
}

#[test]
fn sigterm_stops_all_services_and_the_agent_exits_with_0() {
    let hub = Hub::new();
    let mut agent = Agent::start(&[&hub], &[]);
    let mut dock = hub.accept();
    dock.run("a", json!({"start": "sleep 1000"}));
    dock.run("b", json!({"start": "sleep 1000"}));
    let pids = [dock.spawned("a"), dock.spawned("b")];
    assert_eq!(agent.terminate().code(), Some(0));
    assert!(pids.iter().all(|pid| !is_alive(*pid)));
    let mut ended: Vec<String> = (0..2).map(|_| dock.next_event()).map(|event| event.id).collect();
    ended.sort();
    assert_eq!(ended, ["a", "b"]);
    agent.start_again();
    let mut dock = hub.accept();
    wait_for("both services run again", || {
        ["a", "b"].iter().all(|service| dock.ps(service)["status"] == "running").then_some(())
    });
}
