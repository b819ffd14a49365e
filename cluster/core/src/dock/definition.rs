//! A definition: what is to run, under an id.

use alloc::string::String;
use alloc::vec::Vec;

use super::limits::{DOCUMENT_BYTES_MAX, ID_BYTES_MAX};
use crate::xbus::id::Id;

/// A definition, and its row.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DefinitionRow {
    /// The id: letters, digits, `-` and `.`.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The document as it was set: JSON that nodes write and read. The rules keep the bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub document: Vec<u8>,
    /// Counts the changes from 1, so that two operators do not overwrite each other.
    #[prost(uint64, tag = "3")]
    pub revision: u64,
    /// The newest finished build, 16 bytes; empty before the first one.
    #[prost(bytes = "vec", tag = "4")]
    pub build: Vec<u8>,
    /// The place of the definition in the order of adding.
    #[prost(uint64, tag = "5")]
    pub added: u64,
}

/// Why a definition cannot be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DefinitionError {
    /// The id breaks a rule.
    #[error("the id of a definition is 1 to {ID_BYTES_MAX} letters, digits, '-' and '.'")]
    Id,
    /// The document is too long, or there is none.
    #[error("the document of a definition has 1 to {DOCUMENT_BYTES_MAX} bytes")]
    Document,
}

impl DefinitionRow {
    /// A definition without a revision; [`DefinitionRow::set`] gives the first one.
    ///
    /// # Errors
    /// The id breaks a rule.
    pub fn new(id: String, added: u64) -> Result<Self, DefinitionError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
        if !(1..=ID_BYTES_MAX).contains(&id.len()) || !id.bytes().all(is_plain) {
            return Err(DefinitionError::Id);
        }
        Ok(Self { id, added, ..Self::default() })
    }

    /// Replaces the document.
    ///
    /// # Errors
    /// The document is too long, or there is none.
    pub fn set(&mut self, document: Vec<u8>) -> Result<(), DefinitionError> {
        if !(1..=DOCUMENT_BYTES_MAX).contains(&document.len()) {
            return Err(DefinitionError::Document);
        }
        self.document = document;
        self.revision = self.revision.saturating_add(1);
        Ok(())
    }

    /// The newest finished build; `None` before the first one.
    #[must_use]
    pub fn build_id(&self) -> Option<Id> {
        Id::from_slice(&self.build).ok()
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn a_definition_that_is_set_again_keeps_its_place_and_counts_on() {
        let mut row = DefinitionRow::new("web-1.example".into(), 7).unwrap();
        row.set(b"{}".to_vec()).unwrap();
        row.set(b"[]".to_vec()).unwrap();
        assert_eq!((row.revision, row.added, row.build_id()), (2, 7, None));
        assert_eq!(row.document, b"[]");
    }

    #[test]
    fn id_and_document_have_rules() {
        for id in ["", "a b", "a/b", "a_b", "ä", "a@b", "a\0", &"x".repeat(ID_BYTES_MAX + 1)] {
            assert_eq!(DefinitionRow::new(id.into(), 1), Err(DefinitionError::Id), "{id}");
        }
        let mut row = DefinitionRow::new("x".repeat(ID_BYTES_MAX), 1).unwrap();
        assert_eq!(row.set(Vec::new()), Err(DefinitionError::Document));
        assert_eq!(row.set(vec![b' '; DOCUMENT_BYTES_MAX + 1]), Err(DefinitionError::Document));
        assert_eq!((row.set(vec![b' '; DOCUMENT_BYTES_MAX]), row.revision), (Ok(()), 1));
    }
}
