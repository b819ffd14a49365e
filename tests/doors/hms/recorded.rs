//! Lines of processes in a namespace.

use serde_json::Value;

use super::client::{Hms, op, options};
use crate::harness::SOON;
use crate::harness::node::Node;

#[test]
fn lines_are_events_of_the_namespace_that_the_settings_name() {
    let node = Node::start(&options().env("ROLLBOOK_HMS__RECORD", "logs"));
    let mut dock = Hms::dock(&node, "d1", &[]);
    dock.tell(op::STDOUT, "shop.web@d1", b"one\ntw");
    dock.tell(op::STDERR, "shop.web@d1", b"wrong\n");
    dock.tell(op::STDOUT, "shop.web@d1", b"o\nthree\n");
    let (mut out, mut err) = (Vec::new(), Vec::new());
    // The namespace is made with the first line.
    crate::harness::wait_for("the namespace", SOON, || {
        (node.web("GET", "/api/namespaces/logs", "").status == 200).then_some(())
    });
    for frame in node.replay("logs.>").events(4, SOON) {
        let event: Value = serde_json::from_str(frame.data.as_deref().unwrap_or_default()).expect("JSON");
        let payload = &event["payload"];
        assert_eq!((&payload["definition"], &payload["dock"]), (&"shop.web".into(), &"d1".into()), "{event}");
        let text = payload["text"].as_str().unwrap_or_default().to_owned();
        match event["subject"].as_str() {
            Some("logs.shop-web.stdout") => out.push(text),
            Some("logs.shop-web.stderr") => err.push(text),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((out, err), (vec!["one".to_owned(), "two".to_owned(), "three".to_owned()], vec!["wrong".to_owned()]));
    let retention = node.web("GET", "/api/namespaces/logs", "").text();
    assert!(retention.contains("604800000") || retention.contains("168h") || retention.contains("7d"), "{retention}");
}
