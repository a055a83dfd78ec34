"""The provisioning service's API for operators over HTTPS: enrolment groups and registrations.

Rules (facts/dps.md 3):

1. The services are those that answer to the `Host` header; where several do, the shared access
   signature's own key tells which one is meant. A bearer token needs the host to be one service's.
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
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from muster.clock import Clock
from muster.endpoints.authentication import Authenticate
from muster.endpoints.body import read_body
from muster.endpoints.codes import PROVISIONING_CODE
from muster.endpoints.provisioning_enrollment_json import (
    attestation_document,
    group_document,
    parse_group,
)
from muster.endpoints.provisioning_json import (
    INTERNAL_CODE,
    encode,
    error_document,
    parse_json,
    registration_document,
    registration_etag,
)
from muster.endpoints.routing import CaselessRoute
from muster.errors import Kind, Problem
from muster.identity.authorization import authorize
from muster.ids import ETag, RegistrationId, new_uuid
from muster.model.resource import AccessPolicy, ProvisioningService, Right
from muster.ports.hubs import ServiceHosts
from muster.protocols.sas import parse_token
from muster.provisioning.enrollments import Enrollments
from muster.provisioning.records import RegistrationRecords

_log = structlog.get_logger("muster.provisioning")

Endpoint = Callable[[Request], Awaitable[Response]]

_JSON = "application/json; charset=utf-8"
# Two CA certificates in base64 of PEM and a twin of 40 KiB, with room for what SDKs add.
_MAX_BODY = 256 * 1024
_DEFAULT_PAGE, _MAX_PAGE = 100, 1_000
# The key of an item, 128 characters, in base64.
_MAX_CONTINUATION = 256
_QUERY = re.compile(r"\s*select\s+\*\s+from\s+(\w{1,64})\s*;?\s*\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Caller:
    service: ProvisioningService
    actor: str


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
    authenticate: Authenticate | None,
    clock: Clock,
) -> list[BaseRoute]:
    """Return the service API's routes, for the host root.

    *authenticate* judges bearer tokens for the provisioning service's audience; None: only
    shared access signatures are taken.
    """
    door = _Door(hosts, authenticate, clock)
    groups, registrations = _Groups(door, enrollments), _Registrations(door, records)
    answers = _Answers(clock)
    table: list[tuple[str, list[str], Endpoint]] = [
        ("/enrollmentGroups", ["POST"], _refuse_bulk),
        ("/enrollmentGroups/query", ["POST"], groups.query),
        ("/enrollmentGroups/{id}", ["GET"], groups.get),
        ("/enrollmentGroups/{id}", ["PUT"], groups.put),
        ("/enrollmentGroups/{id}", ["DELETE"], groups.delete),
        ("/enrollmentGroups/{id}/attestationmechanism", ["POST"], groups.mechanism),
        ("/registrations/{id}", ["GET"], registrations.get),
        ("/registrations/{id}", ["DELETE"], registrations.delete),
        ("/registrations/{id}/query", ["POST"], registrations.query),
        ("/enrollments", ["POST"], _refuse_individual),
        ("/enrollments/{rest:path}", ["GET", "PUT", "POST", "DELETE"], _refuse_individual),
    ]
    found: list[BaseRoute] = []
    for path, methods, endpoint in table:
        answered = answers.of(endpoint)
        found.append(CaselessRoute(path, answered, methods=methods))
        if not path.endswith(":path}"):
            found.append(CaselessRoute(f"{path}/", answered, methods=methods))
    return found


class _Groups:
    def __init__(self, door: _Door, enrollments: Enrollments) -> None:
        self._door = door
        self._enrollments = enrollments

    async def get(self, request: Request) -> Response:
        caller = await self._door.enter(request, Right.ENROLLMENT_READ, "enrollmentGroups/read")
        group = await self._enrollments.get_group(caller.service.id, _id(request))
        return _answer(group_document(group))

    async def put(self, request: Request) -> Response:
        caller = await self._door.enter(request, Right.ENROLLMENT_WRITE, "enrollmentGroups/write")
        settings, tag = parse_group(await read_body(request, _MAX_BODY), _id(request))
        group = await self._enrollments.put_group(
            caller.service, settings, _if_match(request) or tag, actor=caller.actor
        )
        return _answer(group_document(group))

    async def delete(self, request: Request) -> Response:
        caller = await self._door.enter(request, Right.ENROLLMENT_WRITE, "enrollmentGroups/delete")
        await self._enrollments.delete_group(
            caller.service.id, _id(request), _if_match(request), actor=caller.actor
        )
        return Response(status_code=204)

    async def mechanism(self, request: Request) -> Response:
        caller = await self._door.enter(
            request, Right.ENROLLMENT_READ, "attestationMechanism/details/action"
        )
        group = await self._enrollments.get_group(caller.service.id, _id(request))
        return _answer(attestation_document(group.attestation))

    async def query(self, request: Request) -> Response:
        caller = await self._door.enter(request, Right.ENROLLMENT_READ, "enrollmentGroups/read")
        await _check_query(request, "enrollmentgroups", required=True)
        page = _page(request)
        found = await self._enrollments.list_groups(
            caller.service.id, after=page.after, limit=page.size + 1
        )
        shown = found[: page.size]
        way_on = shown[-1].key if len(found) > page.size else None
        return _answer_page([group_document(one) for one in shown], "enrollmentGroup", way_on)


class _Registrations:
    def __init__(self, door: _Door, records: RegistrationRecords) -> None:
        self._door = door
        self._records = records

    async def get(self, request: Request) -> Response:
        caller = await self._door.enter(
            request, Right.REGISTRATION_STATUS_READ, "registrationStates/read"
        )
        found = await self._records.get(caller.service.id, _registration_id(request))
        return _answer(registration_document(found))

    async def delete(self, request: Request) -> Response:
        caller = await self._door.enter(
            request, Right.REGISTRATION_STATUS_WRITE, "registrationStates/delete"
        )
        registration_id, tag = _registration_id(request), _if_match(request)
        if tag is not None and not tag.matches_any:
            # Shown in base64; taken in either form.
            stored = await self._records.get(caller.service.id, registration_id)
            if tag == registration_etag(stored.etag):
                tag = stored.etag
        await self._records.delete(caller.service.id, registration_id, tag, actor=caller.actor)
        return Response(status_code=204)

    async def query(self, request: Request) -> Response:
        caller = await self._door.enter(
            request, Right.REGISTRATION_STATUS_READ, "registrationStates/read"
        )
        await _check_query(request, "registrations", required=False)
        page = _page(request)
        found = await self._records.list(
            caller.service.id, _id(request), after=page.after, limit=page.size + 1
        )
        shown = found[: page.size]
        way_on = shown[-1].key if len(found) > page.size else None
        documents = [registration_document(one) for one in shown]
        return _answer_page(documents, "deviceRegistration", way_on)


class _Door:
    """Lets operators and their programs in."""

    def __init__(
        self, hosts: ServiceHosts, authenticate: Authenticate | None, clock: Clock
    ) -> None:
        self._hosts = hosts
        self._authenticate = authenticate
        self._clock = clock

    async def enter(self, request: Request, right: Right, action: str) -> _Caller:
        """Return the caller, who has *right* by its key or may do *action* by its role.

        Raises `Problem`: `UNAUTHENTICATED`, `FORBIDDEN`, or `NOT_FOUND` when no service answers to
        the host.
        """
        host = request.headers.get("host", "")
        services = await self._hosts.find_services_by_host(host)
        if not services:
            raise Problem(Kind.NOT_FOUND, "no provisioning service answers to this host")
        headers = request.headers.getlist("authorization")
        if len(headers) != 1:
            raise Problem(Kind.UNAUTHENTICATED, "the request needs one Authorization header")
        if headers[0].lower().startswith("bearer ") and self._authenticate is not None:
            return await self._enter_by_role(request, services, action)
        service, policy = self._find_signer(headers[0], host, request.url.path, services)
        if right not in policy.rights:
            raise Problem(
                Kind.FORBIDDEN, f"the policy {policy.key_name} does not have {right.value}"
            )
        return _Caller(service, f"policy:{policy.key_name}")

    async def _enter_by_role(
        self, request: Request, services: Sequence[ProvisioningService], action: str
    ) -> _Caller:
        assert self._authenticate is not None
        principal = await self._authenticate(request)
        if len(services) > 1:
            raise Problem(
                Kind.MALFORMED,
                "several provisioning services answer to this host;"
                " use a shared access signature, whose key tells which one is meant",
            )
        place = services[0].address
        scope = (
            f"/subscriptions/{place.subscription_id}/resourceGroups/{place.resource_group}"
            f"/providers/Microsoft.Devices/provisioningServices/{place.name}"
        )
        authorize(principal, f"Microsoft.Devices/provisioningServices/{action}", scope)
        return _Caller(services[0], principal.object_id)

    def _find_signer(
        self, header: str, host: str, path: str, services: Sequence[ProvisioningService]
    ) -> tuple[ProvisioningService, AccessPolicy]:
        token = parse_token(header)
        refusal = Problem(
            Kind.UNAUTHENTICATED,
            "the shared access signature is of no policy of this service, or for another resource,"
            " or has expired",
        )
        if token.key_name is None or token.is_expired(self._clock.now()):
            raise refusal
        for service in services:
            policy = service.policy(token.key_name)
            if policy is None:
                continue
            # Both are tried, whatever the first says: time must not tell which one signed.
            signed = [token.is_signed_by(key) for key in (policy.primary_key, policy.secondary_key)]
            meant = token.covers(f"{host}{path}") or token.covers(f"{service.hostname}{path}")
            if any(signed) and meant:
                return service, policy
        raise refusal


class _Answers:
    """Words every failure as the service does."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def of(self, endpoint: Endpoint) -> Endpoint:
        """Return *endpoint* with what it raises turned into an answer."""

        async def answered(request: Request) -> Response:
            try:
                return await endpoint(request)
            except Problem as problem:
                headers = {}
                if problem.retry_after is not None:
                    headers["Retry-After"] = str(max(1, ceil(problem.retry_after)))
                code = PROVISIONING_CODE[problem.kind]
                return self._error(code, problem.detail, new_uuid(), headers)
            except Exception:  # noqa: BLE001 - a bug: logged, and told as "internal" and no more
                tracking_id = new_uuid()
                _log.exception("a request failed", tracking_id=tracking_id, path=request.url.path)
                return self._error(INTERNAL_CODE, "internal error", tracking_id, {})

        return answered

    def _error(
        self, code: int, message: str, tracking_id: str, headers: dict[str, str]
    ) -> Response:
        _log.info("request refused", code=code, why=message, tracking_id=tracking_id)
        body = error_document(code, message, tracking_id=tracking_id, now=self._clock.now())
        headers["x-ms-error-code"] = str(code)
        return Response(encode(body), code // 1000, headers, media_type=_JSON)


async def _refuse_individual(request: Request) -> Response:  # noqa: ARG001 - an endpoint
    raise Problem(Kind.UNSUPPORTED, "individual enrolments are not offered yet")


async def _refuse_bulk(request: Request) -> Response:  # noqa: ARG001 - an endpoint
    raise Problem(Kind.UNSUPPORTED, "bulk operations are not offered yet")


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
    return Response(encode(document), 200, headers, media_type=_JSON)


def _answer_page(documents: list[Any], item_type: str, way_on: str | None) -> Response:
    headers = {"x-ms-item-type": item_type, "x-ms-max-item-count": str(len(documents))}
    if way_on is not None:
        headers["x-ms-continuation"] = _encode_continuation(way_on)
    return _answer(documents, headers)
