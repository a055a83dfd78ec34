"""A server in memory behind the command line: the APIs the commands call, and their state."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from muster.cli import main
from muster.cli.server import Server
from muster.client.session import Session

URL = "https://localhost:8443"
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Muster Devices")])
KEY = ec.generate_private_key(ec.SECP256R1())
CERTIFICATE = (
    x509.CertificateBuilder()
    .subject_name(NAME)
    .issuer_name(NAME)
    .public_key(KEY.public_key())
    .serial_number(7)
    .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
    .not_valid_after(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=10))
    .sign(KEY, hashes.SHA256())
)
PEM = CERTIFICATE.public_bytes(Encoding.PEM).decode()


def authority(name: str, tier: str) -> dict[str, Any]:
    """Return a CA as the service shows it."""
    return {
        "id": f"{tier}-{name}".lower().replace(" ", "-"),
        "name": name,
        "tier": tier,
        "parentId": None,
        "keyType": "ECDSA P-256",
        "isEnabled": True,
        "notBefore": "2026-01-01T00:00:00Z",
        "notAfter": "2036-01-01T00:00:00Z",
        "sha256Thumbprint": CERTIFICATE.fingerprint(hashes.SHA256()).hex().upper(),
        "templates": [{"id": "template-1", "type": "SSL Template", "maxCertLifeDays": 397}],
    }


class FakeServer:
    """Remembers what it was told, as the real one would. `writes` lists the changes made."""

    def __init__(self) -> None:
        self.authorities: list[dict[str, Any]] = []
        self.resources: dict[str, dict[str, Any]] = {}
        self.certificates: dict[str, dict[str, Any]] = {}
        self.groups: dict[str, dict[str, Any]] = {}
        self.devices: list[dict[str, Any]] = []
        self.events = b""
        self.writes: list[str] = []
        self.requests: list[httpx2.Request] = []
        self.refuse: dict[str, httpx2.Response] = {}

    def handle(self, request: httpx2.Request) -> httpx2.Response:
        """Answer one request."""
        self.requests.append(request)
        path = unquote(request.url.raw_path.decode().partition("?")[0])
        for part, refusal in self.refuse.items():
            if part in path:
                return refusal
        body = json.loads(request.content) if request.content.startswith((b"{", b"[")) else None
        if path.endswith("/oauth2/v2.0/token"):
            return httpx2.Response(200, json={"access_token": "T", "expires_in": 3600})
        if "/Microsoft.Devices/" in path:
            return self.manage(request.method, path.partition("/Microsoft.Devices/")[2], body)
        if path.startswith("/enrollmentGroups"):
            return self.enrol(request.method, path.removeprefix("/enrollmentGroups/"), body)
        return self.other(request, path, body)

    def other(self, request: httpx2.Request, path: str, body: Any) -> httpx2.Response:
        """Answer the CA's, the registry's and the stream's paths."""
        if path == "/api/muster/authorities" and request.method == "POST":
            if not any(entry["name"] == body["name"] for entry in self.authorities):
                self.writes.append(f"ca {body['name']}")
                self.authorities += [
                    authority(f"{body['name']} Root", "RootCA"),
                    authority(body["name"], "SubordinateCA"),
                ]
            found = [entry for entry in self.authorities if entry["name"] == body["name"]]
            return httpx2.Response(200, json={"root": self.authorities[0], "issuing": found[0]})
        if path == "/api/muster/authorities":
            return httpx2.Response(200, json={"authorities": self.authorities})
        if path.endswith("/certificate"):
            return httpx2.Response(200, text=PEM)
        if path == "/api/CA/GetAvailableSSLCAs":
            return httpx2.Response(200, json=self.available())
        return self.hub(path)

    def available(self) -> list[dict[str, Any]]:
        """Return EZCA's list."""
        return [
            {"CAID": entry["id"], "TemplateID": "template-1", "CAFriendlyName": entry["name"]}
            for entry in self.authorities
            if entry["tier"] == "SubordinateCA"
        ]

    def hub(self, path: str) -> httpx2.Response:
        """Answer the hub's own paths."""
        if path == "/devices":
            return httpx2.Response(200, json=self.devices)
        if path == "/messages/events":
            return httpx2.Response(200, content=self.events)
        found = [one for one in self.devices if path == f"/devices/{one['deviceId']}"]
        return httpx2.Response(200, json=found[0]) if found else httpx2.Response(404)

    def manage(self, method: str, path: str, body: Any) -> httpx2.Response:
        """Answer the resource manager's paths."""
        kind, _, rest = path.partition("/")
        name, _, below = rest.partition("/")
        if below.endswith("/listkeys"):
            policy = below.split("/")[1]
            return httpx2.Response(
                200, json={"keyName": policy, "primaryKey": "a2V5a2V5a2V5a2V5a2V5a2V5"}
            )
        if below == "certificates":
            prefix = f"{kind}/{name}/"
            found = [entry for key, entry in self.certificates.items() if key.startswith(prefix)]
            return httpx2.Response(200, json={"value": found})
        if below:
            key = f"{kind}/{name}/{below.rpartition('/')[2]}"
            if method == "PUT":
                self.writes.append(f"certificate {key}")
                self.certificates[key] = {
                    "name": below.rpartition("/")[2],
                    "etag": "v1",
                    "properties": {
                        "isVerified": body["properties"]["isVerified"],
                        "thumbprint": CERTIFICATE.fingerprint(hashes.SHA1()).hex(),
                    },
                }
            entry = self.certificates.get(key)
            return httpx2.Response(404) if entry is None else httpx2.Response(200, json=entry)
        if not name:
            found = [entry for key, entry in self.resources.items() if key.startswith(f"{kind}/")]
            return httpx2.Response(200, json={"value": found})
        key = f"{kind}/{name}"
        if method == "PUT":
            self.put(key, kind, name, body)
        entry = self.resources.get(key)
        return httpx2.Response(404) if entry is None else httpx2.Response(200, json=entry)

    def put(self, key: str, kind: str, name: str, body: dict[str, Any]) -> None:
        """Make or replace a resource, with the read-only properties it then has."""
        if key not in self.resources:
            self.writes.append(key)
        own = (
            {"hostName": "localhost"}
            if kind == "IotHubs"
            else {
                "idScope": "0ne0000000A",
                "deviceProvisioningHostName": "localhost",
                "serviceOperationsHostName": "localhost",
            }
        )
        properties = {**body["properties"], **own, "provisioningState": "Succeeded"}
        self.resources[key] = {**body, "name": name, "properties": properties}

    def enrol(self, method: str, name: str, body: Any) -> httpx2.Response:
        """Answer the enrolment groups' paths."""
        if name == "query":
            return httpx2.Response(200, json=list(self.groups.values()))
        if method == "PUT":
            self.writes.append(f"group {name}")
            self.groups[name] = {**body, "etag": '"v1"'}
        entry = self.groups.get(name)
        return httpx2.Response(404) if entry is None else httpx2.Response(200, json=entry)


@pytest.fixture
def ready_document() -> dict[str, Any]:
    """What `muster up` writes."""
    return {
        "version": 1,
        "pid": 1,
        "endpoints": {
            "https": URL,
            "mqtts": "localhost:8883",
            "http": "http://localhost:8080",
        },
        "server_ca_file": "tls/ca.pem",
        "tenant_id": "tenant",
        "subscription_id": "sub",
        "resource_group": "muster",
        "admin": {"client_id": "c", "client_secret": "s3cret", "object_id": "o"},
    }


@pytest.fixture
def ready_file(tmp_path: Path, ready_document: dict[str, Any]) -> Path:
    """The ready file of the server."""
    file = tmp_path / "ready.json"
    file.write_text(json.dumps(ready_document))
    return file


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, ready_file: Path) -> FakeServer:
    """A server that every command finds and talks to."""
    fake = FakeServer()
    monkeypatch.setenv("MUSTER_READY_FILE", str(ready_file))
    monkeypatch.setattr(
        Server,
        "session",
        lambda self: Session(self.credential, transport=httpx2.MockTransport(fake.handle)),
    )
    return fake


@pytest.fixture
def muster(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command line; return its exit status, output and errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main.run(arguments)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run
