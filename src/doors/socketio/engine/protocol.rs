//! The state machine of Engine.IO v4: one session over polling, over a WebSocket, or over polling and then a
//! WebSocket.
//!
//! Pure. Each input brings the time. [`Engine::take`] returns the steps that the caller has to take.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytestring::ByteString;

use super::steps::{Polled, RequestError, Step, Timing};
use crate::doors::socketio::codec::{self, Engine as Packet};
use crate::net::websocket::writer::Frame;

/// A poll this close to a deadline counts as late, because two timers in a row fire a little after their sum.
const SLACK: Duration = Duration::from_millis(10);
/// How long a close waits for the poll that brings the close to the client.
const CLOSE_WAIT: Duration = Duration::from_secs(30);
/// How long a session stays after a close by the client, to answer a poll that the client sent at the same time.
const LINGER: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Polling,
    WebSocket(u64),
}

/// A WebSocket that takes part in an upgrade.
#[derive(Debug, Clone, Copy)]
struct Probe {
    conn: u64,
    /// The client has sent `2probe`.
    probed: bool,
    deadline: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The session takes all inputs.
    Open,
    /// The close waits for the next poll.
    Closing,
    /// The client closed the session. One late poll gets a `6` (noop).
    ClientClosed,
    /// The session is over.
    Over,
}

/// The state of one session.
#[derive(Debug)]
pub(in crate::doors::socketio) struct Engine {
    /// The intervals of pings, pongs and upgrades.
    timing: Timing,
    /// Which inputs the session still takes.
    phase: Phase,
    /// The transport that gets the packets.
    transport: Transport,
    /// The WebSocket of an upgrade that is under way: the transport changes when the client confirms.
    probe: Option<Probe>,
    /// Whether a poll is pending, which takes the next packets.
    polling: bool,
    /// The number of the POST whose body is being received: the client may send one at a time.
    posting: Option<u64>,
    /// Whether a write to the WebSocket is under way, so that only one is.
    writing: bool,
    /// Frames that wait for the transport.
    out: VecDeque<Frame>,
    /// Bytes of `out`, for the bound of the queue.
    out_bytes: usize,
    /// Bytes of `out` that come at the pace of the client. They do not show that the client is slow.
    out_paced: usize,
    /// When the next ping is due, or when the session ends unless a pong comes.
    deadline: Instant,
    /// Whether the deadline is that of a pong, and not that of the next ping.
    awaits_pong: bool,
    /// Steps that the caller has not taken yet.
    steps: Vec<Step>,
}

impl Engine {
    /// Creates a session that begins with polling, or with the WebSocket `conn`.
    pub(in crate::doors::socketio) fn new(timing: Timing, conn: Option<u64>, now: Instant) -> Self {
        Self {
            timing,
            phase: Phase::Open,
            transport: conn.map_or(Transport::Polling, Transport::WebSocket),
            probe: None,
            polling: false,
            posting: None,
            writing: false,
            out: VecDeque::new(),
            out_bytes: 0,
            out_paced: 0,
            deadline: now + timing.ping_interval,
            awaits_pong: false,
            steps: Vec::new(),
        }
    }

    /// Returns the steps to take, in order.
    pub(in crate::doors::socketio) fn take(&mut self) -> Vec<Step> {
        std::mem::take(&mut self.steps)
    }

    /// When [`Engine::tick`] has to be called next.
    pub(in crate::doors::socketio) fn next_deadline(&self) -> Instant {
        self.probe.map_or(self.deadline, |probe| probe.deadline.min(self.deadline))
    }

    /// Whether the session is over.
    pub(in crate::doors::socketio) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Bytes that wait for the client.
    pub(in crate::doors::socketio) const fn waiting_bytes(&self) -> usize {
        self.out_bytes
    }

    /// Bytes that wait for the client and do not come at its pace. Many of them mean that the client does not read.
    pub(in crate::doors::socketio) const fn unread_bytes(&self) -> usize {
        self.out_bytes.saturating_sub(self.out_paced)
    }

    /// Refuses a request by polling that the session cannot take.
    fn polls(&self) -> Result<(), RequestError> {
        match (self.phase, self.transport) {
            (Phase::Over, _) => Err(RequestError::Unknown),
            (_, Transport::WebSocket(_)) => Err(RequestError::Request),
            _ => Ok(()),
        }
    }

    /// Handles a GET.
    pub(in crate::doors::socketio) fn poll(&mut self, now: Instant) -> Polled {
        if let Err(error) = self.polls() {
            return Polled::Refused(error);
        }
        if self.phase == Phase::ClientClosed {
            self.phase = Phase::Over;
            return Polled::Now("6".to_owned());
        }
        if self.phase == Phase::Closing {
            self.phase = Phase::Over;
            self.out.push_back(text("1"));
            return Polled::Now(self.payload());
        }
        if self.awaits_pong && now + SLACK >= self.deadline {
            self.end("ping timeout");
            return Polled::Refused(RequestError::Unknown);
        }
        if !self.awaits_pong && now + SLACK >= self.deadline + self.timing.ping_timeout {
            self.end("ping timeout");
            return Polled::Refused(RequestError::Unknown);
        }
        if self.polling {
            self.polling = false;
            self.steps.push(Step::Answer("1".to_owned()));
            self.end("overlap from client");
            return Polled::Refused(RequestError::Request);
        }
        if !self.out.is_empty() {
            return Polled::Now(self.payload());
        }
        if self.probe.is_some_and(|probe| probe.probed) {
            return Polled::Now("6".to_owned());
        }
        self.polling = true;
        Polled::Later
    }

    /// The client closed the connection of the pending GET.
    pub(in crate::doors::socketio) fn poll_aborted(&mut self) {
        if self.polling {
            self.polling = false;
            self.end("poll connection closed prematurely");
        }
    }

    /// Begins a POST under a number of its own.
    pub(in crate::doors::socketio) fn post_start(&mut self, post: u64) -> Result<(), RequestError> {
        self.polls()?;
        if self.phase != Phase::Open {
            return Err(RequestError::Unknown);
        }
        if self.posting.replace(post).is_some() {
            self.end("data request overlap from client");
            return Err(RequestError::Request);
        }
        Ok(())
    }

    /// Handles the whole body of a POST. `None` means that the body is not text.
    pub(in crate::doors::socketio) fn post(
        &mut self,
        post: u64,
        body: Option<&ByteString>,
        now: Instant,
    ) -> Result<(), RequestError> {
        if self.posting.take_if(|begun| *begun == post).is_none() || self.phase != Phase::Open {
            return Err(RequestError::Unknown);
        }
        let Some(body) = body else {
            self.end("invalid content");
            return Err(RequestError::Request);
        };
        for packet in Packet::decode_payload(body) {
            let taken = packet.is_ok_and(|packet| self.packet(packet, now));
            if !taken {
                self.end("parse error");
                return Err(RequestError::Request);
            }
            if self.phase != Phase::Open {
                break;
            }
        }
        Ok(())
    }

    /// Ends the session because the connection of that POST broke or its body was refused.
    pub(in crate::doors::socketio) fn post_aborted(&mut self, post: u64, reason: &'static str) {
        if self.posting.take_if(|begun| *begun == post).is_some() {
            self.end(reason);
        }
    }

    /// Adds a WebSocket to the session, for an upgrade.
    pub(in crate::doors::socketio) fn attach(&mut self, conn: u64, now: Instant) {
        let free = self.phase == Phase::Open && self.transport == Transport::Polling && self.probe.is_none();
        if free {
            self.probe = Some(Probe { conn, probed: false, deadline: now + self.timing.upgrade_timeout });
        } else {
            self.steps.push(Step::Shut(conn, 1000));
        }
    }

    /// Handles a message that came over a WebSocket.
    pub(in crate::doors::socketio) fn frame(&mut self, conn: u64, frame: Frame, now: Instant) {
        if let Some(probe) = self.probe.filter(|probe| probe.conn == conn) {
            return self.probe_frame(probe, frame, now);
        }
        if self.transport != Transport::WebSocket(conn) || self.phase != Phase::Open {
            return;
        }
        let taken = Packet::decode(frame).is_ok_and(|packet| self.packet(packet, now));
        if !taken {
            self.close_socket("parse error");
        }
    }

    fn probe_frame(&mut self, mut probe: Probe, frame: Frame, now: Instant) {
        match Packet::decode(frame) {
            Ok(Packet::Ping(data)) if data == "probe" && !probe.probed => {
                probe.probed = true;
                self.probe = Some(probe);
                self.steps.push(Step::Write(probe.conn, vec![text("3probe")]));
                self.answer("6");
            }
            Ok(Packet::Upgrade) if probe.probed => {
                self.probe = None;
                self.answer("6");
                self.transport = Transport::WebSocket(probe.conn);
                // The answer to `3probe` was the last frame, and no write is under way.
                self.writing = false;
                if self.awaits_pong {
                    (self.awaits_pong, self.deadline) = (false, now + self.timing.ping_interval);
                }
                self.flush();
            }
            _ => {
                self.probe = None;
                self.steps.push(Step::Shut(probe.conn, 1000));
            }
        }
    }

    /// Handles the end of a WebSocket.
    pub(in crate::doors::socketio) fn conn_closed(&mut self, conn: u64) {
        if self.probe.is_some_and(|probe| probe.conn == conn) {
            self.probe = None;
        } else if self.transport == Transport::WebSocket(conn) {
            self.end("transport close");
        }
    }

    /// Handles the end of the last write to a WebSocket.
    pub(in crate::doors::socketio) fn written(&mut self, conn: u64) {
        if self.transport == Transport::WebSocket(conn) {
            self.writing = false;
            self.flush();
        }
    }

    /// Handles a packet. Returns `false` when the client may not send the packet now.
    fn packet(&mut self, packet: Packet, now: Instant) -> bool {
        match packet {
            Packet::Close => self.client_closed(),
            // Only servers send pings, except in a probe.
            Packet::Ping(_) => return false,
            Packet::Pong => {
                if self.awaits_pong {
                    (self.awaits_pong, self.deadline) = (false, now + self.timing.ping_interval);
                }
            }
            Packet::Message(frame) => self.steps.push(Step::Message(frame)),
            Packet::Upgrade | Packet::Meaningless => {}
        }
        true
    }

    /// Ends the session because the client closed it.
    fn client_closed(&mut self) {
        match self.transport {
            Transport::WebSocket(_) => self.close_socket("transport close"),
            Transport::Polling => {
                let polled = self.polling;
                self.answer("6");
                self.end("transport close");
                if !polled {
                    self.phase = Phase::ClientClosed;
                }
            }
        }
    }

    /// Sends frames as soon as the transport can take them.
    pub(in crate::doors::socketio) fn send(&mut self, frames: impl IntoIterator<Item = Frame>) {
        self.queue(frames, 0);
        self.flush();
    }

    /// Queues frames for the next [`Engine::flush`]. So many bytes of them are `paced`: they come at the pace of the
    /// client.
    pub(in crate::doors::socketio) fn queue(&mut self, frames: impl IntoIterator<Item = Frame>, paced: usize) {
        if self.phase != Phase::Open {
            return;
        }
        self.out_paced = self.out_paced.saturating_add(paced);
        for frame in frames {
            self.out_bytes = self.out_bytes.saturating_add(frame.len());
            self.out.push_back(frame);
        }
    }

    /// Sends the queued frames if the transport can take them.
    pub(in crate::doors::socketio) fn flush(&mut self) {
        if self.out.is_empty() {
            return;
        }
        match self.transport {
            Transport::Polling if self.polling => {
                let payload = self.payload();
                self.answer(&payload);
            }
            Transport::WebSocket(conn) if !self.writing => {
                self.writing = true;
                (self.out_bytes, self.out_paced) = (0, 0);
                let frames = std::mem::take(&mut self.out).into();
                self.steps.push(Step::Write(conn, frames));
            }
            _ => {}
        }
    }

    fn payload(&mut self) -> String {
        (self.out_bytes, self.out_paced) = (0, 0);
        let frames: Vec<Frame> = std::mem::take(&mut self.out).into();
        codec::encode_payload(&frames)
    }

    /// Answers the pending poll, if there is one.
    fn answer(&mut self, payload: &str) {
        if std::mem::replace(&mut self.polling, false) {
            self.steps.push(Step::Answer(payload.to_owned()));
        }
    }

    /// Checks the deadlines.
    pub(in crate::doors::socketio) fn tick(&mut self, now: Instant) {
        if let Some(probe) = self.probe.filter(|probe| probe.deadline <= now) {
            self.probe = None;
            self.steps.push(Step::Shut(probe.conn, 1000));
        }
        if self.deadline > now || self.phase == Phase::Over {
            return;
        }
        match self.phase {
            Phase::Open if self.awaits_pong => match self.transport {
                Transport::WebSocket(_) => self.close_socket("ping timeout"),
                Transport::Polling => self.end("ping timeout"),
            },
            Phase::Open => {
                (self.awaits_pong, self.deadline) = (true, now + self.timing.ping_timeout);
                self.send([text("2")]);
            }
            Phase::Closing | Phase::ClientClosed | Phase::Over => self.phase = Phase::Over,
        }
    }

    /// Ends the session for a reason of the node. The client may connect again.
    pub(in crate::doors::socketio) fn close(&mut self, reason: &'static str, code: u16, now: Instant) {
        if self.phase != Phase::Open {
            return;
        }
        match self.transport {
            Transport::WebSocket(conn) => {
                // The queued frames go out first, as far as the socket takes them.
                if !self.writing {
                    self.flush();
                }
                self.steps.push(Step::Shut(conn, code));
                self.end(reason);
            }
            Transport::Polling => {
                let polled = self.polling;
                if polled {
                    self.out.push_back(text("1"));
                    self.flush();
                }
                self.end_keeping(reason);
                if !polled {
                    (self.phase, self.deadline) = (Phase::Closing, now + CLOSE_WAIT);
                }
            }
        }
    }

    fn close_socket(&mut self, reason: &'static str) {
        if let Transport::WebSocket(conn) = self.transport {
            self.steps.push(Step::Shut(conn, 1000));
        }
        self.end(reason);
    }

    fn end(&mut self, reason: &'static str) {
        self.out.clear();
        (self.out_bytes, self.out_paced) = (0, 0);
        self.end_keeping(reason);
    }

    fn end_keeping(&mut self, reason: &'static str) {
        if self.phase != Phase::Open {
            return;
        }
        self.phase = Phase::Over;
        self.answer("1");
        if let Some(probe) = self.probe.take() {
            self.steps.push(Step::Shut(probe.conn, 1000));
        }
        self.steps.push(Step::Closed(reason));
    }

    /// How long the session stays in the table after its end.
    pub(in crate::doors::socketio) const fn linger(&self) -> Duration {
        match self.phase {
            Phase::Open | Phase::Over => Duration::ZERO,
            Phase::Closing => CLOSE_WAIT,
            Phase::ClientClosed => LINGER,
        }
    }
}

fn text(packet: &'static str) -> Frame {
    Frame::Text(ByteString::from_static(packet))
}
