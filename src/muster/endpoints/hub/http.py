"""The hub's service API over HTTPS: registry and statistics.

Rules:

1. Success codes, JSON keys and error texts are exactly IoT Hub's: SDKs check them one by one.
2. `api-version` is not looked at: clients send several, and the calls served here are the same
   in all of them.
3. A PUT with If-Match updates, one without creates; the tag may come quoted, unquoted or as `*`.
4. Ids are taken from the path as it was sent, because they may hold what a path would split at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from muster.clock import Clock
from muster.endpoints.authentication import Authenticate
from muster.endpoints.body import read_body
from muster.endpoints.codes import HUB_CODE
from muster.endpoints.hub.documents import (
    BulkDevice,
    DeviceDocument,
    device_document,
    device_settings,
    parse_document,
)
from muster.endpoints.hub.wire import HUB_TYPE, Call, HubWire, TwinWire, json_answer
from muster.endpoints.service_door import hub_door, path_segments
from muster.endpoints.wire import Operation, routes_of
from muster.errors import Kind, Problem
from muster.hub.registry import MAX_LISTED, Registry
from muster.hub.sessions import Sessions
from muster.ids import DeviceId, ETag
from muster.model.device import Device
from muster.model.resource import Right
from muster.ports.hubs import HubDirectory

# A device document with two 4 KiB strings in every field that has no limit of its own.
_MAX_DEVICE_BODY = 64 * 1024
# 100 of them, as the registry's own clients send them (facts/hub.md 7: bulk at most 100).
_MAX_BULK_BODY = 1024 * 1024
_MAX_BULK = 100
_ANY = ETag("*")


def routes(
    *,
    registry: Registry,
    sessions: Sessions,
    hubs: HubDirectory,
    authenticate: Authenticate,
    clock: Clock,
) -> list[BaseRoute]:
    """Return the registry's routes, for the host root."""
    door = hub_door(hubs, authenticate, clock)
    devices = _Devices(registry, sessions)
    statistics = _Statistics(registry, sessions)
    return [
        *routes_of(HubWire(door), [*devices.operations(), *statistics.operations()]),
        *routes_of(TwinWire(door, clock), _TWINS),
    ]


class _Devices:
    def __init__(self, registry: Registry, sessions: Sessions) -> None:
        self._registry = registry
        self._sessions = sessions

    def operations(self) -> list[Operation[Call]]:
        one = "/devices/{id:path}"
        read, write = f"{HUB_TYPE}/devices/read", f"{HUB_TYPE}/devices/write"
        delete = f"{HUB_TYPE}/devices/delete"
        may_read, may_write = Right.REGISTRY_READ, Right.REGISTRY_WRITE
        return [
            Operation("GET", "/devices", self.list, read, may_read),
            Operation("GET", "/devices/", self.list, read, may_read),  # Node
            Operation("POST", "/devices", self.bulk, write, may_write),
            Operation("POST", "/devices/", self.bulk, write, may_write),
            Operation("GET", one, self.get, read, may_read),
            Operation("PUT", one, self.put, write, may_write),
            Operation("DELETE", one, self.delete, delete, may_write),
        ]

    async def get(self, call: Call) -> Response:
        return self._one(await self._registry.get(call.resource.id, _device_id(call.request)))

    async def list(self, call: Call) -> Response:
        text = call.request.query_params.get("top", str(MAX_LISTED))
        if not (text.isascii() and text.isdigit() and len(text) <= 6):
            raise Problem(Kind.MALFORMED, f"top is a number from 1 to {MAX_LISTED}")
        found = await self._registry.list(call.resource.id, top=int(text))
        return json_answer([self._document(device) for device in found])

    async def put(self, call: Call) -> Response:
        device_id = _device_id(call.request)
        wanted = device_settings(
            parse_document(await read_body(call.request, _MAX_DEVICE_BODY), DeviceDocument)
        )
        if wanted.device_id != device_id:
            raise Problem(Kind.MALFORMED, "the deviceId of the body is not the one of the path")
        version = call.request.headers.get("if-match")
        if version is None:
            return self._one(
                await self._registry.create(call.resource.id, wanted, actor=call.actor)
            )
        return self._one(
            await self._registry.update(
                call.resource.id, wanted, ETag.parse(version), actor=call.actor
            )
        )

    async def delete(self, call: Call) -> Response:
        version = ETag.parse(call.request.headers.get("if-match", "*"))
        await self._registry.delete(
            call.resource.id, _device_id(call.request), version, actor=call.actor
        )
        return Response(status_code=204)

    async def bulk(self, call: Call) -> Response:
        entries = parse_document(await read_body(call.request, _MAX_BULK_BODY), list[BulkDevice])
        if not 1 <= len(entries) <= _MAX_BULK:
            raise Problem(Kind.MALFORMED, f"a bulk call has 1 to {_MAX_BULK} devices")
        errors = await self._apply(call, entries)
        body = {"isSuccessful": not errors, "errors": errors, "warnings": []}
        return json_answer(body, 400 if errors else 200)

    async def _apply(self, call: Call, entries: Sequence[BulkDevice]) -> Sequence[dict[str, str]]:
        # One by one: an id may come twice, and then the order is what the caller meant.
        errors = []
        for entry in entries:
            try:
                await self._apply_one(call, entry)
            except Problem as problem:
                errors.append(
                    {
                        "deviceId": entry.id,
                        "errorCode": HUB_CODE[problem.kind][1],
                        "errorStatus": problem.detail,
                    }
                )
        return errors

    async def _apply_one(self, call: Call, entry: BulkDevice) -> None:
        if entry.tags is not None or entry.properties is not None:
            raise Problem(Kind.UNSUPPORTED, "twins cannot be written by bulk calls yet")
        if entry.module_id is not None:
            raise Problem(Kind.UNSUPPORTED, "modules are not supported")
        mode = (entry.import_mode or "create").lower()
        version = _ANY
        if mode.endswith("ifmatchetag"):
            mode = mode.removesuffix("ifmatchetag")
            if entry.e_tag is None:
                raise Problem(Kind.MALFORMED, f"{entry.import_mode} needs an eTag")
            version = ETag.parse(entry.e_tag)
        hub_id, actor = call.resource.id, call.actor
        match mode:
            case "create":
                await self._registry.create(hub_id, device_settings(entry), actor=actor)
            case "update":
                await self._registry.update(hub_id, device_settings(entry), version, actor=actor)
            case "delete":
                await self._registry.delete(hub_id, DeviceId.parse(entry.id), version, actor=actor)
            case _:
                raise Problem(Kind.UNSUPPORTED, f"the importMode {mode[:40]!r} is not supported")

    def _one(self, device: Device) -> Response:
        return json_answer(self._document(device), headers={"ETag": f'"{device.etag}"'})

    def _document(self, device: Device) -> dict[str, Any]:
        connection = self._sessions.connection_of(device.hub_id, device.device_id)
        return device_document(device, connection)


class _Statistics:
    def __init__(self, registry: Registry, sessions: Sessions) -> None:
        self._registry = registry
        self._sessions = sessions

    def operations(self) -> list[Operation[Call]]:
        read, right = f"{HUB_TYPE}/statistics/read", Right.REGISTRY_READ
        return [
            Operation("GET", "/statistics/devices", self.devices, read, right),
            Operation("GET", "/statistics/service", self.service, read, right),
        ]

    async def devices(self, call: Call) -> Response:
        total, enabled = await self._registry.statistics(call.resource.id)
        return json_answer(
            {
                "totalDeviceCount": total,
                "enabledDeviceCount": enabled,
                "disabledDeviceCount": total - enabled,
            }
        )

    async def service(self, call: Call) -> Response:
        return json_answer({"connectedDeviceCount": self._sessions.count(call.resource.id)})


async def _refuse_twin(_call: Call) -> Response:
    raise Problem(Kind.UNSUPPORTED, "twins and methods are not supported yet")


_TWINS = [
    Operation(
        method, "/twins/{id:path}", _refuse_twin, f"{HUB_TYPE}/twins/read", Right.SERVICE_CONNECT
    )
    for method in ("GET", "PATCH", "PUT", "POST")
]


def _device_id(request: Request) -> DeviceId:
    segments = path_segments(request)
    if len(segments) != 2:
        raise Problem(Kind.UNSUPPORTED, "this part of the hub's API is not supported yet")
    return DeviceId.parse(segments[1])
