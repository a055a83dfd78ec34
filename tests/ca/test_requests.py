"""Who may have which certificate, and what hostile requests get."""

from __future__ import annotations

import subprocess
import time
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from muster.certs.chain import verify_client_chain
from muster.certs.names import AlternativeName, NameKind
from muster.certs.usages import KeyUse, parse_key_uses
from muster.errors import Kind, Problem
from muster.model.domain import Party

SAMPLE_EKUS = ("1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2")
SAMPLE_USES = parse_key_uses(["Key Encipherment", "Digital Signature"])


def dns(*names: str) -> tuple[AlternativeName, ...]:
    """Return DNS names."""
    return tuple(AlternativeName(NameKind.DNS, name) for name in names)


async def refusal(world, plant, text, by=None, **wishes) -> Problem:
    """Return why the request is refused; fail when it is not, or when a row was left."""
    with pytest.raises(Problem) as caught:
        await (
            world.request(plant, text, **wishes)
            if by is None
            else world.request(plant, text, by=by, **wishes)
        )
    assert world.certificate_rows("dev-1") == []
    return caught.value


async def test_the_samples_request(world, plant, csr, tmp_path) -> None:
    """What EZCA's sample sends makes a certificate that openssl and our hub accept."""
    key = rsa.generate_private_key(65537, 4096)
    certificate = await world.request(
        plant,
        csr("dev-1", key),
        subject_name="CN=dev-1",
        names=dns("dev-1"),
        ekus=SAMPLE_EKUS,
        key_uses=SAMPLE_USES,
    )
    found = {type(one.value): one for one in certificate.extensions}
    assert certificate.subject.rfc4514_string() == "CN=dev-1"
    assert certificate.public_key() == key.public_key()
    assert found[x509.SubjectAlternativeName].value.get_values_for_type(x509.DNSName) == ["dev-1"]
    assert {one.dotted_string for one in found[x509.ExtendedKeyUsage].value} == set(SAMPLE_EKUS)
    usage = found[x509.KeyUsage].value
    assert usage.digital_signature
    assert usage.key_encipherment
    assert not usage.key_cert_sign
    assert not found[x509.BasicConstraints].value.ca
    (access,) = found[x509.AuthorityInformationAccess].value
    assert access.access_location.value == f"http://ca.test:8080/ca/{plant.issuing.id}.cer"
    (point,) = found[x509.CRLDistributionPoints].value
    assert point.full_name[0].value == f"http://ca.test:8080/crl/{plant.issuing.id}.crl"

    now = world.clock.now()
    issuing, root = (
        x509.load_der_x509_certificate(one.certificate) for one in (plant.issuing, plant.root)
    )
    assert len(verify_client_chain([certificate, issuing], [root], now=now).certificates) == 3
    for name, one in (("leaf", certificate), ("issuing", issuing), ("root", root)):
        (tmp_path / f"{name}.pem").write_bytes(one.public_bytes(Encoding.PEM))
    for purpose in ("sslclient", "sslserver"):
        checked = subprocess.run(
            ["openssl", "verify", "-x509_strict", "-purpose", purpose,
             "-attime", str(int(now.timestamp())), "-CAfile", tmp_path / "root.pem",
             "-untrusted", tmp_path / "issuing.pem", tmp_path / "leaf.pem"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert checked.returncode == 0, checked.stderr


async def test_lifetime_is_whole_days_and_a_little_backdated(world, plant, csr) -> None:
    """Clients renew with the lifetime in days, rounded down: it must not lose one."""
    certificate = await world.request(plant, csr("dev-1"), days=1)
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    now = world.clock.now()
    assert (end - start).days == 1
    assert end == now.replace(microsecond=0) + timedelta(days=1)
    assert timedelta(0) <= now - start <= timedelta(minutes=6)


@pytest.mark.parametrize("days", [0, -1, 399, 10**9, -(10**18)])
async def test_impossible_lifetimes_are_refused(world, plant, csr, days) -> None:
    """Zero, negative, beyond the template: refused with the bound, not clamped."""
    problem = await refusal(world, plant, csr("dev-1"), days=days)
    assert problem.kind in (Kind.MALFORMED, Kind.FORBIDDEN)


async def test_leaf_never_outlives_its_ca(world, csr) -> None:
    """Near the CA's end, requests that reach beyond it are refused; shorter ones are not."""
    made = await world.hierarchy(issuing_days=30, max_certificate_days=30)
    await world.register(made, "dev-1")
    world.clock.advance(days=21)
    problem = await refusal(world, made, csr("dev-1"), days=10)
    assert "ends in 9 days" in problem.detail
    certificate = await world.request(made, csr("dev-1"), days=9)
    issuing = x509.load_der_x509_certificate(made.issuing.certificate)
    assert certificate.not_valid_after_utc <= issuing.not_valid_after_utc


@pytest.mark.parametrize("shift", [{"days": 31}, {"days": -1}])
async def test_ca_signs_only_while_valid(world, csr, shift) -> None:
    """An expired CA, and a clock behind the CA's beginning, issue nothing."""
    made = await world.hierarchy(issuing_days=30, max_certificate_days=30)
    await world.register(made, "dev-1")
    world.clock.advance(**shift)
    assert (await refusal(world, made, csr("dev-1"), days=1)).kind is Kind.FORBIDDEN


async def test_disabled_ca_issues_nothing(world, plant, csr) -> None:
    """What an owner switched off stays off."""
    from sqlalchemy import update

    from muster.store.authorities import authorities

    with world.database.engine.begin() as connection:
        connection.execute(update(authorities).values(is_enabled=False))
    assert "disabled" in (await refusal(world, plant, csr("dev-1"))).detail


async def test_only_requesters_get_certificates(world, plant, csr, principals) -> None:
    """Neither a stranger nor an owner who is no requester, not even the CA's own owner."""
    for by in (principals.stranger, principals.owner):
        assert "not a requester" in (await refusal(world, plant, csr("dev-1"), by)).detail
    await world.register(
        plant, "owned", by=principals.owner, requesters=(Party(principals.agent.object_id),)
    )
    assert "not a requester" in (await refusal(world, plant, csr("owned"), principals.owner)).detail
    assert await world.request(plant, csr("owned"))


async def test_request_only_parties_may_request(world, plant, csr, principals) -> None:
    """The third list of newer clients entitles as well."""
    await world.register(
        plant, "third", requesters=(), request_only=(Party(principals.stranger.object_id),)
    )
    assert await world.request(plant, csr("third"), by=principals.stranger)


async def test_other_tenants_find_nothing(world, plant, csr, principals) -> None:
    """The same object id in another tenant is somebody else: the CA does not exist for it."""
    foreigner = principals.replace(principals.foreigner, object_id=principals.agent.object_id)
    problem = await refusal(world, plant, csr("dev-1"), foreigner)
    assert problem.kind is Kind.NOT_FOUND


async def test_unknown_ca_or_template_is_not_found(world, plant, csr, principals) -> None:
    """Also another CA's template."""
    other = await world.hierarchy("Other")
    good = world.asked(plant, csr("dev-1"))
    for bad in (
        {"authority_id": "nonsense"},
        {"authority_id": "' OR 1=1 --"},
        {"template_id": "nonsense"},
        {"template_id": other.issuing.templates[0].id},
        {"authority_id": plant.root.id},
    ):
        with pytest.raises(Problem) as caught:
            await world.requests.request(principals.agent, principals.replace(good, **bad))
        assert caught.value.kind is Kind.NOT_FOUND


async def test_registration_counts_on_its_own_ca_only(world, plant, csr) -> None:
    """A name registered with one CA opens no other."""
    other = await world.hierarchy("Other")
    problem = await refusal(world, other, csr("dev-1"))
    assert (problem.kind, "not registered" in problem.detail) == (Kind.FORBIDDEN, True)


async def test_case_matters(world, plant, csr) -> None:
    """DEV-1 is not dev-1: the hub would take it for another device, provisioning for the same."""
    assert "case matters" in (await refusal(world, plant, csr("DEV-1"))).detail


@pytest.mark.parametrize("where", ["body", "csr"])
@pytest.mark.parametrize("name", ["other-device", "10.0.0.1", "dev-1.evil.test"])
async def test_every_alternative_name_must_be_registered(world, plant, csr, where, name) -> None:
    """A name that was slipped in refuses the whole request, wherever it stands."""
    kind = NameKind.IP if name == "10.0.0.1" else NameKind.DNS
    extra = AlternativeName(kind, name)
    if where == "body":
        problem = await refusal(world, plant, csr("dev-1"), names=(*dns("dev-1"), extra))
    else:
        import ipaddress

        general = (
            x509.IPAddress(ipaddress.ip_address(name))
            if kind is NameKind.IP
            else x509.DNSName(name)
        )
        wanted = x509.SubjectAlternativeName([x509.DNSName("dev-1"), general])
        problem = await refusal(world, plant, csr("dev-1", None, wanted))
    assert problem.kind is Kind.FORBIDDEN
    assert name in problem.detail


@pytest.mark.parametrize(
    "general",
    [
        x509.DNSName("*"),
        x509.DNSName("*.test"),
        x509.RFC822Name("root@test"),
        x509.UniformResourceIdentifier("https://test/"),
        x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
        x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])),
        x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), b"\x0c\x01x"),
    ],
)
async def test_odd_alternative_names_are_refused(world, plant, csr, general) -> None:
    """Wildcards and kinds that nobody registers."""
    problem = await refusal(
        world, plant, csr("dev-1", None, x509.SubjectAlternativeName([general]))
    )
    assert problem.kind in (Kind.UNSUPPORTED, Kind.MALFORMED)


async def test_names_are_a_union_with_the_own_name_first(world, plant, csr) -> None:
    """Body and CSR together, each once, the common name first wherever it was asked for."""
    for name in ("a.test", "b.test", "10.0.0.1"):
        await world.register(plant, name)
    wanted = x509.SubjectAlternativeName(
        [x509.DNSName("b.test"), x509.DNSName("dev-1"), x509.DNSName("a.test")]
    )
    certificate = await world.request(
        plant,
        csr("dev-1", None, wanted),
        names=(AlternativeName(NameKind.IP, "10.0.0.1"), *dns("a.test")),
    )
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["dev-1", "10.0.0.1", "a.test", "b.test"]


async def test_own_name_is_not_added_to_names_that_leave_it_out(world, plant, csr) -> None:
    """Who asks for certain names gets exactly these: controllers compare the sets."""
    await world.register(plant, "a.test")
    certificate = await world.request(plant, csr("dev-1"), names=dns("a.test"))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [name.value for name in names] == ["a.test"]


async def test_device_id_that_is_no_host_name_is_certified(world, plant, csr) -> None:
    """Underscores and dots at odd places are what devices are called."""
    for name in ("Device_7", "0A:1B:2C:3D", "x" * 64):
        await world.register(plant, name)
        certificate = await world.request(plant, csr(name), names=dns(name))
        assert certificate.subject.rfc4514_string().startswith("CN=")


async def test_ip_address_is_certified_as_one(world, plant, csr) -> None:
    """A registered address becomes an iPAddress name."""
    await world.register(plant, "10.0.0.1")
    certificate = await world.request(plant, csr("10.0.0.1"))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.1"]


@pytest.mark.parametrize(
    "stated", ["CN=other", "other", "O=x,CN=dev-1", "CN=dev-1,CN=dev-1", '"CN=dev-1"', "dev-1\n"]
)
async def test_stated_subject_must_be_the_csrs(world, plant, csr, stated) -> None:
    """A body that names one device over a CSR for another gets neither."""
    problem = await refusal(world, plant, csr("dev-1"), subject_name=stated)
    assert problem.kind is Kind.MALFORMED


@pytest.mark.parametrize(
    "value",
    [
        "dev-1\r\nX",
        "dev\x00-1",
        "d\u202eev-1",
        "dev-\u0131",
        "d\u0435v-1",
        "dev 1",
        "dev/../1",
        "*",
    ],
    ids=ascii,
)
async def test_hostile_common_names_are_refused_before_any_use(world, plant, csr, value) -> None:
    """Line breaks, NUL, bidi, look-alikes: refused, and the refusal itself is clean."""
    problem = await refusal(world, plant, csr(value))
    assert problem.kind is Kind.MALFORMED
    assert problem.detail.isascii()
    assert problem.detail.isprintable()


@pytest.mark.filterwarnings("ignore:Attribute's length")
async def test_common_name_of_65_characters_is_refused(world, plant, csr) -> None:
    """The bound of RFC 5280, also where the CSR's maker did not know it."""
    long = x509.NameAttribute(NameOID.COMMON_NAME, "x" * 65, _validate=False)
    assert (await refusal(world, plant, csr(x509.Name([long])))).kind is Kind.MALFORMED


@pytest.mark.parametrize(
    "attributes",
    [
        [],
        [(NameOID.COMMON_NAME, "dev-1"), (NameOID.COMMON_NAME, "dev-1")],
        [(NameOID.COMMON_NAME, "dev-1"), (NameOID.ORGANIZATION_NAME, "Bank")],
        [(NameOID.ORGANIZATION_NAME, "Bank")],
    ],
)
async def test_subject_is_one_common_name(world, plant, csr, attributes) -> None:
    """Nobody here has checked that the caller is a bank."""
    name = x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])
    assert (await refusal(world, plant, csr(name))).kind is Kind.MALFORMED


async def test_empty_subject_takes_the_stated_one(world, plant, csr) -> None:
    """Go programs may leave the subject to the request."""
    certificate = await world.request(plant, csr(x509.Name([])), subject_name="dev-1")
    assert certificate.subject.rfc4514_string() == "CN=dev-1"


@pytest.mark.parametrize(
    "extension",
    [
        x509.BasicConstraints(ca=True, path_length=None),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]),
        x509.KeyUsage(
            digital_signature=True, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, key_cert_sign=True, crl_sign=False,
            encipher_only=False, decipher_only=False,
        ),
    ],
    ids=["CA", "OCSP signing", "any", "keyCertSign"],
)  # fmt: skip
async def test_csr_cannot_widen_the_template(world, plant, csr, extension) -> None:
    """Refused although the body asks for nothing unusual, and the attempt is audited."""
    problem = await refusal(
        world, plant, csr("dev-1", None, extension), ekus=SAMPLE_EKUS, key_uses=SAMPLE_USES
    )
    assert problem.kind is Kind.FORBIDDEN
    assert world.audit_lines()[-1][1:] == ("certificate.request", "forbidden")


async def test_body_cannot_widen_the_template(world, plant, csr) -> None:
    """Nor can the request's own lists."""
    signing = frozenset({KeyUse.CERTIFICATE_SIGN})
    for wishes in ({"ekus": ("1.3.6.1.5.5.7.3.9",)}, {"key_uses": signing}):
        assert (await refusal(world, plant, csr("dev-1"), **wishes)).kind is Kind.FORBIDDEN


async def test_request_can_narrow_the_template(world, plant, csr) -> None:
    """Client authentication alone, signature alone."""
    certificate = await world.request(
        plant,
        csr("dev-1"),
        ekus=("1.3.6.1.5.5.7.3.2",),
        key_uses=frozenset({KeyUse.DIGITAL_SIGNATURE}),
    )
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH]


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        ed25519.Ed25519PrivateKey.generate(),
    ],
)
async def test_keys_that_cannot_encipher_are_not_said_to(world, plant, csr, key) -> None:
    """Every client asks for Key Encipherment by default; RFC 8813 forbids it for ECDSA."""
    certificate = await world.request(plant, csr("dev-1", key), key_uses=SAMPLE_USES)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert not usage.key_encipherment


@pytest.mark.parametrize(
    "key",
    [rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP256K1())],
    ids=["rsa-1024", "secp256k1"],
)
async def test_weak_and_odd_keys_are_refused(world, plant, csr, key) -> None:
    """The key policy is the CA's, not the device's."""
    assert (await refusal(world, plant, csr("dev-1", key))).kind is Kind.UNSUPPORTED


async def test_csr_must_be_signed_by_its_own_key(world, plant, csr) -> None:
    """One flipped bit of the signature, and possession is not proven."""
    import base64

    lines = csr("dev-1").splitlines()
    der = bytearray(base64.b64decode("".join(lines[1:-1])))
    der[-1] ^= 1
    problem = await refusal(world, plant, base64.b64encode(der).decode())
    assert "possession" in problem.detail


async def test_hostile_encodings_are_refused_quickly(world, plant, csr) -> None:
    """Size before parsing, one block, nothing behind it, nothing deeply nested."""
    import base64

    good = csr("dev-1")
    bare = "".join(good.splitlines()[1:-1])
    der = base64.b64decode(bare)
    certificate = "-----BEGIN CERTIFICATE-----\n" + bare + "\n-----END CERTIFICATE-----\n"
    hostile = [
        "",
        "A" * 100_000_000,
        good + good,
        good + "trailing",
        certificate,
        "-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----",
        "-----BEGIN NEW CERTIFICATE REQUEST-----\n" + bare + "\n-----END CERTIFICATE REQUEST-----",
        "!!!!",
        "A===",
        base64.b64encode(der + b"\0").decode(),
        base64.b64encode(der[:-1]).decode(),
        base64.b64encode(b"\x30\x80" + der[4:] + b"\0\0").decode(),
        base64.b64encode(b"\x30\x80" * 10_000).decode(),
        base64.b64encode(b"\x30\x84\xff\xff\xff\xff").decode(),
    ]
    for text in hostile:
        before = time.perf_counter()
        problem = await refusal(world, plant, text)
        assert problem.kind in (Kind.MALFORMED, Kind.TOO_LARGE)
        assert time.perf_counter() - before < 0.1


async def test_labels_are_bounded_and_visible(world, plant, csr, principals) -> None:
    """Free text is kept for people, so it must be fit to be shown to them."""
    good = world.asked(plant, csr("dev-1"))
    for bad in ({"location": "x" * 257}, {"tags": "a\nb"}, {"location": "\u202e"}):
        with pytest.raises(Problem) as caught:
            await world.requests.request(principals.agent, principals.replace(good, **bad))
        assert caught.value.kind is Kind.MALFORMED
    kept = principals.replace(good, location="IoT Device", tags="line=7")
    await world.requests.request(principals.agent, kept)
    (row,) = world.certificate_rows("dev-1")
    assert (row.location, row.tags) == ("IoT Device", "line=7")
