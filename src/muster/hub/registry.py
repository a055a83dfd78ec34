"""The device registry of a hub: who may connect, and with what.

Rules:

1. Callers are authorised before they get here; *actor* is whom the audit trail names.
2. Every change replaces one stored version by the next. A caller who names the version it saw
   is told when that is no longer the stored one.
3. A device that is to use keys always has two of them: missing ones are made here, of 64 random
   bytes. A device that is to use thumbprints has at least one.

What provisioning may do is in `linked.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from muster.clock import Clock
from muster.errors import Kind, Problem
from muster.hub.credentials import settled_credentials
from muster.ids import DeviceId, ETag, new_etag, new_uuid
from muster.model.audit import AuditEntry
from muster.model.contention import ATTEMPTS, contended
from muster.model.device import (
    Device,
    DeviceAuthentication,
    DeviceStatus,
)
from muster.ports.devices import DeviceStore

# IoT Hub: 1,000,000 identities in one hub; a registry listing returns at most 1,000.
MAX_DEVICES = 1_000_000
MAX_LISTED = 1_000
_MAX_REASON = 128  # IoT Hub: statusReason has at most 128 characters
# A count walks an index of up to a million entries (some 30 ms in a thread), so the limit on
# devices is judged by a count at most this old, plus what was created since.
_COUNT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """What a caller may say of a device. Absent credentials are kept, or made when new."""

    device_id: DeviceId
    status: DeviceStatus = DeviceStatus.ENABLED
    status_reason: str | None = None
    authentication: DeviceAuthentication | None = None
    iot_edge: bool = False


class Registry:
    """Create, change, find and delete the devices of any hub."""

    def __init__(self, devices: DeviceStore, clock: Clock) -> None:
        self._devices = devices
        self._clock = clock
        self._totals: dict[str, tuple[float, int]] = {}  # one entry a hub

    async def create(self, hub_id: str, wanted: DeviceSettings, *, actor: str) -> Device:
        """Store a new device and return it with its keys.

        Raises `Problem(CONFLICT)` when the id is taken, `Problem(MALFORMED)` for credentials
        that break a rule, `Problem(TOO_LARGE)` when the hub is full.
        """
        await self.check_room(hub_id)
        now = self._clock.now()
        device = Device(
            hub_id=hub_id,
            device_id=wanted.device_id,
            generation_id=new_uuid(),
            etag=new_etag(),
            status=wanted.status,
            status_reason=_reason(wanted.status_reason),
            status_updated=now,
            authentication=settled_credentials(wanted.authentication, None),
            created=now,
            iot_edge=wanted.iot_edge,
        )
        audit = self._audit(now, actor, "device.create", device)
        if not await self._devices.insert_device(device, audit):
            raise Problem(Kind.CONFLICT, f"the device {device.device_id} is already registered")
        return device

    async def update(
        self, hub_id: str, wanted: DeviceSettings, if_match: ETag, *, actor: str
    ) -> Device:
        """Replace what the caller may set of a device, and return the result.

        Raises `Problem(NOT_FOUND)`, `Problem(PRECONDITION_FAILED)` when *if_match* is neither
        `*` nor the stored version, `Problem(MALFORMED)` for credentials that break a rule.
        """
        for _ in range(ATTEMPTS):
            stored = await self.get(hub_id, wanted.device_id)
            if not if_match.matches_any and if_match != stored.etag:
                raise _outdated(wanted.device_id)
            now = self._clock.now()
            changed = replace(
                stored,
                etag=new_etag(),
                status=wanted.status,
                status_reason=_reason(wanted.status_reason),
                status_updated=now if wanted.status is not stored.status else stored.status_updated,
                authentication=settled_credentials(wanted.authentication, stored.authentication),
                iot_edge=wanted.iot_edge,
            )
            audit = self._audit(now, actor, "device.update", changed)
            if await self._devices.replace_device(changed, stored.etag, audit):
                return changed
        raise contended(f"the device {wanted.device_id}")

    async def get(self, hub_id: str, device_id: DeviceId) -> Device:
        """Return the device; raises `Problem(NOT_FOUND)`."""
        device = await self._devices.get_device(hub_id, device_id)
        if device is None:
            raise Problem(Kind.NOT_FOUND, f"the device {device_id} is not registered")
        return device

    async def list(self, hub_id: str, *, after: str = "", top: int = MAX_LISTED) -> list[Device]:
        """Return up to *top* devices by id, from the one after *after* on.

        Raises `Problem(MALFORMED)` when *top* is not within 1 and `MAX_LISTED`.
        """
        if not 1 <= top <= MAX_LISTED:
            raise Problem(Kind.MALFORMED, f"top is a number from 1 to {MAX_LISTED}")
        return await self._devices.list_devices(hub_id, after=after, limit=top)

    async def delete(self, hub_id: str, device_id: DeviceId, if_match: ETag, *, actor: str) -> None:
        """Delete the device. Raises `Problem(NOT_FOUND)` or `Problem(PRECONDITION_FAILED)`."""
        stored = await self.get(hub_id, device_id)
        expected = None if if_match.matches_any else if_match
        audit = self._audit(self._clock.now(), actor, "device.delete", stored)
        if not await self._devices.delete_device(hub_id, device_id, expected, audit):
            await self.get(hub_id, device_id)
            raise _outdated(device_id)

    async def statistics(self, hub_id: str) -> tuple[int, int]:
        """Return how many devices the hub has, and how many of them are enabled."""
        return await self._devices.count_devices(hub_id)

    async def check_room(self, hub_id: str) -> None:
        """Raise `Problem(TOO_LARGE)` when the hub is full; counts one more device otherwise."""
        now = self._clock.monotonic()
        known = self._totals.get(hub_id)
        if known is None or now - known[0] >= _COUNT_SECONDS:
            total, _ = await self._devices.count_devices(hub_id)
            known = (now, total)
        counted, total = known
        self._totals[hub_id] = (counted, total + 1)
        if total >= MAX_DEVICES:
            raise Problem(Kind.TOO_LARGE, f"a hub has at most {MAX_DEVICES} devices")

    def _audit(self, at: datetime, actor: str, action: str, device: Device) -> AuditEntry:
        return AuditEntry(
            at=at,
            actor=actor,
            action=action,
            subject=f"{device.hub_id}/{device.device_id}",
            detail={
                "status": device.status.value,
                "authentication": device.authentication.type.value,
            },
        )


def _reason(text: str | None) -> str | None:
    if text is not None and len(text) > _MAX_REASON:
        raise Problem(Kind.MALFORMED, f"statusReason has at most {_MAX_REASON} characters")
    return text or None


def _outdated(device_id: DeviceId) -> Problem:
    return Problem(
        Kind.PRECONDITION_FAILED, f"the device {device_id} has changed: its ETag is another"
    )
