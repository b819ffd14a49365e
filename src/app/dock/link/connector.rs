//! Keeps the dock connected to one of several nodes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::super::config::Config;
use super::super::dispatcher::Dispatcher;
use super::super::jitter::random_byte;
use super::super::node::node_address::NodeAddress;
use super::super::report::outbox::Outbox;
use super::super::report::subscriptions::Subscriptions;
use super::backoff::Backoff;
use super::opening::open;
use super::session::Session;
use crate::app::cli::access::secret::Token;

/// A connection that lived this long worked.
const WORKED_AFTER: Duration = Duration::from_secs(5);

/// Keeps the dock connected.
#[derive(Debug)]
pub(crate) struct Connector {
    /// The settings.
    pub(crate) config: Arc<Config>,
    /// Does what the hub asks.
    pub(crate) dispatcher: Arc<Dispatcher>,
    /// What goes to the hub.
    pub(crate) outbox: Arc<Outbox>,
    /// What the hub has subscribed to.
    pub(crate) subscriptions: Arc<Subscriptions>,
    /// Where others find the node of the present connection.
    pub(crate) node: watch::Sender<Option<NodeAddress>>,
}

impl Connector {
    /// Connects to one node after the other, for ever. The first node is chosen by chance, so that the docks of a
    /// cluster spread over its nodes.
    pub(crate) async fn run(&self) {
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
        let mut backoff = Backoff::new(&self.config.timing);
        let start = usize::from(random_byte()).checked_rem(self.config.nodes.len()).unwrap_or_default();
        for address in self.config.nodes.iter().cycle().skip(start) {
            let node = self.address(address);
            match open(&self.config, &node, &hostname).await {
                Ok(opened) => {
                    tracing::info!(node = address, "connected");
                    self.node.send_replace(Some(node));
                    let since = Instant::now();
                    let session = Session {
                        timing: &self.config.timing,
                        dispatcher: &self.dispatcher,
                        outbox: &self.outbox,
                        subscriptions: &self.subscriptions,
                    };
                    let end = session.run(opened).await;
                    self.node.send_replace(None);
                    tracing::warn!(node = address, error = %end, "the connection ended");
                    if since.elapsed() >= WORKED_AFTER {
                        backoff.reset();
                    }
                }
                Err(error) => tracing::warn!(node = address, %error, "could not connect"),
            }
            sleep(backoff.next(random_byte())).await;
        }
    }

    fn address(&self, address: &str) -> NodeAddress {
        NodeAddress {
            address: address.to_owned(),
            dock: self.config.id.clone(),
            token: self.token(),
            tls: self.config.tls.clone(),
            connect_timeout: self.config.timing.connect_timeout,
        }
    }

    fn token(&self) -> Option<Token> {
        let file = self.config.token_file.as_ref()?;
        Token::from_file(file)
            .inspect_err(|error| tracing::warn!(error = format!("{error:#}"), "the dock connects without its token"))
            .ok()
    }
}
