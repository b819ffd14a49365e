//! The command line as a user types it: happy paths, error texts, exit codes.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::node::{Exit, Node, Options, rollbook, run_command};
use crate::harness::{SOON, ms};

/// A command that talks to that node.
fn command(node: &Node, args: &[&str]) -> Command {
    let mut command = rollbook();
    command.args(args);
    command.args(["--log-url", &format!("http://{}", node.log)]);
    command.args(["--web-url", &format!("http://{}", node.web)]);
    command
}

fn run(node: &Node, args: &[&str], input: &str) -> Exit {
    run_command(command(node, args), input.as_bytes(), SOON * 2)
}

/// A program without a node, in a directory of its own.
fn alone(args: &[&str], env: &[(&str, &str)]) -> Exit {
    let here = tempfile::tempdir().expect("temporary directory");
    let mut command = rollbook();
    command.args(args).envs(env.iter().copied()).current_dir(here.path());
    run_command(command, b"", SOON)
}

/// Standard output of a command that must succeed.
fn done(exit: Exit) -> String {
    assert_eq!(exit.code, Some(0), "{exit:#?}");
    exit.stdout
}

/// A failure tells what is wrong in one line that begins with `error: `.
fn failed(exit: &Exit, code: i32, part: &str) {
    assert_eq!(exit.code, Some(code), "{exit:#?}");
    assert!(exit.stderr.contains(part), "{part:?} is not told: {exit:#?}");
    assert!(exit.stderr.contains("error: "), "{exit:#?}");
    assert!(!exit.stderr.contains("panicked"), "{exit:#?}");
}

#[test]
fn publish_prints_id_and_index() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    let text = done(run(&node, &["publish", &subject, "{\"n\": 1.50}"], ""));
    let (id, index) = text.trim().split_once(' ').expect("id and index");
    assert!(id.starts_with("e_") && index == "1", "{text:?}");
    let json = done(run(&node, &["publish", &subject, "2", "-o", "json", "--trace-id", "t", "--key", "k"], ""));
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["index"], 2);
    done(run(&node, &["publish", &subject, "-"], "[3]\n"));
    done(run(&node, &["publish", &subject], ""));
    done(run(&node, &["publish", &subject, "5", "--id", "mine"], ""));
    let events = node.replay(&subject).events(5, SOON);
    assert!(events[0].text().contains("\"payload\":{\"n\": 1.50}"), "{}", events[0].text());
    let second = events[1].json();
    assert_eq!((&second["trace_id"], &second["key"], &second["id"]), (&json!("t"), &json!("k"), &json["id"]));
    assert_eq!(events[2].payload(), json!([3]));
    assert_eq!(events[3].json().get("payload"), None);
    assert_eq!(events[4].event_id(), "mine");
    let again = run(&node, &["publish", &subject, "9", "--key", "k"], "");
    assert!(again.stderr.contains("stored before, nothing was added: key was processed before"), "{again:#?}");
    assert_eq!(done(again), format!("{} 2\n", json["id"].as_str().expect("an id")));
    let again = done(run(&node, &["publish", &subject, "9", "--key", "k", "-o", "json"], ""));
    let again: Value = serde_json::from_str(&again).expect("JSON");
    let mut first = json;
    first["duplicate"] = true.into();
    assert_eq!(again, first);
    let again = done(run(&node, &["publish", &subject, "5", "--id", "mine"], ""));
    assert_eq!(again, "mine 5\n");
}

#[test]
fn publish_takes_what_is_piped_in() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    done(run(&node, &["publish", &subject], "{\"piped\":1}\n"));
    done(run(&node, &["publish", &subject], "\n"));
    failed(&run(&node, &["publish", &subject], "not json"), 2, "the payload on standard input is not JSON");
    done(run(&node, &["publish", &subject, "2"], "\"not this\""));
    // As cron and services have it.
    let mut without = command(&node, &["publish", &subject]);
    let status = without.stdin(Stdio::null()).stdout(Stdio::null()).status().expect("run the program");
    assert!(status.success());
    let events = node.replay(&subject).events(4, SOON);
    let payloads: Vec<Option<Value>> = events.iter().map(|event| event.json().get("payload").cloned()).collect();
    assert_eq!(payloads, [Some(json!({"piped": 1})), None, Some(json!(2)), None]);
}

#[test]
fn bench_measures_the_node_that_every_command_talks_to() {
    let node = Node::start(&Options::new());
    let args = ["bench", "publish", "--connections", "1", "--n", "5", "--runs", "1"];
    let report: Value =
        serde_json::from_str(&done(run(&node, &[&args[..], &["-o", "json"]].concat(), ""))).expect("JSON");
    assert_eq!(report["bench"], "publish");
    let mut by_environment = rollbook();
    by_environment.args(args).env("ROLLBOOK_LOG_URL", format!("http://{}", node.log));
    by_environment.env("ROLLBOOK_WEB_URL", format!("http://{}", node.web));
    done(run_command(by_environment, b"", SOON * 2));
    let events = node.web("GET", "/api/namespaces/bench", "").json()["events"].as_u64();
    assert!(events.is_some_and(|events| events >= 10), "{events:?}");
}

#[test]
fn publish_sends_lines_as_a_batch() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    let lines: String = (0..2500).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    let text = done(run(&node, &["publish", &subject, "--batch"], &lines));
    assert!(text.contains("2500"), "{text:?}");
    let events = node.replay(&subject).events(2500, SOON);
    for (event, n) in events.iter().zip(0..) {
        assert_eq!(event.payload()["n"], n);
    }
}

#[test]
fn publish_tells_what_is_wrong() {
    let node = Node::shared();
    failed(&run(&node, &["publish", "a.x", "not json"], ""), 2, "JSON");
    failed(&run(&node, &["publish", "nodots", "1"], ""), 1, "missing namespace");
    failed(&run(&node, &["publish", "nope.x", "1"], ""), 1, "namespace not found: nope");
    failed(&run(&node, &["publish", "a.x", "--file", "/does/not/exist"], ""), 1, "/does/not/exist");
    let nobody = alone(&["publish", "a.x", "1", "--log-url", "http://127.0.0.1:1"], &[]);
    failed(&nobody, 1, "http://127.0.0.1:1");
    assert!(nobody.stderr.contains("rollbook serve"), "says what to do: {nobody:#?}");
}

#[test]
fn subscribe_prints_events_and_stops_after_a_count() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    for payload in ["{\"n\":\n1.0}", "2", "3"] {
        node.publish(&subject, payload);
    }
    let pattern = format!("{ns}.>");
    let text = done(run(&node, &["subscribe", &pattern, "--start", "oldest", "--count", "3"], ""));
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert_eq!(lines[2]["index"], 3);
    let args = ["subscribe", &pattern, "--start", "oldest", "--count", "2", "--payload-only"];
    assert_eq!(done(run(&node, &args, "")), "{\"n\": 1.0}\n2\n");
    let second = lines[1]["id"].as_str().expect("an id").to_owned();
    let args = ["subscribe", &pattern, "--start", &second, "--count", "1", "--payload-only"];
    assert_eq!(done(run(&node, &args, "")), "3\n");
    let unknown = ["subscribe", &pattern, "--start", "e_unknown", "--count", "1"];
    failed(&run(&node, &unknown, ""), 1, "start event id e_unknown not found");
    failed(&run(&node, &["subscribe", "*.x"], ""), 1, "subject should not start with *");
}

#[test]
fn subscribe_with_a_group_and_ack_goes_on_where_it_was() {
    let node = Node::shared();
    let ns = node.namespace();
    for n in 1..=4 {
        node.publish(&format!("{ns}.x"), &n.to_string());
    }
    let pattern = format!("{ns}.>");
    for want in ["1\n2\n", "3\n4\n"] {
        let args = [
            "subscribe",
            &pattern,
            "--group",
            "workers",
            "--ack",
            "--start",
            "oldest",
            "--count",
            "2",
            "--payload-only",
        ];
        assert_eq!(done(run(&node, &args, "")), want);
    }
    let listed = done(run(&node, &["consumers", "list", "--namespace", &ns, "-o", "json"], ""));
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!((&listed[0]["name"], &listed[0]["lag"]), (&json!("workers"), &json!(0)));
    failed(&run(&node, &["consumers", "delete", &ns, "workers"], "workers\n"), 2, "pass --yes");
    assert!(node.consumer(&ns, "workers").is_some(), "it is not forgotten unasked");
    let text = done(run(&node, &["consumers", "delete", &ns, "workers", "--yes"], ""));
    assert_eq!(text, format!("consumer workers of namespace {ns} is forgotten\n"));
    assert_eq!(node.consumer(&ns, "workers"), None);
}

#[test]
fn ack_acknowledges_one_event() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    node.publish(&subject, "1");
    node.publish(&subject, "2");
    let query = [("subject", subject.as_str()), ("start", "oldest"), ("ack", "manual"), ("redelivery", "30s")];
    let mut stream = node.subscribe(&query);
    let first = stream.next_event(SOON).event_id();
    done(run(&node, &["ack", &stream.consumer_id(), &first], ""));
    assert_eq!(stream.next_event(SOON).payload(), 2);
    for consumer in [stream.consumer_id().as_str(), "c_nobody"] {
        failed(&run(&node, &["ack", consumer, &first], ""), 1, "nothing was acknowledged");
    }
    failed(&run(&node, &["ack", "nonsense", &first], ""), 1, "invalid consumer_id");
}

#[test]
fn a_dump_restores_to_the_same_events() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    let full = format!(
        "{{\"subject\":\"{subject}\",\"key\":\"k\",\"trace_id\":\"t\",\"response_subject\":\"{ns}.r\",\"payload\":{{\"a\":\n1e400}}}}"
    );
    node.post(full).published();
    node.post(format!("{{\"subject\":\"{subject}\",\"id\":\"mine\"}}")).published();
    node.post(format!("{{\"subject\":\"{subject}\",\"payload\":null}}")).published();
    let items = vec![format!("{{\"subject\":\"{subject}\",\"payload\":[1.0, 2]}}"); 1500];
    assert_eq!(node.post(format!("[{}]", items.join(","))).status, 202);
    let dump = done(run(&node, &["dump", &ns], ""));
    assert_eq!(dump.lines().count(), 1503);

    let other = Node::start(&Options::new());
    let text = done(run(&other, &["restore"], &dump));
    assert!(text.contains("1503"), "{text:?}");
    let again = done(run(&other, &["dump", &ns], ""));
    assert!(again == dump, "a dump of what was restored is the same dump");
    let text = done(run(&other, &["restore", "-o", "json"], &dump));
    let tally: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(tally, json!({"restored": 0, "present": 1503}), "a second restore changes nothing");
    // Keys were restored too.
    let refused = other.post(format!("{{\"subject\":\"{subject}\",\"key\":\"k\"}}"));
    assert_eq!(refused.repeats("key was processed before").index, 1, "key of a restored event");
}

#[test]
fn whatever_was_stored_comes_out_of_a_dump_and_in_again() {
    // The smallest limit at which the other doors still take what they take by default.
    let node = Node::start(&Options::new().env("ROLLBOOK_SSE__BODY_BYTES_MAX", "4096"));
    let body_of = |length: usize| {
        let empty = r#"{"subject":"big.x","payload":""}"#;
        format!("{}{}\"}}", empty.strip_suffix("\"}").expect("the end"), "x".repeat(length - empty.len()))
    };
    node.post(body_of(4096)).published();
    node.post(body_of(4097)).refusal(413, "request body too large").expect("the limit of a publish is as it was");
    let long = "\u{1}\"ü".repeat(150);
    let odd = json!({ "subject": "big.y", "key": long, "trace_id": long, "id": "A.:_-0".repeat(21), "payload": { "a": "\u{2028}" } });
    node.post(odd.to_string()).published();
    for body in [
        r#"{"subject":"big.z","created_at":"0001-01-01T00:00:00.000000001Z","payload":"\ud83d"}"#,
        r#"{"subject":"big.z","created_at":"9999-12-30T01:02:03.999999999+05:00"}"#,
        r#"{"sub\u006aect":"big.z","payload":{"a":1,"a":2,"__proto__":{}, "n":-0.0e-999}}"#,
        "{\"subject\":\"big.z\",\"payload\":[1,\r\n2,\r3,\n4]}",
        r#"{"subject":"big.z","response_subject":"big.answers","payload":null}"#,
    ] {
        node.post(body).published();
    }
    let dump = done(run(&node, &["dump", "big"], ""));
    done(run(&node, &["namespaces", "delete", "big", "--yes"], ""));
    let count = dump.lines().count();
    assert_eq!(done(run(&node, &["restore"], &dump)), format!("restored {count} events, 0 already there\n"));
    assert!(done(run(&node, &["dump", "big"], "")) == dump, "the same dump again");
    // Also one that came in through a door with a larger limit.
    let large = body_of(200_000).replace("{\"subject\"", "{\"id\":\"large\",\"subject\"");
    assert_eq!(done(run(&node, &["restore"], &large)), "restored 1 event, 0 already there\n");
    let copy = format!("{}\n", body_of(9_000_000).replace("{\"subject\"", "{\"id\":\"huge\",\"subject\""));
    failed(&run(&node, &["restore"], &copy), 1, "request body too large");
}

#[test]
fn a_restore_keeps_events_whose_key_came_again_when_its_time_was_over() {
    let node = Node::shared();
    let ns = node.namespace();
    done(run(&node, &["namespaces", "retention", &ns, "--dedupe-window", "1s"], ""));
    let body = format!("{{\"subject\":\"{ns}.x\",\"key\":\"daily\"}}");
    for _ in 0..3 {
        node.post(&body).published();
        std::thread::sleep(ms(1100));
    }
    let dump = done(run(&node, &["dump", &ns], ""));
    assert_eq!(dump.lines().count(), 3);
    let other = Node::start(&Options::new());
    assert_eq!(done(run(&other, &["restore"], &dump)), "restored 3 events, 0 already there\n");
    assert!(done(run(&other, &["dump", &ns], "")) == dump);
    assert_eq!(done(run(&other, &["restore"], &dump)), "restored 0 events, 3 already there\n");
    assert_eq!(other.post(&body).repeats("key was processed before").index, 3);
    let wrong = other.http().request("POST", "/?restore=perhaps", &[], body.as_bytes());
    wrong.refusal(400, "invalid restore: perhaps").expect("neither true nor false");
}

#[test]
fn a_dump_of_a_file_appears_when_it_is_complete() {
    let node = Node::shared();
    let ns = node.namespace();
    node.publish(&format!("{ns}.x"), "1");
    let here = tempfile::tempdir().expect("temporary directory");
    let path = here.path().join("dump.ndjson");
    let name = path.to_str().expect("a path");
    done(run(&node, &["dump", &ns, "--out", name], ""));
    assert_eq!(std::fs::read_to_string(&path).expect("the dump").lines().count(), 1);
    assert_eq!(std::fs::read_dir(here.path()).expect("a directory").count(), 1, "no other file is left");
    failed(&run(&node, &["dump", "nope"], ""), 1, "nope");
    failed(&run(&node, &["restore"], "not json\n"), 1, "line 1");
    failed(&run(&node, &["restore", "--in", "/does/not/exist"], ""), 1, "/does/not/exist");
}

#[test]
fn namespaces_are_managed_from_the_command_line() {
    let node = Node::start(&Options::namespaces("app"));
    done(run(&node, &["namespaces", "create", "extra", "--max-events", "100"], ""));
    done(run(&node, &["namespaces", "retention", "extra", "--max-age", "24h", "--max-events", "none"], ""));
    let listed = done(run(&node, &["namespaces", "list", "-o", "json"], ""));
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    let extra = listed.as_array().and_then(|items| items.iter().find(|item| item["name"] == "extra"));
    let retention = &extra.expect("listed")["retention"];
    assert_eq!((&retention["max_age"], &retention["max_events"]), (&json!("24h"), &Value::Null));
    let table = done(run(&node, &["namespaces", "list"], ""));
    assert!(table.contains("extra") && table.contains("app"), "{table}");
    failed(&run(&node, &["namespaces", "delete", "extra"], "extra\n"), 2, "pass --yes");
    assert!(done(run(&node, &["namespaces", "list"], "")).contains("extra"), "it is not deleted unasked");
    let text = done(run(&node, &["namespaces", "delete", "extra", "--yes"], ""));
    assert_eq!(text, "namespace extra is deleted; it had 0 events\n");
    assert!(!done(run(&node, &["namespaces", "list"], "")).contains("extra"));
    failed(&run(&node, &["namespaces", "create", "app"], ""), 1, "app");
    failed(&run(&node, &["namespaces", "create", "roll"], ""), 1, "reserved");
    failed(&run(&node, &["namespaces", "delete", "extra", "--yes"], ""), 1, "extra");
}

#[test]
fn health_is_an_exit_code() {
    let mut node = Node::start(&Options::new());
    assert_eq!(done(run(&node, &["health"], "")), "ready\n");
    node.kill9();
    let exit = run(&node, &["health"], "");
    assert_eq!(exit.code, Some(1), "{exit:#?}");
    let exit = run(&node, &["health", "--wait", "300ms"], "");
    assert_eq!(exit.code, Some(1), "{exit:#?}");
}

#[test]
fn bad_usage_exits_with_2_and_names_the_argument() {
    for (args, part) in [
        (vec!["serve", "--nonsense"], "--nonsense"),
        (vec!["nonsense"], "nonsense"),
        (vec!["serve", "--node", "0"], "--node"),
        (vec!["serve", "--node", "x"], "--node"),
        (vec!["serve", "--log", "nowhere"], "nowhere"),
        (vec!["serve", "--web", "127.0.0.1"], "127.0.0.1"),
        (vec!["serve", "--namespaces", "a b"], "a b"),
        (vec!["serve", "--namespaces", ""], "no namespaces provided"),
        (vec!["serve", "--namespaces", "app,_bus_"], "namespace _bus_ is reserved"),
        (vec!["serve", "--namespaces", "roll"], "namespace roll is reserved"),
        (vec!["serve", "--config", "/does/not/exist.toml"], "/does/not/exist.toml"),
        (vec!["serve", "--log", "0.0.0.0:0"], "--insecure"),
        (vec!["publish"], "SUBJECT"),
    ] {
        let exit = alone(&args, &[]);
        assert_eq!(exit.code, Some(2), "{args:?}: {exit:#?}");
        assert!(exit.stderr.contains(part), "{args:?} does not name {part:?}: {exit:#?}");
        assert!(exit.stdout.is_empty(), "{args:?}: {exit:#?}");
    }
}

/// A node that has joined a cluster and lost its disk must not begin a cluster of its own when it is started again, and
/// acknowledge events that the others never see.
#[test]
fn a_node_with_a_number_and_without_data_begins_no_cluster_unless_it_is_told_to() {
    let here = tempfile::tempdir().expect("temporary directory");
    let data = here.path().join("data");
    let name = data.to_str().expect("a path");
    let exit = alone(&["serve", "--node", "4", "--data", name], &[]);
    failed(&exit, 1, "rollbook cluster join");
    assert!(exit.stderr.contains("--cluster 4=HOST:PORT"), "{exit:#?}");
    assert!(!data.exists(), "nothing is written");
    let as_four = || Options::new().arg("--node").arg("4");
    let mut node = Node::start(&as_four().arg("--cluster").arg("4=127.0.0.1:1"));
    node.publish("app.x", "1");
    node.terminate();
    // Its data says who it is from now on.
    node.restart_with(&as_four());
    node.publish("app.x", "2");
}

#[test]
fn unknown_settings_are_errors_in_every_layer() {
    let here = tempfile::tempdir().expect("temporary directory");
    let path = here.path().join("rollbook.toml");
    let name = path.to_str().expect("a path");
    std::fs::write(&path, "[sse]\nkeep_alive = \"10s\"\nnonsense = 1\n").expect("write");
    for args in [vec!["serve", "--config", name], vec!["config", "check", name]] {
        let exit = alone(&args, &[]);
        failed(&exit, 2, "nonsense");
        assert!(exit.stderr.contains(":3:"), "the line is named: {exit:#?}");
    }
    for (variable, value, part) in [
        ("ROLLBOOK_SSE__NONSENSE", "1", "ROLLBOOK_SSE__NONSENSE"),
        ("ROLLBOOK_NONSENSE__KEY", "1", "ROLLBOOK_NONSENSE__KEY"),
        ("ROLLBOOK_SSE__KEEP_ALIVE", "soon", "ROLLBOOK_SSE__KEEP_ALIVE"),
        ("ROLLBOOK_BOOK__DEDUPE_KEYS", "many", "ROLLBOOK_BOOK__DEDUPE_KEYS"),
        ("ROLLBOOK_LOG__FILTER", "debgu", "`debgu` is not a level"),
    ] {
        failed(&alone(&["serve"], &[(variable, value)]), 2, part);
    }
}

#[test]
fn settings_come_from_the_highest_layer() {
    let here = tempfile::tempdir().expect("temporary directory");
    let path = here.path().join("rollbook.toml");
    let name = path.to_str().expect("a path");
    std::fs::write(&path, "[sse]\nlisten = \"127.0.0.1:1111\"\nkeep_alive = \"7s\"\n[node]\nid = 5\n").expect("write");
    assert!(done(alone(&["config", "check", name], &[])).contains("ok"));
    let args = ["config", "dump", "--config", name, "--node", "9", "-o", "json"];
    let json = done(alone(&args, &[("ROLLBOOK_SSE__LISTEN", "127.0.0.1:2222"), ("ROLLBOOK_NODE__ID", "7")]));
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["sse.listen"], "127.0.0.1:2222");
    assert_eq!(json["sse.keep_alive"], "7s");
    assert_eq!(json["node.id"], 9);
    assert_eq!(json["web.listen"], "127.0.0.1:7440");
    // What is dumped can be read back.
    let dumped = done(alone(&["config", "dump", "--config", name], &[]));
    std::fs::write(&path, dumped).expect("write");
    done(alone(&["config", "check", name], &[]));
}

#[test]
fn certificates_come_with_the_lines_that_use_them() {
    let here = tempfile::tempdir().expect("temporary directory");
    let dir = here.path().join("certs");
    let name = dir.to_str().expect("a path");
    let text = done(alone(&["cert", "dev", "--dir", name, "--nodes", "1,2"], &[]));
    assert!(text.contains(&format!("wrote {name}/ca.pem\n")), "{text}");
    let lines =
        format!("[peer]\nca = \"{name}/ca.pem\"\ncertificate = \"{name}/node-2.pem\"\nkey = \"{name}/node-2.key\"");
    assert!(text.contains(&lines), "{text}");
    let json = done(alone(&["cert", "dev", "--dir", name, "--nodes", "3", "-o", "json"], &[]));
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["written"], json!([format!("{name}/node-3.key"), format!("{name}/node-3.pem")]));
    assert_eq!(json["nodes"][0]["peer"]["key"], format!("{name}/node-3.key"));
    failed(&alone(&["cert", "dev", "--dir", name, "--nodes", "3"], &[]), 1, "node-3.pem exists");
    failed(
        &alone(&["cert", "dev", "--dir", name, "--nodes", "4", "--host", "node-1.rollbook.internal"], &[]),
        2,
        "--host",
    );
}

#[test]
fn help_shows_examples_and_the_version_is_told() {
    for args in [
        vec!["--help"],
        vec!["help"],
        vec!["help", "publish"],
        vec!["serve", "--help"],
        vec!["publish", "--help"],
        vec!["subscribe", "--help"],
        vec!["ack", "--help"],
        vec!["dump", "--help"],
        vec!["restore", "--help"],
        vec!["namespaces", "--help"],
        vec!["cluster", "--help"],
        vec!["cert", "--help"],
        vec!["config", "--help"],
        vec!["health", "--help"],
        vec!["bench", "--help"],
    ] {
        let text = done(alone(&args, &[]));
        assert!(text.contains("Usage") && text.contains("Examples"), "{args:?}: {text}");
    }
    assert!(done(alone(&["--version"], &[])).starts_with("rollbook "));
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let node = Node::shared();
    let ns = node.namespace();
    let items = vec![format!("{{\"subject\":\"{ns}.x\",\"payload\":\"{}\"}}", "x".repeat(2000)); 500];
    assert_eq!(node.post(format!("[{}]", items.join(","))).status, 202);
    let script = "\"$0\" dump \"$1\" --log-url \"$2\" --web-url \"$3\" | head -n 1 | wc -l; echo done";
    let mut shell = Command::new("sh");
    shell.args(["-c", script, env!("CARGO_BIN_EXE_rollbook"), &ns]);
    shell.args([format!("http://{}", node.log), format!("http://{}", node.web)]);
    let exit = run_command(shell, b"", SOON);
    std::thread::sleep(ms(20));
    assert_eq!(exit.stdout.split_whitespace().collect::<Vec<_>>(), ["1", "done"], "{exit:#?}");
    assert!(!exit.stderr.contains("panicked") && !exit.stderr.contains("error"), "{exit:#?}");
}
