"""Enrolment groups: one row each, the marks of the certificates they use, and a version.

The marks are a table of their own, because its primary key is what keeps two groups from using
one certificate. The version counts a service's changes, so that a reader that keeps something
made of the groups learns in one look-up whether it is still good. The store keeps the versions
themselves until it writes, or is told (`forget`) that another process did.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Integer,
    Row,
    String,
    Table,
    bindparam,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from muster.errors import Kind, Problem
from muster.ids import ETag
from muster.model.audit import AuditEntry
from muster.model.device import InitialTwin
from muster.model.enrollment import (
    CaReferences,
    EnrollmentGroup,
    GroupAttestation,
    ProvisioningStatus,
    ReprovisionPolicy,
    SigningCertificates,
)
from muster.model.notice import Notice
from muster.model.resource import AllocationPolicy
from muster.store.audit import insert_audit
from muster.store.cached import ForgetfulWriter
from muster.store.database import Database
from muster.store.outbox import insert_notice
from muster.store.schema import JsonDocument, UtcDateTime, metadata

groups = Table(
    "enrollment_groups",
    metadata,
    Column("service_id", String, primary_key=True),
    Column("group_key", String, primary_key=True),  # the id in lower case
    Column("group_id", String, nullable=False),  # the id as received
    Column("etag", String, nullable=False),
    Column("created", UtcDateTime, nullable=False),
    Column("updated", UtcDateTime, nullable=False),
    Column("status", String, nullable=False),
    Column("document", JsonDocument, nullable=False),  # everything else
)

claims = Table(
    "enrollment_claims",
    metadata,
    Column("service_id", String, primary_key=True),
    Column("claim", String, primary_key=True),
    Column("group_key", String, nullable=False, index=True),
)

versions = Table(
    "enrollment_versions",
    metadata,
    Column("service_id", String, primary_key=True),
    Column("version", Integer, nullable=False),
)

# Every device asks for its service's version at each call; one costs some 100 bytes.
_KEPT_VERSIONS = 1_000

# Built once: making a statement costs as much as running it.
_BY_KEY = select(groups).where(
    groups.c.service_id == bindparam("service"), groups.c.group_key == bindparam("key")
)
_AFTER = (
    select(groups)
    .where(groups.c.service_id == bindparam("service"), groups.c.group_key > bindparam("after"))
    .order_by(groups.c.group_key)
    .limit(bindparam("most"))
)
_VERSION = select(versions.c.version).where(versions.c.service_id == bindparam("service"))


class SqlEnrollmentStore:
    """`ports.enrollments.EnrollmentStore` in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._writer = ForgetfulWriter(database, self.forget)
        self._versions: dict[str, int] = {}

    def forget(self) -> None:
        """Forget the versions: they may have changed. For the notice from another process."""
        self._versions.clear()

    async def get_group(self, service_id: str, group_id: str) -> EnrollmentGroup | None:
        """Return that group of that service, or None."""
        values = {"service": service_id, "key": group_id.lower()}

        def query(connection: Connection) -> EnrollmentGroup | None:
            row = connection.execute(_BY_KEY, values).one_or_none()
            return None if row is None else _group(row)

        return await self._database.read(query)

    async def list_groups(
        self, service_id: str, *, after: str, limit: int
    ) -> list[EnrollmentGroup]:
        """Return up to *limit* groups whose key sorts after *after*, by key."""
        values = {"service": service_id, "after": after, "most": limit}

        def query(connection: Connection) -> list[EnrollmentGroup]:
            return [_group(row) for row in connection.execute(_AFTER, values)]

        return await self._database.scan(query)

    async def enrollments_version(self, service_id: str) -> int:
        """Return a number that grows with every change to that service's enrolments."""
        known = self._versions.get(service_id)
        if known is not None:
            return known

        def query(connection: Connection) -> int:
            found: int | None = connection.execute(_VERSION, {"service": service_id}).scalar()
            return found or 0

        version = await self._database.read(query)
        if len(self._versions) >= _KEPT_VERSIONS:
            self._versions.clear()
        self._versions[service_id] = version
        return version

    async def insert_group(
        self, group: EnrollmentGroup, claims: Iterable[str], audit: AuditEntry
    ) -> bool:
        """Store a new group; False, and nothing changed, when its id is taken."""
        wanted = tuple(claims)

        def change(connection: Connection) -> bool:
            values = {"service": group.service_id, "key": group.key}
            if connection.execute(_BY_KEY, values).one_or_none() is not None:
                return False
            _claim(connection, group, wanted)
            connection.execute(insert(groups).values(**_row(group)))
            _record(connection, "enrollment.changed", group.service_id, group.group_id, audit)
            return True

        try:
            return await self._writer.write(change)
        except IntegrityError:  # another process was first, between the look and the insert
            return False

    async def replace_group(
        self, group: EnrollmentGroup, claims: Iterable[str], expected: ETag, audit: AuditEntry
    ) -> bool:
        """Store *group* over the version *expected*; False when that is not the stored one."""
        wanted = tuple(claims)

        def change(connection: Connection) -> bool:
            replaced = connection.execute(
                update(groups)
                .where(*_version_of(group.service_id, group.key, expected))
                .values(**_row(group))
            )
            if replaced.rowcount == 0:
                return False
            _claim(connection, group, wanted)
            _record(connection, "enrollment.changed", group.service_id, group.group_id, audit)
            return True

        return await self._writer.write(change)

    async def delete_group(
        self, service_id: str, group_id: str, expected: ETag, audit: AuditEntry
    ) -> bool:
        """Delete the version *expected*; False when that is not the stored one."""
        key = group_id.lower()

        def change(connection: Connection) -> bool:
            gone = delete(groups).where(*_version_of(service_id, key, expected))
            if connection.execute(gone).rowcount == 0:
                return False
            connection.execute(_claims_of(service_id, key))
            _record(connection, "enrollment.deleted", service_id, group_id, audit)
            return True

        return await self._writer.write(change)

    async def forget_service(self, service_id: str) -> None:
        """Delete every enrolment of a service that is gone. Harmless to repeat."""

        def change(connection: Connection) -> None:
            for table in (groups, claims, versions):
                connection.execute(delete(table).where(table.c.service_id == service_id))

        await self._writer.write(change)


def _version_of(service_id: str, key: str, expected: ETag) -> tuple[Any, ...]:
    return (
        groups.c.service_id == service_id,
        groups.c.group_key == key,
        groups.c.etag == str(expected),
    )


def _claims_of(service_id: str, key: str) -> Any:
    return delete(claims).where(claims.c.service_id == service_id, claims.c.group_key == key)


def _claim(connection: Connection, group: EnrollmentGroup, wanted: tuple[str, ...]) -> None:
    connection.execute(_claims_of(group.service_id, group.key))
    taken = connection.execute(
        select(claims.c.group_key).where(
            claims.c.service_id == group.service_id, claims.c.claim.in_(wanted)
        )
    ).scalar()
    if taken is not None:
        raise Problem(
            Kind.CONFLICT,
            f"a certificate of this enrolment is in use by the enrolment group {taken};"
            " a certificate may be used by one enrolment only",
        )
    rows = [
        {"service_id": group.service_id, "claim": claim, "group_key": group.key}
        for claim in dict.fromkeys(wanted)
    ]
    if rows:
        connection.execute(insert(claims), rows)


def _record(
    connection: Connection, topic: str, service_id: str, group_id: str, audit: AuditEntry
) -> None:
    raised = connection.execute(
        update(versions)
        .where(versions.c.service_id == service_id)
        .values(version=versions.c.version + 1)
    )
    if raised.rowcount == 0:
        connection.execute(insert(versions).values(service_id=service_id, version=1))
    insert_audit(connection, audit)
    insert_notice(connection, Notice(topic, f"{service_id}/{group_id}"))


def _row(group: EnrollmentGroup) -> dict[str, Any]:
    policy = group.reprovision_policy
    return {
        "service_id": group.service_id,
        "group_key": group.key,
        "group_id": group.group_id,
        "etag": str(group.etag),
        "created": group.created,
        "updated": group.updated,
        "status": group.status.value,
        "document": {
            "attestation": _attestation_document(group.attestation),
            "update_hub_assignment": policy.update_hub_assignment,
            "migrate_device_data": policy.migrate_device_data,
            "allocation_policy": group.allocation_policy and group.allocation_policy.value,
            "iot_hub_hostname": group.iot_hub_hostname,
            "iot_hubs": group.iot_hubs,
            "tags": group.initial_twin.tags,
            "desired": group.initial_twin.desired,
            "iot_edge": group.iot_edge,
        },
    }


def _attestation_document(attestation: GroupAttestation) -> dict[str, Any]:
    if isinstance(attestation, SigningCertificates):
        carried = (attestation.primary, attestation.secondary)
        return {"signing": [der and base64.b64encode(der).decode() for der in carried]}
    return {"references": [attestation.primary, attestation.secondary]}


def _attestation(document: dict[str, Any]) -> GroupAttestation:
    if "signing" in document:
        return SigningCertificates(
            *(text and base64.b64decode(text) for text in document["signing"])
        )
    return CaReferences(*document["references"])


def _group(row: Row[Any]) -> EnrollmentGroup:
    document = row.document
    policy = document["allocation_policy"]
    return EnrollmentGroup(
        service_id=row.service_id,
        group_id=row.group_id,
        etag=ETag(row.etag),
        created=row.created,
        updated=row.updated,
        attestation=_attestation(document["attestation"]),
        status=ProvisioningStatus(row.status),
        reprovision_policy=ReprovisionPolicy(
            document["update_hub_assignment"], document["migrate_device_data"]
        ),
        allocation_policy=None if policy is None else AllocationPolicy(policy),
        iot_hub_hostname=document["iot_hub_hostname"],
        iot_hubs=tuple(document["iot_hubs"]),
        initial_twin=InitialTwin(document["tags"], document["desired"]),
        iot_edge=document["iot_edge"],
    )
