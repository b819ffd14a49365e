//! Archives that are cut off, damaged, or followed by something.

use std::io::{self, Read};

use super::super::check::check;
use super::super::error::ArchiveError;
use super::super::unpack::unpack;
use super::{LIMITS, Place, Tar, gzip, record};

/// A tar of everything that an archive may have.
fn everything() -> Tar {
    Tar::default()
        .entry(b'g', "global", "", record("comment", "x"))
        .directory("a", 0o755)
        .file("a/empty", "")
        .entry(b'0', "a/b", "", vec![b'x'; 1300])
        .symlink("c", "a")
        .hard_link("d", "a/b")
        .entry(b'L', "long", "", format!("{}\0", "e".repeat(200)))
        .file("cut", "x")
        .pax("path", "f")
        .file("cut", "y")
}

#[test]
fn a_tar_that_is_cut_off_at_any_block_is_refused() {
    let whole = everything().end();
    assert!(Place::new().unpack(&gzip(&whole), &LIMITS).is_ok());
    for end in (0..whole.len()).step_by(512) {
        let outcome = Place::new().unpack(&gzip(&whole[..end]), &LIMITS);
        assert!(matches!(outcome, Err(ArchiveError::Truncated)), "{end}: {outcome:?}");
    }
    for end in [1, 511, 513, 1000, whole.len() - 1, whole.len() - 513] {
        let outcome = Place::new().unpack(&gzip(&whole[..end]), &LIMITS);
        assert!(matches!(outcome, Err(ArchiveError::Truncated)), "{end}: {outcome:?}");
    }
}

#[test]
fn a_gzip_that_is_cut_off_at_any_byte_is_refused() {
    let whole = everything().gzip();
    for end in 0..whole.len() {
        let outcome = Place::new().unpack(&whole[..end], &LIMITS);
        // The header of gzip has ten bytes.
        let expected = if end < 10 { "incorrect header check" } else { "unexpected end of file" };
        assert_eq!(outcome.unwrap_err().to_string(), expected, "{end}");
    }
}

#[test]
fn what_is_no_gzip_is_refused_with_the_text_of_zlib() {
    let tar = everything().end();
    for bytes in [&b""[..], b"x", b"this is no gzip at all", b"\x1f", b"\x1f\x8b\x07\0\0\0\0\0\0\0", &tar, &[0; 4096]] {
        let outcome = Place::new().unpack(bytes, &LIMITS);
        assert_eq!(outcome.unwrap_err().to_string(), "incorrect header check", "{}", bytes.escape_ascii());
    }
}

#[test]
fn a_gzip_whose_bytes_are_not_those_of_its_checksum_is_refused() {
    let whole = everything().gzip();
    for from_end in 1..=8 {
        let mut damaged = whole.clone();
        damaged[whole.len() - from_end] ^= 1;
        let outcome = Place::new().unpack(&damaged, &LIMITS);
        assert!(matches!(outcome, Err(ArchiveError::Corrupt)), "{from_end}: {outcome:?}");
    }
    let rubbish = [&whole[..10], &[0xff; 100]].concat();
    let outcome = Place::new().unpack(&rubbish, &LIMITS);
    assert!(matches!(outcome, Err(ArchiveError::Corrupt)), "{outcome:?}");
}

#[test]
fn a_gzip_with_any_byte_changed_is_refused_unless_the_tar_is_the_same() {
    let whole = everything().gzip();
    let contents = check(&whole[..], &LIMITS).unwrap();
    let mut taken = 0;
    for at in 10..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x55;
        // Zeros may be copied from other zeros, and the checksum is right.
        if let Ok(found) = Place::new().unpack(&damaged, &LIMITS) {
            assert_eq!(found, contents, "{at}");
            taken += 1;
        }
    }
    assert!(taken < 10, "{taken} of {} are taken", whole.len());
}

#[test]
fn what_follows_the_end_is_refused() {
    let whole = everything().gzip();
    for more in [&b"x"[..], b"\0", &[0; 512], &whole] {
        let outcome = Place::new().unpack(&[&whole[..], more].concat(), &LIMITS);
        assert!(matches!(outcome, Err(ArchiveError::TrailingData)), "{outcome:?}");
    }
    let more = [everything().end(), Tar::default().file("hidden", "x").end()].concat();
    let outcome = Place::new().unpack(&gzip(&more), &LIMITS);
    assert!(matches!(outcome, Err(ArchiveError::TrailingData)), "{outcome:?}");
    let one_zero_block = [everything().0, vec![0; 512], Tar::default().file("hidden", "x").end()].concat();
    let outcome = Place::new().unpack(&gzip(&one_zero_block), &LIMITS);
    assert!(matches!(outcome, Err(ArchiveError::NotTar(_))), "{outcome:?}");
    let filled = [everything().end(), vec![0; 9 * 512]].concat();
    assert!(Place::new().unpack(&gzip(&filled), &LIMITS).is_ok());
}

/// Gives one byte at a time, is interrupted before each, and fails at the end.
struct Slow<'a> {
    bytes: &'a [u8],
    interrupted: bool,
    fails: bool,
}

impl Read for Slow<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.interrupted = !self.interrupted;
        match (self.interrupted, self.bytes.split_first()) {
            (true, _) => Err(io::ErrorKind::Interrupted.into()),
            (_, Some((byte, rest))) => {
                into[0] = *byte;
                self.bytes = rest;
                Ok(1)
            }
            (_, None) if self.fails => Err(io::Error::other("the peer is gone")),
            (_, None) => Ok(0),
        }
    }
}

#[test]
fn a_slow_reader_is_waited_for_and_one_that_fails_is_told_from_a_bad_archive() {
    let whole = everything().gzip();
    let slow = |bytes, fails| Slow { bytes, interrupted: false, fails };
    assert!(check(slow(&whole, false), &LIMITS).is_ok());
    for end in [0, 5, 10, 100, whole.len() - 4, whole.len()] {
        let place = Place::new();
        let outcome = unpack(slow(&whole[..end], true), &place.directory(), &LIMITS);
        let text = outcome.unwrap_err().to_string();
        assert_eq!(text, "the archive could not be read: the peer is gone", "{end}");
        assert!(!place.directory().exists());
    }
}
