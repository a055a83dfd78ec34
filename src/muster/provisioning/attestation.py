"""Decide whether a device may provision, and which enrolment says so.

Pure: `Candidates` is made of stored state, `attest` judges what one device presents.

Rules (DPS concepts-x509-attestation, facts/dps.md 2.2):

1. The walk goes from the leaf's issuer upward, one issuer a step, through the certificates the
   device sent and the verified CA certificates of the service. The first step at which a CA of an
   enrolment is found ends it: that enrolment decides, and nothing above it is asked.
2. Who issued what is a matter of keys, not of bytes: a CA whose certificate was renewed under the
   same name and key is still that CA. So leaving a certificate out, or sending another
   certificate of the same CA, does not lead past an enrolment that would refuse.
3. A deciding enrolment that is disabled refuses. If several decide at the same step (one CA key
   with several certificates), one that is disabled is enough to refuse.
4. Only what was proved counts. A referenced CA must be verified at the service. A carried one must
   equal a verified CA certificate of the service, or stand on a path that ends at one
   (docs/decisions/0010-carried-signing-certificates.md).
5. The leaf's subject has one common name and it is the registration id, compared without case as
   registration ids are. The CA itself is not one of its devices.
6. Signatures are checked within one budget for the whole judgement (`certs.signatures`).
7. The device is told little (`Refused.message`); the log and the audit trail are told all.

Does not check revocation: the service has none (facts/dps.md 2.2); an entry is disabled or deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from cryptography import x509

from muster.certs.chain import (
    MAX_CHAIN_CERTIFICATES,
    VerifiedPath,
    common_name,
    shown,
    verify_client_chain,
)
from muster.certs.paths import Issuers
from muster.certs.signatures import Signatures
from muster.errors import Problem
from muster.ids import RegistrationId
from muster.model.enrollment import EnrollmentGroup, ProvisioningStatus, SigningCertificates
from muster.model.resource import CaCertificate

# What devices have been told by the real service (facts/dps.md 1.2, code 401002).
UNAUTHORIZED = "Unauthorized"
CA_NOT_FOUND = "CA certificate not found"
INVALID_CERTIFICATE = "Invalid certificate."


class Standing(Enum):
    """Why a CA of an enrolment may authenticate devices, or may not."""

    VERIFIED = "possession was proved to the service"
    CARRIED = "stands only below a verified CA"
    UNVERIFIED = "possession was never proved"


@dataclass(frozen=True, slots=True)
class Entry:
    """One CA certificate of one enrolment."""

    certificate: x509.Certificate
    group: EnrollmentGroup
    standing: Standing


@dataclass(frozen=True, slots=True)
class Attested:
    """The device is who it says, by this enrolment and this path, while both hold.

    `common_name` is the registration id as the certificate spells it.
    """

    group: EnrollmentGroup
    path: VerifiedPath
    common_name: str

    def holds_at(self, now: datetime) -> bool:
        """Whether every certificate of the path is inside its validity at *now*.

        Does not check the enrolment: the caller compares versions of the stored state.
        """
        moment = now.astimezone(UTC).replace(microsecond=0)
        return all(
            certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc
            for certificate in self.path.certificates
        )


@dataclass(frozen=True, slots=True)
class Refused:
    """The device is refused: `message` is for it, `reason` for the log and the audit trail."""

    message: str
    reason: str
    group_id: str | None = None


class Candidates:
    """The CAs of one service's enrolments, arranged for `attest`. Immutable.

    A reference to a certificate that the service does not have is left out: it admits nobody.
    """

    def __init__(
        self, certificates: Iterable[CaCertificate], groups: Iterable[EnrollmentGroup]
    ) -> None:
        uploaded = {
            entry.name.lower(): (entry, x509.load_der_x509_certificate(entry.der))
            for entry in certificates
        }
        self.verified = tuple(
            certificate for entry, certificate in uploaded.values() if entry.is_verified
        )
        self._by_subject: dict[x509.Name, list[Entry]] = {}
        for group in sorted(groups, key=lambda group: group.key):
            for entry in self._entries(group, uploaded):
                self._by_subject.setdefault(entry.certificate.subject, []).append(entry)

    def named_issuers_of(self, certificate: x509.Certificate) -> list[Entry]:
        """Return the entries under whose name *certificate* was issued, rightly or not."""
        return self._by_subject.get(certificate.issuer, [])

    def issuers_of(self, certificate: x509.Certificate, signatures: Signatures) -> list[Entry]:
        """Return the entries whose key signed *certificate* under their own name."""
        named = self.named_issuers_of(certificate)
        return [entry for entry in named if signatures.made_by(entry.certificate, certificate)]

    def _entries(
        self,
        group: EnrollmentGroup,
        uploaded: dict[str, tuple[CaCertificate, x509.Certificate]],
    ) -> Iterable[Entry]:
        if isinstance(group.attestation, SigningCertificates):
            for der in group.attestation.present:
                carried = x509.load_der_x509_certificate(der)
                proved = carried in self.verified
                yield Entry(carried, group, Standing.VERIFIED if proved else Standing.CARRIED)
            return
        for name in group.attestation.present:
            if (found := uploaded.get(name.lower())) is not None:
                proved = found[0].is_verified
                yield Entry(found[1], group, Standing.VERIFIED if proved else Standing.UNVERIFIED)


def attest(
    chain: Sequence[x509.Certificate],
    registration_id: RegistrationId,
    candidates: Candidates,
    *,
    now: datetime,
) -> Attested | Refused:
    """Judge a device that presents *chain*, leaf first, under *registration_id*.

    The rules are in the module's docstring. The caller has seen the leaf's key used in a
    handshake; nothing else about *chain* is taken for granted.
    """
    name = _name(chain, registration_id)
    if isinstance(name, Refused):
        return name
    judgement = _Judgement(candidates, name, now, Signatures())
    if (plain := _attest_plainly(chain, judgement)) is not None:
        return plain
    try:
        entries, hints = _find_deciding(chain, judgement)
    except Problem as problem:  # the budget is spent
        return Refused(INVALID_CERTIFICATE, problem.detail)
    if not entries:
        issuer = shown(chain[0].issuer.rfc4514_string())
        return Refused(
            CA_NOT_FOUND, f"no enrolment has the issuer, {issuer}, or a CA above it in the chain"
        )
    for entry in entries:
        if entry.group.status is ProvisioningStatus.DISABLED:
            return Refused(UNAUTHORIZED, "the enrolment is disabled", entry.group.group_id)
    verdicts = [_judge((*chain, *hints), entry, judgement) for entry in entries]
    return next((one for one in verdicts if isinstance(one, Attested)), verdicts[0])


@dataclass(frozen=True, slots=True)
class _Judgement:
    """What stays the same while one device is judged. `signatures` is all it may cost."""

    candidates: Candidates
    name: str
    now: datetime
    signatures: Signatures

    def path(
        self, chain: Sequence[x509.Certificate], anchors: Sequence[x509.Certificate]
    ) -> VerifiedPath:
        return verify_client_chain(chain, anchors, now=self.now, signatures=self.signatures)


def _name(chain: Sequence[x509.Certificate], registration_id: RegistrationId) -> str | Refused:
    """Return the registration id as the leaf spells it."""
    if not chain:
        return Refused(UNAUTHORIZED, "no client certificate was sent")
    try:
        name = common_name(chain[0])
    except Problem as problem:
        return Refused(UNAUTHORIZED, problem.detail)
    if name.lower() != registration_id.folded:
        return Refused(UNAUTHORIZED, f"the certificate's common name is {shown(name)}")
    return name


def _attest_plainly(chain: Sequence[x509.Certificate], judgement: _Judgement) -> Attested | None:
    """Return the verdict of the plain case, or None to have the walk done.

    Most devices have a leaf that a verified CA of an enabled enrolment issued directly, and no
    other entry bears that name. Then the walk ends at its first step with this entry and no
    other, and the path says so as well: one signature is checked once instead of twice.
    """
    named = judgement.candidates.named_issuers_of(chain[0])
    if len(named) != 1 or named[0].standing is not Standing.VERIFIED:
        return None
    entry = named[0]
    if entry.group.status is ProvisioningStatus.DISABLED:
        return None
    try:
        path = judgement.path(chain, [entry.certificate])
    except Problem:
        return None
    return Attested(entry.group, path, judgement.name) if len(path.certificates) == 2 else None


def _find_deciding(
    chain: Sequence[x509.Certificate], judgement: _Judgement
) -> tuple[list[Entry], list[x509.Certificate]]:
    """Walk up; return the entries of the first step that has any, and what the peer left out.

    Raises `Problem(UNAUTHENTICATED)` when the judgement's signatures are spent.
    """
    candidates, signatures = judgement.candidates, judgement.signatures
    issuers = Issuers(candidates.verified, chain[1:], judgement.now)
    step, seen = [chain[0]], [chain[0]]
    # Each step adds a certificate to `seen`, so cross-signed loops end; the bound is on work.
    for _ in range(MAX_CHAIN_CERTIFICATES):
        found = [entry for current in step for entry in candidates.issuers_of(current, signatures)]
        if found:
            return found, [one for one in seen if one not in chain]
        signers = [
            authority
            for current in step
            for authority in issuers.of(current)
            if authority not in seen and signatures.made_by(authority, current)
        ]
        step = list(dict.fromkeys(signers))
        if not step:
            break
        seen.extend(step)
    return [], []


def _judge(
    chain: Sequence[x509.Certificate], entry: Entry, judgement: _Judgement
) -> Attested | Refused:
    group_id = entry.group.group_id
    if entry.standing is Standing.UNVERIFIED:
        return Refused(CA_NOT_FOUND, "the enrolment's CA certificate is not verified", group_id)
    try:
        if entry.standing is Standing.VERIFIED:
            path: VerifiedPath | None = judgement.path(chain, [entry.certificate])
        else:
            path = _verify_below_verified(chain, entry.certificate, judgement)
    except Problem as problem:
        return Refused(INVALID_CERTIFICATE, problem.detail, group_id)
    if path is None:
        return Refused(
            CA_NOT_FOUND,
            "the enrolment's own CA certificate does not lead to a verified CA of the service",
            group_id,
        )
    if len(path.certificates) < 2:
        return Refused(INVALID_CERTIFICATE, "the certificate is the CA itself", group_id)
    return Attested(entry.group, path, judgement.name)


def _verify_below_verified(
    chain: Sequence[x509.Certificate], carried: x509.Certificate, judgement: _Judgement
) -> VerifiedPath | None:
    """Return the path to a verified CA that passes *carried*, or None when there is none."""
    # First for its own sake: what is wrong below the carried CA is the device's fault, and
    # is told apart from a CA that nobody verified.
    judgement.path(chain, [carried])
    try:
        path = judgement.path((*chain, carried), judgement.candidates.verified)
    except Problem:
        if judgement.signatures.is_spent:
            raise
        return None
    # Another certificate of the same CA may stand in the path in its place (rule 2).
    passed = any(
        one.subject == carried.subject and one.public_key() == carried.public_key()
        for one in path.certificates[1:]
    )
    return path if passed else None
