//! Where a node keeps its data: a folder, or a disk of its own whose power can be cut and which can fill up.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;

use crate::system::run;

/// Size of a disk; only what is written takes room.
const BYTES: &str = "1500M";
/// Share of a disk that inodes may take, percent: so few that they can be used up quickly.
const INODES: &str = "maxpct=1";
/// Free space below which a node on such a disk refuses publishes.
pub(crate) const RESERVE: u64 = 48 << 20;
/// Smallest piece of space that is taken away.
const PIECE_MIN: u64 = 4096;

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
            run("mkfs.xfs", &["-q", "-i", INODES, text(&volume.image)]);
            volume.mount();
        }
        volume
    }

    /// The data directory of the node.
    pub(crate) fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// What was written so far is on the disk, as the system would see to by itself after a while.
    pub(crate) fn sync(&self) {
        run("sync", &["-f", text(&self.root)]);
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

    /// Takes space away until about that many bytes are left.
    pub(crate) fn fill(&self, left: u64) {
        assert_eq!(self.medium, Medium::Disk, "only a disk can fill up");
        let ballast = OpenOptions::new().create(true).append(true).open(self.root.join("ballast"));
        let ballast = ballast.expect("create the ballast");
        let mut end = ballast.metadata().expect("size of the ballast").len();
        // The node writes meanwhile, and the file system keeps some for itself: smaller and smaller pieces.
        let mut piece = self.space().saturating_sub(left);
        while piece >= PIECE_MIN {
            if rustix::fs::fallocate(&ballast, FallocateFlags::empty(), end, piece).is_ok() {
                end += piece;
                piece = piece.min(self.space().saturating_sub(left));
            } else {
                piece /= 2;
            }
        }
    }

    /// Takes inodes away until about that many are left.
    pub(crate) fn fill_inodes(&self, left: u64) {
        assert_eq!(self.medium, Medium::Disk, "only a disk can fill up");
        let folder = self.root.join("inodes");
        fs::create_dir_all(&folder).expect("create a folder for inodes");
        // Some may be there from a time before.
        let mut number = fs::read_dir(&folder).map_or(0, Iterator::count);
        while self.inodes() > left && fs::File::create(folder.join(number.to_string())).is_ok() {
            number += 1;
        }
    }

    /// Free inodes.
    fn inodes(&self) -> u64 {
        rustix::fs::statvfs(&self.root).expect("ask for the free inodes").f_favail
    }

    /// Free bytes.
    fn space(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.root).expect("ask for the free space");
        stat.f_bavail.saturating_mul(stat.f_frsize)
    }

    /// Gives space and inodes back.
    pub(crate) fn free(&self) {
        for gone in [fs::remove_file(self.root.join("ballast")), fs::remove_dir_all(self.root.join("inodes"))] {
            match gone {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("give space back: {error}"),
                _ => {}
            }
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

#[test]
fn a_power_cut_takes_what_was_not_synced_and_nothing_else() {
    if let Some(why) = crate::system::missing() {
        eprintln!("skipped: {why}");
        return;
    }
    let dir = tempfile::tempdir().expect("temporary directory");
    let _guard = crate::system::Guard::start("rbdisk", dir.path());
    let volume = Volume::create(dir.path(), "disk", Medium::Disk);
    let write = |name: &str, sync: bool| {
        let file = fs::File::create(volume.root.join(name)).expect("create a file");
        std::io::Write::write_all(&mut &file, &[7; 10_000]).expect("write a file");
        if sync {
            file.sync_all().expect("sync a file");
        }
    };
    write("synced", true);
    write("unsynced", false);
    volume.cut_power();
    volume.power_on();
    let length = |name: &str| fs::metadata(volume.root.join(name)).map_or(0, |found| found.len());
    assert_eq!((length("synced"), length("unsynced")), (10_000, 0));
    volume.fill(RESERVE);
    assert!(volume.space() < RESERVE + (1 << 20), "{} bytes are left", volume.space());
    volume.free();
    // The file system gives it back in the background.
    crate::harness::wait_for("space", crate::harness::SOON, || (volume.space() > RESERVE * 2).then_some(()));
    volume.fill_inodes(5);
    assert!(volume.inodes() <= 5 && volume.space() > RESERVE, "{} inodes are left", volume.inodes());
    volume.free();
    crate::harness::wait_for("inodes", crate::harness::SOON, || (volume.inodes() > 1000).then_some(()));
}
