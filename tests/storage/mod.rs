//! What is on the disk: damage, power, space, settling; what was acknowledged is there.

/// Damaged logs, taken ports, unwritable directories: refused with a clear message.
mod damage;
/// `kill -9` under load: acknowledged events survive, in order, once.
mod durability;
/// SIGTERM and start: drained streams, nothing lost, everything back.
mod restart;
/// Settled events, and retention that gives disk back.
mod settling;
/// A full disk, and space that returns.
mod space;
