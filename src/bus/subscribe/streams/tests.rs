//! Several streams and publishes on one connection: turns, order, ends, bounds.

use std::cell::RefCell;
use std::rc::Rc;

use super::*;
use crate::bus::read::encoder::EventEncoder as _;
use crate::bus::read::pieces::PIECES;
use crate::net::byte_queue::{self, Outlet};
use rollbook_core::event::Event;

type Heard = Rc<RefCell<Vec<(u64, StreamUpdate)>>>;

fn event() -> Bytes {
    let mut out = Vec::new();
    PIECES.event(1, &Event { subject: "a.b", ..Event::default() }, None, &mut out);
    out.into()
}

/// A stream that is open, with its writing end.
fn opened(streams: &mut Streams, id: &str, heard: &Heard) -> Outlet {
    let (outlet, body) = byte_queue::pair();
    let tells = Rc::clone(heard);
    let opening = std::future::ready(Ok((format!("c_{id}"), body)));
    let tell = move |number, update| tells.borrow_mut().push((number, update));
    streams.subscribe(id.to_owned(), None, opening, tell).unwrap();
    outlet
}

/// What there is to be told now.
async fn messages(streams: &mut Streams, heard: &Heard) -> Vec<(String, StreamMessage)> {
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
    let told: Vec<_> = heard.borrow_mut().drain(..).collect();
    let told = told.into_iter().filter_map(|(number, update)| streams.update(number, update));
    told.flat_map(|(id, messages)| messages.into_iter().map(move |word| (id.clone(), word))).collect()
}

fn name(word: &StreamMessage) -> &'static str {
    match word {
        StreamMessage::Opened(_, Ok(_)) => "opened",
        StreamMessage::Opened(_, Err(_)) => "refused",
        StreamMessage::Event(_) => "event",
        StreamMessage::ChunkEnd(_) => "told",
        StreamMessage::Ended(end, _) => end.code(),
        StreamMessage::Acknowledged(_) => "acknowledged",
        StreamMessage::Published(..) => "published",
        StreamMessage::Left(_) => "left",
    }
}

fn names(messages: &[(String, StreamMessage)]) -> Vec<String> {
    messages.iter().map(|(id, word)| format!("{id} {}", name(word))).collect()
}

#[actix_web::test]
async fn one_stream_speaks_at_a_time_and_each_has_its_turn() {
    let (mut streams, heard) = (Streams::default(), Heard::default());
    let outlets: Vec<Outlet> = ["a", "b", "c"].map(|id| opened(&mut streams, id, &heard)).into();
    assert_eq!(names(&messages(&mut streams, &heard).await), ["a opened", "b opened", "c opened"]);
    outlets.iter().for_each(|outlet| outlet.push(event()));
    let mut spoke = Vec::new();
    for _ in 0..6 {
        // Nobody else speaks while what this one has said has not left: its turn is kept.
        let mut said = messages(&mut streams, &heard).await;
        let quiet = messages(&mut streams, &heard).await;
        assert!(quiet.is_empty(), "{:?}", names(&quiet));
        assert_eq!(said.len(), 2, "{:?}", names(&said));
        let Some((id, StreamMessage::ChunkEnd(turn))) = said.pop() else { panic!("no turn") };
        outlets.iter().zip(["a", "b", "c"]).filter(|(_, name)| *name == id).for_each(|(outlet, _)| {
            outlet.push(event());
        });
        spoke.push(id);
        // It has something to say again, and waits behind the others.
        tokio::task::yield_now().await;
        drop(turn);
    }
    assert_eq!(spoke, ["a", "b", "c", "a", "b", "c"]);
}

#[actix_web::test]
async fn a_stream_that_is_left_ends_behind_the_answers_to_what_was_acknowledged() {
    let (mut streams, heard) = (Streams::default(), Heard::default());
    let outlet = opened(&mut streams, "a", &heard);
    messages(&mut streams, &heard).await;
    let (answer, answers) = tokio::sync::oneshot::channel();
    let tells = Rc::clone(&heard);
    let tell = move |number, update| tells.borrow_mut().push((number, update));
    let acknowledge = |consumer: String, said: Acknowledgement| async move {
        assert_eq!((&*consumer, said), ("c_a", Acknowledgement::of("e_1")));
        Ok(answers.await.unwrap())
    };
    streams.acknowledge("a", Acknowledgement::of("e_1"), Some(7), acknowledge, tell).unwrap();
    assert!(streams.unsubscribe("a", Some(8)).unwrap().is_empty() && streams.unanswered() == 1);
    outlet.push(event());
    assert!(messages(&mut streams, &heard).await.is_empty(), "its client wants no more of it");
    assert_eq!(streams.unsubscribe("a", None).unwrap_err(), StreamRefusal::Unknown);
    answer.send(Acknowledged { count: 1, not_in_flight: Vec::new() }).unwrap();
    let told = messages(&mut streams, &heard).await;
    assert_eq!(names(&told), ["a acknowledged", "a left"]);
    assert!(matches!(told[1].1, StreamMessage::Left(Some(8))) && streams.unanswered() == 0);
    outlet.gone().await;
    // One that is not open yet: who asked for it is told that it never will be.
    opened(&mut streams, "b", &heard);
    let told = streams.unsubscribe("b", None).unwrap();
    assert_eq!(told.iter().map(name).collect::<Vec<_>>(), ["refused", "left"]);
}

#[actix_web::test]
async fn the_end_of_a_stream_has_a_code() {
    let (mut streams, heard) = (Streams::default(), Heard::default());
    for end in End::ALL {
        let outlet = opened(&mut streams, "a", &heard);
        let mut out = event().to_vec();
        if end != End::Ended {
            PIECES.end(end, &mut out);
        }
        outlet.push(out.into());
        outlet.end();
        let mut told = messages(&mut streams, &heard).await;
        // What was said must have left before anything else is said.
        told.retain(|(_, word)| !matches!(word, StreamMessage::ChunkEnd(_)));
        told.extend(messages(&mut streams, &heard).await);
        assert_eq!(names(&told), ["a opened", "a event", &format!("a {}", end.code())], "{end:?}");
        outlet.gone().await;
        assert_eq!(streams.unsubscribe("a", None).unwrap_err(), StreamRefusal::Unknown);
    }
}

#[actix_web::test]
async fn publishes_begin_in_their_order_and_each_is_answered_once() {
    let (mut streams, heard) = (Streams::default(), Heard::default());
    let begun: Rc<RefCell<Vec<u64>>> = Rc::default();
    let mut publish = |number: u64, answers: Option<tokio::sync::oneshot::Receiver<()>>| {
        let (begun, tells) = (Rc::clone(&begun), Rc::clone(&heard));
        let publishing = async move {
            begun.borrow_mut().push(number);
            match answers {
                Some(answers) => answers.await.map(|()| None).map_err(|_| Fault::cancelled()),
                None => Err(Fault::bad("no subject")),
            }
        };
        let tell = move |number, update| tells.borrow_mut().push((number, update));
        let now = streams.publish(format!("p{number}"), Some(number), publishing, tell).unwrap();
        (now, streams.unanswered())
    };
    let (answer, answers) = tokio::sync::oneshot::channel();
    assert!(matches!(publish(1, Some(answers)), (None, 1)));
    let (refused, unanswered) = publish(2, None);
    assert!(matches!(refused, Some(StreamMessage::Published(Some(2), Err(_)))), "known at once");
    assert_eq!(unanswered, 1);
    let (_never, answers) = tokio::sync::oneshot::channel();
    assert!(matches!(publish(3, Some(answers)), (None, 2)));
    assert_eq!(*begun.borrow(), [1, 2, 3]);
    answer.send(()).unwrap();
    let told = messages(&mut streams, &heard).await;
    assert_eq!(names(&told), ["p1 published"]);
    assert!(matches!(told[0].1, StreamMessage::Published(Some(1), Ok(None))));
    assert_eq!(streams.unanswered(), 1);
}

#[actix_web::test]
async fn a_connection_has_so_many_streams_and_so_much_without_an_answer() {
    let (mut streams, heard) = (Streams::default(), Heard::default());
    let outlets: Vec<Outlet> = (0..STREAMS_MAX).map(|n| opened(&mut streams, &n.to_string(), &heard)).collect();
    let never = || std::future::pending::<Result<(String, Body), Fault>>();
    assert_eq!(streams.subscribe("0".to_owned(), None, never(), |_, _| ()), Err(StreamRefusal::Taken));
    assert_eq!(streams.subscribe("x".to_owned(), None, never(), |_, _| ()), Err(StreamRefusal::TooMany));
    assert_eq!(outlets.len(), STREAMS_MAX);
    assert!((0..UNANSWERED_MAX).all(|_| streams.begin().is_ok()));
    assert_eq!(streams.begin(), Err(StreamRefusal::Unanswered));
    streams.done();
    assert_eq!(streams.begin(), Ok(()));
}
