//! Archives made by hand, against everything that reads archives.

mod damaged;
mod packed;
mod random;
mod refused;
mod taken;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;

use super::check::check;
use super::error::ArchiveError;
use super::limits::{Contents, Limits};
use super::unpack::unpack;

const LIMITS: Limits = Limits { bytes: 1 << 20, entries: 100, path_bytes: 300, compressed_bytes: 1 << 20 };

/// A tar that is put together byte by byte, so that it may be wrong.
#[derive(Debug, Clone, Default)]
struct Tar(Vec<u8>);

impl Tar {
    /// An entry of any type, with a header of POSIX.
    fn entry(self, kind: u8, name: impl AsRef<[u8]>, link: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        let size = u64::try_from(content.as_ref().len()).unwrap();
        self.header(header(kind, name.as_ref(), link.as_ref(), 0o644, size)).content(content.as_ref())
    }

    fn file(self, name: &str, content: &str) -> Self {
        self.entry(b'0', name, "", content)
    }

    fn file_with_mode(self, name: &str, mode: u32) -> Self {
        self.header(header(b'0', name.as_bytes(), b"", mode, 0))
    }

    fn directory(self, name: &str, mode: u32) -> Self {
        self.header(header(b'5', name.as_bytes(), b"", mode, 0))
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(b'2', name, target, "")
    }

    fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(b'1', name, target, "")
    }

    /// A PAX header for the entry that follows.
    fn pax(self, key: &str, value: &str) -> Self {
        self.entry(b'x', "pax", "", record(key, value))
    }

    fn header(mut self, header: [u8; 512]) -> Self {
        self.0.extend(header);
        self
    }

    fn content(mut self, content: &[u8]) -> Self {
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// The tar with its end.
    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }

    fn gzip(self) -> Vec<u8> {
        gzip(&self.end())
    }
}

fn record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let length = (0..).find(|length: &usize| length.to_string().len() + rest.len() == *length).unwrap();
    format!("{length}{rest}")
}

fn header(kind: u8, name: &[u8], link: &[u8], mode: u32, size: u64) -> [u8; 512] {
    let mut header = [0; 512];
    header[..name.len()].copy_from_slice(name);
    header[100..107].copy_from_slice(format!("{mode:07o}").as_bytes());
    header[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    header[136..147].copy_from_slice(format!("{:011o}", 1_000_000_000).as_bytes());
    header[156] = kind;
    header[157..157 + link.len()].copy_from_slice(link);
    header[257..265].copy_from_slice(b"ustar\x0000");
    sum(&mut header);
    header
}

/// Makes the checksum of a header right.
fn sum(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A directory to unpack into, and a file beside it that must stay as it is.
struct Place {
    outer: TempDir,
}

impl Place {
    fn new() -> Self {
        let outer = TempDir::new().unwrap();
        fs::write(outer.path().join("outside"), "as it was").unwrap();
        Self { outer }
    }

    fn directory(&self) -> PathBuf {
        self.outer.path().join("build")
    }

    /// Unpacks, and checks that `check` says the same, that nothing is outside, and that an error leaves nothing.
    fn unpack(&self, archive: &[u8], limits: &Limits) -> Result<Contents, ArchiveError> {
        let outcome = unpack(archive, &self.directory(), limits);
        let checked = check(archive, limits);
        assert_eq!(format!("{outcome:?}"), format!("{checked:?}"), "unpacked and checked");
        assert_eq!(fs::read_to_string(self.outer.path().join("outside")).unwrap(), "as it was");
        let names =
            |path: &Path| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
        let beside = names(self.outer.path()).into_iter().filter(|name| name != "outside").collect::<Vec<_>>();
        assert_eq!(beside, if outcome.is_ok() { vec!["build"] } else { vec![] }, "{outcome:?}");
        outcome
    }
}

/// Unpacks a whole tar into a place of its own, with these limits.
fn outcome(tar: Tar, limits: &Limits) -> Result<Contents, ArchiveError> {
    Place::new().unpack(&tar.gzip(), limits)
}
