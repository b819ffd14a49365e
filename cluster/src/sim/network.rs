//! The network of the simulation: in memory, unreliable.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use openraft::AnyError;
use openraft::alias::SnapshotOf;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::impls::BasicNode;
use openraft::network::{
    Backoff, NetAppend, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
    RaftNetworkFactory, stream_append_sequential,
};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};

use super::world::World;
use crate::raft::Raft;
use crate::snapshot::Checkpoint;
use crate::types::{Types, Vote};

#[derive(Clone)]
pub(super) struct Network {
    pub(super) world: Arc<World>,
    pub(super) from: u64,
}

pub(super) struct Peer {
    network: Network,
    to: u64,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, to: u64, _: &BasicNode) -> Peer {
        Peer { network: self.clone(), to }
    }
}

fn error(what: &'static str) -> AnyError {
    AnyError::error(what)
}

fn unreachable() -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::new(&error("cut off")))
}

fn lost() -> RPCError<Types> {
    RPCError::Network(NetworkError::new(&error("the answer was lost")))
}

impl Peer {
    /// Carries a call there and its answer back, if the network pleases; perhaps twice.
    async fn carry<T>(
        &self,
        call: impl Fn(Raft) -> BoxFuture<'static, Option<T>> + Send + Sync,
    ) -> Result<T, RPCError<Types>> {
        let (world, from, to) = (&self.network.world, self.network.from, self.to);
        world.travel().await;
        if world.loses(from, to) {
            return Err(unreachable());
        }
        let raft = world.raft(to).ok_or_else(unreachable)?;
        if world.random(20) == 0 {
            drop(call(raft.clone()).await);
        }
        let answer = call(raft).await.ok_or_else(lost)?;
        world.travel().await;
        if world.loses(to, from) { Err(lost()) } else { Ok(answer) }
    }
}

impl NetAppend<Types> for Peer {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        self.carry(move |raft| {
            let request = rpc.clone();
            Box::pin(async move { raft.append_entries(request).await.ok() })
        })
        .await
    }
}

impl NetStreamAppend<Types> for Peer {
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>, RPCError<Types>>>
    where
        S: futures_util::Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
    {
        stream_append_sequential(self, input, option)
    }
}

impl NetVote<Types> for Peer {
    async fn vote(&mut self, rpc: VoteRequest<Types>, _: RPCOption) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.carry(move |raft| {
            let request = rpc.clone();
            Box::pin(async move { raft.vote(request).await.ok() })
        })
        .await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        _: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.carry(move |raft| {
            let request = rpc.clone();
            Box::pin(async move { raft.pre_vote(request).await.ok() })
        })
        .await
    }
}

impl NetTransferLeader<Types> for Peer {
    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<Types>,
        _: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        self.carry(move |raft| {
            let request = req.clone();
            Box::pin(async move { raft.handle_transfer_leader(request).await.ok() })
        })
        .await
    }
}

impl NetBackoff<Types> for Peer {
    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(Duration::from_millis(100))))
    }
}

impl NetSnapshot<Types> for Peer {
    type SnapshotData = Checkpoint;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<Types, Checkpoint>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let transfer = async {
            self.network.world.travel().await;
            if self.network.world.loses(self.network.from, self.to) {
                return Err(unreachable());
            }
            let (raft, incoming) = self.network.world.receiver(self.to, self.network.from).ok_or_else(unreachable)?;
            let made = snapshot.snapshot.make().await.map_err(|_| lost())?;
            let arrived = copy(made.directory(), &incoming).map_err(|_| lost())?;
            let copy = openraft::Snapshot { meta: made.meta.clone(), snapshot: Checkpoint::Received(arrived) };
            raft.install_full_snapshot(vote, copy).await.map_err(|_| lost())
        };
        match select(pin!(transfer), pin!(cancel)).await {
            Either::Left((result, _)) => result.map_err(Into::into),
            Either::Right((closed, _)) => Err(StreamingError::Closed(closed)),
        }
    }
}

fn copy(from: &std::path::Path, to: &std::path::Path) -> std::io::Result<std::path::PathBuf> {
    if to.exists() {
        std::fs::remove_dir_all(to)?;
    }
    for part in ["state", "ledger"] {
        std::fs::create_dir_all(to.join(part))?;
        for entry in std::fs::read_dir(from.join(part))? {
            let entry = entry?;
            std::fs::copy(entry.path(), to.join(part).join(entry.file_name()))?;
        }
    }
    Ok(to.to_path_buf())
}
