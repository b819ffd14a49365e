//! A replica whose rows are written later than they are made, as an apply of many entries does.

use super::*;

/// A replica that commits after every third entry alone.
#[derive(Default)]
pub(super) struct Late {
    pub(super) replica: Replica,
    pub(super) writes: Writes,
}

impl Late {
    pub(super) fn apply_at(&mut self, millis: u64, frames: &[Vec<u8>]) -> Vec<Reply> {
        let replica = &mut self.replica;
        replica.index += 1;
        let mut builder = EntryBuilder::new(0);
        frames.iter().for_each(|frame| builder.push(frame));
        let bytes = builder.finish(millis);
        let entry = Entry::parse(&bytes).unwrap();
        let replies = replica.machine.apply(replica.index, &entry, &replica.memory, &mut self.writes).unwrap();
        replica.memory.entries.insert(replica.index, bytes);
        replica.memory.names = replica.machine.heads().map(|head| (head.id, head.name.clone())).collect();
        if replica.index.is_multiple_of(3) {
            replica.memory.commit(&mut self.writes);
        }
        replies
    }
}
