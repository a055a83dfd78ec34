"""Judge the access tokens that callers bring.

Rules (RFC 8725):

1. The algorithm is ours to choose, never the token's: RS256, with a public key of our own.
2. Keys come from this server's memory. `jku`, `x5u`, `x5c` and `jwk` are not looked at.
3. Issuer, audience, tenant, subject and expiry are required and compared exactly.
4. A token says who calls. What the caller may do is read from stored state on each call, so
   a role taken away or a caller disabled counts at once, whatever an older token says.
5. A token that was verified is remembered by its SHA-256 and verified no second time while its
   key is one of ours: clients send the same one for an hour. Time is judged on each call. A
   refused token leaves nothing behind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from muster.clock import Clock
from muster.errors import Kind, Problem
from muster.identity.claims import check_times
from muster.identity.signing_keys import ALGORITHM
from muster.model.principal import Principal
from muster.ports.identity import PrincipalReader

# Ours have about 1,100 characters. Checked before anything is decoded.
MAX_TOKEN_LENGTH = 16_384
_REQUIRED = ["exp", "iss", "aud", "oid", "tid"]
# Verified tokens that are remembered, about 1 KiB each: one for each caller and wire of a busy
# installation. Beyond it the oldest is forgotten, which costs one verification.
MAX_REMEMBERED = 4096
# What is left to be judged on each call.
_JUDGED = ("exp", "nbf", "oid", "tid")


class VerificationKeys(Protocol):
    """Public keys by name."""

    def public_key(self, kid: str) -> rsa.RSAPublicKey | None:
        """Return the public key called *kid*."""
        ...


@dataclass(frozen=True, slots=True)
class _Verified:
    """What a token says whose signature, issuer and audience are good."""

    kid: str
    key: rsa.RSAPublicKey
    claims: Mapping[str, Any]


class TokenValidator:
    """Turns an access token of our own issuer into the caller it speaks of."""

    def __init__(
        self,
        keys: VerificationKeys,
        principals: PrincipalReader,
        clock: Clock,
        *,
        issuer: str,
        tenant_id: str,
    ) -> None:
        self._keys = keys
        self._principals = principals
        self._clock = clock
        self._issuer = issuer
        self._tenant_id = tenant_id
        self._remembered: dict[tuple[bytes, frozenset[str]], _Verified] = {}

    async def validate(self, token: str, audiences: Collection[str]) -> Principal:
        """Return the caller of *token*, which must be for one of *audiences*, with its roles.

        Does not check what the caller may do: see `authorization.authorize`.

        Raises `Problem(UNAUTHENTICATED)`, with a reason that holds nothing of the token.
        """
        claims = self._verified_claims(token, frozenset(audiences))
        check_times(claims, self._clock.now())
        object_id = claims["oid"]
        if claims["tid"] != self._tenant_id or not isinstance(object_id, str):
            raise _refused("the token is for another tenant")
        principal = await self._principals.find_principal(self._tenant_id, object_id)
        if principal is None:
            raise _refused("the token's caller does not exist, or is disabled")
        return principal

    def _verified_claims(self, token: str, audiences: frozenset[str]) -> Mapping[str, Any]:
        if len(token) > MAX_TOKEN_LENGTH:
            raise _refused(f"a token has at most {MAX_TOKEN_LENGTH} characters")
        # A header's text is Latin-1; what else comes is refused when it is decoded.
        digest = hashlib.sha256(token.encode(errors="surrogatepass")).digest()
        known = self._remembered.get((digest, audiences))
        if known is not None and self._keys.public_key(known.kid) is known.key:
            return known.claims
        verified = self._verify(token, audiences)
        # Again at the end, so that the first one is the one verified longest ago.
        self._remembered.pop((digest, audiences), None)
        self._remembered[digest, audiences] = verified
        if len(self._remembered) > MAX_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        return verified.claims

    def _verify(self, token: str, audiences: frozenset[str]) -> _Verified:
        try:
            header = jwt.get_unverified_header(token)
            kid = header.get("kid")
            if not isinstance(kid, str) or (key := self._keys.public_key(kid)) is None:
                raise _refused("the token is not signed by a key of this server")
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                audience=audiences,
                issuer=self._issuer,
                options={
                    "require": _REQUIRED,
                    "strict_aud": False,
                    # Done by check_times, with our own clock.
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except jwt.InvalidAudienceError as error:
            raise _refused("the token is for another audience") from error
        except jwt.InvalidIssuerError as error:
            raise _refused("the token is from another issuer") from error
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            # RecursionError: the header is parsed before its signature, nested as one likes.
            raise _refused("the token is not a valid signed token") from error
        return _Verified(kid, key, {name: claims[name] for name in _JUDGED if name in claims})


def _refused(detail: str) -> Problem:
    return Problem(Kind.UNAUTHENTICATED, detail)
