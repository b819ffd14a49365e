//! Bodies of the frames: raft's requests as bytes. Entries are the bytes of the log, so they are
//! encoded once and their checksums are verified on arrival.

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use prost::Message;

use crate::codec::{
    LogIdProto, VoteProto, append_entry, decode_entry, decode_membership, encode_membership, log_id_of, log_id_proto,
    vote_of, vote_proto,
};
use crate::types::{LogId, SnapshotMeta, Types, Vote};

/// The error for bytes that do not fit the kind of their frame.
pub(crate) type Malformed = &'static str;

fn read<M: Message + Default>(bytes: &[u8]) -> Result<M, Malformed> {
    M::decode(bytes).map_err(|_| "a body that cannot be read")
}

#[derive(Clone, PartialEq, Message)]
struct AppendProto {
    #[prost(message, required, tag = "1")]
    vote: VoteProto,
    #[prost(message, optional, tag = "2")]
    prev: Option<LogIdProto>,
    #[prost(message, optional, tag = "3")]
    commit: Option<LogIdProto>,
}

/// `u32 length | AppendProto | (u64 index | u32 length | entry)*`
pub(crate) fn encode_append(request: &AppendEntriesRequest<Types>) -> Bytes {
    let head = AppendProto {
        vote: vote_proto(&request.vote),
        prev: request.prev_log_id.as_ref().map(log_id_proto),
        commit: request.leader_commit.as_ref().map(log_id_proto),
    };
    let head = head.encode_to_vec();
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(&u32::try_from(head.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&head);
    for entry in &request.entries {
        out.extend_from_slice(&entry.log_id.index.to_le_bytes());
        let length_at = out.len();
        out.extend_from_slice(&[0; 4]);
        let start = out.len();
        append_entry(entry, &mut out);
        let length = u32::try_from(out.len().saturating_sub(start)).unwrap_or(u32::MAX).to_le_bytes();
        if let Some(slot) = out.get_mut(length_at..start) {
            slot.copy_from_slice(&length);
        }
    }
    out.into()
}

fn split_u32(bytes: &mut Bytes) -> Result<usize, Malformed> {
    let length = bytes.first_chunk().map(|bytes| u32::from_le_bytes(*bytes)).ok_or("a body that was cut")?;
    bytes.split_to(4).clear();
    usize::try_from(length).ok().filter(|length| *length <= bytes.len()).ok_or("a body that was cut")
}

/// The entries share the memory of the frame.
pub(crate) fn decode_append(mut body: Bytes) -> Result<AppendEntriesRequest<Types>, Malformed> {
    let length = split_u32(&mut body)?;
    let head: AppendProto = read(&body.split_to(length))?;
    let mut entries = Vec::new();
    while !body.is_empty() {
        let index = body.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)).ok_or("a body that was cut")?;
        body.split_to(8).clear();
        let length = split_u32(&mut body)?;
        entries.push(decode_entry(index, body.split_to(length)).map_err(|_| "an entry with a wrong checksum")?);
    }
    Ok(AppendEntriesRequest {
        vote: vote_of(&head.vote),
        prev_log_id: head.prev.as_ref().map(log_id_of),
        entries,
        leader_commit: head.commit.as_ref().map(log_id_of),
    })
}

#[derive(Clone, PartialEq, Message)]
struct AppendedProto {
    #[prost(message, optional, tag = "1")]
    matching: Option<LogIdProto>,
    #[prost(message, optional, tag = "2")]
    conflict: Option<LogIdProto>,
    #[prost(message, optional, tag = "3")]
    higher: Option<VoteProto>,
}

pub(crate) fn encode_appended(result: &StreamAppendResult<Types>) -> Bytes {
    let mut proto = AppendedProto::default();
    match result {
        Ok(matching) => proto.matching = matching.as_ref().map(log_id_proto),
        Err(StreamAppendError::Conflict(id)) => proto.conflict = Some(log_id_proto(id)),
        Err(StreamAppendError::HigherVote(vote)) => proto.higher = Some(vote_proto(vote)),
    }
    proto.encode_to_vec().into()
}

pub(crate) fn decode_appended(body: &[u8]) -> Result<StreamAppendResult<Types>, Malformed> {
    let proto: AppendedProto = read(body)?;
    Ok(match (proto.conflict, proto.higher) {
        (Some(id), _) => Err(StreamAppendError::Conflict(log_id_of(&id))),
        (_, Some(vote)) => Err(StreamAppendError::HigherVote(vote_of(&vote))),
        _ => Ok(proto.matching.as_ref().map(log_id_of)),
    })
}

#[derive(Clone, PartialEq, Message)]
struct BallotProto {
    #[prost(message, required, tag = "1")]
    vote: VoteProto,
    #[prost(message, optional, tag = "2")]
    last: Option<LogIdProto>,
    /// In a request: leadership is being transferred. In an answer: granted.
    #[prost(bool, tag = "3")]
    flag: bool,
    #[prost(uint64, tag = "4")]
    to: u64,
}

fn ballot(vote: &Vote, last: Option<&LogId>, flag: bool, to: u64) -> Bytes {
    BallotProto { vote: vote_proto(vote), last: last.map(log_id_proto), flag, to }.encode_to_vec().into()
}

pub(crate) fn encode_vote_request(request: &VoteRequest<Types>) -> Bytes {
    ballot(&request.vote, request.last_log_id.as_ref(), request.leadership_transfer, 0)
}

pub(crate) fn decode_vote_request(body: &[u8]) -> Result<VoteRequest<Types>, Malformed> {
    let proto: BallotProto = read(body)?;
    let mut request = VoteRequest::new(vote_of(&proto.vote), proto.last.as_ref().map(log_id_of));
    request.leadership_transfer = proto.flag;
    Ok(request)
}

pub(crate) fn encode_vote_response(response: &VoteResponse<Types>) -> Bytes {
    ballot(&response.vote, response.last_log_id.as_ref(), response.vote_granted, 0)
}

pub(crate) fn decode_vote_response(body: &[u8]) -> Result<VoteResponse<Types>, Malformed> {
    let proto: BallotProto = read(body)?;
    Ok(VoteResponse::new(vote_of(&proto.vote), proto.last.as_ref().map(log_id_of), proto.flag))
}

pub(crate) fn encode_transfer(request: &TransferLeaderRequest<Types>) -> Bytes {
    ballot(request.from_leader(), request.last_log_id(), false, *request.to_node_id())
}

pub(crate) fn decode_transfer(body: &[u8]) -> Result<TransferLeaderRequest<Types>, Malformed> {
    let proto: BallotProto = read(body)?;
    Ok(TransferLeaderRequest::new(vote_of(&proto.vote), proto.to, proto.last.as_ref().map(log_id_of)))
}

/// A vote alone.
pub(crate) fn encode_vote(vote: &Vote) -> Bytes {
    ballot(vote, None, false, 0)
}

/// Reads [`encode_vote`] back.
pub(crate) fn decode_vote(body: &[u8]) -> Result<Vote, Malformed> {
    read::<BallotProto>(body).map(|proto| vote_of(&proto.vote))
}

/// A number alone.
pub(crate) fn encode_number(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_le_bytes())
}

/// Reads [`encode_number`] back.
pub(crate) fn decode_number(body: &[u8]) -> Result<u64, Malformed> {
    body.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)).ok_or("a body that was cut")
}

#[derive(Clone, PartialEq, Message)]
struct OfferProto {
    #[prost(message, required, tag = "1")]
    vote: VoteProto,
    #[prost(message, optional, tag = "2")]
    last: Option<LogIdProto>,
    #[prost(bytes = "vec", tag = "3")]
    membership: Vec<u8>,
    #[prost(message, repeated, tag = "4")]
    files: Vec<FileProto>,
    #[prost(bool, tag = "5")]
    progress: bool,
}

/// One file of a snapshot, by its path below the directory of the snapshot.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct FileProto {
    #[prost(string, tag = "1")]
    pub(crate) path: String,
    #[prost(uint64, tag = "2")]
    pub(crate) bytes: u64,
}

/// The offer of a leader before it sends a snapshot.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    pub(crate) vote: Vote,
    pub(crate) meta: SnapshotMeta,
    pub(crate) files: Vec<FileProto>,
    /// The sender understands [`super::frame::Kind::Progress`]; an earlier release does not.
    pub(crate) progress: bool,
}

pub(crate) fn encode_offer(offer: &Offer) -> Bytes {
    let proto = OfferProto {
        vote: vote_proto(&offer.vote),
        last: offer.meta.last_log_id.as_ref().map(log_id_proto),
        membership: encode_membership(&offer.meta.last_membership),
        files: offer.files.clone(),
        progress: offer.progress,
    };
    proto.encode_to_vec().into()
}

pub(crate) fn decode_offer(body: &[u8]) -> Result<Offer, Malformed> {
    let proto: OfferProto = read(body)?;
    let last_membership = decode_membership(&proto.membership).map_err(|_| "a membership that cannot be read")?;
    let meta = SnapshotMeta { last_log_id: proto.last.as_ref().map(log_id_of), last_membership };
    Ok(Offer { vote: vote_of(&proto.vote), meta, files: proto.files, progress: proto.progress })
}

#[derive(Clone, PartialEq, Message)]
struct NumbersProto {
    #[prost(uint64, repeated, tag = "1")]
    numbers: Vec<u64>,
}

/// Numbers in order: how many bytes of each offered file are there already, or the checksums of all files.
pub(crate) fn encode_numbers(numbers: Vec<u64>) -> Bytes {
    NumbersProto { numbers }.encode_to_vec().into()
}

/// Reads [`encode_numbers`] back.
pub(crate) fn decode_numbers(body: &[u8]) -> Result<Vec<u64>, Malformed> {
    read::<NumbersProto>(body).map(|proto| proto.numbers)
}

/// The figures of a node in the answer to [`super::frame::Kind::Figures`]: numbers in this order. The list of a node of
/// an earlier release is shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NodeFigures {
    /// Index of the last entry in its log.
    pub(crate) last: u64,
    /// Index of the last entry that it applied.
    pub(crate) applied: u64,
    /// The first entry that some follower does not have, when the node leads.
    pub(crate) slowest: u64,
    /// Whether it is short of disk.
    pub(crate) short: bool,
    /// Whether it knows that a majority is.
    pub(crate) majority_short: bool,
    /// The time of the node's wall clock, milliseconds since 1970.
    pub(crate) wall: Option<u64>,
}

impl NodeFigures {
    pub(crate) fn encode(self) -> Bytes {
        let Self { last, applied, slowest, short, majority_short, wall } = self;
        let numbers = [last, applied, slowest, u64::from(short), u64::from(majority_short)].into_iter().chain(wall);
        encode_numbers(numbers.collect())
    }

    pub(crate) fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let numbers = decode_numbers(body)?;
        let [last, applied, slowest, more @ ..] = numbers.as_slice() else { return Err("figures that were cut") };
        let flag = |at: usize| more.get(at).is_some_and(|number| *number == 1);
        let (last, applied, slowest, wall) = (*last, *applied, *slowest, more.get(2).copied());
        Ok(Self { last, applied, slowest, short: flag(0), majority_short: flag(1), wall })
    }
}

#[cfg(test)]
mod tests {
    use openraft::impls::EntryPayload;

    use super::*;
    use crate::codec::log_id;
    use crate::types::{Entry, EntryData};

    fn request() -> AppendEntriesRequest<Types> {
        let mut builder = rollbook_core::entry::EntryBuilder::new(0);
        builder.push(&rollbook_core::entry::command_frame(b"x").unwrap());
        let data = EntryData(builder.finish(1).into());
        AppendEntriesRequest {
            vote: Vote::new_committed(4, 2),
            prev_log_id: Some(log_id(3, 8)),
            entries: vec![
                Entry { log_id: log_id(4, 9), payload: EntryPayload::Normal(data) },
                Entry { log_id: log_id(4, 10), payload: EntryPayload::Blank },
            ],
            leader_commit: None,
        }
    }

    #[test]
    fn an_append_reads_back_and_a_flipped_bit_of_an_entry_is_seen() {
        let wire = encode_append(&request());
        let back = decode_append(wire.clone()).unwrap();
        assert_eq!(format!("{back:?}"), format!("{:?}", request()));
        for cut in 0..wire.len() {
            let _no_panic = decode_append(wire.slice(..cut));
        }
        let head = 4 + usize::from(wire[0]);
        for bit in (head + 12) * 8..wire.len() * 8 {
            let mut flipped = wire.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let same =
                decode_append(flipped.into()).is_ok_and(|back| format!("{back:?}") == format!("{:?}", request()));
            assert!(!same, "bit {bit}");
        }
    }

    #[test]
    fn answers_and_ballots_read_back() {
        let results: [StreamAppendResult<Types>; 4] = [
            Ok(None),
            Ok(Some(log_id(1, 2))),
            Err(StreamAppendError::Conflict(log_id(3, 4))),
            Err(StreamAppendError::HigherVote(Vote::new(9, 1))),
        ];
        for result in results {
            assert_eq!(decode_appended(&encode_appended(&result)).unwrap(), result);
        }
        let mut request = VoteRequest::new(Vote::new(3, 1), Some(log_id(2, 7)));
        request.leadership_transfer = true;
        assert_eq!(decode_vote_request(&encode_vote_request(&request)).unwrap(), request);
        let response = VoteResponse::new(Vote::new_committed(3, 1), None, true);
        assert_eq!(decode_vote_response(&encode_vote_response(&response)).unwrap(), response);
        let transfer = TransferLeaderRequest::new(Vote::new_committed(3, 1), 2, Some(log_id(3, 3)));
        assert_eq!(decode_transfer(&encode_transfer(&transfer)).unwrap(), transfer);
    }

    #[test]
    fn figures_of_a_node_read_back_also_those_of_an_earlier_release() {
        let wall = Some(7);
        let figures = NodeFigures { last: 9, applied: 8, slowest: 3, short: true, majority_short: false, wall };
        assert_eq!(NodeFigures::decode(&figures.encode()), Ok(figures));
        let earlier = NodeFigures { short: false, wall: None, ..figures };
        assert_eq!(NodeFigures::decode(&encode_numbers(vec![9, 8, 3])), Ok(earlier));
        assert!(NodeFigures::decode(&encode_numbers(vec![9, 8])).is_err());
    }
}
