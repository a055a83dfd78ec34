"""The resource manager over HTTP: Azure's, as far as `Microsoft.Devices` goes.

Rules:

1. Who calls is asked before anything else, so a stranger cannot learn what exists. Then whether
   the operation exists, whether the caller may, and whether subscription and group exist.
2. `api-version` is not looked at: SDKs of several years send many, and what is served here is the
   same in all of them.
3. Every answer is final: a resource is ready when its PUT returns, and nothing is polled for.
"""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from muster.clock import Clock
from muster.control.certificates import CertificateManager
from muster.control.hubs import Hubs
from muster.control.services import ProvisioningServices
from muster.control.subscriptions import Subscriptions
from muster.endpoints.authentication import Authenticate
from muster.endpoints.resource_manager import (
    Call,
    Operation,
    empty_response,
    error_response,
    json_response,
    problem_response,
)
from muster.endpoints.resource_manager_certificates import CertificateOperations
from muster.endpoints.resource_manager_documents import (
    HUB_TYPE,
    SERVICE_TYPE,
    group_document,
    subscription_document,
    values,
)
from muster.endpoints.resource_manager_hubs import HUB_PATH, HubOperations
from muster.endpoints.resource_manager_services import SERVICE_PATH, ServiceOperations
from muster.errors import Problem
from muster.identity.authorization import authorize

_METHODS = ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"]
# The longest path of ours: two UUIDs' worth of ids and four names of 64.
_MAX_PATH = 1_024


def routes(
    *,
    hubs: Hubs,
    services: ProvisioningServices,
    subscriptions: Subscriptions,
    authenticate: Authenticate,
    clock: Clock,
    authority: str,
    global_hostname: str,
) -> list[BaseRoute]:
    """Return the resource manager's routes, for the host root.

    *authority* is the URL of the tenant, which a refusal names; *global_hostname* the name
    that devices dial for provisioning.
    """
    table = [
        *_subscription_operations(subscriptions),
        *HubOperations(hubs).operations(),
        *CertificateOperations(
            CertificateManager(hubs, clock), HUB_TYPE, HUB_PATH, created=201
        ).operations(),
        *ServiceOperations(services, global_hostname).operations(),
        *CertificateOperations(
            CertificateManager(services, clock), SERVICE_TYPE, SERVICE_PATH, created=200
        ).operations(),
    ]
    manager = _ResourceManager(table, subscriptions, authenticate, authority)
    found: list[BaseRoute] = []
    for root in ("subscriptions", "providers"):
        for path in (f"/{root}", f"/{root}/{{rest:path}}"):
            route = Route(path, manager.answer, methods=_METHODS)
            # Starlette matches paths with case; Azure does not.
            route.path_regex = re.compile(route.path_regex.pattern, re.IGNORECASE)
            found.append(route)
    return found


class _ResourceManager:
    def __init__(
        self,
        table: list[Operation],
        subscriptions: Subscriptions,
        authenticate: Authenticate,
        authority: str,
    ) -> None:
        self._table = table
        self._subscriptions = subscriptions
        self._authenticate = authenticate
        self._authority = authority

    async def answer(self, request: Request) -> Response:
        """Find the operation of *request* and do it."""
        try:
            principal = await self._authenticate(request)
        except Problem as problem:
            return problem_response(problem, authority=self._authority)
        path: str = request.scope["path"]
        if len(path) > _MAX_PATH:
            return error_response(414, "InvalidRequestUri", "the path is too long")
        operation, parameters = self._find(request.method, path)
        if operation is None and parameters is None:
            return error_response(404, "NotFound", "there is nothing at this path")
        if operation is None or parameters is None:
            return error_response(405, "MethodNotAllowed", "the path does not have this method")
        missing = None
        try:
            authorize(principal, operation.action, path)
            for missing in ("subscription", "group"):
                await self._check_exists(missing, parameters)
            missing = None
            return await operation.handler(Call(request, principal, parameters))
        except Problem as problem:
            return problem_response(problem, authority=self._authority, missing=missing)

    def _find(self, method: str, path: str) -> tuple[Operation | None, dict[str, str] | None]:
        """Return the operation and its parameters; parameters alone when only the method fails."""
        known: dict[str, str] | None = None
        for operation in self._table:
            parameters = operation.match(path)
            if parameters is not None:
                if operation.method == method:
                    return operation, parameters
                known = parameters
        return None, known

    async def _check_exists(self, what: str, parameters: dict[str, str]) -> None:
        if what not in parameters:
            return
        if what == "subscription":
            await self._subscriptions.get(parameters["subscription"])
        else:
            await self._subscriptions.get_group(parameters["subscription"], parameters["group"])


def _subscription_operations(subscriptions: Subscriptions) -> list[Operation]:
    async def list_subscriptions(_call: Call) -> Response:
        documents = [subscription_document(one) for one in await subscriptions.list()]
        return json_response(values(documents))

    async def get_subscription(call: Call) -> Response:
        subscription = await subscriptions.get(call.parameters["subscription"])
        return json_response(subscription_document(subscription))

    async def list_groups(call: Call) -> Response:
        groups = await subscriptions.groups(call.parameters["subscription"])
        return json_response(values([group_document(group) for group in groups]))

    async def get_group(call: Call) -> Response:
        group = await subscriptions.get_group(
            call.parameters["subscription"], call.parameters["group"]
        )
        return json_response(group_document(group))

    async def has_group(_call: Call) -> Response:
        # Whether it exists was found out before any operation is done.
        return empty_response()

    async def get_provider(_call: Call) -> Response:
        return json_response({"namespace": "Microsoft.Devices", "registrationState": "Registered"})

    subscription = "/subscriptions/{subscription}"
    group = f"{subscription}/resourceGroups/{{group}}"
    read = "Microsoft.Resources/subscriptions/read"
    read_groups = "Microsoft.Resources/subscriptions/resourceGroups/read"
    return [
        Operation("GET", "/subscriptions", read, list_subscriptions),
        Operation("GET", subscription, read, get_subscription),
        Operation("GET", f"{subscription}/resourceGroups", read_groups, list_groups),
        Operation("GET", group, read_groups, get_group),
        Operation("HEAD", group, read_groups, has_group),
        Operation("GET", f"{subscription}/providers/Microsoft.Devices", read, get_provider),
    ]
