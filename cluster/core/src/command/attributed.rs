//! A command with who has it done, and the bytes of both.

use alloc::vec::Vec;

use prost::Message as _;

use super::{Command, DecodeError};
use crate::entry::command_frame;
use crate::error::Refusal;
use crate::level::FeatureLevel;
use crate::security::actor::Actor;

/// A command, and who has it done when that goes into the audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributed {
    /// The command.
    pub command: Command,
    /// Who has it done; `None` for what the cluster does by itself, and for what clients do all the time.
    pub actor: Option<Actor>,
}

/// The protobuf message around [`Command`], because a `oneof` needs a message of its own.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Envelope {
    #[prost(
        oneof = "Command",
        tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 40"
    )]
    command: Option<Command>,
    /// Who has the command done. From feature level `SECURED` on.
    #[prost(message, optional, tag = "100")]
    actor: Option<Actor>,
}

impl Command {
    /// The whole frame of this command, ready for an entry.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] when the command is longer than 4 GiB.
    pub fn frame(self) -> Result<Vec<u8>, Refusal> {
        self.frame_of(None)
    }

    /// The same with who has the command done, which needs feature level `SECURED`.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] when the command is longer than 4 GiB.
    pub fn frame_of(self, actor: Option<Actor>) -> Result<Vec<u8>, Refusal> {
        command_frame(&Envelope { command: Some(self), actor }.encode_to_vec())
    }
}

impl Attributed {
    /// Decodes the body of a command frame.
    ///
    /// # Errors
    /// [`DecodeError::Unknown`] for a command of a newer release, [`DecodeError::Damaged`] for bytes that no release
    /// wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        match Envelope::decode(bytes) {
            Ok(Envelope { command: Some(command), actor }) => Ok(Self { command, actor }),
            Ok(Envelope { command: None, .. }) => Err(DecodeError::Unknown),
            Err(error) => Err(DecodeError::Damaged(alloc::format!("{error}"))),
        }
    }

    /// Checks that this command may be proposed in a cluster at `level`.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] names the level that the command needs.
    pub fn check_level(&self, level: FeatureLevel) -> Result<(), Refusal> {
        level.check(self.command.required_level())?;
        self.actor.as_ref().map_or(Ok(()), |_| level.check(FeatureLevel::SECURED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Trim;
    use crate::entry::{Entry, EntryBuilder, Frame};

    #[test]
    fn a_command_reads_back_from_its_frame() {
        let command = Command::Trim(Trim { name: "app".into(), first: 7, bytes_first: 9 });
        let mut builder = EntryBuilder::new(0);
        builder.push(&command.clone().frame().unwrap());
        let bytes = builder.finish(0);
        let Some(Frame::Command(body)) = Entry::parse(&bytes).unwrap().frames().next() else { panic!("a command") };
        assert_eq!(Attributed::decode(body), Ok(Attributed { command, actor: None }));
    }

    #[test]
    fn a_command_of_a_newer_release_is_told_apart_from_damage() {
        assert_eq!(Attributed::decode(&[0xfa, 0x07, 0x00]), Err(DecodeError::Unknown));
        assert_eq!(Attributed::decode(&[]), Err(DecodeError::Unknown));
        assert!(matches!(Attributed::decode(&[0xff; 9]), Err(DecodeError::Damaged(_))));
    }
}
