//! What all of REST has in common.

use crate::harness::http::{Http, Response};
use crate::harness::node::{Node, Options};

/// A request without the content type that other tests send.
fn plain(node: &Node, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
    Http::connect(node.web).request(method, target, headers, body)
}

/// The families of a page: name, kind, lines of samples. Refuses what a strict parser refuses.
fn families(text: &str) -> Result<Vec<(String, String, Vec<String>)>, String> {
    let mut families: Vec<(String, String, Vec<String>)> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with("# HELP ") && *line != "# EOF") {
        if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, kind) = typed.split_once(' ').ok_or(line)?;
            if families.iter().any(|(known, ..)| known == name) {
                return Err(format!("{name} twice"));
            }
            families.push((name.to_owned(), kind.to_owned(), Vec::new()));
            continue;
        }
        let (name, kind, samples) = families.last_mut().ok_or(line)?;
        let sample = line.split(['{', ' ']).next().unwrap_or_default();
        let known = sample == name || (kind == "counter" && sample.strip_suffix("_total") == Some(name.as_str()));
        if !known {
            return Err(format!("{line:?} among the samples of {name}"));
        }
        samples.push(line.to_owned());
    }
    Ok(families)
}

#[test]
fn metrics_are_whole_families_in_the_form_that_is_asked_for() {
    let node = Node::start(&Options::new());
    for n in 0..3 {
        node.publish(&format!("ns{n}.x"), "1");
    }
    let get = |accept: &str| plain(&node, "GET", "/metrics", &[("Accept", accept)], b"");
    let open = get("application/openmetrics-text; version=1.0.0, text/plain; q=0.5");
    assert_eq!(open.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    assert!(open.text().ends_with("# EOF\n"));
    let text = get("*/*");
    assert_eq!(text.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(!text.text().contains("# EOF"));
    for answer in [&open, &text] {
        let families = families(&answer.text()).expect("what a strict parser takes");
        let of = |name: &str| families.iter().find(|(known, ..)| known == name).cloned();
        let (_, kind, samples) = of("rollbook_namespace_events").expect("a family");
        assert!(kind == "gauge" && samples.len() >= 3, "{samples:?}");
        let name = if std::ptr::eq(answer, &open) { "rollbook_events" } else { "rollbook_events_total" };
        assert_eq!(of(name), Some((name.to_owned(), "counter".to_owned(), vec!["rollbook_events_total 3".to_owned()])));
    }
}

#[test]
fn only_so_many_namespaces_have_metrics_of_their_own() {
    let node = Node::start(&Options::new().env("ROLLBOOK_WEB__METRICS_NAMESPACES_MAX", "2"));
    for n in 0..5 {
        node.publish(&format!("ns{n}.x"), "1");
    }
    let text = node.web("GET", "/metrics", "").text();
    assert_eq!(text.matches("rollbook_namespace_events{").count(), 2, "{text}");
    let all = node.web("GET", "/api/namespaces", "").json()["items"].as_array().map_or(0, Vec::len);
    assert!(text.contains(&format!("\nrollbook_namespaces {all}\n")), "{text}");
    assert!(text.contains(&format!("\nrollbook_namespaces_not_shown {}\n", all - 2)), "{text}");
    assert!(text.contains("\nrollbook_events_stored 5\n"), "{text}");
}
