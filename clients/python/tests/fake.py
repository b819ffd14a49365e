"""A bus made of a script: what a real one does not do when a test wants it."""

from __future__ import annotations

import asyncio
import json
import ssl
import unittest
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

import rollbook
from rollbook.wire import Frame

Script = Callable[["Peer"], Awaitable[None]]


class Peer:
    """The bus's end of a connection."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket

    async def send(self, kind: str, **members: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **members}))

    async def heard(self) -> AsyncIterator[Frame]:
        async for text in self.socket:
            yield json.loads(text)

    async def hear(self, kind: str) -> Frame:
        """The next frame of that type; others are dropped."""
        while True:
            frame: Frame = json.loads(await self.socket.recv())
            if frame["type"] == kind:
                return frame

    async def register(self) -> Frame:
        """Registers the client: its document."""
        await self.send("connect", connection_id="c", node="n1", max_frame=1 << 20)
        document = await self.hear("register")
        await self.send("registered", name=document["name"], index=1, services=[])
        return document


class FakeTest(unittest.IsolatedAsyncioTestCase):
    """Tests with a bus that follows a script for each connection."""

    async def bus(self, script: Script, *, tls: ssl.SSLContext | None = None, status: int = 0) -> str:
        """A bus whose clients are followed by the script, or refused with a status."""

        async def handle(socket: ServerConnection) -> None:
            try:
                await script(Peer(socket))
            except ConnectionClosed:
                pass

        def refuse(socket: ServerConnection, request: Request) -> Response | None:
            return socket.respond(HTTPStatus(status), "no\n") if status else None

        server = await serve(handle, "127.0.0.1", 0, compression=None, max_size=None, close_timeout=0.1, ssl=tls,
                             process_request=refuse)
        self.addAsyncCleanup(self._stop, server)
        return f"{'wss' if tls else 'ws'}://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/ws"

    async def _stop(self, server: Server) -> None:
        server.close()
        await server.wait_closed()

    def client(self, url: str, **options: Any) -> rollbook.Client:
        client = rollbook.connect(url, **{"name": "shop", "version": "1", "timeout": 5.0, **options})
        self.addAsyncCleanup(self._close, client)
        return client

    async def _close(self, client: rollbook.Client) -> None:
        closing = asyncio.create_task(client.close())
        if client._link and client._link._socket:
            await asyncio.sleep(0.01)
            if client._link:
                client._link._socket.transport.abort()
        await closing
