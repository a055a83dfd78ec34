"""EZCA's JSON as its clients write and read it (facts: EZCAClient 1.0.9, ezca-go 0.3.2).

Keys are spelled exactly, because C# compares them with case. Strings and lists may be null, numbers
may not; unknown keys are ignored. What comes in here is only typed: services judge it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, field

from muster.ca.domains import Registration
from muster.ca.requests import CertificateRequest
from muster.certs.encoding import certificate_pem
from muster.certs.names import MAX_NAMES, AlternativeName, alternative_name, typed_name
from muster.certs.profile import TemplateRules, Wishes
from muster.certs.usages import KeyUse, parse_key_uses
from muster.errors import Kind, Problem
from muster.model.authority import Authority, Template, Tier
from muster.model.domain import Party

Body = TypeVar("Body")

# Usages in one request; there are seven key usages and some thirty known extended ones.
_MAX_USAGES = 64


class DirectoryObject(Struct):
    """An AADObject: somebody of the directory."""

    object_id: str | None = field(name="ObjectId", default=None)
    friendly_name: str | None = field(name="FriendlyName", default=None)
    object_type: str | None = field(name="ObjectType", default=None)


class RegisterDomainBody(Struct):
    """What `RegisterNewDomain` takes."""

    authority_id: str = field(name="CAID")
    template_id: str = field(name="TemplateID")
    domain: str = field(name="Domain")
    owners: list[DirectoryObject] | None = field(name="Owners", default=None)
    requesters: list[DirectoryObject] | None = field(name="Requesters", default=None)
    requesters_only: list[DirectoryObject] | None = field(name="RequestersOnly", default=None)
    notification_emails: list[str] | None = field(name="NotificationEmails", default=None)

    def registration(self) -> Registration:
        """Return this as the service takes it."""
        return Registration(
            authority_id=self.authority_id,
            template_id=self.template_id,
            name=self.domain,
            owners=_parties(self.owners),
            requesters=_parties(self.requesters),
            request_only=_parties(self.requesters_only) or (),
            notification_emails=tuple(self.notification_emails or ()),
        )


class SubjectAltValue(Struct):
    """A typed alternative name: its GeneralName tag and its text."""

    value: str = field(name="ValueSTR")
    kind: int = field(name="SubjectAltType")


class _RequestBody(Struct):
    authority_id: str = field(name="CAID")
    template_id: str = field(name="TemplateID")
    csr: str = field(name="CSR")
    validity_in_days: int = field(name="ValidityInDays")
    subject_name: str | None = field(name="SubjectName", default=None)
    ekus: list[str] | None = field(name="EKUs", default=None)
    key_usages: list[str] | None = field(name="KeyUsages", default=None)
    selected_location: str | None = field(name="SelectedLocation", default=None)
    certificate_tags: str | None = field(name="CertificateTags", default=None)

    def _names(self) -> tuple[AlternativeName, ...]:
        raise NotImplementedError

    def request(self) -> CertificateRequest:
        """Return this as the service takes it; raises `Problem` for names that cannot be."""
        return CertificateRequest(
            authority_id=self.authority_id,
            template_id=self.template_id,
            csr=self.csr,
            wishes=Wishes(
                days=self.validity_in_days,
                subject_name=self.subject_name,
                names=self._names(),
                ekus=tuple(_bounded("EKUs", self.ekus, _MAX_USAGES)),
                key_uses=parse_key_uses(_bounded("KeyUsages", self.key_usages, _MAX_USAGES)),
            ),
            location=self.selected_location or "",
            tags=self.certificate_tags or "",
        )


class RequestCertificateBody(_RequestBody):
    """What `RequestSSLCertificate` takes: alternative names are plain strings."""

    names: list[str] | None = field(name="SubjectAltNames", default=None)

    def _names(self) -> tuple[AlternativeName, ...]:
        given = _bounded("SubjectAltNames", self.names, MAX_NAMES)
        return tuple(alternative_name(name) for name in given)


class RequestCertificateV2Body(_RequestBody):
    """What `RequestSSLCertificateV2` takes: alternative names say what they are."""

    names: list[SubjectAltValue] | None = field(name="SubjectAltNames", default=None)

    def _names(self) -> tuple[AlternativeName, ...]:
        given = _bounded("SubjectAltNames", self.names, MAX_NAMES)
        return tuple(typed_name(name.kind, name.value) for name in given)


def decode(body: bytes, kind: type[Body]) -> Body:
    """Return *body* as *kind*; raises `Problem(MALFORMED)` that says what is wrong where."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        detail = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Problem(Kind.MALFORMED, f"the body is not what is expected: {detail}") from error


def authority_entry(authority: Authority, template: Template) -> dict[str, Any]:
    """Return one entry of a CA list: all eleven keys, which satisfies every client."""
    return {**_authority_keys(authority), **_template_keys(template)}


def bare_authority_entry(authority: Authority) -> dict[str, Any]:
    """Return one entry of `GetMyCAs`, which knows no templates."""
    return _authority_keys(authority)


def certificate_created(der: bytes, chain: Sequence[Authority]) -> dict[str, str | None]:
    """Return a certificate with the CAs above it, the issuing one first.

    ezca-go takes an empty string for an empty certificate, so what is absent is null. A root
    that issues itself is the issuing CA, and then there is no further root.
    """
    issuing, root = chain[0], chain[-1]
    has_root = len(chain) > 1 and root.tier is Tier.ROOT
    return {
        "CertificatePEM": certificate_pem(der),
        "IssuingCACertificate": certificate_pem(issuing.certificate),
        "RootCertificate": certificate_pem(root.certificate) if has_root else None,
    }


def _authority_keys(authority: Authority) -> dict[str, Any]:
    return {
        "CAID": authority.id,
        "CAFriendlyName": authority.name,
        "CAKeyType": authority.key_type.value,
        "CAHashing": authority.hashing.value,
        "CAType": "PrivateCA",
        "CATier": authority.tier.value,
    }


def _template_keys(template: Template) -> dict[str, Any]:
    defaults = TemplateRules(template.max_days).default_key_uses
    return {
        "CATemplateType": template.type.value,
        "TemplateID": template.id,
        # A string: the C# model has no list here.
        "KeyUsage": ", ".join(use.value for use in KeyUse if use in defaults),
        "MaxCertLifeDays": template.max_days,
        "DomainRestrictions": "All domains allowed",
    }


def _parties(objects: list[DirectoryObject] | None) -> tuple[Party, ...] | None:
    if objects is None:
        return None
    return tuple(
        Party(one.object_id or "", one.friendly_name, one.object_type or "User") for one in objects
    )


_Item = TypeVar("_Item")


def _bounded(what: str, given: list[_Item] | None, limit: int) -> list[_Item]:
    if given is not None and len(given) > limit:
        raise Problem(Kind.MALFORMED, f"{what}: at most {limit} are possible")
    return given or []
