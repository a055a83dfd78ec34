"""The keys that sign this server's tokens.

Rules:

1. RS256 with RSA of 2048 bits: the one algorithm that every client of these services verifies.
2. A key is called by its RFC 7638 thumbprint, so a `kid` names key material and nothing else:
   it is looked up among our own keys, and never used as a path, a URL or a query.
3. The newest key signs. The others verify what they signed, and go once that has expired.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from muster.clock import Clock
from muster.errors import Kind, Problem
from muster.ports.identity import SigningKeyRecord, SigningKeyStore

ALGORITHM = "RS256"
_BITS = 2048
# A token lives an hour and a few minutes of leeway; after two, nothing a key signed is valid.
RETIRED_KEPT = timedelta(hours=2)


@dataclass(frozen=True, slots=True)
class _Key:
    kid: str
    private: rsa.RSAPrivateKey
    public: rsa.RSAPublicKey
    jwk: dict[str, str]
    record: SigningKeyRecord


class SigningKeys:
    """Signs with the newest key, knows the public half of all."""

    def __init__(self, store: SigningKeyStore, clock: Clock, keys: list[_Key]) -> None:
        self._store = store
        self._clock = clock
        self._keys = keys

    @classmethod
    async def load(cls, store: SigningKeyStore, clock: Clock) -> Self:
        """Return the keys that *store* holds; makes the first one.

        Raises `Problem(UNAVAILABLE)` when a stored key is not an RSA key of this strength: a
        damaged store must not be papered over with a new key.
        """
        keys = [_parse(record) for record in await store.load_keys()]
        signing = cls(store, clock, keys)
        if not keys:
            await signing.rotate()
        return signing

    @property
    def kid(self) -> str:
        """The name of the key that signs now."""
        return self._keys[-1].kid

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return *claims* as a signed token in compact form."""
        key = self._keys[-1]
        # x5t repeats the kid: Azure's v1.0 tokens have both, and some readers look at either.
        headers = {"kid": key.kid, "x5t": key.kid}
        return jwt.encode(dict(claims), key.private, algorithm=ALGORITHM, headers=headers)

    def public_key(self, kid: str) -> rsa.RSAPublicKey | None:
        """Return the public half of our key *kid*."""
        return next((key.public for key in self._keys if key.kid == kid), None)

    def jwks(self) -> dict[str, Any]:
        """Return the public halves as a JSON Web Key Set (RFC 7517 section 5), newest first."""
        return {"keys": [key.jwk for key in reversed(self._keys)]}

    async def rotate(self) -> str:
        """Sign with a new key from now on; return its name. Forgets keys long retired."""
        now = self._clock.now()
        # Finding the primes takes some 100 ms: not on the event loop.
        private = await asyncio.to_thread(rsa.generate_private_key, 65537, _BITS)
        der = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        record = SigningKeyRecord(created=now, private_key=der)
        await self._store.add_key(record)
        kept, gone = _split(self._keys, now)
        # Replaced, not changed: sign() may be running in another task's frame.
        self._keys = [*kept, _parse(record)]
        for key in gone:
            await self._store.delete_key(key.record)
        return self.kid


def _split(keys: list[_Key], now: datetime) -> tuple[list[_Key], list[_Key]]:
    """Part *keys* into those that may still have live tokens at *now*, and the rest."""
    kept: list[_Key] = []
    gone: list[_Key] = []
    for place, key in enumerate(keys):
        # A key retired when its successor was made; the last retires this moment.
        retired = keys[place + 1].record.created if place + 1 < len(keys) else now
        (kept if now - retired < RETIRED_KEPT else gone).append(key)
    return kept, gone


def _parse(record: SigningKeyRecord) -> _Key:
    try:
        private = load_der_private_key(record.private_key, password=None)
    except (ValueError, TypeError) as error:
        raise Problem(Kind.UNAVAILABLE, "a stored token-signing key cannot be read") from error
    if not isinstance(private, rsa.RSAPrivateKey) or private.key_size < _BITS:
        raise Problem(Kind.UNAVAILABLE, f"a stored token-signing key is not RSA of {_BITS} bits")
    public = private.public_key()
    numbers = public.public_numbers()
    members = {"e": _base64url_uint(numbers.e), "kty": "RSA", "n": _base64url_uint(numbers.n)}
    # RFC 7638 section 3: the required members, sorted, without white space.
    canonical = json.dumps(members, separators=(",", ":"), sort_keys=True).encode()
    kid = _base64url(hashlib.sha256(canonical).digest())
    jwk = {**members, "kid": kid, "x5t": kid, "use": "sig", "alg": ALGORITHM}
    return _Key(kid, private, public, jwk, record)


def _base64url_uint(value: int) -> str:
    return _base64url(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
