//! Frames of many events in few chunks, so that they leave in few writes. Pure.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::bus::read::encoder::EventEncoder;
use crate::bus::read::stored_event::StoredEvent;
use crate::net::byte_queue::JOIN_BYTES_MAX;

/// Writes frames in few chunks: small frames are joined, and a large frame, which other streams share, is not copied.
pub(super) fn join_frames(
    items: &[Arc<StoredEvent>],
    encoder: &'static dyn EventEncoder,
    mut write: impl FnMut(Bytes),
) {
    if let [only] = items {
        return write(only.frame(encoder));
    }
    let mut joined = BytesMut::new();
    for item in items {
        let frame = item.frame(encoder);
        if !joined.is_empty() && joined.len().saturating_add(frame.len()) > JOIN_BYTES_MAX {
            write(joined.split().freeze());
        }
        if frame.len() >= JOIN_BYTES_MAX {
            write(frame);
        } else {
            joined.extend_from_slice(&frame);
        }
    }
    if !joined.is_empty() {
        write(joined.freeze());
    }
}

#[cfg(test)]
mod tests {
    use rollbook_core::event::Event;

    use super::*;
    use crate::bus::read::pieces::PIECES;

    #[test]
    fn small_events_are_joined_and_a_large_one_is_a_piece_of_its_own() {
        let item = |sequence, size: usize| {
            let (mut record, payload) = (Vec::new(), vec![b'1'; size]);
            let event = Event { subject: "a.b", payload: Some(&payload), ..Event::default() };
            event.encode(&mut record).unwrap();
            Arc::new(StoredEvent::stored(sequence, record.into()))
        };
        let sizes = [10, 10, 1 << 20, 10, 40 << 10, 40 << 10, 1 << 20];
        let items: Vec<_> = (1_u64..).zip(sizes).map(|(sequence, size)| item(sequence, size)).collect();
        let mut chunks: Vec<Bytes> = Vec::new();
        join_frames(&items, &PIECES, |chunk| chunks.push(chunk));
        let events: Vec<usize> =
            chunks.iter().map(|chunk| crate::bus::read::pieces::split(chunk.clone()).count()).collect();
        assert_eq!(events, [2, 1, 2, 1, 1]);
        assert_eq!(chunks[1].as_ptr(), items[2].frame(&PIECES).as_ptr(), "not copied");
        let whole: Vec<u8> = items.iter().flat_map(|item| item.frame(&PIECES).to_vec()).collect();
        assert_eq!(chunks.concat(), whole);
    }
}
