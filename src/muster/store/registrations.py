"""Registrations: one row for each device that ever provisioned with a service.

A registration and the handles on it (its operations) are one row, so that a register call and its
outcome cost one statement each, and a version of the row is the judge of every race.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Index,
    Integer,
    String,
    Table,
    bindparam,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from muster.ids import DeviceId, ETag, RegistrationId, Thumbprint
from muster.model.audit import AuditEntry
from muster.model.registration import Operation, Registration, RegistrationStatus, Substatus
from muster.store.audit import insert_audit
from muster.store.database import Database
from muster.store.prepared import Prepared
from muster.store.schema import JsonDocument, UtcDateTime, metadata

registrations = Table(
    "registrations",
    metadata,
    Column("service_id", String, primary_key=True),
    Column("registration_key", String, primary_key=True),  # the id in lower case
    Column("registration_id", String, nullable=False),  # the id as received
    Column("group_key", String, nullable=False),
    Column("group_id", String, nullable=False),
    Column("leaf", String, nullable=False),
    Column("status", String, nullable=False),
    Column("substatus", String),
    Column("assigned_hub", String),
    Column("device_id", String),
    Column("error_code", Integer),
    Column("error_message", String),
    Column("etag", String, nullable=False),
    Column("created", UtcDateTime, nullable=False),
    Column("updated", UtcDateTime, nullable=False),
    Column("deadline", UtcDateTime, nullable=False),
    Column("operations", JsonDocument, nullable=False),  # [[id, expiry], ...]
    # The listing of a group reads this in order.
    Index("ix_registrations_group", "service_id", "group_key", "registration_key"),
    sqlite_with_rowid=False,
)

_BY_KEY = Prepared(
    select(registrations).where(
        registrations.c.service_id == bindparam("service"),
        registrations.c.registration_key == bindparam("key"),
    )
)
_AFTER = (
    select(registrations)
    .where(
        registrations.c.service_id == bindparam("service"),
        registrations.c.group_key == bindparam("group"),
        registrations.c.registration_key > bindparam("after"),
    )
    .order_by(registrations.c.registration_key)
    .limit(bindparam("most"))
)
_INSERT = Prepared(insert(registrations))
_AT_VERSION = (
    registrations.c.service_id == bindparam("at_service"),
    registrations.c.registration_key == bindparam("at_key"),
    registrations.c.etag == bindparam("at_etag"),
)
_REPLACE = Prepared(
    update(registrations)
    .where(*_AT_VERSION)
    .values({column.name: bindparam(column.name) for column in registrations.columns})
)
_DELETE = Prepared(delete(registrations).where(*_AT_VERSION))


class SqlRegistrationStore:
    """`ports.registrations.RegistrationStore` in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get_registration(
        self, service_id: str, registration_id: RegistrationId
    ) -> Registration | None:
        """Return that registration of that service, or None."""
        values = {"service": service_id, "key": registration_id.folded}

        def query(connection: Connection) -> Registration | None:
            row = _BY_KEY.row(connection, values)
            return None if row is None else _registration(row)

        return await self._database.read(query)

    async def list_registrations(
        self, service_id: str, group_id: str, *, after: str, limit: int
    ) -> list[Registration]:
        """Return up to *limit* registrations of a group, by key, the first one after *after*."""
        values = {"service": service_id, "group": group_id.lower(), "after": after, "most": limit}

        def query(connection: Connection) -> list[Registration]:
            return [_registration(row) for row in connection.execute(_AFTER, values)]

        return await self._database.scan(query)

    async def insert_registration(self, registration: Registration, audit: AuditEntry) -> bool:
        """Store a new registration; False, and nothing changed, when its id is taken."""
        values = _row(registration)

        def change(connection: Connection) -> None:
            _INSERT.run(connection, values)
            insert_audit(connection, audit)

        try:
            await self._database.write(change)
        except IntegrityError:
            return False
        return True

    async def replace_registration(
        self, registration: Registration, expected: ETag, audit: AuditEntry
    ) -> bool:
        """Store it over the version *expected*; False when that is not the stored one."""
        at = _version(registration.service_id, registration.registration_id, expected)
        values = _row(registration) | at

        def change(connection: Connection) -> bool:
            if _REPLACE.run(connection, values) == 0:
                return False
            insert_audit(connection, audit)
            return True

        return await self._database.write(change)

    async def delete_registration(
        self, service_id: str, registration_id: RegistrationId, expected: ETag, audit: AuditEntry
    ) -> bool:
        """Delete the version *expected*; False when that is not the stored one."""
        values = _version(service_id, registration_id, expected)

        def change(connection: Connection) -> bool:
            if _DELETE.run(connection, values) == 0:
                return False
            insert_audit(connection, audit)
            return True

        return await self._database.write(change)

    async def insert_refusal(self, audit: AuditEntry) -> None:
        """Keep the audit line of a device that was refused; nothing else changes."""

        def change(connection: Connection) -> None:
            insert_audit(connection, audit)

        await self._database.write(change)

    async def forget_service(self, service_id: str, *, limit: int) -> int:
        """Delete up to *limit* registrations of a service that is gone; return how many."""
        first = (
            select(registrations.c.registration_key)
            .where(registrations.c.service_id == service_id)
            .limit(limit)
        )

        def change(connection: Connection) -> int:
            return connection.execute(
                delete(registrations).where(
                    registrations.c.service_id == service_id,
                    registrations.c.registration_key.in_(first),
                )
            ).rowcount

        return await self._database.write(change)


def _version(service_id: str, registration_id: RegistrationId, expected: ETag) -> dict[str, str]:
    return {
        "at_service": service_id,
        "at_key": registration_id.folded,
        "at_etag": str(expected),
    }


def _row(registration: Registration) -> dict[str, Any]:
    return {
        "service_id": registration.service_id,
        "registration_key": registration.key,
        "registration_id": str(registration.registration_id),
        "group_key": registration.group_id.lower(),
        "group_id": registration.group_id,
        "leaf": str(registration.leaf),
        "status": registration.status.value,
        "substatus": registration.substatus and registration.substatus.value,
        "assigned_hub": registration.assigned_hub,
        "device_id": registration.device_id and str(registration.device_id),
        "error_code": registration.error_code,
        "error_message": registration.error_message,
        "etag": str(registration.etag),
        "created": registration.created,
        "updated": registration.updated,
        "deadline": registration.deadline,
        "operations": [
            (operation.operation_id, operation.expires) for operation in registration.operations
        ],
    }


def _registration(row: Any) -> Registration:
    return Registration(
        service_id=row.service_id,
        registration_id=RegistrationId(row.registration_id),
        group_id=row.group_id,
        leaf=Thumbprint(row.leaf),
        status=RegistrationStatus(row.status),
        etag=ETag(row.etag),
        created=row.created,
        updated=row.updated,
        deadline=row.deadline,
        operations=tuple(
            Operation(operation_id, datetime.fromisoformat(expires))
            for operation_id, expires in row.operations
        ),
        substatus=None if row.substatus is None else Substatus(row.substatus),
        assigned_hub=row.assigned_hub,
        device_id=None if row.device_id is None else DeviceId(row.device_id),
        error_code=row.error_code,
        error_message=row.error_message,
    )
