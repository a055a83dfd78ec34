"""The server's own certificates: names, ends, and what clients insist on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.verification import PolicyBuilder, Store

from muster.certs.server import (
    LEAF_RENEWAL,
    build_server_certificate,
    build_tls_root,
    needs_renewal,
    server_names,
)

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
ROOT_KEY = ec.generate_private_key(ec.SECP256R1())
KEY = ec.generate_private_key(ec.SECP256R1())
ROOT = build_tls_root(ROOT_KEY, common_name="test root", now=NOW)


def certificate(*names: str) -> x509.Certificate:
    """Return a server certificate for *names* under the test root."""
    return build_server_certificate(KEY.public_key(), names, root=ROOT, root_key=ROOT_KEY, now=NOW)


@pytest.mark.parametrize(
    "subject",
    [x509.DNSName("localhost"), x509.DNSName("hub1.example.org")],
)
def test_a_strict_verifier_accepts_each_name(subject: x509.DNSName) -> None:
    """The chain satisfies the web's own profile, so no client has reason to refuse it."""
    verifier = PolicyBuilder().store(Store([ROOT])).time(NOW).build_server_verifier(subject)
    path = verifier.verify(certificate("localhost", "hub1.example.org", "127.0.0.1"), [])
    assert path[-1] == ROOT


def test_addresses_are_ip_entries() -> None:
    """Clients refuse `127.0.0.1` as a DNS name (facts/hub.md 8.1)."""
    san = certificate("localhost", "127.0.0.1", "::1").extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    kinds = [type(entry) for entry in san.value]
    assert kinds == [x509.DNSName, x509.IPAddress, x509.IPAddress]


def test_repeated_names_are_said_once() -> None:
    """A hub whose host name is the domain adds nothing."""
    assert server_names(certificate("localhost", "localhost")) == {"localhost"}


def test_a_long_name_still_makes_a_certificate() -> None:
    """X.520 cuts common names at 64 characters; the SAN carries the whole."""
    name = "a" * 60 + ".example.org"
    assert name in server_names(certificate(name))


def test_renewal_is_due_for_a_new_name_or_near_the_end() -> None:
    """A hub that comes, or time that goes, makes a new certificate; nothing else does."""
    leaf = certificate("localhost", "::1")
    assert not needs_renewal(leaf, ["localhost"], now=NOW)
    assert needs_renewal(leaf, ["localhost", "127.0.0.2"], now=NOW)
    end = leaf.not_valid_after_utc
    assert not needs_renewal(leaf, ["localhost"], now=end - LEAF_RENEWAL)
    assert needs_renewal(leaf, ["localhost"], now=end - LEAF_RENEWAL + timedelta(seconds=1))
