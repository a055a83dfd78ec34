"""What the CA needs of storage. Each change and its audit line are one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from muster.model.audit import AuditEntry
from muster.model.authority import Authority, RevocationList
from muster.model.certificate import CertificateRecord, IntendedCertificate, RevokedSerial
from muster.model.domain import Domain


class AuthorityReader(Protocol):
    """Look CAs up."""

    async def get_authority(self, authority_id: str) -> Authority | None:
        """Return that CA, whatever its tenant, or None."""
        ...

    async def find_authority(self, tenant_id: str, name: str) -> Authority | None:
        """Return the tenant's CA of that name, compared without case, or None."""
        ...

    async def list_authorities(self, tenant_id: str) -> list[Authority]:
        """Return the tenant's CAs by name."""
        ...


class AuthorityStore(AuthorityReader, Protocol):
    """Look CAs up and add them."""

    async def insert_authorities(
        self,
        authorities: Sequence[Authority],
        lists: Sequence[RevocationList],
        audit: Sequence[AuditEntry],
        *,
        limit: int,
    ) -> bool:
        """Store new CAs, each with its first CRL; False, and nothing changed, if a name is taken.

        Raises `Problem(THROTTLED)` when the tenant would have more than *limit*.
        """
        ...


class CertificateLedger(Protocol):
    """Remember what may exist before it does."""

    async def record_intended(
        self, intended: IntendedCertificate, audit: AuditEntry, *, same_since: datetime
    ) -> CertificateRecord:
        """Reserve the serial and store what will be signed, in one step.

        When the same request (`request_digest`, of the same CA) was recorded at or after
        *same_since* and its certificate is not revoked, nothing changes and that record is
        returned instead: of two that ask at once, one records and both get its record.

        Raises `Problem(CONFLICT)` when the CA has used the serial before.
        """
        ...

    async def store_issued(self, record: CertificateRecord, audit: AuditEntry) -> CertificateRecord:
        """Add the certificate to its record, and return the record as it now stands.

        Changes nothing unless the stored record is still `RECORDED`: who comes second gets what
        the first one stored, and a certificate that was revoked meanwhile stays so.
        """
        ...

    async def note_refusal(self, audit: AuditEntry) -> None:
        """Keep an audit line that goes with no change: an attempt that was refused."""
        ...


class DomainStore(Protocol):
    """Look registered names up and add them."""

    async def get_domains(self, authority_id: str, folded: Sequence[str]) -> list[Domain]:
        """Return those of the names (in their folded spelling) that are registered there."""
        ...

    async def insert_domain(self, domain: Domain, audit: AuditEntry) -> Domain | None:
        """Store a new name; where it is taken, change nothing and return who has it."""
        ...


class RevocationListStore(Protocol):
    """Keep each CA's CRL, and know what belongs into the next one."""

    async def get_list(self, authority_id: str) -> RevocationList | None:
        """Return the CA's last CRL."""
        ...

    async def list_due(self, before: datetime, *, limit: int) -> list[RevocationList]:
        """Return up to *limit* CRLs whose next update is before that moment, most urgent first."""
        ...

    async def list_revoked(self, authority_id: str, now: datetime) -> list[RevokedSerial]:
        """Return the CA's revoked certificates that have not expired at *now*, by serial."""
        ...

    async def replace_list(self, new: RevocationList, expected: int, audit: AuditEntry) -> bool:
        """Publish *new* over number *expected*; False when another number is the last one."""
        ...
