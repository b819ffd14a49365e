"""One connection: frames out, frames in, and the answers to what was asked."""

import asyncio
import json
import logging
import os
import random
import re
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

Frame = dict[str, Any]
SILENCE_SECONDS = 40.0  # without a registration, or an answer to a ping half way, a connection is lost
FRAME_BYTES_MAX = 32 << 20
DELAY_SECONDS, DELAY_SECONDS_MAX = 0.25, 15.0
Path = str | os.PathLike[str]
TOKEN = re.compile(r"[!#-'*+\-.0-9A-Z^-z|~]+")  # what a subprotocol can carry
SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def backoff(failures: int) -> float:
    """A random time in seconds, whose bound doubles with each failure."""
    return random.uniform(0, min(DELAY_SECONDS_MAX, DELAY_SECONDS * 2 ** min(failures, 16)))


def address(url: str) -> str:
    """The URL of the door: ``http`` is ``ws``, and no path is ``/ws``. Raises ``ValueError`` for what is no address;
    its text does not repeat the URL, which may hold a secret."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in SCHEMES and parts.hostname and parts.port != 0
    except ValueError:  # its text repeats a part of the URL
        known = False
    if not known:
        raise ValueError("not a URL of a node: expected ws://HOST:PORT/ws, or http://HOST:PORT")
    path = "/ws" if parts.path in ("", "/") else parts.path
    return urlunsplit((SCHEMES[parts.scheme], parts.netloc, path, parts.query, ""))


def tls_context(ca: Path | None, cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """What TLS needs beside an address. Raises ``OSError`` for files that are missing or hold something else."""
    if not (ca or cert or key):
        return None
    if not cert and key:
        raise ValueError("a key needs its certificate: pass cert as well")
    context = ssl.create_default_context(cafile=ca)
    if cert:
        context.load_cert_chain(cert, key)
    return context


def subprotocols(token: str | None) -> list[Subprotocol]:
    """What is offered at the door. Raises ``ValueError`` for what is no token; its text does not repeat it."""
    if token is None:
        return [Subprotocol("rollbook.v1")]
    if not TOKEN.fullmatch(token := token.strip()):
        raise ValueError("not a token: it has characters that no token has")
    return [Subprotocol("rollbook.v1"), Subprotocol(f"bearer.{token}")]


class RollbookError(Exception):
    """What was refused or failed. ``code``: of the protocol, the service's own, or of this client: ``unhandled``,
    ``connection_lost``, ``closed``, ``too_large``, ``unsubscribed``. ``retryable``: the same again may succeed.
    ``data``: what the service said beside. ``reason``: of ``unhandled`` or ``unsubscribed``. A handler may raise it."""

    def __init__(self, code: str, message: str = "", retryable: bool = False, data: Any = None,
                 reason: str = "") -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code, self.message, self.retryable, self.data, self.reason = code, message, retryable, data, reason


class Published(tuple[str, int]):
    """Id and index of an event. ``duplicate``: it was stored before, by a publish with the same key."""

    duplicate: bool

    def __new__(cls, frame: Frame, duplicate: bool) -> "Published":
        self = super().__new__(cls, (str(frame.get("event_id")), int(frame.get("index", -1))))
        self.duplicate = duplicate
        return self


def error_frame(identity: str, error: Exception) -> Frame:
    """The frame that fails a message; texts are cut to what the bus takes, and ``data`` that is no JSON is left out."""
    code, text, data = (getattr(error, name, None) for name in ("code", "message", "data"))
    code = code[:32] if isinstance(code, str) and code else "service_error"
    text = (text if isinstance(text, str) else str(error)).encode(errors="replace")[:1024].decode(errors="ignore")
    try:
        encode(data)
    except (TypeError, ValueError):
        data = None
    retryable = getattr(error, "retryable", None) is True
    return {"type": "error", "id": identity, "code": code, "message": text, "retryable": retryable, "data": data}


class Link:
    """A connection to a node. ``streams`` hear the frames of their subscriptions; ``code`` is 0 until it has ended."""

    def __init__(self) -> None:
        self.registered = self.leaving = False
        self.code, self.reason, self.frame_max = 0, "", FRAME_BYTES_MAX
        self.streams: dict[str, Callable[[Frame], None]] = {}
        self._asked: dict[str, asyncio.Future[Frame]] = {}
        self._socket: ClientConnection | None = None

    async def open(self, url: str, token: str | None, context: ssl.SSLContext | None) -> ClientConnection:
        """Connects. Raises ``OSError``, ``TimeoutError``, ``ValueError`` for no token, or one of ``websockets``."""
        self._socket = await connect(
            url, subprotocols=subprotocols(token), compression=None, max_size=FRAME_BYTES_MAX,
            ssl=(context or True) if url.startswith("wss:") else None,
            ping_interval=SILENCE_SECONDS / 2, ping_timeout=SILENCE_SECONDS / 2, close_timeout=1,
            # At level DEBUG, which is never on here, it would get headers and payloads.
            logger=logging.Logger("rollbook.socket", logging.WARNING))
        asyncio.get_running_loop().call_later(SILENCE_SECONDS, self.end, False)
        return self._socket

    async def send(self, frame: Frame) -> None:
        """Writes a frame, without members that are ``None``. Raises ``RollbookError`` with ``too_large`` or
        ``connection_lost``, and ``TypeError`` or ``ValueError`` for what is no JSON."""
        text = encode({name: value for name, value in frame.items() if value is not None})
        if len(text.encode()) > self.frame_max:
            raise RollbookError("too_large", f"more than {self.frame_max} bytes")
        if self._socket and not self.code:
            with suppress(ConnectionClosed):
                return await self._socket.send(text)
        raise RollbookError("connection_lost", "the connection has ended", retryable=True)

    async def try_send(self, frame: Frame) -> None:
        """The same for what nobody needs when it is too late or too large."""
        with suppress(RollbookError):
            await self.send(frame)

    async def ask(self, frame: Frame, timeout: float) -> Frame:
        """Sends a frame and waits so many seconds for the frame that answers its id. Raises what ``send`` raises,
        ``timeout``, and the answer when it is an error."""
        identity = frame.setdefault("id", str(uuid4()))
        answer = self._asked.setdefault(identity, asyncio.Future())
        try:
            return (await asyncio.wait_for(asyncio.gather(answer, self.send(frame)), timeout))[0]
        except asyncio.TimeoutError:
            raise RollbookError("timeout", "no answer in time") from None
        finally:
            del self._asked[identity]

    def answered(self, frame: Frame) -> bool:
        """Hands a frame to whoever asked; ``False`` when nobody waits for it."""
        answer = self._asked.get(frame.get("id", ""))
        if answer is None or answer.done():
            return False
        if frame["type"] == "error":
            retryable = frame.get("retryable") is True
            answer.set_exception(RollbookError(f"{frame['code']}", f"{frame['message']}", retryable, frame.get("data")))
        elif frame["type"] == "unhandled":
            message, reason = f"{frame['destination']}: {frame['reason']}", str(frame["reason"])
            answer.set_exception(RollbookError("unhandled", message, reason=reason))
        else:
            answer.set_result(frame)
        return True

    def end(self, also_registered: bool = True) -> None:
        """Cuts what is left of it; who waits for an answer gets ``connection_lost``, and each stream its end."""
        if self._socket and (also_registered or not self.registered):
            self._socket.transport.abort()
            protocol = self._socket.protocol
            self.code, self.reason = protocol.close_code or 1006, protocol.close_reason or ""
            for answer in self._asked.values():
                if not answer.done():
                    answer.set_exception(RollbookError("connection_lost", "no answer came", retryable=True))
            while self.streams:
                self.streams.popitem()[1]({"type": "unsubscribed"})
