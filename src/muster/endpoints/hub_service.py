"""What all of a hub's HTTP wires share: who is calling which hub, and how a refusal is worded.

Rules:

1. The hub is the one that answers to the `Host` header.
2. A shared access signature is judged by the hub's policies; a bearer token by the token service,
   and its caller by Azure's action for the call.
3. A refusal has one of two shapes, as on IoT Hub: the registry's, whose `Message` begins with
   `ErrorCode:`, and that of twins and methods, whose `Message` is a JSON text.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote_from_bytes, unquote_to_bytes

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response

from muster.clock import Clock
from muster.endpoints.authentication import Authenticate
from muster.endpoints.codes import HUB_CODE
from muster.errors import Kind, Problem
from muster.hub.access import authorise_token
from muster.identity.authorization import authorize
from muster.ids import new_uuid
from muster.model.resource import Hub, Right
from muster.ports.hubs import HubDirectory

log = structlog.get_logger(__name__)

Endpoint = Callable[[Request], Awaitable[Response]]

_JSON = "application/json; charset=utf-8"
_SAS = "sharedaccesssignature "


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls which hub. `actor` is for the audit trail; None in `valid_until`: ask again."""

    hub: Hub
    actor: str
    valid_until: datetime | None


class ServiceDoor:
    """Lets services and people in to a hub's HTTP wires."""

    def __init__(self, hubs: HubDirectory, authenticate: Authenticate, clock: Clock) -> None:
        self._hubs = hubs
        self._authenticate = authenticate
        self._clock = clock

    async def enter(self, request: Request, right: Right, action: str) -> Caller:
        """Return the caller, who has *right* by its key or may do *action* by its role.

        *action* is what follows `Microsoft.Devices/IotHubs/`. Raises `Problem`:
        `UNAUTHENTICATED`, `FORBIDDEN`, or `NOT_FOUND` when no hub answers to the host.
        """
        host = request.headers.get("host", "")
        hub = await self._hubs.find_hub(host)
        if hub is None:
            raise Problem(Kind.NOT_FOUND, f"no hub answers to {host[:100]!r}")
        authorization = request.headers.get("authorization", "")
        if authorization.lower().startswith(_SAS):
            now = self._clock.now()
            path = "/".join(path_segments(request))
            policy, until = authorise_token(hub, host, authorization, right, path, now=now)
            return Caller(hub, f"policy:{policy.key_name}", until)
        principal = await self._authenticate(request)
        authorize(principal, f"Microsoft.Devices/IotHubs/{action}", _scope(hub))
        return Caller(hub, principal.object_id, None)


def path_segments(request: Request) -> tuple[str, ...]:
    """Return the decoded segments of the path as it was sent.

    An encoded slash stays inside its segment, which the framework's own path cannot tell.
    Raises `Problem(MALFORMED)` for what is not UTF-8.
    """
    raw: bytes = (
        request.scope.get("raw_path") or quote_from_bytes(request.url.path.encode()).encode()
    )
    path = raw.partition(b"?")[0]
    try:
        return tuple(unquote_to_bytes(part).decode() for part in path.strip(b"/").split(b"/"))
    except UnicodeDecodeError:
        raise Problem(Kind.MALFORMED, "the path is not UTF-8") from None


def answers_problems(endpoint: Endpoint) -> Endpoint:
    """Return *endpoint* with every `Problem` it raises worded as the registry words it."""

    async def answered(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Problem as problem:
            return registry_refusal(problem)

    return answered


def registry_refusal(problem: Problem) -> Response:
    """Return the registry's shape of a refusal."""
    code, name = HUB_CODE[problem.kind]
    body = {
        "Message": f"ErrorCode:{name};{problem.detail}",
        "ExceptionMessage": f"Tracking ID:{_tracking_id(problem)}",
    }
    return _refusal(problem, code, name, body)


def twin_refusal(problem: Problem, now: datetime) -> Response:
    """Return the shape of a refusal that twins and methods have."""
    code, name = HUB_CODE[problem.kind]
    body = {"Message": error_document(problem, now).decode(), "ExceptionMessage": ""}
    return _refusal(problem, code, name, body)


def error_document(problem: Problem, now: datetime) -> bytes:
    """Return the JSON that tells a twin's client of *problem*, on HTTP and on MQTT alike."""
    return msgspec.json.encode(
        {
            "errorCode": HUB_CODE[problem.kind][0],
            "trackingId": _tracking_id(problem),
            "message": problem.detail,
            "timestampUtc": timestamp(now),
        }
    )


def timestamp(moment: datetime) -> str:
    """Return *moment* (UTC) as IoT Hub's JSON spells it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def json_response(
    value: object, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """Return *value* as JSON."""
    body = msgspec.json.encode(value, enc_hook=_as_text)
    return Response(body, status, headers, media_type=_JSON)


def _as_text(value: object) -> str:
    # Identifiers are subclasses of str, which the encoder does not take for text.
    if isinstance(value, str):
        return str(value)
    raise TypeError(f"{type(value)} is not JSON")


def _refusal(problem: Problem, code: int, name: str, body: dict[str, str]) -> Response:
    headers = {"iothub-errorcode": name}
    if problem.retry_after is not None:
        headers["Retry-After"] = str(max(1, round(problem.retry_after)))
    return json_response(body, code // 1000, headers)


def _tracking_id(problem: Problem) -> str:
    # Shown to the peer and logged, so that one who complains can be found.
    tracking_id = new_uuid()
    log.info(
        "request refused", tracking_id=tracking_id, kind=problem.kind.value, why=problem.detail
    )
    return tracking_id


def _scope(hub: Hub) -> str:
    place = hub.address
    return (
        f"/subscriptions/{place.subscription_id}/resourceGroups/{place.resource_group}"
        f"/providers/Microsoft.Devices/IotHubs/{place.name}"
    )
