//! Looking up stored events: pages in both orders, and one event by its id or index.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::http::Response;
use crate::harness::node::{Node, Options, rollbook, run_command};
use crate::harness::{SOON, encode, report, wait_for};

/// Events move into blocks some seconds after the last one; a slow machine needs more.
const SETTLED: Duration = Duration::from_secs(60);

fn events(node: &Node, query: &str) -> Response {
    node.web("GET", &format!("/api/namespaces/app/events?{query}"), "")
}

fn items(page: &Value) -> Vec<Value> {
    page["items"].as_array().cloned().unwrap_or_else(|| panic!("not a page: {page}"))
}

fn indexes(page: &Value) -> Vec<u64> {
    items(page).iter().map(|item| item["index"].as_u64().expect("an index")).collect()
}

/// The indexes of all pages, one page after the other.
fn pages(node: &Node, query: &str) -> Vec<Vec<u64>> {
    let (mut pages, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = events(node, &format!("{query}{cursor}")).json();
        pages.push(indexes(&page));
        let Some(next) = page["next_cursor"].as_str() else { return pages };
        cursor = format!("&cursor={next}");
        assert!(pages.len() < 1000, "the pages do not end");
    }
}

/// A node with these events, and their ids.
fn node_with(subjects: impl IntoIterator<Item = &'static str>) -> (Node, Vec<String>) {
    let node = Node::start(&Options::new());
    let publish = |(n, subject): (usize, &str)| node.publish(subject, &n.to_string()).id;
    let ids = subjects.into_iter().enumerate().map(publish).collect();
    (node, ids)
}

#[test]
fn pages_go_through_the_events_of_a_pattern_from_either_end() {
    let subjects = ["app.a", "app.b", "app.a.x"];
    let (node, ids) = node_with((0..30).map(|n| subjects[n % 3]));
    let every: Vec<u64> = (1..=30).collect();
    let of_b: Vec<u64> = every.iter().copied().filter(|index| index % 3 == 2).collect();
    for (query, wanted) in [("limit=7", &every), ("limit=30", &every), ("subject=app.b&limit=3", &of_b)] {
        let up = pages(&node, query);
        assert!(up.iter().all(|page| page.len() <= 30) && up[0].len() > 1, "{query}: {up:?}");
        assert_eq!(&up.concat(), wanted, "{query}");
        let mut down = pages(&node, &format!("{query}&order=desc")).concat();
        down.reverse();
        assert_eq!(&down, wanted, "{query}, the newest first");
    }
    let first = items(&events(&node, "limit=1").json());
    assert_eq!(
        (&first[0]["id"], &first[0]["subject"], &first[0]["payload"]),
        (&json!(ids[0]), &json!("app.a"), &json!(0))
    );
    let page = events(&node, "limit=2&order=desc").json();
    assert_eq!(indexes(&page), [30, 29]);
    // New events do not move the pages behind a cursor.
    node.publish("app.a", "\"new\"");
    let next =
        events(&node, &format!("limit=2&order=desc&cursor={}", page["next_cursor"].as_str().expect("more"))).json();
    assert_eq!(indexes(&next), [28, 27]);
    assert_eq!(indexes(&events(&node, "from=10&limit=2").json()), [10, 11]);
    assert_eq!(indexes(&events(&node, "from=10&limit=2&order=desc").json()), [10, 9]);
    assert_eq!(events(&node, "from=1000").json(), json!({ "items": [], "next_cursor": null }));
}

#[test]
fn events_are_found_by_the_time_at_which_they_were_created() {
    let node = Node::start(&Options::new());
    for day in 1..=5 {
        let body = json!({ "subject": "app.x", "created_at": format!("2024-03-0{day}T12:00:00.5Z"), "payload": day });
        assert_eq!(node.post(body.to_string()).status, 202);
    }
    node.publish("app.x", "6");
    let found = |query: &str| indexes(&events(&node, query).json());
    assert_eq!(found("since=2024-03-02T12:00:00Z&until=2024-03-04T12:00:00.5Z"), [2, 3]);
    assert_eq!(found("until=2024-03-03T00:00:00Z&order=desc"), [2, 1]);
    assert_eq!(found("since=1h"), [6]);
    assert_eq!(found("until=1h&order=desc&limit=2"), [5, 4]);
    assert_eq!(found("since=2999-01-01T00:00:00Z"), Vec::<u64>::new());
}

#[test]
fn one_event_is_shown_by_its_id_or_index() {
    let (node, ids) = node_with(["app.a", "app.b"]);
    let copy = json!({ "subject": "app.c", "id": "1", "payload": { "n": 1 } }).to_string();
    assert_eq!(node.post(copy).published().index, 3);
    let odd = json!({ "subject": "app.d", "id": "a:b.c", "headers": { "x": "y" } }).to_string();
    assert_eq!(node.post(odd).published().index, 4);
    let one = |which: &str| node.web("GET", &format!("/api/namespaces/app/events/{}", encode(which)), "");
    for (which, index) in [(ids[1].as_str(), 2), ("2", 2), ("1", 3), ("a:b.c", 4), ("4", 4)] {
        let answer = one(which);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{which}");
        assert_eq!(answer.json()["index"], index, "{which}");
    }
    let listed = items(&events(&node, "from=4").json());
    assert_eq!(one("a:b.c").json(), listed[0], "the same event as in a page");
    for missing in ["5", "0", "e_nothing", "18446744073709551616", "-1"] {
        let answer = one(missing);
        assert_eq!((answer.status, answer.json()["code"].as_str()), (404, Some("event_not_found")), "{missing}");
    }
    let other = node.web("GET", &format!("/api/namespaces/none/events/{}", ids[0]), "");
    assert_eq!((other.status, other.json()["code"].as_str()), (404, Some("namespace_not_found")));
}

#[test]
fn events_in_blocks_and_in_the_log_make_one_list_and_those_that_are_gone_none() {
    let node = Node::start(&Options::new());
    let event = json!({ "subject": "app.x", "payload": "x".repeat(2000) });
    assert_eq!(node.post(json!(vec![event; 300]).to_string()).status, 202);
    let head = || node.web("GET", "/api/namespaces/app", "").json();
    wait_for("blocks", SETTLED, || (head()["settled_index"].as_u64() == Some(300)).then_some(()));
    (0..20).for_each(|_| drop(node.publish("app.y", "1")));
    assert_eq!(pages(&node, "limit=100").concat(), (1..=320).collect::<Vec<_>>());
    assert_eq!(pages(&node, "limit=77&order=desc").concat(), (1..=320).rev().collect::<Vec<_>>());
    assert_eq!(pages(&node, "since=1m&subject=app.y").concat(), (301..=320).collect::<Vec<_>>());
    assert_eq!(node.web("GET", "/api/namespaces/app/events/7", "").json()["index"], 7);
    let retention = json!({ "retention": { "max_events": 50 } }).to_string();
    assert_eq!(node.web("PATCH", "/api/namespaces/app", &retention).status, 200);
    let first = wait_for("a trim", SETTLED, || head()["first_index"].as_u64().filter(|first| *first > 200));
    assert_eq!(pages(&node, "order=desc").concat().last(), Some(&first));
    assert_eq!(pages(&node, "from=1&limit=10").concat().first(), Some(&first));
    assert_eq!(node.web("GET", "/api/namespaces/app/events/1", "").status, 404);
}

#[test]
fn a_page_is_bounded_in_bytes() {
    let node = Node::start(&Options::new());
    let payload = format!("\"{}\"", "x".repeat(700_000));
    (0..14).for_each(|_| drop(node.publish("app.x", &payload)));
    for order in ["asc", "desc"] {
        let pages = pages(&node, &format!("limit=1000&order={order}"));
        assert!(pages.len() >= 2 && pages.iter().all(|page| page.len() <= 7), "{order}: {pages:?}");
        assert_eq!(pages.concat().len(), 14, "{order}");
    }
}

#[test]
fn a_wrong_question_is_answered_with_what_would_be_right() {
    let (node, _) = node_with(["app.a", "app.b"]);
    let asc = events(&node, "limit=1").json()["next_cursor"].as_str().expect("more").to_owned();
    let mut failures = Vec::new();
    for (query, part) in [
        ("subject=other.>", "a pattern of the namespace app"),
        ("subject=app", "subject: "),
        ("subject=*.x", "subject: "),
        ("order=up", "order=up: "),
        ("limit=0", "limit=0: 1 to 1000"),
        ("limit=1001", "limit=1001: 1 to 1000"),
        ("from=-1", "from=-1: a whole number from 0"),
        ("since=yesterday", "since=yesterday: a time as 2026-11-21T10:00:00Z, or how long ago, as 1h"),
        ("until=2024-13-01T00:00:00Z", "until=2024-13-01T00:00:00Z: a time"),
        ("colour=red", "there is no query parameter colour"),
        ("cursor=abc", "the next_cursor of a page of this list"),
        (&*format!("order=desc&cursor={asc}"), "the next_cursor of a page of this list"),
    ] {
        let answer = events(&node, query);
        let detail = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
        if answer.status != 400 || !detail.contains(part) {
            failures.push(format!("{query}: {} {detail:?}, expected {part:?}", answer.status));
        }
    }
    let missing = node.web("GET", "/api/namespaces/none/events", "");
    if missing.status != 404 || missing.json()["code"] != "namespace_not_found" {
        failures.push(format!("none: {} {}", missing.status, missing.text()));
    }
    report("wrong questions", &failures);
}

#[test]
fn the_command_line_lists_and_shows_events() {
    let (node, ids) = node_with((0..25).map(|_| "app.x"));
    let run = |line: &str| {
        let mut command = rollbook();
        command.args(line.split(' ')).args(["--web-url", &format!("http://{}", node.web)]);
        run_command(command, b"", SOON)
    };
    let listed = run("events list app.> --limit 3 -o json");
    assert_eq!(listed.code, Some(0), "{}", listed.stderr);
    let found: Vec<Value> = serde_json::from_str(&listed.stdout).expect("an array");
    assert_eq!(found.iter().map(|event| event["index"].as_u64()).collect::<Vec<_>>(), [Some(25), Some(24), Some(23)]);
    let table = run("events list app.> --order asc --from 2 --limit 2").stdout;
    assert!(table.lines().count() == 3 && table.contains(&ids[1]) && table.contains(&ids[2]), "{table}");
    let shown: Value = serde_json::from_str(&run(&format!("events show app {}", ids[4])).stdout).expect("an event");
    assert_eq!((&shown["index"], &shown["payload"]), (&json!(5), &json!(4)));
    let missing = run("events show app 99");
    assert!(missing.code == Some(1) && missing.stderr.contains("event not found: 99"), "{}", missing.stderr);
}
