"""The tables of subscriptions, hubs and provisioning services, and how records become rows.

What is looked up or must be unique has a column of its own. The rest of a resource, which is always
read and replaced as a whole, is one JSON body.
"""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any

from sqlalchemy import Column, Row, String, Table

from muster.ids import ETag
from muster.model.resource import (
    AccessPolicy,
    AllocationPolicy,
    CaCertificate,
    Hub,
    LinkedHub,
    ProvisioningService,
    ResourceAddress,
    Right,
)
from muster.store.schema import JsonDocument, UtcDateTime, metadata

subscriptions = Table(
    "subscriptions",
    metadata,
    Column("id", String, primary_key=True),
    Column("tenant_id", String, nullable=False),
    Column("name", String, nullable=False),
)

resource_groups = Table(
    "resource_groups",
    metadata,
    Column("subscription_id", String, primary_key=True),
    Column("folded_name", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("location", String, nullable=False),
)

hubs = Table(
    "hubs",
    metadata,
    Column("id", String, primary_key=True),
    Column("subscription_id", String, nullable=False),
    Column("resource_group", String, nullable=False),
    Column("name", String, nullable=False),
    Column("folded_name", String, nullable=False, unique=True),
    Column("hostname", String, nullable=False, unique=True),
    Column("etag", String, nullable=False),
    Column("created", UtcDateTime, nullable=False),
    # Keys, certificates and the client's document: see _hub_body.
    Column("body", JsonDocument, nullable=False),
)

provisioning_services = Table(
    "provisioning_services",
    metadata,
    Column("id", String, primary_key=True),
    Column("subscription_id", String, nullable=False),
    Column("resource_group", String, nullable=False),
    Column("name", String, nullable=False),
    Column("folded_name", String, nullable=False, unique=True),
    Column("hostname", String, nullable=False, index=True),
    Column("id_scope", String, nullable=False, unique=True),
    Column("etag", String, nullable=False),
    Column("created", UtcDateTime, nullable=False),
    Column("body", JsonDocument, nullable=False),
)


def _place(address: ResourceAddress) -> dict[str, Any]:
    return {
        "subscription_id": address.subscription_id,
        "resource_group": address.resource_group,
        "name": address.name,
        "folded_name": address.name.lower(),
    }


def hub_values(hub: Hub) -> dict[str, Any]:
    """Return the row of *hub*."""
    return {
        "id": hub.id,
        **_place(hub.address),
        "hostname": hub.hostname,
        "etag": str(hub.etag),
        "created": hub.created,
        "body": {
            "partition_count": hub.partition_count,
            "retention_days": hub.retention_days,
            "policies": [_policy_body(policy) for policy in hub.policies],
            "certificates": [_certificate_body(entry) for entry in hub.certificates],
            "consumer_groups": list(hub.consumer_groups),
            "document": hub.document,
        },
    }


def hub_record(row: Row[Any]) -> Hub:
    """Return the hub of *row*."""
    body = row.body
    return Hub(
        id=row.id,
        address=ResourceAddress(row.subscription_id, row.resource_group, row.name),
        hostname=row.hostname,
        etag=ETag(row.etag),
        created=row.created,
        partition_count=body["partition_count"],
        retention_days=body["retention_days"],
        policies=tuple(_policy(entry) for entry in body["policies"]),
        certificates=tuple(_certificate(entry) for entry in body["certificates"]),
        consumer_groups=tuple(body["consumer_groups"]),
        document=body["document"],
    )


def service_values(service: ProvisioningService) -> dict[str, Any]:
    """Return the row of *service*."""
    return {
        "id": service.id,
        **_place(service.address),
        "hostname": service.hostname,
        "id_scope": service.id_scope,
        "etag": str(service.etag),
        "created": service.created,
        "body": {
            "allocation_policy": service.allocation_policy.value,
            "linked_hubs": [
                {
                    "hostname": link.hostname,
                    "connection_string": link.connection_string,
                    "location": link.location,
                    "apply_allocation_policy": link.apply_allocation_policy,
                    "allocation_weight": link.allocation_weight,
                }
                for link in service.linked_hubs
            ],
            "policies": [_policy_body(policy) for policy in service.policies],
            "certificates": [_certificate_body(entry) for entry in service.certificates],
            "document": service.document,
        },
    }


def service_record(row: Row[Any]) -> ProvisioningService:
    """Return the provisioning service of *row*."""
    body = row.body
    return ProvisioningService(
        id=row.id,
        address=ResourceAddress(row.subscription_id, row.resource_group, row.name),
        hostname=row.hostname,
        id_scope=row.id_scope,
        etag=ETag(row.etag),
        created=row.created,
        allocation_policy=AllocationPolicy(body["allocation_policy"]),
        linked_hubs=tuple(LinkedHub(**entry) for entry in body["linked_hubs"]),
        policies=tuple(_policy(entry) for entry in body["policies"]),
        certificates=tuple(_certificate(entry) for entry in body["certificates"]),
        document=body["document"],
    )


def _policy_body(policy: AccessPolicy) -> dict[str, Any]:
    return {
        "key_name": policy.key_name,
        "primary_key": policy.primary_key,
        "secondary_key": policy.secondary_key,
        "rights": sorted(right.value for right in policy.rights),
    }


def _policy(body: dict[str, Any]) -> AccessPolicy:
    return AccessPolicy(
        key_name=body["key_name"],
        primary_key=body["primary_key"],
        secondary_key=body["secondary_key"],
        rights=frozenset(Right(value) for value in body["rights"]),
    )


def _certificate_body(entry: CaCertificate) -> dict[str, Any]:
    expires = entry.verification_expires
    return {
        "name": entry.name,
        "der": base64.b64encode(entry.der).decode(),
        "is_verified": entry.is_verified,
        "created": entry.created.isoformat(),
        "updated": entry.updated.isoformat(),
        "etag": str(entry.etag),
        "verification_code": entry.verification_code,
        "verification_expires": None if expires is None else expires.isoformat(),
    }


def _certificate(body: dict[str, Any]) -> CaCertificate:
    expires = body["verification_expires"]
    return CaCertificate(
        name=body["name"],
        der=base64.b64decode(body["der"]),
        is_verified=body["is_verified"],
        created=datetime.fromisoformat(body["created"]),
        updated=datetime.fromisoformat(body["updated"]),
        etag=ETag(body["etag"]),
        verification_code=body["verification_code"],
        verification_expires=None if expires is None else datetime.fromisoformat(expires),
    )
