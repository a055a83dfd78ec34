"""What a deleted hub leaves behind is cleared away: its events and its devices.

Done beside the notices, because a large hub takes seconds and other notices are urgent. Hub ids are
never used twice, so what a crash or a lost notice leaves lying harms nobody; it only takes room.
"""

from __future__ import annotations

import asyncio

import structlog

from muster.errors import Problem
from muster.model.notice import Notice
from muster.ports.devices import DeviceStore
from muster.ports.events import EventLog
from muster.ports.hubs import HubDirectory
from muster.ports.notices import NoticeBus

log = structlog.get_logger(__name__)

# Devices deleted in one transaction: some 10 ms of the writer, which others wait for.
_STEP = 1_000


class HubRemoval:
    """Deletes the stream and the devices of each hub that was deleted."""

    def __init__(
        self, events: EventLog, devices: DeviceStore, hubs: HubDirectory, bus: NoticeBus
    ) -> None:
        self._events = events
        self._devices = devices
        self._hubs = hubs
        self._deleted: set[str] = set()
        self._work: asyncio.Task[None] | None = None
        bus.subscribe("hub.deleted", self._hub_deleted)

    async def clear(self) -> None:
        """Clear away after the hubs that were deleted. Started by their notices."""
        while self._deleted:
            hub_id = self._deleted.pop()
            try:
                await self._clear(hub_id)
            except Problem as problem:
                log.warning("a deleted hub left something behind", hub=hub_id, why=problem.detail)
            except Exception:
                # A bug met at one hub must not keep the others' remains.
                log.exception("clearing away after a hub failed", hub=hub_id)

    async def _clear(self, hub_id: str) -> None:
        # The notice is a hint; that the hub is gone is read from what is stored.
        if any(hub.id == hub_id for hub in await self._hubs.list_hubs()):
            return
        await self._events.delete_stream(hub_id)
        while await self._devices.forget_hub(hub_id, limit=_STEP) == _STEP:
            pass

    async def _hub_deleted(self, notice: Notice) -> None:
        self._deleted.add(notice.subject)
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self.clear(), name="hub-removal")

    async def close(self) -> None:
        """Stop; what is left lying only takes room. Idempotent."""
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait([self._work])
