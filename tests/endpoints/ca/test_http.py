"""EZCA's API as its clients see it, and our own for making CAs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from starlette.applications import Starlette
from starlette.requests import Request

from muster.ca.authority import Authorities
from muster.ca.domains import Domains
from muster.ca.issuance import Issuance
from muster.ca.issuers import PublicLocations
from muster.ca.requests import CertificateRequests
from muster.clock import SystemClock
from muster.endpoints.authentication import bearer_token
from muster.endpoints.ca import http as ca_http
from muster.errors import Kind, Problem
from muster.keystore.files import FileKeystore
from muster.model.principal import Principal, PrincipalKind, Role
from muster.store.authorities import SqlAuthorityStore
from muster.store.certificates import SqlCertificateLedger
from muster.store.database import Database
from muster.store.domains import SqlDomainStore
from muster.store.schema import metadata

TENANT = "11111111-1111-4111-8111-111111111111"
AGENT_ID = "aaaaaaaa-0000-4000-8000-000000000002"
PRINCIPALS = {
    "owner": Principal(
        TENANT, "aaaaaaaa-0000-4000-8000-000000000001", PrincipalKind.USER, "owner",
        roles=frozenset({Role.OWNER}),
    ),
    "agent": Principal(TENANT, AGENT_ID, PrincipalKind.APPLICATION, "agent"),
}  # fmt: skip
ELEVEN = {
    "CAID", "CAFriendlyName", "CATemplateType", "TemplateID", "KeyUsage", "MaxCertLifeDays",
    "DomainRestrictions", "CAKeyType", "CAHashing", "CAType", "CATier",
}  # fmt: skip


async def authenticate(request: Request) -> Principal:
    """Take the token for the caller's name."""
    principal = PRINCIPALS.get(bearer_token(request))
    if principal is None:
        raise Problem(Kind.UNAUTHENTICATED, "the token is not one of ours")
    return principal


def csr(name: str) -> str:
    """Return a CSR as .NET on Linux writes it: CRLF at 76 columns inside, LF around."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    import base64
    import textwrap

    body = base64.b64encode(made.public_bytes(serialization.Encoding.DER)).decode()
    lines = "\r\n".join(textwrap.wrap(body, 76))
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{lines}\n-----END CERTIFICATE REQUEST-----\n"


class Client:
    """Calls the API; `ca` is an issuing CA that exists."""

    def __init__(self, http: httpx2.AsyncClient, parts: Any) -> None:
        self.http = http
        self.parts = parts
        self.ca: dict[str, Any] = {}

    async def get(self, path: str, by: str | None = "agent") -> httpx2.Response:
        """GET *path* as *by*."""
        return await self.http.get(path, headers=self._as(by))

    async def post(self, path: str, body: Any, by: str | None = "agent") -> httpx2.Response:
        """POST *body*, JSON unless it is bytes, as *by*."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.http.post(path, content=content, headers=self._as(by))

    def registration(self, name: str, **changes: Any) -> dict[str, Any]:
        """Return what the samples send to register *name*."""
        agent = {"ObjectId": AGENT_ID, "FriendlyName": None, "ObjectType": "User", "isValid": True}
        body = {
            "CAID": self.ca["CAID"], "TemplateID": self.ca["TemplateID"], "Domain": name,
            "Owners": [agent], "Requesters": [agent],
        }  # fmt: skip
        return {**body, **changes}

    def request(self, name: str, **changes: Any) -> dict[str, Any]:
        """Return what the samples send to request a certificate for *name*."""
        body = {
            "SubjectName": f"CN={name}", "SubjectAltNames": [name], "CAID": self.ca["CAID"],
            "TemplateID": self.ca["TemplateID"], "CSR": csr(name), "ValidityInDays": 10,
            "EKUs": ["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"],
            "KeyUsages": ["Key Encipherment", "Digital Signature"],
            "SelectedLocation": "IoT Device", "ResourceID": "", "SecretName": "", "AKVName": "",
            "AutoRenew": False, "AutoRenewPercentage": 80,
        }  # fmt: skip
        return {**body, **changes}

    async def register(self, name: str) -> None:
        """Have *name* registered."""
        answer = await self.post("/api/CA/RegisterNewDomain", self.registration(name))
        assert answer.json()["Success"], answer.text

    def _as(self, by: str | None) -> dict[str, str]:
        return {} if by is None else {"Authorization": f"Bearer {by}"}


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    """A client of an API with one root and one issuing CA."""
    database, clock = Database(tmp_path / "muster.db"), SystemClock()
    metadata.create_all(database.engine)
    keystore = FileKeystore(tmp_path / "keys")
    ledger, locations = SqlCertificateLedger(database), PublicLocations("http://ca.test:8080")
    domain_store = SqlDomainStore(database)
    issuance = Issuance(ledger, keystore, clock)
    authorities = Authorities(SqlAuthorityStore(database), issuance, keystore, clock, locations)
    parts = SimpleNamespace(
        authenticate=authenticate,
        authorities=authorities,
        domains=Domains(domain_store, authorities, clock),
        requests=CertificateRequests(
            authorities=authorities, domains=domain_store, ledger=ledger, issuance=issuance,
            clock=clock, locations=locations,
        ),
    )  # fmt: skip
    app = Starlette(routes=ca_http.routes(**vars(parts)))
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="https://ca.test") as http:
        made = Client(http, parts)
        created = await made.post("/api/muster/authorities", {"name": "Plant"}, by="owner")
        assert created.status_code == 201
        (made.ca,) = (await made.get("/api/CA/GetAvailableSSLCAs")).json()
        yield made
    keystore.close()
    await database.close()


def leaf(text: str) -> x509.Certificate:
    """Return the certificate as the C# clients read it: armour off, base64, one certificate."""
    import base64
    import re

    return x509.load_der_x509_certificate(
        base64.b64decode(re.sub(r"-----[a-z A-Z]+-----", "", text).strip())
    )


async def test_available_cas_satisfy_every_client(client) -> None:
    """A bare array, all eleven keys, of the types that C# and Go insist on."""
    answer = await client.get("/api/CA/GetAvailableSSLCAs")
    (entry,) = answer.json()
    assert answer.headers["content-type"] == "application/json"
    assert set(entry) == ELEVEN
    assert entry["CAFriendlyName"] == "Plant"
    assert entry["CATemplateType"] == "SSL Template"
    assert entry["CAType"] == "PrivateCA"
    assert entry["CATier"] == "SubordinateCA"
    assert entry["KeyUsage"] == "Digital Signature, Key Encipherment"
    assert isinstance(entry["MaxCertLifeDays"], int)
    assert all(isinstance(entry[key], str) for key in ELEVEN - {"MaxCertLifeDays"})


async def test_ezca_go_finds_its_ca(client) -> None:
    """It lists its CAs as JSON text in a Message, then the templates of one, by any case."""
    answer = (await client.get("/api/CA/GetMyCAs")).json()
    assert answer["Success"] is True
    entries = json.loads(answer["Message"])
    assert {entry["CATier"] for entry in entries} == {"RootCA", "SubordinateCA"}
    for query in ("caID", "CAID", "caid"):
        found = await client.get(f"/api/CA/GetSSLCA?{query}={client.ca['CAID']}")
        assert found.json() == [client.ca]


async def test_paths_are_matched_without_case(client) -> None:
    """As ASP.NET does, on which EZCA seems to run."""
    assert (await client.get("/API/ca/getavailablesslcas")).status_code == 200


async def test_the_samples_journey(client) -> None:
    """List, register, request: the certificate carries the device id where each SDK looks."""
    answer = await client.post("/api/CA/RegisterNewDomain", client.registration("device-1"))
    assert answer.status_code == 200
    assert answer.json() == {"Success": True, "Message": "device-1 is registered"}
    answer = await client.post("/api/CA/RequestSSLCertificate", client.request("device-1"))
    assert set(answer.json()) == {"Success", "Message"}
    certificate = leaf(answer.json()["Message"])
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert certificate.subject.rfc4514_string() == "CN=device-1"
    assert names.get_values_for_type(x509.DNSName) == ["device-1"]
    assert (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days == 10


async def test_repeated_posts_are_answered_alike(client) -> None:
    """Both are sent again when an answer was lost."""
    registration, request = client.registration("device-1"), client.request("device-1")
    for path, body in (
        ("/api/CA/RegisterNewDomain", registration),
        ("/api/CA/RequestSSLCertificate", request),
    ):
        answers = [(await client.post(path, body)).json() for _ in range(3)]
        assert answers[0]["Success"]
        assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize("path", ["RequestFullSSLCertificate", "RequestSSLCertificateV2"])
async def test_full_certificates_come_with_their_chain(client, path) -> None:
    """Three PEM fields that verify each other, bare."""
    await client.register("device-1")
    names = [{"ValueSTR": "device-1", "SubjectAltType": 2}]
    body = client.request("device-1", **({"SubjectAltNames": names} if "V2" in path else {}))
    answer = (await client.post(f"/api/CA/{path}", body)).json()
    assert list(answer) == ["CertificatePEM", "IssuingCACertificate", "RootCertificate"]
    chain = [x509.load_pem_x509_certificate(text.encode()) for text in answer.values()]
    for below, above in pairwise(chain):
        below.verify_directly_issued_by(above)


async def test_ezca_go_may_send_null_and_leave_keys_out(client) -> None:
    """Nulls are tolerated wherever a client sends them, and unknown keys anywhere."""
    await client.register("device-1")
    body = {
        "CAID": client.ca["CAID"].upper(), "TemplateID": client.ca["TemplateID"],
        "CSR": csr("device-1"), "SubjectName": "device-1", "SubjectAltNames": None,
        "ValidityInDays": 90, "SelectedLocation": None, "KeyUsages": None, "EKUs": None,
        "SID": "", "Future": {"deep": [1, 2, 3]},
    }  # fmt: skip
    answer = await client.post("/api/CA/RequestSSLCertificateV2", body)
    assert answer.status_code == 200, answer.text
    registration = client.registration(
        "device-2", Owners=None, Requesters=None, RequestersOnly=None, NotificationEmails=None
    )
    answer = await client.post("/api/CA/RegisterNewDomain", registration)
    assert answer.json()["Success"], answer.text


REFUSALS: list[tuple[dict[str, Any], int]] = [
    ({"CAID": "nonsense"}, 404),
    ({"TemplateID": "nonsense"}, 404),
    ({"ValidityInDays": 0}, 400),
    ({"ValidityInDays": -1}, 400),
    ({"ValidityInDays": 10**9}, 403),
    ({"ValidityInDays": 10**30}, 403),
    ({"SubjectName": "CN=another"}, 400),
    ({"CSR": "nonsense!"}, 400),
    ({"CSR": csr("another"), "SubjectName": None}, 403),
    ({"KeyUsages": ["Key Encipherment", "Magic"]}, 400),
    ({"EKUs": ["2.5.29.37.0"]}, 403),
    ({"EKUs": ["1"] * 65}, 400),
]


@pytest.mark.parametrize(("changes", "status"), REFUSALS)
async def test_refusals_speak_the_wires_words(client, changes, status) -> None:
    """APIResult: 200 and Success false. Bare JSON: 4xx and text that begins with Error."""
    await client.register("device-1")
    body = client.request("device-1", **changes)
    answer = await client.post("/api/CA/RequestSSLCertificate", body)
    assert answer.status_code == 200
    assert answer.json()["Success"] is False
    assert answer.json()["Message"]
    for path, names in (
        ("RequestFullSSLCertificate", ["device-1"]),
        ("RequestSSLCertificateV2", [{"ValueSTR": "device-1", "SubjectAltType": 2}]),
    ):
        answer = await client.post(f"/api/CA/{path}", {**body, "SubjectAltNames": names})
        assert answer.status_code == status
        assert answer.headers["content-type"].startswith("text/plain")
        assert answer.text.startswith("Error: ")


@pytest.mark.parametrize(
    "names",
    [
        [{"ValueSTR": "device-1", "SubjectAltType": 1}],
        [{"ValueSTR": "https://device-1/", "SubjectAltType": 6}],
        [{"ValueSTR": "device-1", "SubjectAltType": 7}],
        [{"ValueSTR": "device-1", "SubjectAltType": 99}],
        [{"ValueSTR": None, "SubjectAltType": 2}],
        [{"ValueSTR": "device-1", "SubjectAltType": "2"}],
        [{"ValueSTR": "other", "SubjectAltType": 2}],
        [{"ValueSTR": "device-1", "SubjectAltType": 2}] * 101,
        ["device-1"],
    ],
)
async def test_odd_typed_names_are_refused(client, names) -> None:
    """Kinds that are not issued, values that are not of their kind, names of others."""
    await client.register("device-1")
    body = client.request("device-1", SubjectAltNames=names)
    answer = await client.post("/api/CA/RequestSSLCertificateV2", body)
    assert 400 <= answer.status_code < 600
    assert answer.text.startswith("Error: ")


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"{", b'{"CAID": 1}', b"\xff\xfe", b"[" * 100_000,
        b'{"CAID":"a","TemplateID":"b","Domain":"c","Owners":[{"ObjectId":7}]}',
        b'{"CAID":"a","TemplateID":"b","CSR":"c","ValidityInDays":1.5}',
        b'{"CAID":"a","TemplateID":"b","CSR":"c","ValidityInDays":"1"}',
        b'{"CAID":"a","TemplateID":"b","CSR":"c","ValidityInDays":null}',
    ],
    ids=lambda body: repr(body[:20]),
)  # fmt: skip
@pytest.mark.parametrize(
    "path", ["RegisterNewDomain", "RequestSSLCertificate", "RequestSSLCertificateV2"]
)
async def test_broken_bodies_are_explained(client, path, body) -> None:
    """Never a 500: clients would send it four times."""
    answer = await client.post(f"/api/CA/{path}", body)
    if path == "RequestSSLCertificateV2":
        assert answer.status_code == 400
        assert answer.text.startswith("Error: ")
    else:
        assert (answer.status_code, answer.json()["Success"]) == (200, False)


async def test_huge_bodies_are_refused_by_their_size(client) -> None:
    """Before they are read, let alone parsed."""
    for path in ("RegisterNewDomain", "RequestSSLCertificate", "RequestSSLCertificateV2"):
        answer = await client.post(f"/api/CA/{path}", b"x" * (128 * 1024 + 1))
        assert answer.status_code == 413


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/CA/GetAvailableSSLCAs"),
        ("GET", "/api/CA/GetMyCAs"),
        ("POST", "/api/CA/RegisterNewDomain"),
        ("POST", "/api/CA/RequestSSLCertificate"),
        ("POST", "/api/CA/RequestSSLCertificateV2"),
        ("POST", "/api/muster/authorities"),
        ("GET", "/api/muster/authorities"),
    ],
)
@pytest.mark.parametrize("by", [None, "nobody"])
async def test_without_a_good_token_everything_is_401(client, method, path, by) -> None:
    """Some clients forget their token on the first call; 500 would make them repeat it."""
    answer = await (client.get(path, by=by) if method == "GET" else client.post(path, {}, by=by))
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_absent_key_is_503_with_a_time_to_come_back(client, tmp_path) -> None:
    """The one refusal that clients should repeat, and say again when they have."""
    await client.register("device-1")
    for path in (tmp_path / "keys").glob("*.pem"):
        path.unlink()
    client.parts.requests._issuance._signer._keys.clear()
    answer = await client.post("/api/CA/RequestSSLCertificate", client.request("device-1"))
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json()["Success"] is False


async def test_cas_are_made_once_and_shown(client) -> None:
    """201, then 200 with the same; listed, shown, and downloaded as PEM with their chain."""
    body = {"name": "Second", "keyType": "ECDSA P-384", "hashing": "SHA384", "maxCertLifeDays": 30}
    first = await client.post("/api/muster/authorities", body, by="owner")
    again = await client.post("/api/muster/authorities", body, by="owner")
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    issuing = first.json()["issuing"]
    assert issuing["templates"][0]["maxCertLifeDays"] == 30
    listed = (await client.get("/api/muster/authorities")).json()["authorities"]
    assert [one["name"] for one in listed] == ["Plant", "Plant Root", "Second", "Second Root"]
    base = f"/api/muster/authorities/{issuing['id']}"
    assert (await client.get(base)).json() == issuing
    one = await client.get(f"{base}/certificate")
    chain = await client.get(f"{base}/chain")
    assert one.headers["content-type"] == "application/x-pem-file"
    assert x509.load_pem_x509_certificate(one.content).serial_number == int(issuing["serial"], 16)
    assert len(x509.load_pem_x509_certificates(chain.content)) == 2


@pytest.mark.parametrize(
    ("body", "by", "status", "code"),
    [
        ({"name": "x"}, "agent", 403, "Forbidden"),
        ({"name": "x", "keyType": "RSA 512"}, "owner", 400, "Malformed"),
        ({"name": ""}, "owner", 400, "Malformed"),
        ({}, "owner", 400, "Malformed"),
        ({"name": "Plant", "hashing": "SHA512"}, "owner", 409, "Conflict"),
    ],
)
async def test_cas_that_cannot_be_made(client, body, by, status, code) -> None:
    """A code and a message, as JSON."""
    answer = await client.post("/api/muster/authorities", body, by=by)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert answer.json()["error"]["message"]


async def test_unknown_cas_are_404(client) -> None:
    """In the API's own form."""
    for tail in ("", "/certificate", "/chain"):
        answer = await client.get(f"/api/muster/authorities/nonsense{tail}")
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "NotFound"
