"""What is fetched without TLS: CA certificates and CRLs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx2
import pytest
from starlette.applications import Starlette

from muster.endpoints.ca import public_http as pki_http
from muster.errors import Kind, Problem
from muster.model.authority import RevocationList

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
LIST = RevocationList("ca-1", 7, b"the list", NOW - timedelta(hours=1), NOW + timedelta(days=6))


class StandIn:
    """Publishes one CA, and has a clock."""

    current = LIST
    is_away = False

    async def current_list(self, authority_id: str) -> RevocationList | None:
        """Return the list of ca-1."""
        if self.is_away:
            raise Problem(Kind.UNAVAILABLE, "the database is away")
        return self.current if authority_id == "ca-1" else None

    async def certificate(self, authority_id: str) -> bytes | None:
        """Return the certificate of ca-1."""
        return b"the certificate" if authority_id == "ca-1" else None

    def now(self) -> datetime:
        """Stand still."""
        return NOW


@pytest.fixture
def published() -> StandIn:
    """What is published."""
    return StandIn()


@pytest.fixture
async def http(published: StandIn) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the plain port."""
    app = Starlette(routes=pki_http.routes(publication=published, clock=published))
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://ca.test") as client:
        yield client


@pytest.mark.parametrize(
    ("path", "media_type", "content"),
    [
        ("/ca/ca-1.cer", "application/pkix-cert", b"the certificate"),
        ("/crl/ca-1.crl", "application/pkix-crl", b"the list"),
        ("/crl/CA-1.crl", "application/pkix-crl", b"the list"),
    ],
)
async def test_public_files(http, path, media_type, content) -> None:
    """DER with the types RFC 5280 asks for, cacheable, and not sent twice to who has them."""
    answer = await http.get(path)
    assert (answer.status_code, answer.content) == (200, content)
    assert answer.headers["content-type"] == media_type
    assert answer.headers["cache-control"].startswith("public, max-age=")
    again = await http.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    head = await http.head(path)
    assert (head.status_code, head.content) == (200, b"")


async def test_list_is_not_cached_beyond_its_next_update(http, published) -> None:
    """A cache never serves a list that has run out."""
    answer = await http.get("/crl/ca-1.crl")
    assert answer.headers["cache-control"] == "public, max-age=300"
    assert answer.headers["last-modified"] == "Mon, 23 Nov 2026 11:00:00 GMT"
    for left, age in ((60, 60), (-60, 0)):
        end = NOW + timedelta(seconds=left)
        published.current = RevocationList("ca-1", 8, b"x", NOW, end)
        answer = await http.get("/crl/ca-1.crl")
        assert answer.headers["cache-control"] == f"public, max-age={age}"


@pytest.mark.parametrize(
    "path",
    ["/", "/ca/", "/ca/ca-2.cer", "/ca/ca-1", "/ca/ca-1.crl", "/crl/ca-1.cer", "/crl/..%2fx.crl",
     "/crl/" + "x" * 5000 + ".crl", "/ca/%00.cer"],
)  # fmt: skip
async def test_everything_else_is_404(http, path) -> None:
    """Other CAs, other endings, other ideas."""
    assert (await http.get(path)).status_code == 404


async def test_nothing_can_be_changed_here(http) -> None:
    """The plain port only gives."""
    for method in ("POST", "PUT", "DELETE"):
        assert (await http.request(method, "/ca/ca-1.cer")).status_code == 405


async def test_absent_storage_is_503(http, published) -> None:
    """And not a traceback."""
    published.is_away = True
    assert (await http.get("/crl/ca-1.crl")).status_code == 503
