//! `/metrics`: the counters and gauges of the node, for Prometheus.
//!
//! `Accept` chooses OpenMetrics 1.0.0 or the older text format 0.0.4. Invariant: all samples of a family stand
//! together behind its `# TYPE`, because a strict parser refuses the page otherwise.

use std::fmt::Write as _;

use actix_web::http::header::{ACCEPT, CONTENT_TYPE, VARY};
use actix_web::{HttpRequest, HttpResponse, web};
use rollbook_core::machine::Machine;
use rollbook_core::namespace::Head;
use rollbook_core::subjects::subject::Namespace;

use crate::admin::Admin;
use crate::admin::operation::get;
use crate::admin::problem::Problem;
use crate::admin::resource::resource;
use page::Page;

mod page;
mod xbus;

const OPEN_METRICS: &str = "application/openmetrics-text";
const TEXT: &str = "text/plain";

pub(in crate::admin) fn mount(services: &mut web::ServiceConfig) {
    services.service(resource("/metrics", [get("metrics")]).route(web::get().to(metrics)));
}

async fn metrics(admin: web::Data<Admin>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let accepts = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut counted = String::new();
    prometheus_client::encoding::text::encode_registry(&mut counted, &admin.metrics)
        .map_err(|error| Problem::new(500, "internal", format!("metrics: {error}")))?;
    let mut page = Page { text: counted };
    look_up(&admin, &mut page);
    let (kind, text) = if wants_open_metrics(accepts) {
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", page.text + "# EOF\n")
    } else {
        ("text/plain; version=0.0.4; charset=utf-8", older(&page.text))
    };
    Ok(HttpResponse::Ok().insert_header((CONTENT_TYPE, kind)).insert_header((VARY, "Accept")).body(text))
}

/// Whether a scraper prefers OpenMetrics, by the qualities of RFC 9110, 12.5.1. A scraper that takes anything gets
/// the older format, which every parser knows.
fn wants_open_metrics(accept: &str) -> bool {
    let mut open: Option<f32> = None;
    let mut text: Option<f32> = None;
    let mut any: f32 = 0.0;
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let parameters: Vec<(&str, &str)> = parts.filter_map(|part| part.split_once('=')).collect();
        let named = |wanted: &str| {
            let found = parameters.iter().find(|(name, _)| name.trim().eq_ignore_ascii_case(wanted));
            found.map(|(_, value)| value.trim().trim_matches('"'))
        };
        let quality = named("q").and_then(|value| value.parse().ok()).unwrap_or(1.0);
        match kind.as_str() {
            // Version 0.0.1 is a draft that no scraper uses any more.
            OPEN_METRICS if named("version").is_none_or(|version| version == "1.0.0") => {
                open = Some(open.unwrap_or(0.0).max(quality));
            }
            TEXT | "text/*" => text = Some(text.unwrap_or(0.0).max(quality)),
            "*/*" => any = any.max(quality),
            _ => {}
        }
    }
    open.is_some_and(|open| open > 0.0 && open >= text.unwrap_or(any))
}

/// Converts the page to the text format 0.0.4, where a counter has the name of its samples.
fn older(open_metrics: &str) -> String {
    let typed = |line: &str| {
        let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
        Some((name.to_owned(), kind.to_owned()))
    };
    let counters: std::collections::HashSet<String> =
        open_metrics.lines().filter_map(typed).filter(|(_, kind)| kind == "counter").map(|(name, _)| name).collect();
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines() {
        let named = ["# HELP ", "# TYPE "].into_iter().find_map(|start| {
            let (name, rest) = line.strip_prefix(start)?.split_once(' ')?;
            counters.contains(name).then_some((start, name, rest))
        });
        // Writing into a string cannot fail.
        match named {
            Some((start, name, rest)) => writeln!(text, "{start}{name}_total {rest}").unwrap_or_default(),
            None if line.starts_with("# UNIT ") => {}
            None => writeln!(text, "{line}").unwrap_or_default(),
        }
    }
    text
}

fn look_up(admin: &Admin, page: &mut Page) {
    let node = admin.bus.node();
    let proposer = admin.bus.proposer();
    let status = node.consensus().status();
    page.gauge("rollbook_is_leader", "1 on the leader", u8::from(status.role == "leader"));
    page.gauge("rollbook_raft_term", "Raft term", status.term);
    page.gauge("rollbook_raft_first_index", "First entry still in the log of this node", status.first_index);
    page.gauge("rollbook_raft_last_index", "Last entry in the log of this node", status.last_index);
    page.gauge("rollbook_raft_applied_index", "Last entry applied on this node", status.applied_index);
    page.gauge("rollbook_disk_free_bytes", "Free bytes of the data directory", proposer.free_bytes());
    let help = "Files that can still be created in the data directory";
    page.gauge("rollbook_disk_free_inodes", help, proposer.free_inodes());
    page.gauge("rollbook_disk_low", "1 while publishes are refused for lack of disk", u8::from(proposer.is_disk_low()));
    let level = node.state().with_machine(|machine| machine.level().get());
    page.gauge("rollbook_feature_level", "Which version of the rules the cluster follows", level);
    let help = "Seconds that the clocks are ahead of the time of the log while that is in doubt, else 0";
    page.gauge("rollbook_clock_skew_seconds", help, seconds(node.state().clock_skew()));
    let machine = node.state().with_machine(Machine::clone);
    let delayed = machine.delayed();
    page.gauge("rollbook_delayed_events", "Events that wait for their time", delayed.events());
    page.gauge("rollbook_delayed_bytes", "Bytes of the events that wait for their time", delayed.bytes());
    page.family("rollbook_delayed_dropped", "counter", "Waiting events that were dropped with their namespace");
    writeln!(page.text, "rollbook_delayed_dropped_total {}", delayed.dropped()).unwrap_or_default();
    xbus::look_up(machine.xbus(), page);
    page.gauge("rollbook_schedules", "Schedules, paused ones included", machine.schedules().count());
    let help = "When the next event of a schedule leaves, in seconds since 1970; 0 when there is none";
    page.gauge("rollbook_schedules_next_seconds", help, machine.schedules().next_due().unwrap_or_default() / 1000);
    of_namespaces(&node.state().namespaces(), admin.config.metrics_namespaces_max, page);
    if let Some((cpu_seconds, resident_bytes)) = process() {
        page.family("process_cpu_seconds", "counter", "User and system time of the process");
        writeln!(page.text, "process_cpu_seconds_total {cpu_seconds}").unwrap_or_default();
        page.gauge("process_resident_memory_bytes", "Memory of the process that is in RAM", resident_bytes);
    }
}

/// A family with a sample for each namespace.
type OfNamespace = (&'static str, &'static str, fn(&Head) -> u64);

const OF_NAMESPACE: [OfNamespace; 5] = [
    ("rollbook_namespace_events", "Events of the namespace", Head::events),
    ("rollbook_namespace_last_index", "Index of its newest event", Head::last),
    ("rollbook_namespace_bytes", "Bytes of its events", Head::bytes),
    ("rollbook_namespace_dedupe_keys", "Dedupe keys that it remembers", |head| head.dedupe.unwrap_or_default().keys()),
    ("rollbook_namespace_dedupe_keys_evicted", "Dedupe keys that it forgot before their time", |head| {
        head.dedupe.unwrap_or_default().keys_evicted
    }),
];

/// Writes sums over all namespaces, and samples for at most `shown_max` of them: namespaces of the node first, then
/// by name. A cluster may have 100,000 namespaces, too many series for Prometheus.
fn of_namespaces(heads: &[Head], shown_max: usize, page: &mut Page) {
    let sum = |of: fn(&Head) -> u64| heads.iter().fold(0_u64, |sum, head| sum.saturating_add(of(head)));
    page.gauge("rollbook_namespaces", "Namespaces", heads.len());
    let help = "Namespaces without samples of their own, because there are more than web.metrics_namespaces_max";
    page.gauge("rollbook_namespaces_not_shown", help, heads.len().saturating_sub(shown_max));
    page.gauge("rollbook_events_stored", "Events of all namespaces", sum(Head::events));
    page.gauge("rollbook_events_stored_bytes", "Bytes of the events of all namespaces", sum(Head::bytes));
    let (own, others): (Vec<&Head>, Vec<&Head>) = heads.iter().partition(|head| Namespace::is_reserved(&head.name));
    let shown: Vec<&Head> = own.into_iter().chain(others).take(shown_max).collect();
    for (name, help, of) in OF_NAMESPACE {
        page.family(name, "gauge", help);
        for head in &shown {
            // The name of a namespace needs no escapes.
            writeln!(page.text, "{name}{{namespace=\"{}\"}} {}", head.name, of(head)).unwrap_or_default();
        }
    }
}

/// Milliseconds as seconds, exact.
fn seconds(millis: i64) -> String {
    let sign = if millis < 0 { "-" } else { "" };
    let millis = millis.unsigned_abs();
    format!("{sign}{}.{:03}", millis / 1000, millis % 1000)
}

/// CPU seconds and resident bytes of this process, from /proc.
fn process() -> Option<(String, u64)> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the process may hold spaces, so the fields are read behind its bracket. User and system time are
    // fields 14 and 15.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()?.saturating_add(fields.next()?.parse().ok()?);
    let pages: u64 = std::fs::read_to_string("/proc/self/statm").ok()?.split_whitespace().nth(1)?.parse().ok()?;
    // USER_HZ is 100 on every Linux that Rust supports.
    Some((format!("{}.{:02}", ticks / 100, ticks % 100), pages.saturating_mul(4096)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heads(names: &[&str]) -> Vec<Head> {
        names.iter().map(|name| Head { name: (*name).to_owned(), ..Head::default() }).collect()
    }

    fn page(heads: &[Head], shown_max: usize) -> String {
        let mut page = Page { text: String::new() };
        of_namespaces(heads, shown_max, &mut page);
        page.text
    }

    #[test]
    fn all_samples_of_a_family_stand_together_behind_its_type() {
        let text = page(&heads(&["a", "b", "roll"]), 10);
        let mut family = "";
        let mut seen = std::collections::BTreeSet::new();
        for line in text.lines().filter(|line| !line.starts_with("# HELP ")) {
            if let Some(typed) = line.strip_prefix("# TYPE ") {
                family = typed.strip_suffix(" gauge").unwrap();
                assert!(seen.insert(family), "{family} twice");
            } else {
                assert_eq!(line.split(['{', ' ']).next(), Some(family), "{line}");
            }
        }
        assert!(text.contains("rollbook_namespace_events{namespace=\"b\"} 0\n"), "{text}");
    }

    #[test]
    fn only_so_many_namespaces_have_samples_and_those_of_the_node_come_first() {
        let text = page(&heads(&["a", "b", "c", "roll"]), 2);
        let shown = |name: &str| text.matches(&format!("{{namespace=\"{name}\"}}")).count();
        assert_eq!(["a", "b", "c", "roll"].map(shown), [OF_NAMESPACE.len(), 0, 0, OF_NAMESPACE.len()]);
        assert!(
            text.contains("rollbook_namespaces 4\n") && text.contains("rollbook_namespaces_not_shown 2\n"),
            "{text}"
        );
        assert!(!page(&heads(&["a"]), 0).contains("namespace=\""));
    }

    #[test]
    fn the_form_is_the_one_that_is_preferred() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for open in [
            prometheus,
            "application/openmetrics-text",
            "text/plain;q=0.5, application/openmetrics-text; version=\"1.0.0\"",
        ] {
            assert!(wants_open_metrics(open), "{open}");
        }
        let older = "application/openmetrics-text;q=0.3, text/plain;q=0.5";
        for text in [
            "",
            "*/*",
            "text/plain",
            older,
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;version=0.0.1",
        ] {
            assert!(!wants_open_metrics(text), "{text}");
        }
    }

    #[test]
    fn the_older_form_calls_a_counter_as_its_samples_are() {
        let open = "# HELP a_b Help.\n# TYPE a_b counter\na_b_total 1\n# HELP c Help.\n# TYPE c gauge\nc 2\n";
        let text =
            "# HELP a_b_total Help.\n# TYPE a_b_total counter\na_b_total 1\n# HELP c Help.\n# TYPE c gauge\nc 2\n";
        assert_eq!(older(open), text);
    }

    #[test]
    fn times_are_written_exactly() {
        assert_eq!([0, 1, -1500, 12_345].map(seconds), ["0.000", "0.001", "-1.500", "12.345"]);
    }
}
