"""Make, change and delete hubs.

Rules:

1. A hub's name is unique on the whole server, without case: it is a host name.
2. Keys appear by `keys` and nowhere else.
3. A change is made to the version that was read: somebody else's change in between is tried
   again on top of theirs, and is the caller's to hear when it named a version itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from muster.clock import Clock
from muster.control.certificates import Certificates
from muster.control.documents import HUB_TIERS, check_tags, merge_document
from muster.control.hostnames import hub_hostname, tagged_hostname
from muster.control.names import (
    DEFAULT_CONSUMER_GROUP,
    check_consumer_group_name,
    check_hub_name,
)
from muster.control.placement import Precondition, is_at, is_within, name_taken
from muster.control.policies import (
    DEFAULT_HUB_POLICIES,
    HUB_RIGHTS,
    PolicySpecification,
    default_policies,
    merge_policies,
)
from muster.control.subscriptions import Subscriptions
from muster.errors import Kind, Problem
from muster.ids import new_etag, new_uuid
from muster.model.audit import AuditEntry
from muster.model.contention import ATTEMPTS, contended
from muster.model.resource import AccessPolicy, Hub, ResourceAddress
from muster.ports.resources import DeviceCounter, HubStore, Stored

# The public service's limit for a subscription; each takes a host name and an event stream here.
MAX_HUBS = 50
# A standard hub's default and range there.
_PARTITIONS = 4
_MIN_PARTITIONS, _MAX_PARTITIONS = 2, 32
_RETENTION_DAYS = 1
_MIN_RETENTION, _MAX_RETENTION = 1, 7
# $Default and twenty, as there.
MAX_CONSUMER_GROUPS = 21


@dataclass(frozen=True, slots=True)
class HubSpecification:
    """A hub as a client asks for it. None: left out, so kept or defaulted."""

    policies: tuple[PolicySpecification, ...] | None = None
    partition_count: int | None = None
    retention_days: int | None = None
    document: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DeviceCounts:
    """How many devices a hub has."""

    total: int
    enabled: int


class Hubs:
    """Hubs as the control plane sees them. The caller has authorised *by* already.

    Every method that takes an address raises `Problem(NOT_FOUND)` when no hub stands there.
    """

    def __init__(
        self,
        store: HubStore,
        subscriptions: Subscriptions,
        devices: DeviceCounter,
        clock: Clock,
        *,
        domain: str,
    ) -> None:
        self._store = store
        self._subscriptions = subscriptions
        self._devices = devices
        self._clock = clock
        self._domain = domain

    async def put(
        self,
        address: ResourceAddress,
        wanted: HubSpecification,
        *,
        precondition: Precondition,
        by: str,
    ) -> tuple[Hub, bool]:
        """Make the hub, or bring it to what is *wanted*; return it and whether it is new.

        Raises `Problem(MALFORMED)` for what is wanted, `Problem(CONFLICT)` when the name or the
        host name is taken or the subscription full, `Problem(NOT_FOUND)` for its group.
        """
        check_hub_name(address.name)
        group = await self._subscriptions.get_group(address.subscription_id, address.resource_group)
        place = ResourceAddress(group.subscription_id, group.name, address.name)
        for _ in range(ATTEMPTS):
            stored = await self._store.find_hub_by_name(address.name)
            if stored is not None and not is_at(stored.address, place):
                raise name_taken(address.name)
            precondition.check(None if stored is None else stored.etag)
            if stored is None:
                hub = await self._new(place, wanted)
                outcome = await self._store.insert_hub(hub, self._audit(by, "hub.create", hub))
                if outcome is Stored.STORED:
                    return hub, True
                continue
            hub = self._updated(stored, wanted)
            audit = self._audit(by, "hub.update", hub)
            if await self._store.replace_hub(hub, stored.etag, audit):
                return hub, False
        raise contended(f"the hub {address.name!r}")

    async def get(self, address: ResourceAddress) -> Hub:
        """Return the hub at *address*."""
        hub = await self._store.find_hub_by_name(address.name)
        if hub is None or not is_at(hub.address, address):
            raise Problem(Kind.NOT_FOUND, f"there is no hub {address.name!r} in this group")
        return hub

    async def list(self, subscription_id: str, resource_group: str | None = None) -> Sequence[Hub]:
        """Return the subscription's hubs, or those of one of its groups, oldest first."""
        hubs = await self._store.list_hubs()
        return [hub for hub in hubs if is_within(hub.address, subscription_id, resource_group)]

    async def set_tags(self, address: ResourceAddress, tags: Any, *, by: str) -> Hub:
        """Give the hub exactly these tags; `muster-hostname` among them moves it to that name."""
        checked = check_tags(tags)

        def change(hub: Hub) -> Hub:
            return replace(
                hub,
                document=hub.document | {"tags": checked},
                hostname=tagged_hostname(checked) or hub.hostname,
            )

        return await self._change(address, change, by=by, action="hub.update")

    async def delete(
        self, address: ResourceAddress, *, precondition: Precondition, by: str
    ) -> bool:
        """Delete the hub with all that belongs to it; False when there was none."""
        for _ in range(ATTEMPTS):
            hub = await self._store.find_hub_by_name(address.name)
            if hub is None or not is_at(hub.address, address):
                return False
            precondition.check(hub.etag)
            audit = self._audit(by, "hub.delete", hub)
            if await self._store.delete_hub(hub.id, hub.etag, audit):
                return True
        raise contended(f"the hub {address.name!r}")

    async def is_name_free(self, name: str) -> bool:
        """Whether no hub has that name; raises `Problem(MALFORMED)` when none could."""
        check_hub_name(name)
        return await self._store.find_hub_by_name(name) is None

    async def keys(self, address: ResourceAddress) -> tuple[AccessPolicy, ...]:
        """Return the hub's shared access policies with their keys."""
        return (await self.get(address)).policies

    async def count_devices(self, address: ResourceAddress) -> DeviceCounts:
        """Return how many devices the hub has."""
        hub = await self.get(address)
        return DeviceCounts(*await self._devices.count_devices(hub.id))

    async def add_consumer_group(self, address: ResourceAddress, name: str, *, by: str) -> str:
        """Add a consumer group; return its name as it was first given. Harmless to repeat."""
        if name.lower() != DEFAULT_CONSUMER_GROUP.lower():
            check_consumer_group_name(name)

        def change(hub: Hub) -> Hub:
            if _find(hub.consumer_groups, name) is not None:
                return hub
            if len(hub.consumer_groups) >= MAX_CONSUMER_GROUPS:
                raise Problem(
                    Kind.CONFLICT, f"a hub has at most {MAX_CONSUMER_GROUPS} consumer groups"
                )
            return replace(hub, consumer_groups=(*hub.consumer_groups, name))

        hub = await self._change(address, change, by=by, action="hub.add-consumer-group")
        return _find(hub.consumer_groups, name) or name

    async def delete_consumer_group(self, address: ResourceAddress, name: str, *, by: str) -> None:
        """Forget a consumer group. Harmless when there is none of that name.

        Raises `Problem(CONFLICT)` for `$Default`, which every hub has.
        """
        if name.lower() == DEFAULT_CONSUMER_GROUP.lower():
            raise Problem(Kind.CONFLICT, f"{DEFAULT_CONSUMER_GROUP} cannot be deleted")

        def change(hub: Hub) -> Hub:
            kept = tuple(group for group in hub.consumer_groups if group.lower() != name.lower())
            return hub if kept == hub.consumer_groups else replace(hub, consumer_groups=kept)

        await self._change(address, change, by=by, action="hub.delete-consumer-group")

    async def certificates(self, address: ResourceAddress) -> Certificates:
        """Return the hub's CA certificates."""
        return (await self.get(address)).certificates

    async def change_certificates(
        self,
        address: ResourceAddress,
        change: Callable[[Certificates], Certificates],
        *,
        action: str,
        certificate: str,
        by: str,
    ) -> Certificates:
        """Store what *change* makes of the hub's CA certificates; return that."""

        def change_hub(hub: Hub) -> Hub:
            after = change(hub.certificates)
            return hub if after == hub.certificates else replace(hub, certificates=after)

        hub = await self._change(address, change_hub, by=by, action=action, certificate=certificate)
        return hub.certificates

    async def _new(self, place: ResourceAddress, wanted: HubSpecification) -> Hub:
        others = await self._store.list_hubs()
        if sum(hub.address.subscription_id == place.subscription_id for hub in others) >= MAX_HUBS:
            raise Problem(Kind.CONFLICT, f"a subscription has at most {MAX_HUBS} hubs")
        document = merge_document(wanted.document, None, tiers=HUB_TIERS)
        if wanted.policies is None:
            policies = default_policies(DEFAULT_HUB_POLICIES)
        else:
            policies = merge_policies(wanted.policies, (), allowed=HUB_RIGHTS)
        return Hub(
            id=new_uuid(),
            address=place,
            hostname=hub_hostname(
                place.name,
                domain=self._domain,
                taken=[hub.hostname for hub in others],
                tags=document["tags"],
            ),
            etag=new_etag(),
            created=self._clock.now(),
            partition_count=_in_range(
                "partitionCount",
                wanted.partition_count,
                _PARTITIONS,
                _MIN_PARTITIONS,
                _MAX_PARTITIONS,
            ),
            retention_days=_in_range(
                "retentionTimeInDays",
                wanted.retention_days,
                _RETENTION_DAYS,
                _MIN_RETENTION,
                _MAX_RETENTION,
            ),
            policies=policies,
            document=document,
        )

    def _updated(self, stored: Hub, wanted: HubSpecification) -> Hub:
        document = merge_document(wanted.document, stored.document, tiers=HUB_TIERS)
        if wanted.partition_count not in (None, stored.partition_count):
            raise Problem(
                Kind.MALFORMED,
                f"the hub has {stored.partition_count} partitions, which cannot be changed",
            )
        policies = stored.policies
        if wanted.policies is not None:
            policies = merge_policies(wanted.policies, stored.policies, allowed=HUB_RIGHTS)
        return replace(
            stored,
            etag=new_etag(),
            hostname=tagged_hostname(document["tags"]) or stored.hostname,
            retention_days=_in_range(
                "retentionTimeInDays",
                wanted.retention_days,
                stored.retention_days,
                _MIN_RETENTION,
                _MAX_RETENTION,
            ),
            policies=policies,
            document=document,
        )

    async def _change(
        self,
        address: ResourceAddress,
        change: Callable[[Hub], Hub],
        *,
        by: str,
        action: str,
        **detail: str,
    ) -> Hub:
        """Store what *change* makes of the hub. The same object: nothing to store."""
        for _ in range(ATTEMPTS):
            stored = await self.get(address)
            changed = change(stored)
            if changed is stored:
                return stored
            changed = replace(changed, etag=new_etag())
            audit = self._audit(by, action, changed, **detail)
            if await self._store.replace_hub(changed, stored.etag, audit):
                return changed
        raise contended(f"the hub {address.name!r}")

    def _audit(self, by: str, action: str, hub: Hub, **detail: str) -> AuditEntry:
        return AuditEntry(
            self._clock.now(),
            by,
            action,
            f"hub:{hub.address.name}",
            detail={"id": hub.id, **detail},
        )


def _find(names: Sequence[str], name: str) -> str | None:
    return next((known for known in names if known.lower() == name.lower()), None)


def _in_range(what: str, given: int | None, otherwise: int, least: int, most: int) -> int:
    value = otherwise if given is None else given
    if not least <= value <= most:
        raise Problem(Kind.MALFORMED, f"{what} is between {least} and {most}")
    return value
