//! Responders of the services API of NATS as services of the roll, which all doors can call.
//!
//! ```text
//! discovery   the subject that only a responder listens on, and what the responder says of itself there
//! responder   the actor of one responder: its registration, and the requests that it gets
//! answers     what is published to the responder's inbox: answers to those requests
//! payload     payloads of NATS as JSON, and back
//! ```
//!
//! Imports the outbox and the wire of the door, and the bus. Invariant: a responder is on the roll for as long as its
//! subscription lives, and a client whose responder cannot be registered goes on as any client of NATS.

mod answers;
pub(super) mod discovery;
pub(super) mod payload;
pub(super) mod responder;
