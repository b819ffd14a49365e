//! A client: publishes one event after the other, each as a batch with a mark, until it is acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rollbook_core::command::Done;
use rollbook_core::entry::{Batch, EntryBuilder, FLAG_CREATE, FLAG_KEYED, batch_frame, begin_publish, finish_publish};
use rollbook_core::event::Event;
use rollbook_core::node::Owner;

use super::roll;
use super::world::World;
use crate::gather::now_millis;
use crate::types::EntryData;

/// What a client knows of an event.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    Acknowledged { namespace: String, sequence: u64 },
    Unknown,
}

pub(super) struct Client {
    id: u64,
    world: Arc<World>,
}

impl Client {
    pub(super) fn new(id: u64, world: Arc<World>) -> Self {
        Self { id, world }
    }

    pub(super) async fn run(self) -> BTreeMap<String, Outcome> {
        let mut outcomes = BTreeMap::new();
        let mut number = 0;
        while !self.world.clients_stopped() {
            number += 1;
            let id = format!("{}-{number}", self.id);
            let namespace = if self.world.random(3) == 0 { "b" } else { "a" };
            let outcome = self.publish(namespace, &id, number).await;
            outcomes.insert(id, outcome);
            self.change_roll().await;
            tokio::time::sleep(Duration::from_millis(self.world.random(60))).await;
        }
        outcomes
    }

    /// Something about services and nodes changes; nobody waits for it to be done.
    async fn change_roll(&self) {
        let mut entry = EntryBuilder::new(0);
        entry.push(&roll::change(&self.world).frame().unwrap());
        let entry = EntryData(entry.finish(now_millis()).into());
        if let Some(raft) = self.world.raft(1 + self.world.random(3)) {
            tokio::time::timeout(Duration::from_millis(200), raft.client_write(entry)).await.ok();
        }
    }

    async fn publish(&self, namespace: &str, id: &str, number: u64) -> Outcome {
        let mut frame = Vec::new();
        begin_publish(&mut frame, namespace).unwrap();
        let subject = format!("{namespace}.{id}");
        let key = if self.world.random(4) == 0 { id } else { "" };
        Event { subject: &subject, key, payload: Some(b"1"), ..Event::default() }.encode(&mut frame).unwrap();
        let flags = if key.is_empty() { FLAG_CREATE } else { FLAG_CREATE | FLAG_KEYED };
        finish_publish(&mut frame, 0, flags, 1).unwrap();
        let owner = Owner { node: 100 + self.id, incarnation: 1 };
        let mut builder = EntryBuilder::new(0);
        builder.push(&batch_frame(Batch { owner, number, frames: 1 }));
        builder.push(&frame);
        let entry = EntryData(builder.finish(now_millis()).into());
        for _ in 0..200 {
            let node = 1 + self.world.random(3);
            if let Some(raft) = self.world.raft(node) {
                let write = raft.client_write(entry.clone());
                let wait = Duration::from_millis(200 + self.world.random(1500));
                if let Ok(Ok(response)) = tokio::time::timeout(wait, write).await {
                    match response.data.first() {
                        Some(Ok(Done::Published { first, events: 1 })) => {
                            return Outcome::Acknowledged { namespace: namespace.to_owned(), sequence: *first };
                        }
                        other => panic!("event {id}: {other:?}"),
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(10 + self.world.random(100))).await;
        }
        Outcome::Unknown
    }
}
