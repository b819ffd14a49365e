//! Who a client is and what a client may do. Doors hand in what a client presented; everything is decided here.
//!
//! May import `base` and the file `error`. Invariant: nothing here knows a protocol, and no secret is in a log line, an
//! error or a debug text.

pub mod credentials;
