//! Definitions.

use super::*;

#[test]
fn definitions_are_in_the_order_of_adding_also_when_they_are_changed() {
    let mut story = Story::new();
    for id in ["web", "mail", "api.v2-x"] {
        assert_eq!(story.done(set(id, b"{}")).revision, 1);
    }
    let order = |story: &Story| {
        let docks = story.replica.machine.docks();
        assert_eq!(docks.definitions().count(), docks.definitions_count());
        docks.definitions().map(|row| row.id.clone()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(story.done(set("web", b"[1]")).revision, 2);
    assert_eq!((order(&story).as_str(), &*story.definition("web").document), ("web mail api.v2-x", &b"[1]"[..]));
    assert_eq!(story.done(remove("web")).revision, 2);
    assert!(story.replica.machine.docks().definition("web").is_none());
    story.done(set("web", b"{}"));
    assert_eq!((order(&story).as_str(), story.definition("web").revision), ("mail api.v2-x web", 1));
    story.done(remove("web"));
    story.done(set("last", b"{}"));
    assert_eq!(order(&story), "mail api.v2-x last");
}

#[test]
fn who_knows_another_revision_changes_nothing() {
    let mut story = Story::new();
    let mismatch =
        |present: u64, wanted: u64| Err(Refusal::RevisionMismatch(format!("revision is {present}, not {wanted}")));
    assert_eq!(story.propose(Some(1), set("web", b"{}")), mismatch(0, 1), "it is gone");
    story.propose(Some(0), set("web", b"{}")).unwrap();
    assert_eq!(story.propose(Some(0), set("web", b"{}")), mismatch(1, 0), "it is there already");
    story.propose(Some(1), set("web", b"[]")).unwrap();
    assert_eq!(story.propose(Some(1), remove("web")), mismatch(2, 1));
    assert_eq!(story.propose(Some(1), begin(1, "web")), mismatch(2, 1));
    story.propose(Some(2), begin(1, "web")).unwrap();
    story.propose(Some(99), chunk(1, 0, b"a")).unwrap();
    assert_eq!(story.propose(Some(1), finish(1, &[b"a"])), mismatch(2, 1));
    assert_eq!(story.propose(Some(2), finish(1, &[b"a"])).unwrap().revision, 3);
    story.propose(Some(3), remove("web")).unwrap();
    assert_eq!(story.refused(remove("web")), Refusal::DockNotFound("definition web".into()));
}

#[test]
fn an_id_or_document_that_breaks_a_rule_is_refused() {
    let mut story = Story::with_web();
    for change in [set("", b"{}"), set("a b", b"{}"), set("new", b""), set("web", &[b' '; DOCUMENT_BYTES_MAX + 1])] {
        assert!(matches!(story.refused(change), Refusal::Malformed(_)));
    }
    assert_eq!(story.definition("web").revision, 1);
}

#[test]
fn definitions_are_bounded_in_number() {
    let mut story = Story::new();
    let ids: Vec<String> = (0..DEFINITIONS_MAX).map(|number| number.to_string()).collect();
    for ids in ids.chunks(2500) {
        story.all_done(ids.iter().map(|id| set(id, b"{}")));
    }
    assert!(matches!(story.refused(set("more", b"{}")), Refusal::Overloaded(_)));
    story.done(set("7", b"[]"));
    story.done(remove("7"));
    story.done(set("more", b"{}"));
}

#[test]
fn all_documents_together_are_bounded() {
    let mut story = Story::new();
    let document = [b' '; DOCUMENT_BYTES_MAX];
    let fit = DOCUMENTS_BYTES_MAX / DOCUMENT_BYTES_MAX;
    story.all_done((0..fit).map(|number| set(&number.to_string(), &document)));
    assert!(matches!(story.refused(set("more", b"{}")), Refusal::Overloaded(_)));
    story.done(set("0", &document));
    story.done(set("0", &document[2..]));
    story.done(set("more", b"{}"));
    story.done(begin(1, "more"));
    story.done(chunk(1, 0, b"a"));
    assert!(matches!(story.refused(finish(1, &[b"a"])), Refusal::Overloaded(_)), "its document is longer");
    story.done(remove("1"));
    story.done(finish(1, &[b"a"]));
}
