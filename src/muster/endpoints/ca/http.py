"""The CA over HTTP: EZCA's API, and the small one of ours that EZCA has no public words for.

Rules, each one learnt from a client:

1. Endpoints that answer with an APIResult (keys `Success` and `Message`, exactly so) say no with
   status 200 and `Success` false: the sample programs show `Message` and drop every other body.
2. Endpoints that answer with bare JSON say no with a 4xx status and plain text that begins with
   "Error": ezca-go looks at nothing else.
3. Only what a repetition may mend has a status that clients retry on their own (503), and a
   missing or bad token is 401 everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from msgspec import Struct, field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from muster.ca.authority import Authorities, HierarchyPlan
from muster.ca.domains import Domains
from muster.ca.issuers import parsed_certificate
from muster.ca.requests import CertificateRequests, IssuedCertificate
from muster.certs.encoding import certificate_pem
from muster.certs.identity import sha1_thumbprint, sha256_thumbprint
from muster.endpoints.authentication import Authenticate
from muster.endpoints.body import read_body
from muster.endpoints.ca.documents import (
    RegisterDomainBody,
    RequestCertificateBody,
    RequestCertificateV2Body,
    authority_entry,
    bare_authority_entry,
    certificate_created,
    decode,
)
from muster.endpoints.codes import HTTP_STATUS, INTERNAL_HTTP_STATUS
from muster.endpoints.rendering import encode_json, json_response
from muster.endpoints.wire import INTERNAL, Operation, Wire, routes_of
from muster.errors import Kind, Problem
from muster.model.authority import Authority, Hashing, KeyType
from muster.model.principal import Principal

# A CSR of 32 KiB with every control character escaped, and a hundred names beside it.
_MAX_BODY = 128 * 1024


@dataclass(frozen=True, slots=True)
class Call:
    """An authenticated request. What the caller may, the services decide."""

    request: Request
    principal: Principal


# What an APIResult endpoint says with its status: the caller must sign in, wait or send less.
_STATUS_SPEAKS = {Kind.UNAUTHENTICATED, Kind.THROTTLED, Kind.UNAVAILABLE, Kind.TOO_LARGE}


def routes(
    *,
    authenticate: Authenticate,
    authorities: Authorities,
    domains: Domains,
    requests: CertificateRequests,
) -> list[BaseRoute]:
    """Return the CA's routes, for the host root. Paths are matched without regard to case."""
    ezca = _Ezca(authorities, domains, requests)
    return [
        *routes_of(_ResultWire(authenticate), ezca.results()),
        *routes_of(_PlainWire(authenticate), ezca.bare()),
        *routes_of(_JsonWire(authenticate), _Management(authorities).operations()),
    ]


class _CaWire(Wire[Call]):
    """What the three wires share: bearer tokens, and paths without case."""

    caseless = True

    def __init__(self, authenticate: Authenticate) -> None:
        self._authenticate = authenticate

    async def enter(self, request: Request, operation: Operation[Call]) -> Call:  # noqa: ARG002 - of the base class
        """Let in whoever has a token."""
        return Call(request, await self._authenticate(request))


class _ResultWire(_CaWire):
    """EZCA's endpoints that answer with an APIResult."""

    name = "ezca result"

    def refuse(self, request: Request, problem: Problem, tracking_id: str) -> Response:  # noqa: ARG002 - as above
        """Say no with status 200, but where the status must speak."""
        status = HTTP_STATUS[problem.kind] if problem.kind in _STATUS_SPEAKS else 200
        return _challenging(_no(problem.detail, status), problem)

    def fail(self, request: Request, tracking_id: str) -> Response:  # noqa: ARG002 - as above
        """Say it with the status too."""
        return _no(INTERNAL, INTERNAL_HTTP_STATUS)


class _PlainWire(_CaWire):
    """EZCA's endpoints that answer with bare JSON."""

    name = "ezca plain"

    def refuse(self, request: Request, problem: Problem, tracking_id: str) -> Response:  # noqa: ARG002 - as above
        """Say it in plain text that begins with "Error"."""
        return _challenging(_error(problem.detail, HTTP_STATUS[problem.kind]), problem)

    def fail(self, request: Request, tracking_id: str) -> Response:  # noqa: ARG002 - as above
        """Say it likewise."""
        return _error(INTERNAL, INTERNAL_HTTP_STATUS)


class _JsonWire(_CaWire):
    """Our own."""

    name = "authorities"

    def refuse(self, request: Request, problem: Problem, tracking_id: str) -> Response:  # noqa: ARG002 - as above
        """Say it with a code that is the kind's name."""
        code = "".join(word.capitalize() for word in problem.kind.value.split())
        response = _coded(code, problem.detail, HTTP_STATUS[problem.kind])
        return _challenging(response, problem)

    def fail(self, request: Request, tracking_id: str) -> Response:  # noqa: ARG002 - as above
        """Say it likewise."""
        return _coded("Internal", INTERNAL, INTERNAL_HTTP_STATUS)


@dataclass(frozen=True, slots=True)
class _Ezca:
    authorities: Authorities
    domains: Domains
    requests: CertificateRequests

    def results(self) -> list[Operation[Call]]:
        """Return the operations that answer with an APIResult."""
        return [
            Operation("GET", "/api/CA/GetMyCAs", self.mine),
            Operation("POST", "/api/CA/RegisterNewDomain", self.register),
            Operation("POST", "/api/CA/RequestSSLCertificate", self.request),
        ]

    def bare(self) -> list[Operation[Call]]:
        """Return the operations that answer with bare JSON."""
        return [
            Operation("GET", "/api/CA/GetAvailableSSLCAs", self.available),
            Operation("GET", "/api/CA/GetSSLCA", self.one),
            Operation("POST", "/api/CA/RequestFullSSLCertificate", self.request_full),
            Operation("POST", "/api/CA/RequestSSLCertificateV2", self.request_typed),
        ]

    async def available(self, call: Call) -> Response:
        found = await self.authorities.list_available(call.principal)
        return json_response(
            [authority_entry(one, template) for one in found for template in one.templates]
        )

    async def mine(self, call: Call) -> Response:
        found = await self.authorities.list_all(call.principal)
        entries = [bare_authority_entry(one) for one in found]
        return _result(encode_json(entries).decode())

    async def one(self, call: Call) -> Response:
        wanted = [
            v for name, v in call.request.query_params.multi_items() if name.lower() == "caid"
        ]
        if len(wanted) != 1:
            raise Problem(Kind.MALFORMED, "the query needs one caID")
        authority = await self.authorities.get(call.principal, wanted[0])
        return json_response(
            [authority_entry(authority, template) for template in authority.templates]
        )

    async def register(self, call: Call) -> Response:
        body = decode(await read_body(call.request, _MAX_BODY), RegisterDomainBody)
        domain = await self.domains.register(call.principal, body.registration())
        return _result(f"{domain.name} is registered")

    async def request(self, call: Call) -> Response:
        issued = await self._issue(call, RequestCertificateBody)
        return _result(certificate_pem(issued.der))

    async def request_full(self, call: Call) -> Response:
        return await self._with_chain(await self._issue(call, RequestCertificateBody))

    async def request_typed(self, call: Call) -> Response:
        return await self._with_chain(await self._issue(call, RequestCertificateV2Body))

    async def _with_chain(self, issued: IssuedCertificate) -> Response:
        chain = await self.authorities.chain(issued.authority)
        return json_response(certificate_created(issued.der, chain))

    async def _issue(
        self,
        call: Call,
        kind: type[RequestCertificateBody | RequestCertificateV2Body],
    ) -> IssuedCertificate:
        body = decode(await read_body(call.request, _MAX_BODY), kind)
        return await self.requests.request(call.principal, body.request())


_DEFAULTS = HierarchyPlan(name="")


class _CreateBody(Struct):
    name: str
    key_type: KeyType | None = field(name="keyType", default=None)
    hashing: Hashing | None = None
    root_days: int = field(name="rootValidityDays", default=_DEFAULTS.root_days)
    issuing_days: int = field(name="issuingValidityDays", default=_DEFAULTS.issuing_days)
    max_days: int = field(name="maxCertLifeDays", default=_DEFAULTS.max_certificate_days)


@dataclass(frozen=True, slots=True)
class _Management:
    authorities: Authorities

    def operations(self) -> list[Operation[Call]]:
        """Return our own operations."""
        every, one = "/api/muster/authorities", "/api/muster/authorities/{id}"
        return [
            Operation("POST", every, self.create),
            Operation("GET", every, self.list_all),
            Operation("GET", one, self.show),
            Operation("GET", f"{one}/certificate", self.certificate),
            Operation("GET", f"{one}/chain", self.chain),
        ]

    async def create(self, call: Call) -> Response:
        body = decode(await read_body(call.request, _MAX_BODY), _CreateBody)
        plan = HierarchyPlan(
            name=body.name,
            key_type=body.key_type,
            hashing=body.hashing,
            root_days=body.root_days,
            issuing_days=body.issuing_days,
            max_certificate_days=body.max_days,
        )
        made = await self.authorities.create_hierarchy(call.principal, plan)
        document = {"root": _document(made.root), "issuing": _document(made.issuing)}
        return json_response(document, 201 if made.is_new else 200)

    async def list_all(self, call: Call) -> Response:
        found = await self.authorities.list_all(call.principal)
        return json_response({"authorities": [_document(one) for one in found]})

    async def show(self, call: Call) -> Response:
        return json_response(_document(await self._get(call)))

    async def certificate(self, call: Call) -> Response:
        return _pem([await self._get(call)])

    async def chain(self, call: Call) -> Response:
        return _pem(await self.authorities.chain(await self._get(call)))

    async def _get(self, call: Call) -> Authority:
        return await self.authorities.get(call.principal, call.request.path_params["id"])


def _document(authority: Authority) -> dict[str, Any]:
    certificate = parsed_certificate(authority.certificate)
    return {
        "id": authority.id,
        "name": authority.name,
        "tier": authority.tier.value,
        "parentId": authority.parent_id,
        "keyType": authority.key_type.value,
        "hashing": authority.hashing.value,
        "isEnabled": authority.is_enabled,
        "notBefore": certificate.not_valid_before_utc,
        "notAfter": certificate.not_valid_after_utc,
        "serial": f"{certificate.serial_number:x}",
        "sha1Thumbprint": str(sha1_thumbprint(authority.certificate)),
        "sha256Thumbprint": str(sha256_thumbprint(authority.certificate)),
        "templates": [
            {"id": one.id, "type": one.type.value, "maxCertLifeDays": one.max_days}
            for one in authority.templates
        ],
    }


def _result(message: str) -> Response:
    return json_response({"Success": True, "Message": message})


def _pem(chain: list[Authority] | tuple[Authority, ...]) -> Response:
    text = "".join(certificate_pem(one.certificate) for one in chain)
    return Response(text, media_type="application/x-pem-file")


def _no(message: str, status: int) -> Response:
    return json_response({"Success": False, "Message": message}, status)


def _error(detail: str, status: int) -> Response:
    return Response(f"Error: {detail}", status, media_type="text/plain")


def _coded(code: str, message: str, status: int) -> Response:
    return json_response({"error": {"code": code, "message": message}}, status)


def _challenging(response: Response, problem: Problem) -> Response:
    if problem.kind is Kind.UNAUTHENTICATED:
        response.headers["WWW-Authenticate"] = "Bearer"  # RFC 9110 section 11.6.1
    return response
