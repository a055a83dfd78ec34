"""Reading signing requests: dialects, proof of possession, key policy."""

from __future__ import annotations

import base64
import textwrap

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import (
    dsa,
    ec,
    ed448,
    ed25519,
    mldsa,
    rsa,
    x25519,
)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from muster.certs.csr import parse_signing_request
from muster.certs.encoding import MAX_REQUEST_TEXT
from muster.certs.names import AlternativeName, NameKind
from muster.certs.usages import KeyUse
from muster.errors import Kind, Problem

NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dev-1")])


def build(key=None, *extensions: x509.ExtensionType) -> bytes:
    """Return a request, DER."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(NAME)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    hashed = isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | dsa.DSAPrivateKey)
    return builder.sign(key, hashes.SHA256() if hashed else None).public_bytes(Encoding.DER)


def wrapped(der: bytes, columns: int, end: str, label: str = "CERTIFICATE REQUEST") -> str:
    """Return *der* as PEM in some dialect; *end* is the line end inside the armour."""
    body = end.join(textwrap.wrap(base64.b64encode(der).decode(), columns))
    return f"-----BEGIN {label}-----\n{body}\n-----END {label}-----"


DER = build()
DIALECTS = {
    "Go": wrapped(DER, 64, "\n") + "\n",
    ".NET on Linux": wrapped(DER, 76, "\r\n") + "\n",
    ".NET on Windows": wrapped(DER, 76, "\r\n").replace("\n", "\r\n").replace("\r\r", "\r"),
    "CertEnroll": wrapped(DER, 64, "\r\n", "NEW CERTIFICATE REQUEST"),
    "one line": wrapped(DER, 10_000, "\n"),
    "base64": base64.b64encode(DER).decode(),
    "base64 in lines": base64.encodebytes(DER).decode(),
    "space around": "\n\n  " + wrapped(DER, 64, "\n") + "  \n\n",
}


@pytest.mark.parametrize("text", DIALECTS.values(), ids=DIALECTS)
def test_every_dialect_is_the_same_request(text) -> None:
    """Line lengths, line ends and labels differ from client to client."""
    assert parse_signing_request(text).der == DER


def test_wishes_are_read() -> None:
    """Names, usages and the wish to be a CA, each where the request has it."""
    plain = parse_signing_request(base64.b64encode(DER).decode())
    assert (plain.names, plain.ekus, plain.key_uses, plain.asks_to_be_ca) == ((), None, None, False)
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=True, key_encipherment=True,
        data_encipherment=True, key_agreement=True, key_cert_sign=True, crl_sign=True,
        encipher_only=True, decipher_only=False,
    )  # fmt: skip
    full = parse_signing_request(
        base64.b64encode(
            build(
                None,
                x509.SubjectAlternativeName([x509.DNSName("a.test"), x509.DNSName("b_c")]),
                x509.ExtendedKeyUsage([x509.ObjectIdentifier("1.2.3")]),
                usage,
                x509.BasicConstraints(ca=True, path_length=3),
            )
        ).decode()
    )
    assert full.names == tuple(AlternativeName(NameKind.DNS, name) for name in ("a.test", "b_c"))
    assert full.ekus == {"1.2.3"}
    assert full.key_uses == set(KeyUse)
    assert full.asks_to_be_ca


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 2048),
        rsa.generate_private_key(65537, 4096),
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        ed25519.Ed25519PrivateKey.generate(),
    ],
)
def test_good_keys_are_taken(key) -> None:
    """What devices have."""
    taken = parse_signing_request(base64.b64encode(build(key)).decode())
    assert taken.public_key == key.public_key()


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 1024),
        rsa.generate_private_key(3, 2048),
        ec.generate_private_key(ec.SECP256K1()),
        ec.generate_private_key(ec.BrainpoolP256R1()),
        ed448.Ed448PrivateKey.generate(),
        dsa.generate_private_key(2048),
        mldsa.MLDSA65PrivateKey.generate(),
    ],
    ids=["rsa-1024", "rsa e=3", "secp256k1", "brainpool", "ed448", "dsa", "ml-dsa"],
)
def test_other_keys_are_unsupported(key) -> None:
    """Too short, an odd curve, an odd algorithm."""
    with pytest.raises(Problem) as caught:
        parse_signing_request(base64.b64encode(build(key)).decode())
    assert caught.value.kind is Kind.UNSUPPORTED


def test_rsa_above_the_bound_is_unsupported() -> None:
    """Verification of a huge key costs every hub, at every handshake."""
    big = rsa.generate_private_key(65537, 4104)
    with pytest.raises(Problem, match="4104"):
        parse_signing_request(base64.b64encode(build(big)).decode())


def test_another_keys_signature_is_refused() -> None:
    """The key in the request must be the one that signed it."""
    mine, theirs = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    public = [
        key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        for key in (mine, theirs)
    ]
    swapped = build(mine).replace(public[0], public[1])
    with pytest.raises(Problem, match="possession"):
        parse_signing_request(base64.b64encode(swapped).decode())


def test_key_agreement_keys_cannot_sign_requests() -> None:
    """An X25519 key in place of an Ed25519 one is no PKCS #10 request that can be proven."""
    ed, x = ed25519.Ed25519PrivateKey.generate(), x25519.X25519PrivateKey.generate()
    swapped = (
        build(ed)
        .replace(ed.public_key().public_bytes_raw(), x.public_key().public_bytes_raw())
        .replace(bytes.fromhex("06032b6570032100"), bytes.fromhex("06032b656e032100"))
    )
    with pytest.raises(Problem):
        parse_signing_request(base64.b64encode(swapped).decode())


@pytest.mark.parametrize("place", range(0, len(DER), 7))
def test_damage_anywhere_is_a_problem_or_harmless(place) -> None:
    """No flipped byte ends in anything but a Problem."""
    broken = bytearray(DER)
    broken[place] ^= 0x41
    with pytest.raises(Problem):
        parse_signing_request(base64.b64encode(broken).decode())


def test_size_is_judged_before_the_text() -> None:
    """One byte too many is too large, whatever it says."""
    with pytest.raises(Problem) as caught:
        parse_signing_request("A" * (MAX_REQUEST_TEXT + 1))
    assert caught.value.kind is Kind.TOO_LARGE


def test_duplicate_extension_is_malformed() -> None:
    """Which of two would count is for nobody to guess."""
    one = build(None, x509.SubjectAlternativeName([x509.DNSName("a.test")]))
    two = build(
        None,
        x509.SubjectAlternativeName([x509.DNSName("a.test")]),
        x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.18"), b"\x30\x00"),
    )
    assert parse_signing_request(base64.b64encode(one).decode())
    # 2.5.29.18 becomes a second 2.5.29.17.
    twice = two.replace(bytes.fromhex("0603551d12"), bytes.fromhex("0603551d11"))
    assert twice != two
    with pytest.raises(Problem) as caught:
        parse_signing_request(base64.b64encode(twice).decode())
    assert caught.value.kind is Kind.MALFORMED
