//! Watches a new process until it is ready.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::super::definition::readiness::{Readiness, ReadinessCheck};
use super::super::output::task::Output;
use super::readiness_table::ReadinessTable;

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(100);
/// How long one attempt may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of the output that are searched at once.
const SEARCH_BYTES: usize = 32 * 1024;

/// A file of standard output, and where in the file the output of a process begins.
pub(super) type Position = (PathBuf, u64);

/// Says in the readiness table when a new process is ready, or when the process has had its time. Ends with the handle.
pub(super) fn watch(
    service: String,
    ready: Readiness,
    stdout: Position,
    readiness: Arc<ReadinessTable>,
    output: Arc<Output>,
) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        if timeout(ready.timeout, wait_ready(ready.check, stdout)).await.is_err() {
            output.note(&format!("not ready within {} s; counts as ready", ready.timeout.as_secs_f64()));
        }
        readiness.set(&service, true);
    }))
}

/// Returns when the check succeeds. `stdout` says where the output of the process begins. The check for the bus never succeeds here: the hub tells.
async fn wait_ready(check: ReadinessCheck, stdout: Position) {
    if let ReadinessCheck::Line(text) = check {
        return find_line(text.into_bytes(), stdout).await;
    }
    while !timeout(ATTEMPT_TIMEOUT, attempt(&check)).await.unwrap_or(false) {
        sleep(PAUSE).await;
    }
}

async fn attempt(check: &ReadinessCheck) -> bool {
    match check {
        ReadinessCheck::Tcp(address) => TcpStream::connect(address).await.is_ok(),
        ReadinessCheck::Http { address, path } => http(address, path).await.unwrap_or(false),
        ReadinessCheck::Line(_) | ReadinessCheck::Bus => std::future::pending().await,
    }
}

/// True when the URL answers with a status from 200 to 399.
async fn http(address: &str, path: &str) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut line = [0; 12];
    stream.read_exact(&mut line).await?;
    let line = String::from_utf8_lossy(&line);
    Ok(line.starts_with("HTTP/1.") && matches!(line.split(' ').nth(1), Some(status) if status.starts_with(['2', '3'])))
}

/// Returns when the file has `text` behind the given position. A file that became shorter was rotated, and is read from
/// its beginning.
async fn find_line(text: Vec<u8>, (path, mut position): Position) {
    let mut kept: Vec<u8> = Vec::new();
    let mut buffer = vec![0; SEARCH_BYTES];
    loop {
        let file = File::open(&path);
        let size = file.as_ref().ok().and_then(|file| file.metadata().ok()).map_or(0, |metadata| metadata.len());
        if size < position {
            position = 0;
        }
        let read = file.and_then(|file| file.read_at(&mut buffer, position)).unwrap_or(0);
        kept.extend_from_slice(buffer.get(..read).unwrap_or_default());
        if memchr::memmem::find(&kept, &text).is_some() {
            return;
        }
        // The beginning of the text may have come already.
        kept.drain(..kept.len().saturating_sub(text.len()));
        position = position.saturating_add(u64::try_from(read).unwrap_or_default());
        match read {
            0 => sleep(PAUSE / 2).await,
            _ => tokio::task::yield_now().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_line_is_found_though_it_comes_in_parts() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"listening, says an earlier process\n").unwrap();
        let start = file.as_file().metadata().unwrap().len();
        let found = find_line(b"listening".to_vec(), (file.path().to_owned(), start));
        tokio::pin!(found);
        assert!(timeout(Duration::from_millis(120), &mut found).await.is_err());
        file.write_all(&vec![b'x'; 100_000]).unwrap();
        file.write_all(b"now liste").unwrap();
        assert!(timeout(Duration::from_millis(120), &mut found).await.is_err());
        file.write_all(b"ning").unwrap();
        timeout(Duration::from_secs(5), found).await.unwrap();
    }

    #[tokio::test]
    async fn http_is_ready_with_a_good_status_only() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = async {
            for status in ["503 No", "204 Yes"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 15];
                stream.read_exact(&mut request).await.unwrap();
                assert_eq!(&request, b"GET /up HTTP/1.");
                stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).await.unwrap();
            }
        };
        let check = ReadinessCheck::Http { address: address.clone(), path: "/up".into() };
        let ready = wait_ready(check, (PathBuf::new(), 0));
        timeout(Duration::from_secs(5), async { tokio::join!(server, ready) }).await.unwrap();
    }
}
