//! What there is of Xbus, as the state of this node has it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use rollbook_core::machine::xbus::state::Xbus;
use rollbook_core::xbus::account::row::{AccountStatus, ActorStatus};
use rollbook_core::xbus::envelope::row::EnvelopeStatus;
use rollbook_core::xbus::pipeline::version::PipelineStatus;
use rollbook_core::xbus::process::row::ProcessStatus;

use super::page::Page;

/// Writes the families of Xbus. Looks at each account, actor, pipeline, and at what has not ended.
pub(super) fn look_up(xbus: &Xbus, page: &mut Page) {
    let accounts = xbus.accounts().map(|row| match row.status() {
        AccountStatus::NoStatus | AccountStatus::Pending => "pending",
        AccountStatus::Enabled => "enabled",
        AccountStatus::Disabled => "disabled",
    });
    by_status(page, "rollbook_xbus_accounts", "Accounts", &["pending", "enabled", "disabled"], accounts);
    let actors = xbus.actors().map(|row| match row.status() {
        ActorStatus::Pending => "pending",
        ActorStatus::Enabled => "enabled",
        ActorStatus::Disabled => "disabled",
        ActorStatus::Rejected => "rejected",
    });
    by_status(page, "rollbook_xbus_actors", "Actors", &["pending", "enabled", "disabled", "rejected"], actors);
    let pipelines = xbus.pipelines().map(|pipeline| match pipeline.row.status() {
        PipelineStatus::Draft => "draft",
        PipelineStatus::Active => "active",
        PipelineStatus::Inactive => "inactive",
    });
    let help = "Versions of pipelines";
    by_status(page, "rollbook_xbus_pipelines", help, &["draft", "active", "inactive"], pipelines);
    let envelopes = xbus.open_envelopes().map(|row| match row.status() {
        EnvelopeStatus::Stalled => "stalled",
        _ => "receiving",
    });
    let help = "Envelopes whose fragments are coming";
    by_status(page, "rollbook_xbus_envelopes", help, &["receiving", "stalled"], envelopes);
    let processes = xbus.open_processes().map(|row| match row.status() {
        ProcessStatus::Paused => "paused",
        ProcessStatus::Error => "error",
        _ => "running",
    });
    let help = "Processes that go on";
    by_status(page, "rollbook_xbus_processes", help, &["running", "paused", "error"], processes);
    page.gauge(
        "rollbook_xbus_processes_bytes",
        "About the memory of processes that go on",
        xbus.open_processes_bytes(),
    );
    page.gauge("rollbook_xbus_jobs_waiting", "Jobs that wait for an actor", xbus.waiting_count());
    let help = "Index of the first event of the namespace xbus that is needed, 0 for none";
    page.gauge("rollbook_xbus_book_needed", help, xbus.pinned().unwrap_or_default());
}

/// Writes a family with a sample for each status, those with none included.
fn by_status(page: &mut Page, name: &str, help: &str, all: &[&'static str], found: impl Iterator<Item = &'static str>) {
    let mut counts: BTreeMap<&str, u64> = all.iter().map(|status| (*status, 0)).collect();
    for status in found {
        let count = counts.entry(status).or_default();
        *count = count.saturating_add(1);
    }
    page.family(name, "gauge", help);
    for (status, count) in counts {
        writeln!(page.text, "{name}{{status=\"{status}\"}} {count}").unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use rollbook_core::xbus::account::row::{AccountRow, ActorRow};

    use super::*;

    #[test]
    fn each_status_has_a_sample_even_when_nothing_has_the_status() {
        let account = |number: u8, status: AccountStatus| {
            let (id, name) = (vec![number; 16], format!("a{number}"));
            AccountRow { id, name, status: status.into(), ..AccountRow::default() }
        };
        let actor =
            ActorRow { id: vec![9; 16], name: "worker".to_owned(), account: vec![1; 16], ..ActorRow::default() };
        let accounts = [account(1, AccountStatus::Enabled), account(2, AccountStatus::Enabled)];
        let xbus = Xbus::with_rows(accounts, [actor]);
        let mut page = Page { text: String::new() };
        look_up(&xbus, &mut page);
        for line in [
            "rollbook_xbus_accounts{status=\"enabled\"} 2\n",
            "rollbook_xbus_accounts{status=\"pending\"} 0\n",
            "rollbook_xbus_actors{status=\"pending\"} 1\n",
            "rollbook_xbus_processes{status=\"running\"} 0\n",
            "rollbook_xbus_jobs_waiting 0\n",
            "rollbook_xbus_book_needed 0\n",
        ] {
            assert!(page.text.contains(line), "{line} is not in\n{}", page.text);
        }
    }
}
