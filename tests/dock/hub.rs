//! A hub that does what a test says.

use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rollbook::doors::hms::wire::answer::Answer;
use rollbook::doors::hms::wire::decoder::Decoder;
use rollbook::doors::hms::wire::frame::{Frame, FrameKind};
use rollbook::doors::hms::wire::message::Message;
use rollbook::doors::hms::wire::op::Op;
use rollbook::doors::hms::wire::texts::SWITCHING_PROTOCOLS;
use serde_json::Value;

use crate::harness::wait_for;

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The downloads that are there, and how often each was asked for.
type Builds = Arc<Mutex<HashMap<String, (Vec<u8>, usize)>>>;

pub(crate) struct Hub {
    pub(crate) address: String,
    docks: mpsc::Receiver<(TcpStream, String)>,
    pub(crate) builds: Builds,
}

/// A dock that is connected.
pub(crate) struct Dock {
    stream: TcpStream,
    decoder: Decoder,
    next_id: u16,
    events: VecDeque<Message>,
    pub(crate) head: String,
    pub(crate) handshake: Value,
}

impl Hub {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (found, docks) = mpsc::channel();
        let builds = Builds::default();
        let stored = Arc::clone(&builds);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let head = read_head(&mut stream);
                if head.starts_with("CONNECT / ") {
                    if found.send((stream, head)).is_err() {
                        return;
                    }
                } else {
                    download(&mut stream, &head, &stored);
                }
            }
        });
        Self { address, docks, builds }
    }

    pub(crate) fn store(&self, service: &str, archive: Vec<u8>) {
        self.builds.lock().unwrap().insert(service.to_owned(), (archive, 0));
    }

    pub(crate) fn downloads(&self, service: &str) -> usize {
        self.builds.lock().unwrap().get(service).map_or(0, |(_, count)| *count)
    }

    /// Waits for a dock, and shakes hands.
    pub(crate) fn accept(&self) -> Dock {
        let mut dock = self.accept_without_handshake();
        dock.shake_hands();
        dock
    }

    pub(crate) fn accept_without_handshake(&self) -> Dock {
        Self::open(self.docks.recv_timeout(PATIENCE).expect("a dock connects"))
    }

    /// Waits for a dock that may begin with either of two hubs. Gives the other hub too.
    pub(crate) fn accept_at_one(first: Self, second: Self) -> (Dock, Self) {
        let (connection, is_first) = wait_for("a dock connects", PATIENCE, || {
            let at_first = first.docks.try_recv().ok().map(|connection| (connection, true));
            at_first.or_else(|| Some((second.docks.try_recv().ok()?, false)))
        });
        let mut dock = Self::open(connection);
        dock.shake_hands();
        (dock, if is_first { second } else { first })
    }

    fn open((mut stream, head): (TcpStream, String)) -> Dock {
        stream.write_all(SWITCHING_PROTOCOLS.as_bytes()).unwrap();
        let decoder = Decoder::new(64 << 20);
        Dock { stream, decoder, next_id: 0, events: VecDeque::new(), head, handshake: Value::Null }
    }
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            break;
        }
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn download(stream: &mut TcpStream, head: &str, builds: &Builds) {
    let service = head.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
    let mut builds = builds.lock().unwrap();
    let answer = match builds.get_mut(&service) {
        None => b"HTTP/1.1 404 Not Found\r\nContent-Length: 15\r\n\r\nNo builds found".to_vec(),
        Some((archive, count)) => {
            *count += 1;
            let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            for chunk in archive.chunks(1000) {
                answer.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
                answer.extend(chunk);
                answer.extend(b"\r\n");
            }
            answer.extend(b"0\r\n\r\n");
            answer
        }
    };
    stream.write_all(&answer).ok();
}

impl Dock {
    pub(crate) fn shake_hands(&mut self) {
        let frame = self.next_frame();
        let message = Message::parse(&frame.body).unwrap();
        assert_eq!((frame.kind, frame.id, message.op), (FrameKind::Request, 0, Op::Handshake));
        self.handshake = serde_json::from_slice(&message.payload).unwrap();
        let mut out = BytesMut::new();
        let body = bytes::Bytes::from_static(br#"{"type":"terminal","version":"0.4.4"}"#);
        Frame { kind: FrameKind::Response, id: 0, body }.encode(&mut out).unwrap();
        self.write(&out);
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next frame; pings are answered.
    pub(crate) fn next_frame(&mut self) -> Frame {
        self.try_next_frame(PATIENCE).expect("a frame comes")
    }

    pub(crate) fn try_next_frame(&mut self, patience: Duration) -> Option<Frame> {
        let deadline = Instant::now() + patience;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match self.decoder.next_frame().unwrap() {
                Some(frame) if frame.kind == FrameKind::Ping => {
                    let mut out = BytesMut::new();
                    Frame::pong(frame.id).encode(&mut out).unwrap();
                    self.stream.write_all(&out).ok();
                    continue;
                }
                Some(frame) => return Some(frame),
                None => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.stream.set_read_timeout(Some(left)).unwrap();
            match self.stream.read(&mut buffer) {
                Ok(0) => panic!("the dock closed the connection"),
                Ok(read) => self.decoder.feed(&buffer[..read]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Sends a request and gives its id.
    pub(crate) fn send(&mut self, op: Op, service: &str, payload: &str) -> u16 {
        let id = self.next_id;
        self.next_id += 1;
        let mut out = BytesMut::new();
        Message::new(op, service).with_payload(payload.to_owned()).encode_request(id, &mut out).unwrap();
        self.write(&out);
        id
    }

    /// Waits for the answer to the request `id`. Events that come meanwhile are kept.
    pub(crate) fn answer(&mut self, op: Op, id: u16) -> Result<Value, String> {
        loop {
            let frame = self.next_frame();
            match frame.kind {
                FrameKind::Message => self.events.push_back(Message::parse(&frame.body).unwrap()),
                kind if frame.id == id => {
                    return match Answer::parse(Some(op), kind, &frame.body).unwrap().unwrap() {
                        Answer::Done => Ok(Value::Null),
                        Answer::Json(json) => Ok(serde_json::from_str(json.get()).unwrap()),
                        Answer::Error(text) => Err(text),
                    };
                }
                kind => panic!("unexpected {kind:?} {}", frame.id),
            }
        }
    }

    pub(crate) fn request(&mut self, op: Op, service: &str, payload: &str) -> Result<Value, String> {
        let id = self.send(op, service, payload);
        self.answer(op, id)
    }

    /// Defines a service and starts the service.
    pub(crate) fn run(&mut self, service: &str, definition: Value) {
        self.request(Op::Sync, service, &definition.to_string()).unwrap();
        self.request(Op::Start, service, "").unwrap();
    }

    pub(crate) fn next_event(&mut self) -> Message {
        self.try_next_event(PATIENCE).expect("an event comes")
    }

    pub(crate) fn try_next_event(&mut self, patience: Duration) -> Option<Message> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        let frame = self.try_next_frame(patience)?;
        assert_eq!(frame.kind, FrameKind::Message);
        Some(Message::parse(&frame.body).unwrap())
    }

    /// The next event of a kind, and its payload as a text. Others are passed over.
    pub(crate) fn wait(&mut self, op: Op, service: &str) -> String {
        loop {
            let event = self.next_event();
            if event.op == op && event.id == service {
                return String::from_utf8_lossy(&event.payload).into_owned();
            }
        }
    }

    /// The pid of the next process.
    pub(crate) fn spawned(&mut self, service: &str) -> u32 {
        self.wait(Op::Spawn, service).parse().unwrap()
    }

    /// Reads output until the text has come.
    pub(crate) fn read_until(&mut self, service: &str, end: &str) -> String {
        let mut text = String::new();
        while !text.contains(end) {
            let event = self.next_event();
            if event.id == service && matches!(event.op, Op::Stdout | Op::Stderr) {
                text.push_str(&String::from_utf8_lossy(&event.payload));
            }
        }
        text
    }

    /// The element of `ps` of one service.
    pub(crate) fn ps(&mut self, service: &str) -> Value {
        let answer = self.request(Op::Ps, "", "").unwrap();
        answer[0]["list"]
            .as_array()
            .unwrap()
            .iter()
            .find(|element| element["id"] == service)
            .cloned()
            .unwrap_or_default()
    }

    /// Asks until the service has the status.
    pub(crate) fn wait_status(&mut self, service: &str, status: &str) -> Value {
        wait_for(&format!("{service} is {status}"), PATIENCE, || {
            let element = self.ps(service);
            (element["status"] == status).then_some(element)
        })
    }
}
