"""Registered names: who may ask for certificates that carry them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Party:
    """A person, group or machine of the directory, as the one who registered a name gave it.

    Authorise on `object_id` only: the rest is what someone claimed, for people to read.
    """

    object_id: str
    name: str | None = None
    type: str = "User"


@dataclass(frozen=True, slots=True)
class Domain:
    """One name registered with one CA: a DNS name, an IP address or a device id.

    `owners` may change the registration; `requesters` may request and revoke certificates,
    `request_only` may request. An owner who is on neither list may not request.
    """

    id: str
    tenant_id: str
    authority_id: str
    template_id: str
    name: str
    owners: tuple[Party, ...]
    requesters: tuple[Party, ...]
    request_only: tuple[Party, ...]
    notification_emails: tuple[str, ...]
    registered_by: str
    created: datetime

    @property
    def folded(self) -> str:
        """The spelling that equal names share.

        DNS names and registration ids are compared without case, so two names that differ only
        in case are one name here: else a second owner could have the first one's device.
        """
        return self.name.lower()

    def may_request(self, object_id: str) -> bool:
        """Whether that member of the CA's tenant may request certificates for this name."""
        return any(
            party.object_id.lower() == object_id.lower()
            for party in (*self.requesters, *self.request_only)
        )
