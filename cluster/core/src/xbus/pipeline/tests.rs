//! Pipelines: which documents become graphs, what is said of the others, and how versions change.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use proptest::prelude::*;

use super::check::Fault;
use super::document::{Document, NodeDocument, NodeKind};
use super::graph::{ActorView, Graph, Port, Trigger};
use super::version::{PipelineRow, PipelineStatus, VersionError};
use crate::xbus::id::Id;
use crate::xbus::limits::{EDGES_MAX, FAULTS_MAX, NODES_MAX};

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_string()).collect()
}

/// A node that names the role `r`.
fn node(id: &str, kind: NodeKind, inputs: &[&str], outputs: &[&str]) -> NodeDocument {
    let node = NodeDocument { id: id.into(), roles: texts(&["r"]), ..NodeDocument::default() };
    node.complete(Some(kind), Some(texts(inputs)), Some(texts(outputs)))
}

fn emitter(id: &str) -> NodeDocument {
    node(id, NodeKind::Emitter, &[], &["default"])
}

fn worker(id: &str) -> NodeDocument {
    node(id, NodeKind::Worker, &["default"], &["default"])
}

fn consumer(id: &str) -> NodeDocument {
    node(id, NodeKind::Consumer, &["default"], &[])
}

fn document(nodes: &[NodeDocument], edges: &[&str]) -> Document {
    Document { nodes: nodes.to_vec(), edges: texts(edges) }
}

fn faults(nodes: &[NodeDocument], edges: &[&str]) -> Vec<String> {
    let faults = Graph::parse(&document(nodes, edges)).expect_err("a document with faults");
    faults.iter().map(Fault::to_string).collect()
}

const LINE: [&str; 2] = ["e.default->w.default", "w.default->c.default"];

#[test]
fn a_line_of_three_nodes_is_a_graph() {
    let graph = Graph::parse(&document(&[consumer("c"), worker("w"), emitter("e")], &LINE)).unwrap();
    assert_eq!(graph.order(), [2, 1, 0]);
    assert_eq!(graph.find("w"), Some(1));
    let from = Port { node: 1, port: 0 };
    assert_eq!(graph.targets(from).collect::<Vec<_>>(), [Port { node: 0, port: 0 }]);
    assert_eq!(graph.feeders(Port { node: 0, port: 0 }), 1);
    assert_eq!(graph.edges().len(), 2);
}

#[test]
fn each_fault_has_its_text() {
    let (e, w, c) = (emitter("e"), worker("w"), consumer("c"));
    let all = [e.clone(), w.clone(), c.clone()];
    let with = |edge: &str| faults(&all, &[LINE[0], LINE[1], edge]);
    assert_eq!(with("w.default->w.default"), ["cycle through w"]);
    assert_eq!(with("x.default->w.default"), ["unknown node x"]);
    assert_eq!(with("e.default->x.default"), ["unknown node x"]);
    assert_eq!(with("e.other->w.default"), ["unknown output e.other"]);
    assert_eq!(with("e.default->w.other"), ["unknown input w.other"]);
    assert_eq!(with("e.other->x.default"), ["unknown output e.other", "unknown node x"]);
    assert_eq!(with("c.default->w.default"), ["unknown output c.default"]);
    assert_eq!(with(LINE[0]), [format!("duplicate edge {}", LINE[0])]);
    for malformed in ["e.default", "e->w", "e.default->", "e.a.b->w.default", "a b.c->d.e", "->", ""] {
        assert_eq!(with(malformed), [format!("malformed edge `{malformed}`: write node.output->node.input")]);
    }
    assert_eq!(faults(&[], &[]), ["no emitter node"]);
    let nobody = NodeDocument { roles: Vec::new(), ..e.clone() };
    assert_eq!(faults(&[nobody], &[]), ["node e names no actor or role"]);
    assert_eq!(faults(&[e.clone(), e.clone()], &[]), ["duplicate node e"]);
    assert_eq!(faults(&[e.clone(), c.clone()], &[]), ["no edge leads to input c.default"]);
    let kinds = [
        (node("n", NodeKind::Emitter, &["i"], &["o"]), "emitter n has inputs"),
        (node("n", NodeKind::Emitter, &[], &[]), "emitter n has no output"),
        (node("n", NodeKind::Worker, &[], &["o"]), "worker n has no input"),
        (node("n", NodeKind::Consumer, &[], &["o"]), "consumer n has outputs"),
        (node("n", NodeKind::Consumer, &[], &[]), "consumer n has no input"),
        (node("n", NodeKind::Unknown, &[], &[]), "node n has no type: write emitter, worker or consumer"),
        (node("n", NodeKind::Emitter, &[], &["o", "o"]), "duplicate output n.o"),
        (NodeDocument { role_broadcast: true, ..emitter("n") }, "emitter n cannot have rolebroadcast"),
        (NodeDocument { roles: texts(&[""]), ..emitter("n") }, "node n has an invalid role ``"),
    ];
    for (node, text) in kinds {
        assert_eq!(faults(&[e.clone(), node], &[]), [text]);
    }
    let typed = NodeDocument { event_types: texts(&["t"]), ..c.clone() };
    let text = "node c is no emitter and cannot have sourcematch.eventtypes";
    assert_eq!(faults(&[e.clone(), typed], &["e.default->c.default"]), [text]);
    let actors = texts(&["a"]);
    let broadcast = NodeDocument { role_broadcast: true, roles: Vec::new(), actors, ..c };
    let text = "node c has rolebroadcast and names no role";
    assert_eq!(faults(&[e, broadcast], &["e.default->c.default"]), [text]);
}

#[test]
fn names_become_parts_of_subjects_and_texts() {
    let long = "x".repeat(129);
    for name in ["", "a b", "a.b", "a>b", "*", "a\n", "a\u{7f}", &long] {
        let found = faults(&[emitter(name)], &[]);
        assert!(found[0].starts_with("invalid node name"), "{found:?}");
        let found = faults(&[node("e", NodeKind::Emitter, &[], &[name])], &[]);
        assert!(found[0].starts_with("invalid name"), "{found:?}");
    }
    for name in ["Buchführung", "a-b_c", "1"] {
        assert!(Graph::parse(&document(&[emitter(name)], &[])).is_ok(), "{name}");
    }
}

#[test]
fn a_document_is_bounded_and_so_are_its_faults() {
    let many: Vec<NodeDocument> = (0..=NODES_MAX).map(|at| emitter(&at.to_string())).collect();
    assert_eq!(faults(&many, &[]), ["too many nodes: at most 256"]);
    let edges: Vec<&str> = (0..=EDGES_MAX).map(|_| "x").collect();
    assert_eq!(faults(&[emitter("e")], &edges), ["too many edges: at most 1024"]);
    assert_eq!(faults(&[emitter("e")], &edges[1..]).len(), FAULTS_MAX);
    let huge = NodeDocument { roles: (0..250).map(|_| "r".repeat(2000)).collect(), ..emitter("e") };
    assert_eq!(faults(&[huge], &[]), ["too many bytes: at most 262144"]);
}

#[test]
fn what_the_text_leaves_out_follows_from_the_rest() {
    let bare = || NodeDocument { id: "n".into(), ..NodeDocument::default() };
    let some = |list: &[&str]| Some(texts(list));
    assert_eq!(bare().complete(None, None, some(&["o"])).kind(), NodeKind::Emitter);
    assert_eq!(bare().complete(None, some(&["i"]), None).kind(), NodeKind::Consumer);
    assert_eq!(bare().complete(None, some(&["i"]), some(&["o"])).kind(), NodeKind::Worker);
    assert_eq!(bare().complete(None, None, None).kind(), NodeKind::Unknown);
    let worker = bare().complete(Some(NodeKind::Worker), None, None);
    assert_eq!((worker.inputs, worker.outputs), (texts(&["default"]), texts(&["default"])));
    let emitter = bare().complete(Some(NodeKind::Emitter), None, None);
    assert_eq!((emitter.inputs.len(), emitter.outputs), (0, texts(&["default"])));
}

#[test]
fn an_emitter_matches_by_name_output_and_every_event_type() {
    let id = Id::new([5; 16]);
    let mut e = NodeDocument { event_types: texts(&["a", "b"]), ..emitter("e") };
    e.roles = texts(&["invoices"]);
    let mut any = emitter("any");
    any.roles.clear();
    any.actors = alloc::vec![id.to_string(), "by name".into()];
    let graph = Graph::parse(&document(&[e, any], &[])).unwrap();
    let matching = |number: u8, name: &str, role: &str, output: &str, types: &[&str]| {
        let (roles, event_types) = (texts(&[role]), texts(types));
        let emitter = ActorView { id: Id::new([number; 16]), name, roles: &roles };
        graph.matching(Trigger { emitter, output, event_types: &event_types }).collect::<Vec<_>>()
    };
    assert_eq!(matching(1, "x", "invoices", "default", &["a"]), [0]);
    assert_eq!(matching(1, "x", "invoices", "default", &["a", "b", "a"]), [0]);
    assert_eq!(matching(1, "x", "invoices", "default", &[]), [0]);
    assert_eq!(matching(1, "x", "invoices", "default", &["a", "c"]), [0; 0]);
    assert_eq!(matching(1, "x", "invoices", "other", &["a"]), [0; 0]);
    assert_eq!(matching(1, "x", "others", "default", &["a"]), [0; 0]);
    assert_eq!(matching(5, "x", "others", "default", &["c"]), [1]);
    assert_eq!(matching(1, "by name", "invoices", "default", &["a"]), [0, 1]);
}

fn saved(version: &str, nodes: &[NodeDocument]) -> PipelineRow {
    let document = document(nodes, &[]);
    PipelineRow { name: "p".into(), version: version.into(), document, ..PipelineRow::default() }
}

#[test]
fn a_draft_is_saved_again_and_an_active_version_is_not() {
    let mut row = PipelineRow::save(None, saved("1", &[]), 10).unwrap();
    assert_eq!((row.status(), row.created, row.revision), (PipelineStatus::Draft, 10, 1));
    // A draft may have faults; an active version may not.
    let refused = row.change_status(PipelineStatus::Active, 20);
    assert_eq!(refused, Err(VersionError::Faults(alloc::vec![Fault::NoEmitter])));
    row = PipelineRow::save(Some(&row), saved("1", &[emitter("e")]), 30).unwrap();
    assert_eq!((row.created, row.changed, row.revision), (10, 30, 2));
    let change = row.change_status(PipelineStatus::Active, 40).unwrap();
    assert!(change.changed && change.others_end);
    assert!(matches!(PipelineRow::save(Some(&row), saved("1", &[]), 50), Err(VersionError::NoDraft(..))));
    assert!(!row.change_status(PipelineStatus::Active, 60).unwrap().changed);
    assert!(matches!(row.change_status(PipelineStatus::Draft, 60), Err(VersionError::BackToDraft(..))));
    assert!(row.superseded(70) && !row.superseded(80));
    assert_eq!((row.status(), row.changed, row.revision), (PipelineStatus::Inactive, 70, 4));
    // An older version can be active again.
    assert!(row.change_status(PipelineStatus::Active, 90).unwrap().others_end);
}

#[test]
fn a_version_has_a_name_and_a_bounded_text() {
    assert!(matches!(PipelineRow::save(None, saved("", &[]), 1), Err(VersionError::Name("version"))));
    assert!(matches!(PipelineRow::save(None, saved("a\n", &[]), 1), Err(VersionError::Name("version"))));
    let long = PipelineRow { source: "x".repeat(300_000), ..saved("1", &[]) };
    assert_eq!(PipelineRow::save(None, long, 1), Err(VersionError::TooLong));
}

proptest! {
    /// Edges from nodes to later ones never make a cycle, and the order keeps each of them. One edge back between
    /// connected nodes makes one, which is found.
    #[test]
    fn the_order_keeps_every_edge(
        pairs in proptest::collection::btree_set((0_usize..12, 0_usize..12), 0..40),
        back in 0_usize..40,
    ) {
        let forward: BTreeSet<(usize, usize)> = pairs.into_iter().filter(|(a, b)| a < b).collect();
        let edge = |(a, b): &(usize, usize)| format!("n{a}.o->n{b}.i");
        let mut nodes: Vec<NodeDocument> =
            (0..12).map(|at| node(&format!("n{at}"), NodeKind::Worker, &["i"], &["o"])).collect();
        nodes.push(emitter("e"));
        let feeds = (0..12).map(|at| format!("e.default->n{at}.i"));
        let edges: Vec<String> = feeds.chain(forward.iter().map(edge)).collect();
        let mut document = Document { nodes, edges };
        let graph = Graph::parse(&document).expect("no cycle");
        let place = |node: usize| graph.order().iter().position(|at| *at == node).expect("each node has a place");
        prop_assert!(graph.edges().iter().all(|edge| place(edge.from.node) < place(edge.to.node)));
        prop_assert_eq!(graph.order().len(), 13);
        if let Some((a, b)) = forward.iter().nth(back % forward.len().max(1)) {
            document.edges.push(edge(&(*b, *a)));
            let faults = Graph::parse(&document).expect_err("a cycle");
            prop_assert!(matches!(&faults[..], [Fault::Cycle(_)]), "{faults:?}");
        }
    }

    #[test]
    fn any_document_is_answered(
        ids in proptest::collection::vec("[a-c.>* \u{0}-\u{9f}]{0,4}", 0..6),
        edges in proptest::collection::vec("[a-c.>\\- ]{0,12}", 0..6),
        kinds in proptest::collection::vec(-1_i32..5, 6),
    ) {
        let nodes = ids.iter().zip(kinds).map(|(id, kind)| NodeDocument { kind, inputs: ids.clone(), outputs: ids.clone(), ..worker(id) });
        let parsed = Graph::parse(&Document { nodes: nodes.collect(), edges });
        prop_assert!(parsed.is_ok() || parsed.is_err_and(|faults| !faults.is_empty() && faults.len() <= FAULTS_MAX));
    }
}
