"""Issue certificates so that none can exist unknown.

The steps, of which 4 is the irreversible one:

1. prepare  lay out the to-be-signed bytes, with a fresh serial, without any key;
2. lint     judge them as strangers would; a finding, or a linter that fails, ends it here;
3. record   reserve the serial and store the bytes, with an audit line, in one transaction;
4. sign     have the keystore sign exactly the recorded bytes;
5. compare  put the certificate together, check signature and bytes against the record;
6. store    complete the record, with an audit line, in one transaction.

A crash before 3 leaves nothing. One after 3 leaves a record of what may exist, by serial, which
can be revoked like any other. Reserving the serial and recording the bytes are one step because
a serial without its bytes says nothing more.

The same request again, from the same caller within `REPEAT_WINDOW`, is a repetition: clients
send a POST up to four times when answers are lost. It gets the certificate that the record
leads to, finished if a crash left it unfinished, and never a second one. Signing the recorded
bytes again is harmless: with RSA and deterministic ECDSA it makes the same certificate, and with
any other keystore the first one stored is the only one that is handed out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from muster.ca.issuers import SigningAuthority
from muster.certs.build import assemble_certificate, prepare_certificate
from muster.certs.identity import sha1_thumbprint, sha256_thumbprint
from muster.certs.lint import lint_certificate
from muster.certs.profile import CertificateProfile
from muster.clock import Clock
from muster.errors import Kind, Problem
from muster.model.audit import AuditEntry
from muster.model.certificate import CertificateRecord, CertificateStatus, IntendedCertificate
from muster.ports.authorities import CertificateLedger
from muster.ports.signing import Signer

# EZCA's clients try four times, 2, 4 and 8 s apart, each up to .NET's 100 s time-out: 7 minutes.
REPEAT_WINDOW = timedelta(minutes=10)

Lint = Callable[[x509.Certificate, x509.Certificate | None], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Order:
    """A certificate that was allowed: what it says, who signs it, who asked.

    `digest` is the SHA-256 of all that was asked for and of who asked. `requester` is the
    principal's object id.
    """

    profile: CertificateProfile
    authority: SigningAuthority
    requester: str
    common_name: str
    digest: bytes
    template_id: str | None = None
    location: str = ""
    tags: str = ""


class Issuance:
    """Turns orders into certificates, by the steps above."""

    def __init__(
        self,
        ledger: CertificateLedger,
        signer: Signer,
        clock: Clock,
        *,
        lint: Lint = lint_certificate,
        new_serial: Callable[[], int] = x509.random_serial_number,
    ) -> None:
        self._ledger = ledger
        self._signer = signer
        self._clock = clock
        self._lint = lint
        # 159 random bits, positive: RFC 5280 section 4.1.2.2, BR 7.1.
        self._new_serial = new_serial

    async def issue(self, order: Order) -> bytes:
        """Return the certificate for *order*, DER. The caller has authorised it.

        When this returns, the certificate and its record survive `kill -9`.

        Raises `Problem(FORBIDDEN)` when the linter has findings or the repeated request's
        certificate was revoked meanwhile, `Problem(UNAVAILABLE)` when key or storage are away.
        """
        intended = self._prepare(order)
        record = await self._ledger.record_intended(
            intended,
            self._line("certificate.sign", intended, order),
            same_since=intended.requested - REPEAT_WINDOW,
        )
        if record.status is CertificateStatus.RECORDED:
            record = await self._sign(record, order)
        if record.status is not CertificateStatus.ISSUED or record.der is None:
            raise Problem(Kind.FORBIDDEN, "the certificate was revoked before it was handed out")
        return record.der

    def _prepare(self, order: Order) -> IntendedCertificate:
        authority, profile = order.authority, order.profile
        serial = self._new_serial()
        prepared = prepare_certificate(profile, authority.issuer, serial)
        findings = self._lint(prepared.draft, authority.certificate)
        if findings:
            raise Problem(
                Kind.FORBIDDEN, "the certificate would break a rule: " + "; ".join(findings)
            )
        return IntendedCertificate(
            authority_id=authority.authority_id,
            serial=serial,
            tenant_id=authority.tenant_id,
            template_id=order.template_id,
            requester=order.requester,
            common_name=order.common_name,
            not_before=profile.not_before,
            not_after=profile.not_after,
            to_be_signed=prepared.to_be_signed,
            request_digest=order.digest,
            requested=self._clock.now(),
            location=order.location,
            tags=order.tags,
        )

    async def _sign(self, record: CertificateRecord, order: Order) -> CertificateRecord:
        authority, intended = order.authority, record.intended
        signature = await self._signer.sign(
            authority.key_id, intended.to_be_signed, authority.hashing
        )
        certificate = assemble_certificate(
            intended.to_be_signed, signature, authority.issuer, authority.certificate
        )
        der = certificate.public_bytes(Encoding.DER)
        issued = replace(
            record,
            status=CertificateStatus.ISSUED,
            der=der,
            sha1=sha1_thumbprint(der),
            sha256=sha256_thumbprint(der),
        )
        return await self._ledger.store_issued(
            issued, self._line("certificate.issue", intended, order)
        )

    def _line(self, action: str, intended: IntendedCertificate, order: Order) -> AuditEntry:
        return AuditEntry(
            at=self._clock.now(),
            actor=order.requester,
            action=action,
            subject=f"{intended.authority_id}/{intended.serial:x}",
            detail={"common_name": intended.common_name, "location": intended.location},
        )
