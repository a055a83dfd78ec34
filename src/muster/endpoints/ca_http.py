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

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
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
from muster.endpoints.ca_messages import (
    RegisterDomainBody,
    RequestCertificateBody,
    RequestCertificateV2Body,
    authority_entry,
    bare_authority_entry,
    certificate_created,
    decode,
)
from muster.endpoints.codes import HTTP_STATUS
from muster.endpoints.routing import CaselessRoute
from muster.errors import Kind, Problem
from muster.model.authority import Authority, Hashing, KeyType
from muster.model.principal import Principal

# A CSR of 32 KiB with every control character escaped, and a hundred names beside it.
_MAX_BODY = 128 * 1024

Handler = Callable[[Principal, Request], Awaitable[Response]]
Refuse = Callable[[Problem], Response]

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
    own = _Management(authorities)
    table: list[tuple[str, str, Handler, Refuse]] = [
        ("GET", "/api/CA/GetAvailableSSLCAs", ezca.available, _plain_error),
        ("GET", "/api/CA/GetMyCAs", ezca.mine, _result_error),
        ("GET", "/api/CA/GetSSLCA", ezca.one, _plain_error),
        ("POST", "/api/CA/RegisterNewDomain", ezca.register, _result_error),
        ("POST", "/api/CA/RequestSSLCertificate", ezca.request, _result_error),
        ("POST", "/api/CA/RequestFullSSLCertificate", ezca.request_full, _plain_error),
        ("POST", "/api/CA/RequestSSLCertificateV2", ezca.request_typed, _plain_error),
        ("POST", "/api/muster/authorities", own.create, _json_error),
        ("GET", "/api/muster/authorities", own.list_all, _json_error),
        ("GET", "/api/muster/authorities/{id}", own.show, _json_error),
        ("GET", "/api/muster/authorities/{id}/certificate", own.certificate, _json_error),
        ("GET", "/api/muster/authorities/{id}/chain", own.chain, _json_error),
    ]
    return [
        CaselessRoute(path, _endpoint(authenticate, handler, refuse), methods=[method])
        for method, path, handler, refuse in table
    ]


def _endpoint(
    authenticate: Authenticate, handler: Handler, refuse: Refuse
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            return await handler(await authenticate(request), request)
        except Problem as problem:
            return refuse(problem)

    return endpoint


@dataclass(frozen=True, slots=True)
class _Ezca:
    authorities: Authorities
    domains: Domains
    requests: CertificateRequests

    async def available(self, caller: Principal, _: Request) -> Response:
        found = await self.authorities.list_available(caller)
        return _json(
            [authority_entry(one, template) for one in found for template in one.templates]
        )

    async def mine(self, caller: Principal, _: Request) -> Response:
        found = await self.authorities.list_all(caller)
        entries = [bare_authority_entry(one) for one in found]
        return _result(msgspec.json.encode(entries).decode())

    async def one(self, caller: Principal, request: Request) -> Response:
        wanted = [v for name, v in request.query_params.multi_items() if name.lower() == "caid"]
        if len(wanted) != 1:
            raise Problem(Kind.MALFORMED, "the query needs one caID")
        authority = await self.authorities.get(caller, wanted[0])
        return _json([authority_entry(authority, template) for template in authority.templates])

    async def register(self, caller: Principal, request: Request) -> Response:
        body = decode(await read_body(request, _MAX_BODY), RegisterDomainBody)
        domain = await self.domains.register(caller, body.registration())
        return _result(f"{domain.name} is registered")

    async def request(self, caller: Principal, request: Request) -> Response:
        issued = await self._issue(caller, request, RequestCertificateBody)
        return _result(certificate_pem(issued.der))

    async def request_full(self, caller: Principal, request: Request) -> Response:
        return await self._with_chain(await self._issue(caller, request, RequestCertificateBody))

    async def request_typed(self, caller: Principal, request: Request) -> Response:
        return await self._with_chain(await self._issue(caller, request, RequestCertificateV2Body))

    async def _with_chain(self, issued: IssuedCertificate) -> Response:
        chain = await self.authorities.chain(issued.authority)
        return _json(certificate_created(issued.der, chain))

    async def _issue(
        self,
        caller: Principal,
        request: Request,
        kind: type[RequestCertificateBody | RequestCertificateV2Body],
    ) -> IssuedCertificate:
        body = decode(await read_body(request, _MAX_BODY), kind)
        return await self.requests.request(caller, body.request())


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

    async def create(self, caller: Principal, request: Request) -> Response:
        body = decode(await read_body(request, _MAX_BODY), _CreateBody)
        plan = HierarchyPlan(
            name=body.name,
            key_type=body.key_type,
            hashing=body.hashing,
            root_days=body.root_days,
            issuing_days=body.issuing_days,
            max_certificate_days=body.max_days,
        )
        made = await self.authorities.create_hierarchy(caller, plan)
        document = {"root": _document(made.root), "issuing": _document(made.issuing)}
        return _json(document, status=201 if made.is_new else 200)

    async def list_all(self, caller: Principal, _: Request) -> Response:
        found = await self.authorities.list_all(caller)
        return _json({"authorities": [_document(one) for one in found]})

    async def show(self, caller: Principal, request: Request) -> Response:
        return _json(_document(await self._get(caller, request)))

    async def certificate(self, caller: Principal, request: Request) -> Response:
        return _pem([await self._get(caller, request)])

    async def chain(self, caller: Principal, request: Request) -> Response:
        return _pem(await self.authorities.chain(await self._get(caller, request)))

    async def _get(self, caller: Principal, request: Request) -> Authority:
        return await self.authorities.get(caller, request.path_params["id"])


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


def _json(value: object, *, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def _result(message: str) -> Response:
    return _json({"Success": True, "Message": message})


def _pem(chain: list[Authority] | tuple[Authority, ...]) -> Response:
    text = "".join(certificate_pem(one.certificate) for one in chain)
    return Response(text, media_type="application/x-pem-file")


def _result_error(problem: Problem) -> Response:
    status = HTTP_STATUS[problem.kind] if problem.kind in _STATUS_SPEAKS else 200
    response = _json({"Success": False, "Message": problem.detail}, status=status)
    return _with_headers(response, problem)


def _plain_error(problem: Problem) -> Response:
    response = Response(
        f"Error: {problem.detail}", HTTP_STATUS[problem.kind], media_type="text/plain"
    )
    return _with_headers(response, problem)


def _json_error(problem: Problem) -> Response:
    code = "".join(word.capitalize() for word in problem.kind.value.split())
    document = {"error": {"code": code, "message": problem.detail}}
    return _with_headers(_json(document, status=HTTP_STATUS[problem.kind]), problem)


def _with_headers(response: Response, problem: Problem) -> Response:
    if problem.kind is Kind.UNAUTHENTICATED:
        response.headers["WWW-Authenticate"] = "Bearer"  # RFC 9110 section 11.6.1
    if problem.retry_after is not None:
        response.headers["Retry-After"] = str(max(1, round(problem.retry_after)))
    return response
