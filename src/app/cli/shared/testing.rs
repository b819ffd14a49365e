//! A scripted HTTP server for the tests: gives the answers it was told, one a request, and keeps the requests.

use std::cell::RefCell;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::global::Global;
use super::output::Out;

pub(in crate::app::cli) fn global(log_url: &str, web_url: &str) -> Global {
    Global { log_url: Some(log_url.to_owned()), web_url: Some(web_url.to_owned()), ..Global::default() }
}

/// A whole answer; the connection closes behind it. `headers` are lines that each end in CR LF.
pub(in crate::app::cli) fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}")
}

/// An event stream that ends after `body`.
pub(in crate::app::cli) fn stream(consumer: &str, body: &str) -> String {
    answer("200 OK", &format!("Content-Type: text/event-stream\r\nX-BUS-CONSUMER-ID: {consumer}\r\n"), body)
}

/// The frame of an event with this payload.
pub(in crate::app::cli) fn frame(index: u64, payload: &str) -> String {
    format!(
        "id: e_{index}\nevent: msg\ndata: {{\"id\":\"e_{index}\",\"subject\":\"app.x\",\
         \"created_at\":\"2026-01-01T00:00:00Z\",\"payload\":{payload},\"index\":{index}}}\n\n"
    )
}

pub(in crate::app::cli) struct Fake {
    pub(in crate::app::cli) addr: SocketAddr,
    scheme: &'static str,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    /// Answers the first request with the first answer and so on, then closes without answering.
    pub(in crate::app::cli) async fn start(answers: Vec<String>) -> Self {
        Self::listen(answers, None).await
    }

    /// The same over TLS. A connection that TLS refuses takes no answer.
    pub(in crate::app::cli) async fn start_tls(answers: Vec<String>, tls: ServerConfig) -> Self {
        Self::listen(answers, Some(TlsAcceptor::from(Arc::new(tls)))).await
    }

    async fn listen(answers: Vec<String>, tls: Option<TlsAcceptor>) -> Self {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        tokio::spawn(async move {
            let mut answers = answers.into_iter().peekable();
            while answers.peek().is_some() {
                let (stream, _) = listener.accept().await.unwrap();
                match &tls {
                    None => exchange(stream, &mut answers, &seen).await,
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => exchange(stream, &mut answers, &seen).await,
                        Err(_) => continue,
                    },
                }
            }
        });
        Self { addr, scheme, requests }
    }

    /// Both listeners of a node in one.
    pub(in crate::app::cli) fn global(&self) -> Global {
        global(&self.url(), &self.url())
    }

    pub(in crate::app::cli) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.addr)
    }

    pub(in crate::app::cli) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// First line of each request, without the version.
    pub(in crate::app::cli) fn calls(&self) -> Vec<String> {
        let first = |request: &String| request.lines().next().unwrap().replace(" HTTP/1.1", "");
        self.requests().iter().map(first).collect()
    }

    /// Body of each request.
    pub(in crate::app::cli) fn bodies(&self) -> Vec<String> {
        self.requests().iter().map(|request| request.split_once("\r\n\r\n").unwrap().1.to_owned()).collect()
    }
}

/// Reads one request and gives the next answer. A client that refuses the certificate sends no request.
async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answers: &mut impl Iterator<Item = String>,
    seen: &Mutex<Vec<String>>,
) {
    let request = read_request(&mut stream).await;
    if request.is_empty() {
        return;
    }
    seen.lock().unwrap().push(request);
    stream.write_all(answers.next().unwrap().as_bytes()).await.unwrap();
    stream.shutdown().await.ok();
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = stream.read(&mut buffer).await.unwrap_or(0);
        bytes.extend_from_slice(&buffer[..count]);
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let length = text
                .lines()
                .take_while(|line| !line.is_empty())
                .find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
            if count == 0 || bytes.len() - end - 4 >= length.map_or(0, |length| length.parse().unwrap()) {
                return text;
            }
        } else if count == 0 {
            return String::from_utf8_lossy(&bytes).into_owned();
        }
    }
}

/// An output that can be read afterwards.
pub(in crate::app::cli) fn captured() -> (Out, impl Fn() -> String) {
    struct Shared(Rc<RefCell<Vec<u8>>>);
    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Write::write(&mut *self.0.borrow_mut(), bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let bytes = Rc::new(RefCell::new(Vec::new()));
    let out = Out::new(Box::new(Shared(Rc::clone(&bytes))));
    (out, move || String::from_utf8(bytes.borrow().clone()).unwrap())
}
