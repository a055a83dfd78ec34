"""What the control plane needs of storage, and of the device registry."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from muster.ids import ETag
from muster.model.audit import AuditEntry
from muster.model.resource import Hub, ProvisioningService, ResourceGroup, Subscription


class Stored(Enum):
    """What became of an insert."""

    STORED = "stored"
    NAME_TAKEN = "name taken"
    HOSTNAME_TAKEN = "host name taken"
    SCOPE_TAKEN = "id scope taken"


class HubStore(Protocol):
    """Hubs. Names are unique on the whole server, as they are host names.

    Each change, its audit line and its notice (`hub.changed`, `hub.deleted`) are one transaction.
    """

    async def find_hub_by_name(self, name: str) -> Hub | None:
        """Return the hub of that name, compared without case."""
        ...

    async def list_hubs(self) -> list[Hub]:
        """Return every hub, oldest first."""
        ...

    async def insert_hub(self, hub: Hub, audit: AuditEntry) -> Stored:
        """Store a new hub; nothing changed when its name or its host name is taken."""
        ...

    async def replace_hub(self, hub: Hub, expected: ETag, audit: AuditEntry) -> bool:
        """Store *hub* over the version *expected*; False when that is not the stored one.

        Raises `Problem(CONFLICT)` when another hub has its host name.
        """
        ...

    async def delete_hub(self, hub_id: str, expected: ETag, audit: AuditEntry) -> bool:
        """Delete it if it still has version *expected*; False when it was not so."""
        ...


class ServiceStore(Protocol):
    """Provisioning services. As `HubStore`; notices `service.changed`, `service.deleted`."""

    async def find_service_by_name(self, name: str) -> ProvisioningService | None:
        """Return the provisioning service of that name, compared without case."""
        ...

    async def list_services(self) -> list[ProvisioningService]:
        """Return every provisioning service, oldest first."""
        ...

    async def insert_service(self, service: ProvisioningService, audit: AuditEntry) -> Stored:
        """Store a new service; nothing changed when its name or its id scope is taken."""
        ...

    async def replace_service(
        self, service: ProvisioningService, expected: ETag, audit: AuditEntry
    ) -> bool:
        """Store *service* over the version *expected*; False when that is not the stored one."""
        ...

    async def delete_service(self, service_id: str, expected: ETag, audit: AuditEntry) -> bool:
        """Delete it if it still has version *expected*; False when it was not so."""
        ...


class SubscriptionStore(Protocol):
    """Subscriptions and resource groups."""

    async def ensure_subscription(
        self, subscription: Subscription, group: ResourceGroup, audit: AuditEntry
    ) -> tuple[Subscription, ResourceGroup]:
        """Store both unless a subscription exists; return the first there is and its group."""
        ...

    async def list_subscriptions(self) -> list[Subscription]:
        """Return every subscription."""
        ...

    async def list_groups(self, subscription_id: str) -> list[ResourceGroup]:
        """Return the resource groups of that subscription, by name."""
        ...


class DeviceCounter(Protocol):
    """How full a hub is."""

    async def count_devices(self, hub_id: str) -> tuple[int, int]:
        """Return how many devices there are, and how many of them are enabled."""
        ...
