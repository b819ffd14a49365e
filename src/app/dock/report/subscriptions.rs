//! Which services the hub wants the output of.

use std::collections::HashSet;
use std::time::Duration;

use crate::doors::hms::wire::texts::ALL_SERVICES;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long a hub that has connected may take to subscribe again.
const FRESH: Duration = Duration::from_secs(10);
/// Most subscriptions of one connection.
const SUBSCRIPTIONS_MAX: usize = 16 * 1024;

/// What the hub has subscribed to on the present connection.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    keys: watch::Sender<SubscriptionKeys>,
}

/// The keys of the present connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct SubscriptionKeys {
    connected: Option<Instant>,
    /// True until the hub has unsubscribed from something.
    fresh: bool,
    wanted: HashSet<String>,
}

/// What one service knows about the subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    /// The hub wants the output.
    Wanted,
    /// The hub does not want the output.
    Unwanted,
    /// The hub has just connected, and may not have subscribed yet.
    Fresh,
    /// There is no hub.
    Disconnected,
}

impl Default for Subscriptions {
    fn default() -> Self {
        Self { keys: watch::Sender::new(SubscriptionKeys::default()) }
    }
}

impl Subscriptions {
    /// Forgets the subscriptions of an earlier connection.
    pub(crate) fn connect(&self) {
        self.keys.send_replace(SubscriptionKeys {
            connected: Some(Instant::now()),
            fresh: true,
            wanted: HashSet::new(),
        });
    }

    /// There is no hub from now on.
    pub(crate) fn disconnect(&self) {
        self.keys.send_replace(SubscriptionKeys::default());
    }

    /// The hub wants the output of a service, or of all with `*`. False when the hub has too many subscriptions.
    pub(crate) fn subscribe(&self, service: &str) -> bool {
        let mut wanted = false;
        self.keys.send_if_modified(|keys| {
            wanted = keys.wanted.len() < SUBSCRIPTIONS_MAX || keys.wanted.contains(service);
            wanted && keys.wanted.insert(service.to_owned())
        });
        wanted
    }

    /// The hub does not want the output any more.
    pub(crate) fn unsubscribe(&self, service: &str) {
        self.keys.send_modify(|keys| {
            keys.wanted.remove(service);
            keys.fresh = false;
        });
    }

    /// Whether the hub wants the output of a service.
    pub(crate) fn interest(&self, service: &str) -> Interest {
        let keys = self.keys.borrow();
        match keys.connected {
            None => Interest::Disconnected,
            Some(_) if keys.wanted.contains(service) || keys.wanted.contains(ALL_SERVICES) => Interest::Wanted,
            Some(at) if keys.fresh && at.elapsed() < FRESH => Interest::Fresh,
            Some(_) => Interest::Unwanted,
        }
    }

    /// Changes whenever the subscriptions do.
    pub(crate) fn changes(&self) -> watch::Receiver<SubscriptionKeys> {
        self.keys.subscribe()
    }
}
