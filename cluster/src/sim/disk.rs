//! The disk of a process that is gone: what the kernel had at that moment, or what survives a power cut.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// `kill -9`: all that was written stays.
    Killed,
    /// What was written and not synced is gone.
    PowerCut,
}

/// What [`crate::log::mark::MarkFile`], which overwrites its slots in place, leaves for this: the file as of its last
/// sync.
const SYNCED_MARK: &str = "MARK.disk";

/// Copies a data directory as this end would leave it, although RocksDB goes on writing in the background: a copy
/// during which a file came, grew or went is made again. Tables never change, so they are linked.
pub(super) fn copy(from: &Path, to: &Path, end: End) {
    loop {
        let before = sizes(from);
        if to.exists() {
            fs::remove_dir_all(to).unwrap();
        }
        fs::create_dir_all(to).unwrap();
        let copied = before.keys().try_for_each(|file| copy_file(from, to, file, end));
        if copied.is_ok() && sizes(from) == before {
            break;
        }
    }
    if end == End::PowerCut && to.join(SYNCED_MARK).exists() {
        fs::rename(to.join(SYNCED_MARK), to.join("MARK")).unwrap();
    }
}

fn copy_file(from: &Path, to: &Path, file: &Path, end: End) -> io::Result<()> {
    let (source, target) = (from.join(file), to.join(file));
    fs::create_dir_all(target.parent().unwrap())?;
    let meta = fs::metadata(&source)?;
    let survives = match end {
        End::PowerCut if file != Path::new(SYNCED_MARK) => meta.len().min(rollbook_power::synced(&meta)),
        _ => meta.len(),
    };
    if survives == meta.len() && file.extension().is_some_and(|kind| kind == "sst") {
        return fs::hard_link(source, target);
    }
    fs::copy(source, &target)?;
    let copy = File::options().write(true).open(&target)?;
    copy.set_len(survives)?;
    // The next power cut leaves it alone.
    copy.sync_all()
}

fn sizes(root: &Path) -> BTreeMap<PathBuf, u64> {
    let mut sizes = BTreeMap::new();
    let mut directories = vec![root.to_path_buf()];
    while let Some(directory) = directories.pop() {
        // A directory of files for a moment may be gone.
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let (path, Ok(meta)) = (entry.path(), entry.metadata()) else { continue };
            if meta.is_dir() {
                directories.push(path);
            } else if let Ok(file) = path.strip_prefix(root) {
                sizes.insert(file.to_path_buf(), meta.len());
            }
        }
    }
    sizes
}
