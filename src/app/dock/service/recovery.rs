//! What an earlier start of the agent left behind: processes that run on, and the rest of those that ended.

use super::super::process::cgroup::Cgroup;
use super::super::process::running::Process;
use super::super::process::tree::Tree;
use super::super::store::state_file::ProcessRow;
use super::snapshot::from_ms;

/// Takes over the process that a row names. None when the process has ended, as all have that the row names of another
/// boot than this one.
pub(super) fn adopt(row: &ProcessRow, boot: &str) -> Option<Process> {
    if row.boot != boot {
        return None;
    }
    let mut tree = Tree { pid: row.pid, start_time: row.start_time, ..rest_of(row) };
    if tree.pid == 0 {
        let first = tree.find_first()?;
        (tree.pid, tree.start_time) = (first.pid, first.start_time);
    }
    Process::adopt(tree, from_ms(row.started_ms))
}

/// What is left of a process that has ended. The number of the process may belong to another one by now, so the rest is
/// found without the number.
pub(super) fn rest_of(row: &ProcessRow) -> Tree {
    Tree { pid: 0, start_time: 0, variable: row.variable.clone(), cgroup: row.cgroup.clone().map(Cgroup::at) }
}
