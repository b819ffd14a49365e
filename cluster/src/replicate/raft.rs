//! openraft with our state machine.

use super::machine::StateMachine;
use crate::types::Types;

/// The handle of raft on this node.
pub(crate) type Raft = openraft::Raft<Types, StateMachine>;
