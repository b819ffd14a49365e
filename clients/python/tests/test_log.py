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
        durable = aiter(self.client.subscribe(self.subject, start="oldest", ack="manual", consumer="c"))
        self.assertEqual(await take(plain, 2), ["a", "b"])
        first = await anext(durable)
        self.assertTrue(await first.ack())
        second = await anext(durable)
        await asyncio.sleep(1)  # acknowledgements are stored together, within 50 ms
        node.kill()
        self.assertFalse(await second.ack())
        await asyncio.to_thread(node.start)
        await self.publish("c")
        self.assertEqual(await take(plain, 1), ["c"])
        left: list[Any] = []
        while len(left) < 2:
            event = await asyncio.wait_for(anext(durable), 15)
            self.assertTrue(await event.ack())
            left.append(event.payload)
        self.assertEqual((second.payload, left), ("b", ["b", "c"]))
