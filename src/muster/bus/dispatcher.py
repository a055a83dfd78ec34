"""From the outbox to the bus: every committed notice is delivered, at least once and in order.

A notice is forgotten only after the bus delivered it, so what a crash left over is delivered at
the next start. Within one run nothing is delivered twice: when forgetting fails, only that is
tried again.
"""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from muster.ports.notices import NoticeBus
from muster.ports.outbox import Outbox

_logger = structlog.get_logger(__name__)

# Notices taken at a time: one DELETE forgets them all, and it stays within SQLite's limits.
_BATCH = 256
# How long to wait unasked. The outbox wakes us after commits of this process; this finds what
# another process committed.
_POLL_SECONDS = 5.0
# How long to leave a failing outbox or bus alone: doubled each time up to the second.
_RETRY_SECONDS = 0.5
_RETRY_SECONDS_MAX = 15.0
# How long `close` lets the notice that is being delivered finish.
_CLOSE_SECONDS = 5.0


class NoticeDispatcher:
    """Moves notices from *outbox* to *bus* between `start` and `close`."""

    def __init__(self, outbox: Outbox, bus: NoticeBus) -> None:
        self._outbox = outbox
        self._bus = bus
        self._pending = asyncio.Event()
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        # Delivered and not yet forgotten.
        self._delivered: list[int] = []
        outbox.on_pending(self._pending.set)

    def start(self) -> None:
        """Deliver what an earlier run left, then whatever comes. Subscribe before. Idempotent."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="notice-dispatcher")

    async def close(self) -> None:
        """Stop after the notice in hand; the others are delivered at the next start. Idempotent."""
        self._closing.set()
        self._pending.set()
        if self._task is not None:
            _, running = await asyncio.wait([self._task], timeout=_CLOSE_SECONDS)
            for task in running:
                task.cancel()
                await asyncio.wait([task])

    async def _run(self) -> None:
        retry = _RETRY_SECONDS
        while not self._closing.is_set():
            # Cleared before looking: what is committed from here on sets it again.
            self._pending.clear()
            try:
                while await self._deliver_some():
                    pass
            except Exception:
                # A bug in the bus must not end this task either: nothing would start it again.
                _logger.exception("notices wait", seconds=retry)
                await _wait(self._closing, retry)
                retry = min(2 * retry, _RETRY_SECONDS_MAX)
            else:
                retry = _RETRY_SECONDS
                if not self._closing.is_set():
                    await _wait(self._pending, _POLL_SECONDS)

    async def _deliver_some(self) -> bool:
        """Deliver one batch; return whether there may be more."""
        await self._forget()
        batch = await self._outbox.pending(_BATCH)
        for entry in batch:
            if self._closing.is_set():
                break
            await self._bus.publish(entry.notice)
            self._delivered.append(entry.id)
        await self._forget()
        return len(batch) == _BATCH and not self._closing.is_set()

    async def _forget(self) -> None:
        if self._delivered:
            await self._outbox.done(self._delivered)
            self._delivered = []


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
