"""Private keys that sign nothing: they let the X.509 builder lay out what a real key will sign.

The builder wants a key of the issuer's kind and calls its `sign`. These answer with zeros of a
plausible length, so the bytes to be signed come out and no secret was near.
"""

from __future__ import annotations

from typing import Any, NoReturn

from cryptography.hazmat.primitives.asymmetric import ec, rsa


def placeholder_key(
    public_key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    """Return a stand-in for the private half of *public_key*."""
    if isinstance(public_key, rsa.RSAPublicKey):
        return _PlaceholderRsaKey(public_key)
    return _PlaceholderEcKey(public_key)


def _nothing_inside(*_: Any, **__: Any) -> NoReturn:
    raise TypeError("a placeholder holds no private key")


class _PlaceholderRsaKey(rsa.RSAPrivateKey):
    def __init__(self, public_key: rsa.RSAPublicKey) -> None:
        self._public_key = public_key

    @property
    def key_size(self) -> int:
        return self._public_key.key_size

    def public_key(self) -> rsa.RSAPublicKey:
        return self._public_key

    def sign(self, data: Any, padding: Any, algorithm: Any) -> bytes:  # noqa: ARG002
        return bytes((self.key_size + 7) // 8)

    decrypt = private_numbers = private_bytes = _nothing_inside
    __copy__ = __deepcopy__ = _nothing_inside


class _PlaceholderEcKey(ec.EllipticCurvePrivateKey):
    def __init__(self, public_key: ec.EllipticCurvePublicKey) -> None:
        self._public_key = public_key

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._public_key.curve

    @property
    def key_size(self) -> int:
        return self._public_key.key_size

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._public_key

    def sign(self, data: Any, signature_algorithm: Any) -> bytes:  # noqa: ARG002
        return bytes(8)

    exchange = private_numbers = private_bytes = _nothing_inside
    __copy__ = __deepcopy__ = _nothing_inside
