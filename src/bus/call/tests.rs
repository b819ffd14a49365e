//! What the router remembers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rollbook_core::node::Owner;
use rollbook_core::service::Connection;

use super::flight::{Assignment, Flight};
use super::state::State;
use super::types::{Answered, Key, Requester, RouterConfig};
use crate::bus::client::call::{Caller, Payload, Request, Responder};
use crate::bus::error::Fault;

fn config() -> RouterConfig {
    RouterConfig {
        timeout: Duration::from_secs(1),
        timeout_max: Duration::from_secs(9),
        in_flight_max: 24,
        in_flight_bytes_max: 80_000,
        in_flight_per_instance: 2,
        strategies: super::choice::Strategies::default(),
    }
}

fn assignment(serial: u64) -> Assignment {
    Assignment { provider: Connection { owner: Owner { node: 1, incarnation: 1 }, serial }, local: true }
}

fn flight(id: &str, deadline: Instant, retries: u32) -> Flight {
    let request = Request {
        id: id.to_owned(),
        capability: "work".to_owned(),
        action: String::new(),
        from: Caller::default(),
        deadline,
        retries,
        key: String::new(),
        responder: Responder::Caller,
        traceparent: None,
    };
    Flight::new(Requester::Client(1), Arc::new(request), Payload::default(), Box::new(drop))
}

fn begin(state: &mut State, id: &str, serial: u64, deadline: Instant) -> Result<u64, Fault> {
    state.begin(flight(id, deadline, 0), assignment(serial), &config()).map_err(|not_begun| not_begun.0)
}

/// A request of `requester` with so large a payload to provider 7.
fn ask(state: &mut State, requester: Requester, bytes: usize, retries: u32) -> Result<u64, Fault> {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut flight = flight("r", deadline, retries);
    (flight.requester, flight.payload) = (requester, Payload::json(vec![b'1'; bytes]));
    state.begin(flight, assignment(7), &config()).map_err(|not_begun| not_begun.0)
}

/// The code of the error when it is refused.
fn refused(asked: Result<u64, Fault>) -> &'static str {
    asked.err().map_or("taken", |fault| fault.code())
}

#[test]
fn a_request_is_found_by_its_provider_alone_and_only_until_it_ends() {
    let (mut state, now) = (State::default(), Instant::now());
    let number = begin(&mut state, "r", 7, now).expect("room");
    assert_eq!(state.find(7, Key::Id("r")), Some(number));
    assert_eq!(state.find(7, Key::Number(number)), Some(number));
    assert_eq!(state.find(8, Key::Id("r")), None, "another client");
    assert_eq!(state.find(8, Key::Number(number)), None);
    assert!(state.end(number, false, now).is_some());
    assert!(state.end(number, false, now).is_none(), "it ends once");
    assert_eq!(state.find(7, Key::Id("r")), None);
    let again = state.answered_late(7, Key::Id("r"));
    assert_eq!(again, Answered::Unknown, "an answer that came in time is not late the second time");
}

#[test]
fn the_same_id_twice_at_one_provider_becomes_two() {
    let (mut state, now) = (State::default(), Instant::now());
    let one = begin(&mut state, "r", 7, now).expect("room");
    let two = begin(&mut state, "r", 7, now).expect("room");
    let other = begin(&mut state, "r", 8, now).expect("room");
    let id = |number| state.handed(number).map(|handed| handed.id);
    assert_eq!((id(one), id(other)), (Some("r".to_owned()), Some("r".to_owned())));
    assert_ne!(id(two), id(one));
}

#[test]
fn what_is_in_flight_is_bounded_for_the_node_and_for_each_who_asks() {
    let mut state = State::default();
    let mut taken = |requester: Requester| (0..99).take_while(|_| ask(&mut state, requester, 0, 0).is_ok()).count();
    let clients: Vec<usize> = (1..=3).map(|client| taken(Requester::Client(client))).collect();
    assert_eq!(clients, [3, 3, 3], "an eighth for each client");
    assert_eq!(taken(Requester::Http(0)), 12, "half for all HTTP callers");
    assert_eq!(taken(Requester::Http(1)), 0, "whoever of them it is");
    assert_eq!(taken(Requester::Node(2, 1)), 3, "the rest");
    assert_eq!(state.len(), 24);
    assert_eq!(state.abandon(Requester::Client(1)).len(), 3);
    assert_eq!(refused(ask(&mut state, Requester::Client(2), 0, 0)), "overloaded", "others keep their share");
    assert_eq!(refused(ask(&mut state, Requester::Client(1), 0, 0)), "taken");
}

#[test]
fn bytes_in_flight_are_bounded_too_and_come_back_when_requests_end() {
    let mut state = State::default();
    let [client, other] = [Requester::Client(1), Requester::Client(2)];
    let number = ask(&mut state, client, 60_000, 0).expect("one alone always fits");
    assert_eq!(refused(ask(&mut state, client, 0, 0)), "overloaded", "its share is used up");
    assert_eq!(refused(ask(&mut state, other, 5_000, 0)), "taken");
    assert_eq!(refused(ask(&mut state, other, 30_000, 0)), "overloaded");
    // The provider has it, and nobody else may get it: the payload goes before the answer comes.
    state.took(number);
    assert_eq!(state.handed(number).map(|handed| handed.payload.len()), Some(0));
    assert_eq!(refused(ask(&mut state, client, 5_000, 0)), "taken");
    assert!(state.end(number, false, Instant::now()).is_some());
    state.abandon(client);
    state.abandon(other);
    assert_eq!((state.len(), state.bytes_in_flight()), (0, 0), "nothing is counted that is not there");
}

#[test]
fn a_payload_stays_as_long_as_another_provider_may_get_it() {
    let mut state = State::default();
    let number = ask(&mut state, Requester::Client(1), 100, 1).expect("room");
    state.took(number);
    let mut flight = state.end(number, true, Instant::now()).expect("it was there");
    assert_eq!(flight.payload.len(), 100);
    flight.lost = 1;
    let number = state.begin(flight, assignment(8), &config()).map_err(|not_begun| not_begun.0).expect("room");
    state.took(number);
    assert_eq!(state.handed(number).map(|handed| handed.payload.len()), Some(0), "that was the last one");
}

#[test]
fn requests_end_with_whoever_asked_and_a_late_answer_is_known_as_such() {
    let mut state = State::default();
    let ids: Vec<u64> = (0..3).map(|_| ask(&mut state, Requester::Client(1), 10, 3).expect("room")).collect();
    let other = ask(&mut state, Requester::Client(2), 10, 0).expect("room");
    let (abandon, mut abandoned) = tokio::sync::oneshot::channel();
    state.note_abandon(ids[0], abandon);
    assert_eq!(state.abandon(Requester::Client(1)).len(), 3);
    assert_eq!(abandoned.try_recv(), Ok(()), "the node of the provider is told");
    assert_eq!((state.len(), state.in_flight(assignment(7).provider), state.held(7)), (1, 1, 1));
    assert_eq!(state.answered_late(7, Key::Number(ids[1])), Answered::CallerGone);
    assert_eq!(state.find(7, Key::Number(other)), Some(other), "those of others go on");
    assert!(state.overdue(Instant::now() + Duration::from_secs(99)).0 == [other], "no deadline stays");
    let view = state.view(assignment(7).provider);
    assert_eq!((view.answered, view.failed), (0, 0), "that says nothing of the provider");
    let (abandon, mut abandoned) = tokio::sync::oneshot::channel();
    state.note_abandon(ids[2], abandon);
    assert_eq!(abandoned.try_recv(), Ok(()), "too late to take note of it: told at once");
    assert!(state.abandon(Requester::Client(1)).is_empty(), "once");
}

#[test]
fn one_of_another_node_is_abandoned_by_its_number_there() {
    let mut state = State::default();
    let [one, two] = [1, 2].map(|number| ask(&mut state, Requester::Node(2, number), 0, 0).expect("room"));
    let elsewhere = ask(&mut state, Requester::Node(3, 1), 0, 0).expect("room");
    assert_eq!(state.abandon(Requester::Node(2, 1)).len(), 1);
    assert_eq!(state.answered_late(7, Key::Number(one)), Answered::CallerGone);
    assert_eq!([two, elsewhere].map(|number| state.find(7, Key::Number(number))), [Some(two), Some(elsewhere)]);
}

#[test]
fn what_is_overdue_ends_and_a_late_answer_is_known_as_such() {
    let (mut state, now) = (State::default(), Instant::now());
    let soon = begin(&mut state, "a", 7, now + Duration::from_secs(1)).expect("room");
    let later = begin(&mut state, "b", 7, now + Duration::from_secs(2)).expect("room");
    assert_eq!(state.overdue(now), (vec![], Some(now + Duration::from_secs(1))));
    let (over, next) = state.overdue(now + Duration::from_secs(1));
    assert_eq!((over, next), (vec![soon], Some(now + Duration::from_secs(2))));
    assert!(state.end(soon, true, now).is_some());
    assert_eq!(state.answered_late(7, Key::Id("a")), Answered::Late);
    assert_eq!(state.answered_late(8, Key::Id("a")), Answered::Unknown);
    assert_eq!(state.held(7), 1);
    assert_eq!(state.load(assignment(7).provider), (1, later));
    let view = state.view(assignment(7).provider);
    assert_eq!((view.in_flight, view.failed, view.breakers.len()), (1, 1, 1));
}

#[test]
fn a_lost_provider_gives_back_all_it_had_and_a_retry_knows_where_it_was() {
    let (mut state, now) = (State::default(), Instant::now());
    let numbers = [begin(&mut state, "a", 7, now).expect("room"), begin(&mut state, "b", 7, now).expect("room")];
    let mut lost = state.leave(assignment(7).provider);
    lost.sort_unstable();
    assert_eq!(lost, numbers);
    let deadline = now + Duration::from_secs(1);
    let number =
        state.begin(flight("c", deadline, 1), assignment(7), &config()).map_err(|not_begun| not_begun.0).expect("room");
    let mut flight = state.end(number, true, now).expect("it was there");
    assert_eq!(flight.tried, [assignment(7).provider]);
    flight.lost = 1;
    assert!(flight.may_retry(now), "once");
    assert!(!flight.may_retry(deadline), "not behind its deadline");
    flight.lost = 2;
    assert!(!flight.may_retry(now), "not twice");
    assert!(flight.may_go_on(now), "who has not got it was not lost with it");
    assert!(!flight.may_go_on(deadline));
    let request = Arc::clone(&flight.request);
    let chosen = Flight::chosen(Requester::Node(2, 1), request, Payload::default(), Box::new(drop));
    assert!(!chosen.may_go_on(now), "the node of the caller chooses");
}

#[test]
fn a_provider_that_leaves_is_told_when_its_last_request_has_ended_however_it_did() {
    use tokio::sync::oneshot::error::TryRecvError;
    let (mut state, now) = (State::default(), Instant::now());
    let is_over = |told: &mut tokio::sync::oneshot::Receiver<()>| told.try_recv() == Err(TryRecvError::Closed);
    assert!(is_over(&mut state.emptied(7)), "it has none");
    let (one, two) = (begin(&mut state, "a", 7, now).expect("room"), begin(&mut state, "b", 7, now).expect("room"));
    let other = begin(&mut state, "a", 8, now).expect("room");
    let (mut told, mut others) = (state.emptied(7), state.emptied(8));
    state.end(one, false, now);
    assert!(!is_over(&mut told));
    state.end(two, true, now);
    assert!(is_over(&mut told) && !is_over(&mut others));
    state.leave(assignment(8).provider);
    state.end(other, true, now);
    assert!(is_over(&mut others));
}
