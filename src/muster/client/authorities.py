"""Muster's own API for making certificate authorities.

EZCA's wire for this was never published: its portal does it. Against the real EZCA, make the CA
in the portal.
"""

from __future__ import annotations

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


class ManagedAuthority(msgspec.Struct, frozen=True, rename="camel"):
    """A certificate authority whose key this server holds."""

    id: str
    name: str


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
        return decode((yield from ask(request)), list[ManagedAuthority], purpose)

    def ensure(self, name: str) -> Exchange[ManagedAuthority]:
        """Have a root and an issuing CA called *name*; return the issuing one. Safe to repeat."""
        purpose = f"create the CA {name!r}"
        request = json_request(
            "POST",
            self._url,
            {"name": name},
            purpose=purpose,
            repeatable=True,
            authorization=self._authorization,
        )
        return decode((yield from ask(request)), ManagedAuthority, purpose)

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
