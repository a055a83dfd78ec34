"""Make, change and delete provisioning services. The rules are those of `hubs`."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from muster.clock import Clock
from muster.control.certificates import Certificates
from muster.control.documents import SERVICE_TIERS, check_tags, merge_document
from muster.control.hostnames import service_hostname
from muster.control.links import LinkSpecification, check_link, merge_links
from muster.control.names import check_service_name
from muster.control.placement import Precondition, is_at, is_within, name_taken
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
from muster.model.audit import AuditEntry
from muster.model.contention import ATTEMPTS, contended
from muster.model.resource import (
    AccessPolicy,
    AllocationPolicy,
    LinkedHub,
    ProvisioningService,
    ResourceAddress,
)
from muster.ports.hubs import HubDirectory
from muster.ports.resources import ServiceStore, Stored

# The public service's limit for a subscription.
MAX_SERVICES = 10


@dataclass(frozen=True, slots=True)
class ServiceSpecification:
    """A provisioning service as a client asks for it. None: left out, so kept or defaulted."""

    policies: tuple[PolicySpecification, ...] | None = None
    links: tuple[LinkSpecification, ...] | None = None
    allocation_policy: str | None = None
    document: dict[str, Any] = field(default_factory=dict)


class ProvisioningServices:
    """Provisioning services as the control plane sees them. The caller has authorised *by*.

    *own_names* are host names and addresses that lead to this server whatever hubs there are,
    and the domain under which hubs get theirs. Every method that takes an address raises
    `Problem(NOT_FOUND)` when no service stands there.
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
        self._store = store
        self._hubs = hubs
        self._subscriptions = subscriptions
        self._clock = clock
        self._domain = domain.lower()
        self._own_names = {name.lower() for name in own_names}

    async def put(
        self,
        address: ResourceAddress,
        wanted: ServiceSpecification,
        *,
        precondition: Precondition,
        by: str,
    ) -> tuple[ProvisioningService, bool]:
        """Make the service, or bring it to what is *wanted*; return it and whether it is new.

        Raises `Problem(MALFORMED)` for what is wanted, `Problem(CONFLICT)` when the name is
        taken or the subscription full, `Problem(NOT_FOUND)` for its group.
        """
        check_service_name(address.name)
        group = await self._subscriptions.get_group(address.subscription_id, address.resource_group)
        place = ResourceAddress(group.subscription_id, group.name, address.name)
        for _ in range(ATTEMPTS):
            stored = await self._store.find_service_by_name(address.name)
            if stored is not None and not is_at(stored.address, place):
                raise name_taken(address.name)
            precondition.check(None if stored is None else stored.etag)
            if stored is None:
                service = await self._new(place, wanted)
                audit = self._audit(by, "service.create", service)
                if await self._store.insert_service(service, audit) is Stored.STORED:
                    return service, True
                continue
            service = await self._updated(stored, wanted)
            audit = self._audit(by, "service.update", service)
            if await self._store.replace_service(service, stored.etag, audit):
                return service, False
        raise contended(f"the provisioning service {address.name!r}")

    async def get(self, address: ResourceAddress) -> ProvisioningService:
        """Return the service at *address*."""
        service = await self._store.find_service_by_name(address.name)
        if service is None or not is_at(service.address, address):
            raise Problem(
                Kind.NOT_FOUND, f"there is no provisioning service {address.name!r} in this group"
            )
        return service

    async def list(
        self, subscription_id: str, resource_group: str | None = None
    ) -> Sequence[ProvisioningService]:
        """Return the subscription's services, or those of one of its groups, oldest first."""
        services = await self._store.list_services()
        return [one for one in services if is_within(one.address, subscription_id, resource_group)]

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

    async def delete(
        self, address: ResourceAddress, *, precondition: Precondition, by: str
    ) -> bool:
        """Delete the service with all that belongs to it; False when there was none."""
        for _ in range(ATTEMPTS):
            service = await self._store.find_service_by_name(address.name)
            if service is None or not is_at(service.address, address):
                return False
            precondition.check(service.etag)
            audit = self._audit(by, "service.delete", service)
            if await self._store.delete_service(service.id, service.etag, audit):
                return True
        raise contended(f"the provisioning service {address.name!r}")

    async def is_name_free(self, name: str) -> bool:
        """Whether no service has that name; raises `Problem(MALFORMED)` when none could."""
        check_service_name(name)
        return await self._store.find_service_by_name(name) is None

    async def keys(self, address: ResourceAddress) -> tuple[AccessPolicy, ...]:
        """Return the service's shared access policies with their keys."""
        return (await self.get(address)).policies

    async def certificates(self, address: ResourceAddress) -> Certificates:
        """Return the service's CA certificates."""
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
        """Store what *change* makes of the service's CA certificates; return that."""

        def change_service(service: ProvisioningService) -> ProvisioningService:
            after = change(service.certificates)
            if after == service.certificates:
                return service
            return replace(service, certificates=after)

        service = await self._change(
            address, change_service, by=by, action=action, certificate=certificate
        )
        return service.certificates

    async def _new(
        self, place: ResourceAddress, wanted: ServiceSpecification
    ) -> ProvisioningService:
        others = await self._store.list_services()
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

    async def _change(
        self,
        address: ResourceAddress,
        change: Callable[[ProvisioningService], ProvisioningService],
        *,
        by: str,
        action: str,
        **detail: str,
    ) -> ProvisioningService:
        """Store what *change* makes of the service. The same object: nothing to store."""
        for _ in range(ATTEMPTS):
            stored = await self.get(address)
            changed = change(stored)
            if changed is stored:
                return stored
            changed = replace(changed, etag=new_etag())
            audit = self._audit(by, action, changed, **detail)
            if await self._store.replace_service(changed, stored.etag, audit):
                return changed
        raise contended(f"the provisioning service {address.name!r}")

    def _audit(
        self, by: str, action: str, service: ProvisioningService, **detail: str
    ) -> AuditEntry:
        return AuditEntry(
            self._clock.now(),
            by,
            action,
            f"service:{service.address.name}",
            detail={"id": service.id, **detail},
        )


def _allocation(given: str | None, otherwise: AllocationPolicy) -> AllocationPolicy:
    if given is None:
        return otherwise
    for policy in AllocationPolicy:
        if policy.value.lower() == given.lower():
            return policy
    names = ", ".join(policy.value for policy in AllocationPolicy)
    raise Problem(Kind.MALFORMED, f"the allocationPolicy is one of {names}")
