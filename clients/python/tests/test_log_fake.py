"""Publishing and subscriptions at a bus that keeps its events in a list."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any
from unittest import mock

import rollbook
from rollbook import acknowledger, wire
from rollbook.wire import Frame

from .fake import FakeTest, Peer
from .node import until


class Log:
    """A bus with one log. Streams without ``ack`` get all at once, others ``at_once`` events at a time."""

    def __init__(self) -> None:
        self.events: list[Frame] = []
        self.subscribed: list[Frame] = []
        self.conflicts: list[Any] = []
        self.unsubscribed = self.most = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.may_ack = asyncio.Event()
        self.may_ack.set()
        self.at_once = 1
        self.acked: list[str] = []
        self.said: list[Frame] = []
        self.refuse_acks: list[Frame] = []
        self.left: list[str] = []
        self.cursors: dict[str, int] = {}
        self.refuse: list[Frame] = []
        self.peers: list[Peer] = []

    def add(self, payload: Any) -> Frame:
        index = len(self.events) + 1
        event = {"id": f"e_{index}", "index": index, "subject": "app.x", "created_at": "now", "payload": payload}
        self.events.append(event)
        return event

    async def __call__(self, peer: Peer) -> None:
        await peer.register()
        self.peers.append(peer)
        streams: dict[str, asyncio.Task[None]] = {}
        acks: asyncio.Queue[str] = asyncio.Queue()
        try:
            async for frame in peer.heard():
                identity = str(frame.get("id"))
                if frame["type"] == "publish" and self.conflicts:
                    conflict = {"code": "conflict", "message": "key was processed before", "retryable": False}
                    await peer.send("error", id=identity, data=self.conflicts.pop(0), **conflict)
                elif frame["type"] == "publish":
                    event = self.add(frame.get("payload"))
                    members = {"event_id": event["id"], "index": event["index"], "created_at": "now"}
                    await peer.send("published", id=identity, **members)
                elif frame["type"] == "subscribe":
                    self.subscribed.append(frame)
                    if self.refuse:
                        await peer.send("error", id=identity, **self.refuse.pop(0))
                        continue
                    await self.may_answer.wait()
                    await peer.send("subscribed", id=identity, consumer_id="c_1")
                    streams[identity] = asyncio.create_task(self.stream(peer, frame, acks))
                elif frame["type"] == "ack":
                    await self.may_ack.wait()
                    events = frame.get("event_ids") or [frame["event_id"]]
                    self.acked += events
                    self.said.append({name: frame[name] for name in frame if name not in ("type", "id")})
                    if self.refuse_acks:
                        await peer.send("error", id=identity, **self.refuse_acks.pop(0))
                        continue
                    which = {"count": len(events)} if "event_ids" in frame else {"event_id": events[0]}
                    await peer.send("acked", id=identity, **which)
                    for event in events:
                        acks.put_nowait(event)
                elif frame["type"] == "unsubscribe" and identity in streams:
                    streams.pop(identity).cancel()
                    self.unsubscribed += 1
                    self.left += self.acked
                    await peer.send("unsubscribed", id=identity)
        finally:
            for task in streams.values():
                task.cancel()

    async def stream(self, peer: Peer, frame: Frame, acks: asyncio.Queue[str]) -> None:
        start, name = frame.get("start", "newest"), frame.get("consumer")
        at = {"oldest": 0, "newest": len(self.events)}.get(start) if not start.startswith("e_") else int(start[2:])
        assert at is not None
        if name:
            at = self.cursors.get(name, at)
        out = 0
        while True:
            while at < len(self.events):
                await peer.send("delivery", id=frame["id"], event=self.events[at])
                out += 1
                if frame.get("ack") == "manual" and out >= self.at_once:
                    await acks.get()
                    out -= 1
                at += 1
                if name:
                    self.cursors[name] = at
                await asyncio.sleep(0)
            await asyncio.sleep(0.01)


async def take(events: Any, count: int) -> list[Any]:
    """The payloads of so many events."""
    return [(await asyncio.wait_for(events.__anext__(), 5)).payload for _ in range(count)]


class LogTest(FakeTest):
    async def asyncSetUp(self) -> None:
        self.log = Log()
        quick = mock.patch.object(wire, "DELAY_SECONDS", 0.01)
        quick.start()
        self.addCleanup(quick.stop)
        self.url = await self.bus(self.log)

    async def cut(self) -> None:
        """The connection breaks."""
        self.log.peers[-1].socket.transport.abort()
        count = len(self.log.peers)
        await until(lambda: len(self.log.peers) > count)

    async def test_publish_tells_id_and_index(self) -> None:
        client = self.client(self.url)
        self.assertEqual(await client.publish("app.x", {"n": 1}, key="k", trace_id="t"), ("e_1", 1))
        self.assertEqual(self.log.events[0]["payload"], {"n": 1})

    async def test_a_repetition_gives_the_first_one_when_the_bus_tells_it(self) -> None:
        client = self.client(self.url)
        first = await client.publish("app.x", 1, key="k")
        self.log.conflicts = [{"event_id": "e_1", "index": 1, "created_at": "now"}, None, "text"]
        again = await client.publish("app.x", 1, key="k")
        self.assertEqual((again, first.duplicate, again.duplicate), (first, False, True))
        for _ in range(2):
            with self.assertRaises(rollbook.RollbookError) as caught:
                await client.publish("app.x", 1, key="k")
            self.assertEqual((caught.exception.code, caught.exception.retryable), ("conflict", False))

    async def test_events_come_in_order_and_the_loop_ends_the_stream(self) -> None:
        client = self.client(self.url)
        for n in range(3):
            self.log.add(n)
        got = []
        async for event in client.subscribe("app.>", start="oldest"):
            got.append((event.id, event.index, event.subject, event.payload))
            self.assertTrue(await event.ack() if event.index < 0 else True)
            if len(got) == 3:
                break
        self.assertEqual(got, [(f"e_{n}", n, "app.x", n - 1) for n in (1, 2, 3)])
        await until(lambda: self.log.unsubscribed == 1)
        terms = {"type": "subscribe", "id": mock.ANY, "subject": "app.>", "start": "oldest"}
        self.assertEqual(self.log.subscribed, [terms])

    async def test_who_is_ready_misses_nothing(self) -> None:
        client = self.client(self.url)
        subscription = client.subscribe("app.>", start="newest")
        await subscription.ready()
        await client.publish("app.x", "after")
        async with contextlib.aclosing(subscription.__aiter__()) as events:
            self.assertEqual(await take(events, 1), ["after"])
        await until(lambda: self.log.unsubscribed == 1)

    async def test_it_goes_on_behind_the_last_event_it_gave(self) -> None:
        client = self.client(self.url)
        for n in range(5):
            self.log.add(n)
        events = client.subscribe("app.>", start="oldest").__aiter__()
        self.assertEqual(await take(events, 2), [0, 1])
        await self.cut()
        self.log.add(5)
        self.assertEqual(await take(events, 4), [2, 3, 4, 5])
        await self.cut()
        self.assertEqual(await take(events, 0), [])
        self.log.add(6)
        self.assertEqual(await take(events, 1), [6])
        self.assertEqual([frame["start"] for frame in self.log.subscribed][-1], "e_6")

    async def test_which_events_and_their_order_are_said_again_after_a_loss_and_where_it_began_is_not(self) -> None:
        client = self.client(self.url)
        events = client.subscribe("app.>", since="1h", headers={"tenant": "acme"}, order_by="/customer/id",
                                  ack="manual").__aiter__()
        waiting = asyncio.create_task(take(events, 1))
        await until(lambda: self.log.subscribed)
        self.log.add(1)
        await waiting
        await self.cut()
        waiting = asyncio.create_task(take(events, 1))
        await until(lambda: len(self.log.subscribed) == 2)
        self.log.add(2)
        await waiting
        same = {"type": "subscribe", "id": mock.ANY, "subject": "app.>", "headers": {"tenant": "acme"},
                "order_by": "/customer/id", "ack": "manual"}
        self.assertEqual(self.log.subscribed, [{**same, "since": "1h"}, {**same, "start": "e_1"}])

    async def test_a_consumer_goes_on_where_the_bus_says(self) -> None:
        client = self.client(self.url)
        for n in range(3):
            self.log.add(n)
        subscription = client.subscribe("app.>", start="oldest", consumer="c", ack="manual",
                                        redelivery="1m30s", redelivery_count=2)
        events = subscription.__aiter__()
        first = await events.__anext__()
        self.assertTrue(await first.ack())
        second = await events.__anext__()
        await self.cut()
        self.assertFalse(await second.ack())
        again = await asyncio.wait_for(events.__anext__(), 5)
        self.assertEqual((second.id, again.id), ("e_2", "e_2"))
        self.assertTrue(await again.ack())
        self.assertEqual(await take(events, 1), [2])
        self.assertEqual(self.log.acked, ["e_1", "e_2"])
        self.assertEqual({frame["start"] for frame in self.log.subscribed}, {"oldest"})
        self.assertEqual(self.log.subscribed[0]["redelivery"], "1m30s")
        self.assertEqual(self.log.subscribed[0]["redelivery_count"], 2)

    async def test_acknowledgements_do_not_wait_for_each_answer_and_go_together(self) -> None:
        client = self.client(self.url)
        self.log.at_once = 50
        for n in range(50):
            self.log.add(n)
        self.log.may_ack.clear()
        subscription = client.subscribe("app.>", start="oldest", consumer="c", ack="manual")
        events = subscription.__aiter__()
        for n in range(50):
            event = await asyncio.wait_for(events.__anext__(), 5)
            self.assertTrue(await asyncio.wait_for(event.ack(), 5))
        self.assertEqual(self.log.acked, [])
        self.log.may_ack.set()
        self.assertTrue(await asyncio.wait_for(subscription.flush(), 5))
        self.assertEqual(self.log.acked, [f"e_{n + 1}" for n in range(50)])
        self.assertLess(len(self.log.said), 25, "many in one frame")

    async def test_whoever_says_too_much_waits_for_answers(self) -> None:
        client = self.client(self.url)
        self.log.at_once = 20
        for n in range(10):
            self.log.add(n)
        self.log.may_ack.clear()
        subscription = client.subscribe("app.>", start="oldest", consumer="c", ack="manual")
        events = subscription.__aiter__()
        with mock.patch.object(acknowledger, "UNSAID_MAX", 5):
            for _ in range(5):
                await asyncio.wait_for((await events.__anext__()).ack(), 5)
            saying = asyncio.create_task((await events.__anext__()).ack())
            await asyncio.sleep(0.05)
            self.assertFalse(saying.done())
            self.log.may_ack.set()
            self.assertTrue(await asyncio.wait_for(saying, 5))
        self.assertTrue(await subscription.flush())
        self.assertEqual(len(self.log.acked), 6)

    async def test_the_words_for_what_becomes_of_an_event(self) -> None:
        client = self.client(self.url)
        self.log.at_once = 10
        for n in range(5):
            self.log.add(n)
        subscription = client.subscribe("app.>", start="oldest", group="g", ack="manual")
        events = subscription.__aiter__()
        first, second, third, fourth, fifth = [await events.__anext__() for _ in range(5)]
        for said in (first.nack("30s"), second.nack(1500), third.reject("no image"), fourth.in_progress(),
                     fourth.ack(), fifth.nack()):
            self.assertTrue(await said)
            self.assertTrue(await subscription.flush())
        self.assertEqual(self.log.said, [
            {"event_id": "e_1", "action": "nack", "delay": "30s"}, {"event_id": "e_2", "action": "nack", "delay": 1500},
            {"event_id": "e_3", "action": "reject", "reason": "no image"},
            {"event_id": "e_4", "action": "in_progress"}, {"event_id": "e_4"}, {"event_id": "e_5", "action": "nack"}])
        plain = await client.subscribe("app.>", start="oldest").__aiter__().__anext__()
        self.assertTrue(await plain.ack(), "it means nothing")
        with self.assertRaises(ValueError):
            await plain.nack()

    async def test_what_was_acknowledged_is_answered_before_the_stream_or_the_client_ends(self) -> None:
        for whole in (False, True):
            client = self.client(self.url)
            self.log.at_once = 10
            ids = [self.log.add(n)["id"] for n in range(3)][-3:]
            subscription = client.subscribe("app.>", start="oldest", consumer=f"c{whole}", ack="manual")
            events = subscription.__aiter__()
            for _ in range(len(self.log.events)):
                await (await asyncio.wait_for(events.__anext__(), 5)).ack()
            self.log.may_ack.clear()
            last = self.log.add("last")["id"]
            await (await asyncio.wait_for(events.__anext__(), 5)).ack()
            closing = asyncio.create_task(client.close() if whole else subscription.close())
            await asyncio.sleep(0.05)
            self.assertFalse(closing.done())
            self.assertNotIn(last, self.log.acked)
            self.log.may_ack.set()
            if whole:
                await until(lambda: last in self.log.acked)
                self.log.peers[-1].socket.transport.abort()
            await asyncio.wait_for(closing, 5)
            # When the stream ended, all of them had come.
            await until(lambda: {*ids, last} <= {*(self.log.acked if whole else self.log.left)})

    async def test_a_refused_acknowledgement_ends_the_loop_with_its_reason(self) -> None:
        client = self.client(self.url)
        self.log.at_once = 10
        self.log.add(1)
        self.log.refuse_acks = [{"code": "internal", "message": "no", "retryable": True}]
        events = client.subscribe("app.>", start="oldest", consumer="c", ack="manual").__aiter__()
        self.assertTrue(await (await events.__anext__()).ack())
        with self.assertLogs("rollbook", "WARNING"), self.assertRaises(rollbook.RollbookError) as caught:
            await asyncio.wait_for(events.__anext__(), 5)
        self.assertEqual(caught.exception.code, "internal")

    async def test_copies_of_events_that_wait_or_were_acknowledged_are_not_given_twice(self) -> None:
        client = self.client(self.url)
        self.log.at_once = 10
        for n in range(3):
            self.log.add(n)
        subscription = client.subscribe("app.>", start="oldest", consumer="c", ack="manual")
        events = subscription.__aiter__()
        first = await events.__anext__()

        async def again() -> None:
            """All of them come once more."""
            stream = self.log.subscribed[-1]["id"]
            for event in self.log.events[:3]:
                await self.log.peers[-1].send("delivery", id=stream, event=event)

        await again()
        await until(lambda: len(subscription._waiting) == 3)
        await first.ack()
        got = [first.payload]
        for event in [await asyncio.wait_for(events.__anext__(), 5) for _ in range(2)]:
            got.append(event.payload)
        self.assertEqual(got, [0, 1, 2])
        await again()
        self.log.add("new")
        self.assertEqual(await take(events, 4), [0, 1, 2, "new"], "what the bus sends when it has answered counts")

    async def test_events_that_wait_when_the_connection_is_lost_are_left_to_the_next_one(self) -> None:
        client = self.client(self.url)
        self.log.at_once = 10
        for n in range(5):
            self.log.add(n)
        subscription = client.subscribe("app.>", start="oldest", consumer="c", ack="manual")
        events = subscription.__aiter__()
        first = await events.__anext__()
        self.assertTrue(await first.ack())
        self.assertTrue(await subscription.flush())
        self.log.cursors["c"] = 1
        await until(lambda: len(subscription._waiting) == 4)
        await self.cut()
        self.assertEqual(await take(events, 4), [1, 2, 3, 4], "each once")
        self.log.add("new")
        self.assertEqual(await take(events, 1), ["new"])

    async def test_a_slow_loop_holds_the_bus_back_and_calls_inside_it_work(self) -> None:
        client = self.client(self.url)
        for n in range(300):
            self.log.add(n)
        subscription = client.subscribe("app.>", start="oldest", queue_max=10)
        got, most = [], 0
        async for event in subscription:
            got.append(event.payload)
            most = max(most, subscription._queue.qsize())
            if len(got) % 50 == 0:
                await client.publish("app.y", f"beside {len(got)}")
                await asyncio.sleep(0.02)
            if len(got) == 306:
                break
        self.assertEqual(got[:300], list(range(300)))
        self.assertEqual(got[300:], [f"beside {n}" for n in range(50, 301, 50)])
        self.assertGreater(self.log.unsubscribed, 1)
        self.assertLess(most, 150)

    async def test_what_ends_it_is_told(self) -> None:
        client = self.client(self.url)
        events = client.subscribe("app.>").__aiter__()
        waiting = asyncio.create_task(take(events, 1))
        await until(lambda: self.log.subscribed)
        await self.log.peers[0].send("unsubscribed", id=self.log.subscribed[0]["id"], reason="deleted")
        with self.assertRaises(rollbook.RollbookError) as caught:
            await waiting
        self.assertEqual((caught.exception.code, caught.exception.reason), ("unsubscribed", "deleted"))

    async def test_an_end_that_passes_is_not_the_end(self) -> None:
        ends: list[Frame] = [
            {"code": "node_stopping", "reason": "node stopping"}, {"code": "ended", "reason": "the stream ended"},
            {"code": "failed", "retryable": True, "reason": "a block cannot be read"},
            {"code": "something_new", "retryable": True, "reason": "who knows"},
        ]
        client = self.client(self.url)
        for n in range(3):
            self.log.add(n)
        plain = client.subscribe("app.>", start="oldest").__aiter__()
        member = client.subscribe("app.>", start="oldest", group="g", ack="manual").__aiter__()
        self.assertEqual(await take(plain, 3), [0, 1, 2])
        self.assertEqual(await take(member, 1), [0])
        for end in ends:
            for frame in self.log.subscribed[-2:]:
                await self.log.peers[0].send("unsubscribed", id=frame["id"], **end)
            waiting = [asyncio.create_task(take(events, 1)) for events in (plain, member)]
            count = len(self.log.subscribed)
            await until(lambda: len(self.log.subscribed) == count + 2)
            self.log.add(end["code"])
            self.assertEqual(await asyncio.gather(*waiting), [[end["code"]], [0]])
        self.assertEqual(len(self.log.peers), 1, "the connection stays")

    async def test_attempts_that_are_in_vain_come_later_and_later(self) -> None:
        bounds: list[float] = []

        def uniform(low: float, high: float) -> float:
            bounds.append(high)
            return 0.0

        client = self.client(self.url)
        await client.ready()
        self.log.refuse = [{"code": "unavailable", "message": "no leader", "retryable": True}] * 4
        with mock.patch("random.uniform", uniform):
            events = client.subscribe("app.>", start="oldest").__aiter__()
            self.log.add("first")
            self.assertEqual(await take(events, 1), ["first"])
            self.log.refuse = [{"code": "unavailable", "message": "no leader", "retryable": True}]
            end = {"code": "ended", "reason": "the stream ended"}
            await self.log.peers[0].send("unsubscribed", id=self.log.subscribed[-1]["id"], **end)
            self.log.add("second")
            self.assertEqual(await take(events, 1), ["second"])
        self.assertEqual(bounds, [0.01, 0.02, 0.04, 0.08, 0.01, 0.02], "an event begins the count anew")

    async def test_ends_that_stay(self) -> None:
        ends: list[Frame] = [
            {"code": "taken_over", "retryable": False, "reason": "another connection is this consumer now"},
            {"code": "deleted", "reason": "the consumer was deleted"},
            {"code": "ended", "retryable": False, "reason": "as the node says"},
        ]
        for end in ends:
            client = self.client(self.url)
            events = client.subscribe("app.>", consumer="c").__aiter__()
            waiting = asyncio.create_task(take(events, 1))
            count = len(self.log.subscribed)
            await until(lambda: len(self.log.subscribed) == count + 1)
            await self.log.peers[-1].send("unsubscribed", id=self.log.subscribed[-1]["id"], **end)
            with self.assertRaises(rollbook.RollbookError) as caught:
                await waiting
            told = (caught.exception.code, caught.exception.reason, caught.exception.data)
            self.assertEqual(told, ("unsubscribed", end["reason"], {"code": end["code"]}))

    async def test_a_refusal_is_raised_and_one_that_may_pass_is_tried_again(self) -> None:
        client = self.client(self.url)
        self.log.refuse = [{"code": "unavailable", "message": "no majority", "retryable": True}]
        subscription = client.subscribe("app.>")
        await asyncio.wait_for(subscription.ready(), 5)
        self.assertEqual(len(self.log.subscribed), 2)
        self.log.refuse = [{"code": "bad_message", "message": "subject", "retryable": False}] * 2
        for refused in (client.subscribe("app.").ready(), take(client.subscribe("app.").__aiter__(), 1)):
            with self.assertRaises(rollbook.RollbookError) as caught:
                await refused
            self.assertEqual(caught.exception.code, "bad_message")

    async def test_the_end_of_the_client_is_the_end_of_the_loop(self) -> None:
        client = self.client(self.url)
        self.log.add("last")
        got = []

        async def follow() -> None:
            async for event in client.subscribe("app.>", start="oldest"):
                got.append(event.payload)

        following = asyncio.create_task(follow())
        await until(lambda: got)
        await self._close(client)
        await asyncio.wait_for(following, 5)
        self.assertEqual(got, ["last"])

    async def test_the_end_of_a_subscription_wakes_its_loop(self) -> None:
        client = self.client(self.url)
        subscription = client.subscribe("app.>")
        following = asyncio.create_task(take(subscription.__aiter__(), 1))
        await until(lambda: self.log.subscribed)
        await subscription.close()
        with self.assertRaises(StopAsyncIteration):
            await asyncio.wait_for(following, 5)
        await until(lambda: self.log.unsubscribed == 1)

    async def test_a_subscription_that_is_closed_before_its_node_has_answered_is_not_left_open_there(self) -> None:
        self.log.may_answer.clear()
        subscription = self.client(self.url).subscribe("app.>")
        following = asyncio.create_task(take(subscription.__aiter__(), 1))
        await until(lambda: self.log.subscribed)
        await subscription.close()
        self.log.may_answer.set()
        with self.assertRaises(StopAsyncIteration):
            await asyncio.wait_for(following, 5)
        await until(lambda: self.log.unsubscribed == 1)

    async def test_a_publish_that_is_cut_off_says_so(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.register()
            await peer.hear("publish")
            peer.socket.transport.abort()

        client = self.client(await self.bus(script))
        with self.assertRaises(rollbook.RollbookError) as caught:
            await client.publish("app.x", 1)
        self.assertEqual((caught.exception.code, caught.exception.retryable), ("connection_lost", True))
