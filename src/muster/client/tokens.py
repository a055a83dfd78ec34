"""Credentials: how a program that holds a secret gets a token for a scope.

Ours are `TokenSource`s, written like every other exchange. A session also takes any object with
azure-identity's `get_token(*scopes)`, blocking or, in an `AsyncSession`, awaitable.

`credential_from_environment` reads the variables that azure-identity reads, so that a program set
up for `DefaultAzureCredential` needs no other setting here.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from urllib.parse import urlencode

import jwt
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from muster.client.errors import ServiceError
from muster.client.exchange import Exchange, Request, ask, base_url, decode
from muster.errors import Kind, Problem
from muster.ids import new_uuid

PUBLIC_AUTHORITY = "https://login.microsoftonline.com"
# What every EZCA client asks for (facts/ezca.md 1.2), and what a control plane takes.
RESOURCE_MANAGER_SCOPE = "https://management.core.windows.net/.default"
HUB_SCOPE = "https://iothubs.azure.net/.default"

# Entra ID takes assertions of up to a day; the SDKs make them last ten minutes.
_ASSERTION_LIFE = timedelta(minutes=10)
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_PURPOSE = "get a token"


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A bearer token and the moment it ends, in seconds since 1970."""

    token: str = field(repr=False)
    expires_on: float


@runtime_checkable
class TokenSource(Protocol):
    """A credential of this library."""

    def token(self, scope: str, now: datetime) -> Exchange[AccessToken]:
        """Return a token for *scope*; raises `ServiceError` when it is refused."""
        ...


class AzureCredential(Protocol):
    """The part of azure-identity's credentials that is used."""

    def get_token(self, *scopes: str) -> Any:
        """Return, or await to, an object with `token` and `expires_on`."""
        ...


Credential = TokenSource | AzureCredential


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """An application that proves itself with a secret (OAuth 2 client credentials)."""

    tenant_id: str
    client_id: str
    client_secret: str = field(repr=False)
    authority: str = PUBLIC_AUTHORITY

    def token(self, scope: str, now: datetime) -> Exchange[AccessToken]:
        """Return a token for *scope*; raises `ServiceError` when the secret is refused."""
        proof = {"client_secret": self.client_secret}
        return _client_credentials(self, proof, scope, now)


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """An application that proves itself with a certificate; *pem* holds its RSA key and it."""

    tenant_id: str
    client_id: str
    pem: bytes = field(repr=False)
    authority: str = PUBLIC_AUTHORITY

    def token(self, scope: str, now: datetime) -> Exchange[AccessToken]:
        """Return a token for *scope*.

        Raises `Problem(MALFORMED)` when *pem* does not hold an RSA key and a certificate,
        `ServiceError` when the certificate is refused.
        """
        proof = {
            "client_assertion_type": _ASSERTION_TYPE,
            "client_assertion": self._assertion(now),
        }
        return _client_credentials(self, proof, scope, now)

    def _assertion(self, now: datetime) -> str:
        try:
            key = load_pem_private_key(self.pem, None)
            certificate = x509.load_pem_x509_certificate(self.pem)
        except (ValueError, TypeError):
            raise Problem(
                Kind.MALFORMED,
                "a client certificate file holds a PEM key without password and a PEM certificate",
            ) from None
        if not isinstance(key, rsa.RSAPrivateKey):
            raise Problem(Kind.MALFORMED, "a client certificate's key must be RSA")
        thumbprint = base64.urlsafe_b64encode(certificate.fingerprint(hashes.SHA256()))
        claims = {
            "aud": _token_url(self.authority, self.tenant_id),
            "iss": self.client_id,
            "sub": self.client_id,
            "jti": new_uuid(),
            "iat": int(now.timestamp()),
            "nbf": int(now.timestamp()),
            "exp": int((now + _ASSERTION_LIFE).timestamp()),
        }
        header = {"x5t#S256": thumbprint.decode().rstrip("=")}
        return jwt.encode(claims, key, algorithm="PS256", headers=header)


@dataclass(frozen=True, slots=True)
class FederatedToken:
    """An application that proves itself with a token of another issuer (workload identity).

    *read_assertion* is called for each token, because the platform replaces the file.
    """

    tenant_id: str
    client_id: str
    assertion_file: Path
    authority: str = PUBLIC_AUTHORITY

    def token(self, scope: str, now: datetime) -> Exchange[AccessToken]:
        """Return a token for *scope*; raises `Problem(MALFORMED)` for an unreadable file."""
        proof = {
            "client_assertion_type": _ASSERTION_TYPE,
            "client_assertion": _read(self.assertion_file).decode("ascii", "replace").strip(),
        }
        return _client_credentials(self, proof, scope, now)


@dataclass(frozen=True, slots=True)
class ManagedIdentity:
    """The identity that the machine has (App Service form: an endpoint and a header's secret).

    The header is the only protection of this form: the endpoint belongs on the machine itself.
    """

    endpoint: str
    header: str = field(repr=False)
    client_id: str | None = None

    def token(self, scope: str, now: datetime) -> Exchange[AccessToken]:
        """Return a token for *scope*; raises `ServiceError` when the endpoint refuses."""
        params = {"api-version": "2019-08-01", "resource": scope.removesuffix("/.default")}
        if self.client_id:
            params["client_id"] = self.client_id
        request = Request(
            method="GET",
            url=self.endpoint,
            purpose=_PURPOSE,
            params=params,
            headers={"x-identity-header": self.header, "accept": "application/json"},
            repeatable=True,
        )
        answer = yield from ask(request)
        document = decode(answer, dict[str, Any], _PURPOSE)
        return _access_token(document, now)


def credential_from_environment(environment: Mapping[str, str]) -> TokenSource | None:
    """Return the credential that *environment* describes, or None when it describes none.

    In azure-identity's order: `AZURE_TENANT_ID` and `AZURE_CLIENT_ID` with
    `AZURE_CLIENT_SECRET`, `AZURE_CLIENT_CERTIFICATE_PATH` or `AZURE_FEDERATED_TOKEN_FILE`; then
    `IDENTITY_ENDPOINT` with `IDENTITY_HEADER`. `AZURE_AUTHORITY_HOST` names the token service.
    Developer sign-ins (CLI, browser) are left to azure-identity itself.

    Raises `Problem(MALFORMED)` for a half-set application and an unreadable certificate file.
    """
    tenant, client = environment.get("AZURE_TENANT_ID"), environment.get("AZURE_CLIENT_ID")
    secret = environment.get("AZURE_CLIENT_SECRET")
    certificate = environment.get("AZURE_CLIENT_CERTIFICATE_PATH")
    federated = environment.get("AZURE_FEDERATED_TOKEN_FILE")
    if secret or certificate or federated:
        if not tenant or not client:
            raise Problem(
                Kind.MALFORMED, "set AZURE_TENANT_ID and AZURE_CLIENT_ID beside the secret"
            )
        authority = base_url(environment.get("AZURE_AUTHORITY_HOST") or PUBLIC_AUTHORITY)
        if secret:
            return ClientSecret(tenant, client, secret, authority)
        if certificate:
            return ClientCertificate(tenant, client, _read(Path(certificate)), authority)
        return FederatedToken(tenant, client, Path(str(federated)), authority)
    endpoint, header = environment.get("IDENTITY_ENDPOINT"), environment.get("IDENTITY_HEADER")
    if endpoint and header:
        return ManagedIdentity(endpoint, header, client)
    return None


def token_claims(token: str) -> dict[str, Any]:
    """Return the claims of *token*, unverified: only for telling the caller who it is.

    Raises `Problem(MALFORMED)` for text that is not a JSON Web Token.
    """
    try:
        body = token.split(".")[1]
        claims = msgspec.json.decode(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (IndexError, binascii.Error, ValueError):
        raise Problem(Kind.MALFORMED, "the token is not a JSON Web Token") from None
    if not isinstance(claims, dict):
        raise Problem(Kind.MALFORMED, "the token is not a JSON Web Token")
    return claims


def _client_credentials(
    application: ClientSecret | ClientCertificate | FederatedToken,
    proof: Mapping[str, str],
    scope: str,
    now: datetime,
) -> Exchange[AccessToken]:
    form = {
        "grant_type": "client_credentials",
        "client_id": application.client_id,
        "scope": scope,
        **proof,
    }
    request = Request(
        method="POST",
        url=_token_url(application.authority, application.tenant_id),
        purpose=_PURPOSE,
        headers={
            "content-type": "application/x-www-form-urlencoded",
            "accept": "application/json",
        },
        content=urlencode(form).encode(),
        repeatable=True,
    )
    answer = yield from ask(request)
    return _access_token(decode(answer, dict[str, Any], _PURPOSE), now)


def _token_url(authority: str, tenant: str) -> str:
    # Tenant `adfs` is Active Directory Federation Services, whose endpoint has no version.
    path = "oauth2/token" if tenant == "adfs" else "oauth2/v2.0/token"
    return f"{base_url(authority)}/{tenant}/{path}"


def _access_token(document: Mapping[str, Any], now: datetime) -> AccessToken:
    token = document.get("access_token")
    try:
        # Managed identity answers in strings, OAuth 2 in numbers.
        if document.get("expires_on") is not None:
            ends = float(document["expires_on"])
        else:
            ends = now.timestamp() + float(document["expires_in"])
    except (KeyError, TypeError, ValueError):
        ends = 0.0
    if not isinstance(token, str) or not token or not ends:
        raise ServiceError(
            Kind.UNAVAILABLE, "could not get a token: the answer has no token or no end in it"
        )
    return AccessToken(token, ends)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Problem(Kind.MALFORMED, f"{path}: {error.strerror}") from None
