"""What one part of the program tells the others after a change was committed."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Notice:
    """A committed change, delivered at least once; a receiver must bear repeats and loss.

    Notices are about speed: whoever receives one reads the stored state again, so a lost
    one costs time and never correctness (architecture.md, invariant 6).

    Topics so far: `hub.changed`, `hub.deleted`, `service.changed`, `service.deleted`
    (subject: the resource's id); `device.changed`, `device.deleted` (subject: hub id, a slash,
    device id); `enrollment.changed`, `enrollment.deleted` (subject: service id, a slash, group id).
    To come with revocation: `certificate.revoked` (subject: the issuing CA's id, a slash, the
    serial in hexadecimal: not a thumbprint, because the holder of a certificate can rewrite its
    signature, and with it every digest, while it stays valid).
    """

    topic: str
    subject: str
    data: dict[str, str] = field(default_factory=dict)
