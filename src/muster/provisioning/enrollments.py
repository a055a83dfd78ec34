"""Enrolments: create, change, find and delete them, and say which CAs they trust now.

Rules:

1. Callers are authorised before they get here; *actor* is whom the audit trail names.
2. A new enrolment is made without an entity tag; an existing one is replaced or deleted only at
   the version the caller names (facts/dps.md 3).
3. A certificate may be used by one enrolment of a service only: by its bytes and, where it is
   referenced, by its name as well, so that replacing what a name means cannot make two of one.
4. What is nonsense when it is written is refused then: hubs that are not linked, certificates
   that are not CAs, references to nothing. What becomes nonsense later admits nobody.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field

import msgspec
from cryptography import x509

from muster.certs.chain import MAX_CERTIFICATE_BYTES
from muster.certs.identity import sha256_thumbprint
from muster.clock import Clock
from muster.errors import Kind, Problem
from muster.ids import ETag, RegistrationId, new_etag
from muster.model.audit import AuditEntry
from muster.model.contention import ATTEMPTS, contended
from muster.model.device import InitialTwin
from muster.model.enrollment import (
    EnrollmentGroup,
    GroupAttestation,
    ProvisioningStatus,
    ReprovisionPolicy,
    SigningCertificates,
)
from muster.model.resource import AllocationPolicy, CaCertificate, ProvisioningService
from muster.ports.enrollments import EnrollmentStore
from muster.provisioning.attestation import Candidates

# The service itself allows 100 groups. Every group's CAs are held in memory, parsed, and are
# arranged anew after each change: some 20 us each.
MAX_GROUPS = 1_000
# IoT Hub's own limits on what a twin may hold.
_MAX_TAGS = 8 * 1024
_MAX_DESIRED = 32 * 1024
# Services whose CAs are kept arranged; the others cost a few milliseconds at their next device.
_KEPT_SERVICES = 64
_PAGE = 200


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """What a caller may say of an enrolment group; see `EnrollmentGroup` for the meanings."""

    group_id: str
    attestation: GroupAttestation
    status: ProvisioningStatus = ProvisioningStatus.ENABLED
    reprovision_policy: ReprovisionPolicy = field(default_factory=ReprovisionPolicy)
    allocation_policy: AllocationPolicy | None = None
    iot_hub_hostname: str | None = None
    iot_hubs: tuple[str, ...] = ()
    initial_twin: InitialTwin = field(default_factory=InitialTwin)
    iot_edge: bool = False


@dataclass(frozen=True, slots=True)
class Trusted:
    """A service's candidates and what they were made of."""

    version: int
    certificates: tuple[CaCertificate, ...]
    candidates: Candidates


class Enrollments:
    """The enrolment groups of any provisioning service."""

    def __init__(self, store: EnrollmentStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._kept: OrderedDict[str, Trusted] = OrderedDict()
        self._arranging = asyncio.Lock()

    async def put_group(
        self,
        service: ProvisioningService,
        settings: GroupSettings,
        if_match: ETag | None,
        *,
        actor: str,
    ) -> EnrollmentGroup:
        """Create the group, or replace the version *if_match* of it; return what is stored.

        Raises `Problem(MALFORMED)` by rule 4, `Problem(CONFLICT)` when it exists and *if_match* is
        None or a certificate is used elsewhere, `Problem(PRECONDITION_FAILED)` when the version is
        another, `Problem(TOO_LARGE)` when the service has all the groups it may have.
        """
        _check_id(settings.group_id)
        _check_hubs(service, settings)
        _check_twin(settings.initial_twin)
        claims = _claims(service, settings.attestation)
        for _ in range(ATTEMPTS):
            stored = await self._store.get_group(service.id, settings.group_id)
            _check_version(settings.group_id, stored, if_match)
            now = self._clock.now()
            group = EnrollmentGroup(
                service_id=service.id,
                group_id=settings.group_id if stored is None else stored.group_id,
                etag=new_etag(),
                created=now if stored is None else stored.created,
                updated=now,
                attestation=settings.attestation,
                status=settings.status,
                reprovision_policy=settings.reprovision_policy,
                allocation_policy=settings.allocation_policy,
                iot_hub_hostname=settings.iot_hub_hostname,
                iot_hubs=settings.iot_hubs,
                initial_twin=settings.initial_twin,
                iot_edge=settings.iot_edge,
            )
            if stored is None:
                await self._check_room(service.id)
                audit = self._audit(actor, "enrollment.create", group)
                if await self._store.insert_group(group, claims, audit):
                    return group
            else:
                audit = self._audit(actor, "enrollment.update", group)
                if await self._store.replace_group(group, claims, stored.etag, audit):
                    return group
        raise contended("this enrolment")

    async def get_group(self, service_id: str, group_id: str) -> EnrollmentGroup:
        """Return the group; raises `Problem(NOT_FOUND)`."""
        group = await self._store.get_group(service_id, group_id)
        if group is None:
            raise Problem(Kind.NOT_FOUND, "there is no such enrolment group")
        return group

    async def list_groups(
        self, service_id: str, *, after: str, limit: int
    ) -> list[EnrollmentGroup]:
        """Return up to *limit* groups by key, from the one after the key *after* on."""
        return await self._store.list_groups(service_id, after=after, limit=limit)

    async def delete_group(
        self, service_id: str, group_id: str, if_match: ETag | None, *, actor: str
    ) -> None:
        """Delete the group, whatever its version when *if_match* is None.

        Its registrations and the devices at the hubs stay: they have to be dealt with there.
        Raises `Problem(NOT_FOUND)` or `Problem(PRECONDITION_FAILED)`.
        """
        for _ in range(ATTEMPTS):
            stored = await self.get_group(service_id, group_id)
            _check_version(group_id, stored, if_match or ETag("*"))
            audit = self._audit(actor, "enrollment.delete", stored)
            if await self._store.delete_group(service_id, group_id, stored.etag, audit):
                return
        raise contended("this enrolment")

    async def trusted(self, service: ProvisioningService) -> Trusted:
        """Return the CAs that the service's enrolments trust, as stored at this moment."""
        if (kept := await self._still_good(service)) is not None:
            return kept
        async with self._arranging:
            if (kept := await self._still_good(service)) is not None:
                return kept
            # The version first: a change in between makes what is kept look older than it is.
            version = await self._store.enrollments_version(service.id)
            candidates = Candidates(service.certificates, await self._all_groups(service.id))
            fresh = self._kept[service.id] = Trusted(version, service.certificates, candidates)
            self._kept.move_to_end(service.id)
            if len(self._kept) > _KEPT_SERVICES:
                self._kept.popitem(last=False)
            return fresh

    async def _still_good(self, service: ProvisioningService) -> Trusted | None:
        kept = self._kept.get(service.id)
        if kept is None or kept.certificates != service.certificates:
            return None
        version = await self._store.enrollments_version(service.id)
        return kept if kept.version == version else None

    async def _all_groups(self, service_id: str) -> list[EnrollmentGroup]:
        found: list[EnrollmentGroup] = []
        while True:
            after = found[-1].key if found else ""
            page = await self._store.list_groups(service_id, after=after, limit=_PAGE)
            found.extend(page)
            if len(page) < _PAGE:
                return found

    async def _check_room(self, service_id: str) -> None:
        held = await self._store.list_groups(service_id, after="", limit=MAX_GROUPS)
        if len(held) >= MAX_GROUPS:
            raise Problem(Kind.TOO_LARGE, f"a service has at most {MAX_GROUPS} enrolment groups")

    def _audit(self, actor: str, action: str, group: EnrollmentGroup) -> AuditEntry:
        return AuditEntry(
            at=self._clock.now(),
            actor=actor,
            action=action,
            subject=f"{group.service_id}/{group.group_id}",
            detail={"status": group.status.value},
        )


def _check_id(group_id: str) -> None:
    try:
        RegistrationId.parse(group_id)
    except Problem:
        raise Problem(
            Kind.MALFORMED,
            "an enrolment group id has 1 to 128 characters out of A-Z a-z 0-9 - . _ : "
            "and ends with a letter, a digit or a dash",
        ) from None


def _check_hubs(service: ProvisioningService, settings: GroupSettings) -> None:
    named = settings.iot_hubs
    if settings.iot_hub_hostname is not None:
        if any(hub.lower() != settings.iot_hub_hostname.lower() for hub in named):
            raise Problem(Kind.MALFORMED, "iotHubHostName and iotHubs name different hubs")
        named = (settings.iot_hub_hostname,)
    for hostname in named:
        if service.linked_hub(hostname) is None:
            raise Problem(Kind.MALFORMED, "an enrolment may name only hubs that are linked")
    if settings.allocation_policy is AllocationPolicy.STATIC and len(named) != 1:
        raise Problem(Kind.MALFORMED, "a static allocation names exactly one hub")


def _check_twin(twin: InitialTwin) -> None:
    limits = (("tags", twin.tags, _MAX_TAGS), ("desired properties", twin.desired, _MAX_DESIRED))
    for name, value, limit in limits:
        if len(msgspec.json.encode(value)) > limit:
            raise Problem(Kind.MALFORMED, f"the initial {name} have at most {limit} bytes")


def _claims(service: ProvisioningService, attestation: GroupAttestation) -> list[str]:
    """Return the marks of the certificates used (rule 3), having checked each (rule 4)."""
    if isinstance(attestation, SigningCertificates):
        used = [_digest_claim(der) for der in attestation.present]
        for der in attestation.present:
            _check_authority(der)
    else:
        uploaded = {entry.name.lower(): entry for entry in service.certificates}
        used = []
        for name in attestation.present:
            entry = uploaded.get(name.lower())
            if entry is None:
                raise Problem(
                    Kind.MALFORMED, "a CA reference names a certificate that the service lacks"
                )
            used += [f"name:{name.lower()}", _digest_claim(entry.der)]
    if not used:
        raise Problem(Kind.MALFORMED, "an X.509 enrolment group needs a CA certificate")
    if len(set(used)) != len(used):
        raise Problem(Kind.MALFORMED, "primary and secondary are the same certificate")
    return used


def _digest_claim(der: bytes) -> str:
    return f"sha256:{sha256_thumbprint(der)}"


def _check_authority(der: bytes) -> None:
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise Problem(Kind.MALFORMED, f"a certificate has at most {MAX_CERTIFICATE_BYTES} bytes")
    try:
        certificate = x509.load_der_x509_certificate(der)
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        is_authority = constraints.value.ca
    except x509.ExtensionNotFound:
        is_authority = False
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise Problem(Kind.MALFORMED, "a signing certificate is not X.509") from error
    if not is_authority:
        raise Problem(
            Kind.MALFORMED, "a signing certificate must be a CA (basic constraints, RFC 5280)"
        )


def _check_version(group_id: str, stored: EnrollmentGroup | None, if_match: ETag | None) -> None:
    if stored is None:
        if if_match is not None:
            raise Problem(
                Kind.PRECONDITION_FAILED, f"there is no enrolment group {group_id} to replace"
            )
    elif if_match is None:
        raise Problem(
            Kind.CONFLICT,
            f"the enrolment group {stored.group_id} exists; name its etag to replace it",
        )
    elif not if_match.matches_any and if_match != stored.etag:
        raise Problem(
            Kind.PRECONDITION_FAILED, f"the enrolment group {stored.group_id} has another etag"
        )
