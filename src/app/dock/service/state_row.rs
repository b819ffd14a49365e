//! The row of one service in the state file.

use std::io;
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
    /// The sentence says why the change is not in the file.
    pub(super) async fn change(&self, change: impl FnOnce(&mut ServiceRow)) -> Result<(), String> {
        change(self.lock().get_or_insert_default());
        self.save().await
    }

    /// Takes a process that is being stopped off the row. Nothing happens when the service was removed meanwhile.
    pub(super) async fn forget_retired(&self, variable: &str) {
        let changed = match &mut *self.lock() {
            Some(row) => {
                row.retiring.retain(|process| process.variable != variable);
                true
            }
            None => false,
        };
        if changed {
            self.save().await.ok();
        }
    }

    /// Names the process, or that there is none. A failure is logged: the process goes on either way.
    pub(super) async fn set_process(&self, process: Option<ProcessRow>) {
        self.change(|row| row.process = process).await.ok();
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
        let row = self.lock().clone();
        let saved = self.context.state.save(&self.service, row).await;
        saved.map_err(|error: io::Error| {
            tracing::error!(service = self.service, %error, "could not save the state");
            format!("could not save the state of {}: {error}", self.service)
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<ServiceRow>> {
        self.row.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
