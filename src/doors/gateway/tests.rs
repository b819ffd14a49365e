//! Tests of what the gateway says.

use rollbook_core::xbus::process::row::ProcessStatus;

use rollbook_core::xbus::envelope::row::{EnvelopeRow, EnvelopeStatus};
use rollbook_core::xbus::process::row::ProcessRow;
use serde_json::json;

use super::state::told;

#[test]
fn an_envelope_has_ended_when_all_its_processes_have() {
    let mut row = EnvelopeRow { id: vec![1; 16], ..EnvelopeRow::default() };
    row.set_status(EnvelopeStatus::Complete);
    let process = |status: ProcessStatus| {
        let mut row = ProcessRow { id: vec![2; 16], ..ProcessRow::default() };
        row.set_status(status);
        row
    };
    let (done, running) = (process(ProcessStatus::Done), process(ProcessStatus::Running));
    let ended = |row: &EnvelopeRow, processes: &[&ProcessRow]| told(row, processes)["ended"].clone();
    assert_eq!(ended(&row, &[]), false, "its processes are not known yet");
    assert_eq!((ended(&row, &[&done, &running]), ended(&row, &[&done])), (json!(false), json!(true)));
    row.set_status(EnvelopeStatus::Error);
    assert_eq!(ended(&row, &[]), true);
}
