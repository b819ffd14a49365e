//! Builds.

use std::fs;

use rollbook::doors::hms::wire::op::Op;
use serde_json::json;

use crate::dock::agent::{Agent, wait_for};
use crate::dock::hub::Hub;
use crate::doors::hms::builds::archive;

/// An archive with one file.
fn archive_of(name: &str, content: &str) -> Vec<u8> {
    archive(&[(name, b'0', "", content.as_bytes())])
}

fn builds(agent: &Agent) -> Vec<String> {
    let entries = fs::read_dir(agent.path("builds")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_build_is_fetched_once_and_replaced_by_the_next_one() {
    let hub = Hub::new();
    let agent = Agent::start(&[&hub], &[]);
    let mut dock = hub.accept();
    dock.request(Op::Subscribe, "*", "").unwrap();
    let definition = |time: &str| json!({"start": "sh run.sh", "deployed": time, "revision": time}).to_string();
    let (first, second) = ("2024-01-01T10:00:00.000Z", "2024-01-02T10:00:00.000Z");
    hub.store("app", archive_of("run.sh", "echo one in $(pwd); exec sleep 1000\n"));
    dock.request(Op::Sync, "app", &definition(first)).unwrap();
    dock.request(Op::Sync, "app", &definition(first)).unwrap();
    assert_eq!(hub.downloads("app"), 1);
    dock.request(Op::Start, "app", "").unwrap();
    let text = dock.read_until("app", "one");
    assert!(text.contains("/builds/app@2024-01-01T10-00-00.000Z"), "{text}");
    let element = dock.ps("app");
    assert_eq!((&element["deployed"], &element["revision"]), (&json!(first), &json!(first)));

    hub.store("app", archive_of("run.sh", "echo two; exec sleep 1000\n"));
    dock.request(Op::Sync, "app", &definition(second)).unwrap();
    assert_eq!(builds(&agent).len(), 2, "the running one and the newest");
    dock.request(Op::Restart, "app", "").unwrap();
    dock.read_until("app", "two");
    dock.wait(Op::Exit, "app");
    wait_for("the old build goes", || (builds(&agent) == ["app@2024-01-02T10-00-00.000Z"]).then_some(()));
    let service = dock.request(Op::Get, "app", "").unwrap();
    assert!(service["cwd"].as_str().unwrap().ends_with("/builds/app@2024-01-02T10-00-00.000Z"));
    dock.request(Op::Remove, "app", "").unwrap();
    assert_eq!(builds(&agent), Vec::<String>::new());
}

#[test]
fn a_build_that_cannot_be_fetched_leaves_nothing_and_the_old_definition() {
    let hub = Hub::new();
    let agent = Agent::start(&[&hub], &[]);
    let mut dock = hub.accept();
    let definition = r#"{"start":"sh run.sh","deployed":"2024-01-01T10:00:00.000Z"}"#;
    assert_eq!(dock.request(Op::Sync, "app", definition), Err("Could not fetch build".into()));
    let whole = archive_of("run.sh", &"x".repeat(10_000));
    for (name, broken) in [
        ("outside", archive_of("../../escaped", "x")),
        ("absolute", archive_of("/tmp/rollbook-escaped", "x")),
        ("truncated", whole[..whole.len() / 2].to_vec()),
        ("nonsense", b"this is no archive".to_vec()),
    ] {
        hub.store("app", broken);
        let error = dock.request(Op::Sync, "app", definition).unwrap_err();
        assert!(error.starts_with("Could not fetch build: "), "{name}: {error}");
    }
    assert_eq!(builds(&agent), Vec::<String>::new());
    assert!(!agent.path("escaped").exists() && !std::path::Path::new("/tmp/rollbook-escaped").exists());
    assert_eq!(dock.request(Op::Get, "app", ""), Ok(serde_json::Value::Null));
    let wrong = dock.request(Op::Sync, "app", r#"{"deployed":"../../x"}"#).unwrap_err();
    assert!(wrong.contains("is not a time"), "{wrong}");
}
