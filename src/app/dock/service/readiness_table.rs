//! Which services of this dock are ready, for those that start after them.

use std::collections::HashMap;

use tokio::sync::watch;

/// Which services are ready.
#[derive(Debug)]
pub(crate) struct ReadinessTable {
    services: watch::Sender<HashMap<String, bool>>,
}

impl Default for ReadinessTable {
    fn default() -> Self {
        Self { services: watch::Sender::new(HashMap::new()) }
    }
}

impl ReadinessTable {
    /// The service is here, and ready or not.
    pub(crate) fn set(&self, service: &str, ready: bool) {
        self.services.send_if_modified(|services| services.insert(service.to_owned(), ready) != Some(ready));
    }

    /// The service is not here any more.
    pub(crate) fn remove(&self, service: &str) {
        self.services.send_if_modified(|services| services.remove(service).is_some());
    }

    /// True when the service is ready.
    pub(crate) fn is_ready(&self, service: &str) -> bool {
        self.services.borrow().get(service).copied().unwrap_or(false)
    }

    /// Those of `services` that are here and not ready. A service that is not here may run on another dock, which this
    /// one knows nothing of.
    pub(crate) fn missing(&self, services: &[String]) -> Vec<String> {
        let known = self.services.borrow();
        services.iter().filter(|service| known.get(*service) == Some(&false)).cloned().collect()
    }

    /// Waits until none of `services` is missing.
    pub(crate) async fn wait(&self, services: &[String]) {
        let mut changes = self.services.subscribe();
        while !self.missing(services).is_empty() {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waiting_ends_when_all_that_are_here_are_ready() {
        let readiness = ReadinessTable::default();
        readiness.set("db", false);
        readiness.set("cache", false);
        let after = ["db".to_owned(), "cache".to_owned(), "elsewhere".to_owned()];
        let order = async {
            readiness.set("db", true);
            assert_eq!(readiness.missing(&after), ["cache"]);
            tokio::task::yield_now().await;
            readiness.remove("cache");
        };
        tokio::join!(readiness.wait(&after), order);
        assert!(readiness.is_ready("db") && !readiness.is_ready("cache"));
    }
}
