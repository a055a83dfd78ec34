"""The provisioning service's API for operators over HTTPS: enrolment groups and registrations.

Rules (facts/dps.md 3):

1. Who calls which service is asked first (`service_door.py`).
2. `api-version` is not looked at: clients send five of them, and what is served is the same in all.
3. Paths are compared without case and with or without a slash at the end.
4. A new group is made without an entity tag. To replace one takes its tag, in If-Match or, as Node
   does it, in the body; the header wins. Tags come quoted, unquoted or as `*`.
5. Lists are bare arrays; the way on is in `x-ms-continuation`, and `x-ms-item-type` says of what:
   .NET takes a page without it for an error.
6. Individual enrolments and bulk calls are not served yet: 501, in the API's own form.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from muster.clock import Clock
from muster.endpoints.authentication import Authenticate
from muster.endpoints.body import read_body
from muster.endpoints.codes import INTERNAL_PROVISIONING_CODE, PROVISIONING_CODE
from muster.endpoints.provisioning.documents import (
    error_document,
    parse_json,
    registration_document,
    registration_etag,
)
from muster.endpoints.provisioning.enrollment_documents import (
    attestation_document,
    group_document,
    parse_group,
)
from muster.endpoints.rendering import JSON_UTF_8, json_response
from muster.endpoints.service_door import Caller, ServiceDoor, provisioning_door
from muster.endpoints.wire import INTERNAL, Operation, Wire, routes_of
from muster.errors import Kind, Problem
from muster.ids import ETag, RegistrationId
from muster.model.resource import ProvisioningService, Right
from muster.ports.hubs import ServiceHosts
from muster.provisioning.enrollments import Enrollments
from muster.provisioning.records import RegistrationRecords

Call = Caller[ProvisioningService]

_TYPE = "Microsoft.Devices/provisioningServices"
_json = partial(json_response, media_type=JSON_UTF_8, ascii_only=True)
# Two CA certificates in base64 of PEM and a twin of 40 KiB, with room for what SDKs add.
_MAX_BODY = 256 * 1024
_DEFAULT_PAGE, _MAX_PAGE = 100, 1_000
# The key of an item, 128 characters, in base64.
_MAX_CONTINUATION = 256
_QUERY = re.compile(r"\s*select\s+\*\s+from\s+(\w{1,64})\s*;?\s*\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Page:
    after: str
    size: int


class _Query(msgspec.Struct):
    query: str | None = None


def routes(
    *,
    enrollments: Enrollments,
    records: RegistrationRecords,
    hosts: ServiceHosts,
    authenticate: Authenticate,
    clock: Clock,
) -> list[BaseRoute]:
    """Return the service API's routes, for the host root.

    *authenticate* judges bearer tokens for the provisioning service's audience.
    """
    wire = _ServiceWire(provisioning_door(hosts, authenticate, clock), clock)
    table = [
        *_Groups(enrollments).operations(),
        *_Registrations(records).operations(),
        *_NOT_SERVED,
    ]
    return routes_of(wire, table)


class _Groups:
    def __init__(self, enrollments: Enrollments) -> None:
        self._enrollments = enrollments

    def operations(self) -> list[Operation[Call]]:
        groups, action = "/enrollmentGroups", f"{_TYPE}/enrollmentGroups"
        one, mechanism = f"{groups}/{{id}}", f"{_TYPE}/attestationMechanism/details/action"
        may_read, may_write = Right.ENROLLMENT_READ, Right.ENROLLMENT_WRITE
        return [
            Operation("POST", f"{groups}/query", self.query, f"{action}/read", may_read),
            Operation("GET", one, self.get, f"{action}/read", may_read),
            Operation("PUT", one, self.put, f"{action}/write", may_write),
            Operation("DELETE", one, self.delete, f"{action}/delete", may_write),
            Operation("POST", f"{one}/attestationmechanism", self.mechanism, mechanism, may_read),
        ]

    async def get(self, call: Call) -> Response:
        group = await self._enrollments.get_group(call.resource.id, _id(call.request))
        return _answer(group_document(group))

    async def put(self, call: Call) -> Response:
        settings, tag = parse_group(await read_body(call.request, _MAX_BODY), _id(call.request))
        group = await self._enrollments.put_group(
            call.resource, settings, _if_match(call.request) or tag, actor=call.actor
        )
        return _answer(group_document(group))

    async def delete(self, call: Call) -> Response:
        await self._enrollments.delete_group(
            call.resource.id, _id(call.request), _if_match(call.request), actor=call.actor
        )
        return Response(status_code=204)

    async def mechanism(self, call: Call) -> Response:
        group = await self._enrollments.get_group(call.resource.id, _id(call.request))
        return _answer(attestation_document(group.attestation))

    async def query(self, call: Call) -> Response:
        await _check_query(call.request, "enrollmentgroups", required=True)
        page = _page(call.request)
        found = await self._enrollments.list_groups(
            call.resource.id, after=page.after, limit=page.size + 1
        )
        shown = found[: page.size]
        way_on = shown[-1].key if len(found) > page.size else None
        return _answer_page([group_document(one) for one in shown], "enrollmentGroup", way_on)


class _Registrations:
    def __init__(self, records: RegistrationRecords) -> None:
        self._records = records

    def operations(self) -> list[Operation[Call]]:
        one, action = "/registrations/{id}", f"{_TYPE}/registrationStates"
        may_read = Right.REGISTRATION_STATUS_READ
        may_write = Right.REGISTRATION_STATUS_WRITE
        return [
            Operation("GET", one, self.get, f"{action}/read", may_read),
            Operation("DELETE", one, self.delete, f"{action}/delete", may_write),
            Operation("POST", f"{one}/query", self.query, f"{action}/read", may_read),
        ]

    async def get(self, call: Call) -> Response:
        found = await self._records.get(call.resource.id, _registration_id(call.request))
        return _answer(registration_document(found))

    async def delete(self, call: Call) -> Response:
        registration_id, tag = _registration_id(call.request), _if_match(call.request)
        if tag is not None and not tag.matches_any:
            # Shown in base64; taken in either form.
            stored = await self._records.get(call.resource.id, registration_id)
            if tag == registration_etag(stored.etag):
                tag = stored.etag
        await self._records.delete(call.resource.id, registration_id, tag, actor=call.actor)
        return Response(status_code=204)

    async def query(self, call: Call) -> Response:
        await _check_query(call.request, "registrations", required=False)
        page = _page(call.request)
        found = await self._records.list(
            call.resource.id, _id(call.request), after=page.after, limit=page.size + 1
        )
        shown = found[: page.size]
        way_on = shown[-1].key if len(found) > page.size else None
        documents = [registration_document(one) for one in shown]
        return _answer_page(documents, "deviceRegistration", way_on)


class _ServiceWire(Wire[Call]):
    """Words every failure as the service does."""

    name = "provisioning service"
    caseless = True
    final_slash = True

    def __init__(self, door: ServiceDoor[ProvisioningService], clock: Clock) -> None:
        self._door = door
        self._clock = clock

    async def enter(self, request: Request, operation: Operation[Call]) -> Call:
        """Let in who has the operation's right by its key, or may do its action by its role."""
        assert operation.right is not None
        assert operation.action is not None
        return await self._door.enter(request, operation.right, operation.action)

    def refuse(self, request: Request, problem: Problem, tracking_id: str) -> Response:  # noqa: ARG002 - of the base class
        """Return the code with the tracking id, in the body and in a header."""
        return self._error(PROVISIONING_CODE[problem.kind], problem.detail, tracking_id)

    def fail(self, request: Request, tracking_id: str) -> Response:  # noqa: ARG002 - as above
        """Return the same for a bug."""
        return self._error(INTERNAL_PROVISIONING_CODE, INTERNAL, tracking_id)

    def _error(self, code: int, message: str, tracking_id: str) -> Response:
        body = error_document(code, message, tracking_id=tracking_id, now=self._clock.now())
        return _json(body, code // 1000, {"x-ms-error-code": str(code)})


async def _refuse_individual(_call: Call) -> Response:
    raise Problem(Kind.UNSUPPORTED, "individual enrolments are not offered yet")


async def _refuse_bulk(_call: Call) -> Response:
    raise Problem(Kind.UNSUPPORTED, "bulk operations are not offered yet")


_NOT_SERVED = [
    Operation(
        "POST",
        "/enrollmentGroups",
        _refuse_bulk,
        f"{_TYPE}/enrollmentGroups/write",
        Right.ENROLLMENT_READ,
    ),
    *(
        Operation(
            method, path, _refuse_individual, f"{_TYPE}/enrollments/read", Right.ENROLLMENT_READ
        )
        for method, path in (
            ("POST", "/enrollments"),
            ("GET", "/enrollments/{rest:path}"),
            ("PUT", "/enrollments/{rest:path}"),
            ("POST", "/enrollments/{rest:path}"),
            ("DELETE", "/enrollments/{rest:path}"),
        )
    ),
]


def _id(request: Request) -> str:
    name: str = request.path_params["id"]
    return name


def _registration_id(request: Request) -> RegistrationId:
    return RegistrationId.parse(_id(request))


def _if_match(request: Request) -> ETag | None:
    text = request.headers.get("if-match")
    return None if text is None else ETag.parse(text)


async def _check_query(request: Request, table: str, *, required: bool) -> None:
    body = await read_body(request, _MAX_BODY)
    query = parse_json(body, _Query).query if body.strip() else None
    if query is None and not required:
        return
    match = _QUERY.match(query or "")
    if match is None or match[1].lower() != table:
        raise Problem(Kind.MALFORMED, f"the one query there is: all of {table}")


def _page(request: Request) -> _Page:
    text = request.headers.get("x-ms-max-item-count", "")
    size = _DEFAULT_PAGE
    if text:
        if not (text.isascii() and text.isdigit() and int(text[:9]) >= 1):
            raise Problem(Kind.MALFORMED, "x-ms-max-item-count is a number of at least 1")
        size = min(int(text[:9]), _MAX_PAGE)
    return _Page(_decode_continuation(request.headers.get("x-ms-continuation", "")), size)


def _encode_continuation(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode()


def _decode_continuation(text: str) -> str:
    try:
        return base64.b64decode(
            text[:_MAX_CONTINUATION].encode("ascii"), b"-_", validate=True
        ).decode()
    except (ValueError, binascii.Error):
        raise Problem(Kind.MALFORMED, "x-ms-continuation is none that was given out") from None


def _answer(document: Any, headers: dict[str, str] | None = None) -> Response:
    return _json(document, 200, headers)


def _answer_page(documents: list[Any], item_type: str, way_on: str | None) -> Response:
    headers = {"x-ms-item-type": item_type, "x-ms-max-item-count": str(len(documents))}
    if way_on is not None:
        headers["x-ms-continuation"] = _encode_continuation(way_on)
    return _answer(documents, headers)
