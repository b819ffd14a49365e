"""A subscription to the event log, which goes on behind its last event when its connection or its stream is lost."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol
from uuid import uuid4

from .wire import Frame, Link, RollbookError, backoff

# Ends of streams that pass. Nodes that know more say so themselves, by `retryable`.
PASSING = frozenset({"node_stopping", "ended"})
log = logging.getLogger("rollbook")


def passes(end: Frame) -> bool:
    """Whether the same subscription may succeed later, or at another node, after such an ``unsubscribed``."""
    retryable = end.get("retryable")
    return retryable if isinstance(retryable, bool) else end.get("code") in PASSING


@dataclass(frozen=True)
class Event:
    """An event. ``index`` counts within its namespace, -1: a message of an inbox. ``data``: all that came.
    ``headers``: by name as they were written, of each its values. ``ack()``
    acknowledges; ``False``: its connection is gone, and a consumer or group gets it again. Raises ``RollbookError``."""

    id: str
    index: int
    subject: str
    created_at: str
    payload: Any
    data: Frame = field(repr=False)
    ack: Callable[[], Awaitable[bool]] = field(repr=False)

    @property
    def headers(self) -> dict[str, list[str]]:
        came = self.data.get("headers") or {}
        return {name: [value] if isinstance(value, str) else list(value) for name, value in came.items()}


class Owner(Protocol):
    """What a subscription needs of its client."""

    timeout: float
    _closing: bool

    async def _registered(self, timeout: float | None) -> tuple[Link, float]: ...

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None: ...


class Subscription:
    """See ``Client.subscribe``. It begins with ``ready`` or ``async for`` and ends with that loop or ``close``."""

    def __init__(self, client: Owner, terms: Frame, queue_max: int) -> None:
        self._client, self._terms, self._queue_max = client, {"type": "subscribe", **terms}, queue_max
        self._queue, self._acking = asyncio.Queue[Event | Frame](), asyncio.Lock()
        self._stream: tuple[Link, str] | None = None
        self._pausing = self._closed = False
        self._failures = 0  # in a row: streams that were refused, or ended without an event

    async def __aiter__(self) -> AsyncGenerator[Event, None]:
        durable = self._terms["consumer"] or self._terms["group"]
        try:
            while not self._closed:
                await self.ready()
                told = {} if self._closed else await self._queue.get()
                if isinstance(told, Event):
                    self._failures = 0
                    if told.index >= 0 and not durable:
                        self._terms["start"] = told.id
                    yield told
                    continue
                reason, self._stream = told.get("reason", ""), None
                if (reason or told.get("code")) and not self._closed:
                    if not passes(told):
                        raise RollbookError("unsubscribed", reason, reason=reason, data={"code": told.get("code")})
                    await self._pause(f"a stream has ended: {reason}")
        except RollbookError as error:
            if error.code != "closed" or not self._client._closing:
                raise
        finally:
            await self.close()

    async def ready(self) -> None:
        """Waits until the node has begun it. Raises ``RollbookError``."""
        while self._stream is None and not self._closed:
            link, _ = await self._client._registered(1e9)
            stream, self._queue, self._pausing = str(uuid4()), asyncio.Queue(), False
            link.streams[stream] = partial(self._hear, link, self._queue)
            try:
                await link.ask({**self._terms, "id": stream}, 1e9)
                self._stream = link, stream
                if self._closed:  # meanwhile: the node must not keep it open
                    await self.close()
            except RollbookError as error:
                link.streams.pop(stream, None)
                if not error.retryable:
                    raise
                await self._pause(str(error))

    async def _pause(self, why: str) -> None:
        """Waits before the next attempt, longer with each that was in vain."""
        delay = backoff(self._failures)
        self._failures += 1
        log.info("%s; next attempt in %.1f s", why, delay)
        await asyncio.sleep(delay)

    async def close(self) -> None:
        """Ends it; events that wait are dropped."""
        self._closed = True
        self._queue.put_nowait({})
        if self._stream:
            (link, stream), self._stream = self._stream, None
            await link.try_send({"type": "unsubscribe", "id": stream})

    def _hear(self, link: Link, queue: "asyncio.Queue[Event | Frame]", frame: Frame) -> None:
        """Keeps what came for the loop. When that is too much the node is asked to end the stream; the loop finds that
        end behind the events before it, and subscribes again."""
        if frame["type"] == "unsubscribed":
            link.streams.pop(frame.get("id", ""), None)
            return queue.put_nowait({} if link.leaving else frame)
        data, stream = frame["event"], frame["id"]
        ack = partial(self._acknowledge, link, stream, data["id"])
        index, payload = int(data["index"]), data.get("payload")
        queue.put_nowait(Event(data["id"], index, data["subject"], data["created_at"], payload, data, ack))
        if queue.qsize() >= self._queue_max and not self._pausing:
            self._pausing = True
            self._client._spawn(link.try_send({"type": "unsubscribe", "id": stream}))

    async def _acknowledge(self, link: Link, stream: str, event: str) -> bool:
        async with self._acking:
            try:
                await link.ask({"type": "ack", "id": stream, "event_id": event}, self._client.timeout)
            except RollbookError as error:
                if error.code != "connection_lost":
                    raise
                return False
        return True
