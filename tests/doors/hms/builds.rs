//! Archives up and down, with builds between.

use std::io::Write as _;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use super::client::{Hms, address, http, op, options};
use crate::harness::cluster::Cluster;
use crate::harness::node::Node;
use crate::harness::{SOON, wait_for};

/// A header of a tar file.
fn header(name: &str, size: usize, kind: u8, link: &str) -> Vec<u8> {
    let mut block = vec![0_u8; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..108].copy_from_slice(b"0000755\0");
    block[108..116].copy_from_slice(b"0000000\0");
    block[116..124].copy_from_slice(b"0000000\0");
    block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    block[136..148].copy_from_slice(b"00000000000\0");
    block[148..156].fill(b' ');
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link.as_bytes());
    block[257..263].copy_from_slice(b"ustar\0");
    block[263..265].copy_from_slice(b"00");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// A gzipped tar with these entries: name, kind, link, content.
pub(crate) fn archive(entries: &[(&str, u8, &str, &[u8])]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (name, kind, link, content) in entries {
        tar.extend_from_slice(&header(name, content.len(), *kind, link));
        tar.extend_from_slice(content);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&tar).expect("gzip");
    gzip.finish().expect("gzip")
}

/// The status and the whole answer of an upload.
pub(crate) fn upload(node: &Node, id: &str, revision: &str, body: &[u8]) -> String {
    let head = format!("PUT /{id}?revision={revision} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut chunked = Vec::new();
    for chunk in body.chunks(60_000) {
        chunked.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        chunked.extend_from_slice(chunk);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    http(address(node), &head, &chunked)
}

/// Deploys a small archive.
pub(crate) fn deploy(node: &Node, id: &str, revision: &str) -> Result<(), String> {
    let answer = upload(node, id, revision, &archive(&[("hello.txt", b'0', "", b"hello")]));
    if answer.starts_with("HTTP/1.1 204 ") { Ok(()) } else { Err(answer) }
}

fn download(node: &Node, id: &str) -> (String, Vec<u8>) {
    use std::io::Read as _;
    let mut socket = std::net::TcpStream::connect(address(node)).expect("a connection");
    socket.write_all(format!("GET /{id} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).expect("write");
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).expect("an answer");
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head") + 4;
    let body = answer.split_off(end);
    (String::from_utf8(answer).expect("text"), body)
}

#[test]
fn an_archive_without_a_build_is_stored_as_it_is() {
    let node = Node::start(&options());
    Hms::client(&node).ask(op::ADD, "app1", &json!({"start": "x"})).expect("added");
    let sent = archive(&[("hello.txt", b'0', "", b"hello"), ("big", b'0', "", &vec![7; 900_000])]);
    let answer = upload(&node, "app1", "r%201", &sent);
    assert!(answer.starts_with("HTTP/1.1 204 ") && !answer.to_lowercase().contains("trailer"), "{answer}");
    let (head, body) = download(&node, "app1");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(body == sent, "{} bytes came, {} were sent", body.len(), sent.len());
    let definition = Hms::client(&node).do_(op::GET, "app1").expect("a definition");
    assert_eq!(definition["revision"], json!("r 1"));
    assert!(definition["deployed"].is_string(), "{definition}");
}

#[test]
fn the_output_of_a_build_is_followed_and_its_result_is_what_docks_get() {
    let node = Node::start(&options());
    let mut client = Hms::client(&node);
    let build = json!({"build": "echo building $WHAT; cat hello.txt > made.txt; echo oops >&2", "env": {"WHAT": "it"}});
    client.ask(op::ADD, "app1", &build).expect("added");
    let answer = upload(&node, "app1", "", &archive(&[("hello.txt", b'0', "", b"hello")]));
    let low = answer.to_lowercase();
    assert!(low.starts_with("http/1.1 200 ") && low.contains("trailer: x-status\r\n"), "{answer}");
    assert!(
        low.contains("building it\n") && low.contains("oops\n") && low.ends_with("0\r\nx-status: 200\r\n\r\n"),
        "{answer}"
    );
    let (_, body) = download(&node, "app1");
    let mut tar = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&body[..]), &mut tar).expect("gzip");
    let text = String::from_utf8_lossy(&tar).into_owned();
    assert!(text.contains("made.txt") && text.contains("hello.txt"), "the result of the build");
}

#[test]
fn a_build_that_fails_is_not_stored() {
    let node = Node::start(&options().env("ROLLBOOK_HMS__BUILD_TIMEOUT", "1s"));
    let mut client = Hms::client(&node);
    for (id, build, head, part) in [
        ("loud", "echo half; exit 3", "http/1.1 200 ", "half\n"),
        ("quiet", "exit 3", "http/1.1 500 ", "exit status: 3"),
        ("hangs", "sleep 1000", "http/1.1 500 ", "longer than 1 s"),
    ] {
        client.ask(op::ADD, id, &json!({"build": build})).expect("added");
        let answer = upload(&node, id, "", &archive(&[("a", b'0', "", b"a")])).to_lowercase();
        assert!(
            answer.starts_with(head) && answer.contains(part) && answer.ends_with("x-status: 500\r\n\r\n"),
            "{answer}"
        );
        assert!(download(&node, id).0.starts_with("HTTP/1.1 404 "), "{id}");
    }
}

/// The build writes for ever, and nobody would read that.
#[test]
fn a_build_whose_uploader_leaves_ends_and_frees_its_place() {
    let node = Node::start(&options().env("ROLLBOOK_HMS__UPLOADS_MAX", "1"));
    let mut client = Hms::client(&node);
    client.ask(op::ADD, "loud", &json!({"build": "yes"})).expect("added");
    client.ask(op::ADD, "app1", &json!({})).expect("added");
    let body = archive(&[("a", b'0', "", b"a")]);
    let mut leaves = std::net::TcpStream::connect(address(&node)).expect("a connection");
    let head = format!("PUT /loud HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    leaves.write_all(head.as_bytes()).expect("write");
    leaves.write_all(&body).expect("write");
    let mut some = [0; 1000];
    std::io::Read::read_exact(&mut leaves, &mut some).expect("output");
    let full = upload(&node, "app1", "", &body);
    assert!(full.contains("1 uploads are going on already"), "{full}");
    drop(leaves);
    wait_for("a place for an upload", SOON, || deploy(&node, "app1", "").ok());
}

#[test]
fn archives_that_reach_out_or_are_none_are_refused() {
    let node = Node::start(&options());
    let mut client = Hms::client(&node);
    client.ask(op::ADD, "plain", &json!({})).expect("added");
    client.ask(op::ADD, "built", &json!({"build": "true"})).expect("added");
    let truncated = {
        let whole = archive(&[("a", b'0', "", &(0..200_000).map(|n| (n * 7919 % 251) as u8).collect::<Vec<_>>())]);
        whole[..whole.len() / 2].to_vec()
    };
    let bad: [(&str, Vec<u8>); 8] = [
        ("a path upwards", archive(&[("../out", b'0', "", b"x")])),
        ("an absolute path", archive(&[("/tmp/out", b'0', "", b"x")])),
        ("a link upwards", archive(&[("l", b'2', "../..", b"")])),
        ("a file behind a link", archive(&[("d", b'2', "/tmp", b""), ("d/x", b'0', "", b"x")])),
        ("a hard link outside", archive(&[("h", b'1', "/etc/passwd", b"")])),
        ("a device", archive(&[("dev", b'3', "", b"")])),
        ("a name twice", archive(&[("a", b'0', "", b"1"), ("a", b'0', "", b"2")])),
        ("half an archive", truncated),
    ];
    for (what, body) in bad {
        for id in ["plain", "built"] {
            let answer = upload(&node, id, "", &body);
            assert!(
                answer.starts_with("HTTP/1.1 500 ") && answer.ends_with("X-Status: 500\r\n\r\n"),
                "{what}: {answer}"
            );
            assert!(download(&node, id).0.starts_with("HTTP/1.1 404 "), "{what} for {id}");
        }
    }
    let answer = upload(&node, "plain", "", b"this is no gzip at all, and long enough");
    assert!(answer.contains("incorrect header check"), "{answer}");
    let answer = upload(&node, "gone", "", b"x");
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("Service not found"), "{answer}");
    assert!(answer.ends_with("X-Status: 404\r\n\r\n"), "{answer}");
}

#[test]
fn an_archive_beyond_the_bound_is_refused_and_leaves_nothing() {
    let node = Node::start(&options().env("ROLLBOOK_HMS__ARCHIVE_BYTES_MAX", "100000"));
    Hms::client(&node).ask(op::ADD, "app1", &json!({})).expect("added");
    let answer = upload(&node, "app1", "", &vec![7; 300_000]);
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[test]
fn a_build_outlives_its_node_and_an_upload_that_a_killed_node_took_changes_nothing() {
    let mut cluster = Cluster::start_with(options());
    let mut client = Hms::client(cluster.node(1));
    client.ask(op::ADD, "app1", &json!({"start": "x"})).expect("added");
    let noise: Vec<u8> = (0..3_000_000_u64).map(|n| (n.wrapping_mul(6364136223846793005) >> 33) as u8).collect();
    let sent = archive(&[("noise", b'0', "", &noise)]);
    assert!(upload(cluster.node(1), "app1", "r1", &sent).starts_with("HTTP/1.1 204 "));
    drop(client);
    // Half of a second archive is there when the node dies.
    let mut half = std::net::TcpStream::connect(address(cluster.node(1))).expect("a connection");
    let head = format!("PUT /app1?revision=r2 HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", sent.len());
    half.write_all(head.as_bytes()).expect("write");
    half.write_all(&sent[..sent.len() / 2]).expect("write");
    cluster.kill(1);
    let begun = Instant::now();
    let mut client = Hms::client(cluster.node(2));
    assert_eq!(client.do_(op::GET, "app1").expect("a definition")["revision"], json!("r1"));
    let (_, body) = download(cluster.node(3), "app1");
    assert!(body == sent, "the build is the same at the others");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}
