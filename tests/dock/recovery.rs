//! Restarts of the agent.

use rollbook::doors::hms::wire::op::Op;
use rustix::process::Signal;
use serde_json::json;

use crate::dock::agent::{Agent, has_variable, is_alive, pids, signal, wait_for};
use crate::dock::hub::Hub;

#[test]
fn an_agent_that_was_killed_takes_over_its_services_again() {
    for arguments in [&[][..], &["--no-cgroups"]] {
        let hub = Hub::new();
        let mut agent = Agent::start(&[&hub], arguments);
        let mut dock = hub.accept();
        let script = "while true; do echo tick; sleep 0.05; done";
        dock.run("app", json!({"start": format!("sh -c '{script}'")}));
        dock.run("short", json!({"start": "sleep 1000", "restart": "never"}));
        let (pid, short) = (dock.spawned("app"), dock.spawned("short"));
        agent.kill();
        assert!(is_alive(pid) && is_alive(short));
        signal(short, Signal::KILL);
        wait_for("the process ends", || (!is_alive(short)).then_some(()));
        agent.start_again();
        let mut dock = hub.accept();
        assert_eq!(dock.wait(Op::Exit, "short"), "null", "an exit that no agent saw is told");
        let element = dock.ps("app");
        assert_eq!((&element["pid"], &element["status"]), (&json!(pid), &json!("running")));
        dock.request(Op::Subscribe, "app", "").unwrap();
        dock.read_until("app", "tick");
        assert_eq!(count(&agent), 2, "app and the new process of short, and no second app");
        dock.request(Op::Stop, "app", "").unwrap();
        assert!(!is_alive(pid));
        assert_eq!(dock.wait(Op::Exit, "app"), "null");
    }
}

/// How many first processes of services of this agent run.
fn count(agent: &Agent) -> usize {
    let state = std::fs::read_to_string(agent.path("dock.json")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    let rows = state["services"].as_object().unwrap().values();
    let known: Vec<u64> = rows.filter_map(|row| row["process"]["pid"].as_u64()).collect();
    let dock = format!("ROLLBOOK_DOCK={}", agent.id);
    let leaders = pids().into_iter().filter(|pid| has_variable(*pid, &dock) && is_alive(*pid)).filter(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.split_whitespace().nth(3) == Some(&pid.to_string()))
    });
    let leaders: Vec<u32> = leaders.collect();
    assert!(leaders.iter().all(|pid| known.contains(&u64::from(*pid))), "{leaders:?} {known:?}");
    leaders.len()
}

#[test]
fn a_process_that_the_state_file_names_without_a_number_is_found_by_its_variable() {
    let hub = Hub::new();
    let mut agent = Agent::start(&[&hub], &[]);
    let mut dock = hub.accept();
    dock.run("app", json!({"start": "sleep 1000"}));
    let pid = dock.spawned("app");
    agent.kill();
    let path = agent.path("dock.json");
    let mut state: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let process = &mut state["services"]["app"]["process"];
    (process["pid"], process["start_time"]) = (json!(0), json!(0));
    std::fs::write(&path, state.to_string()).unwrap();
    agent.start_again();
    let mut dock = hub.accept();
    assert_eq!(dock.ps("app")["pid"], pid);
    assert_eq!(dock.spawned("app"), pid, "the spawn that was never told is told");
}

#[test]
fn a_stopped_service_stays_stopped_and_a_removed_one_removed() {
    let hub = Hub::new();
    let mut agent = Agent::start(&[&hub], &[]);
    let mut dock = hub.accept();
    dock.run("stopped", json!({"start": "sleep 1000"}));
    dock.run("removed", json!({"start": "sleep 1000"}));
    dock.request(Op::Stop, "stopped", "").unwrap();
    dock.request(Op::Remove, "removed", "").unwrap();
    agent.kill();
    agent.start_again();
    let mut dock = hub.accept();
    let answer = dock.request(Op::Ps, "", "").unwrap();
    assert_eq!(answer[0]["list"].as_array().unwrap().len(), 1);
    assert_eq!(answer[0]["list"][0]["status"], "stopped");
}

#[test]
fn an_agent_that_keeps_leaves_its_services_running_and_takes_them_over() {
    let hub = Hub::new();
    let mut agent = Agent::start(&[&hub], &["--keep"]);
    let mut dock = hub.accept();
    dock.run("app", json!({"start": "sleep 1000"}));
    let pid = dock.spawned("app");
    assert_eq!(agent.terminate().code(), Some(0));
    assert!(is_alive(pid));
    agent.start_again();
    let mut dock = hub.accept();
    assert_eq!(dock.ps("app")["pid"], pid);
}

#[test]
fn a_process_that_the_state_file_cannot_name_is_not_started() {
    let hub = Hub::new();
    let agent = Agent::start(&[&hub], &[]);
    let mut dock = hub.accept();
    dock.run("old", json!({"start": "sleep 1000"}));
    let old = dock.spawned("old");
    dock.request(Op::Sync, "new", r#"{"start":"sleep 1000"}"#).unwrap();
    // The agent writes this file before it gives the file the name of the state file.
    let obstacle = agent.path("dock.json.new");
    std::fs::create_dir(&obstacle).unwrap();
    let refused = dock.request(Op::Start, "new", "").unwrap_err();
    assert!(refused.starts_with("could not save the state of new: "), "{refused}");
    assert_eq!(dock.ps("new")["status"], "sleeping", "another attempt follows");
    let refused = dock.request(Op::Restart, "old", "").unwrap_err();
    assert!(refused.starts_with("could not save the state of old: "), "{refused}");
    assert_eq!((&dock.ps("old")["pid"], is_alive(old)), (&json!(old), true), "the old process stays");
    std::fs::remove_dir(&obstacle).unwrap();
    dock.request(Op::Start, "new", "").unwrap();
    dock.request(Op::Restart, "old", "").unwrap();
    dock.wait_status("new", "running");
    assert_ne!(dock.ps("old")["pid"], old);
    wait_for("the old process ends", || (!is_alive(old)).then_some(()));
    assert_eq!(count(&agent), 2);
}

#[test]
fn a_process_of_a_definition_that_is_not_understood_is_taken_over() {
    let hub = Hub::new();
    let mut agent = Agent::start(&[&hub], &[]);
    let mut dock = hub.accept();
    dock.run("app", json!({"start": "sleep 1000"}));
    let pid = dock.spawned("app");
    agent.kill();
    let path = agent.path("dock.json");
    let mut state: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    state["services"]["app"]["service"]["restart"] = json!("in a way of a later version");
    std::fs::write(&path, state.to_string()).unwrap();
    agent.start_again();
    let mut dock = hub.accept();
    assert_eq!(dock.ps("app")["pid"], pid);
    dock.request(Op::Sync, "app", r#"{"start":"sleep 2000"}"#).unwrap();
    dock.request(Op::Restart, "app", "").unwrap();
    assert_eq!(dock.ps("app")["command"], json!(["sleep", "2000"]));
    wait_for("the old process ends", || (!is_alive(pid)).then_some(()));
}

#[test]
fn two_agents_do_not_share_a_data_directory() {
    let hub = Hub::new();
    let agent = Agent::start(&[&hub], &[]);
    let mut dock = hub.accept();
    dock.ps("none");
    let status = agent.command().status().unwrap();
    assert_eq!(status.code(), Some(1));
    let log = std::fs::read_to_string(agent.path("agent.log")).unwrap();
    assert!(log.contains("another dock uses the directory"), "{log}");
}
