//! Encodings of what openraft stores: vote, log id, membership, log entry.
//!
//! openraft's own serde forms are not a stable format, so these are ours: a version
//! byte, a CRC32C, and protobuf for everything that is not a payload.

use std::collections::BTreeSet;
use std::io;

use bytes::Bytes;
use openraft::impls::{BasicNode, EntryPayload};
use prost::Message;

use crate::types::{Entry, EntryData, LogId, StoredMembership, Vote};

/// Version byte of every value in the raft database.
const VERSION: u8 = 1;
const KIND_BLANK: u8 = 0;
const KIND_NORMAL: u8 = 1;
const KIND_MEMBERSHIP: u8 = 2;
/// version, kind, term, checksum
const HEADER_BYTES: usize = 14;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct LogIdProto {
    #[prost(uint64, tag = "1")]
    pub(crate) term: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) index: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct VoteProto {
    #[prost(uint64, tag = "1")]
    pub(crate) term: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) node: u64,
    #[prost(bool, tag = "3")]
    pub(crate) committed: bool,
}

#[derive(Clone, PartialEq, Message)]
struct MembershipProto {
    #[prost(message, repeated, tag = "1")]
    configs: Vec<ConfigProto>,
    #[prost(message, repeated, tag = "2")]
    nodes: Vec<NodeProto>,
    #[prost(message, optional, tag = "3")]
    log_id: Option<LogIdProto>,
}

#[derive(Clone, PartialEq, Message)]
struct ConfigProto {
    #[prost(uint64, repeated, tag = "1")]
    voters: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeProto {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    address: String,
}

type Membership = openraft::Membership<u64, BasicNode>;

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("damaged {what}"))
}

fn seal(message: &impl Message) -> Vec<u8> {
    let mut out = vec![VERSION, 0, 0, 0, 0];
    out.extend_from_slice(&message.encode_to_vec());
    let checksum = crc32c::crc32c(out.get(5..).unwrap_or_default()).to_le_bytes();
    if let Some(slot) = out.get_mut(1..5) {
        slot.copy_from_slice(&checksum);
    }
    out
}

fn open<M: Message + Default>(bytes: &[u8], what: &str) -> io::Result<M> {
    let (header, body) = bytes.split_first_chunk::<5>().ok_or_else(|| damaged(what))?;
    let [version, a, b, c, d] = *header;
    if version != VERSION || crc32c::crc32c(body) != u32::from_le_bytes([a, b, c, d]) {
        return Err(damaged(what));
    }
    M::decode(body).map_err(|_| damaged(what))
}

pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(term.into(), index)
}

pub(crate) fn log_id_proto(id: &LogId) -> LogIdProto {
    LogIdProto { term: id.leader_id.term, index: id.index }
}

pub(crate) fn encode_log_id(id: &LogId) -> Vec<u8> {
    seal(&log_id_proto(id))
}

pub(crate) fn decode_log_id(bytes: &[u8]) -> io::Result<LogId> {
    open::<LogIdProto>(bytes, "log id").map(|id| log_id(id.term, id.index))
}

pub(crate) fn log_id_of(id: &LogIdProto) -> LogId {
    log_id(id.term, id.index)
}

pub(crate) fn vote_proto(vote: &Vote) -> VoteProto {
    VoteProto { term: vote.leader_id.term, node: vote.leader_id.voted_for, committed: vote.committed }
}

pub(crate) fn vote_of(vote: &VoteProto) -> Vote {
    if vote.committed { Vote::new_committed(vote.term, vote.node) } else { Vote::new(vote.term, vote.node) }
}

pub(crate) fn encode_vote(vote: &Vote) -> Vec<u8> {
    seal(&vote_proto(vote))
}

pub(crate) fn decode_vote(bytes: &[u8]) -> io::Result<Vote> {
    open(bytes, "vote").map(|vote| vote_of(&vote))
}

fn membership_proto(membership: &Membership, log_id: Option<LogIdProto>) -> MembershipProto {
    let config = |voters: &BTreeSet<u64>| ConfigProto { voters: voters.iter().copied().collect() };
    let node = |(id, node): (&u64, &BasicNode)| NodeProto { id: *id, address: node.addr.clone() };
    MembershipProto {
        configs: membership.get_joint_config().iter().map(config).collect(),
        nodes: membership.nodes().map(node).collect(),
        log_id,
    }
}

fn membership(proto: &MembershipProto) -> Membership {
    let configs = proto.configs.iter().map(|config| config.voters.iter().copied().collect()).collect();
    let nodes: std::collections::BTreeMap<u64, BasicNode> =
        proto.nodes.iter().map(|node| (node.id, BasicNode::new(&node.address))).collect();
    // Written by us from a valid membership, and covered by a checksum.
    Membership::new(configs, nodes).unwrap_or_default()
}

pub(crate) fn encode_membership(stored: &StoredMembership) -> Vec<u8> {
    seal(&membership_proto(stored.membership(), stored.log_id().as_ref().map(log_id_proto)))
}

pub(crate) fn decode_membership(bytes: &[u8]) -> io::Result<StoredMembership> {
    let proto: MembershipProto = open(bytes, "membership")?;
    let id = proto.log_id.as_ref().map(|id| log_id(id.term, id.index));
    Ok(StoredMembership::new(id, membership(&proto)))
}

/// The value of an entry in the log. The payload of an application entry carries its own checksum;
/// everything else is covered by the one of the header.
pub(crate) fn encode_entry(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::new();
    append_entry(entry, &mut out);
    out
}

/// Appends what [`encode_entry`] gives.
pub(crate) fn append_entry(entry: &Entry, out: &mut Vec<u8>) {
    let body;
    let (kind, payload, covered): (u8, &[u8], &[u8]) = match &entry.payload {
        EntryPayload::Blank => (KIND_BLANK, &[], &[]),
        EntryPayload::Normal(data) => (KIND_NORMAL, &data.0, &[]),
        EntryPayload::Membership(members) => {
            body = membership_proto(members, None).encode_to_vec();
            (KIND_MEMBERSHIP, &body, &body)
        }
    };
    out.reserve(payload.len().saturating_add(HEADER_BYTES));
    let start = out.len();
    out.push(VERSION);
    out.push(kind);
    out.extend_from_slice(&entry.log_id.leader_id.term.to_le_bytes());
    let checksum = header_checksum(out.get(start..).unwrap_or_default(), entry.log_id.index, covered);
    out.extend_from_slice(&checksum.to_le_bytes());
    out.extend_from_slice(payload);
}

fn header_checksum(start: &[u8], index: u64, covered: &[u8]) -> u32 {
    let checksum = crc32c::crc32c_append(crc32c::crc32c(start), &index.to_le_bytes());
    crc32c::crc32c_append(checksum, covered)
}

/// Reads the entry at `index`. The checksum of an application payload is verified too.
pub(crate) fn decode_entry(index: u64, bytes: Bytes) -> io::Result<Entry> {
    let wrong = || damaged(&format!("log entry {index}"));
    let (header, payload) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or_else(wrong)?;
    let [version, kind, a, b, c, d, e, f, g, h, i, j, k, l] = *header;
    let covered = if kind == KIND_NORMAL { &[] } else { payload };
    let start = header.get(..10).unwrap_or_default();
    if version != VERSION || header_checksum(start, index, covered) != u32::from_le_bytes([i, j, k, l]) {
        return Err(wrong());
    }
    let payload = match kind {
        KIND_BLANK => EntryPayload::Blank,
        KIND_NORMAL => {
            rollbook_core::entry::Entry::parse(payload).map_err(|_| wrong())?;
            EntryPayload::Normal(EntryData(bytes.slice(HEADER_BYTES..)))
        }
        KIND_MEMBERSHIP => {
            EntryPayload::Membership(membership(&MembershipProto::decode(payload).map_err(|_| wrong())?))
        }
        _ => return Err(wrong()),
    };
    Ok(Entry { log_id: log_id(u64::from_le_bytes([a, b, c, d, e, f, g, h]), index), payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn votes_ids_and_memberships_read_back() {
        for vote in [Vote::new(7, 3), Vote::new_committed(9, 1)] {
            assert_eq!(decode_vote(&encode_vote(&vote)).unwrap(), vote);
        }
        assert_eq!(decode_log_id(&encode_log_id(&log_id(5, 6))).unwrap(), log_id(5, 6));
        let nodes: std::collections::BTreeMap<_, _> = (1..=3).map(|id| (id, BasicNode::new("a:1"))).collect();
        let joint = Membership::new(vec![BTreeSet::from([1, 2]), BTreeSet::from([2, 3])], nodes).unwrap();
        let stored = StoredMembership::new(Some(log_id(1, 2)), joint);
        assert_eq!(decode_membership(&encode_membership(&stored)).unwrap(), stored);
    }

    #[test]
    fn a_flipped_bit_of_an_entry_is_seen_and_so_is_an_entry_in_another_place() {
        let mut builder = rollbook_core::entry::EntryBuilder::new(0);
        builder.push(&rollbook_core::entry::command_frame(b"x").unwrap());
        let data = EntryData(builder.finish(1).into());
        for payload in [EntryPayload::Blank, EntryPayload::Normal(data)] {
            let entry = Entry { log_id: log_id(4, 9), payload };
            let bytes = encode_entry(&entry);
            assert_eq!(decode_entry(9, bytes.clone().into()).unwrap().log_id, entry.log_id);
            assert!(decode_entry(8, bytes.clone().into()).is_err());
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(decode_entry(9, flipped.into()).is_err(), "bit {bit}");
            }
        }
    }
}
