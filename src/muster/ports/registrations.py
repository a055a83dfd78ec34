"""What provisioning needs of the storage of its registrations."""

from __future__ import annotations

from typing import Protocol

from muster.ids import ETag, RegistrationId
from muster.model.audit import AuditEntry
from muster.model.registration import Registration


class RegistrationReader(Protocol):
    """Look registrations up. Ids are compared without case."""

    async def get_registration(
        self, service_id: str, registration_id: RegistrationId
    ) -> Registration | None:
        """Return that registration of that service, or None."""
        ...

    async def list_registrations(
        self, service_id: str, group_id: str, *, after: str, limit: int
    ) -> list[Registration]:
        """Return up to *limit* registrations of a group, by key, the first one after *after*."""
        ...


class RegistrationStore(RegistrationReader, Protocol):
    """Look registrations up and change them.

    Each change and its audit line are one transaction.
    """

    async def insert_registration(self, registration: Registration, audit: AuditEntry) -> bool:
        """Store a new registration; False, and nothing changed, when its id is taken."""
        ...

    async def replace_registration(
        self, registration: Registration, expected: ETag, audit: AuditEntry
    ) -> bool:
        """Store it over the version *expected*; False when that is not the stored one."""
        ...

    async def delete_registration(
        self, service_id: str, registration_id: RegistrationId, expected: ETag, audit: AuditEntry
    ) -> bool:
        """Delete the version *expected*; False when that is not the stored one."""
        ...

    async def insert_refusal(self, audit: AuditEntry) -> None:
        """Keep the audit line of a device that was refused; nothing else changes."""
        ...

    async def forget_service(self, service_id: str, *, limit: int) -> int:
        """Delete up to *limit* registrations of a service that is gone; return how many."""
        ...
