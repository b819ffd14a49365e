//! The changes of the state of docks: the body of one command of the log.

use alloc::string::String;
use alloc::vec::Vec;

use super::event::DockEvent;

/// One change.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DockChange {
    /// When set, the change applies only if the definition has this revision. 0: the definition does not exist. Changes
    /// that are about no definition alone ignore the field.
    #[prost(uint64, optional, tag = "1")]
    pub if_revision: Option<u64>,
    /// What is changed.
    #[prost(oneof = "Change", tags = "2, 3, 4, 5, 6, 7, 8")]
    pub change: Option<Change>,
}

/// What is changed. Tags are never reused.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum Change {
    /// A definition is added, or its document is replaced.
    #[prost(message, tag = "2")]
    DefinitionSet(DefinitionSet),
    /// A definition is removed with all its builds, by id.
    #[prost(string, tag = "3")]
    DefinitionRemove(String),
    /// A build of a definition begins to arrive.
    #[prost(message, tag = "4")]
    BuildBegin(BuildBegin),
    /// The next chunk of a build came.
    #[prost(message, tag = "5")]
    BuildChunk(BuildChunk),
    /// All chunks of a build came, and the definition points to the build.
    #[prost(message, tag = "6")]
    BuildFinish(BuildFinish),
    /// The rest of an open build will not come, by id: the chunks are removed.
    #[prost(bytes, tag = "7")]
    BuildAbandon(Vec<u8>),
    /// Something happened to processes.
    #[prost(message, tag = "8")]
    Events(Events),
}

/// The body of [`Change::DefinitionSet`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DefinitionSet {
    /// The definition.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The document: JSON that the rules keep as it is.
    #[prost(bytes = "vec", tag = "2")]
    pub document: Vec<u8>,
}

/// The body of [`Change::BuildBegin`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct BuildBegin {
    /// The new build, 16 random bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub build: Vec<u8>,
    /// The definition whose build this is.
    #[prost(string, tag = "2")]
    pub definition: String,
}

/// The body of [`Change::BuildChunk`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct BuildChunk {
    /// The build, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub build: Vec<u8>,
    /// The ordinal: 0, 1, 2 and so on. The newest chunk may come again, others may not.
    #[prost(uint32, tag = "2")]
    pub ordinal: u32,
    /// The bytes, at most [`super::limits::BUILD_CHUNK_BYTES_MAX`].
    #[prost(bytes = "vec", tag = "3")]
    pub bytes: Vec<u8>,
}

/// The body of [`Change::BuildFinish`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct BuildFinish {
    /// The build, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub build: Vec<u8>,
    /// How many chunks have to be there.
    #[prost(uint32, tag = "2")]
    pub chunks: u32,
    /// How many bytes these have together.
    #[prost(uint64, tag = "3")]
    pub bytes: u64,
    /// SHA-256 of all bytes in order, for those who read the build.
    #[prost(bytes = "vec", tag = "4")]
    pub sha256: Vec<u8>,
    /// The new document of the definition.
    #[prost(bytes = "vec", tag = "5")]
    pub document: Vec<u8>,
}

/// The body of [`Change::Events`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Events {
    /// What happened, in order: at most [`super::limits::EVENTS_MAX`].
    #[prost(message, repeated, tag = "1")]
    pub events: Vec<DockEvent>,
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use prost::Message as _;

    use super::*;
    use crate::dock::event::DockEventKind;

    #[test]
    fn a_change_is_what_it_was_before_it_was_stored() {
        let event = DockEvent {
            kind: DockEventKind::Exited.into(),
            definition: "web".into(),
            dock: "dock1".into(),
            code: Some(-1),
            at: 5,
            ..DockEvent::default()
        };
        let build = || vec![1; 16];
        let all = [
            Change::DefinitionSet(DefinitionSet { id: "web".into(), document: b"{}".to_vec() }),
            Change::DefinitionRemove("web".into()),
            Change::BuildBegin(BuildBegin { build: build(), definition: "web".into() }),
            Change::BuildChunk(BuildChunk { build: build(), ordinal: 3, bytes: vec![0xff; 9] }),
            Change::BuildFinish(BuildFinish { build: build(), chunks: 4, bytes: 9, ..BuildFinish::default() }),
            Change::BuildAbandon(build()),
            Change::Events(Events { events: vec![event] }),
        ];
        for change in all {
            let change = DockChange { if_revision: Some(3), change: Some(change) };
            assert_eq!(DockChange::decode(&change.encode_to_vec()[..]), Ok(change));
        }
    }
}
