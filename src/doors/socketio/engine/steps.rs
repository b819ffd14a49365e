//! The inputs and outputs of the state machine of Engine.IO: times, steps, and the results of requests. Pure.

use std::time::Duration;

use crate::net::websocket::writer::Frame;

/// The times of a session.
#[derive(Debug, Clone, Copy)]
pub(in crate::doors::socketio) struct Timing {
    /// Time from a pong, or from the handshake, to the next ping.
    pub(in crate::doors::socketio) ping_interval: Duration,
    /// Time from a ping to its pong.
    pub(in crate::doors::socketio) ping_timeout: Duration,
    /// Longest time from the first message of a WebSocket to the end of the upgrade.
    pub(in crate::doors::socketio) upgrade_timeout: Duration,
}

/// A step that the engine asks its caller to take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::doors::socketio) enum Step {
    /// Answer the pending poll.
    Answer(String),
    /// Write frames to a WebSocket. The caller reports the end of the write to the engine.
    Write(u64, Vec<Frame>),
    /// Close a WebSocket with this close code.
    Shut(u64, u16),
    /// Handle a message of the client.
    Message(Frame),
    /// The session is over for this reason. The caller still takes the steps before this one.
    Closed(&'static str),
}

/// Why the engine refuses a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::doors::socketio) enum RequestError {
    /// The session does not exist any more.
    Unknown,
    /// The session does not accept this request, or not now.
    Request,
}

/// The result of a poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::doors::socketio) enum Polled {
    /// The body of the answer.
    Now(String),
    /// The answer follows with [`Step::Answer`].
    Later,
    /// The poll is refused.
    Refused(RequestError),
}
