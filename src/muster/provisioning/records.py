"""Registrations as an operator sees them: find, list, delete.

Callers are authorised before they get here; *actor* is whom the audit trail names.
"""

from __future__ import annotations

from muster.clock import Clock
from muster.errors import Kind, Problem
from muster.ids import ETag, RegistrationId
from muster.model.audit import AuditEntry
from muster.model.contention import ATTEMPTS, contended
from muster.model.registration import Registration
from muster.ports.registrations import RegistrationStore


class RegistrationRecords:
    """The registrations of any provisioning service."""

    def __init__(self, store: RegistrationStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def get(self, service_id: str, registration_id: RegistrationId) -> Registration:
        """Return the registration; raises `Problem(NOT_FOUND)`."""
        found = await self._store.get_registration(service_id, registration_id)
        if found is None:
            raise Problem(Kind.NOT_FOUND, "there is no such registration")
        return found

    async def list(
        self, service_id: str, group_id: str, *, after: str, limit: int
    ) -> list[Registration]:
        """Return up to *limit* registrations of a group, the first one after the key *after*."""
        return await self._store.list_registrations(service_id, group_id, after=after, limit=limit)

    async def delete(
        self,
        service_id: str,
        registration_id: RegistrationId,
        if_match: ETag | None,
        *,
        actor: str,
    ) -> None:
        """Forget a registration; its device at the hub stays, and may register again.

        Raises `Problem(NOT_FOUND)`, and `Problem(PRECONDITION_FAILED)` when *if_match* is given and
        is neither `*` nor the stored version.
        """
        for _ in range(ATTEMPTS):
            stored = await self.get(service_id, registration_id)
            if if_match is not None and not if_match.matches_any and if_match != stored.etag:
                raise Problem(Kind.PRECONDITION_FAILED, "the registration has another etag")
            audit = AuditEntry(
                at=self._clock.now(),
                actor=actor,
                action="registration.delete",
                subject=f"{service_id}/{stored.registration_id}",
            )
            if await self._store.delete_registration(
                service_id, registration_id, stored.etag, audit
            ):
                return
        raise contended("this registration")
