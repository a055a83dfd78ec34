"""What a deleted hub leaves behind: its events and its devices."""

from __future__ import annotations

from muster.ports.devices import DeviceStore
from muster.ports.events import EventLog
from muster.ports.hubs import HubDirectory

# Devices deleted in one transaction: some 10 ms of the writer, which others wait for.
_STEP = 1_000


class HubRemains:
    """Deletes the stream and the devices of hubs that are gone."""

    def __init__(self, events: EventLog, devices: DeviceStore, hubs: HubDirectory) -> None:
        self._events = events
        self._devices = devices
        self._hubs = hubs

    async def clear(self, hub_id: str) -> None:
        """Delete what the hub left, unless it is there still. Safe to repeat.

        That it is gone is read from what is stored: whoever calls may have been told wrong.
        Raises `Problem(UNAVAILABLE)` when that cannot be read or deleted now.
        """
        if any(hub.id == hub_id for hub in await self._hubs.list_hubs()):
            return
        await self._events.delete_stream(hub_id)
        while await self._devices.forget_hub(hub_id, limit=_STEP) == _STEP:
            pass
