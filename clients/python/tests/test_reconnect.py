"""What happens when a node is killed and comes back: nodes of these tests' own, on fixed ports."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import unittest
from typing import Any
from unittest import mock

import rollbook
from rollbook import wire as module
from rollbook.wire import Frame

from .node import Node, free_port, until, ws


async def hang(payload: Any, message: Frame) -> None:
    await asyncio.sleep(60)


@unittest.skipUnless("ROLLBOOK_BIN" in os.environ, "ROLLBOOK_BIN is not set")
class ReconnectTest(unittest.IsolatedAsyncioTestCase):
    def setUp(self) -> None:
        self.port = free_port()
        self.node = Node(self.port).start()
        self.addCleanup(self.node.remove)
        quick = mock.patch.object(module, "DELAY_SECONDS_MAX", 0.5)
        quick.start()
        self.addCleanup(quick.stop)

    def client(self, name: str = "shop", **options: Any) -> rollbook.Client:
        client = rollbook.connect(ws(self.node.web), name=name, version="1", **{"timeout": 15.0, **options})
        self.addAsyncCleanup(client.close)
        return client

    async def test_a_killed_node_is_come_back_to_with_the_same_instance(self) -> None:
        methods = {"echo": lambda payload, message: payload, "hang": hang}
        users, shop = self.client("users", methods=methods, instance="blue"), self.client()
        registered: list[Frame] = []
        users.on("registered", registered.append)
        await asyncio.gather(users.ready(), shop.ready())
        await until(lambda: "users" in shop.services)
        calls = [asyncio.create_task(shop.call("users:hang")) for _ in range(3)]
        await asyncio.sleep(0.2)
        self.node.kill()
        for call in calls:
            with self.assertRaises(rollbook.RollbookError) as caught:
                await call
            self.assertEqual((caught.exception.code, caught.exception.retryable), ("connection_lost", True))
        waiting = asyncio.create_task(users.call("users:echo", "waited"))
        await asyncio.sleep(0.5)
        self.assertFalse(waiting.done())
        await asyncio.to_thread(self.node.start)
        self.assertEqual(await waiting, "waited")
        self.assertEqual([frame["instance_id"] for frame in registered], ["blue", "blue"])
        await shop.ready()
        await until(lambda: shop.services.get("users", {}).get("instances") == 1)
        self.assertEqual(await shop.call("users:echo", 1), 1)

    async def test_services_are_those_of_the_new_connection(self) -> None:
        users, shop = self.client("users", methods={"a": hang}), self.client()
        await asyncio.gather(users.ready(), shop.ready())
        services = shop.services
        await until(lambda: "users" in services)
        self.node.kill()
        await users.close()
        await asyncio.to_thread(self.node.start)
        late = self.client("late", methods={"b": hang})
        await asyncio.gather(late.ready(), shop.ready())
        await until(lambda: list(services) == ["late"])

    async def test_a_call_that_finds_no_connection_in_time_is_a_timeout(self) -> None:
        shop = self.client()
        await shop.ready()
        self.node.kill()
        await until(lambda: shop._link is None)
        began = time.monotonic()
        with self.assertRaises(rollbook.RollbookError) as caught:
            await shop.call("a:b", timeout=0.3)
        self.assertEqual((caught.exception.code, caught.exception.retryable), ("timeout", True))
        self.assertLess(time.monotonic() - began, 1)

    async def test_close_while_there_is_no_connection_is_quick(self) -> None:
        shop = self.client()
        await shop.ready()
        self.node.kill()
        await until(lambda: shop._link is None)
        waiting = asyncio.create_task(shop.call("a:b"))
        await asyncio.sleep(0.1)
        began = time.monotonic()
        await shop.close()
        self.assertLess(time.monotonic() - began, 1)
        with self.assertRaises(rollbook.RollbookError) as caught:
            await waiting
        self.assertEqual(caught.exception.code, "closed")

    async def test_the_next_url_is_taken_when_one_is_gone(self) -> None:
        other = Node().start()
        self.addCleanup(other.remove)
        nobody = f"ws://127.0.0.1:{free_port()}/ws"
        client = rollbook.connect([nobody, ws(self.node.web), ws(other.web)], name="shop", version="1")
        self.addAsyncCleanup(client.close)
        registered: list[Frame] = []
        client.on("registered", registered.append)
        await client.ready()
        self.node.kill()
        await until(lambda: len(registered) == 2)

    async def test_a_node_that_stops_in_order_is_left_and_come_back_to(self) -> None:
        methods = {"slow": lambda payload, message: asyncio.sleep(0.3, "in time")}
        users, shop = self.client("users", methods=methods), self.client()
        await asyncio.gather(users.ready(), shop.ready())
        await until(lambda: "users" in shop.services)
        call = asyncio.create_task(shop.call("users:slow"))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(self.node.kill, signal.SIGTERM)
        self.assertEqual(await call, "in time")
        await asyncio.to_thread(self.node.start)
        await asyncio.gather(users.ready(), shop.ready())
        await until(lambda: "users" in shop.services)
        self.assertEqual(await shop.call("users:slow"), "in time")
