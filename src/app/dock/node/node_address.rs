//! Where a node is, and how the dock names itself there.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use super::node_stream::NodeStream;
use crate::app::cli::access::secret::Token;

/// A node that the dock talks to.
#[derive(Debug, Clone)]
pub(crate) struct NodeAddress {
    /// `host:port`.
    pub(crate) address: String,
    /// The name of the dock.
    pub(crate) dock: String,
    /// The token of the dock.
    pub(crate) token: Option<Token>,
    /// The settings of TLS, if the connection is to be over TLS.
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// The time for a connection.
    pub(crate) connect_timeout: Duration,
}

impl NodeAddress {
    /// Connects, and sends a request without a body.
    ///
    /// # Errors
    ///
    /// The node cannot be reached in time.
    pub(crate) async fn request(&self, method: &str, path: &str, connection: &str) -> io::Result<NodeStream> {
        let connect = async {
            let mut stream = NodeStream::connect(&self.address, self.tls.as_ref()).await?;
            stream.write_all(self.head(method, path, connection).as_bytes()).await?;
            stream.flush().await?;
            Ok(stream)
        };
        timeout(self.connect_timeout, connect).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    fn head(&self, method: &str, path: &str, connection: &str) -> String {
        let authorization = match &self.token {
            Some(token) => format!("Authorization: {}\r\n", token.bearer().reveal()),
            None => String::new(),
        };
        format!(
            "{method} {path} HTTP/1.1\r\norigin: {}\r\nHost: {}\r\n{authorization}Connection: {connection}\r\n\r\n",
            self.dock, self.address
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_opening_is_that_of_a_stock_dock() {
        let mut node = NodeAddress {
            address: "127.0.0.1:10995".into(),
            dock: "dock1".into(),
            token: None,
            tls: None,
            connect_timeout: Duration::from_secs(1),
        };
        let head = node.head("CONNECT", "/", "keep-alive");
        assert_eq!(
            head,
            "CONNECT / HTTP/1.1\r\norigin: dock1\r\nHost: 127.0.0.1:10995\r\nConnection: keep-alive\r\n\r\n"
        );
        node.token = Token::new("s3cr3t", "x").ok();
        assert!(node.head("GET", "/app", "close").contains("\r\nAuthorization: Bearer s3cr3t\r\n"));
        assert!(!format!("{node:?}").contains("s3cr3t"));
    }
}
