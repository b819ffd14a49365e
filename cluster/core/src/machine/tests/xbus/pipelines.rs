//! Versions of pipelines.

use super::*;
use crate::xbus::limits::PIPELINE_BYTES_MAX;

fn saved(number: u8, name: &str, version: &str) -> Change {
    Change::PipelineSave(save(number, name, version, document()))
}

#[test]
fn of_all_versions_of_a_pipeline_one_is_active() {
    let mut story = Story::new();
    story.done(saved(51, "orders", "2"));
    story.done(activate(51, PipelineStatus::Active));
    let xbus = story.replica.machine.xbus();
    let active: Vec<&str> = xbus.active_pipelines().map(|pipeline| pipeline.row.version.as_str()).collect();
    assert_eq!(active, ["2"]);
    assert_eq!(xbus.pipeline_named("orders", "1").unwrap().row.status(), PipelineStatus::Inactive);
    story.done(activate(51, PipelineStatus::Inactive));
    assert_eq!(story.replica.machine.xbus().active_pipelines().count(), 0);
    story.done(activate(PIPELINE, PipelineStatus::Active));
    assert!(story.refused(activate(PIPELINE, PipelineStatus::Draft)).contains("cannot be a draft again"));
}

#[test]
fn a_draft_is_saved_with_its_faults_and_cannot_be_active() {
    let mut story = Story::empty();
    let broken = Document { edges: vec!["e.o->nowhere.i".into()], ..document() };
    let done = story.done(Change::PipelineSave(save(PIPELINE, "orders", "1", broken))).pipeline.unwrap();
    assert!(!done.faults.is_empty());
    assert!(story.refused(activate(PIPELINE, PipelineStatus::Active)).starts_with("the pipeline has faults: "));
    let done = story.done(saved(99, "orders", "1")).pipeline.unwrap();
    assert_eq!((done.row.id, done.row.revision, done.faults.len()), (id(PIPELINE), 2, 0), "the same draft, anew");
    story.done(activate(PIPELINE, PipelineStatus::Active));
    assert!(story.refused(saved(PIPELINE, "orders", "1")).contains("is no draft"));
}

#[test]
fn two_operators_do_not_overwrite_each_other() {
    let mut story = Story::empty();
    story.propose(Some(0), saved(PIPELINE, "orders", "1")).unwrap();
    for revision in [0, 2] {
        let refused = story.propose(Some(revision), saved(PIPELINE, "orders", "1")).unwrap_err();
        assert_eq!(refused, Refusal::RevisionMismatch(format!("revision is 1, not {revision}")));
    }
    story.propose(Some(1), activate(PIPELINE, PipelineStatus::Active)).unwrap();
    story.propose(Some(1), activate(PIPELINE, PipelineStatus::Inactive)).unwrap_err();
    story.propose(Some(2), activate(PIPELINE, PipelineStatus::Inactive)).unwrap();
    story.propose(Some(2), Change::PipelineDelete(id(PIPELINE))).unwrap_err();
    story.propose(Some(3), Change::PipelineDelete(id(PIPELINE))).unwrap();
}

#[test]
fn an_id_names_one_version_and_a_text_is_bounded() {
    let mut story = Story::new();
    assert_eq!(story.refused(saved(PIPELINE, "bills", "1")), "malformed command: a pipeline has that id");
    let long = |source: usize, edge: usize| {
        let document = Document { edges: vec!["x".repeat(edge)], ..document() };
        Change::PipelineSave(PipelineSave { source: "x".repeat(source), ..save(60, "bills", "1", document) })
    };
    for change in [long(PIPELINE_BYTES_MAX + 1, 0), long(1, PIPELINE_BYTES_MAX)] {
        assert!(story.refused(change).contains("at most 262144 bytes"));
    }
    assert!(story.refused(activate(200, PipelineStatus::Active)).starts_with("not found"));
}

#[test]
fn a_version_is_deleted_when_nothing_goes_along_it() {
    let mut story = Story::new();
    let delete = Change::PipelineDelete(id(PIPELINE));
    assert!(story.refused(delete.clone()).contains("is active"));
    story.begins(100, 200);
    story.done(activate(PIPELINE, PipelineStatus::Inactive));
    assert!(story.refused(delete.clone()).contains("a process goes along the version"));
    story.goes(200, Happens::Cancel(Unit {}));
    story.done(delete.clone());
    assert!(story.refused(delete).starts_with("not found"));
}
