"""Which chains are accepted, and what a refused peer is told."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from tests.support.hostile import STRANGERS, Count, insider, pairs

from muster.certs import signatures
from muster.certs.chain import common_name, load_chain, verify_client_chain
from muster.certs.paths import Issuers
from muster.certs.signatures import MAX_SIGNATURE_CHECKS
from muster.errors import Kind, Problem

DAY = timedelta(days=1)
CLIENT = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
SERVER = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
ANY = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])


def usage(*, sign: bool) -> x509.KeyUsage:
    """Return the key usage of a CA that may, or may not, sign."""
    return x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=sign, crl_sign=sign,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def refusal(chain, anchors, now) -> str:
    """Return why the chain is refused; fail when it is accepted."""
    with pytest.raises(Problem) as caught:
        verify_client_chain(
            [one.certificate for one in chain], [one.certificate for one in anchors], now=now
        )
    assert caught.value.kind is Kind.UNAUTHENTICATED
    return caught.value.detail


def accepted(chain, anchors, now) -> list[str]:
    """Return the common names of the path."""
    path = verify_client_chain(
        [one.certificate for one in chain], [one.certificate for one in anchors], now=now
    )
    assert path.leaf == chain[0].certificate
    assert path.anchor in [one.certificate for one in anchors]
    return [common_name(one) for one in path.certificates]


def load_and_verify(chain, root, now) -> None:
    """Do what a wire does with what a peer sent."""
    loaded = load_chain([one.public_bytes(Encoding.DER) for one in chain])
    verify_client_chain(loaded, [root.certificate], now=now)


def identified_as(key: bytes) -> list[tuple[x509.ExtensionType, bool]]:
    """Return the extension that names a CA's key."""
    return [(x509.SubjectKeyIdentifier(key), False)]


def issued_by(key: bytes) -> list[tuple[x509.ExtensionType, bool]]:
    """Return the extension that names the issuer's key."""
    return [(x509.AuthorityKeyIdentifier(key, None, None), False)]


def test_leaf_without_any_extension_is_accepted(make, root, now) -> None:
    """`openssl x509 -req` makes leaves without SAN, AKI, KU or EKU: they count."""
    assert accepted([make("device", root)], [root], now) == ["device", "root"]


def test_intermediates_are_found_in_any_order(make, root, now) -> None:
    """The chain after the leaf is a bag of hints, and stray ones do no harm."""
    first = make("first", root, ca=True)
    second = make("second", first, ca=True)
    stray = make("stray", ca=True)
    leaf = make("device", second)
    assert accepted([leaf, stray, first, second, leaf, first], [root], now) == [
        "device", "second", "first", "root",
    ]  # fmt: skip


def test_intermediate_can_be_the_anchor(make, root, now) -> None:
    """Trusting an issuing CA needs no trust in its root."""
    issuing = make("issuing", root, ca=True)
    assert accepted([make("device", issuing), issuing], [issuing], now) == ["device", "issuing"]


@pytest.mark.parametrize("ca", [None, False, True])
def test_self_signed_leaf_can_be_its_own_anchor(make, now, ca) -> None:
    """`openssl req -x509` marks a device's own certificate as a CA; it counts all the same."""
    leaf = make("device", ca=ca)
    assert accepted([leaf], [leaf], now) == ["device"]


def test_cross_signed_ca_is_found_through_either_parent(make, root, now) -> None:
    """One CA under two parents leads to whichever of them is trusted."""
    other = make("other root", ca=True)
    issuing = make("issuing", other, ca=True)
    crossed = make("issuing", root, ca=True, key=issuing.key)
    leaf = make("device", issuing)
    chain = [leaf, issuing, crossed]
    assert accepted(chain, [root], now) == ["device", "issuing", "root"]
    assert accepted(chain, [other], now) == ["device", "issuing", "other root"]


def test_ed25519_leaf_is_accepted(make, root, now) -> None:
    """A small device may use an Edwards key under an ECDSA CA."""
    leaf = make("device", root, key=ed25519.Ed25519PrivateKey.generate())
    assert accepted([leaf], [root], now) == ["device", "root"]


@pytest.mark.parametrize("eku", [CLIENT, ANY])
def test_client_authentication_is_enough(make, root, now, eku) -> None:
    """The usages clientAuth and any are the two usages that let a leaf authenticate."""
    assert accepted([make("device", root, extensions=[(eku, False)])], [root], now)


def test_both_ends_of_validity_are_included(make, root) -> None:
    """The first second counts, and the last one as a whole."""
    start, end = datetime(2026, 11, 23, tzinfo=UTC), datetime(2026, 11, 23, 18, tzinfo=UTC)
    leaf = make("device", root, not_before=start, not_after=end)
    assert accepted([leaf], [root], start)
    assert accepted([leaf], [root], end + timedelta(microseconds=999_999))
    assert "not valid before 2026-11-23T00:00:00Z" in refusal(
        [leaf], [root], start - timedelta(microseconds=1)
    )
    assert "expired at 2026-11-23T18:00:00Z" in refusal([leaf], [root], end + timedelta(seconds=1))


def test_expired_ca_trusts_nobody(make, now) -> None:
    """An anchor's own validity counts, and so does an intermediate's."""
    old_root = make("old root", ca=True, not_after=now - DAY / 2)
    assert "CN=old root expired" in refusal([make("device", old_root)], [old_root], now)
    root = make("root", ca=True)
    old = make("old", root, ca=True, not_after=now - DAY / 2)
    assert "CN=old expired" in refusal([make("device", old), old], [root], now)


def test_unknown_issuer_is_refused_with_where_the_chain_ends(make, root, now) -> None:
    """The usual mistake, an incomplete chain, is named so that it can be mended."""
    issuing = make("issuing", root, ca=True)
    detail = refusal([make("device", issuing)], [root], now)
    assert detail == "no path to a trusted CA: the chain ends at CN=device, issued by CN=issuing"
    assert "no path to a trusted CA" in refusal([make("device")], [root], now)


def test_same_name_with_another_key_is_refused(make, root, now) -> None:
    """A CA that merely calls itself like the trusted one signs nothing here."""
    forged = make("root", ca=True)
    assert "not signed by" in refusal([make("device", forged)], [root], now)
    assert refusal([make("device", forged), forged], [root], now)


@pytest.mark.parametrize("ca", [None, False])
def test_issuer_that_is_not_a_ca_is_refused(make, root, now, ca) -> None:
    """A device cannot issue for other devices."""
    device = make("device", root, ca=ca)
    detail = refusal([make("victim", device), device], [root], now)
    assert "is not a CA" in detail


def test_path_length_is_enforced(make, root, now) -> None:
    """A CA that may only issue leaves cannot make another CA."""
    narrow = make("narrow", root, ca=True, path_length=0)
    assert accepted([make("device", narrow), narrow], [root], now)
    below = make("below", narrow, ca=True)
    detail = refusal([make("device", below), below, narrow], [root], now)
    assert "longer than it allows" in detail


def test_ca_without_the_right_to_sign_is_refused(make, root, now) -> None:
    """A key usage without keyCertSign binds, critical or not."""
    mute = make("mute", root, ca=True, extensions=[(usage(sign=False), False)])
    assert "may not sign certificates" in refusal([make("device", mute), mute], [root], now)
    able = make("able", root, ca=True, extensions=[(usage(sign=True), True)])
    assert accepted([make("device", able), able], [root], now)


def test_extended_key_usage_narrows_leaf_and_ca(make, root, now) -> None:
    """A server's certificate is no device's, nor is a device's under a servers-only CA."""
    leaf = make("device", root, extensions=[(SERVER, False)])
    assert "leaves client authentication out" in refusal([leaf], [root], now)
    web = make("web", root, ca=True, extensions=[(SERVER, False)])
    assert "may not issue for client" in refusal([make("device", web), web], [root], now)


def test_a_ca_is_not_a_device(make, root, now) -> None:
    """Whoever holds an issuing CA's key does not thereby become a device."""
    issuing = make("issuing", root, ca=True)
    assert refusal([issuing], [root], now) == "the client certificate is a CA's"


def test_name_constraints_are_enforced(make, root, now) -> None:
    """On alternative names and, in the directory-name form, on subjects."""
    dns = x509.NameConstraints([x509.DNSName("plant.test")], None)
    limited = make("limited", root, ca=True, extensions=[(dns, True)])
    inside = x509.SubjectAlternativeName([x509.DNSName("a.plant.test")])
    outside = x509.SubjectAlternativeName([x509.DNSName("a.other.test")])
    assert accepted([make("d", limited, extensions=[(inside, False)]), limited], [root], now)
    assert refusal([make("d", limited, extensions=[(outside, False)]), limited], [root], now)


def test_directory_name_constraints_are_enforced(make, root, now) -> None:
    """Permitted and excluded subtrees of subjects, on every certificate below."""
    plant = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Plant")])
    inside = x509.Name([*plant, x509.NameAttribute(NameOID.COMMON_NAME, "d")])
    only = x509.NameConstraints([x509.DirectoryName(plant)], None)
    never = x509.NameConstraints(None, [x509.DirectoryName(plant)])
    permits = make("permits", root, ca=True, extensions=[(only, False)])
    excludes = make("excludes", root, ca=True, extensions=[(never, False)])
    assert accepted([make(inside, permits), permits], [root], now)
    assert "name constraints" in refusal([make("d", permits), permits], [root], now)
    assert "name constraints" in refusal([make(inside, excludes), excludes], [root], now)
    assert accepted([make("d", excludes), excludes], [root], now)
    critical = make("critical", root, ca=True, extensions=[(only, True)])
    assert refusal([make("d", critical), critical], [root], now)


def test_unknown_critical_extension_is_refused(make, root, now) -> None:
    """RFC 5280 section 4.2: what is critical and not understood forbids use."""
    odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
    assert accepted([make("device", root, extensions=[(odd, False)])], [root], now)
    assert "RFC 5280" in refusal([make("device", root, extensions=[(odd, True)])], [root], now)


@pytest.mark.parametrize(
    "key",
    [rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP256K1())],
    ids=["rsa-1024", "secp256k1"],
)
def test_weak_or_odd_leaf_key_is_refused(make, root, now, key) -> None:
    """The library judges CA keys only; the leaf's is ours to judge."""
    assert "of CN=device" in refusal([make("device", root, key=key)], [root], now)


def test_nothing_sent_and_nothing_trusted_are_refused(make, root, now) -> None:
    """An absent chain and an empty trust list each have their own words."""
    assert refusal([], [root], now) == "no client certificate was sent"
    assert refusal([make("device", root)], [], now) == "no CA is trusted here"


def test_loops_of_cross_signed_cas_end_in_bounded_time(make, root, now) -> None:
    """Nine CAs that all sign each other cannot keep the server busy."""
    key = ec.generate_private_key(ec.SECP256R1())
    first = make("loop", ca=True, key=key)
    loop = [make("loop", first, ca=True, key=key) for _ in range(9)]
    leaf = make("device", first)
    before = time.perf_counter()
    assert refusal([leaf, *loop], [root], now)
    assert time.perf_counter() - before < 0.5


@pytest.mark.parametrize("hostile", STRANGERS, ids=lambda one: one.__name__)
def test_strangers_chain_costs_no_more_than_the_budget(make, monkeypatch, hostile) -> None:
    """However its names fit together: a signature is what is dear, so signatures are counted."""
    root = make("root", ca=True, not_after=datetime.now(UTC) + DAY)
    chain, now = hostile("root", "device"), datetime.now(UTC)
    count = Count(monkeypatch)
    with pytest.raises(Problem) as caught:
        verify_client_chain(chain, [root.certificate], now=now)
    assert caught.value.kind is Kind.UNAUTHENTICATED
    assert 0 < count.checks <= MAX_SIGNATURE_CHECKS


def test_insiders_chain_costs_no_more_than_the_budget(make, monkeypatch) -> None:
    """Nor if all its signatures are good, and each path breaks a rule at its end."""
    root = make("root", ca=True, not_after=datetime.now(UTC) + DAY)
    chain, now = insider("root", "device", root.key), datetime.now(UTC)
    count = Count(monkeypatch)
    with pytest.raises(Problem, match="too many possible paths"):
        load_and_verify(chain, root, now)
    assert MAX_SIGNATURE_CHECKS / 2 < count.checks <= MAX_SIGNATURE_CHECKS


def test_strangers_keys_are_not_used_where_the_anchor_signed_nothing(make, monkeypatch) -> None:
    """Paths are checked from the anchor down, and one that it did not sign ends there."""
    root = make("root", ca=True, not_after=datetime.now(UTC) + DAY)
    used = []
    count = Count(monkeypatch)
    ours = signatures._verifies
    monkeypatch.setattr(
        signatures, "_verifies", lambda issuer, one: used.append(issuer) or ours(issuer, one)
    )
    issuers = Issuers([root.certificate], pairs("root", "device")[1:], datetime.now(UTC))
    assert len(list(issuers.paths(pairs("root", "device")[0]))) == 16
    with pytest.raises(Problem):
        load_and_verify(pairs("root", "device"), root, datetime.now(UTC))
    assert used[0] == root.certificate
    assert count.checks == len(used) < 8


def test_long_and_honest_chain_stays_within_the_budget(make, root, now, monkeypatch) -> None:
    """As many CAs as are looked at, and the root left out: nobody sends more."""
    above, made = root, []
    for place in range(9):
        above = make(f"ca {place}", above, ca=True)
        made.insert(0, above)
    count = Count(monkeypatch)
    assert len(accepted([make("device", above), *made], [root], now)) == 11
    assert count.checks == 9 + 10


def test_direct_issuance_costs_one_signature(make, root, now, monkeypatch) -> None:
    """The usual case, whatever else was sent, and the root as well."""
    leaf = make("device", root)
    count = Count(monkeypatch)
    assert accepted([leaf, root, make("stray", ca=True)], [root], now)
    assert count.checks == 1


def test_the_right_one_of_several_namesakes_is_found(make, root, now) -> None:
    """By its key identifier if it has one, else by trying: the wrong ones come first here."""
    decoys = [make("issuing", root, ca=True, extensions=identified_as(b"x")) for _ in range(8)]
    right = make("issuing", root, ca=True, extensions=identified_as(b"right"))
    leaf = make("device", right, extensions=issued_by(b"right"))
    assert accepted([leaf, *decoys, right], [root], now)
    bare = make("device", right)
    assert accepted([bare, decoys[0], right], [root], now)
    assert "not signed by" in refusal([bare, *decoys, right], [root], now)


def test_all_anchors_of_one_name_count(make, now) -> None:
    """A CA that was made anew four times has four keys under one name, all the operator's."""
    roots = [make("root", ca=True) for _ in range(4)]
    for root in roots:
        assert accepted([make("device", root)], roots, now)
        below = make("issuing", root, ca=True)
        assert accepted([make("device", below), below], roots, now)


def test_reason_is_that_of_the_ca_that_signed(make, now) -> None:
    """Of two CAs with one name, what is wrong with the other one explains nothing."""
    other = make("root", ca=True, not_after=now - DAY / 2)
    root = make("root", ca=True, extensions=[(SERVER, False)])
    detail = refusal([make("device", root)], [other, root], now)
    assert "may not issue for client" in detail


def test_ca_may_roll_its_own_key_over(make, root, now) -> None:
    """RFC 4210 section 4.4: the new key's certificate is signed with the old, under one name."""
    rolled = make("root", root, ca=True)
    assert accepted([make("device", rolled), rolled], [root], now) == ["device", "root", "root"]


def test_name_constraints_of_a_leaf_are_not_even_compared(make, root, now) -> None:
    """RFC 5280 section 4.2.1.10: they belong in CA certificates; comparing them is dear."""
    limits = x509.NameConstraints([x509.DNSName("a.test")], None)
    leaf = make("device", root, extensions=[(limits, False)])
    assert "as only a CA's may" in refusal([leaf], [root], now)


def test_comparisons_of_names_are_bounded(make, root, now) -> None:
    """A CA and its leaf can have thousands of names each; the product is what counts."""
    limits = x509.NameConstraints(None, [x509.DNSName(f"{n}.test") for n in range(500)])
    limited = make("limited", root, ca=True, extensions=[(limits, False)])
    few, many = (
        x509.SubjectAlternativeName([x509.DNSName(f"a{n}.example") for n in range(count)])
        for count in (90, 110)
    )
    assert accepted([make("d", limited, extensions=[(few, False)]), limited], [root], now)
    detail = refusal([make("d", limited, extensions=[(many, False)]), limited], [root], now)
    assert "more names" in detail


def test_two_cas_that_sign_each_other_are_refused(make, root, now) -> None:
    """A cycle without an anchor is no path."""
    one = make("one", ca=True)
    two = make("two", one, ca=True)
    back = make("one", two, ca=True, key=one.key)
    assert "no path" in refusal([make("device", two), two, back], [root], now)


def test_chain_is_bounded_before_it_is_parsed(root) -> None:
    """Count and size are judged first, so that nobody parses megabytes for a stranger."""
    for der in ([root.der] * 11, [b"\x30\x83\x10\x00\x00" + bytes(16 * 1024)]):
        with pytest.raises(Problem) as caught:
            load_chain(der)
        assert caught.value.kind is Kind.MALFORMED
        assert "at most" in caught.value.detail
    assert load_chain([]) == ()


def test_sum_of_a_chain_is_bounded_before_it_is_parsed() -> None:
    """Ten certificates within their own bound are still too much to parse for a stranger."""
    with pytest.raises(Problem, match="a chain has at most 40960 bytes") as caught:
        load_chain([bytes(16 * 1024)] * 3)
    assert caught.value.kind is Kind.MALFORMED


def test_extensions_of_a_certificate_are_bounded(make, root) -> None:
    """Hundreds of empty ones fit in, and every look for one goes through all of them."""
    odd = [
        (x509.UnrecognizedExtension(x509.ObjectIdentifier(f"1.3.6.1.4.1.99999.{n}"), b""), False)
        for n in range(33)
    ]
    assert load_chain([make("device", root, extensions=odd[:32]).der])
    with pytest.raises(Problem, match="at most 32 extensions") as caught:
        load_chain([root.der, make("device", root, extensions=odd).der])
    assert caught.value.kind is Kind.MALFORMED


@pytest.mark.parametrize("place", [0, 1, 9])
def test_keys_are_judged_wherever_they_stand_in_the_chain(make, root, place) -> None:
    """A full-size exponent makes one verification take 10 ms: it never comes to that."""
    modulus = rsa.generate_private_key(65537, 3072).public_key().public_numbers().n

    class Slow:
        """A key of which only the public half exists: the issuer signs with its own."""

        def public_key(self) -> rsa.RSAPublicKey:
            return rsa.RSAPublicNumbers(modulus - 2, modulus).public_key()

    chain = [root.der] * 10
    chain[place] = make("slow", root, ca=True, key=Slow()).der
    with pytest.raises(Problem, match="the key of CN=slow is RSA with an exponent") as caught:
        load_chain(chain)
    assert caught.value.kind is Kind.UNSUPPORTED


def test_ml_dsa_is_accepted_in_leaf_and_ca(make, now) -> None:
    """Keys that outlast quantum computers are judged like any others."""
    ca = make("ca", ca=True, key=mldsa.MLDSA65PrivateKey.generate())
    leaf = make("device", ca, key=mldsa.MLDSA44PrivateKey.generate())
    assert load_chain([leaf.der, ca.der])
    assert accepted([leaf], [ca], now) == ["device", "ca"]


@pytest.mark.parametrize("cut", [0, 1, 10, 100, -1])
def test_broken_der_is_malformed(root, cut) -> None:
    """Truncated, empty or foreign bytes name their place in the chain."""
    with pytest.raises(Problem) as caught:
        load_chain([root.der, root.der[:cut]])
    assert caught.value.kind is Kind.MALFORMED
    assert "certificate 1" in caught.value.detail


def test_trailing_bytes_are_malformed(root) -> None:
    """Two certificates in one field are not one certificate."""
    with pytest.raises(Problem):
        load_chain([root.der + root.der])


def test_common_name_is_exactly_one(make) -> None:
    """Neither none nor two: nobody should guess which one is the device."""
    two = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in ("a", "b")])
    for name in (x509.Name([]), two):
        with pytest.raises(Problem) as caught:
            common_name(make(name).certificate)
        assert caught.value.kind is Kind.UNAUTHENTICATED
    assert common_name(make("a").certificate) == "a"


def test_hostile_names_are_shown_escaped(make, root, now) -> None:
    """What the peer wrote into its names cannot forge a log line."""
    detail = refusal([make("a\r\nroot logged in\u202e", make("x\x00y", ca=True))], [root], now)
    assert detail.isprintable()
    assert detail.isascii()


@pytest.mark.parametrize("mask", [0x01, 0x41, 0x80])
@pytest.mark.filterwarnings("ignore:Attribute's length", "ignore:Parsed a serial")
def test_damage_anywhere_is_a_problem_or_harmless(make, root, now, mask) -> None:
    """No flipped byte ends in anything but a Problem, unless what was signed is untouched.

    A signature can be written in more than one way (a bit string's unused bits, ECDSA's other
    s), so one certificate has many thumbprints: revocation must go by issuer and serial.
    """
    limits = x509.NameConstraints([x509.DNSName("a.test")], None)
    issuing = make("issuing", root, ca=True, extensions=[(limits, False), (CLIENT, False)])
    names = x509.SubjectAlternativeName([x509.DNSName("b.a.test")])
    leaf = make("device", issuing, extensions=[(names, False), (usage(sign=False), True)])
    whole = [leaf.der, issuing.der]
    signed = [one.certificate.tbs_certificate_bytes for one in (leaf, issuing)]
    accepted_in_spite = 0
    for which in (0, 1):
        for place in range(len(whole[which])):
            broken = bytearray(whole[which])
            broken[place] ^= mask
            sent = [bytes(broken) if which == n else whole[n] for n in (0, 1)]
            try:
                chain = load_chain(sent)
                verify_client_chain(chain, [root.certificate], now=now)
            except Problem:
                continue
            accepted_in_spite += 1
            assert [one.tbs_certificate_bytes for one in chain] == signed
    assert accepted_in_spite <= 4
