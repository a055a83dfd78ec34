"""Judge a client assertion: a token that an application signed to prove that it is itself.

RFC 7523, in the three dialects that clients speak (facts/control-plane.md 2.4): MSAL for Python
(RS256, padded `x5t`, fractions in `exp`, no `nbf`), for Node (PS256, `x5t#S256`, an `nbf` slightly
ahead) and for .NET (PS256, numbers as strings, `x5c` as one string).

Rules:

1. The certificate is one that was registered for this application, found by its thumbprint;
   the key is that certificate's. SHA-1 only finds it: the signature decides. A certificate in
   the header (`x5c`) proves nothing and is not looked at.
2. Issuer and subject are the client id; the audience is a token endpoint or issuer of ours.
3. It lives at most an hour, and counts once for each resource: see `ReplayCache`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from muster.errors import Kind, Problem
from muster.identity.claims import LEEWAY, check_times
from muster.model.principal import Application

_ALGORITHMS = ["RS256", "PS256"]
# A header with x5c of four RSA-4096 certificates has some 11,000 characters.
MAX_ASSERTION_LENGTH = 32_768
# Clients ask for ten minutes. The bound keeps the replay cache bounded in time.
_LONGEST = 3_600.0
_MAX_JTI_LENGTH = 256
# Ten minutes of assertions at 80 a second. Only registered applications get in, 100 bytes each.
_REMEMBERED = 50_000


@dataclass(frozen=True, slots=True)
class VerifiedAssertion:
    """What of an assertion matters once it was found good."""

    client_id: str
    jti: str
    expires: float


def verify_assertion(
    assertion: str, application: Application, audiences: Collection[str], *, now: datetime
) -> VerifiedAssertion:
    """Check that *assertion* was made by *application* for one of *audiences*.

    Does not check whether the application is enabled, nor whether the assertion was used
    before (`ReplayCache`). Raises `Problem(UNAUTHENTICATED)`.
    """
    if len(assertion) > MAX_ASSERTION_LENGTH:
        raise _refused(f"an assertion has at most {MAX_ASSERTION_LENGTH} characters")
    try:
        header = jwt.get_unverified_header(assertion)
        certificate = _registered(header, application)
        _check_validity(certificate, now)
        key = certificate.public_key()
        if not isinstance(key, rsa.RSAPublicKey):
            raise _refused("the registered certificate's key is not RSA")
        claims: dict[str, Any] = jwt.decode(
            assertion,
            key,
            algorithms=_ALGORITHMS,
            audience=list(audiences),
            options={
                "require": ["exp", "iss", "sub", "aud", "jti"],
                # Done by check_times, with our own clock.
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
            },
        )
    except jwt.InvalidAudienceError as error:
        raise _refused("the assertion's audience is not this token endpoint") from error
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise _refused("the assertion is not a valid signed token") from error
    if not claims["iss"] == claims["sub"] == application.client_id:
        raise _refused("the assertion's issuer and subject must be the client id")
    jti = claims["jti"]
    if not isinstance(jti, str) or not 1 <= len(jti) <= _MAX_JTI_LENGTH:
        raise _refused(f"the assertion's jti must be a text of 1 to {_MAX_JTI_LENGTH} characters")
    expires = check_times(claims, now, longest=_LONGEST)
    return VerifiedAssertion(application.client_id, jti, expires)


class ReplayCache:
    """Remembers which assertions were used, until they have expired.

    MSAL for Python reuses one assertion for nine minutes whatever the scope, so an assertion
    counts once *for each resource* rather than once: whoever overheard it gains a token for
    nothing that its owner asked for already. Kept in memory: a restart forgets it.
    """

    def __init__(self, *, capacity: int = _REMEMBERED) -> None:
        self._capacity = capacity
        self._used: dict[bytes, float] = {}

    def use(self, assertion: VerifiedAssertion, audience: str, *, now: datetime) -> None:
        """Note that *assertion* is used for *audience*.

        Raises `Problem(UNAUTHENTICATED)` when it was before; `Problem(THROTTLED)` when too many
        are remembered, because forgetting one early would let it be replayed.
        """
        moment = now.timestamp()
        text = "\0".join((assertion.client_id, assertion.jti, audience.rstrip("/").lower()))
        key = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        if self._used.get(key, 0.0) > moment:
            raise _refused("the assertion was used before")
        if len(self._used) >= self._capacity:
            self._used = {key: until for key, until in self._used.items() if until > moment}
            if len(self._used) >= self._capacity:
                raise Problem(Kind.THROTTLED, "too many assertions are in use", retry_after=60)
        self._used[key] = assertion.expires + LEEWAY


def _registered(header: Mapping[str, Any], application: Application) -> x509.Certificate:
    """Return the application's certificate that *header* names."""
    for member, digest in (("x5t#S256", hashlib.sha256), ("x5t", hashlib.sha1)):
        if member in header:
            named = _thumbprint(header[member], digest().digest_size)
            for entry in application.certificates:
                if digest(entry.der).digest() == named:
                    return x509.load_der_x509_certificate(entry.der)
            break
    raise _refused("the assertion names no certificate registered for this application")


def _thumbprint(value: Any, size: int) -> bytes | None:
    """Return the digest that a thumbprint header spells: base64url, padded or not, or hex."""
    if not isinstance(value, str) or len(value) > 2 * size:
        return None
    try:
        if len(value) == 2 * size:
            return bytes.fromhex(value)
        plain = value.rstrip("=")
        return base64.urlsafe_b64decode(plain + "=" * (-len(plain) % 4))
    except (ValueError, binascii.Error):
        return None


def _check_validity(certificate: x509.Certificate, now: datetime) -> None:
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise _refused("the application's certificate has expired or is not valid yet")


def _refused(detail: str) -> Problem:
    return Problem(Kind.UNAUTHENTICATED, detail)
