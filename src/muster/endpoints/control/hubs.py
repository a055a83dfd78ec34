"""The resource manager's operations on hubs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from muster.control.documents import HUB_TIERS
from muster.control.hubs import Hubs
from muster.endpoints.control.documents import (
    HUB_TYPE,
    consumer_group_document,
    hub_document,
    hub_specification,
    key_document,
    requested_name,
    values,
)
from muster.endpoints.control.wire import Call, empty_response, json_answer
from muster.endpoints.wire import Operation
from muster.errors import Kind, Problem

GROUP_PATH = "/subscriptions/{subscription}/resourceGroups/{group}/providers"
HUB_PATH = f"{GROUP_PATH}/{HUB_TYPE}/{{name}}"
_PROVIDER_PATH = "/subscriptions/{subscription}/providers"
_EVENTS_PATH = f"{HUB_PATH}/eventHubEndpoints/{{endpoint}}/ConsumerGroups"


@dataclass(frozen=True, slots=True)
class HubOperations:
    """Parses, calls `Hubs`, renders."""

    hubs: Hubs

    def operations(self) -> list[Operation[Call]]:
        """Return the table of operations, certificates not among them."""
        keys = "listkeys/action"
        groups = f"{HUB_TYPE}/eventHubEndpoints/consumerGroups"
        return [
            Operation(
                "POST",
                f"{_PROVIDER_PATH}/Microsoft.Devices/checkNameAvailability",
                self.check_name,
                "Microsoft.Devices/checkNameAvailability/action",
            ),
            Operation("GET", f"{_PROVIDER_PATH}/{HUB_TYPE}", self.list, f"{HUB_TYPE}/read"),
            Operation("GET", f"{GROUP_PATH}/{HUB_TYPE}", self.list, f"{HUB_TYPE}/read"),
            Operation("GET", HUB_PATH, self.get, f"{HUB_TYPE}/read"),
            Operation("PUT", HUB_PATH, self.put, f"{HUB_TYPE}/write"),
            Operation("PATCH", HUB_PATH, self.patch, f"{HUB_TYPE}/write"),
            Operation("DELETE", HUB_PATH, self.delete, f"{HUB_TYPE}/delete"),
            Operation("POST", f"{HUB_PATH}/listkeys", self.list_keys, f"{HUB_TYPE}/{keys}"),
            Operation(
                "POST",
                f"{HUB_PATH}/IotHubKeys/{{key}}/listkeys",
                self.get_key,
                f"{HUB_TYPE}/iotHubKeys/{keys}",
            ),
            Operation("GET", f"{HUB_PATH}/skus", self.list_skus, f"{HUB_TYPE}/skus/read"),
            Operation(
                "GET", f"{HUB_PATH}/IotHubStats", self.get_stats, f"{HUB_TYPE}/iotHubStats/read"
            ),
            Operation("GET", _EVENTS_PATH, self.list_groups, f"{groups}/read"),
            Operation("GET", f"{_EVENTS_PATH}/{{consumers}}", self.get_group, f"{groups}/read"),
            Operation("PUT", f"{_EVENTS_PATH}/{{consumers}}", self.put_group, f"{groups}/write"),
            Operation(
                "DELETE", f"{_EVENTS_PATH}/{{consumers}}", self.delete_group, f"{groups}/delete"
            ),
        ]

    async def check_name(self, call: Call) -> Response:
        """Tell whether a hub could have that name."""
        return json_answer(await availability(self.hubs.is_name_free, call))

    async def list(self, call: Call) -> Response:
        """List the hubs of a subscription or of a group."""
        hubs = await self.hubs.list(call.parameters["subscription"], call.parameters.get("group"))
        return json_answer(values([hub_document(hub) for hub in hubs]))

    async def get(self, call: Call) -> Response:
        """Show a hub."""
        return json_answer(hub_document(await self.hubs.get(call.address)))

    async def put(self, call: Call) -> Response:
        """Create a hub or update it, at once: there is nothing to poll for."""
        wanted = hub_specification(await call.json())
        hub, new = await self.hubs.put(
            call.address, wanted, precondition=call.precondition, by=call.by
        )
        return json_answer(hub_document(hub), 201 if new else 200)

    async def patch(self, call: Call) -> Response:
        """Replace a hub's tags, which is all that a PATCH may change."""
        hub = await self.hubs.set_tags(call.address, patched_tags(await call.json()), by=call.by)
        return json_answer(hub_document(hub))

    async def delete(self, call: Call) -> Response:
        """Delete a hub; 204 also when there was none."""
        await self.hubs.delete(call.address, precondition=call.precondition, by=call.by)
        return empty_response()

    async def list_keys(self, call: Call) -> Response:
        """Show every shared access policy with its keys."""
        policies = await self.hubs.keys(call.address)
        return json_answer(values([key_document(policy) for policy in policies]))

    async def get_key(self, call: Call) -> Response:
        """Show one shared access policy with its keys."""
        policy = (await self.hubs.get(call.address)).policy(call.parameters["key"])
        if policy is None:
            raise Problem(Kind.NOT_FOUND, "the hub has no shared access policy of that name")
        return json_answer(key_document(policy))

    async def list_skus(self, call: Call) -> Response:
        """List what a hub's SKU can be."""
        await self.hubs.get(call.address)
        documents = [
            {
                "resourceType": HUB_TYPE,
                "sku": {"name": name, "tier": tier},
                "capacity": {"minimum": 1, "maximum": 200, "default": 1, "scaleType": "Manual"},
            }
            for name, tier in HUB_TIERS.items()
        ]
        return json_answer(values(documents))

    async def get_stats(self, call: Call) -> Response:
        """Count a hub's devices."""
        counts = await self.hubs.count_devices(call.address)
        return json_answer(
            {
                "totalDeviceCount": counts.total,
                "enabledDeviceCount": counts.enabled,
                "disabledDeviceCount": counts.total - counts.enabled,
            }
        )

    async def list_groups(self, call: Call) -> Response:
        """List the consumer groups of a hub's event stream."""
        _check_endpoint(call)
        hub = await self.hubs.get(call.address)
        documents = [consumer_group_document(hub, name) for name in hub.consumer_groups]
        return json_answer(values(documents))

    async def get_group(self, call: Call) -> Response:
        """Show one."""
        _check_endpoint(call)
        hub = await self.hubs.get(call.address)
        for name in hub.consumer_groups:
            if name.lower() == call.parameters["consumers"].lower():
                return json_answer(consumer_group_document(hub, name))
        raise Problem(Kind.NOT_FOUND, "the hub has no consumer group of that name")

    async def put_group(self, call: Call) -> Response:
        """Add one; 200 also when it is new, because the SDK takes nothing else."""
        _check_endpoint(call)
        name = await self.hubs.add_consumer_group(
            call.address, call.parameters["consumers"], by=call.by
        )
        return json_answer(consumer_group_document(await self.hubs.get(call.address), name))

    async def delete_group(self, call: Call) -> Response:
        """Forget one; 200, because the SDK takes nothing else."""
        _check_endpoint(call)
        await self.hubs.delete_consumer_group(
            call.address, call.parameters["consumers"], by=call.by
        )
        return empty_response(200)


async def availability(
    is_free: Callable[[str], Awaitable[bool]], call: Call
) -> dict[str, str | bool | None]:
    """Return the answer of both name checks."""
    name = requested_name(await call.json())
    try:
        free = await is_free(name)
    except Problem as problem:
        return {"nameAvailable": False, "reason": "Invalid", "message": problem.detail}
    if free:
        return {"nameAvailable": True, "reason": None, "message": None}
    return {"nameAvailable": False, "reason": "AlreadyExists", "message": "the name is taken"}


def patched_tags(body: dict[str, Any]) -> Any:
    """Return the tags of a PATCH; raises `Problem(UNSUPPORTED)` for a change of anything else."""
    if set(body) - {"tags"}:
        raise Problem(Kind.UNSUPPORTED, "a PATCH changes tags only: use PUT for the rest")
    return body.get("tags")


def _check_endpoint(call: Call) -> None:
    if call.parameters["endpoint"].lower() != "events":
        raise Problem(Kind.NOT_FOUND, "a hub has one event hub endpoint: events")
