"""The token service's wire: OAuth's words, Entra's shapes, and whom the local doors let in."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx2
import jwt
import pytest
from starlette.applications import Starlette

from muster.endpoints.tokens import http as token_http
from muster.identity.audiences import Audiences
from muster.identity.bootstrap import Bootstrap, bootstrap
from muster.identity.issuance import ClientCredentials, ManagedIdentity, TokenIssuer
from muster.identity.signing_keys import SigningKeys
from muster.ports.identity import SigningKeyRecord
from muster.store.database import Database
from muster.store.principals import SqlApplicationStore, SqlTenantStore
from muster.store.schema import metadata

URL = "https://localhost:8443"
ARM = "https://management.azure.com"


class StandingClock:
    """A clock that stands still."""

    def now(self) -> datetime:
        """Return noon."""
        return datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)

    def monotonic(self) -> float:
        """Return nothing."""
        return 0.0


class KeysInMemory:
    """A signing key store without a disk, which makes its one key once for all tests."""

    records: list[SigningKeyRecord] = []  # noqa: RUF012 - shared on purpose: RSA keys take time

    async def load_keys(self) -> list[SigningKeyRecord]:
        """Return every key."""
        return list(self.records)

    async def add_key(self, record: SigningKeyRecord) -> None:
        """Keep it."""
        self.records.append(record)

    async def delete_key(self, record: SigningKeyRecord) -> None:
        """Forget it."""
        self.records.remove(record)


@dataclass
class Server:
    """The token service and who may use it."""

    app: Starlette
    made: Bootstrap

    async def call(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        peer: str = "127.0.0.1",
    ) -> httpx2.Response:
        """Send one request as from *peer*."""
        transport = httpx2.ASGITransport(app=self.app, client=(peer, 1))
        async with httpx2.AsyncClient(transport=transport, base_url=URL) as client:
            return await client.request(method, path, content=body, headers=headers)

    async def token(self, _path: str | None = None, **changes: str | None) -> httpx2.Response:
        """Ask for a token with the administrator's secret, but for *changes*."""
        form: dict[str, str | None] = {
            "grant_type": "client_credentials",
            "client_id": self.made.administrator_client_id,
            "client_secret": self.made.administrator_client_secret,
            "scope": f"{ARM}/.default",
            **changes,
        }
        body = urlencode({name: value for name, value in form.items() if value is not None})
        path = _path or f"/{self.made.tenant_id}/oauth2/v2.0/token"
        return await self.call("POST", path, body=body.encode())


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A token service with both local doors open."""
    clock = StandingClock()
    database = Database(tmp_path / "muster.db")
    metadata.create_all(database.engine)
    applications = SqlApplicationStore(database)
    made = await bootstrap(SqlTenantStore(database), applications, clock)
    keys = await SigningKeys.load(KeysInMemory(), clock)
    issuer = TokenIssuer(keys, clock, public_url=URL, tenant_id=made.tenant_id)
    routes = token_http.routes(
        issuer=issuer,
        keys=keys,
        audiences=Audiences([URL]),
        credentials=ClientCredentials(applications, issuer, clock),
        managed_identity=ManagedIdentity(
            applications, issuer, clock, client_id=made.identity_client_id
        ),
        clock=clock,
        imds=True,
    )
    yield Server(Starlette(routes=routes), made)
    await database.close()


def claims_of(token: str) -> dict[str, Any]:
    """Read a token's claims."""
    return jwt.decode(token, options={"verify_signature": False})


async def test_discovery(server: Server) -> None:
    """What MSAL needs is there for every spelling of the tenant, and names the same keys."""
    tenant = server.made.tenant_id
    for path, base in (
        (f"/{tenant}/v2.0", f"{URL}/{tenant}/oauth2/v2.0"),
        (f"/{tenant.upper()}/v2.0", f"{URL}/{tenant}/oauth2/v2.0"),
        (f"/{tenant}", f"{URL}/{tenant}/oauth2/v2.0"),
        ("/adfs", f"{URL}/adfs/oauth2"),
    ):
        answer = await server.call("GET", f"{path}/.well-known/openid-configuration")
        document = answer.json()
        assert document["token_endpoint"] == f"{base}/token"
        assert document["authorization_endpoint"] == f"{base}/authorize"
        assert document["issuer"] == f"{URL}/{tenant}/"
        keys = await server.call("GET", document["jwks_uri"].removeprefix(URL))
        assert len(keys.json()["keys"]) == 1


async def test_a_token_of_version_2(server: Server) -> None:
    """Numbers are numbers, and nobody may keep the answer."""
    answer = await server.token()
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    document = answer.json()
    assert document["token_type"] == "Bearer"
    assert document["expires_in"] == document["ext_expires_in"] == 3600
    assert claims_of(document["access_token"])["aud"] == ARM


async def test_a_token_of_version_1(server: Server) -> None:
    """`resource` instead of scope; numbers are texts."""
    path = f"/{server.made.tenant_id}/oauth2/token"
    answer = await server.token(path, scope=None, resource=ARM + "/")
    document = answer.json()
    assert document["resource"] == ARM + "/"
    assert document["expires_in"] == "3600"
    assert claims_of(document["access_token"])["aud"] == ARM + "/"


async def test_what_clients_add_is_ignored(server: Server) -> None:
    """client_info, claims, and a query."""
    path = f"/{server.made.tenant_id}/oauth2/v2.0/token?client-request-id=1"
    answer = await server.token(path, client_info="1", claims='{"access_token":{}}')
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("changes", "status", "error"),
    [
        ({"client_secret": "wrong"}, 401, "invalid_client"),
        ({"client_id": "nobody"}, 401, "invalid_client"),
        ({"client_id": None}, 401, "invalid_client"),
        ({"client_secret": None}, 400, "invalid_request"),
        ({"client_secret": ""}, 400, "invalid_request"),
        ({"grant_type": None}, 400, "invalid_request"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"grant_type": "authorization_code"}, 400, "unsupported_grant_type"),
        ({"scope": None}, 400, "invalid_resource"),
        ({"scope": "https://graph.microsoft.com/.default"}, 400, "invalid_scope"),
        ({"scope": f"{ARM}/.default https://iothubs.azure.net/.default"}, 400, "invalid_scope"),
        ({"scope": "openid"}, 400, "invalid_scope"),
        ({"scope": None, "resource": "https://vault.azure.net"}, 400, "invalid_resource"),
        ({"client_assertion": "a.b.c"}, 400, "invalid_request"),
        (
            {
                "client_secret": None,
                "client_assertion": "a.b.c",
                "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            },
            401,
            "invalid_client",
        ),
    ],
)
async def test_refusals(
    server: Server, changes: dict[str, str | None], status: int, error: str
) -> None:
    """RFC 6749 section 5.2, with a description that begins like Entra's."""
    answer = await server.token(**changes)
    assert answer.status_code == status
    document = answer.json()
    assert document["error"] == error
    assert document["error_description"].startswith("AADSTS")
    assert server.made.administrator_client_secret not in answer.text


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"\xff\xfe", 400),
        (b"grant_type=%ff", 400),
        (b'{"grant_type":"client_credentials"}', 400),
        (b"grant_type=client_credentials&grant_type=client_credentials", 400),
        (b"&".join(b"f%d=1" % number for number in range(100)), 400),
        (b"a" * 65_537, 413),
    ],
)
async def test_what_is_no_form_is_refused(server: Server, body: bytes, status: int) -> None:
    """Doubled fields, many fields, other encodings, and too much of it."""
    path = f"/{server.made.tenant_id}/oauth2/v2.0/token"
    answer = await server.call("POST", path, body=body)
    assert answer.status_code == status
    assert answer.json()["error"] == "invalid_request"


async def test_other_tenants_are_refused(server: Server) -> None:
    """Also `common`: who asks has to say where."""
    for tenant in ("common", "organizations", "00000000-0000-0000-0000-000000000000", "x"):
        for path in ("v2.0/.well-known/openid-configuration", "discovery/keys"):
            answer = await server.call("GET", f"/{tenant}/{path}")
            assert answer.status_code == 400
            assert "tenant" in answer.json()["error_description"]
        answer = await server.token(f"/{tenant}/oauth2/v2.0/token")
        assert answer.status_code == 400


async def test_the_clients_request_id_comes_back(server: Server) -> None:
    """So that both logs can be laid side by side; rubbish is replaced."""
    path = "/x/oauth2/v2.0/token"
    answer = await server.call("POST", path, headers={"client-request-id": "abc-1"})
    assert answer.json()["correlation_id"] == "abc-1"
    answer = await server.call("POST", path, headers={"client-request-id": "x" * 1000})
    assert len(answer.json()["correlation_id"]) == 36


# The managed identity endpoints.

MSI = f"/msi/token?api-version=2019-08-01&resource={ARM}"
IMDS = f"/metadata/identity/oauth2/token?api-version=2018-02-01&resource={ARM}"


async def test_app_service_form(server: Server) -> None:
    """With the header, by its client id or without."""
    headers = {"X-IDENTITY-HEADER": server.made.identity_header}
    for suffix in ("", f"&client_id={server.made.identity_client_id}"):
        answer = await server.call("GET", MSI + suffix, headers=headers)
        document = answer.json()
        assert document["resource"] == ARM
        assert document["expires_on"].isdigit()
        assert claims_of(document["access_token"])["appid"] == server.made.identity_client_id


@pytest.mark.parametrize(
    ("path", "header", "status"),
    [
        (MSI, None, 401),
        (MSI, "wrong", 401),
        (MSI, "", 401),
        (MSI + "&client_id=another", "right", 400),
        (MSI + "&mi_res_id=x", "right", 400),
        ("/msi/token?api-version=2019-08-01", "right", 400),
        (f"/msi/token?resource={ARM}", "right", 400),
        ("/msi/token?api-version=1&resource=https://vault.azure.net", "right", 400),
    ],
)
async def test_app_service_refusals(
    server: Server, path: str, header: str | None, status: int
) -> None:
    """The shape is `statusCode` and `message`, which clients show."""
    value = server.made.identity_header if header == "right" else header
    headers = {} if value is None else {"X-IDENTITY-HEADER": value}
    answer = await server.call("GET", path, headers=headers)
    assert answer.status_code == status
    assert answer.json()["statusCode"] == status
    assert answer.json()["message"]


async def test_imds_form(server: Server) -> None:
    """With and without trailing slash; numbers are texts."""
    for path in (IMDS, IMDS.replace("token?", "token/?")):
        answer = await server.call("GET", path, headers={"Metadata": "true"})
        assert answer.json()["expires_in"] == "3600"
    for path, headers in ((IMDS, {}), (IMDS, {"Metadata": "no"}), (IMDS + "&client_id=x", {})):
        answer = await server.call("GET", path, headers=headers)
        assert answer.status_code == 400


@pytest.mark.parametrize(
    "peer", ["192.0.2.1", "10.0.0.1", "::2", "", "localhost", "::ffff:1.2.3.4"]
)
async def test_only_this_machine_gets_local_tokens(server: Server, peer: str) -> None:
    """The header secret does not help from elsewhere."""
    headers = {"X-IDENTITY-HEADER": server.made.identity_header, "Metadata": "true"}
    assert (await server.call("GET", MSI, headers=headers, peer=peer)).status_code == 403
    assert (await server.call("GET", IMDS, headers=headers, peer=peer)).status_code == 400


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.0.0.9", "::1", "::ffff:127.0.0.1"])
async def test_every_loopback_address_is_this_machine(server: Server, peer: str) -> None:
    """Also an IPv4 one that came in over IPv6."""
    headers = {"X-IDENTITY-HEADER": server.made.identity_header}
    assert (await server.call("GET", MSI, headers=headers, peer=peer)).status_code == 200


@pytest.mark.parametrize("name", ["X-Forwarded-For", "Forwarded", "Via", "X-Forwarded-Host"])
async def test_nothing_that_was_passed_on_gets_local_tokens(server: Server, name: str) -> None:
    """A proxy on this machine is a loopback peer; its clients are not."""
    headers = {
        "X-IDENTITY-HEADER": server.made.identity_header,
        "Metadata": "true",
        name: "for=192.0.2.1",
    }
    assert (await server.call("GET", MSI, headers=headers)).status_code == 403
    assert (await server.call("GET", IMDS, headers=headers)).status_code == 400


async def test_imds_is_off_unless_asked_for(server: Server) -> None:
    """It has no secret, so whoever may open a loopback connection would be let in."""
    endpoint = server.app.routes[0].operation.handler.__self__  # type: ignore[attr-defined]  # its parts
    closed = token_http.routes(
        issuer=endpoint.issuer,
        keys=endpoint.keys,
        audiences=endpoint.audiences,
        credentials=endpoint.credentials,
        managed_identity=None,  # type: ignore[arg-type]  # never called here
        clock=StandingClock(),
    )
    there = Server(Starlette(routes=closed), server.made)
    answer = await there.call("GET", IMDS, headers={"Metadata": "true"})
    assert answer.status_code == 404


async def test_every_answer_is_json(server: Server) -> None:
    """Clients parse errors too."""
    answer = await server.call("POST", "/x/oauth2/token", body=b"\x00")
    assert json.loads(answer.content)["error"]
