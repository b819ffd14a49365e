//! What processes say, for those who follow them.

use serde_json::{Value, json};

use super::client::{Hms, kind, op, options};
use crate::harness::ms;
use crate::harness::node::Node;

#[test]
fn followers_of_a_process_and_of_all_get_its_output_in_order() {
    let node = Node::start(&options());
    let mut dock = Hms::dock(&node, "d1", &[]);
    let (mut one, mut all) = (Hms::client(&node), Hms::client(&node));
    one.ask(op::ADD, "app1", &json!({})).expect("added");
    assert_eq!(one.do_(op::SUBSCRIBE, "app1"), Ok(Value::Null));
    assert_eq!(all.do_(op::SUBSCRIBE, "*"), Ok(Value::Null));
    assert_eq!(all.do_(op::SUBSCRIBE, "app1"), Ok(Value::Null), "both, and each message once");
    dock.tell(op::SPAWN, "app1@d1", b"7");
    dock.tell(op::STDOUT, "other@d1", b"x");
    for number in 0..100 {
        dock.tell(
            if number % 10 == 9 { op::STDERR } else { op::STDOUT },
            "app1@d1",
            format!("line {number}\n").as_bytes(),
        );
    }
    dock.tell(op::EXIT, "app1@d1", b"null");
    for client in [&mut one, &mut all] {
        let mut heard: Vec<(u8, String, String)> = Vec::new();
        while heard.last().is_none_or(|(operation, ..)| *operation != op::EXIT) {
            let message = client.heard();
            if message.id != "other@d1" {
                heard.push((message.op, message.text(), message.id));
            }
        }
        assert_eq!(heard.len(), 102, "{heard:?}");
        assert!(heard.iter().all(|(.., id)| id == "app1@d1"), "{heard:?}");
        assert_eq!(heard[0], (op::SPAWN, "7".to_owned(), "app1@d1".to_owned()));
        let lines: Vec<&str> = heard[1..101].iter().map(|(_, text, _)| text.as_str()).collect();
        assert_eq!(lines, (0..100).map(|number| format!("line {number}\n")).collect::<Vec<_>>());
    }
    assert_eq!(one.do_(op::UNSUBSCRIBE, "app1"), Ok(Value::Null));
    dock.tell(op::STDOUT, "app1@d1", b"more");
    assert!(one.is_quiet(ms(100)));
}

#[test]
fn a_process_whose_command_does_not_exist_ends_nobody() {
    let node = Node::start(&options());
    let mut dock = Hms::dock(&node, "d1", &[]);
    let mut client = Hms::client(&node);
    client.do_(op::SUBSCRIBE, "*").expect("subscribed");
    dock.tell(op::SPAWN, "app1@d1", b"");
    dock.tell(op::EXIT, "app1@d1", b"");
    dock.tell(op::SPAWN, "app1@d1", b"{not json");
    dock.tell(op::STDOUT, "app1@d1", b"end");
    let heard: Vec<(u8, String)> = (0..3).map(|_| client.heard()).map(|heard| (heard.op, heard.text())).collect();
    let expected = [(op::SPAWN, "null"), (op::EXIT, "null"), (op::STDOUT, "end")];
    assert_eq!(heard, expected.map(|(operation, text)| (operation, text.to_owned())));
}

#[test]
fn a_client_that_does_not_read_is_told_what_it_missed_and_holds_nobody_up() {
    let node = Node::start(&options().env("ROLLBOOK_HMS__QUEUE_BYTES_MAX", "4194304"));
    let mut dock = Hms::dock(&node, "d1", &[]);
    let (mut slow, mut quick) = (Hms::client(&node), Hms::client(&node));
    slow.do_(op::SUBSCRIBE, "*").expect("subscribed");
    quick.do_(op::SUBSCRIBE, "*").expect("subscribed");
    let line = vec![b'x'; 32_000];
    let messages = 1000;
    let reader = std::thread::spawn(move || {
        let mut lines = 0;
        loop {
            let message = quick.heard();
            match message.op {
                op::EXIT => return (lines, quick),
                op::STDOUT => lines += 1,
                _ => panic!("{message:?}"),
            }
        }
    });
    for _ in 0..messages {
        dock.tell(op::STDOUT, "app1@d1", &line);
        std::thread::sleep(std::time::Duration::from_micros(300));
    }
    dock.tell(op::EXIT, "app1@d1", b"0");
    let (lines, _quick) = reader.join().expect("read");
    assert_eq!(lines, messages, "whoever reads gets everything");
    let (mut got, mut told) = (0_usize, 0_usize);
    loop {
        let message = slow.heard();
        match message.op {
            op::STDOUT => got += 1,
            op::STDERR => {
                let text = message.text();
                let count =
                    text.strip_prefix("rollbook: ").and_then(|rest| rest.split(' ').next()?.parse::<usize>().ok());
                told += count.unwrap_or_else(|| panic!("{text}"));
            }
            _ => {}
        }
        if got + told == messages {
            break;
        }
    }
    assert!(told > 0, "the socket took everything: {got}");
    assert_eq!(node.actors("hms_connection"), 3);
}

#[test]
fn one_who_pings_and_reads_is_never_cut_off() {
    let node =
        Node::start(&options().env("ROLLBOOK_HMS__PING_INTERVAL", "200ms").env("ROLLBOOK_HMS__PING_TIMEOUT", "300ms"));
    let mut good = Hms::client(&node);
    let mut silent = Hms::client(&node);
    let mut pings = 0;
    while pings < 5 {
        let next = good.try_frame().expect("still there");
        assert_eq!(next.kind, kind::PING);
        good.send(&super::client::frame(kind::RESPONSE, next.id, b""));
        pings += 1;
    }
    assert_eq!(good.do_(op::LIST, ""), Ok(json!([])));
    // This one has answered no ping.
    while let Some(next) = silent.try_frame() {
        assert_eq!(next.kind, kind::PING);
    }
}
