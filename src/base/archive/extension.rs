//! Headers that say more about the next entry: long names of GNU tar, and records of PAX.

use std::io::Read;

use tar::EntryType;

use super::error::ArchiveError;
use super::limits::Limits;
use super::stream::Stream;

/// Bytes of the longest PAX header. PAX headers hold attributes too, which are ignored.
const PAX_BYTES_MAX: u64 = 1024 * 1024;

/// What extensions say about the entry that follows them.
#[derive(Debug, Default)]
pub(super) struct Extensions {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    /// The size, which must not be another one than that of the header.
    pub(super) size: Option<u64>,
    pub(super) sparse: bool,
    /// Whether there is a PAX header already: one entry has at most one.
    pax: bool,
    global: bool,
}

impl Extensions {
    /// Whether a header of this type is an extension.
    pub(super) fn is_extension(kind: EntryType) -> bool {
        matches!(kind, EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader | EntryType::XGlobalHeader)
    }

    /// Whether an entry must follow.
    pub(super) fn is_pending(&self) -> bool {
        self.path.is_some() || self.link.is_some() || self.pax
    }

    /// Reads the content of an extension.
    pub(super) fn read<R: Read>(
        &mut self,
        kind: EntryType,
        size: u64,
        stream: &mut Stream<R>,
        limits: &Limits,
    ) -> Result<(), ArchiveError> {
        let names = matches!(kind, EntryType::GNULongName | EntryType::GNULongLink);
        // A name ends with a NUL.
        let name_bytes = u64::try_from(limits.path_bytes).unwrap_or(u64::MAX).saturating_add(1);
        if size > if names { name_bytes } else { PAX_BYTES_MAX } {
            return Err(ArchiveError::NotTar("too long a name or attribute"));
        }
        let mut content = Vec::new();
        stream.content(size, |chunk| {
            content.extend_from_slice(chunk);
            Ok(())
        })?;
        match kind {
            EntryType::GNULongName => set(&mut self.path, without_nul(content)),
            EntryType::GNULongLink => set(&mut self.link, without_nul(content)),
            EntryType::XGlobalHeader if self.global => Err(TWICE),
            EntryType::XGlobalHeader => {
                self.global = true;
                check_global(&content)
            }
            _ if self.pax => Err(TWICE),
            _ => {
                self.pax = true;
                self.take_records(&content)
            }
        }
    }

    fn take_records(&mut self, records: &[u8]) -> Result<(), ArchiveError> {
        each_record(records, |key, value| match key {
            b"path" => set(&mut self.path, value.to_vec()),
            b"linkpath" => set(&mut self.link, value.to_vec()),
            b"size" => {
                let size = str::from_utf8(value).ok().and_then(|size| size.parse().ok());
                self.size = Some(size.ok_or(ArchiveError::NotTar("a size is no number"))?);
                Ok(())
            }
            key => {
                self.sparse |= key.starts_with(b"GNU.sparse.");
                Ok(())
            }
        })
    }
}

const TWICE: ArchiveError = ArchiveError::NotTar("an entry has two extensions of one kind");

fn set(slot: &mut Option<Vec<u8>>, name: Vec<u8>) -> Result<(), ArchiveError> {
    match slot.replace(name) {
        None => Ok(()),
        Some(_) => Err(TWICE),
    }
}

fn without_nul(mut name: Vec<u8>) -> Vec<u8> {
    if name.last() == Some(&0) {
        name.pop();
    }
    name
}

/// A global header, such as the comment of `git archive`, is taken if the header changes no entry.
fn check_global(records: &[u8]) -> Result<(), ArchiveError> {
    each_record(records, |key, _| {
        let changes = matches!(key, b"path" | b"linkpath" | b"size") || key.starts_with(b"GNU.sparse.");
        if changes { Err(ArchiveError::NotTar("a global header names entries")) } else { Ok(()) }
    })
}

/// Takes PAX records apart: `length key=value\n`, where the length counts the whole record.
fn each_record(
    mut records: &[u8],
    mut take: impl FnMut(&[u8], &[u8]) -> Result<(), ArchiveError>,
) -> Result<(), ArchiveError> {
    while !records.is_empty() {
        let (record, rest) = split_record(records).ok_or(ArchiveError::NotTar("malformed attributes"))?;
        let equals = record.iter().position(|byte| *byte == b'=');
        let key_and_value = equals.and_then(|at| Some((record.get(..at)?, record.get(at.checked_add(1)?..)?)));
        let (key, value) = key_and_value.ok_or(ArchiveError::NotTar("malformed attributes"))?;
        take(key, value)?;
        records = rest;
    }
    Ok(())
}

/// The first record without its length and line end, and all behind the record.
fn split_record(records: &[u8]) -> Option<(&[u8], &[u8])> {
    let blank = records.iter().take(8).position(|byte| *byte == b' ')?;
    let length: usize = str::from_utf8(records.get(..blank)?).ok()?.parse().ok()?;
    let behind_blank = blank.checked_add(1)?;
    let split = |length| {
        let (record, rest) = records.split_at_checked(length)?;
        Some((record.get(behind_blank..)?.strip_suffix(b"\n")?, rest))
    };
    // The stock command line counts one byte too few where the length would get one more digit.
    split(length).or_else(|| if matches!(length, 10 | 100 | 1000) { split(length.checked_add(1)?) } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(text: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut found = Vec::new();
        let outcome = each_record(text, |key, value| {
            found.push((key.to_vec(), value.to_vec()));
            Ok(())
        });
        outcome.ok().map(|()| found)
    }

    #[test]
    fn records_are_taken_apart_by_their_length() {
        assert_eq!(records(b""), Some(vec![]));
        let two = vec![(b"path".to_vec(), b"a\nb".to_vec()), (b"a".to_vec(), b"=".to_vec())];
        assert_eq!(records(b"12 path=a\nb\n6 a==\n"), Some(two));
    }

    #[test]
    fn a_record_that_the_stock_command_line_counts_wrong_is_taken() {
        assert_eq!(records("10 path=ü\n".as_bytes()), Some(vec![(b"path".to_vec(), "ü".into())]));
        let long = "x".repeat(90);
        assert_eq!(records(format!("100 path={long}\n").as_bytes()), Some(vec![(b"path".to_vec(), long.into())]));
        assert_eq!(records(b"11 path=abc\n"), None);
    }

    #[test]
    fn malformed_records_are_refused() {
        for text in [
            "x",
            "5",
            "5 ",
            "0 a=b\n",
            "2 a=b\n",
            "6 a=b",
            "7 a=b\n",
            "5 a=b\n",
            "6 ab\n",
            "6 a=b\n\n",
            "+6 a=b\n",
            "99999999999 a=b\n",
        ] {
            assert_eq!(records(text.as_bytes()), None, "{text:?}");
        }
    }
}
