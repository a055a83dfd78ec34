"""Every certificate that was signed here, or may have been.

Keyed by (CA, serial). A row is written before the signature is made and completed after it, so
that whatever exists is known by its serial and can be revoked.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    Row,
    String,
    Table,
    bindparam,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from muster.errors import Kind, Problem
from muster.ids import Thumbprint
from muster.model.audit import AuditEntry
from muster.model.certificate import (
    CertificateRecord,
    CertificateStatus,
    IntendedCertificate,
    RevokedSerial,
)
from muster.store.audit import insert_audit
from muster.store.database import Database
from muster.store.prepared import Prepared
from muster.store.schema import UtcDateTime, metadata

certificates = Table(
    "certificates",
    metadata,
    Column("authority_id", String, primary_key=True),
    # Big-endian, 20 octets: bytes sort as the numbers do and fit no integer column.
    Column("serial", LargeBinary, primary_key=True),
    Column("status", String, nullable=False),
    Column("tenant_id", String, nullable=False),
    Column("template_id", String),
    Column("requester", String, nullable=False),
    Column("common_name", String, nullable=False),
    Column("not_before", UtcDateTime, nullable=False),
    Column("not_after", UtcDateTime, nullable=False),
    Column("to_be_signed", LargeBinary, nullable=False),
    Column("request_digest", LargeBinary, nullable=False),
    Column("requested", UtcDateTime, nullable=False),
    Column("location", String, nullable=False),
    Column("tags", String, nullable=False),
    Column("der", LargeBinary),
    Column("sha1", String),
    Column("sha256", String),
    Column("revoked", UtcDateTime),
    Column("revocation_reason", Integer),
    # A request that is sent again is found by what it asks for.
    Index("ix_certificates_request_digest", "request_digest", "requested"),
    Index("ix_certificates_sha1", "sha1"),
    Index("ix_certificates_sha256", "sha256"),
)
# Only revoked rows are in it: a CRL reads nothing else.
Index(
    "ix_certificates_revoked",
    certificates.c.authority_id,
    certificates.c.serial,
    sqlite_where=certificates.c.revoked.is_not(None),
    postgresql_where=certificates.c.revoked.is_not(None),
)

_SERIAL_OCTETS = 20
_INSERT = Prepared(
    insert(certificates),
    *("authority_id", "serial", "status", "tenant_id", "template_id", "requester", "common_name"),
    *("not_before", "not_after", "to_be_signed", "request_digest", "requested", "location", "tags"),
)
_ONE = Prepared(
    select(certificates).where(
        certificates.c.authority_id == bindparam("authority"),
        certificates.c.serial == bindparam("number"),
    )
)
_SAME = Prepared(
    select(certificates)
    .where(
        certificates.c.request_digest == bindparam("digest"),
        certificates.c.requested >= bindparam("since", type_=UtcDateTime),
        certificates.c.authority_id == bindparam("authority"),
        certificates.c.status != CertificateStatus.REVOKED.value,
    )
    .order_by(certificates.c.requested.desc())
    .limit(1)
)
_COMPLETE = Prepared(
    update(certificates)
    .where(
        certificates.c.authority_id == bindparam("authority"),
        certificates.c.serial == bindparam("number"),
        certificates.c.status == CertificateStatus.RECORDED.value,
    )
    .values(
        status=CertificateStatus.ISSUED.value,
        der=bindparam("whole"),
        sha1=bindparam("short"),
        sha256=bindparam("long"),
    )
)
_REVOKED = (
    select(certificates.c.serial, certificates.c.revoked, certificates.c.revocation_reason)
    .where(
        certificates.c.authority_id == bindparam("authority"),
        certificates.c.revoked.is_not(None),
        certificates.c.not_after >= bindparam("moment", type_=UtcDateTime),
    )
    .order_by(certificates.c.serial)
)


class SqlCertificateLedger:
    """`ports.authorities.CertificateLedger` in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record_intended(
        self, intended: IntendedCertificate, audit: AuditEntry, *, same_since: datetime
    ) -> CertificateRecord:
        """Reserve the serial and store what will be signed, or return the same request's record.

        There is one writer, so nobody can record the same request between look-up and insert.
        """
        row = _row(intended)
        values = {
            "digest": intended.request_digest,
            "since": same_since,
            "authority": intended.authority_id,
        }

        def change(connection: Connection) -> CertificateRecord:
            same = _SAME.row(connection, values)
            if same is not None:
                return _record(same)
            _INSERT.run(connection, row)
            insert_audit(connection, audit)
            return CertificateRecord(intended, CertificateStatus.RECORDED)

        try:
            return await self._database.write(change)
        except IntegrityError as error:
            raise Problem(Kind.CONFLICT, "the serial was used before") from error

    async def store_issued(self, record: CertificateRecord, audit: AuditEntry) -> CertificateRecord:
        """Add the certificate to its record, and return the record as it now stands."""
        key = {
            "authority": record.intended.authority_id,
            "number": _octets(record.intended.serial),
        }
        values = {**key, "whole": record.der, "short": record.sha1, "long": record.sha256}

        def change(connection: Connection) -> CertificateRecord:
            if _COMPLETE.run(connection, values) == 1:
                insert_audit(connection, audit)
                return record
            stands = _ONE.row(connection, key)
            assert stands is not None  # nothing ever deletes a record
            return _record(stands)

        return await self._database.write(change)

    async def note_refusal(self, audit: AuditEntry) -> None:
        """Keep an audit line that goes with no change: an attempt that was refused."""
        await self._database.write(lambda connection: insert_audit(connection, audit))


def revoked_serials(
    connection: Connection, authority_id: str, now: datetime
) -> list[RevokedSerial]:
    """Return the CA's revoked certificates that have not expired at *now*, by serial."""
    found = connection.execute(_REVOKED, {"authority": authority_id, "moment": now})
    return [
        RevokedSerial(int.from_bytes(row.serial, "big"), row.revoked, row.revocation_reason)
        for row in found
    ]


def _octets(serial: int) -> bytes:
    return serial.to_bytes(_SERIAL_OCTETS, "big")


def _row(intended: IntendedCertificate) -> dict[str, Any]:
    return {
        "authority_id": intended.authority_id,
        "serial": _octets(intended.serial),
        "status": CertificateStatus.RECORDED.value,
        "tenant_id": intended.tenant_id,
        "template_id": intended.template_id,
        "requester": intended.requester,
        "common_name": intended.common_name,
        "not_before": intended.not_before,
        "not_after": intended.not_after,
        "to_be_signed": intended.to_be_signed,
        "request_digest": intended.request_digest,
        "requested": intended.requested,
        "location": intended.location,
        "tags": intended.tags,
    }


def _record(row: Row[Any]) -> CertificateRecord:
    return CertificateRecord(
        intended=IntendedCertificate(
            authority_id=row.authority_id,
            serial=int.from_bytes(row.serial, "big"),
            tenant_id=row.tenant_id,
            template_id=row.template_id,
            requester=row.requester,
            common_name=row.common_name,
            not_before=row.not_before,
            not_after=row.not_after,
            to_be_signed=row.to_be_signed,
            request_digest=row.request_digest,
            requested=row.requested,
            location=row.location,
            tags=row.tags,
        ),
        status=CertificateStatus(row.status),
        der=row.der,
        sha1=None if row.sha1 is None else Thumbprint(row.sha1),
        sha256=None if row.sha256 is None else Thumbprint(row.sha256),
    )
