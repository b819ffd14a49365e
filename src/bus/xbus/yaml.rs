//! The text of a pipeline.
//!
//! ```yaml
//! nodes:
//! - id: emitter
//!   type: emitter
//!   roles: [invoices]
//!   sourcematch: {eventtypes: [invoice.created]}
//!   outputs: [default]
//! - id: archive
//!   type: consumer
//!   roles: [archive]
//!   rolebroadcast: true
//!   inputs: [default]
//! edges:
//! - emitter.default->archive.default
//! ```
//!
//! JSON is YAML too, so the same document in JSON is read as well.

use rollbook_core::xbus::limits::PIPELINE_BYTES_MAX;
use rollbook_core::xbus::pipeline::document::{Document, NodeDocument, NodeKind};
use serde::Deserialize;
use serde_saphyr::{Options, budget, options};

/// Deepest nesting: the document, its nodes, a node, its `sourcematch`, a list, a text; and some for what is wrong.
const DEPTH_MAX: usize = 16;
/// Most scalars, lists and maps, those behind aliases counted each time: enough for the largest pipeline of the rules.
const VALUES_MAX: usize = 50_000;
/// Most aliases. People use a few for lists of roles.
const ALIASES_MAX: usize = 256;
/// Longest text of an error, in bytes.
const ERROR_BYTES_MAX: usize = 300;

/// Why a text is no document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{text}", line.map(|line| format!("line {line}: ")).unwrap_or_default())]
pub struct YamlError {
    /// The line, from 1, if it is known.
    pub line: Option<u64>,
    /// What is wrong.
    pub text: String,
}

/// A pipeline as its text has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    nodes: Option<Vec<NodeText>>,
    edges: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeText {
    id: String,
    #[serde(rename = "type")]
    kind: Option<KindText>,
    actorids: Option<Vec<String>>,
    roles: Option<Vec<String>>,
    rolebroadcast: Option<bool>,
    sourcematch: Option<SourceMatch>,
    inputs: Option<Vec<String>>,
    outputs: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum KindText {
    Emitter,
    Worker,
    Consumer,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceMatch {
    eventtypes: Option<Vec<String>>,
}

/// Reads the text of a pipeline. Whether the document is a graph is another question: `Graph::parse` answers it.
///
/// # Errors
/// The text is too long, no YAML, or has other keys or values than a pipeline.
pub fn read(text: &str) -> Result<Document, YamlError> {
    if text.len() > PIPELINE_BYTES_MAX {
        return Err(YamlError { line: None, text: format!("a pipeline has at most {PIPELINE_BYTES_MAX} bytes") });
    }
    let text: Text = serde_saphyr::from_str_with_options(text, bounded()).map_err(|error| explain(&error))?;
    let nodes = text.nodes.unwrap_or_default().into_iter().map(NodeText::document).collect();
    Ok(Document { nodes, edges: text.edges.unwrap_or_default() })
}

fn bounded() -> Options {
    options! {
        with_snippet: false,
        budget: budget! {
            max_events: VALUES_MAX * 2,
            max_nodes: VALUES_MAX,
            max_depth: DEPTH_MAX,
            flow_nesting_limit: DEPTH_MAX,
            max_documents: 1,
            max_aliases: ALIASES_MAX,
            max_anchors: ALIASES_MAX,
            max_recorded_anchor_events: VALUES_MAX,
            max_recorded_anchor_bytes: PIPELINE_BYTES_MAX,
            max_merge_keys: ALIASES_MAX,
            max_total_scalar_bytes: PIPELINE_BYTES_MAX * 4,
        },
    }
}

fn explain(error: &serde_saphyr::Error) -> YamlError {
    let line = error.location().map(|location| location.line()).filter(|line| *line > 0);
    let mut text = error.without_snippet().to_string();
    if text.len() > ERROR_BYTES_MAX {
        text.truncate(text.floor_char_boundary(ERROR_BYTES_MAX));
        text.push_str("...");
    }
    YamlError { line, text }
}

impl NodeText {
    fn document(self) -> NodeDocument {
        let kind = self.kind.map(|kind| match kind {
            KindText::Emitter => NodeKind::Emitter,
            KindText::Worker => NodeKind::Worker,
            KindText::Consumer => NodeKind::Consumer,
        });
        let node = NodeDocument {
            id: self.id,
            actors: self.actorids.unwrap_or_default(),
            roles: self.roles.unwrap_or_default(),
            role_broadcast: self.rolebroadcast.unwrap_or_default(),
            event_types: self.sourcematch.and_then(|source| source.eventtypes).unwrap_or_default(),
            ..NodeDocument::default()
        };
        node.complete(kind, self.inputs, self.outputs)
    }
}

#[cfg(test)]
mod tests {
    use rollbook_core::xbus::pipeline::graph::Graph;

    use super::*;

    const GOOD: &str = "
nodes:
- id: emitter
  type: emitter
  roles: [invoices]
  sourcematch: {eventtypes: [invoice.created]}
  outputs: [default]
- id: archive   # keeps everything
  type: consumer
  roles: [archive]
  rolebroadcast: true
  inputs: [default]
edges:
- emitter.default->archive.default
";

    fn error(text: &str) -> String {
        read(text).expect_err("no pipeline").to_string()
    }

    #[test]
    fn the_documented_form_is_read() {
        let document = read(GOOD).expect("a pipeline");
        let [emitter, archive] = &document.nodes[..] else { panic!("{document:?}") };
        assert_eq!((emitter.id.as_str(), emitter.kind()), ("emitter", NodeKind::Emitter));
        assert_eq!(
            (&emitter.roles[..], &emitter.event_types[..]),
            (&["invoices".into()][..], &["invoice.created".into()][..])
        );
        assert_eq!((archive.kind(), archive.role_broadcast), (NodeKind::Consumer, true));
        assert_eq!(document.edges, ["emitter.default->archive.default"]);
        assert!(Graph::parse(&document).is_ok());
    }

    #[test]
    fn what_is_optional_may_be_missing_or_null() {
        let text = "
nodes:
- {id: a, actorids: [53131466-4e2e-11e7-916e-af2b1e6d242d, by name], sourcematch: {eventtypes: null}, outputs: [default], roles: ~}
- id: b
  type: worker
  roles: [r, 17, 1.0, true]
- id: c
  type: consumer
  roles: [r]
  inputs:
edges: [a.default->b.default, \"b.default->c.default\"]
";
        let document = read(text).expect("a pipeline");
        assert_eq!(document.nodes[0].kind(), NodeKind::Emitter);
        assert_eq!(document.nodes[1].inputs, ["default"]);
        assert_eq!(document.nodes[1].roles, ["r", "17", "1.0", "true"]);
        assert_eq!(document.nodes[2].inputs, ["default"]);
        assert!(Graph::parse(&document).is_ok(), "{:?}", Graph::parse(&document));
        assert_eq!(read("{}"), Ok(Document::default()));
        let json = r#"{"nodes":[{"id":"e","roles":["r"],"outputs":["o"]}],"edges":[]}"#;
        assert_eq!(read(json).map(|document| document.nodes.len()), Ok(1));
    }

    #[test]
    fn aliases_are_read() {
        let text = "
nodes:
- {id: e, type: emitter, roles: &all [x, y]}
- {id: c, type: consumer, roles: *all}
edges: [e.default->c.default]
";
        assert_eq!(read(text).expect("a pipeline").nodes[1].roles, ["x", "y"]);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let cases = [
            ("nodes:\n- id: a\n  typ: emitter\n", "line 3: "),
            ("nodes:\n- id: a\n  type: requestor\n", "line 3: "),
            ("nodes:\n- type: emitter\n", "line 2: "),
            ("nodes:\n- id: [a]\n", "line 2: "),
            ("nodes:\n- id: a\n  rolebroadcast: maybe\n", "line 3: "),
            ("nodes:\n- id: a\n  id: b\n", "line 3: "),
            ("nodes:\n- id: a\nedges: x\n", "line 3: "),
            ("nodes: [\n", "line "),
            ("nodes:\n- id: \"a\n", "line "),
            ("nodes: *nobody\n", "line 1: "),
            ("nodes: []\n---\nnodes: []\n", "line "),
        ];
        for (text, start) in cases {
            let error = error(text);
            assert!(error.starts_with(start) && error.len() < 400, "{text:?}: {error}");
        }
        assert!(error("nodes:\n- id: a\n  typ: emitter\n").contains("typ"));
        for text in ["", "- a", "a", "\u{0}", "%YAML"] {
            assert!(read(text).is_err() || text.is_empty(), "{text:?}");
        }
    }

    #[test]
    fn bombs_and_depths_and_lengths_are_refused() {
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for level in 1..12 {
            let (this, below) = (format!("a{level}"), format!("*a{}", level - 1));
            bomb.push_str(&format!("{this}: &{this} [{}]\n", [below.as_str(); 10].join(",")));
        }
        bomb.push_str("nodes: *a11\n");
        let begun = std::time::Instant::now();
        error(&bomb);
        // The same where the reader must look at every value.
        let roles = format!("nodes:\n- id: a\n  roles: &a0 [{}]\n", ["x"; 1000].join(","));
        let many = (0..200).fold(roles, |text, at| text + &format!("- {{id: n{at}, roles: *a0}}\n"));
        error(&many);
        error(&format!("nodes: {}{}", "[".repeat(50_000), "]".repeat(50_000)));
        error(&(0..5000).map(|at| format!("{}- \n", " ".repeat(at % 200))).collect::<String>());
        error(&"a: ".repeat(20_000));
        error(&"x".repeat(PIPELINE_BYTES_MAX + 1));
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{:?}", begun.elapsed());
    }

    #[test]
    fn any_text_is_answered() {
        for (at, _) in GOOD.char_indices() {
            for with in ["", "&", "*", "[", "{", "\t", "\u{feff}", "!!binary ", "<<: ", "'", "|"] {
                let (before, behind) = GOOD.split_at(at);
                drop(read(&format!("{before}{with}{behind}")));
                drop(read(before));
            }
        }
    }
}
