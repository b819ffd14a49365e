//! Who may import whom: floors, doors, circles, re-exports, hidden crates.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Tree;
use super::source::{Said, read, tokens};

/// Source folders of the three crates.
pub(crate) const CRATES: [&str; 3] = ["src", "cluster/src", "cluster/core/src"];

/// Which file points at which, within one crate. Tests may point anywhere, but for a room of tests such as the simulation.
pub(crate) fn arrows(tree: &Tree, root: &str) -> BTreeMap<String, BTreeSet<String>> {
    let files = || tree.iter().filter_map(|(path, text)| Some((path, module(root, path)?, text)));
    let modules: BTreeMap<Vec<String>, &String> =
        files().filter(|(path, ..)| !path.ends_with("/main.rs")).map(|(path, module, _)| (module, path)).collect();
    let mut said: BTreeMap<&String, Said> = BTreeMap::new();
    let mut tests = BTreeSet::new();
    for (path, module, text) in files() {
        let file = read(&module, text);
        let is_room = |name: &String| module.is_empty() && CLUSTER.contains(&name.as_str());
        let inside = file.test_modules.iter().filter(|name| !is_room(name));
        tests.extend(inside.map(|name| [&module[..], std::slice::from_ref(name)].concat()));
        said.insert(path, file);
    }
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, module, _) in files() {
        let in_tests = (1..=module.len()).any(|length| tests.contains(&module[..length]));
        if in_tests || path.ends_with("/tests.rs") || path.ends_with("/suite.rs") {
            continue;
        }
        let out = found.entry(path.clone()).or_default();
        for import in &said[path].paths {
            let (import, least) = match import.split_first() {
                // A child of this module, or else another crate.
                Some((mark, rest)) if mark == "?" => (rest, module.len() + 1),
                _ => (&import[..], 0),
            };
            let target = (least..=import.len()).rev().find_map(|length| modules.get(&import[..length]));
            out.extend(target.filter(|target| **target != path).map(|target| (*target).clone()));
        }
    }
    found
}

/// The module path of a file of the crate under `root`.
fn module(root: &str, path: &str) -> Option<Vec<String>> {
    let inner = path.strip_prefix(root)?.strip_prefix('/')?.strip_suffix(".rs")?;
    let mut names: Vec<String> = inner.split('/').map(str::to_owned).collect();
    names.pop_if(|last| matches!(last.as_str(), "mod" | "lib" | "main"));
    Some(names)
}

/// The rooms of `src/bus` from the bottom up: each may import those before it. Files beside the rooms are rooms too.
const BUS: [&str; 25] = [
    "mod.rs",
    "error.rs",
    "jobs.rs",
    "security",
    "write",
    "read",
    "live",
    "delivery",
    "handle.rs",
    "xbus",
    "consume",
    "subscribe",
    "client",
    "call",
    "relay",
    "docks",
    "roll",
    "access",
    "schedules",
    "guard.rs",
    "tickets.rs",
    "live_peers.rs",
    "live_events.rs",
    "book_client.rs",
    "call_handler.rs",
];

/// The same of `cluster/src`. Files that are not named here are at the bottom, and know none of the rooms.
const CLUSTER: [&str; 16] = [
    "lib.rs",
    "store",
    "log",
    "tls",
    "ledger",
    "state",
    "stores.rs",
    "book",
    "peer",
    "replicate",
    "status.rs",
    "propose",
    "member",
    "node",
    "running",
    "sim",
];

/// Where a file stands: its floor, the place of its room on the floor, and the room.
fn room(path: &str) -> Option<((u8, usize), String)> {
    if let Some(inner) = path.strip_prefix("cluster/src/") {
        let room = inner.split('/').next()?;
        let place = CLUSTER.iter().position(|known| *known == room);
        return match place {
            Some(place) => Some(((1, place), format!("cluster/{room}"))),
            None if room == inner => Some(((1, 0), "cluster".to_owned())),
            None => None,
        };
    }
    let mut parts = path.strip_prefix("src/")?.split('/');
    let (first, second, third) = (parts.next()?, parts.next(), parts.next());
    match (first, second, third) {
        ("main.rs" | "lib.rs", None, _) => Some(((7, 0), "the roof".to_owned())),
        ("app", ..) => Some(((6, 0), "app".to_owned())),
        ("doors", Some(door), Some(_)) => Some(((5, 0), format!("doors/{door}"))),
        ("doors", ..) => Some(((5, 0), "doors".to_owned())),
        ("admin", ..) => Some(((5, 0), "admin".to_owned())),
        ("bus", Some(room), _) => {
            let place = BUS.iter().position(|known| *known == room)?;
            Some(((4, place), format!("bus/{room}")))
        }
        ("net", ..) => Some(((3, 0), "net".to_owned())),
        ("base", ..) => Some(((2, 0), "base".to_owned())),
        _ => None,
    }
}

pub(crate) fn floors(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for (from, targets) in ["src", "cluster/src"].into_iter().flat_map(|root| arrows(tree, root)) {
        let Some((place, name)) = room(&from) else {
            findings.push(format!("{from}: stands on no floor of the house, or in no room that tests/tidy knows"));
            continue;
        };
        for (to, (below, other)) in targets.iter().filter_map(|to| Some((to, room(to)?))) {
            let table =
                name == "doors" && other.starts_with("doors/") || other == "doors" && name.starts_with("doors/");
            // The agent of a dock is the other end of the protocol of its door.
            let other_end = from.starts_with("src/app/dock/") && to.starts_with("src/doors/hms/wire/");
            if below < place && other.starts_with("doors/") && !name.starts_with("doors") && !other_end {
                findings.push(format!("{from} must not name {other}: only the list in src/doors/mod.rs does"));
            }
            if below >= place && other != name && !table {
                let (floor, above) = (place.0, below.0);
                findings.push(format!("{from} (floor {floor}, {name}) must not import {to} (floor {above}, {other})"));
            }
        }
    }
    findings
}

pub(crate) fn circles(tree: &Tree) -> Vec<String> {
    CRATES.into_iter().flat_map(|root| circles_of(arrows(tree, root))).collect()
}

/// All circles of what points at what.
pub(crate) fn circles_of(mut graph: BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut findings = Vec::new();
    while let Some(circle) = circle(graph.clone()) {
        findings.push(format!("import circle: {} -> {}", circle.join(" -> "), circle[0]));
        // Without one of its arrows, the next circle shows.
        if let Some(targets) = circle.last().and_then(|last| graph.get_mut(last)) {
            targets.remove(&circle[0]);
        }
    }
    findings
}

/// A shortest circle: pairs are shown before the long ways around that they are part of.
fn circle(mut graph: BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    loop {
        // Peels off the files that point at nothing that is left.
        let left: BTreeSet<String> = graph.keys().cloned().collect();
        graph.values_mut().for_each(|targets| targets.retain(|target| left.contains(target)));
        graph.retain(|_, targets| !targets.is_empty());
        if graph.len() == left.len() {
            break;
        }
    }
    graph.keys().filter_map(|start| way_back(&graph, start)).min_by_key(Vec::len)
}

/// The shortest way from a file to itself, breadth first.
fn way_back(graph: &BTreeMap<String, BTreeSet<String>>, start: &String) -> Option<Vec<String>> {
    let (mut ways, mut seen) = (VecDeque::from([vec![start.clone()]]), BTreeSet::new());
    while let Some(way) = ways.pop_front() {
        for next in graph.get(way.last()?).into_iter().flatten() {
            if next == start {
                return Some(way);
            }
            if seen.insert(next) {
                ways.push_back([&way[..], std::slice::from_ref(next)].concat());
            }
        }
    }
    None
}

pub(crate) fn reexports(tree: &Tree) -> Vec<String> {
    let rooms = tree.iter().filter(|(path, _)| path.ends_with("/mod.rs") || path.ends_with("/lib.rs"));
    let knots = rooms.filter(|(path, text)| in_crate(path) && read(&[], text).reexports);
    knots.map(|(path, _)| format!("{path}: re-exports hide where a thing lives; name the file instead")).collect()
}

pub(crate) fn hidden_crates(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for (path, text) in tree.iter().filter(|(path, _)| path.starts_with("src/") && path.ends_with(".rs")) {
        let named = tokens(text);
        let hidden = ["openraft", "rocksdb", "librocksdb_sys"].into_iter().filter(|name| named.contains(name));
        findings.extend(hidden.map(|name| format!("{path}: {name} is a matter of the cluster crate alone")));
    }
    findings
}

fn in_crate(path: &str) -> bool {
    path.ends_with(".rs") && CRATES.iter().any(|root| path.starts_with(&format!("{root}/")))
}

#[cfg(test)]
fn bus_and(files: &[(&str, &str)]) -> Tree {
    let mut tree = super::tree(&[("src/bus/mod.rs", "pub mod handle;"), ("src/bus/handle.rs", "")]);
    tree.append(&mut super::tree(files));
    tree
}

#[test]
fn an_arrow_that_points_up_is_reported() {
    let (door, list) = ("use crate::bus::handle::Bus;", "pub mod sse; fn all() { sse::open(); }");
    let app = |text| [("src/doors/sse/mod.rs", door), ("src/doors/mod.rs", list), ("src/app/run.rs", text)];
    assert_eq!(floors(&bus_and(&app("use crate::doors;"))), [""; 0]);
    let named = "src/app/run.rs must not name doors/sse: only the list in src/doors/mod.rs does";
    assert_eq!(floors(&bus_and(&app("use crate::doors::sse;"))), [named]);
    let up = bus_and(&[
        ("src/bus/read/feed.rs", "fn f() { use crate::doors::sse::Frame; }"),
        ("src/bus/read/stored_event.rs", "fn f() { super::super::super::app::run(); }"),
        ("src/doors/sse/mod.rs", "use crate::app::{run::{self}};"),
        ("src/app/mod.rs", ""),
        ("src/app/run.rs", ""),
    ]);
    assert_eq!(
        floors(&up),
        [
            "src/bus/read/feed.rs (floor 4, bus/read) must not import src/doors/sse/mod.rs (floor 5, doors/sse)",
            "src/bus/read/stored_event.rs (floor 4, bus/read) must not import src/app/run.rs (floor 6, app)",
            "src/doors/sse/mod.rs (floor 5, doors/sse) must not import src/app/run.rs (floor 6, app)",
        ]
    );
    let rooms = bus_and(&[
        ("src/net/mod.rs", "use crate::bus::read::feed::Feed;"),
        ("src/bus/read/feed.rs", "use crate::bus::consume::registry::Registry;"),
        ("src/bus/consume/registry.rs", "use crate::net; use crate::bus::write;"),
        ("src/bus/write/mod.rs", ""),
    ]);
    assert_eq!(
        floors(&rooms),
        [
            "src/bus/read/feed.rs (floor 4, bus/read) must not import src/bus/consume/registry.rs (floor 4, bus/consume)",
            "src/net/mod.rs (floor 3, net) must not import src/bus/read/feed.rs (floor 4, bus/read)",
        ]
    );
    assert_eq!(
        floors(&bus_and(&[("src/helpers.rs", "")])),
        ["src/helpers.rs: stands on no floor of the house, or in no room that tests/tidy knows"]
    );
}

#[test]
fn a_door_that_looks_into_another_or_into_the_admin_is_reported() {
    let doors = [
        ("src/doors/mod.rs", "use self::sse::mount;"),
        ("src/doors/sse/mod.rs", ""),
        ("src/doors/sse/codec.rs", "use super::super::nats::codec::Frame;"),
        ("src/doors/nats/mod.rs", ""),
        ("src/doors/nats/codec.rs", "use crate::admin::rest;"),
        ("src/admin/mod.rs", ""),
        ("src/admin/rest.rs", "use crate::doors::sse;"),
    ];
    assert_eq!(
        floors(&bus_and(&doors)),
        [
            "src/admin/rest.rs (floor 5, admin) must not import src/doors/sse/mod.rs (floor 5, doors/sse)",
            "src/doors/nats/codec.rs (floor 5, doors/nats) must not import src/admin/rest.rs (floor 5, admin)",
            "src/doors/sse/codec.rs (floor 5, doors/sse) must not import src/doors/nats/codec.rs (floor 5, doors/nats)",
        ]
    );
}

#[test]
fn a_circle_is_printed_in_any_of_the_three_crates() {
    for root in CRATES {
        let path = |name: &str| format!("{root}/{name}");
        let texts =
            ["pub mod b; use b::X;", "fn f() { use super::c; }", "use {crate::a::Y, std::fmt};", "use crate::a;"];
        let files = [path("a/mod.rs"), path("a/b.rs"), path("a/c.rs"), path("d.rs")];
        let tree: Tree = files.iter().cloned().zip(texts.map(str::to_owned)).collect();
        assert_eq!(circles(&tree), [format!("import circle: {1} -> {2} -> {0} -> {1}", files[0], files[1], files[2])]);
    }
}

#[test]
fn every_circle_is_printed_and_tests_may_look_anywhere() {
    let pairs = [("src/a.rs", "use crate::b;"), ("src/b.rs", "use crate::a;"), ("src/c.rs", "use crate::d;")];
    let tree = super::tree(&[&pairs[..], &[("src/d.rs", "#[cfg(test)] mod tests { use crate::c; }")]].concat());
    assert_eq!(circles(&tree), ["import circle: src/a.rs -> src/b.rs -> src/a.rs"]);
    let room = [
        ("cluster/src/lib.rs", "#[cfg(test)] mod sim;"),
        ("cluster/src/sim/net.rs", "use super::world::World;"),
        ("cluster/src/sim/world.rs", "use super::net::Net;"),
    ];
    assert_eq!(circles(&super::tree(&room)).len(), 1, "a room of tests is no exception");
    let helper = [("src/a.rs", "#[cfg(test)] mod help; use x::y;"), ("src/a/help.rs", "use super::Z;")];
    assert_eq!(circles(&super::tree(&helper)), [""; 0]);
    assert_eq!(circles(&super::tree(&[("src/a.rs", "use crate::b;"), ("src/b.rs", "use crate::a;")])).len(), 1);
}

#[test]
fn a_re_export_and_a_hidden_crate_are_reported() {
    let tree =
        bus_and(&[("src/app/mod.rs", "mod run; pub use run::Run;"), ("src/bus/read/feed.rs", "use openraft::Raft;")]);
    assert_eq!(reexports(&tree).len(), 1);
    assert_eq!(hidden_crates(&tree), ["src/bus/read/feed.rs: openraft is a matter of the cluster crate alone"]);
    assert_eq!(hidden_crates(&bus_and(&[("src/bus/x.rs", "// not openraft\nconst A: &str = \"rocksdb\";")])), [""; 0]);
}
