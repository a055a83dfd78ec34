"""The door of the hub's and the provisioning service's APIs: who calls which resource, and may it.

Rules:

1. The resource is the one that answers to the `Host` header. Where several do, the shared access
   signature's own key tells which one is meant; a bearer token needs it to be one.
2. Who calls is asked first. A stranger is told 401 whether or not a resource answers to the host,
   in the same words; that there is none is told to those whose token is good.
3. A shared access signature is judged by the resource's policies (`protocols/sas_policy.py`); a
   bearer token by the token service, and its caller by Azure's action for the call.
4. A request has one Authorization header: two would leave it to chance which of them a proxy in
   front looked at.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import quote_from_bytes, unquote_to_bytes

from starlette.requests import Request

from muster.clock import Clock
from muster.endpoints.authentication import Authenticate
from muster.errors import Kind, Problem
from muster.identity.authorization import authorize
from muster.model.resource import AccessPolicy, Hub, ProvisioningService, Right
from muster.ports.hubs import HubDirectory, ServiceHosts
from muster.protocols.sas import SasToken, parse_token
from muster.protocols.sas_policy import judge_policy_token

_SAS = "sharedaccesssignature "

R = TypeVar("R", Hub, ProvisioningService)


@dataclass(frozen=True, slots=True)
class Caller(Generic[R]):
    """Who calls which resource, and the request. `actor` is for the audit trail."""

    request: Request
    resource: R
    actor: str


class ServiceDoor(Generic[R]):
    """Lets services and people in.

    *find* tells which resources answer to a host; *provider* is their type in Azure's ids, and
    *noun* what they are called in a refusal.
    """

    def __init__(
        self,
        find: Callable[[str], Awaitable[Sequence[R]]],
        provider: str,
        noun: str,
        authenticate: Authenticate,
        clock: Clock,
    ) -> None:
        self._find: Callable[[str], Awaitable[Sequence[R]]] = find
        self._provider = provider
        self._noun = noun
        self._authenticate = authenticate
        self._clock = clock

    async def enter(self, request: Request, right: Right, action: str) -> Caller[R]:
        """Return the caller, who has *right* by its key or may do *action* by its role.

        Raises `Problem`: `UNAUTHENTICATED`, `FORBIDDEN`, or, for a bearer, `NOT_FOUND` when no
        resource answers to the host and `MALFORMED` when several do.
        """
        headers = request.headers.getlist("authorization")
        if len(headers) != 1:
            raise Problem(Kind.UNAUTHENTICATED, "the request needs one Authorization header")
        if headers[0].lower().startswith(_SAS):
            return await self._enter_by_key(request, parse_token(headers[0]), right)
        return await self._enter_by_role(request, action)

    async def _enter_by_key(self, request: Request, token: SasToken, right: Right) -> Caller[R]:
        host = request.headers.get("host", "")
        found = await self._find(host)
        refusals: list[Problem] = []
        for resource in found:
            try:
                policy = self._judge(
                    request, token, right, resource.policies, (host, resource.hostname)
                )
            except Problem as problem:
                if problem.kind is not Kind.UNAUTHENTICATED:
                    raise
                refusals.append(problem)
            else:
                return Caller(request, resource, f"policy:{policy.key_name}")
        if not found:
            # Refused as if there were one with other keys.
            self._judge(request, token, right, (), (host,))
        raise refusals[0]

    def _judge(
        self,
        request: Request,
        token: SasToken,
        right: Right,
        policies: Sequence[AccessPolicy],
        hosts: Sequence[str],
    ) -> AccessPolicy:
        return judge_policy_token(
            token,
            policies,
            hosts=hosts,
            segments=path_segments(request),
            right=right,
            now=self._clock.now(),
        )

    async def _enter_by_role(self, request: Request, action: str) -> Caller[R]:
        principal = await self._authenticate(request)
        host = request.headers.get("host", "")
        found = await self._find(host)
        if not found:
            raise Problem(Kind.NOT_FOUND, f"no {self._noun} answers to {host[:100]!r}")
        if len(found) > 1:
            raise Problem(
                Kind.MALFORMED,
                f"several {self._noun}s answer to this host;"
                " use a shared access signature, whose key tells which one is meant",
            )
        place = found[0].address
        scope = (
            f"/subscriptions/{place.subscription_id}/resourceGroups/{place.resource_group}"
            f"/providers/{self._provider}/{place.name}"
        )
        authorize(principal, action, scope)
        return Caller(request, found[0], principal.object_id)


def hub_door(hubs: HubDirectory, authenticate: Authenticate, clock: Clock) -> ServiceDoor[Hub]:
    """Return the door of every hub's service API."""

    async def find(host: str) -> list[Hub]:
        hub = await hubs.find_hub(host)
        return [] if hub is None else [hub]

    return ServiceDoor(find, "Microsoft.Devices/IotHubs", "hub", authenticate, clock)


def provisioning_door(
    hosts: ServiceHosts, authenticate: Authenticate, clock: Clock
) -> ServiceDoor[ProvisioningService]:
    """Return the door of every provisioning service's API."""
    return ServiceDoor(
        hosts.find_services_by_host,
        "Microsoft.Devices/provisioningServices",
        "provisioning service",
        authenticate,
        clock,
    )


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
