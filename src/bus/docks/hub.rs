//! Docks and definitions in one handle, for doors and the administration.

use std::sync::{Arc, Mutex};

use rollbook_cluster::lock::lock;
use rollbook_core::dock::event::DockEvent;
use rollbook_core::security::principal::Kind;
use rollbook_core::security::right::Verb;
use tokio_util::sync::CancellationToken;

use super::builds::folders::{BuildFolders, BuildLimits};
use super::client::DockClient;
use super::fleet::Fleet;
use super::order::DockOp;
use super::output::{self, OutputPublisher};
use super::process_events::{self, ProcessEventQueue, Recorder};
use super::record::{LineRecorder, RecordConfig};
use super::table::{DockInfo, DockPlace, DockTable, Selection};
use crate::base::fault::FaultKind;
use crate::bus::error::Fault;
use crate::bus::handle::Bus;
use crate::bus::relay::peer_client::PeerClient;
use crate::bus::security::identity::Identity;

#[derive(Debug)]
struct Inner {
    client: DockClient,
    fleet: Fleet,
    process_events: ProcessEventQueue,
    /// Taken by [`DockHub::run`].
    recorder: Mutex<Option<Recorder>>,
    build_folders: BuildFolders,
    /// Takes lines for the book, where the settings want that.
    lines: Option<LineRecorder>,
    /// Cancelled when the node stops: whoever follows processes over HTTP has to end.
    draining: CancellationToken,
}

/// The docks of the cluster, and what should run on them. Clones share one state.
#[derive(Debug, Clone)]
pub struct DockHub {
    inner: Arc<Inner>,
}

impl DockHub {
    /// The hub of this node.
    #[must_use]
    pub fn new(bus: Bus, peers: PeerClient, (limits, record): (BuildLimits, Option<RecordConfig>)) -> Self {
        let (process_events, recorder) = process_events::queue();
        let (node, metrics) = (bus.node().id(), bus.metrics().clone());
        let inner = Inner {
            client: DockClient::new(bus),
            fleet: Fleet::new((DockTable::new(metrics), node), peers),
            process_events,
            recorder: Mutex::new(Some(recorder)),
            build_folders: BuildFolders::new(limits),
            lines: record.map(LineRecorder::new),
            draining: CancellationToken::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Writes starts and ends of processes into the book, until cancelled.
    pub async fn run(self, stop: CancellationToken) {
        self.inner.build_folders.empty().await;
        if let Some(lines) = self.inner.lines.clone() {
            tokio::spawn(lines.run(self.client().bus().clone(), stop.clone()));
        }
        let recorder = lock(&self.inner.recorder).take();
        if let Some(recorder) = recorder {
            recorder.run(self.client().bus().clone(), stop).await;
        }
    }

    /// Definitions.
    #[must_use]
    pub fn client(&self) -> &DockClient {
        &self.inner.client
    }

    /// The docks of all nodes.
    #[must_use]
    pub fn fleet(&self) -> &Fleet {
        &self.inner.fleet
    }

    /// Where archives are checked and built.
    #[must_use]
    pub fn build_folders(&self) -> &BuildFolders {
        &self.inner.build_folders
    }

    /// Cancelled when the node stops.
    #[must_use]
    pub fn draining(&self) -> &CancellationToken {
        &self.inner.draining
    }

    /// Publishes what a dock of this node says.
    #[must_use]
    pub fn publisher(&self, dock: &str) -> OutputPublisher {
        OutputPublisher::new(self.client().bus().live_subjects().clone(), dock)
    }

    /// Puts a start or an end of a process into the book. What the rules would refuse is left out, because it would take others
    /// with it.
    pub fn record(&self, event: DockEvent) {
        if output::is_id(&event.definition) && event.check().is_ok() {
            self.inner.process_events.tell(event);
        }
    }

    /// A dock is connected. While a dock of the same id answers, the new one is refused; one that does not answer loses its
    /// place.
    ///
    /// # Errors
    /// The client may not be this dock, or another dock has its id.
    pub async fn attach(&self, who: &Identity, info: DockInfo) -> Result<DockPlace, Fault> {
        if !is_itself(who, &info.id) {
            who.check(Verb::Offer, &info.id)?;
        }
        let same = Selection::These(vec![info.id.clone()]);
        let answers = self.fleet().order(&same, (DockOp::Ps, ""), &bytes::Bytes::new()).await;
        if answers.answers.iter().any(|answer| answer.dock == info.id && answer.result.is_ok()) {
            let text = format!("a dock with the id {} is connected already", info.id);
            return Err(Fault::new(FaultKind::Conflict, text));
        }
        Ok(self.fleet().here().take_place(info))
    }

    /// Takes lines for the book, where the settings want that.
    #[must_use]
    pub fn lines(&self) -> Option<&LineRecorder> {
        self.inner.lines.as_ref()
    }

    /// Whether a client may be this dock. A refusal is not noted.
    #[must_use]
    pub fn may_be(&self, who: &Identity, dock: &str) -> bool {
        is_itself(who, dock) || who.may(Verb::Offer, dock)
    }
}

/// Whether the principal is the dock of this id.
fn is_itself(who: &Identity, dock: &str) -> bool {
    who.principal().kind() == Kind::Dock && who.principal().name() == dock
}
