//! What is taken, and what becomes of it.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::{Duration, SystemTime};

use super::super::error::ArchiveError;
use super::super::limits::{Contents, Limits};
use super::super::unpack::unpack;
use super::{LIMITS, Place, Tar, gzip, header, record};

#[test]
fn files_directories_and_links_are_unpacked() {
    let tar = Tar::default()
        .directory("./", 0o700)
        .directory("bin/", 0o755)
        .file("bin/run", "#!/bin/sh")
        .file("./lib/deep/er", "content")
        .symlink("bin/link", "../lib/deep")
        .symlink("nowhere", "bin/missing")
        .hard_link("again", "bin/run");
    let place = Place::new();
    let contents = place.unpack(&tar.gzip(), &LIMITS).unwrap();
    assert_eq!(contents, Contents { files: 3, directories: 3, links: 2, bytes: 16 });
    let at = |path: &str| place.directory().join(path);
    let text = |path: &str| fs::read_to_string(at(path)).unwrap();
    assert_eq!(
        (text("bin/run"), text("bin/link/er"), text("again")),
        ("#!/bin/sh".into(), "content".into(), "#!/bin/sh".into())
    );
    assert_eq!(fs::read_link(at("nowhere")).unwrap().to_str(), Some("bin/missing"));
    assert_eq!(fs::metadata(at("again")).unwrap().ino(), fs::metadata(at("bin/run")).unwrap().ino());
    let modified = fs::metadata(at("bin/run")).unwrap().modified().unwrap();
    assert_eq!(modified, SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000));
}

#[test]
fn modes_are_within_0755_and_the_owner_may_always_write() {
    let modes =
        [(0o777, 0o755), (0o6755, 0o755), (0o7777, 0o755), (0o666, 0o644), (0o444, 0o644), (0o600, 0o600), (0, 0o600)];
    let directories = [(0o777, 0o755), (0o2755, 0o755), (0o555, 0o755), (0o700, 0o700), (0, 0o700)];
    let mut tar = Tar::default();
    for (mode, _) in modes {
        tar = tar.file_with_mode(&format!("f{mode:o}"), mode);
    }
    for (mode, _) in directories {
        tar = tar.directory(&format!("d{mode:o}"), mode).file(&format!("d{mode:o}/file"), "x");
    }
    let place = Place::new();
    place.unpack(&tar.directory("d700", 0o755).gzip(), &LIMITS).unwrap();
    let mode = |name: String| fs::metadata(place.directory().join(name)).unwrap().permissions().mode() & 0o7777;
    for (stated, expected) in modes {
        assert_eq!(mode(format!("f{stated:o}")), expected, "{stated:o}");
    }
    for (stated, expected) in directories {
        // The directory that came again has its last mode.
        assert_eq!(mode(format!("d{stated:o}")), if stated == 0o700 { 0o755 } else { expected }, "{stated:o}");
    }
}

#[test]
fn long_names_of_gnu_and_of_pax_are_taken() {
    let (long, other) = (["a".repeat(120), "b".repeat(120)].join("/"), ["c".repeat(90), "d".repeat(150)].join("/"));
    let tar = Tar::default()
        .entry(b'L', "././@LongLink", "", format!("{long}\0"))
        .file("cut", "gnu")
        .pax("path", &other)
        .file("cut", "pax")
        .entry(b'K', "././@LongLink", "", format!("{long}\0"))
        .symlink("one", "cut")
        .pax("linkpath", &other)
        .hard_link("two", "cut")
        .entry(b'x', "pax", "", [record("mtime", "1.5"), record("path", "grün\n"), record("size", "1")].concat())
        .file("cut", "x");
    let place = Place::new();
    place.unpack(&tar.gzip(), &LIMITS).unwrap();
    for (path, content) in [(long.as_str(), "gnu"), (&other, "pax"), ("one", "gnu"), ("two", "pax"), ("grün\n", "x")] {
        assert_eq!(fs::read_to_string(place.directory().join(path)).unwrap(), content, "{path}");
    }
    assert!(!place.directory().join("cut").exists());
}

#[test]
fn the_oldest_tars_and_those_of_git_are_taken() {
    let mut old = header(b'\0', b"old/", b"", 0o755, 0);
    old[257..265].fill(0);
    super::sum(&mut old);
    let tar = Tar::default()
        .entry(b'g', "pax_global_header", "", record("comment", "0123456789abcdef"))
        .header(old)
        .entry(b'\0', "old/file", "", "x");
    let place = Place::new();
    let contents = place.unpack(&tar.gzip(), &LIMITS).unwrap();
    assert_eq!((contents.files, contents.directories), (1, 1));
    assert!(place.directory().join("old/file").is_file());
}

#[test]
fn names_with_a_prefix_are_taken_also_with_the_magic_of_the_stock_command_line() {
    let mut archive = Tar::default();
    for (place, magic) in [
        (b"posix", b"ustar\x0000"),
        (b"stock", b"ustar00\0"),
        (b"gnu..", b"ustar  \0"),
        (b"old..", b"\0\0\0\0\0\0\0\0"),
    ] {
        let mut header = header(b'0', &[b"name-", &place[..]].concat(), b"", 0o644, 0);
        header[345..350].copy_from_slice(place);
        header[257..265].copy_from_slice(magic);
        super::sum(&mut header);
        archive = archive.header(header);
    }
    let place = Place::new();
    place.unpack(&archive.gzip(), &LIMITS).unwrap();
    for name in ["posix/name-posix", "stock/name-stock", "name-gnu..", "name-old.."] {
        assert!(place.directory().join(name).is_file(), "{name}");
    }
}

#[test]
fn an_archive_without_entries_is_an_empty_directory() {
    for end in [1024, 10240] {
        let place = Place::new();
        assert_eq!(place.unpack(&gzip(&vec![0; end]), &LIMITS).unwrap(), Contents::default());
        assert_eq!(fs::read_dir(place.directory()).unwrap().count(), 0);
    }
}

#[test]
fn a_large_file_is_unpacked_byte_for_byte() {
    let content: Vec<u8> = (0..1_000_003_u32).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect();
    let place = Place::new();
    let limits = Limits { bytes: 1_000_003, compressed_bytes: 1 << 30, ..LIMITS };
    place.unpack(&Tar::default().entry(b'0', "large", "", &content).gzip(), &limits).unwrap();
    assert!(fs::read(place.directory().join("large")).unwrap() == content);
}

#[test]
fn an_empty_directory_is_filled_and_emptied_again_when_the_archive_is_refused() {
    let place = Place::new();
    fs::create_dir(place.directory()).unwrap();
    let bad = Tar::default().file("a/b", "x").symlink("c", "a").file("d", "x").file("d", "x").gzip();
    assert!(unpack(&bad[..], &place.directory(), &LIMITS).is_err());
    assert_eq!(fs::read_dir(place.directory()).unwrap().count(), 0);
    unpack(&Tar::default().file("a", "x").gzip()[..], &place.directory(), &LIMITS).unwrap();
    let full = unpack(&Tar::default().file("b", "x").gzip()[..], &place.directory(), &LIMITS);
    assert!(matches!(full, Err(ArchiveError::NotEmpty(_))), "{full:?}");
    assert_eq!(fs::read_to_string(place.directory().join("a")).unwrap(), "x");
    assert!(!place.directory().join("b").exists());
}

#[test]
fn a_directory_that_cannot_be_made_is_an_error_of_the_disk() {
    let place = Place::new();
    for path in [place.directory().join("no/parent"), place.outer.path().join("outside")] {
        let outcome = unpack(&Tar::default().gzip()[..], &path, &LIMITS);
        assert!(matches!(outcome, Err(ArchiveError::Disk { .. })), "{outcome:?}");
    }
}
