//! The door `websocket`: plain JSON services, as their clients see them.

/// Every pair of doors calls each other, on one node and on three.
mod across;
/// Publishing, and streams of the book.
mod book;
/// The clients of this repository.
mod clients;
/// The three documents of the specification, as they are.
mod documents;
/// Loss, overload, slowness, nonsense.
mod faults;
/// How fast it must be, beside a relay on Node.
mod limits;
/// Messages and what becomes of them.
mod messages;
/// Coming, going, and what others are told of it.
mod registration;
/// The framing of RFC 6455, byte by byte.
mod rfc6455;
