//! The docks that are connected to this node.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::join_all;
use rollbook_cluster::lock::lock;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::order::{DockAnswer, DockOp, Order};
use crate::base::metrics::Metrics;

/// Orders that wait for one dock.
const ORDERS_MAX: usize = 256;

/// What a dock said of itself, and where it is connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DockInfo {
    /// Its id, which no other dock has.
    pub id: String,
    /// Its version, as it said.
    pub version: String,
    /// The name of its host, as it said.
    pub hostname: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Whether it runs processes without tags.
    pub default: bool,
    /// The node that it is connected to.
    pub node: u64,
    /// Its address.
    pub address: String,
    /// The principal whose credential it has shown.
    pub principal: String,
    /// Since when, milliseconds since 1970.
    pub since: u64,
}

impl DockInfo {
    /// Whether the dock is on a route: its id, or one of its tags.
    #[must_use]
    pub fn is_on(&self, route: &str) -> bool {
        self.id == route || self.tags.iter().any(|tag| tag == route)
    }
}

/// Which docks an order is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Selection {
    /// Every dock.
    All,
    /// Those with this id or tag.
    Route(String),
    /// These.
    These(Vec<String>),
}

impl Selection {
    /// Whether a dock is selected.
    #[must_use]
    pub fn has(&self, dock: &DockInfo) -> bool {
        match self {
            Self::All => true,
            Self::Route(route) => dock.is_on(route),
            Self::These(ids) => ids.contains(&dock.id),
        }
    }
}

struct Dock {
    info: DockInfo,
    orders: mpsc::Sender<Order>,
    /// Tells connections of one id apart.
    serial: u64,
}

#[derive(Default)]
struct Docks {
    by_id: BTreeMap<String, Dock>,
    last_serial: u64,
}

/// The docks of this node. Clones share one table.
#[derive(Clone, Default)]
pub struct DockTable {
    docks: Arc<Mutex<Docks>>,
    metrics: Metrics,
}

impl std::fmt::Debug for DockTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DockTable").field("docks", &lock(&self.docks).by_id.len()).finish()
    }
}

/// The place of a connected dock in the table, until this is dropped.
#[derive(Debug)]
pub struct DockPlace {
    table: DockTable,
    id: String,
    serial: u64,
    /// Its orders.
    pub orders: mpsc::Receiver<Order>,
}

impl Drop for DockPlace {
    fn drop(&mut self) {
        let mut docks = lock(&self.table.docks);
        if docks.by_id.get(&self.id).is_some_and(|dock| dock.serial == self.serial) {
            docks.by_id.remove(&self.id);
            self.table.count(&docks);
        }
    }
}

impl DockTable {
    /// The docks of a node with these metrics.
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        Self { docks: Arc::default(), metrics }
    }

    fn count(&self, docks: &Docks) {
        self.metrics.docks.set(i64::try_from(docks.by_id.len()).unwrap_or(i64::MAX));
    }

    /// A dock is connected. A dock of the same id loses its place, and its orders end.
    #[must_use]
    pub fn take_place(&self, info: DockInfo) -> DockPlace {
        let mut docks = lock(&self.docks);
        let (sender, orders) = mpsc::channel(ORDERS_MAX);
        docks.last_serial = docks.last_serial.wrapping_add(1);
        let (id, serial) = (info.id.clone(), docks.last_serial);
        docks.by_id.insert(id.clone(), Dock { info, orders: sender, serial });
        self.count(&docks);
        DockPlace { table: self.clone(), id, serial, orders }
    }

    /// The docks, by id.
    #[must_use]
    pub fn infos(&self) -> Vec<DockInfo> {
        lock(&self.docks).by_id.values().map(|dock| dock.info.clone()).collect()
    }

    /// Gives an order to the selected docks at once, and waits for all their answers.
    pub async fn order(&self, selection: &Selection, (op, id): (DockOp, &str), payload: &Bytes) -> Vec<DockAnswer> {
        let selected: Vec<_> = {
            let docks = lock(&self.docks);
            let selected = docks.by_id.values().filter(|dock| selection.has(&dock.info));
            selected.map(|dock| (dock.info.id.clone(), dock.orders.clone())).collect()
        };
        let each = selected.into_iter().map(|(dock, orders)| async move {
            let result = order_one(&dock, &orders, (op, id), payload).await;
            if result.is_err() {
                self.metrics.dock_orders_failed.inc();
            }
            DockAnswer { dock, result }
        });
        join_all(each).await
    }
}

async fn order_one(
    dock: &str,
    orders: &mpsc::Sender<Order>,
    (op, id): (DockOp, &str),
    payload: &Bytes,
) -> Result<Bytes, String> {
    let (done, answer) = oneshot::channel();
    let order = Order { op, id: id.to_owned(), payload: payload.clone(), done };
    match orders.try_send(order) {
        Ok(()) => {}
        Err(mpsc::error::TrySendError::Full(_)) => {
            return Err(format!("dock {dock} has {ORDERS_MAX} orders to do already"));
        }
        Err(mpsc::error::TrySendError::Closed(_)) => return Err(format!("dock {dock} was lost")),
    }
    match tokio::time::timeout(op.within(), answer).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(format!("dock {dock} was lost before it answered")),
        Err(_) => Err(format!("dock {dock} did not answer within {} s", op.within().as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dock(id: &str, tags: &[&str]) -> DockInfo {
        let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        let (version, hostname, address, principal) = (String::new(), String::new(), String::new(), String::new());
        DockInfo { id: id.to_owned(), version, hostname, tags, default: false, node: 1, address, principal, since: 0 }
    }

    #[tokio::test]
    async fn an_order_goes_to_the_selected_docks_and_each_answers_for_itself() {
        let table = DockTable::default();
        let mut web = table.take_place(dock("d1", &["web"]));
        let mut other = table.take_place(dock("d2", &[]));
        let lost = table.take_place(dock("d3", &["web"]));
        drop(lost);
        let asked = {
            let table = table.clone();
            tokio::spawn(async move {
                table.order(&Selection::Route("web".to_owned()), (DockOp::Stop, "a"), &Bytes::new()).await
            })
        };
        let order = web.orders.recv().await.unwrap();
        assert_eq!((order.op, order.id.as_str()), (DockOp::Stop, "a"));
        order.done.send(Err("no".to_owned())).unwrap();
        assert_eq!(asked.await.unwrap(), [DockAnswer { dock: "d1".to_owned(), result: Err("no".to_owned()) }]);
        assert!(other.orders.try_recv().is_err());
    }

    #[tokio::test]
    async fn whoever_waits_for_a_dock_that_is_lost_is_told() {
        let table = DockTable::default();
        let mut place = table.take_place(dock("d1", &[]));
        let asked = {
            let table = table.clone();
            tokio::spawn(async move { table.order(&Selection::All, (DockOp::Ps, ""), &Bytes::new()).await })
        };
        drop(place.orders.recv().await.unwrap());
        drop(place);
        let answers = asked.await.unwrap();
        assert_eq!(answers.first().unwrap().result, Err("dock d1 was lost before it answered".to_owned()));
        assert_eq!((table.infos().len(), table.metrics.docks.get()), (0, 0));
    }

    #[tokio::test]
    async fn the_newest_connection_of_an_id_has_its_place_and_the_end_of_an_older_one_changes_nothing() {
        let table = DockTable::default();
        let mut first = table.take_place(dock("d1", &[]));
        let second = table.take_place(dock("d1", &[]));
        assert!(first.orders.recv().await.is_none(), "the orders of the older connection end");
        drop(first);
        assert!(table.infos().len() == 1);
        drop(second);
        assert!(table.infos().is_empty());
    }
}
