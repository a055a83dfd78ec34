"""What every operation of the resource manager shares: how it is found, called and answered.

A path is matched without case, as Azure's is: SDKs spell `IotHubs`, `iotHubs` and `iothubs`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from muster.control.placement import Precondition
from muster.endpoints.body import read_body
from muster.endpoints.codes import HTTP_STATUS, RESOURCE_MANAGER_CODE
from muster.endpoints.resource_manager_documents import parse_json
from muster.errors import Kind, Problem
from muster.ids import ETag, new_uuid
from muster.model.principal import Principal
from muster.model.resource import ResourceAddress

# Fifty links and as many tags come to 60 KiB; the public service takes 4 MiB for templates,
# which are not served here.
_MAX_BODY = 256 * 1024
# Azure's words where `Kind` is too coarse for them.
_NAME_OF_PARAMETER = {"subscription": "SubscriptionNotFound", "group": "ResourceGroupNotFound"}


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


Handler = Callable[[Call], Awaitable[Response]]


class Operation:
    """A method and a path, the action it takes to be allowed it, and what does it."""

    def __init__(self, method: str, path: str, action: str, handler: Handler) -> None:
        self.method = method
        self.action = action
        self.handler = handler
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path)
        self._pattern = re.compile(pattern + r"/?\Z", re.IGNORECASE)

    def match(self, path: str) -> dict[str, str] | None:
        """Return the path's parameters, or None when it is another's."""
        found = self._pattern.match(path)
        return None if found is None else found.groupdict()


def json_response(
    document: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return *document* as an answer that nobody may keep."""
    return Response(
        msgspec.json.encode(document),
        status,
        _headers(headers),
        media_type="application/json",
    )


def empty_response(status: int = 204) -> Response:
    """Return an answer without a body."""
    return Response(None, status, _headers(None))


def problem_response(problem: Problem, *, authority: str, missing: str | None = None) -> Response:
    """Return *problem* in Azure's form; *missing* is the path parameter that named nothing."""
    code = RESOURCE_MANAGER_CODE[problem.kind]
    if missing is not None and problem.kind is Kind.NOT_FOUND:
        code = _NAME_OF_PARAMETER[missing]
    headers: dict[str, str] = {}
    if problem.kind is Kind.UNAUTHENTICATED:
        headers["WWW-Authenticate"] = (
            f'Bearer authorization_uri="{authority}", error="invalid_token", '
            f'error_description="{_quotable(problem.detail)}"'
        )
    if problem.retry_after is not None:
        headers["Retry-After"] = f"{problem.retry_after:.0f}"
    return error_response(HTTP_STATUS[problem.kind], code, problem.detail, headers)


def error_response(
    status: int, code: str, message: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Return an error in Azure's form."""
    return json_response({"error": {"code": code, "message": message}}, status, headers)


def _quotable(text: str) -> str:
    # RFC 6750 section 3: error_description has visible ASCII and spaces, no quotes or backslashes.
    return "".join(c if " " <= c <= "~" and c not in '"\\' else "?" for c in text)


def _headers(extra: Mapping[str, str] | None) -> dict[str, str]:
    return {"Cache-Control": "no-store", "x-ms-request-id": new_uuid(), **(extra or {})}
