//! Checks before the use of a store that no file of the store is missing or cut off.

use std::fs;
use std::path::Path;

use rocksdb::{DB, ErrorKind, LiveFile};

use super::layout;
use crate::error::NodeError;

/// Advice to an operator whose store has lost files.
const WAY_OUT: &str =
    "restore this node from a backup, or remove it from the cluster and let it join again under a new id";

/// Opens a store whose files are all there, as long as they were when they were written.
///
/// RocksDB looks at a file when it is read for the first time. Of a store with a bounded number of open files it opens
/// no more than 16 at the start, so that a file that is cut or gone would be found hours later.
pub(crate) fn opened(store: &'static str, root: &Path, db: Result<DB, rocksdb::Error>) -> Result<DB, NodeError> {
    let damaged = |detail: String| NodeError::Store { store, detail: format!("{detail}; {WAY_OUT}") };
    let db = db.map_err(|error| match layout::open_error(store, root, &error) {
        // RocksDB itself has looked at that file.
        NodeError::Store { detail, .. } if error.kind() == ErrorKind::Corruption => damaged(detail),
        other => other,
    })?;
    check_files(&db).map_err(damaged)?;
    Ok(db)
}

/// Compares the files of an open store with what the store says of them; what is wrong with the first that differs.
///
/// # Errors
/// Which file differs, and how.
pub(crate) fn check_files(db: &DB) -> Result<(), String> {
    let differing = || -> Result<Vec<String>, String> {
        let files = db.live_files().map_err(|error| error.to_string())?;
        let difference = |file: LiveFile| {
            let path = db.path().join(file.name.trim_start_matches('/'));
            let expected = u64::try_from(file.size).unwrap_or(u64::MAX);
            match fs::metadata(&path) {
                Ok(found) if found.len() == expected => None,
                Ok(found) => {
                    Some(format!("Corruption: {} has {} bytes instead of {expected}", path.display(), found.len()))
                }
                Err(error) => Some(format!("Corruption: {}: {error}", path.display())),
            }
        };
        Ok(files.into_iter().filter_map(difference).collect())
    };
    let first = differing()?;
    if first.is_empty() {
        return Ok(());
    }
    // A file may have been compacted away since it was listed.
    let again = differing()?;
    first.into_iter().find(|file| again.contains(file)).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn a_store_with_a_file_that_is_cut_or_gone_is_refused_however_many_files_there_are() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        let db = layout::open_ledger(&path).unwrap();
        let blocks = layout::family(&db, layout::CF_BLOCKS).unwrap();
        db.set_options_cf(blocks, &[("disable_auto_compactions", "true")]).unwrap();
        for number in 0..40_u32 {
            db.put_cf(blocks, number.to_be_bytes(), [7; 100]).unwrap();
            db.flush_cf(blocks).unwrap();
        }
        let files: Vec<PathBuf> =
            db.live_files().unwrap().iter().map(|file| path.join(file.name.trim_start_matches('/'))).collect();
        drop(db);
        assert!(files.len() >= 40, "{files:?}");
        let refused =
            || opened("ledger", directory.path(), layout::open_ledger(&path)).map(drop).unwrap_err().to_string();
        for file in &files {
            let whole = fs::read(file).unwrap();
            fs::write(file, &whole[..whole.len() - 1]).unwrap();
            let name = file.file_name().unwrap().to_str().unwrap();
            let text = refused();
            assert!(text.contains(name) && text.contains("Corruption") && text.contains(WAY_OUT), "{text}");
            fs::remove_file(file).unwrap();
            let text = refused();
            assert!(text.contains(name), "{text}");
            fs::write(file, &whole).unwrap();
        }
        drop(opened("ledger", directory.path(), layout::open_ledger(&path)).unwrap());
    }
}
