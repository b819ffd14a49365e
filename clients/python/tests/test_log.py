"""Publishing and subscriptions at a real node. Skipped at a node that knows no ``publish``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import unittest
import uuid
from typing import Any

import rollbook

from .node import Node, free_port, until, web, ws
from .test_log_fake import take


class RealLogTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        self.stack = contextlib.AsyncExitStack()
        self.addAsyncCleanup(self.stack.aclose)
        self.subject = f"app.py.{uuid.uuid4().hex[:8]}"
        self.client = await self.join(ws(web()))

    async def join(self, url: str) -> rollbook.Client:
        """A consumer at a node that knows ``publish``."""
        client = rollbook.connect(url, name="shop", version="1", timeout=15.0)
        await self.stack.enter_async_context(client)
        try:
            await client.publish(f"{self.subject}.probe", 1, timeout=3.0)
        except rollbook.RollbookError as error:
            if error.code == "bad_message" and error.message.startswith("type: ") or error.code == "timeout":
                raise unittest.SkipTest("this node knows no publish") from None
            raise
        return client

    async def publish(self, *payloads: Any) -> list[tuple[str, int]]:
        return [await self.client.publish(self.subject, payload) for payload in payloads]

    async def test_an_event_is_published_and_delivered(self) -> None:
        payload = {"n": 1.5, "text": "Ñandú", "list": [None, True]}
        event_id, index = await self.client.publish(self.subject, payload, trace_id="t")
        event = await anext(aiter(self.client.subscribe(self.subject, start="oldest")))
        self.assertEqual((event.id, event.index, event.payload), (event_id, index, payload))
        self.assertEqual(event.data["trace_id"], "t")
        self.assertTrue(event.created_at.endswith("Z"))

    async def test_headers_come_with_their_event(self) -> None:
        await self.client.publish(self.subject, 1, headers={"Tenant": "acme", "tag": ("new", "vip")})
        await self.client.publish(self.subject, 2)
        events = aiter(self.client.subscribe(self.subject, start="oldest"))
        first, second = await anext(events), await anext(events)
        self.assertEqual((first.headers, second.headers), ({"Tenant": ["acme"], "tag": ["new", "vip"]}, {}))

    async def test_a_key_is_stored_once(self) -> None:
        first = await self.client.publish(self.subject, 1, key="k")
        again = await self.client.publish(self.subject, 2, key="k")
        self.assertEqual((again, first.duplicate, again.duplicate), (first, False, True))
        await self.publish(3)
        self.assertEqual(await take(aiter(self.client.subscribe(self.subject, start="oldest")), 2), [1, 3])

    async def test_what_cannot_be_published_or_subscribed_is_told(self) -> None:
        for subject in ("", "roll.x", "app.*", "_dead_.x"):
            with self.assertRaises(rollbook.RollbookError):
                await self.client.publish(subject, 1)
        for subject, start in (("", None), (">", None), ("app.>", "e_nothing")):
            with self.assertRaises(rollbook.RollbookError):
                await asyncio.wait_for(take(aiter(self.client.subscribe(subject, start=start)), 1), 10)

    async def test_who_is_ready_misses_nothing_and_starts_are_kept(self) -> None:
        (first, _), _ = await self.publish("a", "b")
        newest = self.client.subscribe(self.subject, start="newest")
        await asyncio.wait_for(newest.ready(), 10)
        await self.publish("c")
        self.assertEqual(await take(aiter(newest), 1), ["c"])
        self.assertEqual(await take(aiter(self.client.subscribe(self.subject, start="oldest")), 3), ["a", "b", "c"])
        self.assertEqual(await take(aiter(self.client.subscribe(self.subject, start=first)), 2), ["b", "c"])

    async def test_what_is_not_acknowledged_comes_again(self) -> None:
        await self.publish("a", "b")
        subscription = self.client.subscribe(self.subject, start="oldest", ack="manual", redelivery="300ms",
                                             max_in_flight=1)
        async with contextlib.aclosing(aiter(subscription)) as events:
            first, again = await anext(events), await asyncio.wait_for(anext(events), 10)
            self.assertEqual((first.payload, again.id), ("a", first.id))
            self.assertTrue(await again.ack())
            second = await asyncio.wait_for(anext(events), 10)
            self.assertEqual(second.payload, "b")
            self.assertTrue(await second.ack())

    async def test_a_consumer_keeps_its_place(self) -> None:
        await self.publish("a", "b", "c")
        name = f"c{uuid.uuid4().hex[:8]}"
        for wanted in ("a", "b", "c"):
            subscription = self.client.subscribe(self.subject, start="oldest", ack="manual", consumer=name)
            async with contextlib.aclosing(aiter(subscription)) as events:
                event = await asyncio.wait_for(anext(events), 10)
                self.assertEqual(event.payload, wanted)
                self.assertTrue(await event.ack())

    async def test_many_events_are_acknowledged_and_none_of_them_comes_again(self) -> None:
        await asyncio.gather(*(self.client.publish(self.subject, n) for n in range(500)))
        name = f"c{uuid.uuid4().hex[:8]}"
        got: list[int] = []
        subscription = self.client.subscribe(self.subject, start="oldest", ack="manual", consumer=name)
        async with contextlib.aclosing(aiter(subscription)) as events:
            while len(got) < 300:
                event = await asyncio.wait_for(anext(events), 10)
                got.append(event.index)
                self.assertTrue(await event.ack())
        async with contextlib.aclosing(aiter(self.client.subscribe(
                self.subject, ack="manual", consumer=name))) as events:
            while len(got) < 500:
                event = await asyncio.wait_for(anext(events), 10)
                got.append(event.index)
                await event.ack()
        self.assertEqual(got, sorted(set(got)))

    async def test_what_was_acknowledged_when_a_client_is_closed_does_not_come_again(self) -> None:
        await asyncio.gather(*(self.client.publish(self.subject, n) for n in range(100)))
        name = f"c{uuid.uuid4().hex[:8]}"
        other = await self.join(ws(web()))
        events = aiter(other.subscribe(self.subject, start="oldest", ack="manual", consumer=name))
        for _ in range(60):
            await (await anext(events)).ack()
        await other.close()
        rest = aiter(self.client.subscribe(self.subject, ack="manual", consumer=name))
        self.assertEqual((await asyncio.wait_for(anext(rest), 10)).payload, 60)

    async def test_events_come_again_later_stay_as_long_as_they_are_worked_on_or_become_dead_letters(self) -> None:
        await self.publish("again", "never", "long")
        name = f"c{uuid.uuid4().hex[:8]}"
        subscription = self.client.subscribe(self.subject, start="oldest", ack="manual", consumer=name,
                                             redelivery="400ms")
        got: list[Any] = []
        began = asyncio.get_running_loop().time()
        async with contextlib.aclosing(aiter(subscription)) as events:
            while len(got) < 4:
                event = await asyncio.wait_for(anext(events), 10)
                got.append(event.payload)
                if event.payload == "never":
                    await event.reject("this is no image")
                elif event.payload == "again" and len(got) == 1:
                    await event.nack("1s")
                elif event.payload == "long":
                    for _ in range(5):
                        await asyncio.sleep(0.15)
                        await event.in_progress()
                    await event.ack()
                else:
                    await event.ack()
            self.assertTrue(await subscription.flush())
            self.assertGreater(asyncio.get_running_loop().time() - began, 0.99, "not before its delay")
            with self.assertRaises(asyncio.TimeoutError):
                await asyncio.wait_for(anext(events), 0.8)
        self.assertEqual(got, ["again", "never", "long", "again"])
        letters = aiter(self.client.subscribe(f"_dead_.{self.subject}", start="oldest"))
        letter = (await asyncio.wait_for(anext(letters), 10)).payload
        self.assertEqual((letter["reason"], letter["event"]["payload"]), ("this is no image", "never"))

    async def test_what_is_refused_is_raised(self) -> None:
        await self.publish("a")
        subscription = self.client.subscribe(self.subject, start="oldest", ack="manual", redelivery="30s")
        event = await anext(aiter(subscription))
        self.assertTrue(await event.nack("soon"))
        with self.assertLogs("rollbook", "WARNING"), self.assertRaises(rollbook.RollbookError) as caught:
            await subscription.flush()
        self.assertEqual(caught.exception.code, "bad_message")
        self.assertTrue(await event.ack(), "it has been raised")
        self.assertTrue(await subscription.flush())

    async def test_a_group_shares_its_events(self) -> None:
        name = f"g{uuid.uuid4().hex[:8]}"
        got: dict[int, list[Any]] = {0: [], 1: []}

        async def follow(member: int) -> None:
            async for event in self.client.subscribe(self.subject, start="oldest", ack="manual", group=name):
                got[member].append(event.payload)
                await asyncio.sleep(0.02)
                await event.ack()

        members = [asyncio.create_task(follow(member)) for member in got]
        await self.publish(*range(20))
        await until(lambda: len(got[0]) + len(got[1]) >= 20)
        for member in members:
            member.cancel()
        self.assertEqual(sorted(got[0] + got[1]), list(range(20)))
        self.assertTrue(got[0] and got[1])

    async def test_a_slow_loop_gets_everything_and_may_call_meanwhile(self) -> None:
        for batch in range(20):
            await asyncio.gather(*(self.client.publish(self.subject, batch * 100 + n) for n in range(100)))
        got = []
        async for event in self.client.subscribe(self.subject, start="oldest", queue_max=50):
            got.append(event.index)
            if len(got) % 200 == 0:
                await self.client.publish(f"{self.subject}.other", 1)
                await asyncio.sleep(0.05)
            if len(got) == 2000:
                break
        self.assertEqual(got, sorted(set(got)))

    @unittest.skipUnless("ROLLBOOK_BIN" in os.environ, "ROLLBOOK_BIN is not set")
    async def test_a_stream_goes_on_when_its_node_was_killed(self) -> None:
        node = Node(free_port()).start()
        self.addCleanup(node.remove)
        self.client = await self.join(ws(node.web))
        await self.publish("a", "b")
        plain = aiter(self.client.subscribe(self.subject, start="oldest"))
        following = self.client.subscribe(self.subject, start="oldest", ack="manual", consumer="c")
        durable = aiter(following)
        self.assertEqual(await take(plain, 2), ["a", "b"])
        first = await anext(durable)
        self.assertTrue(await first.ack())
        second = await anext(durable)
        await asyncio.sleep(1)  # acknowledgements are stored together, within 50 ms
        node.kill()
        await second.ack()
        self.assertFalse(await following.flush())
        await asyncio.to_thread(node.start)
        await self.publish("c")
        self.assertEqual(await take(plain, 1), ["c"])
        left: list[Any] = []
        while len(left) < 2:
            event = await asyncio.wait_for(anext(durable), 15)
            self.assertTrue(await event.ack())
            left.append(event.payload)
        self.assertEqual((second.payload, left), ("b", ["b", "c"]))
