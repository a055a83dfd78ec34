"""CA certificates: what is taken, how one becomes trusted, and what takes the trust away."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from muster.control.certificates import (
    CODE_LIFETIME,
    MAX_CERTIFICATES,
    Certificates,
    challenge_certificate,
    check_authority,
    find_certificate,
    put_certificate,
    remove_certificate,
    verify_certificate,
)
from muster.control.placement import Precondition
from muster.errors import Kind, Problem
from muster.ids import ETag

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
NEW = Precondition()
ANY = ETag("*")


def put(before: Certificates, der: bytes, **changes: Any) -> Certificates:
    """Upload as `ca`, unverified and new, but for *changes*."""
    options: dict[str, Any] = {"verified": None, "precondition": NEW, "now": NOW, "name": "ca"}
    options |= changes
    return put_certificate(before, options.pop("name"), der, **options)


def kind_of(call: Any, *args: Any, **kwargs: Any) -> Kind:
    """Return why *call* is refused."""
    with pytest.raises(Problem) as caught:
        call(*args, **kwargs)
    return caught.value.kind


def test_only_a_ca_certificate_is_taken(make_authority: Any) -> None:
    """A leaf signs nothing, and what has expired authenticates nothing."""
    check_authority(make_authority().der, now=NOW)
    for bad in (make_authority(ca=None), make_authority(ca=False)):
        assert kind_of(check_authority, bad.der, now=NOW) is Kind.MALFORMED
    expired = make_authority(days=30)
    assert kind_of(check_authority, expired.der, now=NOW + timedelta(days=40)) is Kind.MALFORMED
    # A successor is made known before it is used.
    check_authority(make_authority().der, now=NOW - timedelta(days=10))


def test_an_upload_is_unverified_unless_it_says_otherwise(make_authority: Any) -> None:
    """Refuse by default."""
    der = make_authority().der
    assert not put((), der)[0].is_verified
    assert not put((), der, verified=False)[0].is_verified
    assert put((), der, verified=True)[0].is_verified


def test_replacing_takes_the_version(make_authority: Any) -> None:
    """Two administrators cannot overwrite each other; repeating oneself is harmless."""
    first, second = make_authority().der, make_authority().der
    before = put((), first, verified=True)
    assert put(before, first) == before
    assert put(before, first, verified=True) == before
    assert kind_of(put, before, second) is Kind.PRECONDITION_FAILED
    assert kind_of(put, before, first, verified=False) is Kind.PRECONDITION_FAILED
    stale = Precondition(if_match=ETag("old"))
    assert kind_of(put, before, second, precondition=stale) is Kind.PRECONDITION_FAILED
    assert kind_of(put, (), second, precondition=stale) is Kind.PRECONDITION_FAILED
    must_be_new = Precondition(must_be_new=True)
    assert kind_of(put, before, first, precondition=must_be_new) is Kind.PRECONDITION_FAILED
    (after,) = put(before, second, precondition=Precondition(if_match=before[0].etag), name="CA")
    assert after.der == second
    assert after.name == "ca"
    assert after.etag != before[0].etag
    assert after.created == before[0].created


def test_other_bytes_lose_the_trust(make_authority: Any) -> None:
    """What one certificate proved says nothing of another of the same name."""
    first, second = make_authority().der, make_authority().der
    before = put((), first, verified=True)
    before = challenge_certificate(before, "ca", ANY, now=NOW)
    (after,) = put(before, second, precondition=Precondition(if_match=ANY))
    assert not after.is_verified
    assert after.verification_code is None
    (same,) = put(before, first, precondition=Precondition(if_match=ANY))
    assert same.is_verified


def test_there_is_a_limit(make_authority: Any) -> None:
    """Each one may have to be tried for each device."""
    der = make_authority().der
    certificates: Certificates = ()
    for number in range(MAX_CERTIFICATES):
        certificates = put(certificates, der, name=f"ca{number}")
    assert kind_of(put, certificates, der, name="more") is Kind.CONFLICT


def test_the_key_is_proved_with_a_code(make_authority: Any) -> None:
    """A certificate with the code for its name, signed by the CA, makes the CA trusted, once."""
    authority = make_authority()
    asked = challenge_certificate(put((), authority.der), "CA", ANY, now=NOW)
    code = asked[0].verification_code
    assert code is not None
    assert len(code) == 48
    proof = authority.prove(code)
    done = verify_certificate(asked, "ca", proof, asked[0].etag, now=NOW)
    assert done[0].is_verified
    assert done[0].verification_code is None
    assert kind_of(verify_certificate, done, "ca", proof, ANY, now=NOW) is Kind.MALFORMED


def test_a_new_code_replaces_the_old_one(make_authority: Any) -> None:
    """And the entity tag changes with each."""
    authority = make_authority()
    first = challenge_certificate(put((), authority.der), "ca", ANY, now=NOW)
    second = challenge_certificate(first, "ca", first[0].etag, now=NOW)
    assert first[0].verification_code != second[0].verification_code
    assert kind_of(challenge_certificate, second, "ca", first[0].etag, now=NOW) is (
        Kind.PRECONDITION_FAILED
    )
    old = authority.prove(first[0].verification_code)
    assert kind_of(verify_certificate, second, "ca", old, ANY, now=NOW) is Kind.MALFORMED


def test_what_does_not_prove_it_is_refused(make_authority: Any) -> None:
    """Another name, two names, another key under the same name, an expired proof, a late one."""
    authority, impostor = make_authority(), make_authority()
    asked = challenge_certificate(put((), authority.der), "ca", ANY, now=NOW)
    code = asked[0].verification_code
    for proof in (
        authority.prove("another"),
        authority.prove(code.lower()),
        authority.prove(code, "device-1"),
        authority.prove(),
        impostor.prove(code),
        authority.prove(code, days=0),
        authority.der,
    ):
        assert kind_of(verify_certificate, asked, "ca", proof, ANY, now=NOW) is Kind.MALFORMED
    good = authority.prove(code)
    late = NOW + CODE_LIFETIME
    assert kind_of(verify_certificate, asked, "ca", good, ANY, now=late) is Kind.MALFORMED
    assert kind_of(verify_certificate, asked, "ca", good, ETag("x"), now=NOW) is (
        Kind.PRECONDITION_FAILED
    )
    assert kind_of(verify_certificate, asked, "no", good, ANY, now=NOW) is Kind.NOT_FOUND
    unasked = put((), authority.der)
    assert kind_of(verify_certificate, unasked, "ca", good, ANY, now=NOW) is Kind.MALFORMED


def test_a_code_is_for_one_certificate(make_authority: Any) -> None:
    """A code of one name does not verify another name's, not even for the same CA."""
    authority = make_authority()
    both = put(put((), authority.der, name="a"), authority.der, name="b")
    both = challenge_certificate(both, "a", ANY, now=NOW)
    both = challenge_certificate(both, "b", ANY, now=NOW)
    proof = authority.prove(find_certificate(both, "a").verification_code)
    assert kind_of(verify_certificate, both, "b", proof, ANY, now=NOW) is Kind.MALFORMED


def test_removing_takes_the_version_too(make_authority: Any) -> None:
    """As every change does."""
    before = put(put((), make_authority().der, name="a"), make_authority().der, name="b")
    assert kind_of(remove_certificate, before, "a", ETag("x")) is Kind.PRECONDITION_FAILED
    assert kind_of(remove_certificate, before, "c", ANY) is Kind.NOT_FOUND
    assert [entry.name for entry in remove_certificate(before, "A", ANY)] == ["b"]
