"""The token service over HTTP: OAuth 2 as Entra ID speaks it, and the managed identity endpoints.

Rules:

1. The tenant in the path is ours, or `adfs`: the name under which clients skip instance discovery.
2. Errors are OAuth's words with a description that begins like Entra's, because clients show it.
3. The managed identity endpoints answer programs on this machine only, and nothing that a
   proxy passed on. The App Service form asks for the identity's header secret. The IMDS form has no
   secret: whoever may open a loopback connection gets a token. So it is off unless asked for.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from muster.clock import Clock
from muster.endpoints.body import read_body
from muster.endpoints.codes import (
    HTTP_STATUS,
    INTERNAL_HTTP_STATUS,
    INTERNAL_OAUTH_ERROR,
    OAUTH_ERROR,
)
from muster.endpoints.rendering import json_response
from muster.endpoints.wire import INTERNAL, Operation, Wire, WordedProblem, routes_of
from muster.errors import Kind, Problem
from muster.identity.audiences import Audiences
from muster.identity.issuance import (
    ADFS,
    ClientCredentials,
    ClientProof,
    IssuedToken,
    ManagedIdentity,
    TokenIssuer,
)
from muster.identity.signing_keys import SigningKeys
from muster.ids import new_uuid

# An assertion with a chain of four RSA-4096 certificates, percent-encoded, and room.
_MAX_FORM = 65_536
# Clients send some ten fields.
_MAX_FIELDS = 32
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}
# A proxy on this machine is a loopback peer too; its clients are not.
_FORWARDING = ("forwarded", "x-forwarded-for", "x-forwarded-host", "via")


def routes(
    *,
    issuer: TokenIssuer,
    keys: SigningKeys,
    audiences: Audiences,
    credentials: ClientCredentials,
    managed_identity: ManagedIdentity,
    clock: Clock,
    imds: bool = False,
) -> list[BaseRoute]:
    """Return the token service's routes, for the host root. *imds* turns the IMDS form on."""
    service = _TokenService(issuer, keys, audiences, credentials)
    local = _LocalTokens(audiences, managed_identity)
    well_known = ".well-known/openid-configuration"
    table: list[Operation[Request]] = [
        Operation("GET", f"/{{tenant}}/v2.0/{well_known}", service.discovery),
        Operation("GET", f"/{{tenant}}/{well_known}", service.discovery),
        Operation("GET", "/{tenant}/discovery/v2.0/keys", service.key_set),
        Operation("GET", "/{tenant}/discovery/keys", service.key_set),
        Operation("POST", "/{tenant}/oauth2/v2.0/token", service.token),
        Operation("POST", "/{tenant}/oauth2/token", service.token),
    ]
    app_service = Operation("GET", "/msi/token", local.app_service)
    metadata = [
        # @azure/identity asks with a trailing slash, the others without.
        Operation("GET", "/metadata/identity/oauth2/token", local.imds),
        Operation("GET", "/metadata/identity/oauth2/token/", local.imds),
    ]
    return [
        *routes_of(_OAuthWire(clock), table),
        *routes_of(_AppServiceWire(), [app_service]),
        *routes_of(_MetadataWire(), metadata if imds else []),
    ]


class _OAuthWire(Wire[Request]):
    """OAuth 2's errors, as Entra ID words them. Who calls is in the request's body."""

    name = "oauth"

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def enter(self, request: Request, operation: Operation[Request]) -> Request:  # noqa: ARG002 - of the base class
        """Let everybody in: tokens are what callers come for."""
        return request

    def refuse(self, request: Request, problem: Problem, tracking_id: str) -> Response:
        """Return OAuth's word with Entra's number for it."""
        status, error, number = OAUTH_ERROR[problem.kind]
        if isinstance(problem, WordedProblem):
            error = problem.word
        return self._error(request, (status, error, number), problem.detail, tracking_id)

    def fail(self, request: Request, tracking_id: str) -> Response:
        """Return the same form for a bug."""
        return self._error(request, INTERNAL_OAUTH_ERROR, INTERNAL, tracking_id)

    def _error(
        self, request: Request, word: tuple[int, str, int], detail: str, tracking_id: str
    ) -> Response:
        status, error, number = word
        body = {
            "error": error,
            "error_description": f"AADSTS{number}: {detail}",
            "error_codes": [number],
            "timestamp": f"{self._clock.now():%Y-%m-%d %H:%M:%SZ}",
            "trace_id": tracking_id,
            "correlation_id": _correlation_id(request),
        }
        return json_response(body, status, _NO_STORE)


class _LocalWire(Wire[Request]):
    """For programs on this machine only."""

    async def enter(self, request: Request, operation: Operation[Request]) -> Request:  # noqa: ARG002 - of the base class
        """Let this machine's own requests in."""
        _check_local(request)
        return request


class _AppServiceWire(_LocalWire):
    """Azure App Service's form of refusal."""

    name = "app service identity"

    def refuse(self, request: Request, problem: Problem, tracking_id: str) -> Response:  # noqa: ARG002 - of the base class
        """Return status and message."""
        status = HTTP_STATUS[problem.kind]
        # 404 would say that there is no identity endpoint at all, and is retried.
        return self._error(400 if status == 404 else status, problem.detail)

    def fail(self, request: Request, tracking_id: str) -> Response:  # noqa: ARG002 - as above
        """Return the same form for a bug."""
        return self._error(INTERNAL_HTTP_STATUS, INTERNAL)

    def _error(self, status: int, message: str) -> Response:
        return json_response({"statusCode": status, "message": message}, status, _NO_STORE)


class _MetadataWire(_LocalWire):
    """The instance metadata service's form of refusal."""

    name = "instance metadata"

    def refuse(self, request: Request, problem: Problem, tracking_id: str) -> Response:  # noqa: ARG002 - of the base class
        """Return 400 whatever it is: clients try 404, 410, 429 and 5xx again for minutes."""
        body = {"error": "invalid_request", "error_description": problem.detail}
        return json_response(body, 400, _NO_STORE)

    def fail(self, request: Request, tracking_id: str) -> Response:  # noqa: ARG002 - as above
        """Return the same form for a bug, which may well be gone at the next try."""
        body = {"error": INTERNAL_OAUTH_ERROR[1], "error_description": INTERNAL}
        return json_response(body, INTERNAL_HTTP_STATUS, _NO_STORE)


@dataclass(frozen=True, slots=True)
class _TokenService:
    issuer: TokenIssuer
    keys: SigningKeys
    audiences: Audiences
    credentials: ClientCredentials

    async def discovery(self, request: Request) -> Response:
        """OpenID Connect Discovery section 4, as far as clients here read it."""
        base, tenant = self._base(request)
        version = "" if tenant == ADFS else "v2.0/"
        document = {
            "issuer": self.issuer.issuer,
            "authorization_endpoint": f"{base}/oauth2/{version}authorize",
            "token_endpoint": f"{base}/oauth2/{version}token",
            "jwks_uri": f"{base}/discovery/{version}keys",
            "response_types_supported": ["token"],
            "response_modes_supported": ["form_post"],
            "grant_types_supported": ["client_credentials"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "scopes_supported": ["openid"],
            "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
            "token_endpoint_auth_signing_alg_values_supported": ["RS256", "PS256"],
            "claims_supported": ["aud", "iss", "iat", "nbf", "exp", "tid", "oid", "sub", "appid"],
        }
        return json_response(document)

    async def key_set(self, request: Request) -> Response:
        """The public keys, RFC 7517."""
        self._base(request)
        return json_response(self.keys.jwks())

    async def token(self, request: Request) -> Response:
        """The token endpoint, RFC 6749 section 4.4.2."""
        self._base(request)
        form = _parse_form(await read_body(request, _MAX_FORM))
        _check_grant(form)
        audience = self._audience(form)
        proof = ClientProof(form.get("client_secret"), form.get("client_assertion"))
        issued = await self.credentials.grant(form.get("client_id", ""), proof, audience)
        body: dict[str, Any] = {
            "token_type": "Bearer",
            "expires_in": issued.expires_in,
            "ext_expires_in": issued.expires_in,
            "access_token": issued.access_token,
        }
        if "scope" not in form:  # version 1.0's answer, whose numbers are texts
            body |= {
                "expires_in": str(issued.expires_in),
                "ext_expires_in": str(issued.expires_in),
                "expires_on": str(issued.expires_on),
                "not_before": str(issued.not_before),
                "resource": issued.audience,
            }
        return json_response(body, headers=_NO_STORE)

    def _audience(self, form: dict[str, str]) -> str:
        if "scope" not in form and "resource" not in form:
            missing = Problem(Kind.MALFORMED, "give scope (or, for version 1.0, resource)")
            raise WordedProblem(missing, "invalid_resource")
        try:
            if "scope" in form:
                return self.audiences.of_scope(form["scope"])
            return self.audiences.of_resource(form["resource"])
        except Problem as problem:
            word = "invalid_scope" if "scope" in form else "invalid_resource"
            raise WordedProblem(problem, word) from problem

    def _base(self, request: Request) -> tuple[str, str]:
        tenant = request.path_params["tenant"].lower()
        if tenant not in (self.issuer.tenant_id.lower(), ADFS):
            raise Problem(Kind.MALFORMED, "there is no such tenant here")
        return f"{self.issuer.public_url}/{tenant}", tenant


@dataclass(frozen=True, slots=True)
class _LocalTokens:
    audiences: Audiences
    identity: ManagedIdentity

    async def app_service(self, request: Request) -> Response:
        """Azure App Service's managed identity endpoint, api-version 2019-08-01."""
        header = request.headers.get("x-identity-header", "")
        audience, client_id = self._wanted(request)
        issued = await self.identity.token_for_header(header, audience, client_id=client_id)
        return json_response(_managed(issued), headers=_NO_STORE)

    async def imds(self, request: Request) -> Response:
        """The instance metadata service's token endpoint, api-version 2018-02-01."""
        _check_metadata(request)
        audience, client_id = self._wanted(request)
        issued = await self.identity.token(audience, client_id=client_id)
        return json_response(_managed(issued), headers=_NO_STORE)

    def _wanted(self, request: Request) -> tuple[str, str | None]:
        query = request.query_params
        if "api-version" not in query:
            raise Problem(Kind.MALFORMED, "the query api-version is missing")
        unsupported = {"object_id", "principal_id", "mi_res_id", "msi_res_id"} & set(query)
        if unsupported:
            raise Problem(Kind.MALFORMED, "name the identity by client_id, or not at all")
        audience = self.audiences.of_resource(query.get("resource", ""))
        return audience, query.get("client_id")


def _managed(issued: IssuedToken) -> dict[str, str]:
    """Return the answer that both forms read: every number is a text."""
    return {
        "access_token": issued.access_token,
        "expires_in": str(issued.expires_in),
        "expires_on": str(issued.expires_on),
        "not_before": str(issued.not_before),
        "resource": issued.audience,
        "token_type": "Bearer",
    }


def _check_local(request: Request) -> None:
    host = "" if request.client is None else request.client.host
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    mapped = getattr(address, "ipv4_mapped", None)
    local = address is not None and (mapped or address).is_loopback
    if not local or any(name in request.headers for name in _FORWARDING):
        raise Problem(Kind.FORBIDDEN, "managed identity tokens are for this machine only")


def _check_metadata(request: Request) -> None:
    # What a page in a browser cannot send to a host that is not its own.
    if request.headers.get("metadata", "").lower() != "true":
        raise Problem(Kind.MALFORMED, "the header Metadata: true is missing")


def _check_grant(form: dict[str, str]) -> None:
    grant = form.get("grant_type")
    if grant is None:
        raise Problem(Kind.MALFORMED, "grant_type is missing")
    if grant != "client_credentials":
        raise Problem(Kind.UNSUPPORTED, "the only grant_type served is client_credentials")
    if "client_assertion" in form and form.get("client_assertion_type") != _ASSERTION_TYPE:
        raise Problem(Kind.MALFORMED, f"client_assertion_type must be {_ASSERTION_TYPE}")


def _parse_form(body: bytes) -> dict[str, str]:
    try:
        fields = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            max_num_fields=_MAX_FIELDS,
            errors="strict",
        )
    except ValueError as error:
        raise Problem(Kind.MALFORMED, "the body is not a form in UTF-8") from error
    form = dict(fields)
    # RFC 6749 section 3.2: parameters must not be included more than once.
    if len(form) != len(fields):
        raise Problem(Kind.MALFORMED, "a form field was given twice")
    # Section 3.2 too: parameters sent without a value count as omitted.
    return {name: value for name, value in form.items() if value}


def _correlation_id(request: Request) -> str:
    """Return the id that the client gave its request: what both ends' logs have in common."""
    given = request.headers.get("client-request-id", "")
    return given if 0 < len(given) <= 64 and given.isascii() and given.isprintable() else new_uuid()
