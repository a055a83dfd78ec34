"""What provisioning may do at the hubs of this server.

Rules:

1. A link's connection string carries a key; nothing is done unless it is a current key of a
   policy of that hub with RegistryWrite.
2. A device that exists keeps its generation, its twin, its capabilities and its status: only its
   credentials are brought up to date. Provisioning never enables what an operator disabled.
3. What is written of a device's certificates: docs/decisions/0011.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from muster.clock import Clock
from muster.errors import Kind, Problem
from muster.hub.credentials import provisioned_credentials
from muster.hub.registry import Registry
from muster.ids import DeviceId, new_etag, new_uuid
from muster.model.audit import AuditEntry
from muster.model.contention import ATTEMPTS, contended
from muster.model.device import Device, DeviceStatus, ProvisionedDevice
from muster.model.resource import Hub, LinkedHub, Right
from muster.ports.devices import DeviceStore
from muster.ports.hubs import HubDirectory
from muster.protocols.connection_string import parse_connection_string

Decision = Callable[[Device | None], Device | None]


class LinkedHubs:
    """`ports.hubs.LinkedHubRegistry` and `DeviceMover` for hubs of this server.

    Links to hubs elsewhere are refused with `Problem(NOT_FOUND)`.
    """

    def __init__(
        self, registry: Registry, devices: DeviceStore, hubs: HubDirectory, clock: Clock
    ) -> None:
        self._registry = registry
        self._devices = devices
        self._hubs = hubs
        self._clock = clock

    async def ensure_device(self, link: LinkedHub, device: ProvisionedDevice) -> None:
        """Have *device* at the hub of *link*, created or brought up to date; safe to repeat."""
        hub, actor = await self._open(link)

        def decide(stored: Device | None) -> Device | None:
            if stored is None:
                return self._new(hub, device)
            return self._changed(stored, self._updated(hub, stored, device))

        await self._write(hub, device.device_id, decide, actor)

    async def reset_device(self, link: LinkedHub, device: ProvisionedDevice) -> None:
        """Give a device its initial twin and capabilities back; its status stays."""
        hub, actor = await self._open(link)

        def decide(stored: Device | None) -> Device | None:
            if stored is None:
                return self._new(hub, device)
            first = replace(
                self._updated(hub, stored, device),
                iot_edge=device.iot_edge,
                tags=device.initial_twin.tags,
                desired=device.initial_twin.desired,
            )
            return self._changed(stored, first)

        await self._write(hub, device.device_id, decide, actor)

    async def move_device(
        self, origin: LinkedHub, target: LinkedHub, device: ProvisionedDevice, *, keep_data: bool
    ) -> None:
        """Have *device* at *target* and no longer at *origin*; removed from there last.

        An *origin* that is no hub (any more) has no device to bring along or to remove.
        """
        to, actor = await self._open(target)
        old = await self._hubs.find_hub(origin.hostname)
        if old is None:
            await self.ensure_device(target, device)
            return
        if old.id == to.id:
            await (self.ensure_device if keep_data else self.reset_device)(target, device)
            return
        leaving = f"policy:{_authorised_policy(old, origin)}"
        left = await self._devices.get_device(old.id, device.device_id)

        def decide(stored: Device | None) -> Device | None:
            if stored is None:
                fresh = self._new(to, device)
                return fresh if left is None else _after_move(fresh, left, keep_data=keep_data)
            updated = self._updated(to, stored, device)
            if left is not None and left.status is DeviceStatus.DISABLED:
                updated = _with_status_of(updated, left)
            return self._changed(stored, updated)

        await self._write(to, device.device_id, decide, actor)
        if left is not None:
            audit = self._audit(leaving, "device.delete", left)
            await self._devices.delete_device(old.id, device.device_id, None, audit)

    async def _open(self, link: LinkedHub) -> tuple[Hub, str]:
        hub = await self._hubs.find_hub(link.hostname)
        if hub is None:
            raise Problem(
                Kind.NOT_FOUND,
                f"{link.hostname} is no hub of this server; links to remote hubs come later",
            )
        return hub, f"policy:{_authorised_policy(hub, link)}"

    async def _write(self, hub: Hub, device_id: DeviceId, decide: Decision, actor: str) -> None:
        for _ in range(ATTEMPTS):
            stored = await self._devices.get_device(hub.id, device_id)
            wanted = decide(stored)
            if wanted is None:
                return
            if stored is None:
                await self._registry.check_room(hub.id)
                audit = self._audit(actor, "device.create", wanted)
                done = await self._devices.insert_device(wanted, audit)
            else:
                audit = self._audit(actor, "device.update", wanted)
                done = await self._devices.replace_device(wanted, stored.etag, audit)
            if done:
                return
        raise contended(f"the device {device_id}")

    def _new(self, hub: Hub, device: ProvisionedDevice) -> Device:
        now = self._clock.now()
        return Device(
            hub_id=hub.id,
            device_id=device.device_id,
            generation_id=new_uuid(),
            etag=new_etag(),
            status=DeviceStatus.ENABLED,
            status_reason=None,
            status_updated=now,
            authentication=provisioned_credentials(hub, device, now=now),
            created=now,
            iot_edge=device.iot_edge,
            tags=device.initial_twin.tags,
            desired=device.initial_twin.desired,
        )

    def _updated(self, hub: Hub, stored: Device, device: ProvisionedDevice) -> Device:
        proof = provisioned_credentials(hub, device, now=self._clock.now())
        return replace(stored, authentication=proof)

    def _changed(self, stored: Device, wanted: Device) -> Device | None:
        # None: there is nothing to do, so repeating costs no write and no version.
        return None if wanted == stored else replace(wanted, etag=new_etag())

    def _audit(self, actor: str, action: str, device: Device) -> AuditEntry:
        return AuditEntry(
            at=self._clock.now(),
            actor=actor,
            action=action,
            subject=f"{device.hub_id}/{device.device_id}",
            detail={
                "status": device.status.value,
                "authentication": device.authentication.type.value,
                "by": "provisioning",
            },
        )


def _after_move(fresh: Device, left: Device, *, keep_data: bool) -> Device:
    moved = _with_status_of(fresh, left)
    if not keep_data:
        return moved
    return replace(moved, tags=left.tags, desired=left.desired, iot_edge=left.iot_edge)


def _with_status_of(device: Device, other: Device) -> Device:
    return replace(
        device,
        status=other.status,
        status_reason=other.status_reason,
        status_updated=other.status_updated,
    )


def _authorised_policy(hub: Hub, link: LinkedHub) -> str:
    # One message for every reason: a wrong key is not to be told from a wrong policy.
    refusal = Problem(
        Kind.FORBIDDEN,
        f"the link to {link.hostname} has no current key of a policy with RegistryWrite",
    )
    try:
        parsed = parse_connection_string(link.connection_string)
    except Problem:
        raise refusal from None
    policy = hub.policy(parsed.key_name)
    if policy is None or Right.REGISTRY_WRITE not in policy.rights or not policy.holds(parsed.key):
        raise refusal
    return policy.key_name
