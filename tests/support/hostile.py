"""Chains that a stranger makes to keep the server busy, and what they cost it.

Each has as many certificates as are looked at. Their names fit together in as many ways as
possible, with signatures that are good as far as their maker can make them so.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from muster.certs import chain as chains
from muster.certs import signatures

Chain = tuple[x509.Certificate, ...]
KEY = ec.generate_private_key(ec.SECP521R1())
OTHER_KEY = ec.generate_private_key(ec.SECP521R1())


def certificate(
    subject: str,
    issuer: str,
    *,
    key: ec.EllipticCurvePrivateKey = KEY,
    signer: ec.EllipticCurvePrivateKey = KEY,
    ca: bool = True,
    path_length: int | None = None,
    identified: bool = False,
) -> x509.Certificate:
    """Return a certificate with these names, whoever's they are."""
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
    )
    if ca:
        limits = x509.BasicConstraints(ca=True, path_length=path_length)
        builder = builder.add_extension(limits, critical=True)
    if identified:
        own, above = key.public_key(), signer.public_key()
        for extension in (
            x509.SubjectKeyIdentifier.from_public_key(own),
            x509.AuthorityKeyIdentifier.from_issuer_public_key(above),
        ):
            builder = builder.add_extension(extension, critical=False)
    return builder.sign(signer, hashes.SHA512())


def one_name(trusted: str, device: str) -> Chain:
    """Nine CAs with the trusted one's name and one key, each signed by all of them."""
    leaf = certificate(device, trusted, ca=False)
    return (leaf, *(certificate(trusted, trusted) for _ in range(9)))


def identified(trusted: str, device: str) -> Chain:
    """The same, with key identifiers that fit."""
    leaf = certificate(device, trusted, ca=False, identified=True)
    return (leaf, *(certificate(trusted, trusted, identified=True) for _ in range(9)))


def many_keys(trusted: str, device: str) -> Chain:
    """Nine CAs with the trusted one's name, none of which signed the leaf."""
    leaf = certificate(device, trusted, ca=False)
    return (leaf, *(certificate(trusted, trusted, key=OTHER_KEY) for _ in range(9)))


def pairs(trusted: str, device: str) -> Chain:
    """Two CAs on each of four floors, each signed by both above; one that the trusted one did not.

    In the end there are sixteen ways up, and all their signatures are good but the last.
    """
    return _pairs(trusted, device, KEY)


def _pairs(trusted: str, device: str, top: ec.EllipticCurvePrivateKey) -> Chain:
    names = ["one", "two", "three", "four"]
    floors = zip(names, [*names[1:], "five"], strict=True)
    doubled = [certificate(*floor) for floor, _ in product(floors, range(2))]
    last = certificate("five", trusted, signer=top)
    return (certificate(device, "one", ca=False), *doubled, last)


def insider(trusted: str, device: str, key: ec.EllipticCurvePrivateKey) -> Chain:
    """The same, made by somebody whom the trusted CA gave a CA certificate that must not be one's.

    All signatures are good; the ways are too long for `five`.
    """
    *below, _ = _pairs(trusted, device, KEY)
    return (*below, certificate("five", trusted, signer=key, path_length=0))


STRANGERS: list[Callable[[str, str], Chain]] = [one_name, identified, many_keys, pairs]


class Count:
    """The signature checks since it was made, ours and at most the library's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.checks = 0
        ours, librarys = signatures._verifies, chains._found_by_library

        def counted(issuer: x509.Certificate, subject: x509.Certificate) -> bool:
            self.checks += 1
            return ours(issuer, subject)

        def counted_path(path: Chain, now: datetime) -> Chain:
            self.checks += sum(a.issuer == b.subject for a, b in product(path[:-1], path[1:]))
            return librarys(path, now)

        monkeypatch.setattr(signatures, "_verifies", counted)
        monkeypatch.setattr(chains, "_found_by_library", counted_path)
