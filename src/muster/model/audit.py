"""What is kept of every change: who did what to which thing, and with what result."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One line of the audit trail, written in the transaction of the change it tells of.

    `actor` is a principal's object id, a SAS policy (`policy:NAME`) or a device
    (`device:ID`); `action` is `noun.verb`, as `certificate.issue`; `subject` names the thing;
    `outcome` is `ok` or the refusal. `detail` holds no secret.
    """

    at: datetime
    actor: str
    action: str
    subject: str
    outcome: str = "ok"
    detail: dict[str, str] = field(default_factory=dict)
