//! Process trees: whatever a service starts ends with the service.

use std::time::{Duration, Instant};

use rollbook::doors::hms::wire::op::Op;
use serde_json::json;

use crate::dock::agent::{Agent, has_variable, is_alive, pid_in, pids, wait_for};
use crate::dock::hub::Hub;

/// With cgroups, where the machine has them for us, and without.
const WAYS: [&[&str]; 2] = [&[], &["--no-cgroups"]];

fn of_dock(agent: &Agent) -> String {
    format!("ROLLBOOK_DOCK={}", agent.id)
}

/// The processes that have the environment of the dock.
fn members(agent: &Agent) -> Vec<u32> {
    let variable = of_dock(agent);
    pids().into_iter().filter(|pid| has_variable(*pid, &variable) && is_alive(*pid)).collect()
}

#[test]
fn a_service_that_ignores_sigterm_is_killed_after_its_stop_timeout() {
    for arguments in WAYS {
        let hub = Hub::new();
        let agent = Agent::start(&[&hub], arguments);
        let mut dock = hub.accept();
        let script = r#"trap "" TERM; sleep 1000 & echo $! > child; while true; do sleep 0.05; done"#;
        dock.run("app", json!({"start": format!("sh -c '{script}'"), "stop_timeout": "300ms"}));
        let pid = dock.spawned("app");
        let child = pid_in(&agent.path("work/app/child"));
        let since = Instant::now();
        dock.request(Op::Stop, "app", "").unwrap();
        assert!(since.elapsed() >= Duration::from_millis(300), "{:?}", since.elapsed());
        assert!(!is_alive(pid) && !is_alive(child));
        assert_eq!(dock.wait(Op::Exit, "app"), "null");
    }
}

#[test]
fn a_process_that_begins_while_its_service_ends_is_told_to_end_too() {
    for arguments in WAYS {
        let hub = Hub::new();
        let agent = Agent::start(&[&hub], arguments);
        let mut dock = hub.accept();
        let script = r#"trap "sleep 1000 & exit 0" TERM; touch ready; while true; do sleep 0.01; done"#;
        dock.run("app", json!({"start": format!("sh -c '{script}'"), "stop_timeout": "1h"}));
        wait_for("the trap is set", || agent.path("work/app/ready").exists().then_some(()));
        dock.request(Op::Stop, "app", "").unwrap();
        assert_eq!(members(&agent), [0; 0]);
    }
}

#[test]
fn a_service_that_forks_all_the_time_ends_as_a_whole() {
    for arguments in WAYS {
        let hub = Hub::new();
        let agent = Agent::start(&[&hub], arguments);
        let mut dock = hub.accept();
        let script = r#"trap "" TERM; n=0; while [ $n -lt 2000 ]; do setsid sleep 5 & n=$((n+1)); sleep 0.003; done"#;
        dock.run("app", json!({"start": format!("sh -c '{script}'"), "stop_timeout": "100ms", "restart": "never"}));
        wait_for("some processes run", || (members(&agent).len() > 10).then_some(()));
        dock.request(Op::Stop, "app", "").unwrap();
        assert_eq!(members(&agent), [0; 0]);
    }
}

#[test]
fn a_process_that_daemonises_ends_with_its_service() {
    for arguments in WAYS {
        let hub = Hub::new();
        let agent = Agent::start(&[&hub], arguments);
        let mut dock = hub.accept();
        // The daemon has a session of its own, and its parents have ended.
        let script = r#"setsid sh -c "setsid sleep 1000 & echo \$! > daemon" & wait; sleep 1000"#;
        dock.run("app", json!({"start": format!("sh -c '{script}'")}));
        let daemon = pid_in(&agent.path("work/app/daemon"));
        assert!(is_alive(daemon));
        dock.request(Op::Stop, "app", "").unwrap();
        assert!(!is_alive(daemon));
    }
}

#[test]
fn a_process_that_hides_from_its_service_ends_with_the_dock() {
    for arguments in WAYS {
        let hub = Hub::new();
        let mut agent = Agent::start(&[&hub], arguments);
        let mut dock = hub.accept();
        // The daemon has a session and an environment of its own, and its parents have ended.
        let script = r#"(env -i setsid sleep 1000 & echo $! > daemon); sleep 1000"#;
        dock.run("app", json!({"start": format!("sh -c '{script}'")}));
        let daemon = pid_in(&agent.path("work/app/daemon"));
        wait_for("the daemon has no environment", || (!has_variable(daemon, &of_dock(&agent))).then_some(()));
        assert!(is_alive(daemon));
        assert_eq!(agent.terminate().code(), Some(0));
        assert!(!is_alive(daemon));
    }
}

#[test]
fn a_service_whose_first_process_ends_leaves_nothing_behind() {
    for arguments in WAYS {
        let hub = Hub::new();
        let agent = Agent::start(&[&hub], arguments);
        let mut dock = hub.accept();
        let script = r#"setsid sleep 1000 & echo $! > daemon; exit 7"#;
        dock.run("app", json!({"start": format!("sh -c '{script}'"), "restart": "never"}));
        assert_eq!(dock.wait(Op::Exit, "app"), "7");
        let daemon = pid_in(&agent.path("work/app/daemon"));
        wait_for("the daemon ends", || (!is_alive(daemon)).then_some(()));
        dock.wait_status("app", "stopped");
    }
}

#[test]
fn orphans_that_end_do_not_stay_as_zombies() {
    let hub = Hub::new();
    let agent = Agent::start(&[&hub], &[]);
    let mut dock = hub.accept();
    let script = "for i in 1 2 3 4 5; do (setsid sleep 0.05 &); done; touch done; sleep 1000";
    dock.run("app", json!({"start": format!("sh -c '{script}'")}));
    wait_for("the script is through", || agent.path("work/app/done").exists().then_some(()));
    let children = format!("/proc/{0}/task/{0}/children", agent.pid());
    wait_for("one child is left", || {
        let children = std::fs::read_to_string(&children).unwrap_or_default();
        (children.split_whitespace().count() == 1).then_some(())
    });
    assert_eq!(dock.ps("app")["status"], "running");
}
