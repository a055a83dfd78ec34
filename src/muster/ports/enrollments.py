"""What provisioning needs of the storage of its enrolments."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from muster.ids import ETag
from muster.model.audit import AuditEntry
from muster.model.enrollment import EnrollmentGroup


class EnrollmentReader(Protocol):
    """Look enrolments up. Group ids are compared without case."""

    async def get_group(self, service_id: str, group_id: str) -> EnrollmentGroup | None:
        """Return that group of that service, or None."""
        ...

    async def list_groups(
        self, service_id: str, *, after: str, limit: int
    ) -> list[EnrollmentGroup]:
        """Return up to *limit* groups whose key sorts after *after*, by key."""
        ...

    async def enrollments_version(self, service_id: str) -> int:
        """Return a number that grows with every change to that service's enrolments.

        Cheap: whoever keeps something made of the enrolments asks before each use of it.
        """
        ...


class EnrollmentStore(EnrollmentReader, Protocol):
    """Look enrolments up and change them.

    Each change, its audit line, its notice (`enrollment.changed`, `enrollment.deleted`; subject:
    service id, a slash, group id) and the new version are one transaction.
    *claims* are the marks of the certificates that the group uses, as `claims_of` makes them. No
    two groups of a service hold the same claim: a change that would have it so raises
    `Problem(CONFLICT)` and changes nothing.
    """

    async def insert_group(
        self, group: EnrollmentGroup, claims: Iterable[str], audit: AuditEntry
    ) -> bool:
        """Store a new group; False, and nothing changed, when its id is taken."""
        ...

    async def replace_group(
        self, group: EnrollmentGroup, claims: Iterable[str], expected: ETag, audit: AuditEntry
    ) -> bool:
        """Store *group* over the version *expected*; False when that is not the stored one."""
        ...

    async def delete_group(
        self, service_id: str, group_id: str, expected: ETag, audit: AuditEntry
    ) -> bool:
        """Delete the version *expected*; False when that is not the stored one."""
        ...

    async def forget_service(self, service_id: str) -> None:
        """Delete every enrolment of a service that is gone, without a trace. Safe to repeat."""
        ...
