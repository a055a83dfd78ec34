"""Decide what a certificate will say. A request may narrow a template, never widen it.

Rules for a leaf:

1. The subject is one common name; the caller has shown that it and every alternative name may be
   had. The alternative names are those of the request and those of the CSR, nothing else, the one
   that equals the common name first: the C# provisioning client takes its registration id from
   the first dNSName. When neither asks for any, the common name is the only one.
2. Usages are the request's, else the CSR's, else the template's. One that the template does not
   allow refuses the request, wherever it was asked for; so does asking to be a CA.
3. A key that is not RSA is never given encipherment bits, which mean nothing for it (RFC 8813),
   although every client asks for them by default.
4. The lifetime is the whole number of days asked for, and a little more at the front: clocks of
   small devices are slow, and clients renew with the lifetime in days, rounded down, so that one
   second less would lose a day at each renewal. It never reaches past the issuer's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from muster.certs.csr import SigningRequest
from muster.certs.names import (
    MAX_NAMES,
    AlternativeName,
    agreed_common_name,
    alternative_name,
    parse_title,
)
from muster.certs.usages import CLIENT_AUTH, SERVER_AUTH, KeyUse
from muster.errors import Kind, Problem

# A certificate is dated this far back, for devices whose clocks are slow. More would let a
# certificate seem to have been there before its device was.
BACKDATE = timedelta(minutes=5)
# A CA outlives its people's attention long before this; RFC 5280 dates end in 9999.
MAX_CA_DAYS = 50 * 366

ProfileKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
_ENCIPHERMENT = frozenset({KeyUse.KEY_ENCIPHERMENT, KeyUse.DATA_ENCIPHERMENT})


@dataclass(frozen=True, slots=True)
class TemplateRules:
    """The most that a template allows, and what it gives to those who do not ask."""

    max_days: int
    ekus: tuple[str, ...] = (CLIENT_AUTH, SERVER_AUTH)
    key_uses: frozenset[KeyUse] = frozenset(
        {
            KeyUse.DIGITAL_SIGNATURE,
            KeyUse.KEY_ENCIPHERMENT,
            KeyUse.DATA_ENCIPHERMENT,
            KeyUse.KEY_AGREEMENT,
            KeyUse.NON_REPUDIATION,
        }
    )
    default_key_uses: frozenset[KeyUse] = frozenset(
        {KeyUse.DIGITAL_SIGNATURE, KeyUse.KEY_ENCIPHERMENT}
    )


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the caller asks for beside the CSR. Empty usages leave the choice to the CSR."""

    days: int
    subject_name: str | None = None
    names: tuple[AlternativeName, ...] = ()
    ekus: tuple[str, ...] = ()
    key_uses: frozenset[KeyUse] = frozenset()


@dataclass(frozen=True, slots=True)
class CertificateProfile:
    """All that a certificate will say, but for its serial and its issuer."""

    subject: x509.Name
    public_key: ProfileKey = field(repr=False)
    not_before: datetime
    not_after: datetime
    key_uses: frozenset[KeyUse]
    ekus: tuple[str, ...] = ()
    names: tuple[AlternativeName, ...] = ()
    is_ca: bool = False
    path_length: int | None = None


def asked_names(request: SigningRequest, wishes: Wishes) -> tuple[str, tuple[AlternativeName, ...]]:
    """Return the common name and the alternative names asked for, by rule 1.

    These are what the caller must be entitled to, each and all.
    Raises `Problem(MALFORMED)` when subject and CSR disagree or there are too many.
    """
    common_name = agreed_common_name(request.subject, wishes.subject_name)
    names = tuple(dict.fromkeys((*wishes.names, *request.names)))
    if len(names) > MAX_NAMES:
        raise Problem(Kind.MALFORMED, f"a certificate has at most {MAX_NAMES} alternative names")
    own = alternative_name(common_name)
    if not names:
        return common_name, (own,)
    if own in names:
        names = (own, *(name for name in names if name != own))
    return common_name, names


def leaf_profile(
    rules: TemplateRules,
    request: SigningRequest,
    wishes: Wishes,
    issuer: x509.Certificate,
    *,
    now: datetime,
) -> CertificateProfile:
    """Return what the certificate for *request* will say.

    Does not check that the caller may have the names (see `ca.requests`), nor that *issuer* is
    still trusted.

    Raises `Problem(FORBIDDEN)` for what the template does not allow, `Problem(MALFORMED)` for
    names and lifetimes that cannot be.
    """
    common_name, names = asked_names(request, wishes)
    if request.asks_to_be_ca:
        raise Problem(Kind.FORBIDDEN, "the CSR asks to be a CA, which the template does not allow")
    not_before, not_after = _lifetime(rules, wishes.days, issuer, now)
    return CertificateProfile(
        subject=_common_name_only(common_name),
        public_key=request.public_key,
        not_before=not_before,
        not_after=not_after,
        key_uses=_key_uses(rules, request, wishes),
        ekus=_ekus(rules, request, wishes),
        names=names,
    )


def authority_profile(
    common_name: str,
    public_key: ProfileKey,
    *,
    days: int,
    path_length: int | None,
    issuer: x509.Certificate | None,
    now: datetime,
) -> CertificateProfile:
    """Return what a CA's certificate will say; without an *issuer* it is a root.

    Raises `Problem(MALFORMED)` for a name or a lifetime that cannot be, `Problem(FORBIDDEN)` for
    one that reaches past the issuer's.
    """
    if not 1 <= days <= MAX_CA_DAYS:
        raise Problem(Kind.MALFORMED, f"a CA is valid for 1 to {MAX_CA_DAYS} days, not {days}")
    start = now.astimezone(UTC).replace(microsecond=0)
    not_before, not_after = start - BACKDATE, start + timedelta(days=days)
    if issuer is not None:
        not_before = max(not_before, issuer.not_valid_before_utc)
        _check_issuer(issuer, not_after, days, now)
    return CertificateProfile(
        subject=_common_name_only(parse_title(common_name)),
        public_key=public_key,
        not_before=not_before,
        not_after=not_after,
        key_uses=frozenset({KeyUse.CERTIFICATE_SIGN, KeyUse.CRL_SIGN, KeyUse.DIGITAL_SIGNATURE}),
        is_ca=True,
        path_length=path_length,
    )


def _lifetime(
    rules: TemplateRules, days: int, issuer: x509.Certificate, now: datetime
) -> tuple[datetime, datetime]:
    if days < 1:
        raise Problem(Kind.MALFORMED, f"a certificate is valid for at least 1 day, not {days}")
    if days > rules.max_days:
        raise Problem(
            Kind.FORBIDDEN, f"the template allows at most {rules.max_days} days, not {days}"
        )
    start = now.astimezone(UTC).replace(microsecond=0)
    not_after = start + timedelta(days=days)
    _check_issuer(issuer, not_after, days, now)
    return max(start - BACKDATE, issuer.not_valid_before_utc), not_after


def _check_issuer(issuer: x509.Certificate, not_after: datetime, days: int, now: datetime) -> None:
    if now < issuer.not_valid_before_utc:
        raise Problem(Kind.FORBIDDEN, "the CA's certificate is not valid yet")
    if now > issuer.not_valid_after_utc:
        raise Problem(Kind.FORBIDDEN, "the CA's certificate has expired")
    if not_after > issuer.not_valid_after_utc:
        left = (issuer.not_valid_after_utc - now.replace(microsecond=0)).days
        raise Problem(
            Kind.FORBIDDEN,
            f"the CA's own certificate ends in {left} days; it cannot issue for {days}",
        )


def _ekus(rules: TemplateRules, request: SigningRequest, wishes: Wishes) -> tuple[str, ...]:
    asked = {*wishes.ekus, *(request.ekus or ())}
    _refuse_widening("extended key usage", sorted(asked.difference(rules.ekus)), sorted(rules.ekus))
    chosen = set(wishes.ekus) or request.ekus or set(rules.ekus)
    return tuple(usage for usage in rules.ekus if usage in chosen)


def _key_uses(rules: TemplateRules, request: SigningRequest, wishes: Wishes) -> frozenset[KeyUse]:
    asked = wishes.key_uses | (request.key_uses or frozenset())
    _refuse_widening(
        "key usage",
        sorted(use.value for use in asked - rules.key_uses),
        sorted(use.value for use in rules.key_uses),
    )
    chosen = wishes.key_uses or request.key_uses or rules.default_key_uses
    if not isinstance(request.public_key, rsa.RSAPublicKey):
        chosen -= _ENCIPHERMENT
    if isinstance(request.public_key, ed25519.Ed25519PublicKey):
        chosen -= {KeyUse.KEY_AGREEMENT}  # RFC 8410 section 5: Edwards keys only sign
    # Without any bit the extension itself would be invalid (RFC 5280 section 4.2.1.3).
    return chosen or frozenset({KeyUse.DIGITAL_SIGNATURE})


def _refuse_widening(what: str, extra: Sequence[str], allowed: Sequence[str]) -> None:
    if extra:
        raise Problem(
            Kind.FORBIDDEN,
            f"the template does not allow the {what} {', '.join(extra)[:200]};"
            f" it allows {', '.join(allowed)}",
        )


def _common_name_only(value: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, value)])
