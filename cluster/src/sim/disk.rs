//! The disk of a process that was killed: what the kernel had at that moment.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Copies a data directory as a `kill -9` would leave it, although RocksDB goes on writing in the background: a copy
/// during which a file came, grew or went is made again. Tables never change, so they are linked.
pub(super) fn copy(from: &Path, to: &Path) {
    loop {
        let before = sizes(from);
        if to.exists() {
            fs::remove_dir_all(to).unwrap();
        }
        let copied = before.keys().try_for_each(|file| copy_file(from, to, file));
        if copied.is_ok() && sizes(from) == before {
            return;
        }
    }
}

fn copy_file(from: &Path, to: &Path, file: &Path) -> io::Result<()> {
    let (source, target) = (from.join(file), to.join(file));
    fs::create_dir_all(target.parent().unwrap())?;
    if file.extension().is_some_and(|kind| kind == "sst") {
        return fs::hard_link(source, target);
    }
    fs::copy(source, target).map(drop)
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
