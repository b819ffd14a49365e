//! Subscriptions: subjects that are refused, patterns and what they match, parameters.

use crate::harness::node::{Node, Options, target};
use crate::harness::sse::Sse;
use crate::harness::{SOON, encode, ms, report};

const CHARACTERS: &str = "subject should have only letters, digits, dots, _, -, and in a pattern * and >";
const AFTER_ALL: &str = "subject should not have anything after >";
const BEFORE_STAR: &str = "subject should have a dot before *";
const AFTER_STAR: &str = "subject should have a dot after *";
const AFTER_DOUBLE: &str = "subject should not have anything after **";

/// The table of refused subjects, in the order of the reference.
const REFUSED: &[(&str, &str)] = &[
    ("", "subject is empty"),
    (".a.b", "subject should not start with a dot"),
    (".", "subject should not start with a dot"),
    ("*", "subject should not start with *"),
    ("*.a", "subject should not start with *"),
    (">", "subject should not start with >"),
    ("**", "subject should not start with *"),
    ("**.a", "subject should not start with *"),
    ("a.b.", "subject should not end with a dot"),
    ("a. b.c", "subject should not have spaces"),
    ("a b", "subject should not have spaces"),
    ("a..b.c", "subject should not have two dots in a row"),
    ("a.b>.c", AFTER_ALL),
    ("a.>.c", AFTER_ALL),
    ("a.>.", AFTER_ALL),
    ("a.b>", "subject should have a dot before >"),
    ("a.b*", BEFORE_STAR),
    ("a.b**", BEFORE_STAR),
    ("a.*b", AFTER_STAR),
    ("a.***", AFTER_STAR),
    ("a.**.b", AFTER_DOUBLE),
    ("a.**.", AFTER_DOUBLE),
    ("a.*.", "subject should not end with a dot"),
    ("a.b.c$", CHARACTERS),
    ("a.b/c", CHARACTERS),
    ("a.b:c", CHARACTERS),
    ("a.b\u{1}", CHARACTERS),
    ("a.b\n", CHARACTERS),
    ("a.b\r\nX-Evil: 1", CHARACTERS),
    ("a.\u{0}", CHARACTERS),
    ("a.\u{7f}", CHARACTERS),
    ("a.b%", CHARACTERS),
    ("a.😀", CHARACTERS),
    ("a", "invalid subject: missing namespace"),
    ("nope.x", "namespace not found: nope"),
    ("nope.>", "namespace not found: nope"),
    ("_bus_.*", "inbox subjects cannot contain wildcards"),
    ("_bus_.>", "inbox subjects cannot contain wildcards"),
    ("_bus_.**", "inbox subjects cannot contain wildcards"),
    ("_bus_.x.>", "inbox subjects cannot contain wildcards"),
];

#[test]
fn subjects_that_cannot_be_subscribed_to() {
    let node = Node::shared();
    let mut failures = Vec::new();
    for (subject, text) in REFUSED {
        let answer = node.get(&target(&[("subject", subject)]));
        if let Err(problem) = answer.refusal(400, text) {
            failures.push(format!("{subject:?}: {problem}"));
        }
    }
    for missing in ["/", "/?", "/?start=oldest", "/?Subject=a.b", "/?subjects=a.b"] {
        let answer = node.get(missing);
        if let Err(problem) = answer.refusal(400, "missing subject in query string") {
            failures.push(format!("{missing}: {problem}"));
        }
    }
    report("refused subjects", &failures);
}

#[test]
fn subjects_that_can_be_subscribed_to() {
    let node = Node::shared();
    for subject in [
        "a.b.c",
        "a.b.*",
        "a.b.>",
        "a.b.**",
        "a.*",
        "a.>",
        "a.**",
        "a.*.>",
        "a.*.**",
        "a.*.*.c",
        "a_b.c",
        "a.b-c",
        "my-app.x",
        "a.ü",
        "a.日本",
        "_bus_.x",
        "_dead_.a.**",
        "_dead_.>",
        "roll.>",
        "roll.**",
    ] {
        let stream = node.subscribe(&[("subject", subject)]);
        assert_eq!(stream.head.status, 200, "{subject}");
    }
}

#[test]
fn overlong_patterns_are_refused() {
    let node = Node::shared();
    let longest = format!("a.{}", "x".repeat(253));
    node.subscribe(&[("subject", &longest)]);
    for subject in [format!("{longest}x"), format!("a{}", ".x".repeat(32)), "a.".repeat(3000)] {
        let answer = node.get(&target(&[("subject", &subject)]));
        assert_eq!(answer.status, 400, "{} bytes accepted", subject.len());
    }
}

#[test]
fn bytes_that_are_not_utf8_in_the_query_are_refused() {
    let node = Node::shared();
    for query in ["/?subject=a.%ff", "/?subject=a.%c3", "/?subject=a.%ed%a0%80"] {
        assert_eq!(node.get(query).status, 400, "{query}");
    }
    node.publish("a.after", "1");
}

/// Publishes the three subjects and compares what each pattern delivers.
#[test]
fn patterns_deliver_what_the_matching_table_says() {
    let node = Node::shared();
    let ns = node.namespace();
    let all = ["a", "a.b", "a.b.c"];
    for subject in all {
        node.publish(&format!("{ns}.{subject}"), "1");
    }
    let rows: &[(&str, &[&str])] = &[
        ("*", &["a"]),
        (">", &all),
        ("**", &all),
        ("a.*", &["a.b"]),
        ("a.>", &all),
        ("a.**", &all),
        ("*.b", &["a.b"]),
        ("*.>", &all),
        ("*.**", &all),
        ("*.*.c", &["a.b.c"]),
        ("a.b.c.>", &["a.b.c"]),
        ("a.b.c.**", &["a.b.c"]),
        ("a.b.c", &["a.b.c"]),
        ("*.*", &["a.b"]),
        ("*.*.*", &["a.b.c"]),
        ("a.*.>", &["a.b", "a.b.c"]),
        ("a.*.**", &["a.b", "a.b.c"]),
        ("a.b.>", &["a.b", "a.b.c"]),
        ("A", &[]),
        ("b.>", &[]),
        ("a.b.d", &[]),
        ("a.b.c.*", &[]),
        ("*.*.d", &[]),
        ("*.*.*.>", &["a.b.c"]),
        ("*.*.*.*.>", &[]),
    ];
    // Live streams are opened before the end marks, replays read the same events.
    let mut failures = Vec::new();
    for (pattern, want) in rows {
        let mut stream = node.replay(&format!("{ns}.{pattern}"));
        let mut got = Vec::new();
        for _ in *want {
            got.extend(stream.try_event(SOON));
        }
        got.extend(stream.try_event(ms(60)));
        let got: Vec<String> = got.iter().map(|event| event.json()["subject"].to_string()).collect();
        let want: Vec<String> = want.iter().map(|subject| format!("\"{ns}.{subject}\"")).collect();
        if got != want {
            failures.push(format!("{pattern}: delivered {got:?}, want {want:?}"));
        }
    }
    report("patterns on a replay", &failures);
}

#[test]
fn patterns_match_live_events_as_they_match_old_ones() {
    let node = Node::shared();
    let ns = node.namespace();
    let rows: &[(&str, &[i64])] = &[
        ("*", &[1]),
        (">", &[1, 2, 3, 4]),
        ("**", &[1, 2, 3, 4]),
        ("a.>", &[1, 2, 3]),
        ("a.*", &[2]),
        ("*.b", &[2, 4]),
        ("a.*.>", &[2, 3]),
        ("*.*.c", &[3]),
        ("x.b", &[4]),
    ];
    let streams: Vec<_> =
        rows.iter().map(|(pattern, _)| node.subscribe(&[("subject", &format!("{ns}.{pattern}"))])).collect();
    for (subject, n) in ["a", "a.b", "a.b.c", "x.b"].into_iter().zip(1..) {
        assert_eq!(node.publish(&format!("{ns}.{subject}"), "1").index, n);
    }
    let mut failures = Vec::new();
    for (mut stream, (pattern, want)) in streams.into_iter().zip(rows) {
        let mut got = Vec::new();
        for _ in *want {
            got.extend(stream.try_event(SOON).map(|event| event.index()));
        }
        got.extend(stream.try_event(ms(60)).map(|event| event.index()));
        if got != *want {
            failures.push(format!("{pattern}: delivered {got:?}, want {want:?}"));
        }
    }
    report("patterns on live events", &failures);
}

#[test]
fn unicode_subjects_are_case_sensitive_and_whole() {
    let node = Node::shared();
    let ns = node.namespace();
    node.publish(&format!("{ns}.Ü.日本"), "1");
    node.publish(&format!("{ns}.ü.日本"), "2");
    let mut stream = node.replay(&format!("{ns}.ü.*"));
    assert_eq!(stream.next_event(SOON).payload(), 2);
    stream.quiet(ms(60));
}

#[test]
fn malformed_parameters_are_refused() {
    let rows = [
        ("ack", "auto", "invalid ack: auto"),
        ("ack", "Manual", "invalid ack: Manual"),
        ("ack", "none ", "invalid ack: none "),
        ("redelivery", "abc", "invalid redelivery: abc"),
        ("redelivery", "5", "invalid redelivery: 5"),
        ("redelivery", "-5s", "invalid redelivery: -5s"),
        ("redelivery", "5 s", "invalid redelivery: 5 s"),
        ("redelivery", "5x", "invalid redelivery: 5x"),
        ("redelivery", "s", "invalid redelivery: s"),
        ("redelivery", "1h-5m", "invalid redelivery: 1h-5m"),
        ("redelivery", "1ns", "invalid redelivery: 1ns, at least 100ms"),
        ("redelivery", "99ms", "invalid redelivery: 99ms, at least 100ms"),
        ("redelivery_count", "x", "invalid redelivery_count: x"),
        ("redelivery_count", "1.5", "invalid redelivery_count: 1.5"),
        ("redelivery_count", "3x", "invalid redelivery_count: 3x"),
        ("consumer_id", "x", "invalid consumer_id in query string"),
        ("consumer_id", "c_", "invalid consumer_id in query string"),
        ("consumer_id", "c_a b", "invalid consumer_id in query string"),
        ("consumer_id", "c_a\n", "invalid consumer_id in query string"),
        ("consumer_id", "c_ü", "invalid consumer_id in query string"),
    ];
    let node = Node::shared();
    let mut failures = Vec::new();
    for (name, value, text) in rows {
        let answer = node.get(&target(&[("subject", "a.b"), (name, value)]));
        if let Err(problem) = answer.refusal(400, text) {
            failures.push(format!("{name}={value:?}: {problem}"));
        }
    }
    let long = format!("c_{}", "x".repeat(65));
    let answer = node.get(&target(&[("subject", "a.b"), ("consumer_id", &long)]));
    failures.extend(answer.refusal(400, "invalid consumer_id in query string").err());
    for (name, value) in [("consumer", "a b"), ("group", "a.b"), ("group", "ü"), ("consumer", &"x".repeat(65))] {
        let answer = node.get(&target(&[("subject", "a.b"), (name, value)]));
        if answer.status != 400 || answer.refusal_headers().is_err() {
            failures.push(format!("{name}={value:?}: status {}", answer.status));
        }
    }
    report("parameters", &failures);
}

#[test]
fn parameters_that_are_fine() {
    let node = Node::shared();
    let longest = format!("c_{}", "x".repeat(64));
    for (name, value) in [
        ("start", ""),
        ("start", "oldest"),
        ("start", "newest"),
        ("ack", ""),
        ("ack", "none"),
        ("ack", "manual"),
        ("redelivery", ""),
        ("redelivery", "0s"),
        ("redelivery", "5s"),
        ("redelivery", "100ms"),
        ("redelivery", "1m30s"),
        ("redelivery", "1.5h"),
        ("redelivery", "100000us"),
        ("redelivery", "+5s"),
        ("redelivery_count", ""),
        ("redelivery_count", "0"),
        ("redelivery_count", "-1"),
        ("redelivery_count", "3"),
        ("consumer_id", &longest),
        ("consumer_id", ""),
        ("unknown", "anything"),
    ] {
        let stream = node.subscribe(&[("subject", "a.b"), ("ack", "manual"), (name, value)]);
        assert_eq!(stream.head.status, 200, "{name}={value}");
    }
    // What the Go client sends when nothing is set.
    let query = "/?subject=a.b&start=&ack=&redelivery=0s";
    Sse::open(node.log, query, &[]);
}

#[test]
fn the_subject_is_checked_before_the_namespace_and_both_before_the_rest() {
    let node = Node::shared();
    let rows = [
        ("a..b&ack=bad", "subject should not have two dots in a row"),
        ("nope&ack=bad", "invalid subject: missing namespace"),
        ("nope.*b", AFTER_STAR),
        ("nope.x&ack=bad", "namespace not found: nope"),
        ("nope.x&redelivery=bad&consumer_id=bad", "namespace not found: nope"),
        ("_bus_.*&ack=bad", "inbox subjects cannot contain wildcards"),
    ];
    for (query, text) in rows {
        let refused = node.get(&format!("/?subject={query}")).refusal(400, text);
        refused.unwrap_or_else(|problem| panic!("{query}: {problem}"));
    }
}

#[test]
fn a_parameter_cannot_smuggle_a_header() {
    let node = Node::shared();
    let value = encode("x\r\nX-Evil: 1");
    let answer = node.get(&format!("/?subject=a.b&ack={value}"));
    assert_eq!(answer.status, 400);
    assert_eq!(answer.header("x-evil"), None);
}

#[test]
fn with_a_star_a_namespace_is_created_by_its_first_publish() {
    let node = Node::start(&Options::new());
    assert_eq!(node.publish("fresh.x", "1").index, 1);
    assert_eq!(node.replay("fresh.>").next_event(SOON).payload(), 1);
    for (subject, text) in [
        ("_dead_.x", "namespace _dead_ is reserved"),
        ("roll.x", "namespace roll is reserved"),
        ("ü.x", "namespace not found: ü"),
    ] {
        let refused = node.post(format!("{{\"subject\":\"{subject}\"}}")).refusal(400, text);
        refused.unwrap_or_else(|problem| panic!("{subject}: {problem}"));
    }
    let long = "n".repeat(65);
    let answer = node.post(format!("{{\"subject\":\"{long}.x\"}}"));
    assert_eq!(answer.status, 400, "a namespace of 65 characters");
}

#[test]
fn a_subscriber_far_behind_catches_up_while_another_follows() {
    let node = Node::start(&Options::new());
    // Somebody who follows keeps the newest events in memory: more of them than may wait for one subscriber.
    let follower = node.subscribe(&[("subject", "app.>"), ("start", "newest")]);
    let batch: Vec<String> = (0..3000).map(|n| format!(r#"{{"subject":"app.x","payload":{n}}}"#)).collect();
    assert_eq!(node.post(format!("[{}]", batch.join(","))).status, 202);
    let mut late = node.subscribe(&[("subject", "app.>"), ("start", "oldest")]);
    let events = late.events(3000, SOON * 3);
    assert_eq!(events.last().map(crate::harness::sse::Frame::index), Some(3000));
    drop(follower);
}
