"""Which device a certificate speaks for."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import pytest

from muster.certs.identity import (
    check_validity,
    matches_thumbprint,
    sha1_thumbprint,
    sha256_thumbprint,
    verify_device_identity,
)
from muster.errors import Kind, Problem
from muster.ids import DeviceId, Thumbprint


def test_thumbprints_are_whole_upper_case_digests(root) -> None:
    """Both lengths parse back as themselves."""
    assert sha1_thumbprint(root.der) == hashlib.sha1(root.der).hexdigest().upper()
    assert sha256_thumbprint(root.der) == hashlib.sha256(root.der).hexdigest().upper()
    assert Thumbprint.parse(sha256_thumbprint(root.der)) == sha256_thumbprint(root.der)


def test_only_the_whole_digest_matches(root) -> None:
    """A prefix, or a digest with one digit changed, is another certificate's."""
    for whole in (sha1_thumbprint(root.der), sha256_thumbprint(root.der)):
        assert matches_thumbprint(root.der, whole)
        last = "0" if whole[-1] != "0" else "1"
        for wrong in (whole[:-1] + last, whole[:20], ""):
            assert not matches_thumbprint(root.der, Thumbprint(wrong))


def test_common_name_must_equal_the_device_id(make, root, now) -> None:
    """Exactly: another case, a prefix or a wildcard is another device."""
    leaf = make("Device-1", root).certificate
    verify_device_identity(leaf, DeviceId("Device-1"), now=now)
    for other in ("device-1", "Device-10", "Device-", "*"):
        with pytest.raises(Problem) as caught:
            verify_device_identity(leaf, DeviceId(other), now=now)
        assert caught.value.kind is Kind.FORBIDDEN


def test_wildcard_in_the_certificate_means_nothing(make, root, now) -> None:
    """A certificate for `*` is for the device called `*`."""
    with pytest.raises(Problem):
        verify_device_identity(make("*", root).certificate, DeviceId("device"), now=now)


def test_identity_includes_validity(make, root, now) -> None:
    """An expired certificate of the right name speaks for nobody."""
    leaf = make("device", root).certificate
    check_validity(leaf, leaf.not_valid_after_utc)
    for moment in (
        leaf.not_valid_before_utc - timedelta(seconds=1),
        leaf.not_valid_after_utc + timedelta(seconds=1),
    ):
        with pytest.raises(Problem) as caught:
            verify_device_identity(leaf, DeviceId("device"), now=moment)
        assert caught.value.kind is Kind.UNAUTHENTICATED


def test_length_of_a_thumbprint_chooses_the_digest(root) -> None:
    """Forty digits are never taken for the beginning of SHA-256, nor sixty-four for SHA-1 and more.

    That SHA-1 admits at all is docs/decisions/0014.
    """
    short, long = sha1_thumbprint(root.der), sha256_thumbprint(root.der)
    assert not matches_thumbprint(root.der, Thumbprint(long[:40]))
    assert not matches_thumbprint(root.der, Thumbprint(short + long[40:]))
