"""The resource manager over HTTP: Azure's, as far as `Microsoft.Devices` goes.

Rules:

1. Who calls is asked before anything else, so a stranger cannot learn what exists. Then whether
   the operation exists, whether the caller may, and whether subscription and group exist.
2. `api-version` is not looked at: SDKs of several years send many, and what is served here is the
   same in all of them.
3. Every answer is final: a resource is ready when its PUT returns, and nothing is polled for.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.responses import Response
from starlette.routing import BaseRoute, Match

from muster.clock import Clock
from muster.control.certificates import CertificateManager
from muster.control.hubs import Hubs
from muster.control.services import ProvisioningServices
from muster.control.subscriptions import Subscriptions
from muster.endpoints.authentication import Authenticate
from muster.endpoints.control.certificates import CertificateOperations
from muster.endpoints.control.documents import (
    HUB_TYPE,
    SERVICE_TYPE,
    group_document,
    subscription_document,
    values,
)
from muster.endpoints.control.hubs import HUB_PATH, HubOperations
from muster.endpoints.control.services import SERVICE_PATH, ServiceOperations
from muster.endpoints.control.wire import (
    MAX_PATH,
    Call,
    ResourceManagerWire,
    empty_response,
    error_response,
    json_answer,
)
from muster.endpoints.routing import PathRoute
from muster.endpoints.wire import Operation, answering, routes_of

_METHODS = ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"]


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
    wire = ResourceManagerWire(authenticate, subscriptions, authority)
    return [*routes_of(wire, table), *_fallback(wire, table)]


def _fallback(wire: ResourceManagerWire, table: Sequence[Operation[Call]]) -> list[BaseRoute]:
    """Return the routes of whatever else begins like ours: those who may call learn what is wrong.

    Starlette's own 404 and 405 would be told to strangers too, and not in Azure's form.
    """
    known = routes_of(wire, table)

    async def explain(call: Call) -> Response:
        scope = call.request.scope
        if len(scope["path"]) > MAX_PATH:
            return error_response(414, "InvalidRequestUri", "the path is too long")
        if any(route.matches(scope)[0] is not Match.NONE for route in known):
            return error_response(405, "MethodNotAllowed", "the path does not have this method")
        return error_response(404, "NotFound", "there is nothing at this path")

    endpoint = answering(wire, Operation("*", "*", explain))
    return [
        PathRoute(path, endpoint, methods=_METHODS, caseless=True, head=False)
        for root in ("subscriptions", "providers")
        for path in (f"/{root}", f"/{root}/{{rest:path}}")
    ]


def _subscription_operations(subscriptions: Subscriptions) -> list[Operation[Call]]:
    async def list_subscriptions(_call: Call) -> Response:
        documents = [subscription_document(one) for one in await subscriptions.list()]
        return json_answer(values(documents))

    async def get_subscription(call: Call) -> Response:
        subscription = await subscriptions.get(call.parameters["subscription"])
        return json_answer(subscription_document(subscription))

    async def list_groups(call: Call) -> Response:
        groups = await subscriptions.groups(call.parameters["subscription"])
        return json_answer(values([group_document(group) for group in groups]))

    async def get_group(call: Call) -> Response:
        group = await subscriptions.get_group(
            call.parameters["subscription"], call.parameters["group"]
        )
        return json_answer(group_document(group))

    async def has_group(_call: Call) -> Response:
        # Whether it exists was found out before any operation is done.
        return empty_response()

    async def get_provider(_call: Call) -> Response:
        return json_answer({"namespace": "Microsoft.Devices", "registrationState": "Registered"})

    subscription = "/subscriptions/{subscription}"
    group = f"{subscription}/resourceGroups/{{group}}"
    read = "Microsoft.Resources/subscriptions/read"
    read_groups = "Microsoft.Resources/subscriptions/resourceGroups/read"
    return [
        Operation("GET", "/subscriptions", list_subscriptions, read),
        Operation("GET", subscription, get_subscription, read),
        Operation("GET", f"{subscription}/resourceGroups", list_groups, read_groups),
        Operation("GET", group, get_group, read_groups),
        Operation("HEAD", group, has_group, read_groups),
        Operation("GET", f"{subscription}/providers/Microsoft.Devices", get_provider, read),
    ]
