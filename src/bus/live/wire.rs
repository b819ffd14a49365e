//! The form of live messages and changes of interest between nodes.
//!
//! A batch is a head, then operations: each a byte that says what it is, then texts and bytes behind their lengths
//! (32 bits, big-endian). Numbers of operations are never used again; a batch with an unknown one is refused from there
//! on, and its sender has to tell everything anew.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use bytestring::ByteString;

use super::filter::LiveFilter;
use super::message::LiveMessage;
use super::table::{InterestChange, Wanted};

/// The first byte of a batch.
pub(in crate::bus) const BATCH: u8 = 1;
/// The only byte of the demand to be told the whole interest.
pub(in crate::bus) const TELL_ALL: u8 = 2;
/// Operations.
const ADD: u8 = 1;
const REMOVE: u8 = 2;
const WHOLE: u8 = 3;
const MESSAGE: u8 = 4;
/// Bytes of the length of a text.
const LENGTH: usize = 4;
/// Most groups that one message names.
const GROUPS_MAX: usize = 65_535;

/// The beginning of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bus) struct Head {
    /// The life of the sending node.
    pub(in crate::bus) incarnation: u64,
    /// The version of its interest before the batch.
    pub(in crate::bus) start: u64,
    /// The version behind the batch.
    pub(in crate::bus) end: u64,
}

/// Bytes of a head, with the byte that says that a batch follows.
pub(in crate::bus) const HEAD_BYTES: usize = 25;

impl Head {
    pub(in crate::bus) fn write(self, out: &mut BytesMut) {
        out.put_u8(BATCH);
        out.put_u64(self.incarnation);
        out.put_u64(self.start);
        out.put_u64(self.end);
    }

    /// Reads a head behind its first byte.
    pub(in crate::bus) fn read(bytes: &mut Bytes) -> Option<Self> {
        let (incarnation, start) = (bytes.try_get_u64().ok()?, bytes.try_get_u64().ok()?);
        Some(Self { incarnation, start, end: bytes.try_get_u64().ok()? })
    }
}

/// An operation of another node.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::bus) enum Operation {
    /// The node wants more, or less.
    Change(InterestChange, Wanted),
    /// A change of a filter that this release does not take: nothing of it reaches the other node.
    Unusable,
    /// Nothing that the node wanted before counts; what it wants follows.
    Whole,
    /// A message, for subscriptions without a group if the first says so, and for one member of each of these groups.
    Message(bool, Vec<ByteString>, LiveMessage),
}

fn put(out: &mut BytesMut, bytes: &[u8]) {
    // Texts and payloads are bounded far below that.
    out.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    out.put_slice(bytes);
}

fn get(bytes: &mut Bytes) -> Option<Bytes> {
    let length = usize::try_from(bytes.try_get_u32().ok()?).ok()?;
    (length <= bytes.len()).then(|| bytes.split_to(length))
}

fn get_text(bytes: &mut Bytes) -> Option<ByteString> {
    ByteString::try_from(get(bytes)?).ok()
}

/// Bytes of a change.
pub(in crate::bus) fn change_bytes(Wanted { filter, group, .. }: &Wanted) -> usize {
    [1, 1, LENGTH, filter.as_str().len(), LENGTH, group.len()].iter().sum()
}

pub(in crate::bus) fn write_change(out: &mut BytesMut, change: InterestChange, wanted: &Wanted) {
    out.put_u8(if change == InterestChange::Add { ADD } else { REMOVE });
    out.put_u8(wanted.sees_reserved.into());
    put(out, wanted.filter.as_str().as_bytes());
    put(out, wanted.group.as_bytes());
}

/// Appends that nothing from before counts.
pub(in crate::bus) fn write_whole(out: &mut BytesMut) {
    out.put_u8(WHOLE);
}

/// Bytes of a message.
pub(in crate::bus) fn message_bytes(groups: &[&str], message: &LiveMessage) -> usize {
    let groups: usize = groups.iter().map(|group| group.len().saturating_add(LENGTH)).sum();
    message.bytes().saturating_add(groups).saturating_add(1 + 1 + 2 + 4 * LENGTH)
}

pub(in crate::bus) fn write_message(out: &mut BytesMut, plain: bool, groups: &[&str], message: &LiveMessage) {
    let groups = groups.get(..groups.len().min(GROUPS_MAX)).unwrap_or_default();
    out.reserve(message_bytes(groups, message));
    out.put_u8(MESSAGE);
    out.put_u8(plain.into());
    out.put_u16(u16::try_from(groups.len()).unwrap_or(u16::MAX));
    groups.iter().for_each(|group| put(out, group.as_bytes()));
    put(out, message.subject.as_bytes());
    put(out, message.reply.as_bytes());
    put(out, &message.headers);
    put(out, &message.payload);
}

/// Reads the next operation. `None`: the bytes are none that this release knows.
pub(in crate::bus) fn read(bytes: &mut Bytes) -> Option<Operation> {
    match bytes.try_get_u8().ok()? {
        kind @ (ADD | REMOVE) => {
            let sees_reserved = bytes.try_get_u8().ok()? != 0;
            let (filter, group) = (get_text(bytes)?, get_text(bytes)?);
            let change = if kind == ADD { InterestChange::Add } else { InterestChange::Remove };
            // A copy: what is kept must not hold the whole batch.
            Some(match LiveFilter::parse(ByteString::from(&*filter)) {
                Ok(filter) => Operation::Change(change, Wanted::new(filter, &group, sees_reserved)),
                Err(_) => Operation::Unusable,
            })
        }
        WHOLE => Some(Operation::Whole),
        MESSAGE => {
            let plain = bytes.try_get_u8().ok()? != 0;
            let count = bytes.try_get_u16().ok()?;
            let groups = (0..count).map(|_| get_text(bytes)).collect::<Option<_>>()?;
            let (subject, reply) = (get_text(bytes)?, get_text(bytes)?);
            let message = LiveMessage { subject, reply, headers: get(bytes)?, payload: get(bytes)? };
            Some(Operation::Message(plain, groups, message))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wanted(filter: &str, group: &str) -> Wanted {
        Wanted::new(LiveFilter::parse(filter.into()).unwrap(), group, true)
    }

    proptest! {
        #[test]
        fn operations_read_back(
            subject in "[a-z]{1,9}(\\.[a-z*]{1,4}){0,4}", reply in ".{0,20}", groups in prop::collection::vec("[a-z]{1,8}", 0..5),
            headers in prop::collection::vec(any::<u8>(), 0..50), payload in prop::collection::vec(any::<u8>(), 0..300), plain in any::<bool>(),
        ) {
            let message = LiveMessage {
                subject: subject.clone().into(), reply: reply.into(), headers: headers.into(), payload: payload.into(),
            };
            let mut out = BytesMut::new();
            let names: Vec<&str> = groups.iter().map(String::as_str).collect();
            write_message(&mut out, plain, &names, &message);
            prop_assert_eq!(out.len(), message_bytes(&names, &message));
            write_whole(&mut out);
            for change in [InterestChange::Add, InterestChange::Remove] {
                let before = out.len();
                write_change(&mut out, change, &wanted(&subject, "g"));
                prop_assert_eq!(out.len() - before, change_bytes(&wanted(&subject, "g")));
            }
            let mut bytes = out.freeze();
            let named = groups.into_iter().map(ByteString::from).collect();
            prop_assert_eq!(read(&mut bytes), Some(Operation::Message(plain, named, message)));
            prop_assert_eq!(read(&mut bytes), Some(Operation::Whole));
            for change in [InterestChange::Add, InterestChange::Remove] {
                prop_assert_eq!(read(&mut bytes), Some(Operation::Change(change, wanted(&subject, "g"))));
            }
            prop_assert!(bytes.is_empty());
        }

        #[test]
        fn hostile_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = Bytes::from(bytes);
            while !bytes.is_empty() && read(&mut bytes).is_some() {}
        }
    }

    #[test]
    fn a_head_reads_back() {
        let head = Head { incarnation: 7, start: 1, end: 9 };
        let mut out = BytesMut::new();
        head.write(&mut out);
        assert_eq!(out.len(), HEAD_BYTES);
        let mut bytes = out.freeze();
        assert_eq!((bytes.try_get_u8(), Head::read(&mut bytes)), (Ok(BATCH), Some(head)));
        assert_eq!(Head::read(&mut Bytes::from_static(b"short")), None);
    }
}
