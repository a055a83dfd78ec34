"""What must be fetched without TLS: CA certificates and CRLs, for anyone (RFC 5280 section 8)."""

from __future__ import annotations

import hashlib
from datetime import datetime
from email.utils import format_datetime

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute

from muster.ca.publication import Publication
from muster.clock import Clock
from muster.endpoints.wire import Operation, PlainWire, routes_of

# A CA's certificate never changes under its URL; a day lets a wrong cache heal.
_CERTIFICATE_AGE = 86_400
# CRLs are good for days, yet a revocation should be seen sooner than that.
_LIST_AGE = 300


def routes(*, publication: Publication, clock: Clock) -> list[BaseRoute]:
    """Return the routes of the plain HTTP port, for its root."""
    public = _Public(publication, clock)
    table = [
        Operation("GET", "/ca/{name}", public.certificate),
        Operation("GET", "/crl/{name}", public.revocation_list),
    ]
    return routes_of(PlainWire("public files"), table)


class _Public:
    def __init__(self, publication: Publication, clock: Clock) -> None:
        self._publication = publication
        self._clock = clock

    async def certificate(self, request: Request) -> Response:
        """Serve a CA certificate (RFC 5280 section 4.2.2.1: DER, application/pkix-cert)."""
        name = _without(request.path_params["name"], ".cer")
        der = None if name is None else await self._publication.certificate(name)
        if der is None:
            return _not_found()
        return _cacheable(request, der, "application/pkix-cert", _CERTIFICATE_AGE)

    async def revocation_list(self, request: Request) -> Response:
        """Serve a CRL (RFC 5280 section 4.2.1.13: DER, application/pkix-crl)."""
        name = _without(request.path_params["name"], ".crl")
        found = None if name is None else await self._publication.current_list(name)
        if found is None:
            return _not_found()
        left = int((found.next_update - self._clock.now()).total_seconds())
        response = _cacheable(
            request, found.der, "application/pkix-crl", max(0, min(_LIST_AGE, left))
        )
        response.headers["Last-Modified"] = _http_date(found.this_update)
        return response


def _cacheable(request: Request, content: bytes, media_type: str, age: int) -> Response:
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"Cache-Control": f"public, max-age={age}", "ETag": tag}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)


def _without(name: str, ending: str) -> str | None:
    return name.removesuffix(ending).lower() if name.endswith(ending) else None


def _not_found() -> Response:
    return PlainTextResponse("there is no such file", 404)


def _http_date(moment: datetime) -> str:
    return format_datetime(moment, usegmt=True)
