//! The command of one job.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

use crate::app::cli::commands::xbus::gateway::Gateway;
use crate::app::cli::shared::output::{note, print};

/// Most bytes of the standard output of a command that become an envelope.
const OUTPUT_BYTES_MAX: usize = 6 << 20;
/// Most bytes of one line of the standard error. A longer line becomes several.
const LINE_BYTES_MAX: u64 = 1024;
/// Lines of the standard error that are kept: the newest ones.
const LINES_MAX: usize = 16;
/// How often a node hears that the program is still there while the command works.
const ALIVE: Duration = Duration::from_secs(20);

/// How the command is run.
#[derive(Debug)]
pub(super) struct Command<'a> {
    /// The command and its arguments.
    pub(super) line: &'a [String],
    /// Whether it reads the job as JSON.
    pub(super) json: bool,
    /// Of a worker: the output and the type of the event.
    pub(super) output: Option<(&'a str, &'a str)>,
}

/// What the command did.
struct Ended {
    /// Its standard output.
    output: Vec<u8>,
    /// The newest lines of its standard error.
    lines: Vec<String>,
    /// Why it failed; `None`: it ended with exit code 0.
    failure: Option<String>,
}

/// The items of a job, as bytes.
fn items(job: &Value) -> anyhow::Result<Vec<Vec<u8>>> {
    use base64::Engine as _;
    let list = |of: &Value, name: &str| of.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut items = Vec::new();
    for input in list(job, "inputs") {
        for event in list(input.get("envelope").unwrap_or(&Value::Null), "events") {
            let binary = event.get("encoding").and_then(Value::as_str) == Some("binary");
            for item in list(&event, "items") {
                let text = item.as_str().unwrap_or_default();
                items.push(if binary {
                    base64::engine::general_purpose::STANDARD.decode(text).context("an item is no base64")?
                } else {
                    text.as_bytes().to_vec()
                });
            }
        }
    }
    Ok(items)
}

/// The newest lines of a stream, shown as they come.
async fn lines(from: impl AsyncRead + Unpin) -> Vec<String> {
    let (mut reader, mut kept) = (BufReader::new(from), std::collections::VecDeque::new());
    loop {
        let mut line = Vec::new();
        match (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return kept.into(),
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        if text.is_empty() {
            continue;
        }
        note(&text);
        if kept.len() >= LINES_MAX {
            kept.pop_front();
        }
        kept.push_back(text);
    }
}

impl Command<'_> {
    /// Runs the command for a job, and ends the job.
    pub(super) async fn run(&self, gateway: &Gateway, job: &Value) {
        let context = job.get("context").cloned().unwrap_or_default();
        let ended = tokio::select! {
            ended = self.execute(job, &context) => ended,
            () = stay(gateway) => return,
        };
        let result = match ended {
            Ok(ended) => self.tell(gateway, &context, ended).await,
            Err(error) => Err(error),
        };
        let failure = result.err().map(|error| vec![json!({ "level": "error", "text": format!("{error:#}") })]);
        if let Some(failure) = &failure {
            note(&format!("a job failed: {}", failure.iter().map(Value::to_string).collect::<String>()));
        }
        if let Err(error) = gateway.end(&context, failure.as_deref()).await {
            // An operator has ended the process, or the job was given to another actor.
            note(&format!("the end of the job is not taken: {error}"));
        }
    }

    /// Says what the command said.
    async fn tell(&self, gateway: &Gateway, context: &Value, ended: Ended) -> anyhow::Result<()> {
        let level = if ended.failure.is_some() { "error" } else { "notice" };
        let messages: Vec<Value> = ended.lines.iter().map(|text| json!({ "level": level, "text": text })).collect();
        if !messages.is_empty()
            && let Err(error) = gateway.log(context, &messages).await
        {
            note(&format!("what the command said is not in the log: {error}"));
        }
        if let Some(failure) = ended.failure {
            let last = ended.lines.last().map(|line| format!(": {line}")).unwrap_or_default();
            bail!("{failure}{last}");
        }
        let text = String::from_utf8(ended.output).context("the command wrote what is no text")?;
        let Some((output, event_type)) = self.output else {
            return if text.is_empty() { Ok(()) } else { print(text.trim_end_matches('\n')) };
        };
        let items: Vec<&str> = text.lines().collect();
        if items.is_empty() {
            return Ok(());
        }
        let id = uuid::Uuid::new_v4().to_string();
        let envelope = json!({ "id": id, "events": [{ "type": event_type, "items": items }], "last": true });
        gateway.insist_on_output(&json!({ "output": output, "context": context, "envelope": envelope })).await
    }

    async fn execute(&self, job: &Value, context: &Value) -> anyhow::Result<Ended> {
        let (program, arguments) = self.line.split_first().context("there is no command")?;
        let word = |member: &str| context.get(member).and_then(Value::as_str).unwrap_or_default();
        let mut child = tokio::process::Command::new(program)
            .args(arguments)
            .env("XBUS_PROCESS_ID", word("process_id"))
            .env("XBUS_NODE_ID", word("node_id"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C is for this program, which waits for the command.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run {program}"))?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let input = if self.json {
            format!("{job}\n").into_bytes()
        } else {
            items(job)?.into_iter().flat_map(|item| [item, b"\n".to_vec()]).flatten().collect()
        };
        let write = async {
            // A command may end without having read everything.
            if let Some(mut stdin) = stdin {
                stdin.write_all(&input).await.ok();
            }
        };
        let read = async {
            let mut output = Vec::new();
            if let Some(stdout) = stdout {
                let most = u64::try_from(OUTPUT_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
                stdout.take(most).read_to_end(&mut output).await.ok();
            }
            output
        };
        let said = async {
            match stderr {
                Some(stderr) => lines(stderr).await,
                None => Vec::new(),
            }
        };
        let ((), output, lines) = tokio::join!(write, read, said);
        if output.len() > OUTPUT_BYTES_MAX {
            bail!("the command wrote more than {OUTPUT_BYTES_MAX} bytes");
        }
        let status = child.wait().await.context("the command is lost")?;
        let failure = (!status.success()).then(|| format!("the command failed ({status})"));
        Ok(Ended { output, lines, failure })
    }
}

/// Tells a node again and again that the program is still there. Never returns.
async fn stay(gateway: &Gateway) {
    loop {
        tokio::time::sleep(ALIVE).await;
        if let Err(error) = gateway.show().await {
            note(&format!("{error}; the job goes on"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> Value {
        json!({ "context": { "process_id": "p", "node_id": "n" }, "inputs": [
            { "name": "default", "close": false, "envelope": { "events": [
                { "type": "t", "items": ["one", "two"] }, { "type": "t", "encoding": "binary", "items": ["/w=="] }] } },
            { "name": "other", "close": true, "envelope": null }] })
    }

    fn shell(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(str::to_owned).to_vec()
    }

    #[test]
    fn the_items_of_all_inputs_are_lines() {
        assert_eq!(items(&job()).unwrap(), [b"one".to_vec(), b"two".to_vec(), vec![0xff]]);
        assert_eq!(items(&json!({})).unwrap(), [[0_u8; 0]; 0]);
    }

    #[tokio::test]
    async fn a_command_reads_items_and_tells_its_job() {
        let line = shell("head -n 2; echo \"$XBUS_NODE_ID\" >&2; exit 3");
        let command = Command { line: &line, json: false, output: None };
        let ended = command.execute(&job(), &job()["context"]).await.unwrap();
        assert_eq!((ended.output, ended.lines), (b"one\ntwo\n".to_vec(), vec!["n".to_owned()]));
        assert!(ended.failure.unwrap().contains("exit status: 3"));
    }

    #[tokio::test]
    async fn a_command_that_reads_json_gets_the_job_in_one_line() {
        let line = shell("cat");
        let command = Command { line: &line, json: true, output: None };
        let ended = command.execute(&job(), &Value::Null).await.unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&ended.output).unwrap(), job());
        assert_eq!(ended.output.iter().filter(|byte| **byte == b'\n').count(), 1);
    }

    #[tokio::test]
    async fn a_command_that_does_not_exist_is_named() {
        let line = ["/no/such/command".to_owned()];
        let command = Command { line: &line, json: false, output: None };
        let error = command.execute(&job(), &Value::Null).await.err().unwrap();
        assert!(error.to_string().contains("/no/such/command"), "{error}");
    }
}
