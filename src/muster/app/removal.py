"""Clear away after what was deleted, beside the notices that say so.

Clearing away after a large hub takes seconds, and other notices are urgent: they cut sessions. Ids
are never used twice, so what a crash leaves lying harms nobody; it only takes room.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from muster.errors import Problem
from muster.model.notice import Notice
from muster.observe import log
from muster.ports.notices import NoticeBus

_LOG = log.get_logger("muster.app")


class Removal:
    """Calls *clear* with the subject of each notice of *topic*, one after the other."""

    def __init__(self, topic: str, bus: NoticeBus, clear: Callable[[str], Awaitable[None]]) -> None:
        self._topic = topic
        self._clear = clear
        # As many as hubs or services were deleted since the last was cleared: ids, a few bytes.
        self._waiting: asyncio.Queue[str] = asyncio.Queue()
        bus.subscribe(topic, self._take)

    async def run(self) -> None:
        """Clear away until cancelled."""
        while True:
            subject = await self._waiting.get()
            try:
                await self._clear(subject)
            except Problem as problem:
                _LOG.warning("something was left behind", after=self._topic, why=problem.detail)
            except Exception:  # noqa: BLE001 - a bug met at one must not keep the others' remains
                _LOG.exception("clearing away failed", after=self._topic, subject=subject)

    async def _take(self, notice: Notice) -> None:
        self._waiting.put_nowait(notice.subject)
