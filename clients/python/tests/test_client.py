"""Services and consumers at a real node."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
import unittest
import uuid
from typing import Any, Literal

import rollbook
from rollbook.wire import Frame

from .node import http, until, web, ws

EVENTS: list[Literal["connect", "online", "disconnect", "offline"]] = ["connect", "online", "disconnect", "offline"]
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Coded(Exception):
    code = "E7"


def fail(payload: Any, message: Frame) -> None:
    raise {"coded": Coded("no"), "plain": ValueError("bad value"), "full": rollbook.RollbookError(
        "busy", "later", True, {"n": 1}), "odd": rollbook.RollbookError("odd", "x", data={1, 2})}[payload]


class ClientTest(unittest.IsolatedAsyncioTestCase):
    def setUp(self) -> None:
        self.url = ws(web())
        self.service = f"users-{uuid.uuid4().hex[:8]}"
        logging.getLogger("rollbook").setLevel(logging.CRITICAL)

    async def asyncSetUp(self) -> None:
        self.stack = contextlib.AsyncExitStack()
        self.addAsyncCleanup(self.stack.aclose)

    async def join(self, **options: Any) -> rollbook.Client:
        """A client that is registered and closed at the end."""
        client = rollbook.connect(self.url, **{"name": "shop", "version": "1.0.0", "timeout": 10.0, **options})
        await self.stack.enter_async_context(client)
        await client.ready()
        return client

    async def serve(self, **options: Any) -> rollbook.Client:
        async def slow(payload: Any, message: Frame) -> str:
            await asyncio.sleep(payload)
            return "late"

        methods = {
            "echo": lambda payload, message: payload, "who": lambda payload, message: message, "fail": fail,
            "slow": slow, "odd": lambda payload, message: {1, 2}, "nan": lambda payload, message: float("nan"),
            "huge": lambda payload, message: "x" * (2 << 20)}
        return await self.join(**{"name": self.service, "methods": methods, **options})

    async def refusal(self, call: Any) -> rollbook.RollbookError:
        with self.assertRaises(rollbook.RollbookError) as caught:
            await call
        return caught.exception

    async def test_a_call_is_answered_with_what_the_handler_returns(self) -> None:
        await self.serve()
        shop = await self.join()
        payloads: list[Any] = [{"n": 1.5, "text": "Ñandú \u2028", "list": [None, True]}, None, [], 2**70, "", False]
        for payload in payloads:
            self.assertEqual(await shop.call(f"{self.service}:echo", payload), payload)
        message = await shop.call(f"{self.service}:who", 1, key="k", traceparent=TRACE)
        self.assertEqual((message["consumer"], message["payload"], message["traceparent"]), ("shop", 1, TRACE))

    async def test_calls_overlap_and_a_service_may_call_itself(self) -> None:
        service = await self.serve()
        shop = await self.join()
        began = time.monotonic()
        slow = [shop.call(f"{self.service}:slow", 0.3) for _ in range(20)]
        quick = [service.call(f"{self.service}:echo", n) for n in range(100)]
        self.assertEqual(await asyncio.gather(*quick), list(range(100)))
        self.assertEqual(set(await asyncio.gather(*slow)), {"late"})
        self.assertLess(time.monotonic() - began, 3)

    async def test_a_handler_that_fails_is_an_error_of_its_caller(self) -> None:
        await self.serve()
        shop = await self.join()
        wanted = {"coded": ("E7", "no", False, None), "plain": ("service_error", "bad value", False, None),
                  "full": ("busy", "later", True, {"n": 1}), "odd": ("odd", "x", False, None)}
        for payload, told in wanted.items():
            error = await self.refusal(shop.call(f"{self.service}:fail", payload))
            self.assertEqual((error.code, error.message, error.retryable, error.data), told)
        for method in ("odd", "nan"):
            self.assertEqual((await self.refusal(shop.call(f"{self.service}:{method}"))).code, "service_error")
        self.assertEqual((await self.refusal(shop.call(f"{self.service}:huge"))).code, "too_large")
        self.assertEqual(await shop.call(f"{self.service}:echo", 1), 1)

    async def test_what_cannot_be_sent_is_refused_here(self) -> None:
        await self.serve()
        shop = await self.join()
        self.assertEqual((await self.refusal(shop.call(f"{self.service}:echo", "x" * (2 << 20)))).code, "too_large")
        for payload, error in (({1, 2}, TypeError), (float("nan"), ValueError)):
            with self.assertRaises(error):
                await shop.call(f"{self.service}:echo", payload)
        self.assertEqual((await self.refusal(shop.call("nonsense"))).code, "bad_message")
        self.assertEqual(await shop.call(f"{self.service}:echo", 1), 1)
        with self.assertRaises(TypeError):
            rollbook.connect(self.url, name="a", version="1", metadata={"a": {1}})

    async def test_a_message_that_nobody_takes_is_unhandled(self) -> None:
        watcher = await self.serve()
        shop = await self.join()
        told: list[Frame] = []
        watcher.on("unhandled", told.append)
        own: list[Frame] = []
        shop.on("unhandled", own.append)
        for destination, reason in ((f"{self.service}x:echo", "no_service"), (f"{self.service}:void", "no_method")):
            error = await self.refusal(shop.call(destination))
            self.assertEqual((error.code, error.reason, error.retryable), ("unhandled", reason, False))
            self.assertIn(destination, str(error))
        await until(lambda: len(told) == 2)
        self.assertEqual((told[0]["reason"], told[0]["consumer"]), ("no_service", "shop"))
        await shop.send(f"{self.service}:void", 1)
        await until(lambda: own)
        self.assertEqual((own[0]["destination"], own[0]["reason"]), (f"{self.service}:void", "no_method"))

    async def test_a_timeout_is_of_the_bus_or_of_the_client_and_told_once(self) -> None:
        await self.serve()
        shop = await self.join()
        began = time.monotonic()
        error = await self.refusal(shop.call(f"{self.service}:slow", 5, timeout=0.2))
        self.assertEqual((error.code, error.retryable), ("timeout", False))
        self.assertLess(time.monotonic() - began, 2)
        self.assertEqual((await self.refusal(shop.call(f"{self.service}:echo", timeout=0))).code, "timeout")
        self.assertEqual(await shop.call(f"{self.service}:echo", 1, timeout=3600), 1)

    async def test_one_way_messages_arrive_and_are_not_answered(self) -> None:
        got: asyncio.Queue[Any] = asyncio.Queue()

        def log(payload: Any, message: Frame) -> str:
            got.put_nowait((payload, message.get("responder")))
            if payload == "bad":
                raise ValueError(payload)
            return "nobody wants this"

        await self.serve(methods={"log": log, "echo": lambda payload, message: payload})
        shop = await self.join()
        for payload in ("a", "bad", None):
            await shop.send(f"{self.service}:log", payload)
            self.assertEqual(await asyncio.wait_for(got.get(), 5), (payload, None))
        self.assertEqual(await shop.call(f"{self.service}:echo", 1), 1)

    async def test_a_broadcast_reaches_services_and_neither_consumers_nor_its_sender(self) -> None:
        one, two, shop = await self.serve(), await self.serve(), await self.join()
        told: dict[str, list[Frame]] = {"one": [], "two": [], "shop": []}
        for name, client in (("one", one), ("two", two), ("shop", shop)):
            client.on("broadcast", functools.partial(lambda name, frame: told[name].append(frame["payload"]), name))
        await shop.broadcast({"at": "22:00"})
        await until(lambda: told["one"] and told["two"])
        await one.broadcast(2)
        await until(lambda: len(told["two"]) == 2)
        self.assertEqual(told, {"one": [{"at": "22:00"}], "two": [{"at": "22:00"}, 2], "shop": []})

    async def test_services_follow_who_comes_and_goes(self) -> None:
        watcher = await self.join()
        seen: list[str] = []

        async def note(frame: Frame) -> None:
            if frame["service"]["name"] == self.service:
                seen.append(frame["event"].removeprefix("service-"))

        for event in EVENTS:
            watcher.on(event, note)
        one = await self.serve(methods={"a": print, "b": print}, version="1")
        two = await self.serve(methods={"b": print, "c": print}, version="2")
        await until(lambda: len(seen) == 3)
        late = await self.join()
        for client in (watcher, late):
            service = client.services[self.service]
            self.assertEqual((service["version"], service["instances"]), ("2", 2))
            self.assertEqual(set(service["methods"]), {"a", "b", "c"})
        await two.close()
        await until(lambda: len(seen) == 4)
        service = watcher.services[self.service]
        self.assertEqual((service["version"], service["instances"], service["methods"]), ("1", 1, ["a", "b"]))
        await one.close()
        await until(lambda: len(seen) == 6)
        self.assertEqual(seen, ["connect", "online", "connect", "disconnect", "disconnect", "offline"])
        await until(lambda: self.service not in watcher.services and self.service not in late.services)

    async def test_the_service_of_this_client_is_among_them(self) -> None:
        service = await self.serve(instance="blue", metadata={"zone": "eu"})
        self.assertEqual(service.instance_id, "blue")
        await until(lambda: self.service in service.services)
        shown = await http("GET", f"{web()}/api/services/{self.service}")
        self.assertEqual(shown["instances"][0]["metadata"], {"zone": "eu"})

    async def test_a_command_is_done_when_its_callbacks_are(self) -> None:
        service = await self.serve()
        address = f"{web()}/api/services/{self.service}/ping"
        self.assertEqual((await http("POST", address))["items"][0]["result"], "acknowledged")
        commands: list[str] = []

        async def obey(frame: Frame) -> None:
            await asyncio.sleep(0.05)
            commands.append(frame["command"])

        service.on("command", obey)
        self.assertEqual((await http("POST", address))["items"][0]["result"], "acknowledged")
        self.assertEqual(commands, ["ping"])

    async def test_close_answers_what_it_was_asked_and_ends_with_1000(self) -> None:
        service, shop = await self.serve(), await self.join()
        closed: list[Frame] = []
        service.on("closed", closed.append)
        call = asyncio.create_task(shop.call(f"{self.service}:slow", 0.3))
        await asyncio.sleep(0.1)
        await service.close()
        self.assertEqual(await call, "late")
        await until(lambda: closed)
        self.assertEqual((closed[0]["code"], service.closed.is_set()), (1000, True))
        await service.close()
        for call_after in (service.call("a:b"), service.ready(), service.broadcast(1), service.publish("a.b", 1)):
            self.assertEqual((await self.refusal(call_after)).code, "closed")

    async def test_who_is_closed_before_it_began_stays_closed(self) -> None:
        client = rollbook.connect(self.url, name="shop", version="1")
        await client.close()
        self.assertTrue(client.closed.is_set())
        self.assertEqual((await self.refusal(client.ready())).code, "closed")

    async def test_another_connection_of_the_instance_ends_it_for_good(self) -> None:
        one = await self.serve(instance="blue")
        closed: list[Frame] = []
        one.on("closed", closed.append)
        two = await self.serve(instance="blue")
        await asyncio.wait_for(one.closed.wait(), 10)
        await until(lambda: closed)
        self.assertEqual(closed[0]["code"], 4409)
        self.assertEqual((await self.refusal(one.call("a:b"))).code, "closed")
        self.assertEqual(await two.call(f"{self.service}:echo", 1), 1)

    async def test_the_operator_removes_it_for_good(self) -> None:
        service = await self.serve()
        await http("DELETE", f"{web()}/api/services/{self.service}")
        await asyncio.wait_for(service.closed.wait(), 10)
        self.assertIn("4410", (await self.refusal(service.ready())).message)

    async def test_a_registration_that_cannot_be_is_told(self) -> None:
        client = rollbook.connect(self.url, name="a:b", version="1")
        error = await self.refusal(client.ready())
        self.assertEqual(error.code, "closed")
        self.assertIn("4400", error.message)
        await client.close()

    async def test_an_instance_that_is_lost_in_the_middle_is_told(self) -> None:
        service, shop = await self.serve(), await self.join()
        call = asyncio.create_task(shop.call(f"{self.service}:slow", 5))
        await asyncio.sleep(0.1)
        assert service._link and service._link._socket
        service._link._socket.transport.abort()
        error = await self.refusal(call)
        self.assertEqual((error.code, error.retryable), ("instance_lost", True))

    async def test_a_callback_that_fails_disturbs_nobody(self) -> None:
        watcher = await self.join()
        seen: list[str] = []
        watcher.on("online", lambda frame: 1 // 0)
        watcher.on("online", lambda frame: seen.append(frame["service"]["name"]))
        await self.serve()
        await until(lambda: self.service in seen)
