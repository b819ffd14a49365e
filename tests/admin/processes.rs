//! Processes on docks over REST and with the command line.

use std::process::{Child, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::doors::hms::builds::archive;
use crate::doors::hms::client::{Hms, address, op, options};
use crate::harness::http::Http;
use crate::harness::node::{Node, rollbook, run_command};
use crate::harness::socket::Socket;
use crate::harness::sse::Sse;
use crate::harness::{SOON, ms, wait_for};

#[test]
fn rest_has_definitions_docks_processes_and_their_output() {
    let node = Node::start(&options());
    let put = node.web("PUT", "/api/definitions/app1", r#"{"start":"x","tags":[],"nonsense":1}"#);
    assert_eq!((put.status, put.json()), (200, json!({"id": "app1", "start": "x", "tags": []})));
    assert_eq!(node.web("PATCH", "/api/definitions/app1", r#"{"limit":1}"#).json()["limit"], json!(1));
    assert_eq!(node.web("PATCH", "/api/definitions/gone", "{}").status, 404);
    assert_eq!(node.web("PUT", "/api/definitions/a_b", "{}").status, 400);
    assert_eq!(node.web("PUT", "/api/definitions/app1", r#"{"env":"A=1"}"#).status, 400);
    assert_eq!(node.web("GET", "/api/definitions", "").json()["items"][0]["id"], json!("app1"));
    assert_eq!(node.web("GET", "/api/definitions/gone", "").json()["code"], json!("definition_not_found"));
    let mut dock = Hms::dock(&node, "d1", &["eu"]);
    let docks = node.web("GET", "/api/docks", "").json();
    assert_eq!((&docks["items"][0]["id"], &docks["items"][0]["tags"]), (&json!("d1"), &json!(["eu"])), "{docks}");
    let mut logs = Sse::open(node.web, "/api/definitions/app1/logs", &[]);
    assert_eq!(node.web("GET", "/api/definitions/gone/logs", "").status, 404);
    dock.tell(op::SPAWN, "app1@d1", b"7");
    dock.tell(op::STDOUT, "app1@d1", b"hello\n");
    let heard: Vec<(Option<String>, Value)> = logs
        .events(2, SOON)
        .into_iter()
        .map(|frame| (frame.kind, serde_json::from_str(frame.data.as_deref().unwrap_or_default()).expect("JSON")))
        .collect();
    assert_eq!(heard[0], (Some("spawn".into()), json!({"definition": "app1", "dock": "d1", "pid": 7})));
    assert_eq!(heard[1], (Some("stdout".into()), json!({"definition": "app1", "dock": "d1", "text": "hello\n"})));
    let web = node.web;
    let asked =
        std::thread::spawn(move || Http::connect(web).request("POST", "/api/definitions/app1/restart", &[], b""));
    assert_eq!([dock.obey(), dock.obey()], ["update app1", "restart app1"]);
    assert_eq!(asked.join().expect("ran").status, 204);
    let asked = std::thread::spawn(move || Http::connect(web).request("GET", "/api/processes", &[], b""));
    let (id, _) = dock.asked();
    dock.answer(id, br#"{"list":[{"id":"app1","status":"running","pid":7,"restarts":2,"cpu":0.5,"rss":4096}]}"#);
    let processes = asked.join().expect("ran").json();
    let process = &processes["items"][0];
    assert_eq!(
        (&process["definition"], &process["dock"], &process["restarts"]),
        (&json!("app1"), &json!("d1"), &json!(2))
    );
    let asked = std::thread::spawn(move || Http::connect(web).request("DELETE", "/api/definitions/app1", &[], b""));
    assert_eq!(dock.obey(), "remove app1");
    assert_eq!(asked.join().expect("ran").status, 204);
}

#[test]
fn an_archive_is_deployed_over_rest_and_its_output_comes_in_lines() {
    let node = Node::start(&options());
    node.web("PUT", "/api/definitions/app1", r#"{"build":"echo making; touch made"}"#);
    let mut http = Http::connect(node.web);
    let body = archive(&[("a", b'0', "", b"a")]);
    let answer = http.request("POST", "/api/definitions/app1/builds?revision=r1", &[], &body);
    assert_eq!(answer.text(), "{\"output\":\"making\\n\"}\n{\"deployed\":\"built\"}\n");
    let bad = http.request("POST", "/api/definitions/app1/builds", &[], &archive(&[("../a", b'0', "", b"a")]));
    assert!(bad.text().starts_with("{\"error\":"), "{}", bad.text());
    assert_eq!(http.request("POST", "/api/definitions/gone/builds", &[], &body).status, 404);
    assert_eq!(node.web("GET", "/api/definitions/app1", "").json()["revision"], json!("r1"));
}

/// The agent of a dock, which ends with its processes.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        std::process::Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status().ok();
        wait_for("the end of the dock", SOON, || self.0.try_wait().ok().flatten());
    }
}

#[test]
fn the_command_line_deploys_shows_follows_and_stops() {
    let node = Node::start(&options());
    let folder = TempDir::new().expect("a folder");
    let app = folder.path().join("app");
    std::fs::create_dir(&app).expect("a folder");
    std::fs::write(app.join("run.sh"), "while true; do echo tick; sleep 0.1; done\n").expect("a file");
    let mut agent = rollbook();
    agent
        .args(["dock", "--hms", &address(&node).to_string(), "--id", "d1", "--default", "--data"])
        .arg(folder.path().join("d"));
    agent.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _agent = Agent(agent.spawn().expect("the agent"));
    wait_for("the dock", SOON, || (node.web("GET", "/api/docks", "").json()["items"][0]["id"] == "d1").then_some(()));
    let run = |args: &[&str]| {
        let mut command = rollbook();
        command.args(args).arg("--web-url").arg(format!("http://{}", node.web)).current_dir(folder.path());
        run_command(command, b"", SOON * 2)
    };
    let deployed = run(&["deploy", "app1", "./app"]);
    assert!(deployed.stderr.contains("there is no definition app1"), "{}", deployed.stderr);
    let deployed =
        run(&["deploy", "app1", "./app", "--start", "sh run.sh", "--build", "echo making", "--revision", "v7"]);
    assert_eq!(deployed.code, Some(0), "{}", deployed.stderr);
    assert!(deployed.stderr.contains("making"), "{}", deployed.stderr);
    let ps = run(&["ps"]).stdout;
    assert!(ps.contains("app1") && ps.contains("running") && ps.contains("v7"), "{ps}");
    let logs = run(&["logs", "app1", "--lines", "2"]).stdout;
    assert!(logs.lines().all(|line| line == "app1 d1 tick" || line.contains("Process ")), "{logs}");
    for (verb, status) in [("stop", "stopped"), ("start", "running"), ("restart", "running")] {
        let told = run(&[verb, "app1"]);
        assert_eq!(told.code, Some(0), "{verb}: {}", told.stderr);
        wait_for(status, SOON, || {
            std::thread::sleep(ms(50));
            run(&["ps", "-o", "json"]).stdout.contains(&format!("\"status\":\"{status}\"")).then_some(())
        });
    }
    assert_eq!(run(&["start", "gone"]).code, Some(1));
}

#[test]
fn a_restart_reaches_the_dock_of_a_service_that_is_not_connected_and_tells_when_it_is_back() {
    let node = Node::start(&options());
    let restart = "/api/services/svc/restart";
    assert_eq!(node.web("POST", restart, "").status, 404, "neither a service nor a definition");
    node.web("PUT", "/api/definitions/svc", r#"{"start":"x"}"#);
    let mut dock = Hms::dock(&node, "d1", &[]);
    let web = node.web;
    let ask = move |body: &'static str| {
        std::thread::spawn(move || Http::connect(web).request("POST", restart, &[], body.as_bytes()))
    };
    let asked = ask(r#"{"wait":"200ms"}"#);
    assert_eq!([dock.obey(), dock.obey()], ["update svc", "restart svc"]);
    let answer = asked.join().expect("ran").json();
    assert_eq!(answer["items"][0]["result"], json!("delivered"), "nobody has come: {answer}");
    let asked = ask(r#"{"wait":"20s"}"#);
    assert_eq!([dock.obey(), dock.obey()], ["update svc", "restart svc"]);
    let service = Socket::connect(node.web);
    let register = json!({
        "type": "register", "name": "svc", "version": "1", "methods": ["ping"], "instance": "blue",
        "metadata": {"process": "d1/svc/0d4e"}
    });
    service.send(&register);
    service.next("registered");
    let answer = asked.join().expect("ran").json();
    let item = &answer["items"][0];
    assert_eq!((&item["result"], &item["instance"]), (&json!("restarted"), &json!("blue")), "{answer}");
    let asked = std::thread::spawn(move || Http::connect(web).request("GET", "/api/processes", &[], b""));
    let (id, _) = dock.asked();
    dock.answer(id, br#"[{"id":"d1","list":[{"id":"svc","status":"running","command":[]}]}]"#);
    let processes = asked.join().expect("ran").json();
    assert_eq!(
        processes["items"][0]["services"],
        json!(["svc/blue"]),
        "the process and the service are one: {processes}"
    );
    assert_eq!(node.web("POST", restart, r#"{"wait":"1h"}"#).status, 400);
}
