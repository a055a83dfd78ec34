"""Signing keys: made once, named by their material, rotated without losing live tokens."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from muster.errors import Kind, Problem
from muster.identity.signing_keys import SigningKeys
from muster.ports.identity import SigningKeyRecord

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


async def test_the_first_key_is_kept_and_used_again(service: Any) -> None:
    """A restart signs with the key that the first start made."""
    again = await SigningKeys.load(service.key_store, service.clock)
    assert again.kid == service.keys.kid
    assert len(service.key_store.records) == 1


async def test_a_client_verifies_with_the_key_set(service: Any) -> None:
    """What PyJWT builds from our JWKS verifies what we sign, found by kid."""
    token = service.keys.sign({"hello": "world"})
    key_set = jwt.PyJWKSet.from_dict(service.keys.jwks())
    kid = jwt.get_unverified_header(token)["kid"]
    assert jwt.decode(token, key_set[kid].key, algorithms=["RS256"]) == {"hello": "world"}


async def test_the_key_set_holds_no_private_member(service: Any) -> None:
    """RFC 7518 section 6.3.2: d, p, q, dp, dq and qi stay at home."""
    (key,) = service.keys.jwks()["keys"]
    assert set(key) == {"kty", "use", "alg", "kid", "x5t", "n", "e"}


async def test_rotation_keeps_what_may_still_be_needed(service: Any) -> None:
    """The new key signs at once; the old one verifies until its tokens are gone."""
    first = service.keys.kid
    second = await service.keys.rotate()
    assert service.keys.kid == second != first
    assert service.keys.public_key(first) is not None
    assert [key["kid"] for key in service.keys.jwks()["keys"]] == [second, first]

    service.clock.turn(hours=3)
    third = await service.keys.rotate()
    # The first was retired three hours ago, the second this moment.
    assert [key["kid"] for key in service.keys.jwks()["keys"]] == [third, second]
    assert len(service.key_store.records) == 2


@pytest.mark.parametrize("private_key", [b"", b"garbage", "ec"])
async def test_a_damaged_store_is_not_papered_over(service: Any, private_key: bytes | str) -> None:
    """A key that cannot be used stops the start, rather than being replaced in silence."""
    if isinstance(private_key, str):
        key = ec.generate_private_key(ec.SECP256R1())
        private_key = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    service.key_store.records = [SigningKeyRecord(NOW, private_key)]
    with pytest.raises(Problem) as caught:
        await SigningKeys.load(service.key_store, service.clock)
    assert caught.value.kind is Kind.UNAVAILABLE
