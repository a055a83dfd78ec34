"""Decide whether a caller may have the certificate it asks for, and have it issued.

Rules:

1. The CA belongs to the caller's tenant, has the template, and is enabled.
2. Every name in the certificate, the common name and each alternative name, is registered with
   that CA for that template, in exactly that spelling.
3. The caller is a requester of every one of them. Owning a name does not entitle to it.
4. What the certificate will say is within the template (see `certs.profile`).

A refusal for want of entitlement leaves an audit line; so does every certificate.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from muster.ca.authority import Authorities
from muster.ca.issuance import Issuance, Order
from muster.ca.issuers import PublicLocations, parsed_certificate, signing_authority
from muster.certs.chain import shown
from muster.certs.csr import SigningRequest, parse_signing_request
from muster.certs.names import has_invisible
from muster.certs.profile import TemplateRules, Wishes, asked_names, leaf_profile
from muster.clock import Clock
from muster.errors import Kind, Problem
from muster.model.audit import AuditEntry
from muster.model.authority import Authority, Template
from muster.model.domain import Domain
from muster.model.principal import Principal
from muster.ports.authorities import CertificateLedger, DomainStore

# Free text that clients send along for people to read.
_MAX_LABEL = 256


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """What a caller asks for. `location` and `tags` are labels that mean nothing to us."""

    authority_id: str
    template_id: str
    csr: str
    wishes: Wishes
    location: str = ""
    tags: str = ""


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """A certificate, DER, and the CA that issued it."""

    der: bytes
    authority: Authority


class CertificateRequests:
    """Requests for certificates, from anyone whose token was verified."""

    def __init__(
        self,
        *,
        authorities: Authorities,
        domains: DomainStore,
        ledger: CertificateLedger,
        issuance: Issuance,
        clock: Clock,
        locations: PublicLocations,
    ) -> None:
        self._authorities = authorities
        self._domains = domains
        self._ledger = ledger
        self._issuance = issuance
        self._clock = clock
        self._locations = locations

    async def request(self, caller: Principal, asked: CertificateRequest) -> IssuedCertificate:
        """Return a certificate for what *caller* asks, by the rules above.

        The same request again within ten minutes returns the same certificate (see `issuance`).

        Raises `Problem(NOT_FOUND)` for an unknown CA or template, `Problem(MALFORMED)`,
        `Problem(TOO_LARGE)` or `Problem(UNSUPPORTED)` for what the CSR or the names are,
        `Problem(FORBIDDEN)` for what the caller may not have, `Problem(UNAVAILABLE)` when key or
        storage are away.
        """
        authority = await self._authorities.get(caller, asked.authority_id)
        try:
            order = await self._order(caller, authority, asked)
            der = await self._issuance.issue(order)
        except Problem as problem:
            if problem.kind is Kind.FORBIDDEN:
                await self._note(caller, authority, problem)
            raise
        return IssuedCertificate(der, authority)

    async def _order(
        self, caller: Principal, authority: Authority, asked: CertificateRequest
    ) -> Order:
        template = authority.template(asked.template_id.lower())
        if template is None:
            raise Problem(Kind.NOT_FOUND, "the CA has no such template")
        if not authority.is_enabled:
            raise Problem(Kind.FORBIDDEN, "the CA is disabled")
        _check_labels(asked.location, asked.tags)
        csr = parse_signing_request(asked.csr)
        common_name, alternatives = asked_names(csr, asked.wishes)
        names = list(dict.fromkeys((common_name, *(one.value for one in alternatives))))
        registered = await self._domains.get_domains(authority.id, [one.lower() for one in names])
        check_entitled(caller, template, names, registered)
        profile = leaf_profile(
            TemplateRules(max_days=template.max_days),
            csr,
            asked.wishes,
            parsed_certificate(authority.certificate),
            now=self._clock.now(),
        )
        return Order(
            profile=profile,
            authority=signing_authority(authority, self._locations),
            requester=caller.object_id,
            common_name=common_name,
            digest=_digest(caller, authority, template, csr, asked.wishes),
            template_id=template.id,
            location=asked.location,
            tags=asked.tags,
        )

    async def _note(self, caller: Principal, authority: Authority, problem: Problem) -> None:
        await self._ledger.note_refusal(
            AuditEntry(
                self._clock.now(),
                caller.object_id,
                "certificate.request",
                authority.id,
                outcome=problem.kind.value,
                detail={"reason": problem.detail},
            )
        )


def check_entitled(
    caller: Principal, template: Template, names: Sequence[str], registered: Iterable[Domain]
) -> None:
    """Check that *caller* may have every one of *names*, by rules 2 and 3.

    *registered* are the registrations of these names with the CA. The caller's tenant was checked
    to be the CA's. Raises `Problem(FORBIDDEN)` for the first name that may not be had.
    """
    by_name = {domain.folded: domain for domain in registered}
    for name in names:
        domain = by_name.get(name.lower())
        if domain is None:
            raise Problem(Kind.FORBIDDEN, f"{shown(name)} is not registered with this CA")
        if domain.name != name:
            raise Problem(
                Kind.FORBIDDEN, f"{shown(name)} is registered as {domain.name}: case matters"
            )
        if domain.template_id != template.id:
            raise Problem(Kind.FORBIDDEN, f"{name} is registered for another template")
        if not domain.may_request(caller.object_id):
            raise Problem(Kind.FORBIDDEN, f"you are not a requester of {name}")


def _check_labels(*labels: str) -> None:
    for label in labels:
        if len(label) > _MAX_LABEL or has_invisible(label):
            raise Problem(
                Kind.MALFORMED,
                f"location and tags have at most {_MAX_LABEL} characters, all visible",
            )


def _digest(
    caller: Principal,
    authority: Authority,
    template: Template,
    csr: SigningRequest,
    wishes: Wishes,
) -> bytes:
    """Return what tells this request from others: who asks, whom, and for what exactly."""
    return hashlib.sha256(
        msgspec.json.encode(
            (
                caller.tenant_id,
                caller.object_id,
                authority.id,
                template.id,
                csr.der,
                wishes.days,
                wishes.subject_name,
                [(name.kind.value, name.value) for name in wishes.names],
                wishes.ekus,
                sorted(use.value for use in wishes.key_uses),
            )
        )
    ).digest()
