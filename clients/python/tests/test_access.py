"""Who the client is, and over what it says so: tokens, certificates, and what follows when they are refused."""

from __future__ import annotations

import asyncio
import logging
import shutil
import ssl
import subprocess
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import rollbook
from rollbook import wire

from .fake import FakeTest, Peer
from .node import until


def offered(peer: Peer) -> str:
    assert peer.socket.request
    return peer.socket.request.headers["Sec-WebSocket-Protocol"].replace(" ", "")


class TokenTest(FakeTest):
    def setUp(self) -> None:
        logging.getLogger("rollbook").setLevel(logging.CRITICAL)
        self.addCleanup(logging.getLogger("rollbook").setLevel, logging.NOTSET)
        quick = mock.patch.object(wire, "DELAY_SECONDS", 0.01)
        quick.start()
        self.addCleanup(quick.stop)
        self.asked = 0

    async def next_token(self) -> str:
        self.asked += 1
        return f"rb1_k{self.asked}_x"

    async def test_a_function_is_asked_at_each_connect(self) -> None:
        heard: list[str] = []

        async def script(peer: Peer) -> None:
            heard.append(offered(peer))
            await peer.register()
            await peer.socket.close(1001)

        self.client(await self.bus(script), token=self.next_token)._start()
        await until(lambda: len(heard) >= 3)
        self.assertEqual(heard[:3], [f"rollbook.v1,bearer.rb1_k{at}_x" for at in (1, 2, 3)])

    async def test_a_function_that_fails_or_gives_no_token_is_asked_again(self) -> None:
        heard: list[str] = []
        answers: list[str | Exception | None] = [ValueError("s3cr3t"), "s3cr3t no", None]

        def token() -> str | None:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        async def script(peer: Peer) -> None:
            heard.append(offered(peer))
            await peer.register()
            await peer.hear("never")

        logging.getLogger("rollbook").setLevel(logging.DEBUG)
        with self.assertLogs("rollbook", level=logging.DEBUG) as logs:
            client = self.client(await self.bus(script), token=token)
            await client.ready()
        self.assertEqual(heard, ["rollbook.v1"], "None is no token")
        self.assertEqual(answers, [])
        self.assertNotIn("s3cr3t", "".join(logs.output) + client._why)

    async def test_a_refused_token_is_the_end_and_all_that_waits_is_told(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.socket.close(4401)

        for url in (await self.bus(script), await self.bus(script, status=401)):
            client = self.client(url, token="old")
            with self.assertRaises(rollbook.RollbookError) as caught:
                await client.call("a:b")
            self.assertEqual((caught.exception.code, caught.exception.retryable), ("unauthorized", False))
            self.assertTrue(client.closed.is_set())

    async def test_a_function_is_asked_once_more_and_not_a_second_time_in_a_row(self) -> None:
        registered = 0

        async def script(peer: Peer) -> None:
            nonlocal registered
            if self.asked == 2:
                registered += 1
                await peer.register()
            await peer.socket.close(4401)

        # The first is refused, the second is registered and then lost, so that the third and fourth are asked for.
        client = self.client(await self.bus(script), token=self.next_token)
        client._start()
        await asyncio.wait_for(client.closed.wait(), 5)
        self.assertEqual((registered, self.asked), (1, 3))
        client = self.client(await self.bus(script, status=401), token=self.next_token)
        client._start()
        await asyncio.wait_for(client.closed.wait(), 5)
        self.assertEqual(self.asked, 5)

    async def test_what_is_forbidden_fails_and_the_connection_stays(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.register()
            frame = await peer.hear("publish")
            await peer.send("error", id=frame["id"], code="forbidden", message="no right", retryable=False)
            frame = await peer.hear("message")
            await peer.send("response", id=frame["id"], payload=1)

        client = self.client(await self.bus(script))
        with self.assertRaises(rollbook.RollbookError) as caught:
            await client.publish("orders.new", 1)
        self.assertEqual(caught.exception.code, "forbidden")
        self.assertEqual(await client.call("a:b"), 1)

    async def test_a_right_that_is_lost_ends_its_loop(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.register()
            frame = await peer.hear("subscribe")
            await peer.send("subscribed", id=frame["id"])
            await peer.send("unsubscribed", id=frame["id"], code="forbidden", reason="no right", retryable=False)
            await peer.hear("never")

        client = self.client(await self.bus(script))
        with self.assertRaises(rollbook.RollbookError) as caught:
            async for _ in client.subscribe("orders.>"):
                self.fail("an event came")
        self.assertEqual((caught.exception.code, caught.exception.data), ("unsubscribed", {"code": "forbidden"}))
        await client.ready()

    def test_what_is_no_token_is_refused_at_once_and_not_repeated(self) -> None:
        for bad in ("", "s3c r3t", "s3cr3t/=", "s3cr3t\n\nx", "s3cr\u00e9t"):
            with self.assertRaises(ValueError) as caught:
                self.client("ws://127.0.0.1:1", token=bad)
            self.assertNotIn("s3c", str(caught.exception))


@unittest.skipUnless(shutil.which("openssl"), "there is no openssl to make certificates with")
class TlsTest(FakeTest):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        folder = Path(temporary.name)
        self.key, self.cert = folder / "key.pem", folder / "cert.pem"
        kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        kind += ["-subj", "/CN=127.0.0.1"]
        files = ["-keyout", str(self.key), "-out", str(self.cert), "-addext", "subjectAltName=IP:127.0.0.1"]
        subprocess.run(["openssl", "req", "-x509", *kind, *files], check=True, capture_output=True)
        self.server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self.cert))
        self.server.load_cert_chain(self.cert, self.key)

    async def test_a_ca_and_a_client_certificate_are_enough_for_a_node_that_asks_for_both(self) -> None:
        self.server.verify_mode = ssl.CERT_REQUIRED

        async def script(peer: Peer) -> None:
            await peer.register()
            frame = await peer.hear("message")
            await peer.send("response", id=frame["id"], payload=offered(peer))

        url = (await self.bus(script, tls=self.server)).replace("wss:", "https:").removesuffix("/ws")
        client = self.client(url, ca=self.cert, cert=self.cert, key=str(self.key), token="rb1_a_b")
        self.assertEqual(await client.call("a:b"), "rollbook.v1,bearer.rb1_a_b")
        with self.assertRaises(rollbook.RollbookError):
            await self.client(url, ca=self.cert).ready(timeout=0.3)

    async def test_a_node_whose_ca_is_not_trusted_is_told_nothing(self) -> None:
        heard: list[str] = []

        async def script(peer: Peer) -> None:
            heard.append(offered(peer))

        client = self.client(await self.bus(script, tls=self.server), token="s3cr3t")
        with self.assertRaises(rollbook.RollbookError) as caught:
            await client.ready(timeout=0.5)
        self.assertIn("SSLCertVerificationError", caught.exception.message)
        self.assertEqual(heard, [])

    def test_files_that_are_missing_or_no_certificates_are_refused_at_once(self) -> None:
        gone = self.cert.with_name("gone.pem")
        cases = [(gone, None, None), (self.key, None, None), (None, self.cert, None), (None, self.cert, gone)]
        for ca, cert, key in cases:
            with self.assertRaises(OSError):
                rollbook.connect("wss://127.0.0.1:1", name="a", version="1", ca=ca, cert=cert, key=key)
        with self.assertRaises(ValueError):
            rollbook.connect("wss://127.0.0.1:1", name="a", version="1", key=self.key)
