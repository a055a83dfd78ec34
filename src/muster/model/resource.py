"""Hubs and provisioning services as the control plane makes them and the services use them."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

from muster.ids import ETag


class Right(Enum):
    """What a shared access policy allows. Hub rights first, then provisioning rights."""

    REGISTRY_READ = "RegistryRead"
    REGISTRY_WRITE = "RegistryWrite"
    SERVICE_CONNECT = "ServiceConnect"
    DEVICE_CONNECT = "DeviceConnect"
    SERVICE_CONFIG = "ServiceConfig"
    ENROLLMENT_READ = "EnrollmentRead"
    ENROLLMENT_WRITE = "EnrollmentWrite"
    REGISTRATION_STATUS_READ = "RegistrationStatusRead"
    REGISTRATION_STATUS_WRITE = "RegistrationStatusWrite"


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """A shared access policy: a name, two keys (base64) and what they allow."""

    key_name: str
    primary_key: str = field(repr=False)
    secondary_key: str = field(repr=False)
    rights: frozenset[Right]

    def holds(self, key: str) -> bool:
        """Whether *key* is one of the two, compared as text. Nothing is no key."""
        given = key.encode()
        # Both are compared, whatever the first says: time must not tell which one matched.
        matches = [
            hmac.compare_digest(known.encode(), given)
            for known in (self.primary_key, self.secondary_key)
        ]
        return bool(key) and any(matches)


@dataclass(frozen=True, slots=True)
class CaCertificate:
    """A CA certificate that was uploaded to a hub or a provisioning service.

    Only an `is_verified` one authenticates anything. `verification_code` is the pending
    proof-of-possession challenge, single-use, good until `verification_expires`.
    """

    name: str
    der: bytes
    is_verified: bool
    created: datetime
    updated: datetime
    etag: ETag
    verification_code: str | None = None
    verification_expires: datetime | None = None


@dataclass(frozen=True, slots=True)
class ResourceAddress:
    """Where a resource stands in the resource manager. Names are compared without case."""

    subscription_id: str
    resource_group: str
    name: str


@dataclass(frozen=True, slots=True)
class Subscription:
    """What resource groups stand in. `id` is a UUID."""

    id: str
    tenant_id: str
    name: str


@dataclass(frozen=True, slots=True)
class ResourceGroup:
    """What resources stand in. Its name is compared without case."""

    subscription_id: str
    name: str
    location: str


@dataclass(frozen=True, slots=True)
class Hub:
    """One IoT hub: its names, keys and trusted CAs.

    `id` never changes and names the hub's devices and its event stream; `hostname` is what
    devices dial and tokens cover. `document` is the rest of the resource as the client
    put it (location, sku, tags, properties), without anything secret.
    """

    id: str
    address: ResourceAddress
    hostname: str
    etag: ETag
    created: datetime
    partition_count: int
    retention_days: int
    policies: tuple[AccessPolicy, ...]
    certificates: tuple[CaCertificate, ...] = ()
    consumer_groups: tuple[str, ...] = ("$Default",)
    document: dict[str, Any] = field(default_factory=dict)

    def policy(self, key_name: str) -> AccessPolicy | None:
        """Return the shared access policy of that exact name."""
        return next((policy for policy in self.policies if policy.key_name == key_name), None)

    @property
    def verified_certificates(self) -> tuple[CaCertificate, ...]:
        """The CA certificates that devices may be authenticated with."""
        return tuple(entry for entry in self.certificates if entry.is_verified)


class AllocationPolicy(Enum):
    """How a provisioning service chooses among its hubs."""

    HASHED = "Hashed"
    GEO_LATENCY = "GeoLatency"
    STATIC = "Static"


@dataclass(frozen=True, slots=True)
class LinkedHub:
    """A hub that a provisioning service may assign devices to.

    `connection_string` carries a key; show it only masked.
    """

    hostname: str
    connection_string: str = field(repr=False)
    location: str
    apply_allocation_policy: bool = True
    allocation_weight: int = 1


@dataclass(frozen=True, slots=True)
class ProvisioningService:
    """One device provisioning service: its scope, linked hubs, keys and trusted CAs."""

    id: str
    address: ResourceAddress
    hostname: str
    id_scope: str
    etag: ETag
    created: datetime
    allocation_policy: AllocationPolicy
    linked_hubs: tuple[LinkedHub, ...]
    policies: tuple[AccessPolicy, ...]
    certificates: tuple[CaCertificate, ...] = ()
    document: dict[str, Any] = field(default_factory=dict)

    def policy(self, key_name: str) -> AccessPolicy | None:
        """Return the shared access policy of that exact name."""
        return next((policy for policy in self.policies if policy.key_name == key_name), None)

    def linked_hub(self, hostname: str) -> LinkedHub | None:
        """Return the link to that host, compared without case."""
        folded = hostname.lower()
        return next((hub for hub in self.linked_hubs if hub.hostname.lower() == folded), None)
