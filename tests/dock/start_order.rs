//! Services that start after others.

use rollbook::doors::hms::wire::op::Op;
use serde_json::json;

use crate::dock::agent::{Agent, wait_for};
use crate::dock::hub::Hub;

#[test]
fn a_service_starts_when_those_before_it_are_ready() {
    let hub = Hub::new();
    let mut agent = Agent::start(&[&hub], &[]);
    let mut dock = hub.accept();
    let script = "while [ ! -e go ]; do sleep 0.02; done; echo now listening; sleep 1000";
    dock.run("db", json!({"start": format!("sh -c '{script}'"), "ready": {"line": "listening"}}));
    dock.run("app", json!({"start": "sleep 1000", "after": ["db", "on-another-dock"]}));
    assert_eq!((dock.ps("db")["ready"].clone(), dock.ps("app")["status"].clone()), (json!(false), json!("sleeping")));
    std::fs::write(agent.path("work/db/go"), "").unwrap();
    dock.spawned("db");
    dock.spawned("app");
    assert_eq!(dock.ps("db")["ready"], true);
    assert_eq!(dock.ps("app")["status"], "running");
    // The order is that of the definitions after a restart of the agent too.
    std::fs::remove_file(agent.path("work/db/go")).unwrap();
    agent.terminate();
    agent.start_again();
    let mut dock = hub.accept();
    dock.wait_status("app", "sleeping");
    std::fs::write(agent.path("work/db/go"), "").unwrap();
    dock.wait_status("app", "running");
}

#[test]
fn readiness_is_a_port_or_a_registration_or_a_time() {
    let hub = Hub::new();
    let agent = Agent::start(&[&hub], &[]);
    let mut dock = hub.accept();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    dock.run("tcp", json!({"start": "sleep 1000", "ready": {"tcp": port}}));
    dock.run("bus", json!({"start": "sh -c 'echo $ROLLBOOK_PROCESS > name; sleep 1000'", "ready": {"bus": true}}));
    dock.run("late", json!({"start": "sleep 1000", "ready": {"tcp": port, "timeout": "50ms"}}));
    wait_for("the time is over", || (dock.ps("late")["ready"] == true).then_some(()));
    assert_eq!((dock.ps("tcp")["ready"].clone(), dock.ps("bus")["ready"].clone()), (json!(false), json!(false)));
    let name = wait_for("the process has a name", || {
        std::fs::read_to_string(agent.path("work/bus/name")).ok().filter(|name| name.ends_with('\n'))
    });
    dock.request(Op::Update, "bus", r#"{"registered":"another"}"#).unwrap();
    assert_eq!(dock.ps("bus")["ready"], false);
    dock.request(Op::Update, "bus", &json!({"registered": name.trim()}).to_string()).unwrap();
    assert_eq!(dock.ps("bus")["ready"], true);
    assert!(dock.request(Op::Get, "bus", "").unwrap().get("registered").is_none());
    let _listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    wait_for("the port is open", || (dock.ps("tcp")["ready"] == true).then_some(()));
}
