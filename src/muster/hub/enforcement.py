"""Changes reach live sessions: at once by notice, and by a sweep when a notice was lost.

Rules:

1. A notice says only that something changed. What to do is judged from stored state, with the
   judgement that a new CONNECT would get, so a repeated or late notice is harmless.
2. Every second, sessions whose token or certificate ran out end.
3. Every `SWEEP_SECONDS`, the stored versions of hub and devices are compared with those that
   sessions were admitted under, and who differs is judged again. The cost is one index look-up a
   session, in batches and off the event loop; certificates are not verified again for nothing.
4. A changed hub means a look at each of its sessions: seconds of work for a large fleet. That is
   done beside the notices, so that a revoked device behind it in the queue does not wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from muster.errors import Problem
from muster.hub.sessions import LiveSession, Sessions
from muster.ids import DeviceId
from muster.model.notice import Notice
from muster.ports.devices import DeviceReader
from muster.ports.hubs import HubDirectory
from muster.ports.notices import NoticeBus

log = structlog.get_logger(__name__)

# threats.md: a session ends within 5 s of its certificate; a lost notice costs no more than this.
TICK_SECONDS = 1.0
SWEEP_SECONDS = 30.0
# Versions are read this many at a time (a millisecond in a thread), and judgements give way to the
# event loop after this many (verifying a chain costs some 250 us).
_BATCH = 500
_SLICE = 4


class Enforcement:
    """Ends the sessions that stored state no longer admits."""

    def __init__(
        self, sessions: Sessions, hubs: HubDirectory, devices: DeviceReader, bus: NoticeBus
    ) -> None:
        self._sessions = sessions
        self._hubs = hubs
        self._devices = devices
        self._changed_hubs: set[str] = set()
        self._hub_has_changed = asyncio.Event()
        for topic in ("device.changed", "device.deleted"):
            bus.subscribe(topic, self._device_changed)
        for topic in ("hub.changed", "hub.deleted"):
            bus.subscribe(topic, self._hub_changed)

    async def run(self) -> None:
        """Expire, sweep, and recheck the sessions of changed hubs, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._expire_forever(), name="hub-expire")
            tasks.create_task(self._sweep_forever(), name="hub-sweep")
            tasks.create_task(self._recheck_hubs_forever(), name="hub-recheck")

    async def recheck_changed_hubs(self) -> None:
        """Judge again the sessions of each hub that changed since the last call."""
        while self._changed_hubs:
            await self._recheck(self._sessions.of_hub(self._changed_hubs.pop()))

    async def sweep(self) -> None:
        """Judge again who was admitted under another version than the stored one.

        Raises `Problem(UNAVAILABLE)` when versions cannot be read; the next sweep tries again.
        """
        current = {hub.id: hub.etag for hub in await self._hubs.list_hubs()}
        for hub_id in self._sessions.hub_ids():
            sessions = self._sessions.of_hub(hub_id)
            if any(live.hub_etag != current.get(hub_id) for live in sessions):
                await self._recheck(sessions)
                continue
            for start in range(0, len(sessions), _BATCH):
                batch = sessions[start : start + _BATCH]
                stored = await self._devices.device_versions(
                    hub_id, [live.device_id for live in batch]
                )
                await self._recheck(
                    [live for live in batch if live.device_etag != stored.get(live.device_id)]
                )

    async def hub_changed(self, hub_id: str) -> None:
        """Judge the sessions of a hub again, now; some 250 us for each of them."""
        self._sessions.note_change()
        await self._recheck(self._sessions.of_hub(hub_id))

    async def _device_changed(self, notice: Notice) -> None:
        # A hub's id may hold a slash, a device's cannot.
        hub_id, _, device_id = notice.subject.rpartition("/")
        await self._sessions.device_changed(hub_id, DeviceId(device_id))

    async def _hub_changed(self, notice: Notice) -> None:
        self._sessions.note_change()
        self._changed_hubs.add(notice.subject)
        self._hub_has_changed.set()

    async def _recheck_hubs_forever(self) -> None:
        while True:
            await self._hub_has_changed.wait()
            self._hub_has_changed.clear()
            await self._guarded(self.recheck_changed_hubs)

    async def _expire_forever(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self._sessions.expire()

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            await self._guarded(self.sweep)

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Problem as problem:
            log.warning("sessions not rechecked, to be tried again", why=problem.detail)
        except Exception:
            # A bug in one look must not end all later ones: sessions would never expire.
            log.exception("rechecking sessions failed")

    async def _recheck(self, sessions: list[LiveSession]) -> None:
        for number, live in enumerate(sessions, start=1):
            if not live.ended:
                await self._sessions.recheck(live)
            if number % _SLICE == 0:
                await asyncio.sleep(0)
