//! What is packed, and unpacked again.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use flate2::read::GzDecoder;
use tempfile::TempDir;

use super::super::check::check;
use super::super::error::{ArchiveError, Problem};
use super::super::limits::{Contents, Limits};
use super::super::pack::pack;
use super::{LIMITS, Place};

fn write(root: &Path, path: &str, content: impl AsRef<[u8]>) {
    fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
    fs::write(root.join(path), content).unwrap();
}

/// A directory with everything that is packed.
fn directory() -> TempDir {
    let directory = TempDir::new().unwrap();
    let root = directory.path();
    let long = ["long".repeat(30), "name".repeat(30)].join("/");
    for path in ["b", "a/z", "a/b/c", "a.txt", "B", ".hidden", "grün", &long] {
        write(root, path, path);
    }
    write(root, "a/large", vec![7; 100_000]);
    fs::create_dir(root.join("empty")).unwrap();
    fs::set_permissions(root.join("b"), Permissions::from_mode(0o6777)).unwrap();
    for (path, target) in [("link", "a/b"), ("a/up", ".."), ("dangling", "missing"), ("dot", "."), ("far", &long)] {
        symlink(target, root.join(path)).unwrap();
    }
    directory
}

fn packed(root: &Path, limits: &Limits) -> Result<(Contents, Vec<u8>), ArchiveError> {
    let mut archive = Vec::new();
    pack(root, &mut archive, limits).map(|contents| (contents, archive))
}

fn names(archive: &[u8]) -> Vec<String> {
    let mut tar = tar::Archive::new(GzDecoder::new(archive));
    let names = tar.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().to_str().unwrap().to_owned());
    names.collect()
}

#[test]
fn a_directory_is_packed_and_unpacked_again() {
    let directory = directory();
    let (contents, archive) = packed(directory.path(), &LIMITS).unwrap();
    let place = Place::new();
    assert_eq!(place.unpack(&archive, &LIMITS).unwrap(), contents);
    assert_eq!((contents.files, contents.directories, contents.links), (9, 4, 5));
    let at = |path: &str| place.directory().join(path);
    for path in ["b", "a/z", "a/b/c", "a.txt", "B", ".hidden", "grün"] {
        assert_eq!(fs::read_to_string(at(path)).unwrap(), path);
    }
    assert_eq!(fs::read(at("a/large")).unwrap(), vec![7; 100_000]);
    assert_eq!(fs::metadata(at("b")).unwrap().permissions().mode() & 0o7777, 0o755);
    for link in ["link", "a/up", "dangling", "dot", "far"] {
        assert_eq!(fs::read_link(at(link)).unwrap(), fs::read_link(directory.path().join(link)).unwrap());
    }
    let modified = |root: &Path| fs::metadata(root.join("b")).unwrap().modified().unwrap();
    let lost = modified(directory.path()).duration_since(modified(&place.directory())).unwrap();
    assert!(lost.as_secs() == 0, "{lost:?}");
    // What was unpacked is packed to the same bytes, but for the times of directories and links.
    assert_eq!(names(&packed(&place.directory(), &LIMITS).unwrap().1), names(&archive));
}

#[test]
fn the_order_is_that_of_the_names_and_two_archives_are_the_same() {
    let directory = directory();
    let (_, archive) = packed(directory.path(), &LIMITS).unwrap();
    assert!(packed(directory.path(), &LIMITS).unwrap().1 == archive);
    let names = names(&archive);
    let short: Vec<&str> = names.iter().map(String::as_str).filter(|name| name.len() < 100).collect();
    let expected = [
        ".hidden", "B", "a/", "a/b/", "a/b/c", "a/large", "a/up", "a/z", "a.txt", "b", "dangling", "dot", "empty/",
        "far", "grün", "link",
    ];
    assert_eq!(short, expected);
}

#[test]
fn sockets_are_left_out() {
    let directory = TempDir::new().unwrap();
    write(directory.path(), "file", "x");
    let _socket = UnixListener::bind(directory.path().join("socket")).unwrap();
    let (contents, archive) = packed(directory.path(), &LIMITS).unwrap();
    assert_eq!((contents.files, names(&archive)), (1, vec!["file".to_owned()]));
}

#[test]
fn a_link_that_leads_out_is_stored_and_never_followed() {
    let directory = TempDir::new().unwrap();
    let outside = TempDir::new().unwrap();
    write(outside.path(), "secret", "secret");
    symlink(outside.path(), directory.path().join("link")).unwrap();
    let (contents, archive) = packed(directory.path(), &LIMITS).unwrap();
    assert_eq!((contents.files, contents.links, names(&archive)), (0, 1, vec!["link".to_owned()]));
    assert_eq!(check(&archive[..], &LIMITS).unwrap_err().problem(), Some(Problem::LinkOut));
}

#[test]
fn limits_hold_for_packing_too_and_what_was_written_is_no_archive() {
    let directory = directory();
    let refused = |limits: Limits| {
        let mut archive = Vec::new();
        let error = pack(directory.path(), &mut archive, &limits).unwrap_err();
        assert!(check(&archive[..], &LIMITS).is_err(), "{error}: a part of an archive looks whole");
        error
    };
    let (contents, archive) = packed(directory.path(), &LIMITS).unwrap();
    let exact = Limits {
        bytes: contents.bytes,
        entries: contents.files + contents.directories + contents.links,
        path_bytes: 241,
        compressed_bytes: u64::try_from(archive.len()).unwrap(),
    };
    assert!(packed(directory.path(), &exact).is_ok());
    assert!(matches!(refused(Limits { bytes: exact.bytes - 1, ..exact }), ArchiveError::TooManyBytes(_)));
    assert!(matches!(refused(Limits { entries: exact.entries - 1, ..exact }), ArchiveError::TooManyEntries(_)));
    assert_eq!(refused(Limits { path_bytes: 240, ..exact }).problem(), Some(Problem::LongName));
    for bytes in [0, 10, 100, exact.compressed_bytes - 1] {
        let error = refused(Limits { compressed_bytes: bytes, ..exact });
        assert!(matches!(error, ArchiveError::TooManyCompressedBytes(_)), "{error}");
    }
}

/// Fails once, after so many bytes.
struct Failing(Vec<u8>, usize, bool);

impl Write for Failing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() >= self.1 && !self.2 {
            self.2 = true;
            return Err(io::Error::other("the peer is gone"));
        }
        self.0.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_writer_that_fails_is_written_no_end() {
    let directory = directory();
    let (_, archive) = packed(directory.path(), &LIMITS).unwrap();
    for bytes in [0, 1, 10, 11, archive.len() - 8] {
        let mut writer = Failing(Vec::new(), bytes, false);
        let error = pack(directory.path(), &mut writer, &LIMITS).unwrap_err();
        assert_eq!(error.to_string(), "the archive could not be written: the peer is gone");
        assert!(check(&writer.0[..], &LIMITS).is_err(), "{bytes}");
    }
}

#[test]
fn a_directory_that_is_not_there_is_an_error_of_the_disk() {
    let directory = TempDir::new().unwrap();
    let error = packed(&directory.path().join("missing"), &LIMITS).unwrap_err();
    assert!(matches!(error, ArchiveError::Disk { .. }), "{error}");
}
