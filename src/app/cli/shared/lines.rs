//! Reads lines of a file or of standard input on a thread, so that the command can send lines while it waits for
//! more.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use anyhow::Context as _;
use tokio::sync::mpsc;

/// Most lines that are read ahead.
const AHEAD: usize = 2000;

/// One line, without its end.
#[derive(Debug)]
pub(in crate::app::cli) struct Line {
    /// Counted from 1.
    pub(in crate::app::cli) number: u64,
    pub(in crate::app::cli) text: String,
    /// Length in the source, including the line end.
    pub(in crate::app::cli) bytes: u64,
}

/// The lines that are not blank, in order. The last item may be an error.
pub(in crate::app::cli) fn read(source: impl Read + Send + 'static) -> mpsc::Receiver<anyhow::Result<Line>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    std::thread::spawn(move || {
        let mut reader = BufReader::with_capacity(256 * 1024, source);
        for number in 1.. {
            match read_line(&mut reader, number) {
                Ok(None) => break,
                Ok(Some(line)) if line.text.is_empty() => {}
                Ok(Some(line)) => {
                    if sender.blocking_send(Ok(line)).is_err() {
                        break;
                    }
                }
                Err(error) => {
                    // A receiver that is gone needs no error.
                    sender.blocking_send(Err(error)).ok();
                    break;
                }
            }
        }
    });
    receiver
}

fn read_line(reader: &mut impl BufRead, number: u64) -> anyhow::Result<Option<Line>> {
    let mut bytes = Vec::new();
    let count = reader.read_until(b'\n', &mut bytes).with_context(|| format!("cannot read line {number}"))?;
    if count == 0 {
        return Ok(None);
    }
    let text = String::from_utf8(bytes).ok().with_context(|| format!("line {number} is not UTF-8"))?;
    Ok(Some(Line { number, text: text.trim().to_owned(), bytes: u64::try_from(count)? }))
}

/// Opens a file, or standard input for `-` or no path. Returns the size of a file.
pub(in crate::app::cli) fn open(path: Option<&Path>) -> anyhow::Result<(Box<dyn Read + Send>, Option<u64>)> {
    match path {
        Some(path) if path != Path::new("-") => {
            let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
            let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file);
            Ok((Box::new(file), metadata.map(|metadata| metadata.len())))
        }
        _ => Ok((Box::new(io::stdin()), None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn blank_lines_are_left_out_but_counted() {
        let mut lines = read("a\r\n\n  \n b \nlast".as_bytes());
        let mut seen = Vec::new();
        while let Some(line) = lines.recv().await {
            let line = line.unwrap();
            seen.push((line.number, line.text, line.bytes));
        }
        assert_eq!(seen, [(1, "a".to_owned(), 3), (4, "b".to_owned(), 4), (5, "last".to_owned(), 4)]);
    }

    #[tokio::test]
    async fn a_line_that_is_not_utf8_is_named() {
        let mut lines = read(b"a\n\xff\n".as_slice());
        assert!(lines.recv().await.unwrap().is_ok());
        assert_eq!(lines.recv().await.unwrap().unwrap_err().to_string(), "line 2 is not UTF-8");
        assert!(lines.recv().await.is_none());
    }
}
