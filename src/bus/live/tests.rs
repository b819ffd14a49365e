//! Who gets a message, and what two nodes know of each other.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::exchange::{Peer, Received, encode};
use super::filter::{LiveFilter, LiveSubject};
use super::message::{Delivered, LiveMessage, LiveSink};
use super::peers::PeerQueue;
use super::route::Wakes;
use super::subjects::{LiveSubjects, LiveSubscription, OwnRoutes};

/// A client that notes what it gets.
#[derive(Debug, Default)]
struct Client {
    number: u64,
    got: Mutex<Vec<(u64, String)>>,
}

impl LiveSink for Client {
    fn deliver(&self, subscription: u64, message: &LiveMessage) -> Delivered {
        self.got.lock().unwrap().push((subscription, message.subject.to_string()));
        Delivered::Queued
    }

    fn wake(&self) {}

    fn client(&self) -> u64 {
        self.number
    }
}

fn client(number: u64) -> Arc<Client> {
    Arc::new(Client { number, ..Client::default() })
}

fn subscribe(
    subjects: &LiveSubjects,
    client: &Arc<Client>,
    number: u64,
    filter: &str,
    group: &str,
) -> LiveSubscription {
    let filter = LiveFilter::parse(filter.into()).unwrap();
    let sink: Arc<dyn LiveSink> = Arc::<Client>::clone(client);
    subjects.subscribe(filter, group, (sink, number), false).unwrap()
}

fn publish(subjects: &LiveSubjects, own: &mut OwnRoutes, subject: &str, except: Option<u64>) -> bool {
    let message = LiveMessage { subject: subject.into(), ..LiveMessage::default() };
    let subject = LiveSubject::parse(subject.into()).unwrap();
    subjects.publish(&subject, &message, (own, except), &mut Wakes::default())
}

fn take(client: &Client) -> Vec<(u64, String)> {
    std::mem::take(&mut client.got.lock().unwrap())
}

#[test]
fn every_subscription_that_matches_gets_a_message_until_it_ends() {
    let (subjects, ann, mut own) = (LiveSubjects::new(1), client(1), OwnRoutes::default());
    let _one = subscribe(&subjects, &ann, 1, "a.*", "");
    let two = subscribe(&subjects, &ann, 2, "a.>", "");
    assert!(publish(&subjects, &mut own, "a.b", None) && !publish(&subjects, &mut own, "a", None));
    assert_eq!(take(&ann).len(), 2);
    drop(two);
    assert!(publish(&subjects, &mut own, "a.b", None));
    assert_eq!(take(&ann), [(1, "a.b".to_owned())]);
    assert!(!publish(&subjects, &mut own, "a.b", Some(1)), "not to the publisher itself");
}

#[test]
fn routes_stay_while_the_interest_in_other_first_tokens_changes() {
    let (subjects, ann) = (LiveSubjects::new(1), client(1));
    let _orders = subscribe(&subjects, &ann, 1, "orders.*", "");
    let subject = LiveSubject::parse("orders.1".into()).unwrap();
    let route = || subjects.route(&subject);
    let first = route();
    let other = subscribe(&subjects, &ann, 2, "_INBOX.x.*", "");
    drop(other);
    assert!(Arc::ptr_eq(&first, &route()), "nobody looked the subscriptions up again");
    for filter in ["orders.>", "*.1", ">"] {
        let before = route();
        let more = subscribe(&subjects, &ann, 3, filter, "");
        assert_eq!(route().plain.len(), 2, "{filter}");
        drop(more);
        assert!(!Arc::ptr_eq(&before, &route()) && route().plain.len() == 1, "{filter}");
    }
}

#[test]
fn members_of_a_group_take_turns_also_when_the_interest_changes_between() {
    let (subjects, mut own) = (LiveSubjects::new(1), OwnRoutes::default());
    let members: Vec<_> = (0..3).map(client).collect();
    let _all: Vec<_> = members.iter().map(|member| subscribe(&subjects, member, 1, "w", "q")).collect();
    let other = client(9);
    for number in 0..300 {
        publish(&subjects, &mut own, "w", None);
        if number % 2 == 0 {
            drop(subscribe(&subjects, &other, number, "x", ""));
        }
    }
    let counts: Vec<usize> = members.iter().map(|member| take(member).len()).collect();
    assert_eq!(counts.iter().sum::<usize>(), 300);
    assert!(counts.iter().all(|count| (50..=150).contains(count)), "{counts:?}");
}

#[test]
fn a_filter_that_begins_with_a_wildcard_does_not_see_reserved_subjects() {
    let (subjects, ann, mut own) = (LiveSubjects::new(1), client(1), OwnRoutes::default());
    let _all = [subscribe(&subjects, &ann, 1, ">", ""), subscribe(&subjects, &ann, 2, "*.b", "")];
    assert!(!publish(&subjects, &mut own, "_INBOX.b", None) && publish(&subjects, &mut own, "a.b", None));
    let _own = subscribe(&subjects, &ann, 3, "_INBOX.>", "");
    assert!(publish(&subjects, &mut own, "_INBOX.b", None));
    assert_eq!(take(&ann).last(), Some(&(3, "_INBOX.b".to_owned())));
}

/// Moves what waits for the other node there, as far as `lost` lets it through.
fn exchange(
    from: &LiveSubjects,
    queue: &PeerQueue,
    (to, peer): (&LiveSubjects, &mut Peer),
    mut lost: impl FnMut() -> bool,
) {
    for batch in encode(from, queue.take(1)) {
        if !lost() && peer.receive(to, 1, batch.slice(1..)) == Received::OutOfStep {
            queue.forget();
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Subscribe(u8),
    Unsubscribe(u8),
    Message(u8),
    Deliver,
    Lose,
    /// The first message of what is sent is lost.
    LoseFirst,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..24_u8).prop_map(Step::Subscribe),
        4 => (0..24_u8).prop_map(Step::Unsubscribe),
        3 => any::<u8>().prop_map(Step::Message),
        2 => Just(Step::Deliver),
        1 => Just(Step::Lose),
        1 => Just(Step::LoseFirst),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #[test]
    fn two_nodes_agree_on_the_interest_whatever_is_lost_or_finds_no_room(steps in prop::collection::vec(step(), 0..120)) {
        let (near, mut far, ann) = (LiveSubjects::new(1), LiveSubjects::new(1), client(1));
        let (queue, mut peer) = (near.peers().open(2), Peer::default());
        let mut held: Vec<Option<LiveSubscription>> = (0..24).map(|_| None).collect();
        for step in steps {
            match step {
                Step::Subscribe(at) => {
                    let at = usize::from(at);
                    held[at] = Some(subscribe(&near, &ann, 1, &format!("s.{at}.*"), if at % 3 == 0 { "q" } else { "" }));
                }
                Step::Unsubscribe(at) => held[usize::from(at)] = None,
                Step::Message(bytes) => {
                    let payload = vec![b'x'; usize::from(bytes)].into();
                    near.peers().send(2, true, &[], &LiveMessage { subject: "m".into(), payload, ..LiveMessage::default() });
                }
                Step::Deliver => exchange(&near, &queue, (&far, &mut peer), || false),
                Step::Lose => exchange(&near, &queue, (&far, &mut peer), || true),
                Step::LoseFirst => {
                    let mut first = true;
                    exchange(&near, &queue, (&far, &mut peer), || std::mem::take(&mut first));
                }
                Step::Restart => (far, peer) = (LiveSubjects::new(2), Peer::default()),
            }
        }
        // An empty batch shows what was missed, and the whole follows.
        for _ in 0..40 {
            exchange(&near, &queue, (&far, &mut peer), || false);
        }
        let (wanted, known): (HashSet<_>, HashSet<_>) =
            (near.own_interest().into_iter().collect(), far.remote_interest(1).into_iter().collect());
        prop_assert_eq!(wanted, known);
    }
}
