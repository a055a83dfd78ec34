"""A device with a certificate from Muster's own CA, asked for as the tutorial's sample does.

The bodies are those of the sample's C# models, key by key; nothing of Muster's own client is used.
"""

from __future__ import annotations

import ssl
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from tests.support.server import MusterProcess

# What every EZCA client asks for (facts/ezca.md 1.2).
EZCA_SCOPE = "https://management.core.windows.net/.default"
QUICKSTART_CA = "Muster Devices"


@dataclass(frozen=True)
class IssuedDevice:
    """A device id with the files of its certificate and key."""

    device_id: str
    certificate: Path
    key: Path


def token(server: MusterProcess, scope: str = EZCA_SCOPE) -> str:
    """Return an access token of the server's administrator, by client secret."""
    admin = server.ready["admin"]
    with client(server) as http:
        answer = http.post(
            f"/{server.ready['tenant_id']}/oauth2/v2.0/token",
            data={
                "grant_type": "client_credentials",
                "client_id": admin["client_id"],
                "client_secret": admin["client_secret"],
                "scope": scope,
            },
        )
    return str(answer.raise_for_status().json()["access_token"])


def client(server: MusterProcess, bearer: str | None = None) -> httpx2.Client:
    """Return an HTTP client that trusts the server, and signs in with *bearer*."""
    return httpx2.Client(
        base_url=server.ready["endpoints"]["https"],
        verify=ssl.create_default_context(cafile=server.ca_file),
        headers={"Authorization": f"Bearer {bearer}"} if bearer else {},
        timeout=30,
    )


def issue(server: MusterProcess, directory: Path, device_id: str | None = None) -> IssuedDevice:
    """Do the sample's steps: list CAs, register the name, request a certificate."""
    device_id = device_id or str(uuid.uuid4())
    bearer = token(server)
    # 2048 bits, not the sample's 4096: what is tested is the wire, and a key costs a second.
    key = rsa.generate_private_key(65537, 2048)
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device_id)]))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        .decode()
    )
    with client(server, bearer) as http:
        available = http.get("/api/CA/GetAvailableSSLCAs").raise_for_status().json()
        # Other tests make CAs too; the hub trusts the one that `muster quickstart` made.
        authority = next(one for one in available if one["CAFriendlyName"] == QUICKSTART_CA)
        ids = {"CAID": authority["CAID"], "TemplateID": authority["TemplateID"]}
        _succeed(http, "/api/CA/RegisterNewDomain", ids | _registration(bearer, device_id))
        message = _succeed(http, "/api/CA/RequestSSLCertificate", ids | _request(device_id, csr))
    directory.mkdir(parents=True, exist_ok=True)
    certificate, key_file = directory / f"{device_id}.pem", directory / f"{device_id}.key"
    certificate.write_text(message)
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return IssuedDevice(device_id, certificate, key_file)


def _registration(bearer: str, device_id: str) -> dict[str, Any]:
    claims = jwt.decode(bearer, options={"verify_signature": False})
    me = {
        "ObjectId": claims["oid"],
        "FriendlyName": claims.get("upn"),
        "ObjectType": "User",
        "isValid": True,
    }
    return {"Domain": device_id, "Owners": [me], "Requesters": [me]}


def _request(device_id: str, csr: str) -> dict[str, Any]:
    return {
        "SubjectName": f"CN={device_id}",
        "SubjectAltNames": [device_id],
        "CSR": csr,
        "ValidityInDays": 10,
        "EKUs": ["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"],
        "KeyUsages": ["Key Encipherment", "Digital Signature"],
        "SelectedLocation": "IoT Device",
        "ResourceID": "",
        "SecretName": "",
        "AKVName": "",
        "AutoRenew": False,
        "AutoRenewPercentage": 80,
    }


def _succeed(http: httpx2.Client, path: str, body: dict[str, Any]) -> str:
    answer = http.post(path, json=body).raise_for_status().json()
    assert answer["Success"] is True, answer["Message"]
    return str(answer["Message"])
