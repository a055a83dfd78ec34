"""The devices that are connected to this node, and how long each may stay.

Rules:

1. A device has one connection: a newer one drops the older (IoT Hub's 400027).
2. A session lasts as long as what it was admitted with: a token to its expiry, a certificate to
   its last second, and either only while the stored hub and device would admit it again.
3. Who is admitted is judged from stored state and the session is registered before its CONNECT
   is answered. A change whose notice arrives in between is seen by a second judgement; one whose
   notice arrives later finds the session registered. So no session outlives a revocation by
   slipping between the check and the registration.
4. What is remembered of devices that left is bounded; the longest gone are forgotten first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

import structlog

from muster.clock import Clock
from muster.errors import Kind, Problem
from muster.hub.access import Admission, Attempt, admit
from muster.ids import DeviceId
from muster.ports.devices import DeviceReader
from muster.ports.hubs import HubDirectory

log = structlog.get_logger(__name__)

# Devices whose last connection is remembered after they left: some 20 MiB when full. A registry
# that shows "never" for one that was away longest loses a hint and nothing else.
_REMEMBERED = 100_000


@dataclass(frozen=True, slots=True)
class ConnectionState:
    """What the registry shows of a device's connection; None is "never, or not known"."""

    connected: bool
    changed: datetime | None
    last_activity: datetime | None


_NEVER = ConnectionState(connected=False, changed=None, last_activity=None)


class LiveSession:
    """One admitted connection. Its endpoint calls `touch` and `close`; others call `end`."""

    __slots__ = (
        "_end",
        "_sessions",
        "attempt",
        "connected_at",
        "device_etag",
        "end_reason",
        "generation_id",
        "hub_etag",
        "hub_id",
        "is_refused",
        "last_activity",
        "valid_until",
    )

    def __init__(
        self,
        sessions: Sessions,
        attempt: Attempt,
        admission: Admission,
        end: Callable[[str], None],
        now: datetime,
    ) -> None:
        self._sessions = sessions
        self._end = end
        self.attempt = attempt
        self.hub_id = admission.hub.id
        self.generation_id = admission.device.generation_id
        self.connected_at = self.last_activity = now
        self.end_reason: str | None = None
        self.is_refused = False
        self.renew(admission)

    @property
    def device_id(self) -> DeviceId:
        """Whose session it is."""
        return self.attempt.device_id

    @property
    def ended(self) -> bool:
        """Whether nothing more may be accepted from this connection."""
        return self.end_reason is not None

    def renew(self, admission: Admission) -> None:
        """Go on under *admission*: the stored state changed, and admits the device still."""
        self.hub_etag = admission.hub.etag
        self.device_etag = admission.device.etag
        self.valid_until = admission.valid_until

    def touch(self, now: datetime) -> None:
        """Take note that the device said something."""
        self.last_activity = now

    def end(self, reason: str, *, refused: bool) -> None:
        """Close the connection. *refused*: the device may say nothing more, not even a will."""
        if self.end_reason is not None:
            return
        self.end_reason = reason
        self.is_refused = refused
        self.close()
        log.info("session ended", hub=self.hub_id, device=self.device_id, reason=reason)
        self._end(reason)

    def close(self) -> None:
        """Take note that the connection is gone. Idempotent."""
        if self.end_reason is None:
            self.end_reason = "closed"
        self._sessions.remove(self)


class Sessions:
    """Admits devices and knows who is here."""

    def __init__(self, hubs: HubDirectory, devices: DeviceReader, clock: Clock) -> None:
        self._hubs = hubs
        self._devices = devices
        self._clock = clock
        self._live: dict[str, dict[DeviceId, LiveSession]] = {}
        self._gone: dict[tuple[str, DeviceId], ConnectionState] = {}
        self._changes = 0

    async def open(
        self, attempt: Attempt, end: Callable[[str], None]
    ) -> tuple[LiveSession, Admission]:
        """Admit the device and register its session, or raise a `Problem` that says why not.

        *end* closes the connection; it is called at most once, also before this returns.
        """
        changes = self._changes
        admission = await self._judge(attempt)
        live = LiveSession(self, attempt, admission, end, self._clock.now())
        self._register(live)
        if self._changes != changes:
            try:
                await self.recheck(live)
            except BaseException:  # the CONNECT took too long and was given up
                live.close()
                raise
        if live.ended:
            raise Problem(Kind.UNAUTHENTICATED, live.end_reason or "the connection was ended")
        return live, admission

    def note_change(self) -> None:
        """Take note that a hub or a device changed: who is being admitted is judged again."""
        self._changes += 1

    async def device_changed(self, hub_id: str, device_id: DeviceId) -> None:
        """Judge the device's session again, and whoever is being admitted."""
        self.note_change()
        live = self.find(hub_id, device_id)
        if live is not None:
            await self.recheck(live)

    async def recheck(self, live: LiveSession) -> None:
        """Judge *live* again from stored state, and end it when it would not be admitted now."""
        try:
            admission = await self._judge(live.attempt)
        except Problem as problem:
            if problem.kind in _TRY_LATER:
                # Not knowing is no ground to cut a fleet off: the sweep asks again.
                log.warning("session not rechecked", device=live.device_id, why=problem.detail)
                return
            live.end(problem.detail, refused=True)
            return
        if admission.hub.id != live.hub_id or admission.device.generation_id != live.generation_id:
            live.end("the device was deleted and created again", refused=True)
        else:
            live.renew(admission)

    def disconnect(self, hub_id: str, device_id: DeviceId, reason: str) -> bool:
        """End the device's session, for good; False when it has none here."""
        live = self.find(hub_id, device_id)
        if live is None:
            return False
        live.end(reason, refused=True)
        return True

    def expire(self) -> None:
        """End each session whose token or certificate has run out."""
        now = self._clock.now()
        for live in list(self._all()):
            if live.valid_until <= now:
                try:
                    live.end("its token or certificate has expired", refused=True)
                except Exception:
                    # A bug met at one session must not let the others live on.
                    log.exception("ending a session failed", device=live.device_id)

    def find(self, hub_id: str, device_id: DeviceId) -> LiveSession | None:
        """Return the session of that device, or None."""
        return self._live.get(hub_id, {}).get(device_id)

    def of_hub(self, hub_id: str) -> list[LiveSession]:
        """Return the sessions of that hub."""
        return list(self._live.get(hub_id, {}).values())

    def hub_ids(self) -> list[str]:
        """Return the hubs that have sessions."""
        return list(self._live)

    def count(self, hub_id: str) -> int:
        """Return how many devices of that hub are connected."""
        return len(self._live.get(hub_id, {}))

    def connection_of(self, hub_id: str, device_id: DeviceId) -> ConnectionState:
        """Return what is known of that device's connection."""
        live = self.find(hub_id, device_id)
        if live is not None:
            return ConnectionState(
                connected=True, changed=live.connected_at, last_activity=live.last_activity
            )
        return self._gone.get((hub_id, device_id), _NEVER)

    def remove(self, live: LiveSession) -> None:
        """Forget *live*, unless a newer session has taken its place."""
        here = self._live.get(live.hub_id, {})
        if here.get(live.device_id) is not live:
            return
        del here[live.device_id]
        if not here:
            del self._live[live.hub_id]
        key = (live.hub_id, live.device_id)
        self._gone.pop(key, None)
        self._gone[key] = ConnectionState(
            connected=False, changed=self._clock.now(), last_activity=live.last_activity
        )
        if len(self._gone) > _REMEMBERED:
            del self._gone[next(iter(self._gone))]

    async def _judge(self, attempt: Attempt) -> Admission:
        hub = await self._hubs.find_hub(attempt.host)
        if hub is None:
            raise Problem(Kind.NOT_FOUND, f"no hub answers to {attempt.host}")
        device = await self._devices.get_device(hub.id, attempt.device_id)
        return admit(hub, device, attempt, now=self._clock.now())

    def _register(self, live: LiveSession) -> None:
        older = self.find(live.hub_id, live.device_id)
        if older is not None:
            older.end("a newer connection of the same device (400027)", refused=False)
        self._live.setdefault(live.hub_id, {})[live.device_id] = live
        self._gone.pop((live.hub_id, live.device_id), None)

    def _all(self) -> Iterator[LiveSession]:
        for sessions in self._live.values():
            yield from sessions.values()


_TRY_LATER = frozenset({Kind.UNAVAILABLE, Kind.THROTTLED})
