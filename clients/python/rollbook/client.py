"""A service or consumer of the bus that stays connected."""

import asyncio
import inspect
import itertools
import json
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Literal
from uuid import uuid4

from websockets.exceptions import InvalidStatus, WebSocketException

from .roll import Roll
from .subscription import Subscription
from .wire import (
    SILENCE_SECONDS, Frame, Link, Path, Published, RollbookError, address, backoff, encode, error_frame, subprotocols,
    tls_context)

Headers = Mapping[str, str | Sequence[str]]
Handler = Callable[[Any, Frame], Any]
Callback = Callable[[Frame], Any]
Token = str | Callable[[], str | None | Awaitable[str | None]]
What = Literal[
    "online", "offline", "connect", "disconnect", "broadcast", "unhandled", "command", "registered", "closed"]
FINAL_CODES = frozenset({4400, 4403, 4409, 4410})
UNAUTHORIZED = 4401  # final too, unless there may be another token
CLOSE_SECONDS = 15.0  # longer than a node waits for the end of what a client that leaves has begun
log = logging.getLogger("rollbook")


def with_process(metadata: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The metadata with the process, when a dock of rollbook has started it: so the roll shows both as one."""
    process = os.environ.get("ROLLBOOK_PROCESS")
    return {"process": process, **(metadata or {})} if process else None if metadata is None else dict(metadata)


class Client:
    """A client of the nodes at these URLs, ``ws://host:7440/ws`` or ``http://host:7440``. With ``methods`` it is a
    service, whose ``handler(payload, message)``, plain or async, returns the answer; without, a consumer. It connects
    with ``async with``, ``ready`` or what is asked first. ``timeout``: seconds that anything asked may take, waiting
    for a connection included. ``token``: who this is, or a function, plain or async, that is asked at each connect.
    ``ca``, ``cert``, ``key``: files for TLS, in PEM. ``services``: those online, by name. ``closed``: set at the end.
    Raises ``RollbookError``; at once ``ValueError`` for a URL or token that is none, ``OSError`` for files."""

    def __init__(self, urls: str | Sequence[str], *, name: str, version: str,
                 methods: Mapping[str, Handler] | None = None, instance: str | None = None,
                 metadata: Mapping[str, Any] | None = None, token: Token | None = None, timeout: float = 30.0,
                 ca: Path | None = None, cert: Path | None = None, key: Path | None = None) -> None:
        self._urls = [address(url) for url in ([urls] if isinstance(urls, str) else urls)]
        if not self._urls:
            raise ValueError("not a single URL")
        if isinstance(token, str):
            subprotocols(token)
        self._token, self._tls, self.timeout = token, tls_context(ca, cert, key), timeout
        self._methods, self.instance_id = dict(methods or {}), instance
        self._document = {"type": "register", "name": name, "version": version, "methods": [*self._methods],
                          "instance": instance, "metadata": with_process(metadata)}
        encode(self._document)
        self._callbacks, self._roll = dict[str, list[Callback]](), Roll()
        self.services = self._roll.services
        self._link: Link | None = None
        self._run_task: asyncio.Task[None] | None = None
        self._tasks, self._saying = set[asyncio.Task[Any]](), set[asyncio.Task[None]]()
        self._turn, self.closed = asyncio.Event(), asyncio.Event()
        self._closing, self._why, self._code = False, "not connected yet", "closed"

    async def __aenter__(self) -> "Client":
        self._start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def on(self, event: What, callback: Callback) -> None:
        """Calls ``callback(frame)``, plain or async: for services (on-, offline), instances (connect, disconnect), for
        messages of others or ``send`` that are unhandled, and for this client. A command is done when none failed; one
        that has no callback is not, but for ``ping``."""
        self._callbacks.setdefault(event, []).append(callback)

    async def ready(self, timeout: float | None = None) -> None:
        """Waits until the client is registered, ``timeout`` seconds at most."""
        await self._registered(timeout)

    async def call(self, destination: str, payload: Any = None, *, timeout: float | None = None,
                   key: str | None = None, traceparent: str | None = None) -> Any:
        """What ``service:method`` answers in ``timeout`` seconds, 600 at most. ``key``: for ``sticky``. Raises what the
        service or bus says, ``unhandled`` with its ``reason``, ``connection_lost`` (the service may have acted)."""
        link, left = await self._registered(timeout)
        frame = {"type": "message", "destination": destination, "payload": payload, "responder": "response",
                 "timeout_ms": min(max(int(left * 1000), 1), 600_000), "key": key, "traceparent": traceparent}
        return (await link.ask(frame, left)).get("payload")

    async def send(self, destination: str, payload: Any = None) -> None:
        """Sends a message that nobody answers, at most once. If nobody can take it, ``unhandled`` is called."""
        link, _ = await self._registered(None)
        await link.send({"type": "message", "id": str(uuid4()), "destination": destination, "payload": payload})

    async def broadcast(self, payload: Any = None) -> None:
        """Tells all instances of all services but this one."""
        link, _ = await self._registered(None)
        await link.send({"type": "broadcast", "payload": payload})

    async def publish(self, subject: str, payload: Any = None, *, key: str | None = None,
                      trace_id: str | None = None, headers: Headers | None = None,
                      timeout: float | None = None) -> Published:
        """Stores an event: its id and index. After ``connection_lost`` or ``timeout`` it may be stored all the same;
        with a ``key`` it is not stored twice: the repetition gives id and index of the first, as ``duplicate``."""
        link, left = await self._registered(timeout)
        event = {"type": "publish", "subject": subject, "payload": payload, "key": key, "trace_id": trace_id,
                 "headers": headers and dict(headers)}
        try:
            return Published(await link.ask(event, left), duplicate=False)
        except RollbookError as error:
            if error.code != "conflict" or not isinstance(error.data, dict) or "event_id" not in error.data:
                raise
            return Published(error.data, duplicate=True)

    def subscribe(self, subject: str, *, start: str | None = None, ack: Literal["manual"] | None = None,
                  consumer: str | None = None, group: str | None = None, redelivery: str | int | None = None,
                  redelivery_count: int | None = None, backoff: str | None = None,
                  max_in_flight: int | None = None, queue_max: int = 1024, since: str | int | None = None,
                  headers: Mapping[str, str] | None = None, order_by: str | None = None,
                  redelivery_ms: int | None = None, max_deliveries: int | None = None) -> Subscription:
        """The events of a subject from ``oldest``, ``newest``, a time or behind an event id, or ``since`` so long ago
        (``"1h"``, or milliseconds), with these ``headers``; the bus keeps the position of a ``consumer`` or ``group``.
        ``order_by`` (``subject``, ``header:NAME``, a JSON pointer): events of the same key one after the other. With
        ``ack="manual"`` an event comes again after ``redelivery`` (``"5s"``, or milliseconds) without an
        acknowledgement, ``redelivery_count`` times in all. Without it, while ``queue_max`` events wait here, the node
        holds the rest back. The last two are older names."""
        where = {"subject": subject, "start": start, "since": since, "consumer": consumer, "group": group,
                 "headers": headers and dict(headers), "order_by": order_by}
        how = {"ack": ack, "redelivery": redelivery_ms if redelivery is None else redelivery,
               "redelivery_count": max_deliveries if redelivery_count is None else redelivery_count,
               "backoff": backoff, "max_in_flight": max_in_flight}
        return Subscription(self, {**where, **how}, queue_max)

    async def close(self) -> None:
        """Leaves: what was said of events and what was asked is answered first, each for 15 seconds at most. Not to be
        awaited by a handler."""
        run, self._closing = self._start(), True
        self._turn.set()
        if self._saying:
            await asyncio.wait(self._saying, timeout=CLOSE_SECONDS)
        if self._link:
            await self._link.try_send({"type": "disconnect"})
            await asyncio.wait([run], timeout=CLOSE_SECONDS)
        run.cancel()
        await asyncio.wait([run])
        self.closed.set()

    def _start(self) -> "asyncio.Task[None]":
        self._run_task = self._run_task or asyncio.create_task(self._run())
        return self._run_task

    async def _registered(self, timeout: float | None) -> tuple[Link, float]:
        """The connection, once there is one, and the seconds that are left."""
        self._start()
        until = monotonic() + (self.timeout if timeout is None else timeout)
        while self._link is None or self._closing:
            if self._closing or self.closed.is_set():
                raise RollbookError(self._code, self._why)
            self._turn.clear()
            try:
                await asyncio.wait_for(self._turn.wait(), until - monotonic())
            except asyncio.TimeoutError:
                raise RollbookError("timeout", f"not registered in time: {self._why}", retryable=True) from None
        return self._link, until - monotonic()

    async def _run(self) -> None:
        attempts, link, refused = 0, Link(), False
        try:
            for url in itertools.cycle(self._urls):
                link = Link()
                await self._follow(link, url)
                if self._closing or link.code in FINAL_CODES:
                    return
                again = link.code == UNAUTHORIZED and refused and not link.registered
                if link.code == UNAUTHORIZED and (again or not callable(self._token)):
                    self._code = "unauthorized"
                    return
                refused = link.code == UNAUTHORIZED or (refused and not link.registered)
                attempts = 0 if link.registered else attempts + 1
                delay = backoff(attempts)
                log.info("%s; next attempt in %.1f s", self._why, delay)
                await asyncio.sleep(delay)
        finally:
            self.closed.set()
            self._turn.set()
            self._spawn(self._tell("closed", {"code": link.code, "reason": link.reason}))

    async def _follow(self, link: Link, url: str) -> None:
        """One connection, from its beginning to its end."""
        try:
            socket = await link.open(url, await self._fresh_token(), self._tls)
            await link.send(self._document)
            async for data in socket:
                with suppress(KeyError, TypeError, ValueError, AttributeError, RecursionError):
                    self._hear(link, json.loads(data))
        except InvalidStatus as error:
            status = error.response.status_code
            self._why = f"{type(error).__name__} {status}"
            if status == 401:
                link.code, link.reason = UNAUTHORIZED, "HTTP status 401"
        except (OSError, asyncio.TimeoutError, ValueError, WebSocketException, RollbookError) as error:
            self._why = type(error).__name__  # its text may hold the URL
        finally:
            self._link = None
            link.end()
            self._why = f"connection closed with {link.code} {link.reason}" if link.code else self._why

    async def _fresh_token(self) -> str | None:
        """The token for the next connection. Raises ``RollbookError`` when the function that gives it fails."""
        if not callable(self._token):
            return self._token
        try:
            token = await asyncio.wait_for(_result(self._token), SILENCE_SECONDS)
            return None if token is None else str(token)
        except Exception as error:  # its text may hold the token
            log.warning("the function that gives the token failed: %s", type(error).__name__)
            raise RollbookError("connection_lost", "there is no token", retryable=True) from None

    def _hear(self, link: Link, frame: Frame) -> None:
        """Takes a frame. Raises built-in errors for one that is malformed."""
        match frame["type"]:
            case "connect":
                link.frame_max = int(frame["max_frame"])
            case "registered":
                self._roll.reset(frame["index"], frame["services"])
                link.registered, self._link, self.instance_id = True, link, frame.get("instance_id")
                self._turn.set()
                self._spawn(self._tell("registered", frame))
            case "event" if frame["event"] == "unhandled" or self._roll.apply(frame):
                self._spawn(self._tell(frame["event"].removeprefix("service-"), frame))
            case "broadcast":
                self._spawn(self._tell("broadcast", frame))
            case "message" if frame["id"]:
                self._spawn(self._serve(link, frame))
            case "command" if frame["id"]:
                self._spawn(self._tell("command", frame, link))
            case "delivery" | "unsubscribed":
                link.streams[frame["id"]](frame)
            case "disconnect":
                link.leaving, self._link = True, None
            case "response" | "error" | "unhandled" | "published" | "subscribed" | "acked":
                if not link.answered(frame):
                    log.debug("nobody waits for %s %s", frame["type"], frame.get("code", ""))
                    self._spawn(self._tell(frame["type"], frame))

    async def _serve(self, link: Link, message: Frame) -> None:
        """Lets a handler work, and answers where an answer is wanted."""
        wanted = message.get("responder")
        try:
            handler = self._methods[message["destination"].partition(":")[2]]
            payload = await _result(handler, message.get("payload"), message)
            if wanted:
                await link.send({"type": "response", "id": message["id"], "payload": payload})
        except Exception as error:
            if not wanted or not isinstance(getattr(error, "code", None), str):
                log.warning("a handler failed", exc_info=True)
            if wanted:
                await link.try_send(error_frame(message["id"], error))

    async def _tell(self, event: str, frame: Frame, link: Link | None = None) -> None:
        """Calls the callbacks of an event. A command, which has a link, is acknowledged when none of them failed: as not
        handled when there are none, but for a ping."""
        callbacks = [_result(callback, frame) for callback in self._callbacks.get(event, ())]
        results = await asyncio.gather(*callbacks, return_exceptions=True)
        failures = [result for result in results if isinstance(result, Exception)]
        for failure in failures:
            log.warning("a callback failed", exc_info=failure)
        if link and not failures:
            taken = bool(callbacks) or frame.get("command") == "ping"
            await link.try_send({"type": "done", "id": frame["id"]} | ({} if taken else {"handled": False}))

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _result(function: Callable[..., Any], *arguments: Any) -> Any:
    result = function(*arguments)
    return await result if inspect.isawaitable(result) else result
