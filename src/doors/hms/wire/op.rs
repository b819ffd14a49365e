//! The 17 operations.

/// What a message asks for or tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Op {
    /// The first message of a connection says who has connected.
    Handshake = 0,
    /// Defines a new service.
    Add = 1,
    /// Changes the definition of a service.
    Update = 2,
    /// Stops a service and forgets its definition.
    Remove = 3,
    /// Asks for all definitions.
    List = 4,
    /// Asks for all processes.
    Ps = 5,
    /// Starts a service.
    Start = 6,
    /// Stops a service.
    Stop = 7,
    /// Restarts a service.
    Restart = 8,
    /// Hands a service and its build to docks.
    Sync = 9,
    /// Asks for the events of a service, or of all.
    Subscribe = 10,
    /// Ends a subscription.
    Unsubscribe = 11,
    /// A process wrote to its standard output.
    Stdout = 12,
    /// A process wrote to its standard error.
    Stderr = 13,
    /// A process has started.
    Spawn = 14,
    /// A process has ended.
    Exit = 15,
    /// Asks for one definition.
    Get = 16,
}

/// No operation has this code. A request is answered [`NOT_SUPPORTED`](super::texts::NOT_SUPPORTED), a message is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", super::texts::NOT_SUPPORTED)]
pub struct UnknownOp(pub u8);

impl Op {
    /// All operations, in the order of their codes.
    pub const ALL: [Self; 17] = [
        Self::Handshake,
        Self::Add,
        Self::Update,
        Self::Remove,
        Self::List,
        Self::Ps,
        Self::Start,
        Self::Stop,
        Self::Restart,
        Self::Sync,
        Self::Subscribe,
        Self::Unsubscribe,
        Self::Stdout,
        Self::Stderr,
        Self::Spawn,
        Self::Exit,
        Self::Get,
    ];

    /// The first byte of a message with this operation.
    #[must_use]
    #[expect(clippy::as_conversions, reason = "the discriminant of an enum that is a u8")]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The name, as the original calls its function and its event.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Add => "add",
            Self::Update => "update",
            Self::Remove => "remove",
            Self::List => "list",
            Self::Ps => "ps",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Sync => "sync",
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Spawn => "spawn",
            Self::Exit => "exit",
            Self::Get => "get",
        }
    }

    /// Whether the operation tells what a process did. Events are never answered, even when they come as requests.
    #[must_use]
    pub fn is_event(self) -> bool {
        matches!(self, Self::Stdout | Self::Stderr | Self::Spawn | Self::Exit)
    }

    /// Whether the answer must be JSON: a stock client dies of anything else. Other answers have no body.
    #[must_use]
    pub fn is_answered_with_json(self) -> bool {
        matches!(self, Self::Handshake | Self::List | Self::Ps | Self::Get)
    }
}

impl TryFrom<u8> for Op {
    type Error = UnknownOp;

    fn try_from(code: u8) -> Result<Self, UnknownOp> {
        Self::ALL.get(usize::from(code)).copied().ok_or(UnknownOp(code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_the_place_in_the_list_and_no_other_code_is_known() {
        for code in 0..=u8::MAX {
            match Op::try_from(code) {
                Ok(op) => assert_eq!(op.code(), code),
                Err(error) => assert!(code > 16 && error == UnknownOp(code)),
            }
        }
    }
}
