"""What every operation of the resource manager shares: how it is called and answered.

A path is matched without case, as Azure's is: SDKs spell `IotHubs`, `iotHubs` and `iothubs`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from muster.control.placement import Precondition
from muster.control.subscriptions import Subscriptions
from muster.endpoints.authentication import Authenticate
from muster.endpoints.body import read_body
from muster.endpoints.codes import (
    HTTP_STATUS,
    INTERNAL_HTTP_STATUS,
    INTERNAL_RESOURCE_MANAGER_CODE,
    RESOURCE_MANAGER_CODE,
)
from muster.endpoints.control.documents import parse_json
from muster.endpoints.rendering import json_response
from muster.endpoints.wire import INTERNAL, Operation, Wire, WordedProblem
from muster.errors import Kind, Problem
from muster.identity.authorization import authorize
from muster.ids import ETag, new_uuid
from muster.model.principal import Principal
from muster.model.resource import ResourceAddress

# Fifty links and as many tags come to 60 KiB; the public service takes 4 MiB for templates,
# which are not served here.
_MAX_BODY = 256 * 1024
# The longest path of ours: two UUIDs' worth of ids and four names of 64.
MAX_PATH = 1_024


@dataclass(frozen=True, slots=True)
class Call:
    """One authenticated and authorised request for an operation."""

    request: Request
    principal: Principal
    parameters: Mapping[str, str]

    @property
    def by(self) -> str:
        """Who is written into the audit trail."""
        return self.principal.object_id

    @property
    def address(self) -> ResourceAddress:
        """Where the resource of the path stands."""
        return ResourceAddress(
            self.parameters["subscription"], self.parameters["group"], self.parameters["name"]
        )

    async def json(self) -> dict[str, Any]:
        """Return the body's JSON object; raises `Problem(MALFORMED)`, `Problem(TOO_LARGE)`."""
        return parse_json(await read_body(self.request, _MAX_BODY))

    @property
    def if_match(self) -> ETag | None:
        """The entity tag in If-Match: the hub's SDK sends it bare, the other in quotes."""
        text = self.request.headers.get("if-match")
        return None if text is None else ETag.parse(text)

    @property
    def required_if_match(self) -> ETag:
        """As `if_match`; raises `Problem(MALFORMED)` when there is none."""
        tag = self.if_match
        if tag is None:
            raise Problem(Kind.MALFORMED, "the header If-Match is required: an entity tag, or *")
        return tag

    @property
    def must_be_new(self) -> bool:
        """Whether If-None-Match is `*`; any other value raises `Problem(MALFORMED)`."""
        text = self.request.headers.get("if-none-match")
        if text not in (None, "*", '"*"'):
            raise Problem(Kind.MALFORMED, "If-None-Match can only be *")
        return text is not None

    @property
    def precondition(self) -> Precondition:
        """Both headers, for a whole resource."""
        return Precondition(self.if_match, self.must_be_new)


class ResourceManagerWire(Wire[Call]):
    """Lets callers in and words what goes wrong as Azure does.

    *authority* is the URL of the tenant, which a refusal names.
    """

    name = "resource manager"
    caseless = True
    final_slash = True
    head = False
    longest = MAX_PATH

    def __init__(
        self, authenticate: Authenticate, subscriptions: Subscriptions, authority: str
    ) -> None:
        self._authenticate = authenticate
        self._subscriptions = subscriptions
        self._authority = authority

    async def enter(self, request: Request, operation: Operation[Call]) -> Call:
        """Let in who may do the operation's action, where subscription and group exist."""
        principal = await self._authenticate(request)
        call = Call(request, principal, request.path_params)
        if operation.action is not None:
            authorize(principal, operation.action, request.scope["path"])
            await self._check_existence(call.parameters)
        return call

    async def _check_existence(self, parameters: Mapping[str, str]) -> None:
        if "subscription" not in parameters:
            return
        subscription = parameters["subscription"]
        with _wording(Kind.NOT_FOUND, "SubscriptionNotFound"):
            await self._subscriptions.get(subscription)
        if "group" in parameters:
            with _wording(Kind.NOT_FOUND, "ResourceGroupNotFound"):
                await self._subscriptions.get_group(subscription, parameters["group"])

    def refuse(self, request: Request, problem: Problem, tracking_id: str) -> Response:  # noqa: ARG002 - of the base class
        """Return *problem* with Azure's code, and the way to a token if that is what is wanting."""
        code = RESOURCE_MANAGER_CODE[problem.kind]
        if isinstance(problem, WordedProblem):
            code = problem.word
        response = error_response(HTTP_STATUS[problem.kind], code, problem.detail, tracking_id)
        if problem.kind is Kind.UNAUTHENTICATED:
            response.headers["WWW-Authenticate"] = (
                f'Bearer authorization_uri="{self._authority}", error="invalid_token", '
                f'error_description="{_quotable(problem.detail)}"'
            )
        return response

    def fail(self, request: Request, tracking_id: str) -> Response:  # noqa: ARG002 - as above
        """Return the same form for a bug."""
        code = INTERNAL_RESOURCE_MANAGER_CODE
        return error_response(INTERNAL_HTTP_STATUS, code, INTERNAL, tracking_id)


def json_answer(document: Any, status: int = 200) -> Response:
    """Return *document* as an answer that nobody may keep."""
    return json_response(document, status, _headers(new_uuid()))


def empty_response(status: int = 204) -> Response:
    """Return an answer without a body."""
    return Response(None, status, _headers(new_uuid()))


def error_response(status: int, code: str, message: str, request_id: str | None = None) -> Response:
    """Return an error in Azure's form."""
    body = {"error": {"code": code, "message": message}}
    return json_response(body, status, _headers(request_id or new_uuid()))


@contextmanager
def _wording(kind: Kind, word: str) -> Iterator[None]:
    """Give a problem of *kind* Azure's more exact word."""
    try:
        yield
    except Problem as problem:
        if problem.kind is not kind:
            raise
        raise WordedProblem(problem, word) from problem


def _quotable(text: str) -> str:
    # RFC 6750 section 3: error_description has visible ASCII and spaces, no quotes or backslashes.
    return "".join(c if " " <= c <= "~" and c not in '"\\' else "?" for c in text)


def _headers(request_id: str) -> dict[str, str]:
    return {"Cache-Control": "no-store", "x-ms-request-id": request_id}
