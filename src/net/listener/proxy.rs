//! The PROXY protocol, versions 1 and 2: a load balancer says whose connection it passes on.
//!
//! <https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>. The header is believed from the load balancers that
//! the settings list, and from nobody else: whoever could send one could have any address.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use ppp::{HeaderResult, PartialResult as _, v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::networks::Networks;

/// Longest time until the header is there.
const HEADER_TIME_MAX: Duration = Duration::from_secs(10);
/// Longest header in bytes: 16, addresses, and what a load balancer adds about TLS.
const HEADER_BYTES_MAX: usize = 2048;

/// The address of the client: that of the socket, or what a listed load balancer says. What was read behind a header
/// stays in `read`.
///
/// # Errors
/// The header is missing, wrong, too long or late; the connection cannot be used.
pub(in crate::net) async fn client(
    socket: &mut (impl AsyncRead + Unpin),
    peer: SocketAddr,
    from: &Networks,
    read: &mut BytesMut,
) -> io::Result<SocketAddr> {
    if from.is_empty() || !from.contain(peer.ip()) {
        return Ok(peer);
    }
    let header = async {
        loop {
            match parse(read)? {
                Some((length, address)) => {
                    read.advance(length);
                    return Ok(address.unwrap_or(peer));
                }
                None if read.len() >= HEADER_BYTES_MAX => return Err(wrong("the PROXY header is too long")),
                None => {}
            }
            if socket.read_buf(read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    };
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    tokio::time::timeout(HEADER_TIME_MAX, header).await.map_err(late)?
}

fn wrong(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// The length of the header and the address of the client; an address of `None` is a connection of the load balancer
/// itself, or of a client whose address has no meaning here. `None`: more has to come.
fn parse(bytes: &[u8]) -> io::Result<Option<(usize, Option<SocketAddr>)>> {
    let found = HeaderResult::parse(bytes);
    if found.is_incomplete() {
        return Ok(None);
    }
    let socket = |ip: IpAddr, port| Some(SocketAddr::new(ip, port));
    let no_header = "a connection of this load balancer must begin with a PROXY header";
    Ok(Some(match found {
        HeaderResult::V1(header) => {
            let header = header.map_err(|_| wrong(no_header))?;
            let address = match header.addresses {
                v1::Addresses::Tcp4(both) => socket(both.source_address.into(), both.source_port),
                v1::Addresses::Tcp6(both) => socket(both.source_address.into(), both.source_port),
                v1::Addresses::Unknown => None,
            };
            (header.header.len(), address)
        }
        HeaderResult::V2(header) => {
            let header = header.map_err(|_| wrong(no_header))?;
            let address = match header.addresses {
                _ if header.command == v2::Command::Local => None,
                v2::Addresses::IPv4(both) => socket(both.source_address.into(), both.source_port),
                v2::Addresses::IPv6(both) => socket(both.source_address.into(), both.source_port),
                v2::Addresses::Unix(_) | v2::Addresses::Unspecified => None,
            };
            (header.len(), address)
        }
    }))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    const BALANCER: &str = "10.0.0.1:999";
    const V1: &[u8] = b"PROXY TCP4 192.0.2.7 10.0.0.9 4711 443\r\n";

    /// What a connection from `peer` that begins with these pieces is taken for, and what is left behind the header.
    async fn taken(peer: &str, pieces: &[&[u8]]) -> Result<(String, Vec<u8>), io::ErrorKind> {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        for piece in pieces {
            theirs.write_all(piece).await.unwrap();
        }
        drop(theirs);
        let (mut socket, mut read) = (ours, BytesMut::new());
        let from = Networks::try_from("10.0.0.1".to_owned()).unwrap();
        let client =
            client(&mut socket, peer.parse().unwrap(), &from, &mut read).await.map_err(|error| error.kind())?;
        socket.read_buf(&mut read).await.unwrap();
        Ok((client.to_string(), read.to_vec()))
    }

    fn v2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
        [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, addresses].concat()
    }

    #[tokio::test]
    async fn the_header_of_a_listed_load_balancer_names_the_client() {
        let rest = b"GET / HTTP/1.1\r\n";
        let want = Ok(("192.0.2.7:4711".to_owned(), rest.to_vec()));
        assert_eq!(taken(BALANCER, &[V1, rest]).await, want);
        let four = v2(0x21, 0x11, &[192, 0, 2, 7, 10, 0, 0, 9, 0x12, 0x67, 1, 187]);
        assert_eq!(taken(BALANCER, &[&four, rest]).await, want);
        let bytes: Vec<&[u8]> = four.chunks(1).chain([&rest[..]]).collect();
        assert_eq!(taken(BALANCER, &bytes).await, want, "byte by byte");
        let six = [&[0xfd; 16][..], &[0; 16], &[0x12, 0x67, 1, 187], &[4, 0, 1, 9]].concat();
        let (client, left) = taken(BALANCER, &[&v2(0x21, 0x21, &six)]).await.unwrap();
        assert_eq!(
            (&*client, left.len()),
            ("[fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd]:4711", 0),
            "what is added counts"
        );
    }

    #[tokio::test]
    async fn a_connection_of_the_load_balancer_itself_has_its_own_address() {
        for header in [v2(0x20, 0, &[]), b"PROXY UNKNOWN\r\n".to_vec()] {
            assert_eq!(taken(BALANCER, &[&header, b"x"]).await, Ok((BALANCER.to_owned(), b"x".to_vec())));
        }
    }

    #[tokio::test]
    async fn nobody_else_is_believed_and_a_header_must_be_one() {
        let other = "10.0.0.2:999";
        assert_eq!(taken(other, &[V1]).await, Ok((other.to_owned(), V1.to_vec())), "what it sends is the protocol's");
        for bad in [
            &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
            b"PROXY TCP4 x y 1 2\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 99999\r\n",
        ] {
            assert_eq!(taken(BALANCER, &[bad]).await, Err(io::ErrorKind::InvalidData), "{}", bad.escape_ascii());
        }
        assert_eq!(taken(BALANCER, &[b"PROXY TCP4 1.2"]).await, Err(io::ErrorKind::UnexpectedEof));
        let long = v2(0x21, 0x11, &[0; 4000]);
        assert_eq!(taken(BALANCER, &[&long[..3000]]).await, Err(io::ErrorKind::InvalidData), "too long");
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_that_does_not_come_ends_the_connection() {
        let (ours, _theirs) = tokio::io::duplex(64);
        let from = Networks::try_from("10.0.0.0/8".to_owned()).unwrap();
        let late = client(&mut { ours }, BALANCER.parse().unwrap(), &from, &mut BytesMut::new()).await;
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    proptest::proptest! {
        #[test]
        fn hostile_bytes_are_an_error_or_wait_for_more(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300), begin in 0..3_usize) {
            let bytes = [[&b""[..], b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"][begin], &bytes].concat();
            if let Ok(Some((length, _))) = parse(&bytes) {
                proptest::prop_assert!(length <= bytes.len());
            }
        }
    }
}
