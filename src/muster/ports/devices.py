"""What the hub needs of its device registry's storage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from muster.ids import DeviceId, ETag
from muster.model.audit import AuditEntry
from muster.model.device import Device


class DeviceReader(Protocol):
    """Look devices up."""

    async def get_device(self, hub_id: str, device_id: DeviceId) -> Device | None:
        """Return that device of that hub, or None."""
        ...

    async def list_devices(self, hub_id: str, *, after: str, limit: int) -> list[Device]:
        """Return up to *limit* devices whose id sorts after *after*, by id."""
        ...

    async def device_versions(
        self, hub_id: str, device_ids: Sequence[DeviceId]
    ) -> dict[DeviceId, ETag]:
        """Return the stored version of each of these devices that exists (at most 1000 ids)."""
        ...

    async def count_devices(self, hub_id: str) -> tuple[int, int]:
        """Return how many devices there are, and how many of them are enabled."""
        ...


class DeviceStore(DeviceReader, Protocol):
    """Look devices up and change them.

    Each change, its audit line and its notice are one transaction. A new device is no notice.
    """

    async def insert_device(self, device: Device, audit: AuditEntry) -> bool:
        """Store a new device; False, and nothing changed, when the id is taken."""
        ...

    async def replace_device(self, device: Device, expected: ETag, audit: AuditEntry) -> bool:
        """Store *device* over the version *expected*; False when that is not the stored one."""
        ...

    async def delete_device(
        self, hub_id: str, device_id: DeviceId, expected: ETag | None, audit: AuditEntry
    ) -> bool:
        """Delete it, if it still has version *expected* (None: any); False when it was not so."""
        ...

    async def forget_hub(self, hub_id: str, *, limit: int) -> int:
        """Delete up to *limit* devices of a hub that is gone; return how many there were.

        Without notices or audit lines: the hub's own deletion told of it.
        """
        ...
