//! Engine.IO v4: one session over polling, WebSocket, or the one and then the other. Pure: whatever happens is
//! told with the time, and what is to be done is in [`Engine::take`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytestring::ByteString;

use crate::doors::socketio::codec::{self, Engine as Packet};
use crate::net::websocket::writer::Frame;

/// A poll this short before a deadline is late: two timers in a row end a little after their sum.
const SLACK: Duration = Duration::from_millis(10);
/// How long a close waits for the poll that takes it.
const CLOSE_WAIT: Duration = Duration::from_secs(30);
/// How long a session that its client has closed still answers the poll that was sent at the same time.
const LINGER: Duration = Duration::from_millis(50);

/// The times of a session.
#[derive(Debug, Clone, Copy)]
pub(in crate::doors::socketio) struct Timing {
    /// From a pong, or the handshake, to the next ping.
    pub(in crate::doors::socketio) ping_interval: Duration,
    /// From a ping to its pong.
    pub(in crate::doors::socketio) ping_timeout: Duration,
    /// From the first message of a WebSocket to the end of the upgrade.
    pub(in crate::doors::socketio) upgrade_timeout: Duration,
}

/// Something to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::doors::socketio) enum Step {
    /// Answer the pending poll.
    Answer(String),
    /// Write to a WebSocket; [`Engine::written`] tells when there is room for more.
    Write(u64, Vec<Frame>),
    /// End a WebSocket with this close code.
    Shut(u64, u16),
    /// A message came.
    Message(Frame),
    /// The session is over. What was asked before is still to be done.
    Closed(&'static str),
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::doors::socketio) enum Wrong {
    /// There is no such session any more.
    Unknown,
    /// Not now, or not like this.
    Request,
}

/// What a poll gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::doors::socketio) enum Polled {
    /// This, now.
    Now(String),
    /// Something later, by [`Step::Answer`].
    Later,
    /// Nothing.
    Wrong(Wrong),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Polling,
    WebSocket(u64),
}

/// A WebSocket that may take over.
#[derive(Debug, Clone, Copy)]
struct Probe {
    conn: u64,
    /// It has said `2probe`.
    probed: bool,
    deadline: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Open,
    /// The close waits for the next poll.
    Closing,
    /// The client has closed; one late poll gets a `6`.
    Left,
    Over,
}

/// One session.
#[derive(Debug)]
pub(in crate::doors::socketio) struct Engine {
    timing: Timing,
    life: Life,
    transport: Transport,
    probe: Option<Probe>,
    polling: bool,
    /// The POST that is on its way.
    posting: Option<u64>,
    /// A write is on its way.
    writing: bool,
    out: VecDeque<Frame>,
    out_bytes: usize,
    /// Bytes of `out` that come at the pace of the client: however many they are, it may be reading.
    out_paced: usize,
    /// The next ping, or the end when its pong is awaited.
    deadline: Instant,
    awaits_pong: bool,
    steps: Vec<Step>,
}

impl Engine {
    /// A session that begins with polling, or with the WebSocket `conn`.
    pub(in crate::doors::socketio) fn new(timing: Timing, conn: Option<u64>, now: Instant) -> Self {
        Self {
            timing,
            life: Life::Open,
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

    /// What is to be done, in order.
    pub(in crate::doors::socketio) fn take(&mut self) -> Vec<Step> {
        std::mem::take(&mut self.steps)
    }

    /// When [`Engine::tick`] has something to do.
    pub(in crate::doors::socketio) fn next_deadline(&self) -> Instant {
        self.probe.map_or(self.deadline, |probe| probe.deadline.min(self.deadline))
    }

    /// Whether nothing more will happen.
    pub(in crate::doors::socketio) fn is_over(&self) -> bool {
        self.life == Life::Over
    }

    /// Bytes that wait for the client.
    pub(in crate::doors::socketio) const fn waiting_bytes(&self) -> usize {
        self.out_bytes
    }

    /// Bytes that wait for the client and do not come at its pace: many of them mean that it does not read.
    pub(in crate::doors::socketio) const fn unread_bytes(&self) -> usize {
        self.out_bytes.saturating_sub(self.out_paced)
    }

    /// Whether a request of that transport fits.
    fn polls(&self) -> Result<(), Wrong> {
        match (self.life, self.transport) {
            (Life::Over, _) => Err(Wrong::Unknown),
            (_, Transport::WebSocket(_)) => Err(Wrong::Request),
            _ => Ok(()),
        }
    }

    /// A GET came.
    pub(in crate::doors::socketio) fn poll(&mut self, now: Instant) -> Polled {
        if let Err(wrong) = self.polls() {
            return Polled::Wrong(wrong);
        }
        if self.life == Life::Left {
            self.life = Life::Over;
            return Polled::Now("6".to_owned());
        }
        if self.life == Life::Closing {
            self.life = Life::Over;
            self.out.push_back(text("1"));
            return Polled::Now(self.payload());
        }
        if self.awaits_pong && now + SLACK >= self.deadline {
            self.end("ping timeout");
            return Polled::Wrong(Wrong::Unknown);
        }
        if !self.awaits_pong && now + SLACK >= self.deadline + self.timing.ping_timeout {
            self.end("ping timeout");
            return Polled::Wrong(Wrong::Unknown);
        }
        if self.polling {
            self.polling = false;
            self.steps.push(Step::Answer("1".to_owned()));
            self.end("overlap from client");
            return Polled::Wrong(Wrong::Request);
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

    /// The connection of the pending GET was cut.
    pub(in crate::doors::socketio) fn poll_gone(&mut self) {
        if self.polling {
            self.polling = false;
            self.end("poll connection closed prematurely");
        }
    }

    /// A POST begins, under a number of its own.
    pub(in crate::doors::socketio) fn post_begins(&mut self, post: u64) -> Result<(), Wrong> {
        self.polls()?;
        if self.life != Life::Open {
            return Err(Wrong::Unknown);
        }
        if self.posting.replace(post).is_some() {
            self.end("data request overlap from client");
            return Err(Wrong::Request);
        }
        Ok(())
    }

    /// The POST has come whole; `None` when it was not text.
    pub(in crate::doors::socketio) fn post(
        &mut self,
        post: u64,
        body: Option<&ByteString>,
        now: Instant,
    ) -> Result<(), Wrong> {
        if self.posting.take_if(|begun| *begun == post).is_none() || self.life != Life::Open {
            return Err(Wrong::Unknown);
        }
        let Some(body) = body else {
            self.end("invalid content");
            return Err(Wrong::Request);
        };
        for packet in Packet::decode_payload(body) {
            let taken = packet.is_ok_and(|packet| self.packet(packet, now));
            if !taken {
                self.end("parse error");
                return Err(Wrong::Request);
            }
            if self.life != Life::Open {
                break;
            }
        }
        Ok(())
    }

    /// The connection of that POST was cut, or its body was refused.
    pub(in crate::doors::socketio) fn post_gone(&mut self, post: u64, reason: &'static str) {
        if self.posting.take_if(|begun| *begun == post).is_some() {
            self.end(reason);
        }
    }

    /// A WebSocket came for this session.
    pub(in crate::doors::socketio) fn attach(&mut self, conn: u64, now: Instant) {
        let free = self.life == Life::Open && self.transport == Transport::Polling && self.probe.is_none();
        if free {
            self.probe = Some(Probe { conn, probed: false, deadline: now + self.timing.upgrade_timeout });
        } else {
            self.steps.push(Step::Shut(conn, 1000));
        }
    }

    /// A message came over a WebSocket.
    pub(in crate::doors::socketio) fn frame(&mut self, conn: u64, frame: Frame, now: Instant) {
        if let Some(probe) = self.probe.filter(|probe| probe.conn == conn) {
            return self.probe_frame(probe, frame, now);
        }
        if self.transport != Transport::WebSocket(conn) || self.life != Life::Open {
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
                // The answer to "3probe" is the last that went; nothing is on its way that was not waited for.
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

    /// A WebSocket has ended.
    pub(in crate::doors::socketio) fn conn_closed(&mut self, conn: u64) {
        if self.probe.is_some_and(|probe| probe.conn == conn) {
            self.probe = None;
        } else if self.transport == Transport::WebSocket(conn) {
            self.end("transport close");
        }
    }

    /// The last write to a WebSocket has left.
    pub(in crate::doors::socketio) fn written(&mut self, conn: u64) {
        if self.transport == Transport::WebSocket(conn) {
            self.writing = false;
            self.flush();
        }
    }

    /// `false` when the packet may not come now.
    fn packet(&mut self, packet: Packet, now: Instant) -> bool {
        match packet {
            Packet::Close => self.leave(),
            // Only servers ping, outside of a probe.
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

    /// The client says that it goes.
    fn leave(&mut self) {
        match self.transport {
            Transport::WebSocket(_) => self.close_socket("transport close"),
            Transport::Polling => {
                let polled = self.polling;
                self.answer("6");
                self.end("transport close");
                if !polled {
                    self.life = Life::Left;
                }
            }
        }
    }

    /// Sends, as soon as there is a way.
    pub(in crate::doors::socketio) fn send(&mut self, frames: impl IntoIterator<Item = Frame>) {
        self.queue(frames, 0);
        self.flush();
    }

    /// Sends with the next [`Engine::flush`]. So many bytes of it are `paced`: they come at the pace of the client.
    pub(in crate::doors::socketio) fn queue(&mut self, frames: impl IntoIterator<Item = Frame>, paced: usize) {
        if self.life != Life::Open {
            return;
        }
        self.out_paced = self.out_paced.saturating_add(paced);
        for frame in frames {
            self.out_bytes = self.out_bytes.saturating_add(frame.len());
            self.out.push_back(frame);
        }
    }

    /// Sends what waits, if there is a way.
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

    /// Time has passed.
    pub(in crate::doors::socketio) fn tick(&mut self, now: Instant) {
        if let Some(probe) = self.probe.filter(|probe| probe.deadline <= now) {
            self.probe = None;
            self.steps.push(Step::Shut(probe.conn, 1000));
        }
        if self.deadline > now || self.life == Life::Over {
            return;
        }
        match self.life {
            Life::Open if self.awaits_pong => match self.transport {
                Transport::WebSocket(_) => self.close_socket("ping timeout"),
                Transport::Polling => self.end("ping timeout"),
            },
            Life::Open => {
                (self.awaits_pong, self.deadline) = (true, now + self.timing.ping_timeout);
                self.send([text("2")]);
            }
            Life::Closing | Life::Left | Life::Over => self.life = Life::Over,
        }
    }

    /// The node ends the session; the client may come back.
    pub(in crate::doors::socketio) fn close(&mut self, reason: &'static str, code: u16, now: Instant) {
        if self.life != Life::Open {
            return;
        }
        match self.transport {
            Transport::WebSocket(conn) => {
                // What waits goes out before, as far as the socket takes it.
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
                    (self.life, self.deadline) = (Life::Closing, now + CLOSE_WAIT);
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
        if self.life != Life::Open {
            return;
        }
        self.life = Life::Over;
        self.answer("1");
        if let Some(probe) = self.probe.take() {
            self.steps.push(Step::Shut(probe.conn, 1000));
        }
        self.steps.push(Step::Closed(reason));
    }

    /// How long a session that is over is still to be found.
    pub(in crate::doors::socketio) const fn afterlife(&self) -> Duration {
        match self.life {
            Life::Open | Life::Over => Duration::ZERO,
            Life::Closing => CLOSE_WAIT,
            Life::Left => LINGER,
        }
    }
}

fn text(packet: &'static str) -> Frame {
    Frame::Text(ByteString::from_static(packet))
}
