//! What an agent is given.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use crate::doors::hms::wire::frame::{PING_AFTER, PONG_WITHIN};
use crate::doors::hms::wire::handshake::DOCK_ID_BYTES_MAX;

use super::error::AgentError;

/// The settings of an agent.
#[derive(Debug, Clone)]
pub struct Config {
    /// The nodes, each `host:port`. The agent is connected to one of them at a time.
    pub nodes: Vec<String>,
    /// The name of the dock.
    pub id: String,
    /// The data directory.
    pub data: PathBuf,
    /// Services with one of these tags, or with the name of the dock as a tag, run here.
    pub tags: Vec<String>,
    /// Whether services without tags run here.
    pub default: bool,
    /// A file with a token. The file is read for each connection, so the token may be replaced.
    pub token_file: Option<PathBuf>,
    /// The settings of TLS, if the nodes speak TLS.
    pub tls: Option<Arc<ClientConfig>>,
    /// Whether services keep running when the agent is stopped.
    pub keep: bool,
    /// The program and first arguments that end in [`run_child`](super::run_child).
    pub child_command: Vec<OsString>,
    /// Whether services get cgroups where the kernel allows.
    pub cgroups: bool,
    /// The size from which on a file of output is rotated.
    pub log_bytes_max: u64,
    /// Intervals, which tests shorten.
    pub timing: Timing,
}

/// Intervals of the connection to the hub.
#[derive(Debug, Clone)]
pub struct Timing {
    /// The pause between a pong and the next ping.
    pub ping_after: Duration,
    /// The time in which a ping must be answered.
    pub pong_within: Duration,
    /// The time for the connection, its opening and the handshake, each.
    pub connect_timeout: Duration,
    /// The first pause before another attempt to connect. Each further one is twice as long.
    pub reconnect_first: Duration,
    /// The longest pause.
    pub reconnect_max: Duration,
}

impl Config {
    /// The settings of a dock with defaults for everything else.
    #[must_use]
    pub fn new(id: impl Into<String>, data: impl Into<PathBuf>, nodes: Vec<String>) -> Self {
        Self {
            nodes,
            id: id.into(),
            data: data.into(),
            tags: Vec::new(),
            default: false,
            token_file: None,
            tls: None,
            keep: false,
            // Also names the binary that runs after the file was replaced by a newer one.
            child_command: vec!["/proc/self/exe".into(), super::CHILD.into()],
            cgroups: true,
            log_bytes_max: 16 * 1024 * 1024,
            timing: Timing::default(),
        }
    }

    /// Checks what does not need the machine.
    pub(crate) fn check(&self) -> Result<(), AgentError> {
        let invalid = |text: String| Err(AgentError::Config(text));
        let id = &self.id;
        if id.is_empty() || id.len() > DOCK_ID_BYTES_MAX || id.contains(|c: char| c.is_control() || "@/ ".contains(c)) {
            return invalid(format!(
                "{id:?} is no name of a dock: 1 to {DOCK_ID_BYTES_MAX} bytes without blanks, @ and /"
            ));
        }
        if self.nodes.is_empty() {
            return invalid("no node to connect to: give HOST:PORT".into());
        }
        for node in &self.nodes {
            let port = node.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
            if !matches!(port, Some(Ok(_))) || node.chars().any(|letter| letter.is_control() || letter == ' ') {
                return invalid(format!("{node:?} is no address of a node: HOST:PORT"));
            }
        }
        if self.child_command.is_empty() {
            return invalid("no command for child processes".into());
        }
        Ok(())
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            ping_after: PING_AFTER,
            pong_within: PONG_WITHIN,
            connect_timeout: Duration::from_secs(5),
            reconnect_first: Duration::from_millis(250),
            reconnect_max: Duration::from_secs(15),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_checked() {
        let check = |id: &str, nodes: &[&str]| {
            Config::new(id, "/tmp/x", nodes.iter().map(|node| (*node).to_owned()).collect()).check().is_ok()
        };
        assert!(check("dock-1", &["127.0.0.1:10002", "[::1]:10002", "node:1"]));
        assert!(!check("", &["a:1"]) && !check("a@b", &["a:1"]) && !check("a/b", &["a:1"]));
        assert!(!check("a", &[]) && !check("a", &["b"]) && !check("a", &[":1"]) && !check("a", &["b:99999"]));
    }
}
