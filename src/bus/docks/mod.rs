//! Docks: hosts on which processes run. What should run is replicated; what runs is asked of the docks.
//!
//! ```text
//! definition   what a process is, as clients write it and docks read it
//! order        what a dock is asked to do, and what became of that
//! table        the docks that are connected to this node
//! fleet        the docks of all nodes: what goes to them, and who they are
//! client       definitions as this node has applied them, and the way to change them
//! output       lines of processes on their way to whoever follows them, over all nodes
//! process_filter  which processes a client may see        tail   output for one reader, in a bounded queue
//! process_events  starts and ends of processes on their way into the book        record   their lines, too
//! registered   docks are told which of their processes have registered as services
//! builds/      archives that clients deploy: they are checked, built and replicated
//! hub          all of that in one handle
//! commands     what clients ask for: add, update, remove, start, stop, restart, sync, ps
//! ```
//!
//! Knows no protocol. May import the rooms `error`, `security`, `live`, `relay` and the file `handle`. Invariants: an order
//! is answered once, also when its dock or the node of the dock is lost; and nobody waits for a subscriber of output: what
//! it does not read is dropped and counted.

pub mod builds;
pub mod client;
pub mod commands;
pub mod definition;
pub mod fleet;
pub mod hub;
pub mod order;
pub mod output;
mod process_events;
pub mod process_filter;
pub mod record;
mod registered;
pub mod table;
pub mod tail;
