//! What is refused, each with all that reads archives, and with nothing left behind.

use std::io::{self, Read};

use flate2::Compression;
use flate2::read::GzEncoder;

use super::super::check::check;
use super::super::error::{ArchiveError, Problem};
use super::super::limits::Limits;
use super::super::unpack::unpack;
use super::{LIMITS, Place, Tar, header, outcome, record};

#[track_caller]
fn refuse(tar: Tar, problem: Problem) {
    // Something is there before, which must be gone after.
    let archive = Tar::default().file("first/file", "x").directory("real", 0o755);
    let tar = Tar([archive.0, tar.0].concat());
    let outcome = outcome(tar, &LIMITS);
    assert_eq!(outcome.as_ref().unwrap_err().problem(), Some(problem), "{outcome:?}");
}

#[track_caller]
fn refuse_tar(tar: Tar) {
    let outcome = outcome(tar, &LIMITS);
    assert!(matches!(outcome, Err(ArchiveError::NotTar(_))), "{outcome:?}");
}

#[test]
fn names_that_lead_out() {
    let tar = Tar::default;
    for name in ["/outside", "//outside", "/"] {
        refuse(tar().file(name, "x"), Problem::AbsoluteName);
        refuse(tar().directory(name, 0o755), Problem::AbsoluteName);
    }
    for name in ["../outside", "..", "a/../../outside", "real/..", "./../outside", "real/../first/x"] {
        refuse(tar().file(name, "x"), Problem::ParentName);
        refuse(tar().directory(name, 0o755), Problem::ParentName);
        refuse(tar().symlink(name, "real"), Problem::ParentName);
        refuse(tar().hard_link(name, "first/file"), Problem::ParentName);
        refuse(tar().pax("path", name).file("harmless", "x"), Problem::ParentName);
        refuse(tar().entry(b'L', "long", "", format!("{name}\0")).file("harmless", "x"), Problem::ParentName);
    }
    refuse(tar().pax("path", "/outside").file("harmless", "x"), Problem::AbsoluteName);
}

#[test]
fn a_name_that_is_split_into_a_prefix_is_read_whole() {
    let mut split = header(b'0', b"outside", b"", 0o644, 0);
    split[345..347].copy_from_slice(b"..");
    super::sum(&mut split);
    refuse(Tar::default().header(split), Problem::ParentName);
    split[345..347].copy_from_slice(b"/a");
    super::sum(&mut split);
    refuse(Tar::default().header(split), Problem::AbsoluteName);
}

#[test]
fn names_that_are_no_names() {
    let tar = Tar::default;
    refuse(tar().file("", "x"), Problem::EmptyName);
    refuse(tar().file(".", "x"), Problem::EmptyName);
    refuse(tar().symlink("./", "real"), Problem::EmptyName);
    refuse(tar().pax("path", "a\0b").file("x", "x"), Problem::NulName);
    refuse(tar().pax("path", "").file("x", "x"), Problem::EmptyName);
    refuse(tar().entry(b'L', "long", "", "a\0b\0").file("x", "x"), Problem::NulName);
    refuse(tar().pax("linkpath", "a\0b").symlink("x", "real"), Problem::NulName);
    refuse(tar().pax("path", &"a/".repeat(151)).file("x", "x"), Problem::LongName);
    refuse(tar().pax("path", &"a".repeat(256)).file("x", "x"), Problem::LongName);
    refuse(tar().pax("linkpath", &"a/".repeat(151)).symlink("x", "y"), Problem::LongName);
}

#[test]
fn symbolic_links_that_lead_out() {
    let tar = Tar::default;
    refuse(tar().symlink("a", "/etc"), Problem::LinkOut);
    refuse(tar().symlink("a", ".."), Problem::LinkOut);
    refuse(tar().symlink("real/a", "../.."), Problem::LinkOut);
    refuse(tar().symlink("a", "real/../../outside"), Problem::LinkOut);
    refuse(tar().pax("linkpath", "../outside").symlink("a", "real"), Problem::LinkOut);
    refuse(tar().entry(b'K', "long", "", "../outside\0").symlink("a", "real"), Problem::LinkOut);
    refuse(tar().symlink("a", ""), Problem::EmptyName);
}

#[test]
fn chains_of_symbolic_links_that_lead_out() {
    let tar = Tar::default;
    refuse(tar().symlink("a", "b").symlink("b", ".."), Problem::LinkOut);
    refuse(tar().symlink("b", "..").symlink("a", "b").file("a/outside", "x"), Problem::LinkOut);
    // By the names alone `t` leads to `real`. By way of `real/s` it leads out.
    refuse(tar().symlink("real/s", "..").symlink("t", "real/s/.."), Problem::LinkOut);
    refuse(tar().symlink("real/s", "..").symlink("real/t", "s/../.."), Problem::LinkOut);
}

#[test]
fn entries_behind_a_symbolic_link_even_of_one_that_leads_nowhere_bad() {
    let tar = Tar::default;
    refuse(tar().symlink("l", "real").file("l/file", "x"), Problem::BehindLink);
    refuse(tar().symlink("l", "real").directory("l/directory", 0o755), Problem::BehindLink);
    refuse(tar().symlink("l", "real").symlink("l/link", "file"), Problem::BehindLink);
    refuse(tar().symlink("l", "real").hard_link("l/link", "first/file"), Problem::BehindLink);
    refuse(tar().symlink("l", "real").file("l/deep/er/file", "x"), Problem::BehindLink);
    refuse(tar().symlink("l", "missing").file("l/file", "x"), Problem::BehindLink);
    refuse(tar().symlink("l", "m").symlink("m", "real").file("l/file", "x"), Problem::BehindLink);
}

#[test]
fn files_that_would_be_written_through_a_link_of_the_same_name() {
    let tar = Tar::default;
    refuse(tar().symlink("l", "first/file").file("l", "x"), Problem::Duplicate);
    refuse(tar().symlink("l", "real").directory("l", 0o755), Problem::Duplicate);
    refuse(tar().symlink("l", "real").hard_link("l", "first/file"), Problem::Duplicate);
    refuse(tar().hard_link("l", "first/file").file("l", "x"), Problem::Duplicate);
}

#[test]
fn hard_links_to_anything_but_an_earlier_file() {
    let tar = Tar::default;
    for target in ["../outside", "/etc/passwd", "..", "first/../../outside", "", ".", "real", "missing", "later", "h"] {
        refuse(tar().hard_link("h", target).file("later", "x"), Problem::HardLink);
    }
    refuse(tar().symlink("l", "first/file").hard_link("h", "l"), Problem::HardLink);
    refuse(tar().symlink("l", "first").hard_link("h", "l/file"), Problem::HardLink);
    refuse(tar().pax("linkpath", "../outside").hard_link("h", "first/file"), Problem::HardLink);
}

#[test]
fn devices_and_pipes() {
    for kind in *b"346" {
        refuse(Tar::default().entry(kind, "a", "", ""), Problem::Device);
    }
}

#[test]
fn sparse_files_and_unknown_types() {
    refuse(Tar::default().entry(b'S', "a", "", "x"), Problem::Sparse);
    refuse(Tar::default().pax("GNU.sparse.major", "1").file("a", "x"), Problem::Sparse);
    for kind in *b"789DVMNAXZz\xff" {
        refuse(Tar::default().entry(kind, "a", "", ""), Problem::UnknownType);
    }
}

#[test]
fn names_that_come_twice() {
    let tar = Tar::default;
    refuse(tar().file("a", "x").file("a", "y"), Problem::Duplicate);
    refuse(tar().file("a", "x").file("./a", "y"), Problem::Duplicate);
    refuse(tar().file("a", "x").symlink("a", "b"), Problem::Duplicate);
    refuse(tar().file("a", "x").directory("a", 0o755), Problem::Duplicate);
    refuse(tar().file("real", "x"), Problem::Duplicate);
    refuse(tar().file("first", "x"), Problem::Duplicate);
    refuse(tar().symlink("first", "real"), Problem::Duplicate);
}

#[test]
fn entries_below_a_file() {
    refuse(Tar::default().file("a", "x").file("a/b", "y"), Problem::BelowFile);
    refuse(Tar::default().file("a", "x").directory("a/b/c", 0o755), Problem::BelowFile);
}

#[test]
fn content_of_what_is_no_file() {
    for kind in *b"125" {
        refuse(Tar::default().entry(kind, "a", "first/file", "x"), Problem::Content);
    }
    refuse(Tar::default().file("a/", "x"), Problem::Content);
}

#[test]
fn extensions_that_contradict_each_other_or_have_no_entry() {
    let tar = Tar::default;
    refuse_tar(tar().pax("path", "a").pax("path", "b").file("c", "x"));
    refuse_tar(tar().pax("path", "a").entry(b'L', "long", "", "b\0").file("c", "x"));
    refuse_tar(tar().entry(b'K', "long", "", "a\0").entry(b'K', "long", "", "b\0").symlink("c", "d"));
    refuse_tar(tar().pax("size", "2").file("a", "x"));
    refuse_tar(tar().pax("size", "two").file("a", "x"));
    refuse_tar(tar().file("a", "x").pax("path", "b"));
    refuse_tar(tar().entry(b'g', "global", "", record("path", "b")).file("a", "x"));
    refuse_tar(tar().entry(b'x', "pax", "", "no records").file("a", "x"));
}

#[test]
fn headers_that_are_wrong() {
    let good = header(b'0', b"a", b"", 0o644, 0);
    let with = |change: &dyn Fn(&mut [u8; 512]), right_sum: bool| {
        let mut header = good;
        change(&mut header);
        if right_sum {
            super::sum(&mut header);
        }
        Tar::default().header(header)
    };
    assert!(outcome(with(&|_| {}, true), &LIMITS).is_ok());
    refuse_tar(with(&|header| header[0] = b'b', false));
    refuse_tar(with(&|header| header[148..156].fill(b'x'), false));
    refuse_tar(with(&|header| header[124..135].fill(b'x'), true));
    refuse_tar(with(&|header| header[124..136].fill(0xff), true));
    refuse_tar(with(&|header| header[124..136].copy_from_slice(b"\x80\0\0\0\0\0\0\0\0\0\0\0"), true));
    refuse_tar(with(&|header| header[100..107].fill(b'9'), true));
}

#[test]
fn more_bytes_than_allowed_in_one_file_or_in_all() {
    let small = Limits { bytes: 1000, ..LIMITS };
    let file = |tar: Tar, name: &str, bytes: usize| tar.entry(b'0', name, "", vec![b'x'; bytes]);
    let bytes = |tar: Tar| outcome(tar, &small).map(|contents| contents.bytes);
    assert_eq!(bytes(file(file(Tar::default(), "a", 600), "b", 400)).unwrap(), 1000);
    for tar in [file(Tar::default(), "a", 1001), file(file(Tar::default(), "a", 600), "b", 401)] {
        assert!(matches!(bytes(tar), Err(ArchiveError::TooManyBytes(1000))));
    }
    let comment = Tar::default().pax("comment", &"x".repeat(700)).file("a", "x");
    assert!(matches!(bytes(file(comment, "b", 300)), Err(ArchiveError::TooManyBytes(1000))));
}

#[test]
fn more_entries_than_allowed_with_the_directories_of_names() {
    let small = Limits { entries: 4, ..LIMITS };
    let four = Tar::default().file("a/b/c", "x").symlink("d", "a");
    assert_eq!(outcome(four.clone(), &small).unwrap().directories, 2);
    let five_of_one_name = Tar::default().directory("a/b/c/d/e", 0o755);
    let again = [four.clone().directory("a", 0o755), four.clone().directory(".", 0o755)];
    for tar in [four.clone().file("e", "x"), four.hard_link("e", "a/b/c"), five_of_one_name].into_iter().chain(again) {
        assert!(matches!(outcome(tar, &small), Err(ArchiveError::TooManyEntries(4))));
    }
}

/// Counts what is read.
struct Counted<R>(R, u64);

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(into)?;
        self.1 += u64::try_from(read).unwrap();
        Ok(read)
    }
}

/// These bytes and a GiB of zeros. Compresses only as much as is read.
fn bomb(start: &[u8]) -> Counted<impl Read + '_> {
    Counted(GzEncoder::new(start.chain(io::repeat(0).take(1 << 30)), Compression::fast()), 0)
}

#[test]
fn a_bomb_of_zeros_is_refused_before_it_goes_off() {
    let header = header(b'0', b"bomb", b"", 0o644, 1 << 30);
    let limits = Limits { bytes: 100 << 20, compressed_bytes: 1 << 30, ..LIMITS };
    let place = Place::new();
    for unpacks in [false, true] {
        let mut reader = bomb(&header);
        let outcome =
            if unpacks { unpack(&mut reader, &place.directory(), &limits) } else { check(&mut reader, &limits) };
        assert!(matches!(outcome, Err(ArchiveError::TooManyBytes(_))), "{outcome:?}");
        assert!(reader.1 <= 64 * 1024, "{} bytes of the archive were read", reader.1);
    }
    assert!(!place.directory().exists());
}

#[test]
fn a_bomb_of_names_attributes_or_zeros_behind_the_end_is_refused_before_it_goes_off() {
    let limits = Limits { bytes: 1 << 31, compressed_bytes: 1 << 30, ..LIMITS };
    let starts = [b'L', b'K', b'x', b'g'].map(|kind| header(kind, b"x", b"", 0o644, 1 << 30).to_vec());
    for start in starts.into_iter().chain([Tar::default().file("a", "x").end()]) {
        let mut reader = bomb(&start);
        let outcome = check(&mut reader, &limits);
        assert!(matches!(outcome, Err(ArchiveError::NotTar(_) | ArchiveError::TrailingData)), "{outcome:?}");
        assert!(reader.1 <= 64 * 1024, "{} bytes of the archive were read", reader.1);
    }
}

#[test]
fn an_archive_of_more_bytes_than_allowed() {
    let archive = Tar::default().file("a", "x").gzip();
    let exact = u64::try_from(archive.len()).unwrap();
    let limits = |bytes| Limits { compressed_bytes: bytes, ..LIMITS };
    assert!(Place::new().unpack(&archive, &limits(exact)).is_ok());
    let outcome = Place::new().unpack(&archive, &limits(exact - 1));
    assert!(matches!(outcome, Err(ArchiveError::TooManyCompressedBytes(_))), "{outcome:?}");
}
