//! The row of one service in the state file.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::store::state_file::{ProcessRow, ServiceRow};
use super::context::Context;

/// The row of one service, which its actor and its processes that are being stopped change.
#[derive(Debug, Clone)]
pub(super) struct StateRow {
    service: String,
    context: Arc<Context>,
    /// None when the service is removed.
    row: Arc<Mutex<Option<ServiceRow>>>,
}

impl StateRow {
    pub(super) fn new(service: &str, context: &Arc<Context>) -> Self {
        Self { service: service.to_owned(), context: Arc::clone(context), row: Arc::default() }
    }

    /// Takes over a row that the file has already.
    pub(super) fn recover(&self, row: ServiceRow) {
        *self.lock() = Some(row);
    }

    /// Changes the row, which is made when there is none, and saves it.
    ///
    /// # Errors
    ///
    /// The sentence says why the change is not in the file. The row in memory has the change.
    pub(super) async fn change(&self, change: impl FnOnce(&mut ServiceRow)) -> Result<(), String> {
        change(self.lock().get_or_insert_default());
        self.save().await
    }

    /// Names the process of the service. A process that is started although this failed would be lost when the agent
    /// ends.
    ///
    /// # Errors
    ///
    /// As [`StateRow::change`].
    pub(super) async fn set_process(&self, process: ProcessRow) -> Result<(), String> {
        self.change(|row| row.process = Some(process)).await
    }

    /// Says that the process is being stopped.
    ///
    /// # Errors
    ///
    /// As [`StateRow::change`], but the row is as before.
    pub(super) async fn retire(&self, variable: &str) -> Result<(), String> {
        let retired = self.change(|row| {
            let process = row.process.take_if(|process| process.variable == variable);
            row.retiring.extend(process);
        });
        retired.await.inspect_err(|_| {
            if let Some(row) = &mut *self.lock() {
                let process = row.retiring.pop_if(|process| process.variable == variable);
                row.process = process.or(row.process.take());
            }
        })
    }

    /// Takes a process off the row. A process of which something outlived SIGKILL stays on the row as one that is being
    /// stopped, so that the next start of the agent tries again. Nothing happens when the service was removed meanwhile.
    pub(super) async fn close(&self, variable: &str, ended: bool) {
        match &mut *self.lock() {
            None => return,
            Some(row) => {
                let process = row.process.take_if(|process| process.variable == variable);
                match ended {
                    true => row.retiring.retain(|process| process.variable != variable),
                    false => row.retiring.extend(process),
                }
            }
        }
        // The error is in the log. A process that ended and is on the row is looked for at the next start of the agent,
        // and not found.
        self.save().await.ok();
    }

    /// The folders that processes of the service run in.
    pub(super) fn folders(&self) -> Vec<PathBuf> {
        let row = self.lock();
        let processes = row.iter().flat_map(|row| row.process.iter().chain(&row.retiring));
        processes.map(|process| process.folder.clone()).collect()
    }

    /// Removes the row.
    ///
    /// # Errors
    ///
    /// As [`StateRow::change`].
    pub(super) async fn remove(&self) -> Result<(), String> {
        *self.lock() = None;
        self.save().await
    }

    async fn save(&self) -> Result<(), String> {
        let change = {
            let row = self.lock();
            self.context.state.put(&self.service, row.clone())
        };
        self.context.state.flush(change).await.map_err(|error| {
            tracing::error!(service = self.service, %error, "could not save the state");
            format!("could not save the state of {}: {error}", self.service)
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<ServiceRow>> {
        self.row.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
