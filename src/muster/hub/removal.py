"""What a deleted hub leaves behind is cleared away: its events and its devices.

Hub ids are never used twice, so what a lost notice leaves lying harms nobody; it only takes room.
"""

from __future__ import annotations

from muster.model.notice import Notice
from muster.ports.devices import DeviceStore
from muster.ports.events import EventLog
from muster.ports.hubs import HubDirectory
from muster.ports.notices import NoticeBus

# Devices deleted in one transaction: some 10 ms of the writer, which others wait for.
_STEP = 1_000


class HubRemoval:
    """Deletes the stream and the devices of each hub that was deleted."""

    def __init__(
        self, log: EventLog, devices: DeviceStore, hubs: HubDirectory, bus: NoticeBus
    ) -> None:
        self._log = log
        self._devices = devices
        self._hubs = hubs
        bus.subscribe("hub.deleted", self._hub_deleted)

    async def _hub_deleted(self, notice: Notice) -> None:
        # The notice is a hint; that the hub is gone is read from what is stored.
        if any(hub.id == notice.subject for hub in await self._hubs.list_hubs()):
            return
        await self._log.delete_stream(notice.subject)
        while await self._devices.forget_hub(notice.subject, limit=_STEP) == _STEP:
            pass
