"""Which keys count, for those we certify and those we verify with."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import (
    dsa,
    ec,
    ed448,
    ed25519,
    mldsa,
    rsa,
    x25519,
)

from muster.certs.keys import flaw_of

MODULUS = rsa.generate_private_key(65537, 3072).public_key().public_numbers().n


def with_exponent(exponent: int) -> rsa.RSAPublicKey:
    """Return an RSA-3072 public key with that exponent; nobody needs its private half."""
    return rsa.RSAPublicNumbers(exponent, MODULUS).public_key()


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 2048).public_key(),
        with_exponent(65537),
        with_exponent(2**32 + 1),
        with_exponent(2**33 - 1),
        rsa.generate_private_key(65537, 4096).public_key(),
        ec.generate_private_key(ec.SECP256R1()).public_key(),
        ec.generate_private_key(ec.SECP384R1()).public_key(),
        ec.generate_private_key(ec.SECP521R1()).public_key(),
        ed25519.Ed25519PrivateKey.generate().public_key(),
        mldsa.MLDSA44PrivateKey.generate().public_key(),
        mldsa.MLDSA65PrivateKey.generate().public_key(),
        mldsa.MLDSA87PrivateKey.generate().public_key(),
    ],
)
def test_usual_keys_have_no_flaw(key) -> None:
    """What devices and their CAs have, up to the bounds themselves."""
    assert flaw_of(key) is None


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (rsa.generate_private_key(65537, 1024).public_key(), "1024 bits"),
        (rsa.RSAPublicNumbers(65537, (MODULUS << 1025) | 1).public_key(), "4097 bits"),
        (with_exponent(3), "exponent"),
        (with_exponent(17), "exponent"),
        (with_exponent(65535), "exponent"),
        (with_exponent(2**33 + 1), "exponent"),
        (with_exponent(MODULUS - 2), "exponent"),
        (ec.generate_private_key(ec.SECP256K1()).public_key(), "curve"),
        (ed448.Ed448PrivateKey.generate().public_key(), "unsupported kind"),
        (dsa.generate_private_key(2048).public_key(), "unsupported kind"),
        (x25519.X25519PrivateKey.generate().public_key(), "unsupported kind"),
        (None, "unsupported kind"),
    ],
)
def test_other_keys_are_named_with_their_flaw(key, words) -> None:
    """Too short, too long, an exponent that is unsafe or slow, an odd curve or algorithm."""
    assert words in (flaw_of(key) or "")
