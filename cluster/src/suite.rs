//! openraft's own storage suite on our stores.

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};

use crate::log::LogStore;
use crate::machine::StateMachine;
use crate::state::State;
use crate::store::Layout;
use crate::types::{Runtime, Types};

struct Stores;

impl StoreBuilder<Types, LogStore, StateMachine, tempfile::TempDir> for Stores {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, StateMachine), StorageError<Types>> {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::open(directory.path(), 0).unwrap();
        let (log, _writer) = LogStore::open(&layout).unwrap();
        let machine = StateMachine::detached(State::open(&layout).unwrap());
        Ok((directory, log, machine))
    }
}

#[test]
fn our_stores_pass_the_storage_suite_of_openraft() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(Runtime::scope(1, Suite::test_all(Stores))).unwrap();
}
