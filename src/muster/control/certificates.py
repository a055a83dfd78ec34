"""The CA certificates that a hub or a provisioning service is told to trust.

Two ways lead to trust: whoever uploads says so (`isVerified`), or whoever holds the CA's key proves
it, by signing a certificate whose common name is a code that we chose.

Rules:

1. An unverified certificate authenticates nothing.
2. A code is random, belongs to one certificate of one resource, works once and not for ever.
   Uploading other bytes under the name forgets it, and what it proved.
3. Changing what is there takes its entity tag: two administrators cannot overwrite each other.

All of it is pure: tuples in, tuples out; `CertificateManager` loads and stores them.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from muster.certs.chain import common_name, load_chain
from muster.certs.encoding import certificate_der
from muster.clock import Clock
from muster.control.names import check_certificate_name
from muster.control.placement import Precondition
from muster.errors import Kind, Problem
from muster.ids import ETag, new_etag
from muster.model.resource import CaCertificate, ResourceAddress

Certificates = tuple[CaCertificate, ...]

# Each device's chain may have to be tried against every one. 25 is what the public service's
# basic hubs and provisioning services take; a CA and its successor for a dozen plants.
MAX_CERTIFICATES = 25
# The code is signed where the CA's key is, which for an offline root takes an appointment.
CODE_LIFETIME = timedelta(days=7)
# 192 bits: 48 characters, as the public service's codes have, and under the 64 of a common name.
_CODE_BYTES = 24


def check_authority(der: bytes, *, now: datetime) -> None:
    """Raise `Problem(MALFORMED)` unless *der* is a CA certificate that has not expired.

    One that is not valid yet may be uploaded: a successor is made known before it is used.
    """
    (certificate,) = load_chain([der])
    if certificate.not_valid_after_utc < now:
        raise Problem(Kind.MALFORMED, "the certificate has expired")
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        constraints = None
    if constraints is None or not constraints.value.ca:
        raise Problem(
            Kind.MALFORMED, "the certificate is not a CA's: its basic constraints do not say CA"
        )


def find_certificate(certificates: Certificates, name: str) -> CaCertificate:
    """Return the certificate of that name, compared without case; raises `Problem(NOT_FOUND)`."""
    found = _find(certificates, name)
    if found is None:
        raise Problem(Kind.NOT_FOUND, f"there is no certificate {name!r}")
    return found


def put_certificate(
    certificates: Certificates,
    name: str,
    der: bytes,
    *,
    verified: bool | None,
    precondition: Precondition,
    now: datetime,
) -> Certificates:
    """Add the certificate, or put it in the place of the one of that name.

    *verified* None leaves a certificate of the same bytes as verified as it was. Repeating
    what is there changes nothing, and needs no entity tag.

    Raises `Problem(MALFORMED)` for the name or the certificate, `Problem(PRECONDITION_FAILED)`
    when there is one and *precondition* does not name its version, `Problem(CONFLICT)` when
    there are too many.
    """
    check_certificate_name(name)
    check_authority(der, now=now)
    before = _find(certificates, name)
    if before is None:
        if precondition.if_match is not None:
            raise _changed(name, "does not exist")
        if len(certificates) >= MAX_CERTIFICATES:
            raise Problem(Kind.CONFLICT, f"there can be at most {MAX_CERTIFICATES} certificates")
        fresh = CaCertificate(name, der, bool(verified), now, now, new_etag())
        return (*certificates, fresh)
    if precondition.must_be_new:
        raise _changed(name, "exists")
    same = before.der == der
    trusted = before.is_verified and same if verified is None else verified
    if precondition.if_match is None:
        if same and trusted == before.is_verified:
            return certificates
        raise _changed(name, "exists: give its entity tag in If-Match to replace it")
    _check_version(before, precondition.if_match)
    after = replace(
        before,
        der=der,
        is_verified=trusted,
        updated=now,
        etag=new_etag(),
        verification_code=None,
        verification_expires=None,
    )
    return _replaced(certificates, after)


def challenge_certificate(
    certificates: Certificates, name: str, if_match: ETag, *, now: datetime
) -> Certificates:
    """Give the certificate a fresh verification code; an older one stops working."""
    before = find_certificate(certificates, name)
    _check_version(before, if_match)
    after = replace(
        before,
        updated=now,
        etag=new_etag(),
        verification_code=secrets.token_hex(_CODE_BYTES).upper(),
        verification_expires=now + CODE_LIFETIME,
    )
    return _replaced(certificates, after)


def verify_certificate(
    certificates: Certificates, name: str, proof: bytes, if_match: ETag, *, now: datetime
) -> Certificates:
    """Make the certificate a verified one, because *proof* shows that its key is held.

    *proof* is a DER certificate, valid at *now*, whose one common name is the code and which
    the certificate's key signed.

    Raises `Problem(MALFORMED)` when it is not, or no code is waiting;
    `Problem(PRECONDITION_FAILED)`; `Problem(NOT_FOUND)`.
    """
    before = find_certificate(certificates, name)
    _check_version(before, if_match)
    code, expires = before.verification_code, before.verification_expires
    if code is None or expires is None or expires <= now:
        raise Problem(
            Kind.MALFORMED, "no verification code is waiting: generate one and have it signed"
        )
    _check_proof(before.der, proof, code, now)
    after = replace(
        before,
        is_verified=True,
        updated=now,
        etag=new_etag(),
        verification_code=None,
        verification_expires=None,
    )
    return _replaced(certificates, after)


def remove_certificate(certificates: Certificates, name: str, if_match: ETag) -> Certificates:
    """Forget the certificate: from the next check on nothing is authenticated with it."""
    before = find_certificate(certificates, name)
    _check_version(before, if_match)
    return tuple(entry for entry in certificates if entry is not before)


class CertificateHolder(Protocol):
    """What has certificates: hubs, or provisioning services."""

    async def certificates(self, address: ResourceAddress) -> Certificates:
        """Return those of the resource at *address*; raises `Problem(NOT_FOUND)`."""
        ...

    async def change_certificates(
        self,
        address: ResourceAddress,
        change: Callable[[Certificates], Certificates],
        *,
        action: str,
        certificate: str,
        by: str,
    ) -> Certificates:
        """Store what *change* makes of them, audited as *action*; return that."""
        ...


class CertificateManager:
    """Changes the certificates of one kind of resource. The caller has authorised *by*."""

    def __init__(self, holder: CertificateHolder, clock: Clock) -> None:
        self._holder = holder
        self._clock = clock

    async def list(self, address: ResourceAddress) -> Certificates:
        """Return every certificate of the resource; raises `Problem(NOT_FOUND)`."""
        return await self._holder.certificates(address)

    async def get(self, address: ResourceAddress, name: str) -> CaCertificate:
        """Return one; raises `Problem(NOT_FOUND)`."""
        return find_certificate(await self._holder.certificates(address), name)

    async def put(
        self,
        address: ResourceAddress,
        name: str,
        text: str,
        *,
        verified: bool | None,
        precondition: Precondition,
        by: str,
    ) -> tuple[CaCertificate, bool]:
        """Store the certificate in *text* (`certificate_der`); return it and if it is new."""
        der = certificate_der(text)
        now = self._clock.now()
        new = False

        def change(before: Certificates) -> Certificates:
            nonlocal new
            new = _find(before, name) is None
            return put_certificate(
                before, name, der, verified=verified, precondition=precondition, now=now
            )

        after = await self._change(address, name, change, "certificate.upload", by)
        return find_certificate(after, name), new

    async def challenge(
        self, address: ResourceAddress, name: str, if_match: ETag, *, by: str
    ) -> CaCertificate:
        """Return the certificate with a fresh verification code."""
        now = self._clock.now()
        after = await self._change(
            address,
            name,
            lambda before: challenge_certificate(before, name, if_match, now=now),
            "certificate.challenge",
            by,
        )
        return find_certificate(after, name)

    async def verify(
        self, address: ResourceAddress, name: str, text: str, if_match: ETag, *, by: str
    ) -> CaCertificate:
        """Return the certificate, verified by the proof in *text*."""
        proof = certificate_der(text)
        now = self._clock.now()
        after = await self._change(
            address,
            name,
            lambda before: verify_certificate(before, name, proof, if_match, now=now),
            "certificate.verify",
            by,
        )
        return find_certificate(after, name)

    async def delete(self, address: ResourceAddress, name: str, if_match: ETag, *, by: str) -> None:
        """Forget the certificate; raises `Problem(NOT_FOUND)` when there is none."""
        await self._change(
            address,
            name,
            lambda before: remove_certificate(before, name, if_match),
            "certificate.delete",
            by,
        )

    def _change(
        self,
        address: ResourceAddress,
        name: str,
        change: Callable[[Certificates], Certificates],
        action: str,
        by: str,
    ) -> Awaitable[Certificates]:
        return self._holder.change_certificates(
            address, change, action=action, certificate=name, by=by
        )


def _find(certificates: Certificates, name: str) -> CaCertificate | None:
    folded = name.lower()
    return next((entry for entry in certificates if entry.name.lower() == folded), None)


def _replaced(certificates: Certificates, after: CaCertificate) -> Certificates:
    return tuple(after if entry.name == after.name else entry for entry in certificates)


def _check_version(certificate: CaCertificate, if_match: ETag) -> None:
    if not if_match.matches_any and certificate.etag != if_match:
        raise _changed(certificate.name, "has another entity tag than If-Match says")


def _changed(name: str, how: str) -> Problem:
    return Problem(Kind.PRECONDITION_FAILED, f"the certificate {name!r} {how}")


def _check_proof(authority: bytes, proof: bytes, code: str, now: datetime) -> None:
    (issuer,) = load_chain([authority])
    (leaf,) = load_chain([proof])
    try:
        name = common_name(leaf)
    except Problem as problem:
        raise Problem(Kind.MALFORMED, problem.detail) from problem
    if not hmac.compare_digest(name.encode(), code.encode()):
        raise Problem(
            Kind.MALFORMED,
            "the verification certificate's common name is not the verification code",
        )
    if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
        raise Problem(
            Kind.MALFORMED, "the verification certificate has expired or is not valid yet"
        )
    try:
        leaf.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError) as error:
        raise Problem(
            Kind.MALFORMED, "the verification certificate was not signed by this CA certificate"
        ) from error
