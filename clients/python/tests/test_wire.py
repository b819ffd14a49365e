"""What the wire may bring that a well-behaved bus does not, and what the client makes of it."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from unittest import mock

from websockets.utils import accept_key

import rollbook
from rollbook import wire
from rollbook.wire import Frame

from .fake import FakeTest, Peer
from .node import until

NONSENSE = [
    "", "nonsense", "[1]", "7", "null", '"text"', "{", "{}", "[" * 100_000, '{"type": 7}', '{"type": ["message"]}',
    '{"type": "shout"}', '{"type": "registered"}', '{"type": "registered", "index": 5, "services": 7}',
    '{"type": "registered", "index": 5, "services": [{}]}', '{"type": "event"}', '{"type": "event", "event": 7}',
    '{"type": "event", "event": "service-online", "index": "x", "instance_id": "a", "service": {"name": "ghost"}}',
    '{"type": "event", "event": "service-gone", "index": 9, "instance_id": "a", "service": {"name": "ghost"}}',
    '{"type": "event", "event": "service-online", "index": 9, "service": []}', '{"type": "message"}',
    '{"type": "command"}', '{"type": "delivery"}', '{"type": "delivery", "id": "x", "event": {}}',
    '{"type": "delivery", "id": ["x"]}', '{"type": "unsubscribed", "id": "x"}', '{"type": "response"}',
    '{"type": "response", "id": "x"}', '{"type": "response", "id": {}}', '{"type": "error"}', '{"type": "unhandled"}',
    '{"type": "error", "code": "bad_json", "message": "no"}', '{"type": "connect", "max_frame": "x"}',
]


class WireTest(FakeTest):
    async def test_nonsense_means_nothing(self) -> None:
        async def script(peer: Peer) -> None:
            for text in NONSENSE:
                await peer.socket.send(text)
            await peer.register()
            for text in NONSENSE:
                await peer.socket.send(text)
            await peer.socket.send(b"\x00\xff")
            while frame := await peer.hear("message"):
                await peer.send("response", id="x" + frame["id"], payload="of somebody else")
                await peer.send("broadcast", id=frame["id"], payload="no answer")
                await peer.send("error", id=frame["id"])
                await peer.send("response", id=frame["id"], payload=[frame["payload"]])
                await peer.send("response", id=frame["id"], payload="twice")

        client = self.client(await self.bus(script))
        await client.ready()
        for n in range(3):
            self.assertEqual(await client.call("a:b", n), [n])
        self.assertEqual(client.services, {})

    async def test_a_url_that_is_none_is_refused_at_once(self) -> None:
        wrong = ["", "127.0.0.1:7440", "localhost", "ftp://host:7440", "ws://", "http:///ws", "ws://h:port/ws", [], [""]]
        for url in wrong:
            with self.assertRaises(ValueError, msg=str(url)) as caught:
                rollbook.connect(url, name="shop", version="1")
            self.assertNotIn("7440", str(caught.exception).replace("HOST:PORT", ""), "the URL may hold a secret")

    async def test_the_url_of_the_listener_will_do(self) -> None:
        paths: list[str] = []

        async def script(peer: Peer) -> None:
            assert peer.socket.request
            paths.append(peer.socket.request.path)
            await peer.register()
            await peer.hear("never")

        plain = (await self.bus(script)).removesuffix("/ws").replace("ws:", "http:")
        for url in (plain, plain + "/", plain + "/ws", plain + "/other?a=b"):
            await self.client(url).ready()
        self.assertEqual(paths, ["/ws", "/ws", "/ws", "/other?a=b"])

    async def test_a_command_is_done_only_when_somebody_has_done_it(self) -> None:
        done: list[str] = []

        async def script(peer: Peer) -> None:
            await peer.register()
            async for frame in peer.heard():
                if frame["type"] == "broadcast":
                    for word in ("restart", "ping"):
                        await peer.send("command", id=f"{word} {frame['payload']}", command=word, data={})
                elif frame["type"] == "done":
                    done.append(frame["id"] + ("" if frame.get("handled", True) else " by nobody"))

        client = self.client(await self.bus(script))
        await client.broadcast(1)
        await until(lambda: len(done) >= 2)
        client.on("command", lambda frame: None)
        await client.broadcast(2)
        await until(lambda: len(done) >= 4)
        self.assertEqual(sorted(done), ["ping 1", "ping 2", "restart 1 by nobody", "restart 2"])

    async def test_close_codes_that_are_final(self) -> None:
        for code in (4400, 4401, 4403, 4409, 4410):

            async def script(peer: Peer, code: int = code) -> None:
                await peer.register()
                await peer.send("disconnect", code=code, reason="why")
                await peer.socket.close(code, "why")

            client = self.client(await self.bus(script))
            closed: list[Frame] = []
            client.on("closed", closed.append)
            client._start()
            await asyncio.wait_for(client.closed.wait(), 5)
            await until(lambda: closed)
            self.assertEqual(closed, [{"code": code, "reason": "why"}])
            with self.assertRaises(rollbook.RollbookError) as caught:
                await client.send("a:b")
            what = "unauthorized" if code == 4401 else "closed"
            self.assertEqual((caught.exception.code, caught.exception.retryable), (what, False))

    async def test_close_codes_that_are_not(self) -> None:
        codes = [1000, 1001, 1009, 1011, 1013, 4408, 4429]
        left = list(codes)

        async def script(peer: Peer) -> None:
            await peer.register()
            if left:
                await peer.socket.close(left.pop())
            await peer.hear("never")

        with mock.patch.object(wire, "DELAY_SECONDS", 0.01):
            client = self.client(await self.bus(script))
            registered: list[Frame] = []
            client.on("registered", registered.append)
            await client.ready()
            await until(lambda: len(registered) == len(codes) + 1)

    async def test_delays_grow_and_have_an_end(self) -> None:
        most: list[float] = []

        async def script(peer: Peer) -> None:
            await peer.socket.close(1013)

        def uniform(low: float, high: float) -> float:
            most.append(high)
            return 0.0

        with mock.patch("random.uniform", uniform):
            client = self.client(await self.bus(script))
            with self.assertRaises(rollbook.RollbookError) as caught:
                await client.ready(timeout=1)
            await until(lambda: len(most) >= 7)
        self.assertEqual((caught.exception.code, caught.exception.retryable), ("timeout", True))
        self.assertIn("1013", caught.exception.message)
        self.assertEqual(most[:7], [0.5, 1, 2, 4, 8, 15, 15])

    async def test_a_bus_that_gives_no_sign_of_life_is_left(self) -> None:
        connections = 0

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            key = next(line.split()[1] for line in head.splitlines() if line.lower().startswith("sec-websocket-key"))
            writer.write(f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                         f"Sec-WebSocket-Accept: {accept_key(key)}\r\n\r\n".encode())
            text = json.dumps({"type": "registered", "name": "shop", "index": 1, "services": []}).encode()
            writer.write(bytes([0x81, len(text)]) + text)
            await reader.read()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        self.addCleanup(server.close)
        with mock.patch.object(wire, "SILENCE_SECONDS", 0.6):
            client = self.client(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/ws")
            await client.ready()
            began = time.monotonic()
            call = asyncio.create_task(client.call("a:b"))
            with self.assertRaises(rollbook.RollbookError) as caught:
                await call
            self.assertEqual(caught.exception.code, "connection_lost")
            self.assertLess(time.monotonic() - began, 3)
            await until(lambda: connections >= 2)

    async def test_a_bus_that_does_not_register_it_is_left(self) -> None:
        connections = 0

        async def script(peer: Peer) -> None:
            nonlocal connections
            connections += 1
            await peer.hear("never")

        with mock.patch.object(wire, "SILENCE_SECONDS", 0.3):
            client = self.client(await self.bus(script))
            with self.assertRaises(rollbook.RollbookError):
                await client.ready(timeout=2)
        self.assertGreaterEqual(connections, 2)

    async def test_the_registration_and_the_token_are_as_they_should_be(self) -> None:
        heard: list[object] = []

        async def script(peer: Peer) -> None:
            assert peer.socket.request
            heard.append(peer.socket.request.headers["Sec-WebSocket-Protocol"])
            heard.append(await peer.register())
            await peer.socket.close(1001)

        with self.assertLogs(level=logging.DEBUG) as logs:
            url = (await self.bus(script)) + "?token=hidden"
            options = {"methods": {"a": print}, "instance": "blue", "metadata": {"zone": "eu"}, "token": "hidden\n"}
            client = self.client(url, **options)
            await client.ready()
            await until(lambda: len(heard) >= 4)
            with self.assertRaises(rollbook.RollbookError):
                await self.client("ws://127.0.0.1:1/ws?token=hidden", token="hidden").ready(timeout=0.3)
        self.assertEqual(heard[0], "rollbook.v1, bearer.hidden")
        document = {"type": "register", "name": "shop", "version": "1", "methods": ["a"], "instance": "blue"}
        self.assertEqual(heard[1], {**document, "metadata": {"zone": "eu"}})
        ours = [line for record, line in zip(logs.records, logs.output) if record.name.startswith("rollbook")]
        self.assertTrue(ours)
        self.assertNotIn("hidden", "".join(ours) + repr(client) + str(vars(client).get("_why")))

    async def test_calls_of_a_node_that_leaves_wait_for_the_next(self) -> None:
        answered: list[str] = []
        leaves = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.register()
            if not answered:
                first = await peer.hear("message")
                await peer.send("disconnect", code=1001, reason="node stopping")
                leaves.set()
                await asyncio.sleep(0.2)
                await peer.send("response", id=first["id"], payload="first")
                answered.append("first")
                await peer.socket.close(1001)
            else:
                frame = await peer.hear("message")
                await peer.send("response", id=frame["id"], payload="second")
                await peer.hear("never")

        client = self.client(await self.bus(script))
        first = asyncio.create_task(client.call("a:b", 1))
        await leaves.wait()
        await until(lambda: client._link is None)
        self.assertEqual(await client.call("a:b", 2), "second")
        self.assertEqual(await first, "first")

    async def test_a_response_and_its_id(self) -> None:
        told: list[Frame] = []

        async def script(peer: Peer) -> None:
            await peer.register()
            for method in ("echo", "void"):
                await peer.send("message", id="m#2", destination=f"shop:{method}", responder="cb", payload=[1])
            await peer.send("message", id="n", destination="shop:echo", payload=2)
            async for frame in peer.heard():
                told.append(frame)

        logging.getLogger("rollbook").setLevel(logging.CRITICAL)
        self.addCleanup(logging.getLogger("rollbook").setLevel, logging.NOTSET)
        self.client(await self.bus(script), methods={"echo": lambda payload, message: payload})._start()
        await until(lambda: len(told) == 2)
        self.assertIn({"type": "response", "id": "m#2", "payload": [1]}, told)
        error = next(frame for frame in told if frame["type"] == "error")
        self.assertEqual((error["id"], error["code"], error["retryable"]), ("m#2", "service_error", False))
