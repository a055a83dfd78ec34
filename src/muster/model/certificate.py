"""Certificates as the CA remembers them: from the moment one may exist."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from muster.ids import Thumbprint


class CertificateStatus(Enum):
    """How far a certificate got.

    A `RECORDED` one may exist: its serial and to-be-signed bytes are known, and whether the
    signature was made is not. It can be revoked like an issued one.
    """

    RECORDED = "recorded"
    ISSUED = "issued"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class IntendedCertificate:
    """What is about to be signed, and for whom.

    `request_digest` is the SHA-256 of everything that was asked for and of who asked, so that a
    request that is sent again can be told from a new one.
    """

    authority_id: str
    serial: int
    tenant_id: str
    template_id: str | None
    requester: str
    common_name: str
    not_before: datetime
    not_after: datetime
    to_be_signed: bytes
    request_digest: bytes
    requested: datetime
    location: str = ""
    tags: str = ""


@dataclass(frozen=True, slots=True)
class CertificateRecord:
    """One row of the CA's memory. `der` and the thumbprints are None until it is issued."""

    intended: IntendedCertificate
    status: CertificateStatus
    der: bytes | None = field(default=None, repr=False)
    sha1: Thumbprint | None = None
    sha256: Thumbprint | None = None


@dataclass(frozen=True, slots=True)
class RevokedSerial:
    """What a CRL says of one certificate. `reason` is RFC 5280's number, None for unspecified."""

    serial: int
    revoked: datetime
    reason: int | None = None
