"""The resource manager's operations on provisioning services."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.responses import Response

from muster.control.documents import SERVICE_TIERS
from muster.control.services import ProvisioningServices
from muster.endpoints.control.documents import (
    SERVICE_TYPE,
    key_document,
    service_document,
    service_specification,
    values,
)
from muster.endpoints.control.hubs import GROUP_PATH, availability, patched_tags
from muster.endpoints.control.wire import Call, empty_response, json_answer
from muster.endpoints.wire import Operation
from muster.errors import Kind, Problem
from muster.model.resource import ProvisioningService

SERVICE_PATH = f"{GROUP_PATH}/{SERVICE_TYPE}/{{name}}"
_PROVIDER_PATH = "/subscriptions/{subscription}/providers"


@dataclass(frozen=True, slots=True)
class ServiceOperations:
    """Parses, calls `ProvisioningServices`, renders. Devices dial *global_hostname*."""

    services: ProvisioningServices
    global_hostname: str

    def operations(self) -> list[Operation[Call]]:
        """Return the table of operations, certificates not among them."""
        read = f"{SERVICE_TYPE}/read"
        return [
            Operation(
                "POST",
                f"{_PROVIDER_PATH}/Microsoft.Devices/checkProvisioningServiceNameAvailability",
                self.check_name,
                "Microsoft.Devices/checkProvisioningServiceNameAvailability/action",
            ),
            Operation("GET", f"{_PROVIDER_PATH}/{SERVICE_TYPE}", self.list, read),
            Operation("GET", f"{GROUP_PATH}/{SERVICE_TYPE}", self.list, read),
            Operation("GET", SERVICE_PATH, self.get, read),
            Operation("PUT", SERVICE_PATH, self.put, f"{SERVICE_TYPE}/write"),
            Operation("PATCH", SERVICE_PATH, self.patch, f"{SERVICE_TYPE}/write"),
            Operation("DELETE", SERVICE_PATH, self.delete, f"{SERVICE_TYPE}/delete"),
            Operation(
                "POST",
                f"{SERVICE_PATH}/listkeys",
                self.list_keys,
                f"{SERVICE_TYPE}/listkeys/action",
            ),
            Operation(
                "POST",
                f"{SERVICE_PATH}/keys/{{key}}/listkeys",
                self.get_key,
                f"{SERVICE_TYPE}/keys/listkeys/action",
            ),
            Operation("GET", f"{SERVICE_PATH}/skus", self.list_skus, f"{SERVICE_TYPE}/skus/read"),
        ]

    async def check_name(self, call: Call) -> Response:
        """Tell whether a provisioning service could have that name."""
        return json_answer(await availability(self.services.is_name_free, call))

    async def list(self, call: Call) -> Response:
        """List the services of a subscription or of a group."""
        services = await self.services.list(
            call.parameters["subscription"], call.parameters.get("group")
        )
        documents = [service_document(one, self.global_hostname) for one in services]
        return json_answer(values(documents))

    async def get(self, call: Call) -> Response:
        """Show a service."""
        return self._answer(await self.services.get(call.address))

    async def put(self, call: Call) -> Response:
        """Create a service or update it, links included, at once."""
        wanted = service_specification(await call.json())
        service, new = await self.services.put(
            call.address, wanted, precondition=call.precondition, by=call.by
        )
        return self._answer(service, 201 if new else 200)

    async def patch(self, call: Call) -> Response:
        """Replace a service's tags, which is all that a PATCH may change."""
        tags = patched_tags(await call.json())
        return self._answer(await self.services.set_tags(call.address, tags, by=call.by))

    async def delete(self, call: Call) -> Response:
        """Delete a service; 204 also when there was none."""
        await self.services.delete(call.address, precondition=call.precondition, by=call.by)
        return empty_response()

    async def list_keys(self, call: Call) -> Response:
        """Show every shared access policy with its keys."""
        policies = await self.services.keys(call.address)
        return json_answer(values([key_document(policy) for policy in policies]))

    async def get_key(self, call: Call) -> Response:
        """Show one shared access policy with its keys."""
        policy = (await self.services.get(call.address)).policy(call.parameters["key"])
        if policy is None:
            raise Problem(Kind.NOT_FOUND, "the service has no shared access policy of that name")
        return json_answer(key_document(policy))

    async def list_skus(self, call: Call) -> Response:
        """List what a service's SKU can be."""
        await self.services.get(call.address)
        return json_answer(values([{"name": name} for name in SERVICE_TIERS]))

    def _answer(self, service: ProvisioningService, status: int = 200) -> Response:
        return json_answer(service_document(service, self.global_hostname), status)
