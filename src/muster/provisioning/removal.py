"""What a deleted provisioning service leaves behind: enrolments and registrations.

The devices stay at their hubs: they are the hubs'.
"""

from __future__ import annotations

from muster.ports.enrollments import EnrollmentStore
from muster.ports.hubs import ServiceDirectory
from muster.ports.registrations import RegistrationStore

# Registrations deleted in one transaction: some 10 ms of the writer, which others wait for.
_STEP = 1_000


class ServiceRemains:
    """Deletes the enrolments and registrations of services that are gone."""

    def __init__(
        self,
        enrollments: EnrollmentStore,
        registrations: RegistrationStore,
        services: ServiceDirectory,
    ) -> None:
        self._enrollments = enrollments
        self._registrations = registrations
        self._services = services

    async def clear(self, service_id: str) -> None:
        """Delete what the service left, unless it is there still. Safe to repeat.

        That it is gone is read from what is stored: whoever calls may have been told wrong.
        Raises `Problem(UNAVAILABLE)` when that cannot be read or deleted now.
        """
        services = await self._services.list_services()
        if any(service.id == service_id for service in services):
            return
        await self._enrollments.forget_service(service_id)
        while await self._registrations.forget_service(service_id, limit=_STEP) == _STEP:
            pass
