//! What became of a process on a dock.

use alloc::string::String;

use super::limits::{AT_MS_MAX, ID_BYTES_MAX, TEXT_BYTES_MAX};

/// What happened to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum DockEventKind {
    /// Nothing; no event has this kind.
    Unspecified = 0,
    /// The process began to run.
    Spawned = 1,
    /// The process ended.
    Exited = 2,
    /// The process ended too often in a short time, and its dock does not start the process again.
    Crashed = 3,
}

/// What happened to a process, as its dock said.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DockEvent {
    /// What happened.
    #[prost(enumeration = "DockEventKind", tag = "1")]
    pub kind: i32,
    /// Id of the definition.
    #[prost(string, tag = "2")]
    pub definition: String,
    /// Id of the dock.
    #[prost(string, tag = "3")]
    pub dock: String,
    /// Number of the process on the machine of the dock.
    #[prost(uint64, optional, tag = "4")]
    pub pid: Option<u64>,
    /// The exit code.
    #[prost(int64, optional, tag = "5")]
    pub code: Option<i64>,
    /// What the dock has to say beside.
    #[prost(string, optional, tag = "6")]
    pub text: Option<String>,
    /// When this happened, milliseconds since 1970.
    #[prost(uint64, tag = "7")]
    pub at: u64,
}

/// Why a process event cannot be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DockEventError {
    /// The kind is none.
    #[error("a process was spawned, exited or crashed")]
    Kind,
    /// An id is too long, or there is none.
    #[error("the ids of definition and dock are 1 to {ID_BYTES_MAX} bytes")]
    Id,
    /// A text is too long.
    #[error("the text of a process event has at most {TEXT_BYTES_MAX} bytes")]
    Text,
    /// The time cannot be written.
    #[error("the time of a process event is before the year 10000")]
    At,
}

impl DockEvent {
    /// Checks the kind, the time and the lengths; what happened.
    ///
    /// # Errors
    /// One of them breaks a rule.
    pub fn check(&self) -> Result<DockEventKind, DockEventError> {
        let kind = DockEventKind::try_from(self.kind).ok();
        let kind = kind.filter(|kind| *kind != DockEventKind::Unspecified).ok_or(DockEventError::Kind)?;
        let length = 1..=ID_BYTES_MAX;
        if !length.contains(&self.definition.len()) || !length.contains(&self.dock.len()) {
            return Err(DockEventError::Id);
        }
        let bytes = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        if bytes(&self.text) > TEXT_BYTES_MAX {
            return Err(DockEventError::Text);
        }
        if self.at > AT_MS_MAX {
            return Err(DockEventError::At);
        }
        Ok(kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spawned() -> DockEvent {
        let kind = DockEventKind::Spawned.into();
        DockEvent { kind, definition: "web".into(), dock: "dock 1".into(), ..DockEvent::default() }
    }

    #[test]
    fn kind_ids_texts_and_time_have_rules() {
        let refused = |change: fn(&mut DockEvent)| {
            let mut event = spawned();
            change(&mut event);
            event.check()
        };
        assert_eq!(refused(|_| {}), Ok(DockEventKind::Spawned));
        assert_eq!(refused(|event| event.kind = 0), Err(DockEventError::Kind));
        assert_eq!(refused(|event| event.kind = 4), Err(DockEventError::Kind));
        assert_eq!(refused(|event| event.definition.clear()), Err(DockEventError::Id));
        assert_eq!(refused(|event| event.dock = "x".repeat(ID_BYTES_MAX + 1)), Err(DockEventError::Id));
        assert_eq!(refused(|event| event.text = Some("x".repeat(4097))), Err(DockEventError::Text));
        assert_eq!(refused(|event| event.text = Some("x".repeat(4096))), Ok(DockEventKind::Spawned));
        assert_eq!(refused(|event| event.at = AT_MS_MAX + 1), Err(DockEventError::At));
    }
}
