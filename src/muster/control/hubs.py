"""Hubs: what they are made of, their tags and their consumer groups.

How they are kept is in `keeper`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from muster.clock import Clock
from muster.control.documents import HUB_TIERS, check_tags, merge_document
from muster.control.hostnames import hub_hostname, tagged_hostname
from muster.control.keeper import ResourceKeeper, Shelf
from muster.control.names import (
    DEFAULT_CONSUMER_GROUP,
    check_consumer_group_name,
    check_hub_name,
)
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
from muster.model.resource import Hub, ResourceAddress
from muster.ports.resources import DeviceCounter, HubStore

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


class Hubs(ResourceKeeper[Hub, HubSpecification]):
    """Hubs as the control plane sees them; see `ResourceKeeper`."""

    def __init__(
        self,
        store: HubStore,
        subscriptions: Subscriptions,
        devices: DeviceCounter,
        clock: Clock,
        *,
        domain: str,
    ) -> None:
        super().__init__(
            Shelf(
                word="hub",
                title="hub",
                find=store.find_hub_by_name,
                everything=store.list_hubs,
                insert=store.insert_hub,
                replace=store.replace_hub,
                delete=store.delete_hub,
            ),
            subscriptions,
            clock,
        )
        self._devices = devices
        self._domain = domain

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

    def _check_name(self, name: str) -> None:
        check_hub_name(name)

    async def _made(self, place: ResourceAddress, wanted: HubSpecification) -> Hub:
        others = await self._shelf.everything()
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

    async def _updated(self, stored: Hub, wanted: HubSpecification) -> Hub:
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


def _find(names: Sequence[str], name: str) -> str | None:
    return next((known for known in names if known.lower() == name.lower()), None)


def _in_range(what: str, given: int | None, otherwise: int, least: int, most: int) -> int:
    value = otherwise if given is None else given
    if not least <= value <= most:
        raise Problem(Kind.MALFORMED, f"{what} is between {least} and {most}")
    return value
