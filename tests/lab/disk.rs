//! Where a node keeps its data: a folder, or a disk of its own whose power can be cut and which can fill up.

use std::fs;
use std::path::{Path, PathBuf};

use crate::system::{run, try_run};

/// Size of a disk: about the smallest that xfs can be made on.
const BYTES: &str = "400M";
/// Free space below which a node on such a disk refuses publishes.
pub(crate) const RESERVE: u64 = 48 << 20;

/// What is under the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Medium {
    /// A directory of the file system that is there.
    Folder,
    /// An xfs of its own on a loop device.
    Disk,
}

/// The disk of one node. The guard of the lab unmounts it.
#[derive(Clone, Debug)]
pub(crate) struct Volume {
    medium: Medium,
    /// Mount point, or just a directory.
    root: PathBuf,
    image: PathBuf,
}

impl Volume {
    /// An empty one below `dir`.
    pub(crate) fn create(dir: &Path, name: &str, medium: Medium) -> Self {
        let volume = Self { medium, root: dir.join(name), image: dir.join(format!("{name}.img")) };
        fs::create_dir(&volume.root).expect("create a mount point");
        if medium == Medium::Disk {
            run("truncate", &["-s", BYTES, text(&volume.image)]);
            run("mkfs.xfs", &["-q", text(&volume.image)]);
            volume.mount();
        }
        volume
    }

    /// The data directory of the node.
    pub(crate) fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// Nothing that was not synced reaches the disk any more. The node must be killed next: what it sees
    /// from now on, no process sees after a power cut.
    pub(crate) fn cut_power(&self) {
        assert_eq!(self.medium, Medium::Disk, "only a disk has a power cord");
        run("xfs_io", &["-x", "-c", "shutdown", text(&self.root)]);
    }

    /// After a power cut and the end of the node: what the disk still has.
    pub(crate) fn power_on(&self) {
        run("umount", &[text(&self.root)]);
        self.mount();
    }

    fn mount(&self) {
        run("mount", &["-o", "loop", text(&self.image), text(&self.root)]);
    }

    /// Takes space away until that many bytes are left.
    pub(crate) fn fill(&self, left: u64) {
        assert_eq!(self.medium, Medium::Disk, "only a disk can fill up");
        let stat = rustix::fs::statvfs(&self.root).expect("ask for the free space");
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let bytes = free.saturating_sub(left).to_string();
        let ballast = self.root.join("ballast");
        // The node writes meanwhile: a little less must do then.
        if let Err(error) = try_run("fallocate", &["-l", &bytes, text(&ballast)], "") {
            eprintln!("less space was taken away than asked for: {error}");
        }
    }

    /// Gives the space back.
    pub(crate) fn free(&self) {
        match fs::remove_file(self.root.join("ballast")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("give space back: {error}"),
            _ => {}
        }
    }

    /// A new disk instead of the old one, whose node does not run.
    pub(crate) fn replace(&self) {
        let data = self.data();
        if data.exists() {
            fs::remove_dir_all(data).expect("remove the data directory");
        }
    }
}

/// Paths of the lab are text.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
