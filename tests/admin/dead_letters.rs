//! Dead letters as a place of work: found, retried, discarded, one by one and many at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::cluster::Cluster;
use crate::harness::node::{Exit, Node, Options, rollbook, run_command, target};
use crate::harness::{SOON, encode, wait_for};

/// How long a job over thousands of letters may take on a machine with other work.
const JOB: Duration = Duration::from_secs(120);

/// Publishes events with these JSON members beside the subject.
fn publish(node: &Node, events: &[Value]) {
    let answer = node.post(json!(events).to_string());
    assert_eq!(answer.status, 202, "{}", answer.text());
}

/// Has a group reject so many events of a pattern.
fn reject(node: &Node, (pattern, group): (&str, &str), count: usize, reason: &str) {
    let query = [
        ("subject", pattern),
        ("start", "oldest"),
        ("ack", "manual"),
        ("group", group),
        ("redelivery", "2m"),
        ("max_in_flight", "500"),
    ];
    let mut stream = node.subscribe(&query);
    let consumer_id = stream.consumer_id();
    let mut left = count;
    while left > 0 {
        let ids: Vec<String> = stream.events(left.min(100), SOON).iter().map(|event| event.event_id()).collect();
        left -= ids.len();
        let query = [("consumer_id", consumer_id.as_str()), ("action", "reject"), ("reason", reason)];
        let answer = node.http().request("PUT", &target(&query), &[], json!(ids).to_string().as_bytes());
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
}

/// All letters of a query, page by page.
fn letters(node: &Node, query: &str) -> Vec<Value> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let answer = node.web("GET", &format!("/api/dead-letters?{query}{cursor}"), "");
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
        let page = answer.json();
        found.extend(page["items"].as_array().cloned().unwrap_or_default());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}

/// So many letters of a query, once they are there.
fn await_letters(node: &Node, query: &str, count: usize) -> Vec<Value> {
    wait_for(&format!("{count} letters of {query}"), JOB, || {
        Some(letters(node, query)).filter(|found| found.len() == count)
    })
}

fn id_of(letter: &Value) -> &str {
    letter["id"].as_str().unwrap_or_else(|| panic!("a letter without an id: {letter}"))
}

/// A request about one letter, which must be answered with this status.
fn act(node: &Node, letter: &Value, (what, body): (&str, &Value), status: u16) -> Value {
    let answer = node.web("POST", &format!("/api/dead-letters/{}/{what}", id_of(letter)), &body.to_string());
    assert_eq!(answer.status, status, "{what} {body}: {}", answer.text());
    answer.json()
}

/// The command line against this node.
fn command(node: &Node, words: &[&str]) -> Exit {
    let mut command = rollbook();
    command.args(["dead-letters", "--web-url", &format!("http://{}", node.web)]).args(words);
    run_command(command, b"", JOB)
}

#[test]
fn letters_are_found_by_subject_group_reason_and_state() {
    let node = Node::start(&Options::namespaces("work,other"));
    let event = |subject: &str, n: u64| json!({ "subject": subject, "payload": { "n": n } });
    publish(&node, &[event("work.a", 1), event("work.b", 2)]);
    publish(&node, &[event("other.a", 3)]);
    reject(&node, ("work.>", "w"), 2, "this is no image");
    reject(&node, ("other.>", "o"), 1, "timeout of the printer");
    await_letters(&node, "", 3);
    let of = |query: &str| -> Vec<String> {
        letters(&node, query).iter().map(|letter| letter["subject"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(of("limit=1"), ["work.a", "work.b", "other.a"], "the oldest first, page by page");
    assert_eq!(of("subject=work.*"), ["work.a", "work.b"]);
    assert_eq!(of("subject=*.a"), ["work.a", "other.a"]);
    assert_eq!(of("group=o"), ["other.a"]);
    assert_eq!(of("reason=no%20image&subject=*.b"), ["work.b"]);
    assert_eq!(of("consumer=w"), [""; 0]);
    assert_eq!(of("state=retried"), [""; 0]);
    for wrong in
        ["subject=a..b", "state=odd", "limit=0", "cursor=x", "colour=red", &format!("reason={}", "x".repeat(300))]
    {
        assert_eq!(node.web("GET", &format!("/api/dead-letters?{wrong}"), "").status, 400, "{wrong}");
    }
    let letter = &letters(&node, "subject=work.b")[0];
    for named in [id_of(letter).to_owned(), letter["index"].to_string()] {
        let shown = node.web("GET", &format!("/api/dead-letters/{named}"), "").json();
        assert_eq!(shown["event"]["payload"], json!({ "n": 2 }), "{shown}");
        assert_eq!((&shown["state"], &shown["reason"]), (&json!("open"), &json!("this is no image")));
        assert_eq!((&shown["group"], &shown["deliveries"]), (&json!("w"), &json!(1)));
    }
    for none in ["e_00000000000000000000", "99", "0", "done-1", "%20"] {
        assert_eq!(node.web("GET", &format!("/api/dead-letters/{none}"), "").status, 404, "{none}");
    }
}

#[test]
fn a_retried_event_is_delivered_again_and_a_letter_is_done_once_also_after_a_restart() {
    let mut node = Node::start(&Options::namespaces("work"));
    let headers = json!({ "x": ["1", "2"] });
    let payload = json!({ "image": 4 });
    publish(
        &node,
        &[json!({ "subject": "work.a", "id": "job-4", "key": "once", "headers": headers, "payload": payload })],
    );
    publish(&node, &[json!({ "subject": "work.a", "payload": 5 }), json!({ "subject": "work.b", "payload": 6 })]);
    reject(&node, ("work.>", "w"), 3, "no");
    let found = await_letters(&node, "", 3);
    // The key of the event was seen a moment ago; the retry is no duplicate of it all the same.
    let done = act(&node, &found[0], ("retry", &json!({})), 200);
    assert_eq!((&done["state"], &done["done"]["to"]), (&json!("retried"), &json!("work.a")), "{done}");
    let query = [("subject", "work.>"), ("start", "oldest"), ("ack", "manual"), ("group", "w"), ("redelivery", "2m")];
    let again = node.subscribe(&query).next_event(SOON).json();
    assert_eq!(again["id"], done["done"]["event_id"]);
    assert_eq!((&again["subject"], &again["payload"]), (&json!("work.a"), &payload));
    assert_eq!(again["headers"], json!({ "x": ["1", "2"], "rollbook-dead-letter": id_of(&found[0]) }));
    let to = act(&node, &found[1], ("retry", &json!({ "to": "work.other" })), 200);
    assert_eq!(to["done"]["to"], "work.other");
    for (to, text) in
        [("_dead_.x", "reserved"), ("none.x", "namespace not found"), ("work.*", "* or >"), ("_bus_.x", "inbox")]
    {
        let refused = act(&node, &found[2], ("retry", &json!({ "to": to })), 400);
        assert!(refused["detail"].as_str().is_some_and(|detail| detail.contains(text)), "{to}: {refused}");
    }
    assert_eq!(act(&node, &found[2], ("discard", &Value::Null), 200)["state"], "discarded");
    node.kill9();
    node.restart();
    assert_eq!(letters(&node, ""), [Value::Null; 0], "nothing is open after a restart");
    let states: Vec<Value> = letters(&node, "state=all").iter().map(|letter| letter["state"].clone()).collect();
    assert_eq!(states, ["retried", "retried", "discarded"]);
    for (letter, what, said) in [
        (&found[0], "retry", "was retried"),
        (&found[0], "discard", "was retried"),
        (&found[2], "retry", "was discarded"),
    ] {
        let refused = act(&node, letter, (what, &json!({})), 409);
        assert!(refused["detail"].as_str().is_some_and(|detail| detail.contains(said)), "{refused}");
    }
    assert_eq!(node.replay("work.>").events(5, SOON).len(), 5, "three events and two retries");
}

#[test]
fn two_operators_at_two_nodes_do_a_letter_once() {
    let cluster = Cluster::start_with(Options::namespaces("work"));
    const LETTERS: usize = 40;
    let events: Vec<Value> = (0..LETTERS).map(|n| json!({ "subject": "work.a", "payload": n })).collect();
    publish(cluster.node(1), &events);
    reject(cluster.node(2), ("work.>", "w"), LETTERS, "no");
    let found = await_letters(cluster.node(3), "", LETTERS);
    let run = |node: &Node, what: &str| -> Vec<u16> {
        let path = |letter: &Value| format!("/api/dead-letters/{}/{what}", id_of(letter));
        found.iter().map(|letter| node.web("POST", &path(letter), "{}").status).collect()
    };
    let (one, two) = std::thread::scope(|scope| {
        let one = scope.spawn(|| run(cluster.node(1), "retry"));
        let two = scope.spawn(|| run(cluster.node(2), "retry"));
        (one.join().expect("an operator"), two.join().expect("an operator"))
    });
    for (at, both) in one.iter().zip(&two).enumerate() {
        assert!(matches!(both, (200, 409) | (409, 200)), "letter {at}: {both:?}");
    }
    assert_eq!(letters(cluster.node(3), ""), [Value::Null; 0], "the third node knows");
    let mut all = cluster.node(3).replay("work.>");
    assert_eq!(all.events(2 * LETTERS, SOON).len(), 2 * LETTERS, "each event comes once more");
    all.quiet(Duration::from_millis(300));
}

#[test]
fn a_job_whose_node_is_killed_is_begun_again_at_another_one_and_does_no_letter_twice() {
    let mut cluster = Cluster::start_with(Options::namespaces("work"));
    const LETTERS: usize = 2000;
    for part in 0..LETTERS / 500 {
        let event = |n: usize| {
            let subject = if n.is_multiple_of(2) { "work.even" } else { "work.odd" };
            json!({ "subject": subject, "payload": part * 500 + n })
        };
        publish(cluster.node(1), &(0..500).map(event).collect::<Vec<_>>());
    }
    reject(cluster.node(1), ("work.>", "w"), LETTERS, "broken");
    wait_for("all letters", JOB, || {
        (cluster.node(1).metric("rollbook_dead_letters_total") as usize == LETTERS).then_some(())
    });
    let begin = |node: &Node, body: &Value| {
        let answer = node.web("POST", "/api/dead-letter-jobs", &body.to_string());
        assert_eq!(answer.status, 202, "{}", answer.text());
        answer.json()["id"].as_str().unwrap_or_default().to_owned()
    };
    let progress = |node: &Node, id: &str| node.web("GET", &format!("/api/dead-letter-jobs/{id}"), "").json();
    let body = json!({ "action": "retry", "filter": { "subject": "work.*", "group": "w", "reason": "broken" } });
    let first = cluster.leader();
    let job = begin(cluster.node(first), &body);
    wait_for("a job in its middle", JOB, || {
        let progress = progress(cluster.node(first), &job);
        assert_eq!(progress["state"], "running", "{progress}");
        progress["done"].as_u64().filter(|done| *done >= 300)
    });
    cluster.kill(first);
    let leader = cluster.leader();
    let second = cluster.node(leader);
    assert_eq!(second.web("GET", &format!("/api/dead-letter-jobs/{job}"), "").status, 404, "a job ends with its node");
    let job = begin(second, &body);
    let ended = wait_for("the second job", JOB, || {
        Some(progress(second, &job)).filter(|progress| progress["state"] != "running")
    });
    assert_eq!((&ended["state"], &ended["refused"]), (&json!("done"), &json!(0)), "{ended}");
    let matched = ended["matched"].as_u64().unwrap_or_default();
    assert!((1..=LETTERS as u64 - 300).contains(&matched), "the job goes on with what is left: {ended}");
    assert_eq!(letters(second, ""), [Value::Null; 0]);
    assert_eq!(letters(second, "state=retried&limit=1000").len(), LETTERS);
    let mut retried = BTreeMap::new();
    for event in second.replay("work.>").events(2 * LETTERS, JOB) {
        if let Some(letter) = event.json()["headers"]["rollbook-dead-letter"].as_str() {
            *retried.entry(letter.to_owned()).or_insert(0) += 1;
        }
    }
    assert_eq!(retried.len(), LETTERS, "each letter was retried");
    assert!(retried.values().all(|times| *times == 1), "and none twice");
    second.replay("work.>").events(2 * LETTERS, JOB);
}

#[test]
fn jobs_count_are_cancelled_and_refuse_what_is_wrong() {
    let node = Node::start(&Options::namespaces("work"));
    let events: Vec<Value> = (0..3).map(|n| json!({ "subject": "work.a", "payload": n })).collect();
    publish(&node, &events);
    reject(&node, ("work.>", "w"), 3, "no");
    await_letters(&node, "", 3);
    let filter = json!({ "subject": "work.>" });
    for (body, text) in [
        (json!({}), "action"),
        (json!({ "action": "retry" }), "filter"),
        (json!({ "action": "burn", "filter": filter }), "burn"),
        (json!({ "action": "discard", "filter": filter, "to": "work.b" }), "to: only with"),
        (json!({ "action": "retry", "filter": { "subject": "a b" } }), "subject=a b"),
        (json!({ "action": "retry", "filter": { "state": "all" } }), "state"),
    ] {
        let answer = node.web("POST", "/api/dead-letter-jobs", &body.to_string());
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
        assert!(answer.text().contains(text), "{body}: {}", answer.text());
    }
    for (method, path, status) in [
        ("GET", "/api/dead-letter-jobs/53131466-4e2e-11e7-916e-af2b1e6d242d", 404),
        ("DELETE", "/api/dead-letter-jobs/53131466-4e2e-11e7-916e-af2b1e6d242d", 404),
        ("GET", "/api/dead-letter-jobs/x", 400),
    ] {
        assert_eq!(node.web(method, path, "").status, status, "{method} {path}");
    }
    let counted = command(&node, &["retry", "--all", "--dry-run", "-o", "json"]);
    assert_eq!(counted.code, Some(0), "{counted:?}");
    let counted: Value = serde_json::from_str(&counted.stdout).expect("JSON");
    assert_eq!((&counted["matched"], &counted["done"], &counted["state"]), (&json!(3), &json!(0), &json!("done")));
    let refused = command(&node, &["retry", "--all", "--to", "none.x", "--yes"]);
    assert_eq!(refused.code, Some(1), "letters are still open: {refused:?}");
    assert!(refused.stdout.contains("3 fit, 0 retried, 3 refused") && refused.stdout.contains("namespace not found"));
    assert_eq!(command(&node, &["discard", "--all"]).code, Some(2), "there is no terminal to ask on");
    let listed = command(&node, &["list", "--group", "w", "--limit", "2"]);
    assert_eq!((listed.code, listed.stdout.lines().count()), (Some(0), 3), "{listed:?}");
    let open = letters(&node, "");
    let shown = command(&node, &["show", id_of(&open[0])]);
    assert!(shown.code == Some(0) && shown.stdout.contains("\"payload\": 0"), "{shown:?}");
    assert_eq!(command(&node, &["retry", id_of(&open[0])]).code, Some(0));
    assert_eq!(command(&node, &["retry", id_of(&open[0])]).code, Some(1), "it is done");
    let discarded = command(&node, &["discard", "--all", "--subject", "work.>", "--yes"]);
    assert!(discarded.code == Some(0) && discarded.stdout.contains("2 fit, 2 discarded"), "{discarded:?}");
    let jobs = node.web("GET", "/api/dead-letter-jobs", "").json();
    assert_eq!(jobs["items"].as_array().map(Vec::len), Some(3), "{jobs}");
    assert_eq!(letters(&node, &format!("state=discarded&reason={}", encode("no"))).len(), 2);
}

/// Subscribes to `work.>` with acknowledgement and these parameters more, and rejects the next event.
fn reject_next(node: &Node, more: &[(&str, &str)]) {
    let mut query = vec![("subject", "work.>"), ("start", "oldest"), ("ack", "manual"), ("redelivery", "2m")];
    query.extend_from_slice(more);
    let mut stream = node.subscribe(&query);
    let (event, consumer_id) = (stream.next_event(SOON).event_id(), stream.consumer_id());
    let query = [("consumer_id", consumer_id.as_str()), ("event_id", &event), ("action", "reject"), ("reason", "no")];
    let answer = node.http().request("PUT", &target(&query), &[], b"");
    assert_eq!(answer.status, 202, "{}", answer.text());
}

#[test]
fn a_subscription_names_the_subject_of_its_dead_letters() {
    let node = Node::start(&Options::namespaces("work,orders"));
    node.publish("work.a", "1");
    let named = ("dead_letter", "orders.failed");
    reject_next(&node, &[named]);
    reject_next(&node, &[named, ("group", "w")]);
    let mut kept = node.replay("orders.>");
    // The letter of a stream that has ended may come behind that of the next one.
    let mut groups = vec![Value::Null, json!("w")];
    for event in kept.events(2, SOON) {
        let letter = event.payload();
        groups.retain(|group| *group != letter["group"]);
        assert_eq!(event.subject().as_str(), "orders.failed", "{letter}");
        assert_eq!((&letter["event"]["payload"], &letter["reason"]), (&json!(1), &json!("no")));
    }
    assert_eq!(groups, [Value::Null; 0], "one of each");
    assert_eq!(letters(&node, "state=all"), [Value::Null; 0], "none is in _dead_");
    for (wrong, text) in [
        ("_dead_.x", "namespace _dead_ is reserved"),
        ("roll.x", "namespace roll is reserved"),
        ("work.failed", "work.> itself gets work.failed"),
        ("none.x", "namespace not found: none"),
        ("orders.*", "* or >"),
        ("orders", "missing namespace"),
    ] {
        let refused = node.get(&target(&[("subject", "work.>"), ("ack", "manual"), ("dead_letter", wrong)]));
        assert_eq!(refused.status, 400, "{wrong}");
        assert!(refused.text().contains(text), "{wrong}: {}", refused.text());
    }
    // The namespace goes while a stream is open: the letter is not lost with it.
    node.publish("work.b", "2");
    let query = [("subject", "work.b"), ("start", "oldest"), ("ack", "manual"), named];
    let mut stream = node.subscribe(&query);
    let event = stream.next_event(SOON).event_id();
    assert_eq!(node.web("DELETE", "/api/namespaces/orders", "").status, 204);
    let query = [("consumer_id", stream.consumer_id()), ("event_id", event), ("action", "reject".to_owned())];
    let query: Vec<(&str, &str)> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(node.http().request("PUT", &target(&query), &[], b"").status, 202);
    assert_eq!(await_letters(&node, "", 1)[0]["subject"], "work.b");
}

#[test]
fn the_subject_of_dead_letters_is_told_to_the_node_that_serves_the_consumer() {
    let cluster = Cluster::start_with(Options::namespaces("work,orders"));
    cluster.node(1).publish("work.a", "1");
    // The first node serves the consumer from now on, and has no member.
    let query = [("subject", "work.>"), ("start", "oldest"), ("ack", "manual"), ("consumer", "c")];
    drop(cluster.node(1).subscribe(&query));
    wait_for("the event at the second node", SOON, || {
        (cluster.node(2).consumer("work", "c")?["lag"] == 1).then_some(())
    });
    reject_next(cluster.node(2), &[("consumer", "c"), ("dead_letter", "orders.failed")]);
    let letter = cluster.node(3).replay("orders.>").next_event(SOON).payload();
    assert_eq!((&letter["consumer"], &letter["event"]["subject"]), (&json!("c"), &json!("work.a")), "{letter}");
    assert_eq!(letters(cluster.node(3), "state=all"), [Value::Null; 0]);
}
