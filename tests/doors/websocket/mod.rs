//! The door `websocket`: plain JSON services, as their clients see them.

use std::net::SocketAddr;

use serde_json::json;

use crate::harness::socket::Socket;

/// Every pair of doors calls each other, on one node and on three.
mod across;
/// Publishing, and streams of the book.
mod book;
/// The clients of this repository.
pub(crate) mod clients;
/// The three documents of the specification, as they are.
mod documents;
/// Loss, overload, slowness, nonsense.
mod faults;
/// How fast it must be, beside a relay on Node.
mod limits;
/// What the bus subscribes to for a client that registers.
mod listeners;
/// Messages and what becomes of them.
mod messages;
/// JSON that is odd but legal.
mod odd;
/// Coming, going, and what others are told of it.
mod registration;
/// The framing of RFC 6455, byte by byte.
mod rfc6455;
/// Many streams on one connection, and large events.
mod streams;

/// A service `users` that has the message `m` of a consumer `shop`, and that consumer.
pub(crate) fn asked(web: SocketAddr) -> (Socket, Socket) {
    let users = Socket::service(web, "users", &["get"]);
    let shop = Socket::consumer(web, "shop");
    shop.ask("m", "users:get", &json!(1));
    users.next("message");
    (users, shop)
}
