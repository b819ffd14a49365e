//! What a connection that ended means.

use std::io;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::*;
use crate::peer::link::tests::{answer, links, welcome};
use crate::peer::transport::memory::Memory;
use crate::peer::transport::{Dialer, PeerStream};

/// Nobody answers at these addresses, and nobody refuses.
struct Silent {
    memory: Memory,
    silent: &'static str,
}

impl Dialer for Silent {
    fn dial<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<PeerStream>> {
        if address == self.silent { Box::pin(std::future::pending()) } else { self.memory.dial(address) }
    }
}

fn name(probe: &Probe) -> &'static str {
    match probe {
        Probe::Dead => "dead",
        Probe::Alive(_) => "alive",
        Probe::Unknown => "unknown",
    }
}

/// A connection to process 7 of node 2 at that address, which has ended.
async fn ended(address: &str) -> (tempfile::TempDir, Arc<Conn>) {
    let memory = Memory::default();
    let mut acceptor = memory.listen(address);
    let (dir, links) = links(memory, address);
    let within = Duration::from_secs(1);
    let (conn, _there) = tokio::join!(links.conn(2, Purpose::Control, within), answer(&mut acceptor, |_| welcome(7)));
    let conn = conn.unwrap();
    conn.close();
    (dir, conn)
}

#[tokio::test(start_paused = true)]
async fn only_the_address_of_the_connection_says_that_a_node_is_dead() {
    let (_dir, conn) = ended("new").await;
    let memory = Memory::default();
    // Nobody listens at `old`, which the configuration still names: that is a refusal.
    let (_links_dir, moved) = links(Silent { memory: memory.clone(), silent: "new" }, "old");
    moved.learn(2, "new");
    assert_eq!(name(&probe(&moved, 2, &conn).await), "unknown");
    let (_links_dir, gone) = links(memory, "old");
    gone.learn(2, "new");
    assert_eq!(name(&probe(&gone, 2, &conn).await), "dead", "refused where the connection was");
}

#[tokio::test(start_paused = true)]
async fn another_process_under_the_number_means_that_the_first_is_dead() {
    for (process, at, expected) in [(7, "a", "alive"), (8, "a", "dead"), (7, "b", "alive"), (8, "b", "dead")] {
        let (_dir, conn) = ended("a").await;
        let memory = Memory::default();
        let mut acceptor = memory.listen(at);
        // At another address than that of the connection it may have moved to.
        let silent = if at == "a" { "b" } else { "a" };
        let (_links_dir, links) = links(Silent { memory, silent }, at);
        let (found, _there) = tokio::join!(probe(&links, 2, &conn), answer(&mut acceptor, |_| welcome(process)));
        assert_eq!(name(&found), expected, "process {process} at {at}");
    }
}
