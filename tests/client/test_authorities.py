"""Muster's own API for making CAs."""

from __future__ import annotations

import json

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import Encoding

from muster.client.authorities import Authorities
from muster.client.errors import ServiceError

AUTHORITIES = Authorities("https://x.test")


def document(name: str, tier: str = "SubordinateCA") -> dict:
    """Return a CA as the service shows it."""
    return {
        "id": f"id of {name}",
        "name": name,
        "tier": tier,
        "parentId": None,
        "keyType": "EC P-256",
        "hashing": "SHA256",
        "isEnabled": True,
        "notBefore": "2026-11-23T12:00:00Z",
        "notAfter": "2036-11-23T12:00:00Z",
        "serial": "7f",
        "sha1Thumbprint": "AA",
        "sha256Thumbprint": "BB",
        "templates": [{"id": "t", "type": "SSL Template", "maxCertLifeDays": 397}],
    }


def test_a_ca_is_made_by_name(service, both):
    """One request, safe to repeat; a root comes with it."""
    service.answer(
        201, json={"root": document("Devices Root", "RootCA"), "issuing": document("Devices")}
    )
    made = both(AUTHORITIES.ensure("Devices"))
    assert (made.root.tier, made.issuing.name) == ("RootCA", "Devices")
    assert made.issuing.templates[0].maximum_days == 397
    assert str(service.requests[0].url) == "https://x.test/api/muster/authorities"
    assert json.loads(service.requests[0].content) == {"name": "Devices"}


def test_cas_are_listed(service, both):
    """All of them."""
    service.answer(json={"authorities": [document("a"), document("b")]})
    assert [entry.name for entry in both(AUTHORITIES.list_authorities())] == ["a", "b"]


def test_a_certificate_is_downloaded(service, both):
    """PEM, and nothing else will do."""
    pem = trustme.CA().cert_pem.bytes().decode()
    service.answer(text=pem).answer(text="hello")
    found = both(AUTHORITIES.certificate("a/b"))
    assert found.public_bytes(Encoding.PEM).decode() == pem
    assert service.requests[0].url.raw_path == b"/api/muster/authorities/a%2Fb/certificate"
    with pytest.raises(ServiceError, match="not a PEM certificate"):
        both(AUTHORITIES.certificate("a"))
