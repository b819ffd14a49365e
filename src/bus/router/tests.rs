//! What the router remembers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rollbook_core::node::Owner;
use rollbook_core::service::Connection;

use super::flight::{Flight, Place};
use super::state::State;
use super::terms::{Answered, Config, Key};
use crate::bus::call::{Body, CallError, Caller, Request, Responder};

fn config() -> Config {
    Config {
        timeout: Duration::from_secs(1),
        timeout_max: Duration::from_secs(9),
        in_flight_max: 3,
        in_flight_per_instance: 2,
        strategies: super::choice::Strategies::default(),
    }
}

fn place(serial: u64) -> Place {
    Place { provider: Connection { owner: Owner { node: 1, incarnation: 1 }, serial }, local: true }
}

fn flight(id: &str, deadline: Instant, retries: u32) -> Flight {
    let request = Request {
        id: id.to_owned(),
        capability: "work".to_owned(),
        action: String::new(),
        payload: Body::default(),
        from: Caller::default(),
        deadline,
        retries,
        key: String::new(),
        responder: Responder::Caller,
        traceparent: None,
    };
    Flight::new(Arc::new(request), Box::new(drop))
}

fn begin(state: &mut State, id: &str, serial: u64, deadline: Instant) -> Result<u64, CallError> {
    state.begin(flight(id, deadline, 0), place(serial), &config()).map_err(|(error, _)| error)
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
    let id = |number| state.handed(number).map(|(_, id, ..)| id);
    assert_eq!((id(one), id(other)), (Some("r".to_owned()), Some("r".to_owned())));
    assert_ne!(id(two), id(one));
    assert_eq!(begin(&mut state, "s", 9, now), Err(CallError::Overloaded("too many requests in flight".to_owned())));
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
    assert_eq!(state.load(place(7).provider), (1, later));
    let view = state.view(place(7).provider);
    assert_eq!((view.in_flight, view.failed, view.breakers.len()), (1, 1, 1));
}

#[test]
fn a_lost_provider_gives_back_all_it_had_and_a_retry_knows_where_it_was() {
    let (mut state, now) = (State::default(), Instant::now());
    let numbers = [begin(&mut state, "a", 7, now).expect("room"), begin(&mut state, "b", 7, now).expect("room")];
    let mut lost = state.leave(place(7).provider);
    lost.sort_unstable();
    assert_eq!(lost, numbers);
    let deadline = now + Duration::from_secs(1);
    let number = state.begin(flight("c", deadline, 1), place(7), &config()).map_err(|(error, _)| error).expect("room");
    let mut flight = state.end(number, true, now).expect("it was there");
    assert_eq!(flight.tried, [place(7).provider]);
    flight.lost = 1;
    assert!(flight.may_retry(now), "once");
    assert!(!flight.may_retry(deadline), "not behind its deadline");
    flight.lost = 2;
    assert!(!flight.may_retry(now), "not twice");
    assert!(flight.may_go_on(now), "who has not got it was not lost with it");
    assert!(!flight.may_go_on(deadline));
    let chosen = Flight::chosen(Arc::clone(&flight.request), Box::new(drop));
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
    state.leave(place(8).provider);
    state.end(other, true, now);
    assert!(is_over(&mut others));
}
