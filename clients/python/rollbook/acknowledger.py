"""Says what has become of events, without waiting for each answer: what is said meanwhile goes together."""

import asyncio
import json
import logging
from collections.abc import Callable
from time import monotonic
from typing import Any

from .wire import Frame, Link, RollbookError

BATCH_MAX = 1000  # events of one frame
UNSAID_MAX = 4096  # events that wait; whoever says more waits as well
YIELD_SECONDS = 0.005  # a loop that never waits for anything gives way to the connection so often
GONE = frozenset({"connection_lost", "unknown_request", "closed"})  # the stream has ended: its events come again
log = logging.getLogger("rollbook")


def ends(outcome: Frame) -> bool:
    """Whether an event with this outcome does not come again."""
    return outcome.get("action", "ack") in ("ack", "reject")


class Acknowledger:
    """What a subscription says of its events. ``tasks``: where a client finds what is on its way. ``refused`` is called
    when there is something to raise."""

    def __init__(self, timeout: float, tasks: set["asyncio.Task[None]"], refused: Callable[[], None]) -> None:
        self._timeout, self._tasks, self._refused = timeout, tasks, refused
        self.ending = set[str]()  # events that were acknowledged or rejected, until the answer comes
        # By connection, stream and outcome: what is sent together.
        self._unsaid: dict[tuple[Link, str, str], list[str]] = {}
        self._waiting = 0
        self._room = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._failure: RollbookError | None = None
        self._lost, self._yielded = False, 0.0

    async def say(self, link: Link, stream: str, event: str, outcome: Frame) -> bool:
        """Takes the outcome of an event, which is sent soon; ``False`` when its stream has ended. Raises what was
        refused before."""
        self.check()
        if stream not in link.streams:
            return False
        async with self._room:
            await self._room.wait_for(lambda: self._waiting < UNSAID_MAX)
        self._unsaid.setdefault((link, stream, json.dumps(outcome)), []).append(event)
        self._waiting += 1
        if ends(outcome):
            self.ending.add(event)
        if self._task is None:
            self._task = asyncio.create_task(self._send())
            self._tasks.add(self._task)
            self._task.add_done_callback(self._tasks.discard)
        if (now := monotonic()) - self._yielded > YIELD_SECONDS:
            self._yielded = now
            await asyncio.sleep(0)
        return True

    async def flush(self) -> bool:
        """Waits until all that was said has its answer; ``False`` when a connection was lost before that, since the
        last time. Raises what was refused."""
        while self._task:
            await asyncio.wait([self._task])
        self.check()
        lost, self._lost = self._lost, False
        return not lost

    def check(self) -> None:
        """Raises what was refused since the last time."""
        failure, self._failure = self._failure, None
        if failure:
            raise failure

    async def _send(self) -> None:
        try:
            while self._unsaid:
                (link, stream, outcome), events = next(iter(self._unsaid.items()))
                some = events[:BATCH_MAX]
                del events[:BATCH_MAX]
                if not events:
                    del self._unsaid[link, stream, outcome]
                await self._ask(link, stream, some, json.loads(outcome))
                self.ending.difference_update(some)
                async with self._room:
                    self._waiting -= len(some)
                    self._room.notify_all()
        finally:
            self._task = None

    async def _ask(self, link: Link, stream: str, events: list[str], outcome: Frame) -> None:
        which: dict[str, Any] = {"event_id": events[0]} if len(events) == 1 else {"event_ids": events}
        try:
            await link.ask({"type": "ack", "id": stream, **which, **outcome}, self._timeout)
        except RollbookError as error:
            if error.code in GONE:
                self._lost = True
                return log.debug("what was said of %d events was lost: %s", len(events), error)
            log.warning("what was said of %d events was refused: %s", len(events), error)
            self._failure = error
            self._refused()
