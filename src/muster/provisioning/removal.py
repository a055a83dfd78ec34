"""What a deleted provisioning service leaves behind is cleared away: enrolments, registrations.

Service ids are never used twice, so what a lost notice leaves lying harms nobody; it only takes
room. The devices stay at their hubs: they are the hubs'.
"""

from __future__ import annotations

from muster.model.notice import Notice
from muster.ports.enrollments import EnrollmentStore
from muster.ports.hubs import ServiceDirectory
from muster.ports.notices import NoticeBus
from muster.ports.registrations import RegistrationStore

# Registrations deleted in one transaction: some 10 ms of the writer, which others wait for.
_STEP = 1_000


class ServiceRemoval:
    """Deletes the enrolments and registrations of each service that was deleted."""

    def __init__(
        self,
        enrollments: EnrollmentStore,
        registrations: RegistrationStore,
        services: ServiceDirectory,
        bus: NoticeBus,
    ) -> None:
        self._enrollments = enrollments
        self._registrations = registrations
        self._services = services
        bus.subscribe("service.deleted", self._service_deleted)

    async def _service_deleted(self, notice: Notice) -> None:
        # The notice is a hint; that the service is gone is read from what is stored.
        services = await self._services.list_services()
        if any(service.id == notice.subject for service in services):
            return
        await self._enrollments.forget_service(notice.subject)
        while await self._registrations.forget_service(notice.subject, limit=_STEP) == _STEP:
            pass
