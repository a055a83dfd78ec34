"""Muster's own API for making certificate authorities.

EZCA's wire for this was never published: its portal does it. Against the real EZCA, make the CA
in the portal.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from cryptography import x509

from muster.client.errors import ServiceError
from muster.client.exchange import (
    Bearer,
    Exchange,
    ask,
    base_url,
    decode,
    json_request,
    segment,
)
from muster.client.tokens import RESOURCE_MANAGER_SCOPE
from muster.errors import Kind


class ManagedTemplate(msgspec.Struct, frozen=True, rename="camel"):
    """What certificates of one kind may be: `type` in EZCA's words, and the longest life."""

    id: str
    type: str
    maximum_days: int = msgspec.field(name="maxCertLifeDays")


class ManagedAuthority(msgspec.Struct, frozen=True, rename="camel"):
    """A certificate authority whose key this server holds."""

    id: str
    name: str
    tier: str
    key_type: str
    is_enabled: bool
    not_before: datetime
    not_after: datetime
    sha256_thumbprint: str
    parent_id: str | None = None
    templates: list[ManagedTemplate] = []


class Hierarchy(msgspec.Struct, frozen=True):
    """A root and the issuing CA below it."""

    root: ManagedAuthority
    issuing: ManagedAuthority


class _List(msgspec.Struct, frozen=True):
    authorities: list[ManagedAuthority]


class Authorities:
    """The certificate authorities of a Muster server at *url*."""

    def __init__(self, url: str, *, scope: str = RESOURCE_MANAGER_SCOPE) -> None:
        self._url = f"{base_url(url)}/api/muster/authorities"
        self._authorization = Bearer(scope)

    def list_authorities(self) -> Exchange[list[ManagedAuthority]]:
        """Return every certificate authority."""
        purpose = "list the CAs"
        request = json_request(
            "GET", self._url, purpose=purpose, repeatable=True, authorization=self._authorization
        )
        return decode((yield from ask(request)), _List, purpose).authorities

    def ensure(self, name: str) -> Exchange[Hierarchy]:
        """Have an issuing CA called *name* and a root above it. Safe to repeat."""
        purpose = f"create the CA {name!r}"
        request = json_request(
            "POST",
            self._url,
            {"name": name},
            purpose=purpose,
            repeatable=True,
            authorization=self._authorization,
        )
        return decode((yield from ask(request)), Hierarchy, purpose)

    def certificate(self, authority_id: str) -> Exchange[x509.Certificate]:
        """Return the certificate of the CA *authority_id*."""
        purpose = f"download the certificate of the CA {authority_id!r}"
        request = json_request(
            "GET",
            f"{self._url}/{segment(authority_id)}/certificate",
            purpose=purpose,
            repeatable=True,
            authorization=self._authorization,
        )
        answer = yield from ask(request)
        try:
            return x509.load_pem_x509_certificate(answer.body)
        except ValueError:
            raise ServiceError(
                Kind.UNAVAILABLE, f"could not {purpose}: the answer is not a PEM certificate"
            ) from None
