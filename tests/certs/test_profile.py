"""A request may narrow a template, never widen it: the rules as a pure function."""

from __future__ import annotations

import base64
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from muster.certs.csr import parse_signing_request
from muster.certs.names import AlternativeName, NameKind
from muster.certs.profile import (
    BACKDATE,
    MAX_CA_DAYS,
    TemplateRules,
    Wishes,
    asked_names,
    authority_profile,
    leaf_profile,
)
from muster.certs.usages import CLIENT_AUTH, SERVER_AUTH, KeyUse, parse_key_uses
from muster.errors import Kind, Problem

RULES = TemplateRules(max_days=30)
RSA = rsa.generate_private_key(65537, 2048)


def request(key=RSA, *extensions: x509.ExtensionType):
    """Return a parsed signing request for dev-1."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dev-1")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    der = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
    return parse_signing_request(base64.b64encode(der).decode())


def usages(*dotted: str) -> x509.ExtendedKeyUsage:
    """Return an extended key usage."""
    return x509.ExtendedKeyUsage([x509.ObjectIdentifier(one) for one in dotted])


@pytest.fixture(name="issuer")
def issuer_fixture(make, now) -> x509.Certificate:
    """A CA that ends in 20 days."""
    return make("ca", ca=True, not_after=now + timedelta(days=20)).certificate


def profile(issuer, now, wishes=None, asked=None, rules=RULES):
    """Return the profile for *wishes*."""
    return leaf_profile(rules, asked or request(), wishes or Wishes(10), issuer, now=now)


def test_defaults_are_the_templates(issuer, now) -> None:
    """Who asks for nothing gets both authentications and what RSA keys do in TLS."""
    made = profile(issuer, now)
    assert set(made.ekus) == {CLIENT_AUTH, SERVER_AUTH}
    assert made.key_uses == {KeyUse.DIGITAL_SIGNATURE, KeyUse.KEY_ENCIPHERMENT}
    assert made.names == (AlternativeName(NameKind.DNS, "dev-1"),)
    assert not made.is_ca


def test_body_goes_before_csr_goes_before_template(issuer, now) -> None:
    """The first that says anything decides."""
    asked = request(RSA, usages(SERVER_AUTH))
    assert profile(issuer, now, asked=asked).ekus == (SERVER_AUTH,)
    assert profile(issuer, now, Wishes(10, ekus=(CLIENT_AUTH,)), asked).ekus == (CLIENT_AUTH,)


def test_repeated_usages_are_one(issuer, now) -> None:
    """An extension does not list a usage twice."""
    assert profile(issuer, now, Wishes(10, ekus=(CLIENT_AUTH,) * 3)).ekus == (CLIENT_AUTH,)


@pytest.mark.parametrize(
    "wishes",
    [
        Wishes(10, ekus=(CLIENT_AUTH, "1.2.3")),
        Wishes(10, ekus=("not an oid",)),
        Wishes(10, key_uses=frozenset({KeyUse.CRL_SIGN})),
        Wishes(31),
    ],
)
def test_what_the_template_does_not_allow_is_forbidden(issuer, now, wishes) -> None:
    """Each beyond the rules in one thing."""
    with pytest.raises(Problem) as caught:
        profile(issuer, now, wishes)
    assert caught.value.kind is Kind.FORBIDDEN


def test_a_widening_csr_is_forbidden_even_if_the_body_is_not(issuer, now) -> None:
    """Asking is refused wherever it is done."""
    for extension in (usages("1.2.3"), x509.BasicConstraints(ca=True, path_length=None)):
        with pytest.raises(Problem) as caught:
            profile(issuer, now, Wishes(10, ekus=(CLIENT_AUTH,)), request(RSA, extension))
        assert caught.value.kind is Kind.FORBIDDEN


def test_a_narrow_template_narrows_everyone(issuer, now) -> None:
    """A template for clients alone makes no servers, by default or on request."""
    rules = TemplateRules(max_days=30, ekus=(CLIENT_AUTH,))
    assert profile(issuer, now, rules=rules).ekus == (CLIENT_AUTH,)
    with pytest.raises(Problem):
        profile(issuer, now, Wishes(10, ekus=(SERVER_AUTH,)), rules=rules)


def test_key_usage_is_never_empty(issuer, now) -> None:
    """An ECDSA key that asks for encipherment alone still signs."""
    asked = request(ec.generate_private_key(ec.SECP256R1()))
    wishes = Wishes(10, key_uses=frozenset({KeyUse.KEY_ENCIPHERMENT}))
    assert profile(issuer, now, wishes, asked).key_uses == {KeyUse.DIGITAL_SIGNATURE}


def test_lifetime(issuer, now) -> None:
    """Whole days to the second, a little backdated, never out of the issuer's."""
    made = profile(issuer, now + timedelta(microseconds=999_999), Wishes(20))
    assert made.not_after == now + timedelta(days=20) == issuer.not_valid_after_utc
    assert made.not_before == now - BACKDATE
    with pytest.raises(Problem, match="ends in 20 days"):
        profile(issuer, now, Wishes(21))


def test_backdating_stops_at_the_issuers_beginning(make, now) -> None:
    """A CA that was made a minute ago has certificates from that minute on."""
    young = make("ca", ca=True, not_before=now - timedelta(minutes=1)).certificate
    made = profile(young, now, Wishes(1))
    assert made.not_before == young.not_valid_before_utc
    assert made.not_after - made.not_before >= timedelta(days=1)


def test_names_are_bounded(issuer, now) -> None:
    """A hundred, body and CSR together."""
    names = tuple(AlternativeName(NameKind.DNS, f"n{n}") for n in range(100))
    assert len(asked_names(request(), Wishes(1, names=names))[1]) == 100
    extra = request(RSA, x509.SubjectAlternativeName([x509.DNSName("one-more")]))
    with pytest.raises(Problem, match="100"):
        asked_names(extra, Wishes(1, names=names))


@pytest.mark.parametrize("days", [0, -1, MAX_CA_DAYS + 1, 10**12])
def test_ca_lifetimes_are_bounded(days, now) -> None:
    """Nobody plans further than that, and dates end in 9999."""
    with pytest.raises(Problem) as caught:
        authority_profile("ca", RSA.public_key(), days=days, path_length=0, issuer=None, now=now)
    assert caught.value.kind is Kind.MALFORMED


def test_ca_does_not_outlive_its_root(issuer, now) -> None:
    """As for leaves."""
    made = authority_profile(
        "sub", RSA.public_key(), days=20, path_length=0, issuer=issuer, now=now
    )
    assert made.is_ca
    assert made.not_after == issuer.not_valid_after_utc
    with pytest.raises(Problem):
        authority_profile("sub", RSA.public_key(), days=21, path_length=0, issuer=issuer, now=now)


def test_key_usage_names() -> None:
    """As clients spell them, case aside; anything else is said to be unknown."""
    assert parse_key_uses(["digital signature", "Key Encipherment"]) == {
        KeyUse.DIGITAL_SIGNATURE,
        KeyUse.KEY_ENCIPHERMENT,
    }
    with pytest.raises(Problem, match="Digital Signature"):
        parse_key_uses(["digitalSignature"])
