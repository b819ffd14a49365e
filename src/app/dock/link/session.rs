//! The frames of one connection: requests of the hub and their answers, events, output, pings.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::doors::hms::wire::answer::{Answer, encode_error};
use crate::doors::hms::wire::decoder::Decoder;
use crate::doors::hms::wire::frame::{Frame, FrameKind};
use crate::doors::hms::wire::message::Message;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf, split};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep, timeout};

use super::super::config::Timing;
use super::super::dispatcher::{Dispatcher, Reply};
use super::super::node::node_stream::NodeStream;
use super::super::report::outbox::Outbox;
use super::super::report::subscriptions::Subscriptions;
use super::opening::Opened;

/// Most requests of the hub that are not answered yet.
const REQUESTS_MAX: usize = 4096;
/// The pause between events and the ping that shows whether the hub has read the events.
const CONFIRM_AFTER: Duration = Duration::from_secs(1);
/// The id of pings: at most one is not answered yet, and the dock has no other requests.
const PING_ID: u16 = 0;

/// One connection.
pub(super) struct Session<'a> {
    pub(super) timing: &'a Timing,
    pub(super) dispatcher: &'a Dispatcher,
    pub(super) outbox: &'a Arc<Outbox>,
    pub(super) subscriptions: &'a Subscriptions,
}

impl Session<'_> {
    /// Runs until the connection ends, and says why.
    pub(super) async fn run(&self, opened: Opened) -> io::Error {
        let Opened { stream, decoder, early } = opened;
        let (reader, writer) = split(stream);
        let pongs = Notify::new();
        self.subscriptions.connect();
        let connection = self.outbox.connect();
        let read = self.read(reader, decoder, early, connection, &pongs);
        let end = tokio::select! {
            end = read => end,
            end = self.write(writer) => end,
            end = self.ping(&pongs) => end,
            () = self.outbox.overflow() => io::Error::other("the node asks and does not read"),
        };
        self.outbox.disconnect();
        self.subscriptions.disconnect();
        end
    }

    async fn read(
        &self,
        mut reader: ReadHalf<NodeStream>,
        mut decoder: Decoder,
        early: Vec<Frame>,
        connection: u64,
        pongs: &Notify,
    ) -> io::Error {
        let requests = Arc::new(Semaphore::new(REQUESTS_MAX));
        for frame in early {
            self.frame(&frame, connection, &requests, pongs);
        }
        let mut bytes = BytesMut::new();
        loop {
            loop {
                match decoder.next_frame() {
                    Ok(Some(frame)) => self.frame(&frame, connection, &requests, pongs),
                    Ok(None) => break,
                    Err(error) => return io::Error::other(error),
                }
            }
            bytes.clear();
            bytes.reserve(8 * 1024);
            match reader.read_buf(&mut bytes).await {
                Ok(0) => return io::ErrorKind::UnexpectedEof.into(),
                Ok(_) => decoder.feed(&bytes),
                Err(error) => return error,
            }
        }
    }

    fn frame(&self, frame: &Frame, connection: u64, requests: &Arc<Semaphore>, pongs: &Notify) {
        match frame.kind {
            FrameKind::Ping => {
                let mut out = BytesMut::new();
                if Frame::pong(frame.id).encode(&mut out).is_ok() {
                    self.outbox.urgent(out.freeze());
                }
            }
            FrameKind::Response | FrameKind::Error if frame.id == PING_ID => pongs.notify_one(),
            FrameKind::Message => {
                // Nobody waits for the reply.
                match Message::parse(&frame.body) {
                    Ok(message) => drop(self.dispatcher.request(&message)),
                    Err(error) => tracing::debug!(%error, "the node sent a message that cannot be understood"),
                }
            }
            FrameKind::Request => self.request(frame, connection, requests),
            FrameKind::Response | FrameKind::Error | FrameKind::Unknown(_) => {}
        }
    }

    fn request(&self, frame: &Frame, connection: u64, requests: &Arc<Semaphore>) {
        let message = match Message::parse(&frame.body) {
            Ok(message) => message,
            Err(error) => return self.outbox.frame(connection, error_frame(&error.to_string(), frame.id)),
        };
        let Ok(permit) = Arc::clone(requests).try_acquire_owned() else {
            return self.outbox.frame(connection, error_frame("too many requests", frame.id));
        };
        let (op, id) = (message.op, frame.id);
        let encode = move |answer: &Answer| {
            let mut out = BytesMut::new();
            match answer.encode(op, id, &mut out) {
                Ok(()) => out.freeze(),
                Err(error) => error_frame(&error.to_string(), id),
            }
        };
        match self.dispatcher.request(&message) {
            Reply::Now(answer) => self.outbox.frame(connection, encode(&answer)),
            Reply::Never => {}
            Reply::Later(answered) => {
                let outbox = Arc::clone(self.outbox);
                tokio::spawn(async move {
                    let answer = answered.await.unwrap_or_else(|_| Answer::Error("the service was removed".into()));
                    outbox.frame(connection, encode(&answer));
                    drop(permit);
                });
            }
        }
    }

    async fn write(&self, mut writer: WriteHalf<NodeStream>) -> io::Error {
        loop {
            // Made anew each time: an idle connection keeps no buffer.
            let mut out = BytesMut::new();
            self.outbox.take(&mut out).await;
            let written = async {
                writer.write_all(&out).await?;
                writer.flush().await
            };
            if let Err(error) = written.await {
                return error;
            }
        }
    }

    /// Pings after each pause, and sooner when the hub may not have read all events.
    async fn ping(&self, pongs: &Notify) -> io::Error {
        let mut last = Instant::now();
        loop {
            let pause = self.timing.ping_after.saturating_sub(last.elapsed());
            let confirm = CONFIRM_AFTER.min(self.timing.ping_after);
            tokio::select! {
                () = sleep(pause) => {}
                () = async {
                    self.outbox.wait_for_unconfirmed().await;
                    sleep(confirm).await;
                } => {}
            }
            let mut out = BytesMut::new();
            if let Err(error) = Frame::ping(PING_ID).encode(&mut out) {
                return io::Error::other(error);
            }
            self.outbox.ping(out.freeze());
            if timeout(self.timing.pong_within, pongs.notified()).await.is_err() {
                return io::Error::new(io::ErrorKind::TimedOut, "the node does not answer a ping");
            }
            self.outbox.confirm();
            last = Instant::now();
        }
    }
}

fn error_frame(text: &str, id: u16) -> Bytes {
    let mut out = BytesMut::new();
    if let Err(error) = encode_error(text, id, &mut out) {
        tracing::error!(%error, "an error could not be encoded");
    }
    out.freeze()
}
