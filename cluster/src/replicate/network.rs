//! What openraft sends to other nodes, over the links.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use futures_util::{Stream, StreamExt as _, stream};
use openraft::alias::SnapshotOf;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::impls::BasicNode;
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption, RaftNetworkFactory,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};

use super::send::{self, SendError};
use crate::book::snapshot::Checkpoint;
use crate::lab_faults::Bug;
use crate::peer::conn::{CallError, Conn, Session};
use crate::peer::frame::Kind;
use crate::peer::link::{Links, Purpose};
use crate::peer::wire;
use crate::state::state::{Sending, State};
use crate::timing::Timing;
use crate::types::{Types, Vote};

/// Between attempts to make the files of a snapshot.
const MAKE_AGAIN: Duration = Duration::from_secs(5);
/// Between attempts to send them.
const SEND_AGAIN: Duration = Duration::from_secs(1);

/// Makes the clients of peers.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) links: Arc<Links>,
    pub(crate) state: Arc<State>,
}

/// The client of one peer.
pub(crate) struct Peer {
    network: Network,
    target: u64,
    purpose: Purpose,
}

impl Network {
    fn timing(&self) -> Timing {
        self.links.timing()
    }

    fn peer(&self, target: u64, purpose: Purpose) -> Peer {
        Peer { network: self.clone(), target, purpose }
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, _node: &BasicNode) -> Peer {
        self.peer(target, Purpose::Log)
    }

    async fn new_heartbeat_client(&mut self, target: u64, _node: &BasicNode) -> Peer {
        self.peer(target, Purpose::Control)
    }

    async fn new_snapshot_client(&mut self, target: u64, _node: &BasicNode) -> Peer {
        self.peer(target, Purpose::Snapshot)
    }
}

fn rpc_error(error: CallError) -> RPCError<Types> {
    match error {
        CallError::Unreachable(_) => RPCError::Unreachable(Unreachable::new(&error)),
        CallError::Lost | CallError::Late | CallError::NotLeader | CallError::Refused(_) | CallError::Protocol(_) => {
            RPCError::Network(NetworkError::new(&error))
        }
    }
}

impl Peer {
    async fn call(&self, kind: Kind, body: Bytes) -> Result<Bytes, RPCError<Types>> {
        let within = self.network.timing().vote();
        self.network.links.call(self.target, Purpose::Control, kind, body, within).await.map_err(rpc_error)
    }

    async fn ballot(&self, kind: Kind, rpc: &VoteRequest<Types>) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let body = self.call(kind, wire::encode_vote_request(rpc)).await?;
        wire::decode_vote_response(&body).map_err(|what| rpc_error(CallError::Protocol(what)))
    }
}

impl NetVote<Types> for Peer {
    async fn vote(&mut self, rpc: VoteRequest<Types>, _: RPCOption) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ballot(Kind::Vote, &rpc).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        _: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ballot(Kind::PreVote, &rpc).await
    }
}

impl NetTransferLeader<Types> for Peer {
    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<Types>,
        _: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        // A refusal has the same outcome as silence: the old leader waits, then continues to lead.
        self.call(Kind::Transfer, wire::encode_transfer(&req)).await.map(|_| Ok(()))
    }
}

impl NetBackoff<Types> for Peer {
    fn backoff(&self) -> Option<Backoff> {
        // Short: a follower that is back must not wait for its leader.
        Some(Backoff::new(std::iter::repeat(self.network.timing().heartbeat())))
    }
}

/// A stream of appends on its way.
struct Appends<S> {
    conn: Arc<Conn>,
    session: Session,
    /// Longest time without an answer.
    silence: Duration,
    /// Gone when all was sent.
    input: Option<S>,
    /// Encoded, not yet sent.
    next: Option<Bytes>,
    /// Sent, not yet answered.
    open: u64,
}

impl<S: Stream<Item = AppendEntriesRequest<Types>> + Unpin> Appends<S> {
    /// Sends what there is until an answer comes.
    async fn answer(&mut self) -> Option<Result<StreamAppendResult<Types>, CallError>> {
        loop {
            let received = {
                let Self { session, input, next, open, .. } = self;
                // Both halves go on at the same time; a half that did not finish loses nothing.
                let (sender, receive) = session.halves();
                let send = async {
                    if next.is_none() {
                        match input {
                            Some(requests) => match requests.next().await {
                                Some(request) => *next = Some(wire::encode_append(&request)),
                                None => {
                                    *input = None;
                                    return sender.send(Kind::End, Bytes::new()).await;
                                }
                            },
                            None => std::future::pending().await,
                        }
                    }
                    if let Some(body) = next.clone() {
                        sender.send(Kind::Append, body).await?;
                        *next = None;
                        *open = open.saturating_add(1);
                    }
                    Ok(())
                };
                match select(pin!(receive), pin!(send)).await {
                    Either::Left((received, _)) => received,
                    Either::Right((Ok(()), _)) => continue,
                    Either::Right((Err(error), _)) => Err(error),
                }
            };
            return match received {
                Ok(frame) if frame.kind == Kind::End => None,
                Ok(frame) if frame.kind == Kind::Appended => {
                    self.open = self.open.saturating_sub(1);
                    Some(wire::decode_appended(&frame.body).map_err(CallError::Protocol))
                }
                Ok(_) => Some(Err(CallError::Protocol("an answer of another kind"))),
                Err(error) => Some(Err(error)),
            };
        }
    }

    /// Like [`Appends::answer`], but does not wait for ever when something was asked.
    async fn answer_in_time(&mut self) -> Option<Result<StreamAppendResult<Types>, CallError>> {
        loop {
            let waited = self.open > 0;
            match tokio::time::timeout(self.silence, self.answer()).await {
                Ok(answer) => return answer,
                Err(_) if waited => {
                    // The next stream must not go onto a connection that carries nothing.
                    if !Bug::SilenceBelieved.is_on() {
                        self.conn.close();
                    }
                    return Some(Err(CallError::Late));
                }
                Err(_) => {}
            }
        }
    }
}

impl NetStreamAppend<Types> for Peer {
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
    {
        Box::pin(async move {
            let timing = self.network.timing();
            // A dial that takes longer runs on in its own task, for the next request.
            let within = option.soft_ttl();
            let conn = match self.network.links.conn(self.target, self.purpose, within).await {
                Ok(conn) => conn,
                Err(error) => {
                    // openraft waits between requests, but there was none: without this it would try at once.
                    if self.purpose == Purpose::Log {
                        tokio::time::sleep(timing.heartbeat()).await;
                    }
                    return Err(rpc_error(error));
                }
            };
            let (session, silence) = (conn.open(), timing.stream());
            let appends = Appends { conn, session, silence, input: Some(input), next: None, open: 0 };
            let answers = stream::unfold(Some(appends), |appends| async move {
                let mut appends = appends?;
                match appends.answer_in_time().await? {
                    Ok(result) => {
                        // Behind a conflict or a higher vote nothing comes but the end.
                        Some((Ok(result), Some(appends)))
                    }
                    Err(error) => Some((Err(rpc_error(error)), None)),
                }
            });
            let answers: BoxStream<'s, _> = Box::pin(answers);
            Ok(answers)
        })
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
        let last = snapshot.meta.last_log_id.map_or(0, |last| last.index);
        let _sending = Sending::begin(&self.network.state, last);
        let transfer = async {
            let within = self.network.timing().dial();
            let conn = self.network.links.conn(self.target, Purpose::Snapshot, within).await?;
            let made = match snapshot.snapshot.make().await {
                Ok(made) => made,
                Err(error) => {
                    tracing::error!(to = self.target, %error, "a node needs a snapshot, and none can be made now; it will be tried again");
                    tokio::time::sleep(MAKE_AGAIN).await;
                    return Err(io::Error::other(error).into());
                }
            };
            let sent = send::send(&conn, vote, &made).await;
            if sent.is_err() {
                // openraft tries again at once, and each attempt makes files.
                tokio::time::sleep(SEND_AGAIN).await;
            }
            sent
        };
        match select(pin!(transfer), pin!(cancel)).await {
            Either::Left((Ok(vote), _)) => Ok(SnapshotResponse::new(vote)),
            Either::Left((Err(error), _)) => {
                if let SendError::Call(CallError::Unreachable(_)) = &error {
                    // Happens many times a second while the node is down; another log line reports that.
                    tracing::debug!(to = self.target, %error, "a snapshot was not sent; it will be tried again");
                } else {
                    tracing::warn!(to = self.target, %error, "a snapshot was not sent; it will be tried again");
                }
                Err(match error {
                    SendError::Call(error) => rpc_error(error).into(),
                    SendError::Read(error) => StreamingError::Network(NetworkError::new(&error)),
                })
            }
            Either::Right((closed, _)) => Err(StreamingError::Closed(closed)),
        }
    }
}
