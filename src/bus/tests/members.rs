//! Members of durable consumers come, go, and cannot be reached.

use super::*;

#[actix_web::test]
async fn ten_thousand_members_come_and_go_and_nobody_is_left() {
    const ROUNDS: u64 = 10_000;
    const AT_ONCE: u64 = 50;
    let (one, two) = pair().await;
    one.listen();
    let owner = one.bus.node().owner();
    // Whoever is first says whether clients acknowledge.
    let mut first = one.follow(policy(5000, 3)).await;
    for batch in 0..ROUNDS / AT_ONCE {
        let rounds = (batch * AT_ONCE..(batch + 1) * AT_ONCE).map(|number| {
            let at = if number % 2 == 0 { &two } else { &one };
            async move { (number % 5 != 0, at.join(owner, number, number % 5 != 0).await) }
        });
        let joined = join_all(rounds).await;
        for (fits, joined) in &joined {
            assert_eq!(*fits, joined.is_ok(), "{:?}", joined.as_ref().err());
        }
        if batch % 10 == 9 {
            // All go at once, as on a node without a majority.
            one.registry.addr().send(EndStreams).await.expect("a registry");
            while event(&mut first).await.is_some_and(|piece| !matches!(piece, Piece::End(..))) {}
            first = one.follow(policy(5000, 3)).await;
        }
    }
    until("members", || one.alive(Kind::RemoteMember) == 0).await;
    assert_eq!(one.members().await, 1, "the first");
    // Now with their streams.
    for _ in 0..10 {
        let streams = join_all((0..10).map(|number| {
            let at = if number % 2 == 0 { &two } else { &one };
            at.follow(policy(5000, 3))
        }));
        drop(streams.await);
    }
    until("streams", || one.alive(Kind::RemoteMember) == 0 && two.alive(Kind::Subscription) == 0).await;
    drop(first);
    one.deserted().await;
    two.deserted().await;
    tokio::join!(one.end(), two.end());
}

/// Each join waits until its node has applied what the other one has. Meanwhile entries are applied, and everybody
/// who asks how far the node is must get an answer.
#[actix_web::test]
async fn members_of_another_node_join_while_events_are_applied() {
    let (one, two) = pair().await;
    one.listen();
    let owner = one.bus.node().owner();
    let first = one.follow(policy(5000, 3)).await;
    let joins = async {
        for batch in 0..100 {
            let joined = join_all((batch * 20..(batch + 1) * 20).map(|number| two.join(owner, number, true))).await;
            assert!(joined.iter().all(Result::is_ok), "{:?}", joined.iter().find_map(|joined| joined.as_ref().err()));
        }
    };
    let publishes = async {
        loop {
            one.publish(1).await;
        }
    };
    tokio::select! {
        () = joins => {}
        () = publishes => {}
    }
    until("members", || one.alive(Kind::RemoteMember) == 0).await;
    drop(first);
    one.deserted().await;
    tokio::join!(one.end(), two.end());
}

#[actix_web::test]
async fn a_consumer_that_was_let_go_gives_nothing_up_and_moves_no_floor() {
    let one = alone().await;
    let mut body = one.follow(policy(50, 1)).await;
    one.publish(1).await;
    assert!(matches!(event(&mut body).await, Some(Piece::Event(_))));
    one.registry.addr().send(EndStreams).await.expect("a registry");
    one.publish(5).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(one.bus.metrics().dead_letters.get(), 0, "nobody is there who could have acknowledged");
    assert_eq!(one.bus.consumer("app", GROUP).expect("the consumer").ack_floor, 0);
    drop(body);
    one.deserted().await;
    one.end().await;
}

#[actix_web::test]
async fn a_consumer_that_is_reset_or_deleted_ends_also_when_nobody_says_so() {
    let one = alone().await;
    let (namespace, name) = ("app".to_owned(), GROUP.to_owned());
    let mut body = one.follow(policy(50, 1)).await;
    let reset = ConsumerSet { namespace: namespace.clone(), name: name.clone(), ack_floor: Some(0), paused: None };
    one.bus.proposer().command(Command::ConsumerSet(reset)).await.expect("reset");
    one.publish(2).await;
    // What was sent before comes first.
    while !matches!(event(&mut body).await, Some(Piece::End(..))) {}
    assert_eq!(event(&mut body).await, None, "it may come again");
    one.deserted().await;

    let mut body = one.follow(policy(5000, 3)).await;
    let delete = ConsumerDelete { namespace, name };
    one.bus.proposer().command(Command::ConsumerDelete(delete)).await.expect("deleted");
    while event(&mut body).await.is_some() {}
    one.deserted().await;
    one.end().await;
}

/// A member that takes events and does not answer for them.
struct Deaf {
    answer: WriteResult,
    closed: mpsc::Sender<EndReason>,
}

impl Actor for Deaf {
    type Context = Context<Self>;
}

impl Belongs for Deaf {
    const KIND: Kind = Kind::Session;
}

impl Handler<Deliver> for Deaf {
    type Result = MessageResult<Deliver>;

    fn handle(&mut self, _: Deliver, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.answer)
    }
}

impl Handler<StreamCommand> for Deaf {
    type Result = Result<Acknowledged, Refusal>;

    fn handle(&mut self, command: StreamCommand, _: &mut Self::Context) -> Self::Result {
        if let StreamCommand::Close(reason) = command {
            self.closed.try_send(reason).expect("a test that listens");
        }
        Ok(Acknowledged::default())
    }
}

#[actix_web::test]
async fn a_member_that_cannot_be_reached_loses_its_place_and_the_others_go_on() {
    for manual in [true, false] {
        let one = alone().await;
        let mut body = one.follow(manual.then(DeliveryPolicy::default)).await;
        let (closed, mut closes) = mpsc::channel(8);
        let deaf = Owned::start(&one.bus.metrics().actors, Deaf { answer: WriteResult::Unreachable, closed });
        // Its number is lower: it is served first.
        let (deliver, commands) = (deaf.addr().clone().recipient(), deaf.addr().clone().recipient());
        one.registry.addr().send(join(1, manual, deliver, commands)).await.expect("a registry").expect("accepted");
        // This one is for the deaf one, and lost with ack=none.
        one.publish(1).await;
        assert_eq!(tokio::time::timeout(SOON, closes.recv()).await.expect("in time"), Some(EndReason::Draining));
        one.publish(1).await;
        assert!(matches!(event(&mut body).await, Some(Piece::Event(_))));
        assert_eq!(one.bus.metrics().members_lost.get(), 1);
        assert_eq!(one.members().await, 1, "the one that reads");
        one.end().await;
    }
}

#[actix_web::test]
async fn a_member_of_a_node_that_gives_no_answer_loses_its_place() {
    let (one, mut two) = pair().await;
    one.listen();
    let mut first = one.follow(None).await;
    let elsewhere = two.follow(None).await;
    assert_eq!(one.alive(Kind::RemoteMember), 1);
    two.relay = None;
    until("the relay has stopped", || two.alive(Kind::Relay) == 0).await;
    // More than one member gets in one go.
    one.publish(200).await;
    until("it has lost its place", || one.alive(Kind::RemoteMember) == 0).await;
    assert_eq!(one.bus.metrics().members_lost.get(), 1);
    assert!(matches!(event(&mut first).await, Some(Piece::Event(_))));
    drop((first, elsewhere));
    one.deserted().await;
    tokio::join!(one.end(), two.end());
}

#[actix_web::test]
async fn a_member_whose_first_try_was_refused_gets_what_comes() {
    let (one, two) = pair().await;
    drop(one.follow(policy(5000, 3)).await);
    // The first node does not answer yet: the second one tries again and again.
    let trying = async {
        let body = two.follow(policy(5000, 3)).await;
        assert_eq!(one.alive(Kind::RemoteMember), 1);
        body
    };
    let listening = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(one.alive(Kind::RemoteMember), 0);
        one.listen();
    };
    let (mut body, ()) = tokio::join!(trying, listening);
    two.publish(1).await;
    assert!(matches!(event(&mut body).await, Some(Piece::Event(_))), "an empty stream that ends");
    // It hears that its consumer is gone.
    let forget = EndConsumers { namespace: "app".to_owned(), consumer: None, reason: EndReason::Deleted };
    must_tell(one.registry.addr(), forget);
    while event(&mut body).await.is_some() {}
    one.deserted().await;
    two.deserted().await;
    tokio::join!(one.end(), two.end());
}
