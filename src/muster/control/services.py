"""Provisioning services: what they are made of, their tags and their links to hubs.

How they are kept is in `keeper`.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

from muster.clock import Clock
from muster.control.documents import SERVICE_TIERS, check_tags, merge_document
from muster.control.hostnames import service_hostname
from muster.control.keeper import ResourceKeeper, Shelf
from muster.control.links import LinkSpecification, check_link, merge_links
from muster.control.names import check_service_name
from muster.control.policies import (
    DEFAULT_SERVICE_POLICIES,
    SERVICE_RIGHTS,
    PolicySpecification,
    default_policies,
    merge_policies,
)
from muster.control.subscriptions import Subscriptions
from muster.errors import Kind, Problem
from muster.ids import new_etag, new_uuid
from muster.model.resource import (
    AllocationPolicy,
    LinkedHub,
    ProvisioningService,
    ResourceAddress,
)
from muster.ports.hubs import HubDirectory
from muster.ports.resources import ServiceStore

# The public service's limit for a subscription.
MAX_SERVICES = 10


@dataclass(frozen=True, slots=True)
class ServiceSpecification:
    """A provisioning service as a client asks for it. None: left out, so kept or defaulted."""

    policies: tuple[PolicySpecification, ...] | None = None
    links: tuple[LinkSpecification, ...] | None = None
    allocation_policy: str | None = None
    document: dict[str, Any] = field(default_factory=dict)


class ProvisioningServices(ResourceKeeper[ProvisioningService, ServiceSpecification]):
    """Provisioning services as the control plane sees them; see `ResourceKeeper`.

    *own_names* are host names and addresses that lead to this server whatever hubs there are,
    and the domain under which hubs get theirs.
    """

    def __init__(
        self,
        store: ServiceStore,
        hubs: HubDirectory,
        subscriptions: Subscriptions,
        clock: Clock,
        *,
        domain: str,
        own_names: Collection[str] = (),
    ) -> None:
        super().__init__(
            Shelf(
                word="service",
                title="provisioning service",
                find=store.find_service_by_name,
                everything=store.list_services,
                insert=store.insert_service,
                replace=store.replace_service,
                delete=store.delete_service,
            ),
            subscriptions,
            clock,
        )
        self._hubs = hubs
        self._domain = domain.lower()
        self._own_names = {name.lower() for name in own_names}

    async def set_tags(
        self, address: ResourceAddress, tags: Any, *, by: str
    ) -> ProvisioningService:
        """Give the service exactly these tags."""
        checked = check_tags(tags)
        return await self._change(
            address,
            lambda service: replace(service, document=service.document | {"tags": checked}),
            by=by,
            action="service.update",
        )

    def _check_name(self, name: str) -> None:
        check_service_name(name)

    async def _made(
        self, place: ResourceAddress, wanted: ServiceSpecification
    ) -> ProvisioningService:
        others = await self._shelf.everything()
        siblings = sum(one.address.subscription_id == place.subscription_id for one in others)
        if siblings >= MAX_SERVICES:
            raise Problem(
                Kind.CONFLICT, f"a subscription has at most {MAX_SERVICES} provisioning services"
            )
        if wanted.policies is None:
            policies = default_policies(DEFAULT_SERVICE_POLICIES)
        else:
            policies = merge_policies(wanted.policies, (), allowed=SERVICE_RIGHTS)
        return ProvisioningService(
            id=new_uuid(),
            address=place,
            hostname=service_hostname(place.name, domain=self._domain),
            id_scope=f"0ne{secrets.token_hex(4).upper()}",
            etag=new_etag(),
            created=self._clock.now(),
            allocation_policy=_allocation(wanted.allocation_policy, AllocationPolicy.HASHED),
            linked_hubs=await self._links(wanted, ()),
            policies=policies,
            document=merge_document(wanted.document, None, tiers=SERVICE_TIERS),
        )

    async def _updated(
        self, stored: ProvisioningService, wanted: ServiceSpecification
    ) -> ProvisioningService:
        policies = stored.policies
        if wanted.policies is not None:
            policies = merge_policies(wanted.policies, stored.policies, allowed=SERVICE_RIGHTS)
        return replace(
            stored,
            etag=new_etag(),
            allocation_policy=_allocation(wanted.allocation_policy, stored.allocation_policy),
            linked_hubs=await self._links(wanted, stored.linked_hubs),
            policies=policies,
            document=merge_document(wanted.document, stored.document, tiers=SERVICE_TIERS),
        )

    async def _links(
        self, wanted: ServiceSpecification, stored: tuple[LinkedHub, ...]
    ) -> tuple[LinkedHub, ...]:
        if wanted.links is None:
            return stored
        links = merge_links(wanted.links, stored)
        for link in links:
            # What is linked already stays so when its hub is gone or has other keys: an update
            # of something else must not fail for it.
            if link.connection_string not in {known.connection_string for known in stored}:
                hub = await self._hubs.find_hub(link.hostname)
                check_link(link, hub, ours=self._is_ours(link.hostname))
        return links

    def _is_ours(self, hostname: str) -> bool:
        if hostname in self._own_names or hostname == self._domain:
            return True
        if hostname.endswith(f".{self._domain}"):
            return True
        try:
            return ipaddress.ip_address(hostname).is_loopback
        except ValueError:
            return False


def _allocation(given: str | None, otherwise: AllocationPolicy) -> AllocationPolicy:
    if given is None:
        return otherwise
    for policy in AllocationPolicy:
        if policy.value.lower() == given.lower():
            return policy
    names = ", ".join(policy.value for policy in AllocationPolicy)
    raise Problem(Kind.MALFORMED, f"the allocationPolicy is one of {names}")
