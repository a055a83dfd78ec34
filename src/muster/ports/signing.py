"""What the CA needs of a keystore: keys that sign and never come out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from muster.model.authority import Hashing, KeyType


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """A new key's name in the keystore, and its public half (DER SubjectPublicKeyInfo)."""

    key_id: str
    public_key: bytes


class Signer(Protocol):
    """A keystore.

    Both methods raise `Problem(UNAVAILABLE)` when the key, the token or the disk is not there.
    There is no second place to look for a key: a signature that cannot be made is not made.
    """

    async def create_key(self, key_type: KeyType) -> CreatedKey:
        """Make a key of that type. It is durable when this returns."""
        ...

    async def sign(self, key_id: str, data: bytes, hashing: Hashing) -> bytes:
        """Return the signature over *data*: RSASSA-PKCS1-v1_5, or ECDSA as X.509 encodes it.

        The same data may be signed again after a crash. A keystore that can makes the same
        signature then (RSA always, ECDSA by RFC 6979).
        """
        ...
