"""A subscription to the event log, which goes on behind its last event when its connection or its stream is lost."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol
from uuid import uuid4

from .acknowledger import Acknowledger, ends
from .wire import Frame, Link, RollbookError, backoff

# Ends of streams that pass. Nodes that know more say so themselves, by `retryable`.
PASSING = frozenset({"node_stopping", "ended"})
REFUSED: Frame = {"type": "refused"}  # there is something to raise
log = logging.getLogger("rollbook")


def passes(end: Frame) -> bool:
    """Whether the same subscription may succeed later, or at another node, after such an ``unsubscribed``."""
    retryable = end.get("retryable")
    return retryable if isinstance(retryable, bool) else end.get("code") in PASSING


@dataclass(frozen=True)
class Event:
    """An event. ``index`` counts within its namespace, -1: a message of an inbox. ``data``: all that came.
    ``headers``: by name as they were written, of each its values. With ``ack="manual"`` one of ``ack``, ``nack`` and
    ``reject`` is said of each event. None of them waits for the answer: ``Subscription.flush`` does. ``False``: its
    connection is gone, and a consumer or group gets it again. They raise what was refused before."""

    id: str
    index: int
    subject: str
    created_at: str
    payload: Any
    data: Frame = field(repr=False)
    say: Callable[[Frame], Awaitable[bool]] = field(repr=False)

    async def ack(self) -> bool:
        """It is processed."""
        return await self.say({})

    async def nack(self, delay: str | int | None = None) -> bool:
        """It is not processed, and comes again: after ``"30s"`` or so many milliseconds, else after the next wait of
        ``backoff``, else at once."""
        return await self.say({"action": "nack", "delay": delay})

    async def reject(self, reason: str | None = None) -> bool:
        """It cannot be processed: it becomes a dead letter now, with a reason of at most 1024 bytes."""
        return await self.say({"action": "reject", "reason": reason})

    async def in_progress(self) -> bool:
        """It is being processed: the wait for its acknowledgement begins anew."""
        return await self.say({"action": "in_progress"})

    @property
    def headers(self) -> dict[str, list[str]]:
        came = self.data.get("headers") or {}
        return {name: [value] if isinstance(value, str) else list(value) for name, value in came.items()}


class Owner(Protocol):
    """What a subscription needs of its client."""

    timeout: float
    _closing: bool
    _saying: set["asyncio.Task[None]"]

    async def _registered(self, timeout: float | None) -> tuple[Link, float]: ...

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None: ...


class Subscription:
    """See ``Client.subscribe``. It begins with ``ready`` or ``async for`` and ends with that loop or ``close``."""

    def __init__(self, client: Owner, terms: Frame, queue_max: int) -> None:
        self._client, self._terms, self._queue_max = client, {"type": "subscribe", **terms}, queue_max
        self._queue = asyncio.Queue[Event | Frame]()
        self._manual = terms["ack"] == "manual"
        self._acknowledger = Acknowledger(client.timeout, client._saying, lambda: self._queue.put_nowait(REFUSED))
        # With acknowledgements: events that wait here, and those of them that were finished since they came again.
        self._waiting, self._finished = set[str](), set[str]()
        self._stream: tuple[Link, str] | None = None
        self._pausing = self._closed = False
        self._failures = 0  # in a row: streams that were refused, or ended without an event

    async def __aiter__(self) -> AsyncGenerator[Event, None]:
        durable = self._terms["consumer"] or self._terms["group"]
        try:
            while not self._closed:
                await self.ready()
                told = {} if self._closed else await self._queue.get()
                self._acknowledger.check()
                if told is REFUSED:
                    continue
                if isinstance(told, Event):
                    self._failures = 0
                    self._waiting.discard(told.id)
                    if told.id in self._finished:  # a copy
                        self._finished.discard(told.id)
                        continue
                    if self._manual and not self._flows():  # nobody could acknowledge it: it comes again
                        continue
                    if told.index >= 0 and not durable:
                        self._terms.update(start=told.id, since=None)
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
            self._waiting.clear()
            self._finished.clear()
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

    def _flows(self) -> bool:
        """Whether the stream has not ended."""
        return self._stream is not None and self._stream[1] in self._stream[0].streams

    async def flush(self) -> bool:
        """Waits until what was said of events has its answers. ``False``: a connection was lost before that, and some
        of them come again. Raises ``RollbookError`` for what was refused."""
        return await self._acknowledger.flush()

    async def close(self) -> None:
        """Ends it; events that wait are dropped. What was said of events has its answers first. Raises what was
        refused."""
        self._closed = True
        self._queue.put_nowait({})
        try:
            await self._acknowledger.flush()
        finally:
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
        if self._manual and queue is self._queue:
            if data["id"] in self._waiting or data["id"] in self._acknowledger.ending:
                return  # a copy
            self._waiting.add(data["id"])
        say = partial(self._say, link, stream, data["id"])
        index, payload = int(data["index"]), data.get("payload")
        queue.put_nowait(Event(data["id"], index, data["subject"], data["created_at"], payload, data, say))
        # With acknowledgements the node holds the rest back by itself.
        if queue.qsize() >= self._queue_max and not self._pausing and not self._manual:
            self._pausing = True
            self._client._spawn(link.try_send({"type": "unsubscribe", "id": stream}))

    async def _say(self, link: Link, stream: str, event: str, outcome: Frame) -> bool:
        if not self._manual:
            if outcome:
                raise ValueError('subscribe with ack="manual" to say what becomes of an event')
            return True
        taken = await self._acknowledger.say(link, stream, event, outcome)
        if taken and ends(outcome) and event in self._waiting:
            self._finished.add(event)
        return taken
