"""Keys, requests and chains, as a device makes and shows them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

from muster.client.certificates import (
    KeyKind,
    build_chain,
    build_request,
    chain_pem,
    generate_key,
    key_pem,
)

KEYS = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("root", "sub", "leaf", "other")}
NOT_BEFORE = datetime(2026, 1, 1, tzinfo=UTC)


def certificate(name: str, issuer: str, aia: str | None = None, *, key: str | None = None):
    """Return a certificate for *name* signed by *key* in the name of *issuer*."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(KEYS[name].public_key())
        .serial_number(7)
        .not_valid_before(NOT_BEFORE)
        .not_valid_after(NOT_BEFORE + timedelta(days=10))
    )
    if aia is not None:
        access = x509.AccessDescription(
            AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier(aia)
        )
        builder = builder.add_extension(x509.AuthorityInformationAccess([access]), critical=False)
    return builder.sign(KEYS[key or issuer], hashes.SHA256())


LEAF = certificate("leaf", "sub", "http://ca.test/sub.cer")
SUB = certificate("sub", "root", "http://ca.test/root.cer")
ROOT = certificate("root", "root")


def answer_der(service, made: x509.Certificate) -> None:
    """Append a DER certificate to the script."""
    service.script.append(httpx2.Response(200, content=made.public_bytes(Encoding.DER)))


def test_the_chain_is_followed_up_to_the_root_without_it(service, both):
    """Leaf and intermediates, as a device has to present them."""
    answer_der(service, SUB)
    answer_der(service, ROOT)
    assert both(build_chain(LEAF)) == [LEAF, SUB]
    assert [str(request.url) for request in service.requests] == [
        "http://ca.test/sub.cer",
        "http://ca.test/root.cer",
    ]
    assert all("authorization" not in request.headers for request in service.requests)


def test_pem_is_read_too(service, both):
    """Some CAs publish PEM."""
    service.answer(text=SUB.public_bytes(Encoding.PEM).decode()).answer(404)
    assert both(build_chain(LEAF)) == [LEAF, SUB]


@pytest.mark.parametrize(
    "step",
    [
        httpx2.ConnectError("refused"),
        httpx2.Response(404),
        httpx2.Response(200, content=b"hello"),
        httpx2.Response(200, content=b"x" * 70_000),
        httpx2.Response(
            200, content=certificate("sub", "root", key="other").public_bytes(Encoding.DER)[:-1]
        ),
        httpx2.Response(200, content=ROOT.public_bytes(Encoding.DER)),
    ],
    ids=["unreachable", "not found", "no certificate", "too large", "cut short", "not the issuer"],
)
def test_a_chain_ends_where_it_cannot_be_followed(service, step):
    """The service may know the issuer, so a device shows what it has."""
    service.script.append(step)
    assert service.call(build_chain(LEAF)) == [LEAF]


def test_a_leaf_without_an_address_is_its_own_chain(service, both):
    """Nothing is asked for."""
    leaf = certificate("leaf", "sub")
    assert both(build_chain(leaf)) == [leaf]


def test_only_plain_http_addresses_are_followed(service, both):
    """Anything else would need trust that is only being built."""
    for address in ("https://ca.test/sub.cer", "ldap://ca.test", "file:///etc/passwd"):
        leaf = certificate("leaf", "sub", address)
        assert both(build_chain(leaf)) == [leaf]


def test_a_loop_ends(service, both):
    """A CA that points to itself under another name cannot keep a device busy."""
    loop = certificate("sub", "leaf", "http://ca.test/leaf.cer")
    back = certificate("leaf", "sub", "http://ca.test/sub.cer")
    for made in (loop, back, loop, back):
        answer_der(service, made)
    assert len(both(build_chain(back))) == 5


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        (KeyKind.RSA_2048, lambda key: isinstance(key, rsa.RSAPrivateKey) and key.key_size == 2048),
        (KeyKind.P_256, lambda key: isinstance(key.curve, ec.SECP256R1)),
    ],
)
def test_keys_are_of_the_kind_asked_for(kind, check):
    """And their PEM reads back to the same key."""
    key = generate_key(kind)
    assert check(key)
    again = load_pem_private_key(key_pem(key), None)
    assert again.public_key() == key.public_key()


def test_a_request_is_the_samples():
    """CN alone, no extensions, signed by the key it is for."""
    request = x509.load_pem_x509_csr(build_request(KEYS["leaf"], "device-1").encode())
    assert request.subject.rfc4514_string() == "CN=device-1"
    assert len(request.extensions) == 0
    assert request.is_signature_valid
    assert request.public_key() == KEYS["leaf"].public_key()


@pytest.mark.parametrize("name", ["", "x" * 65])
def test_a_name_that_no_certificate_can_carry_is_refused(name):
    """RFC 5280: a common name has 1 to 64 characters."""
    with pytest.raises(ValueError, match=r"[Ll]ength"):
        build_request(KEYS["leaf"], name)


def test_a_chain_file_has_the_leaf_first():
    """As TLS libraries expect it."""
    assert x509.load_pem_x509_certificates(chain_pem([LEAF, SUB])) == [LEAF, SUB]
