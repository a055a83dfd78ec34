"""Changes to devices that are in force when they return.

A notice would cut the device's session a moment later, and a message could be acknowledged in
between: after the answer to "disable". So whoever changes a device in this process goes through
here; the notices are for the other processes, and the sweep for lost ones.
"""

from __future__ import annotations

from collections.abc import Sequence

from muster.hub.sessions import Sessions
from muster.ids import DeviceId, ETag
from muster.model.audit import AuditEntry
from muster.model.device import Device
from muster.ports.devices import DeviceStore


class EnforcedDevices:
    """A `DeviceStore` whose changes return when the device's session has been judged again."""

    def __init__(self, store: DeviceStore, sessions: Sessions) -> None:
        self._store = store
        self._sessions = sessions

    async def get_device(self, hub_id: str, device_id: DeviceId) -> Device | None:
        """Return that device of that hub, or None."""
        return await self._store.get_device(hub_id, device_id)

    async def list_devices(self, hub_id: str, *, after: str, limit: int) -> list[Device]:
        """Return up to *limit* devices whose id sorts after *after*, by id."""
        return await self._store.list_devices(hub_id, after=after, limit=limit)

    async def count_devices(self, hub_id: str) -> tuple[int, int]:
        """Return how many devices there are, and how many of them are enabled."""
        return await self._store.count_devices(hub_id)

    async def device_versions(
        self, hub_id: str, device_ids: Sequence[DeviceId]
    ) -> dict[DeviceId, ETag]:
        """Return the stored version of each of these devices that exists (at most 1000 ids)."""
        return await self._store.device_versions(hub_id, device_ids)

    async def insert_device(self, device: Device, audit: AuditEntry) -> bool:
        """Store a new device; False, and nothing changed, when the id is taken."""
        return await self._store.insert_device(device, audit)

    async def replace_device(self, device: Device, expected: ETag, audit: AuditEntry) -> bool:
        """Store *device* over the version *expected*; False when that is not the stored one."""
        replaced = await self._store.replace_device(device, expected, audit)
        if replaced:
            await self._sessions.device_changed(device.hub_id, device.device_id)
        return replaced

    async def delete_device(
        self, hub_id: str, device_id: DeviceId, expected: ETag | None, audit: AuditEntry
    ) -> bool:
        """Delete it, if it still has version *expected* (None: any); False when it was not so."""
        deleted = await self._store.delete_device(hub_id, device_id, expected, audit)
        if deleted:
            await self._sessions.device_changed(hub_id, device_id)
        return deleted

    async def forget_hub(self, hub_id: str, *, limit: int) -> int:
        """Delete up to *limit* devices of a hub that is gone; return how many."""
        return await self._store.forget_hub(hub_id, limit=limit)
