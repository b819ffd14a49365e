//! The stations of a node, one for each actor whose program polls.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use actix::Addr;
use rollbook_cluster::lock::lock;
use rollbook_core::xbus::account::row::ActorRow;
use rollbook_core::xbus::id::Id;

use super::session::{Alive, Parts, Station};
use super::settings::NAME;
use crate::base::actors::{Owned, hint};
use crate::bus::error::Fault;
use crate::bus::roll::actor_place::ActorConnection;
use crate::bus::roll::services::Services;
use crate::bus::security::identity::Identity;
use crate::bus::xbus::jobs::engine::Engine;

/// Most stations of a node.
const STATIONS_MAX: usize = 10_000;

/// The stations by actor. A station ends when it leaves this map.
type Map = Mutex<HashMap<Id, Owned<Station>>>;

/// The stations of a node.
#[derive(Debug)]
pub(super) struct Stations {
    services: Services,
    engine: Engine,
    map: Arc<Map>,
}

impl Stations {
    pub(super) fn new(services: Services, engine: Engine) -> Self {
        Self { services, engine, map: Arc::default() }
    }

    /// The station of an actor, which is started for the first time, on this thread.
    ///
    /// # Errors
    /// There are too many stations.
    pub(super) fn of(
        &self,
        actor: &ActorRow,
        identity: &Arc<Identity>,
        address: String,
    ) -> Result<Addr<Station>, Fault> {
        let id = Id::from_slice(&actor.id).unwrap_or_default();
        let mut map = lock(&self.map);
        if let Some(station) = map.get(&id).filter(|station| station.addr().connected()) {
            return Ok(station.addr().clone());
        }
        if map.len() >= STATIONS_MAX {
            return Err(Fault::overloaded(format!("{STATIONS_MAX} actors get their jobs by the gateway already")));
        }
        let weak: Weak<Map> = Arc::downgrade(&self.map);
        let done = move |id: Id| {
            let ended = weak.upgrade().and_then(|map| lock(&map).remove(&id));
            drop(ended);
        };
        let connection = ActorConnection {
            actor: actor.clone(),
            identity: Arc::clone(identity),
            address,
            door: NAME,
            tag: NAME.to_owned(),
        };
        let parts =
            Parts { services: self.services.clone(), engine: self.engine.clone(), connection, done: Arc::new(done) };
        let station = Owned::start(&self.services.bus.metrics().actors, Station::new(parts));
        let addr = station.addr().clone();
        map.insert(id, station);
        Ok(addr)
    }

    /// Notes that the program of an actor is there, if it gets its jobs here.
    pub(super) fn alive(&self, actor: Id) {
        self.engine.seen().note(actor);
        if let Some(station) = lock(&self.map).get(&actor) {
            hint(station.addr(), Alive);
        }
    }

    /// Ends all stations: requests that wait are answered that there is no job.
    pub(super) fn close(&self) {
        let all = std::mem::take(&mut *lock(&self.map));
        drop(all);
    }
}
