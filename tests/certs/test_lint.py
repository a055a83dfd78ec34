"""The linter finds what the builder must never make: one broken thing for each test."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from muster.certs.lint import lint_certificate

NOW = datetime(2026, 11, 23, tzinfo=UTC)
KEY, CA_KEY = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
OTHER = ec.generate_private_key(ec.SECP256R1())


def name(*values: str) -> x509.Name:
    """Return a name of common names."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, value) for value in values])


def usage(**bits: bool) -> x509.KeyUsage:
    """Return a key usage with *bits* set."""
    every = [
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
        "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    ]  # fmt: skip
    return x509.KeyUsage(**{bit: bits.get(bit, False) for bit in every})


def url(value: str) -> x509.UniformResourceIdentifier:
    """Return a location."""
    return x509.UniformResourceIdentifier(value)


def aia(value: str, method=AuthorityInformationAccessOID.CA_ISSUERS) -> x509.ExtensionType:
    """Return an authority information access."""
    return x509.AuthorityInformationAccess([x509.AccessDescription(method, url(value))])


def crl_point(value: str) -> x509.ExtensionType:
    """Return a CRL distribution point."""
    return x509.CRLDistributionPoints([x509.DistributionPoint([url(value)], None, None, None)])


def identifier(key) -> x509.SubjectKeyIdentifier:
    """Return the subject key identifier of *key*."""
    return x509.SubjectKeyIdentifier.from_public_key(key.public_key())


def good(*, ca: bool = False) -> dict[type, tuple[x509.ExtensionType, bool]]:
    """Return the extensions of a good leaf, or CA, by class."""
    found: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca, 0 if ca else None), True),
        (usage(key_cert_sign=True, crl_sign=True) if ca else usage(digital_signature=True), True),
        (identifier(KEY), False),
        (x509.AuthorityKeyIdentifier(identifier(CA_KEY).digest, None, None), False),
        (aia("http://ca.test/1.cer"), False),
        (crl_point("http://ca.test/1.crl"), False),
    ]
    if not ca:
        found.append((x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False))
        found.append((x509.SubjectAlternativeName([x509.DNSName("dev_1")]), False))
    return {type(value): (value, critical) for value, critical in found}


def draft(extensions, **changes) -> x509.Certificate:
    """Return a certificate, good but for *changes*."""
    fields = {
        "subject": name("dev_1"), "issuer": name("ca"), "serial": 1 << 150 | 1,
        "not_before": NOW, "not_after": NOW + timedelta(days=1), "hash": hashes.SHA256(),
        **changes,
    }  # fmt: skip
    builder = (
        x509.CertificateBuilder()
        .subject_name(fields["subject"])
        .issuer_name(fields["issuer"])
        .public_key(KEY.public_key())
        .serial_number(fields["serial"])
        .not_valid_before(fields["not_before"])
        .not_valid_after(fields["not_after"])
    )
    for value, critical in extensions.values():
        builder = builder.add_extension(value, critical)
    return builder.sign(CA_KEY, fields["hash"])


@pytest.fixture(scope="module")
def issuer() -> x509.Certificate:
    """The CA of all drafts."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(name("ca"))
        .issuer_name(name("ca"))
        .public_key(CA_KEY.public_key())
        .serial_number(1)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=10))
        .add_extension(identifier(CA_KEY), critical=False)
    )
    return builder.sign(CA_KEY, hashes.SHA256())


@pytest.mark.parametrize("ca", [False, True])
def test_good_certificates_have_no_finding(issuer, ca) -> None:
    """The starting point of all tests below."""
    assert lint_certificate(draft(good(ca=ca)), issuer) == ()


FIELDS = [
    ({"serial": 1}, "random"),
    ({"serial": (1 << 95) - 1}, "random"),
    ({"issuer": name("other")}, "issuer's name"),
    ({"not_before": NOW - timedelta(days=2)}, "begins before the issuer's"),
    ({"not_after": NOW + timedelta(days=11)}, "ends after the issuer's"),
    ({"hash": hashes.SHA224()}, "SHA-2"),
    ({"subject": name()}, "one common name"),
    ({"subject": name("dev_1", "dev_1")}, "one common name"),
    ({"subject": name("dev\n1")}, "invisible"),
    ({"subject": name("dev\u202e1")}, "invisible"),
    ({"subject": name("dev\x001")}, "invisible"),
    ({"subject": name("other")}, "not a host name"),
]


@pytest.mark.parametrize(("changes", "words"), FIELDS)
def test_fields_are_judged(issuer, changes, words) -> None:
    """Serial, names, validity, digest."""
    assert any(words in finding for finding in lint_certificate(draft(good(), **changes), issuer))


@pytest.mark.filterwarnings("ignore:Attribute's length")
def test_long_common_name_is_found(issuer) -> None:
    """65 characters."""
    long = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x" * 65, _validate=False)])
    findings = lint_certificate(draft(good(), subject=long), issuer)
    assert any("64 characters" in finding for finding in findings)


SAN, EKU = x509.SubjectAlternativeName, x509.ExtendedKeyUsage
EXTENSIONS = [
    (x509.BasicConstraints(ca=False, path_length=None), False, "criticality"),
    (identifier(KEY), True, "criticality"),
    (usage(), True, "empty"),
    (usage(key_cert_sign=True), True, "sign certificates"),
    (usage(digital_signature=True, crl_sign=True), True, "sign certificates"),
    (identifier(OTHER), False, "subject key identifier"),
    (x509.AuthorityKeyIdentifier(identifier(OTHER).digest, None, None), False, "authority key"),
    (EKU([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]), False, "beyond client and server"),
    (EKU([ExtendedKeyUsageOID.OCSP_SIGNING]), False, "beyond client and server"),
    (SAN([]), False, "no alternative names"),
    (SAN([x509.DNSName("dev_1"), x509.DNSName("dev_1")]), False, "twice"),
    (SAN([x509.DNSName("a.test"), x509.DNSName("dev_1")]), False, "not a host name"),
    (SAN([x509.DNSName("dev_1"), x509.DNSName("dev_2")]), False, "not a host name"),
    (SAN([x509.DNSName("*.test")]), False, "not a host name"),
    (SAN([x509.RFC822Name("a@b.test")]), False, "neither"),
    (SAN([url("https://a.test/")]), False, "neither"),
    (aia("https://ca.test/1.cer"), False, "plain http"),
    (aia("ldap://ca.test/"), False, "plain http"),
    (aia("http://ca.test/", AuthorityInformationAccessOID.OCSP), False, "information access"),
    (crl_point("https://ca.test/1.crl"), False, "plain http"),
    (x509.OCSPNoCheck(), False, "not one of ours"),
    (x509.NameConstraints([x509.DNSName("a")], None), True, "not one of ours"),
]


@pytest.mark.parametrize(("value", "critical", "words"), EXTENSIONS)
def test_extensions_are_judged(issuer, value, critical, words) -> None:
    """Each one broken, or added, alone."""
    extensions = {**good(), type(value): (value, critical)}
    findings = lint_certificate(draft(extensions), issuer)
    assert any(words in finding for finding in findings), findings


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (x509.BasicConstraints, "missing"),
        (x509.KeyUsage, "missing"),
        (x509.ExtendedKeyUsage, "no extended key usage"),
        (x509.SubjectAlternativeName, "no alternative names"),
        (x509.SubjectKeyIdentifier, "subject key identifier"),
        (x509.AuthorityKeyIdentifier, "no authority key identifier"),
    ],
)
def test_missing_extensions_are_found(issuer, kind, words) -> None:
    """Each one left out alone."""
    extensions = {key: value for key, value in good().items() if key is not kind}
    assert any(words in finding for finding in lint_certificate(draft(extensions), issuer))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (usage(digital_signature=True), "does not let it sign"),
        (EKU([ExtendedKeyUsageOID.CLIENT_AUTH]), "extended key usage"),
        (SAN([x509.DNSName("a.test")]), "alternative names"),
    ],
)
def test_cas_have_rules_of_their_own(issuer, value, words) -> None:
    """A CA signs, and is nobody's server or client."""
    critical = isinstance(value, x509.KeyUsage)
    extensions = {**good(ca=True), type(value): (value, critical)}
    assert any(words in finding for finding in lint_certificate(draft(extensions), issuer))


def test_self_signed_names_itself() -> None:
    """Without an issuer, issuer and subject are one, and so are the identifiers."""
    extensions = good(ca=True)
    findings = lint_certificate(draft(extensions), None)
    assert any("another issuer" in finding for finding in findings)
    assert any("authority key identifier" in finding for finding in findings)
    own = (x509.AuthorityKeyIdentifier(identifier(KEY).digest, None, None), False)
    extensions[x509.AuthorityKeyIdentifier] = own
    assert lint_certificate(draft(extensions, subject=name("ca")), None) == ()


def test_unreadable_extensions_are_a_finding(issuer) -> None:
    """Two of one kind, made by hand, end here."""
    from cryptography.hazmat.primitives.serialization import Encoding

    extensions = good()
    extra = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.18"), b"\x30\x00")
    extensions[x509.UnrecognizedExtension] = (extra, False)
    der = draft(extensions).public_bytes(Encoding.DER)
    twice = x509.load_der_x509_certificate(
        der.replace(bytes.fromhex("0603551d12"), bytes.fromhex("0603551d11"))
    )
    (finding,) = lint_certificate(twice, issuer)
    assert "cannot be read" in finding
