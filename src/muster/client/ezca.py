"""EZCA's API: the certificate authorities one may use, names, certificates.

Works against Keytos' service and against Muster. Two of its habits shape this module: some
answers are bare JSON and some are wrapped as `{"Success", "Message"}`, and a wrapped refusal
comes with status 200.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from cryptography import x509

from muster.certs.encoding import certificate_der
from muster.client.errors import ServiceError, one_line
from muster.client.exchange import (
    Answer,
    Bearer,
    Exchange,
    Request,
    ask,
    base_url,
    decode,
    json_request,
)
from muster.client.tokens import RESOURCE_MANAGER_SCOPE, token_claims
from muster.errors import Kind, Problem

PUBLIC_URL = "https://portal.ezca.io"

SERVER_AND_CLIENT = ("1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2")
_KEY_USAGES = ("Key Encipherment", "Digital Signature")

# GeneralName tags of `SubjectAltType`: the two that are documented.
DNS_NAME = 2
IP_ADDRESS = 7


class Authority(msgspec.Struct, frozen=True, rename="pascal"):
    """One certificate authority with one of its templates, as `GetAvailableSSLCAs` lists them."""

    ca_id: str = msgspec.field(name="CAID")
    template_id: str = msgspec.field(name="TemplateID")
    friendly_name: str | None = msgspec.field(name="CAFriendlyName", default=None)
    template_type: str | None = msgspec.field(name="CATemplateType", default=None)
    key_type: str | None = msgspec.field(name="CAKeyType", default=None)
    hashing: str | None = msgspec.field(name="CAHashing", default=None)
    maximum_days: int | None = msgspec.field(name="MaxCertLifeDays", default=None)

    @property
    def name(self) -> str:
        """What to call it in a menu."""
        return self.friendly_name or self.ca_id


class DirectoryObject(msgspec.Struct, frozen=True):
    """A person or a machine in the directory, as owners and requesters are named."""

    object_id: str | None = msgspec.field(name="ObjectId", default="")
    friendly_name: str | None = msgspec.field(name="FriendlyName", default="")
    object_type: str = msgspec.field(name="ObjectType", default="User")
    is_valid: bool = msgspec.field(name="isValid", default=True)


class AlternativeName(msgspec.Struct, frozen=True):
    """A subject alternative name with its kind (`DNS_NAME`, `IP_ADDRESS`)."""

    value: str = msgspec.field(name="ValueSTR")
    kind: int = msgspec.field(name="SubjectAltType", default=DNS_NAME)


class CertificateRequest(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """What a certificate is asked for with. `csr` is PEM; the defaults are the samples'."""

    subject_name: str
    csr: str = msgspec.field(name="CSR")
    subject_alt_names: Sequence[str] | Sequence[AlternativeName] = ()
    validity_in_days: int = 10
    ekus: Sequence[str] = msgspec.field(name="EKUs", default=SERVER_AND_CLIENT)
    key_usages: Sequence[str] = _KEY_USAGES
    selected_location: str = "IoT Device"


class IssuedChain(msgspec.Struct, frozen=True):
    """A certificate, its issuer and, when that is another, the root: PEM texts."""

    certificate: str = msgspec.field(name="CertificatePEM")
    issuing_ca: str | None = msgspec.field(name="IssuingCACertificate", default=None)
    root: str | None = msgspec.field(name="RootCertificate", default=None)

    @property
    def chain(self) -> list[str]:
        """The PEM texts that are there, leaf first. EZCA has sent "" for "none"."""
        return [pem for pem in (self.certificate, self.issuing_ca, self.root) if pem]


class _Result(msgspec.Struct, frozen=True, rename="pascal"):
    success: bool = False
    message: str | None = None


class Ezca:
    """EZCA at *url*. Tokens are asked for *scope*, Azure Resource Manager's by custom."""

    def __init__(self, url: str = PUBLIC_URL, *, scope: str = RESOURCE_MANAGER_SCOPE) -> None:
        self.url = base_url(url)
        self._authorization = Bearer(scope)

    def available_authorities(self) -> Exchange[list[Authority]]:
        """Return the authorities and templates that the caller may request from; maybe none."""
        purpose = "get the available CAs"
        request = self._request("GET", "GetAvailableSSLCAs", None, purpose, repeatable=True)
        answer = yield from ask(request)
        return decode(answer, list[Authority], purpose)

    def register_name(
        self,
        authority: Authority,
        name: str,
        *,
        owners: Sequence[DirectoryObject],
        requesters: Sequence[DirectoryObject],
    ) -> Exchange[str]:
        """Register *name* so that *requesters* may ask for certificates in it; return the message.

        Not repeatable: the service refuses a name that is registered already.
        """
        purpose = f"register {name!r}"
        body = {
            **_of(authority),
            "Domain": name,
            "Owners": list(owners),
            "Requesters": list(requesters),
        }
        request = self._request("POST", "RegisterNewDomain", body, purpose, repeatable=False)
        return _message((yield from ask(request)), purpose)

    def request_certificate(
        self, authority: Authority, wanted: CertificateRequest
    ) -> Exchange[x509.Certificate]:
        """Return a certificate for *wanted*, whose alternative names are plain strings.

        Does not check that the certificate says what was asked for.
        """
        purpose = f"get a certificate for {wanted.subject_name!r}"
        # The members that only matter when a key lives in Azure Key Vault; EZCA expects them.
        unused = {
            "ResourceID": "",
            "SecretName": "",
            "AKVName": "",
            "AutoRenew": False,
            "AutoRenewPercentage": 80,
        }
        body = {**_of(authority), **msgspec.to_builtins(wanted), **unused}
        request = self._request("POST", "RequestSSLCertificate", body, purpose, repeatable=False)
        return _certificate(_message((yield from ask(request)), purpose), purpose)

    def request_chain(
        self, authority: Authority, wanted: CertificateRequest
    ) -> Exchange[IssuedChain]:
        """Return a certificate with its issuers for *wanted*, whose alternative names are typed."""
        purpose = f"get a certificate for {wanted.subject_name!r}"
        body = {**_of(authority), **msgspec.to_builtins(wanted)}
        request = self._request("POST", "RequestSSLCertificateV2", body, purpose, repeatable=False)
        return decode((yield from ask(request)), IssuedChain, purpose)

    def _request(
        self, method: str, name: str, body: Any, purpose: str, *, repeatable: bool
    ) -> Request:
        return json_request(
            method,
            f"{self.url}/api/CA/{name}",
            body,
            purpose=purpose,
            repeatable=repeatable,
            authorization=self._authorization,
        )


def caller_of(token: str) -> DirectoryObject:
    """Return whom *token* was issued to, as the samples name the owner of a device.

    A machine's token has no `upn`; EZCA takes null for the name then.
    """
    claims = token_claims(token)
    return DirectoryObject(object_id=claims.get("oid"), friendly_name=claims.get("upn"))


def _of(authority: Authority) -> dict[str, str]:
    return {"CAID": authority.ca_id, "TemplateID": authority.template_id}


def _message(answer: Answer, purpose: str) -> str:
    result = decode(answer, _Result, purpose)
    message = result.message or ""
    if not result.success:
        raise ServiceError(
            Kind.FORBIDDEN,
            f"could not {purpose}: {one_line(message) or 'no reason was given'}",
            status=answer.status,
        )
    return message


def _certificate(text: str, purpose: str) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(certificate_der(text))
    except Problem:
        raise ServiceError(
            Kind.UNAVAILABLE, f"could not {purpose}: the answer is not one certificate"
        ) from None
