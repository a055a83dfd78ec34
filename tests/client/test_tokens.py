"""Credentials, from the environment to the token request."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from muster.client.errors import ServiceError
from muster.client.exchange import Bearer, Request, ask
from muster.client.tokens import (
    ClientCertificate,
    ClientSecret,
    FederatedToken,
    ManagedIdentity,
    credential_from_environment,
    token_claims,
)
from muster.errors import Kind, Problem

# What the sessions of conftest.py take for the present.
MOMENT = datetime(2026, 11, 23, 12, tzinfo=UTC)

APPLICATION = {"AZURE_TENANT_ID": "tenant", "AZURE_CLIENT_ID": "client"}
WANTED = Request(
    method="GET",
    url="https://x.test/",
    purpose="look",
    repeatable=True,
    authorization=Bearer("https://management.core.windows.net/.default"),
)


def pem_of(key) -> tuple[bytes, x509.Certificate]:
    """Return *key* with a self-signed certificate as one PEM text."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "station")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=400))
        .sign(key, hashes.SHA256())
    )
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return text + certificate.public_bytes(Encoding.PEM), certificate


@pytest.fixture(scope="module")
def rsa_key():
    """An RSA key; making one is slow."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def test_a_secret_becomes_a_token(service, both):
    """The form of OAuth 2's client credentials, the secret in the body."""
    service.credential = ClientSecret("tenant", "client", "s&cret", "https://login.test/")
    service.answer(json={"access_token": "T", "expires_in": 3600}).answer()
    both(ask(WANTED))
    asked, used = service.requests
    assert str(asked.url) == "https://login.test/tenant/oauth2/v2.0/token"
    assert parse_qs(asked.content.decode()) == {
        "grant_type": ["client_credentials"],
        "client_id": ["client"],
        "client_secret": ["s&cret"],
        "scope": ["https://management.core.windows.net/.default"],
    }
    assert used.headers["authorization"] == "Bearer T"


def test_federation_services_have_an_address_of_their_own(service, both):
    """The tenant `adfs` has no version in its path."""
    service.credential = ClientSecret("adfs", "client", "s", "https://login.test")
    service.answer(json={"access_token": "T", "expires_in": 3600}).answer()
    both(ask(WANTED))
    assert service.requests[0].url.path == "/adfs/oauth2/token"


def test_a_certificate_signs_an_assertion(service, both, rsa_key):
    """The assertion verifies under the certificate's key, names it, and ends soon."""
    pem, certificate = pem_of(rsa_key)
    service.credential = ClientCertificate("tenant", "client", pem, "https://login.test")
    service.answer(json={"access_token": "T", "expires_in": 3600}).answer()
    both(ask(WANTED))
    form = parse_qs(service.requests[0].content.decode())
    assertion = form["client_assertion"][0]
    claims = jwt.decode(
        assertion,
        certificate.public_key(),
        algorithms=["PS256"],
        audience="https://login.test/tenant/oauth2/v2.0/token",
        options={"verify_exp": False, "verify_nbf": False, "verify_iat": False},
    )
    assert claims["iss"] == claims["sub"] == "client"
    assert claims["exp"] - claims["nbf"] == 600
    thumbprint = jwt.get_unverified_header(assertion)["x5t#S256"]
    assert base64.urlsafe_b64decode(thumbprint + "=") == certificate.fingerprint(hashes.SHA256())


def test_a_certificate_file_must_hold_what_is_needed(service, both, rsa_key):
    """An EC key, or no certificate, is refused before anything is sent."""
    wrong = [pem_of(ec.generate_private_key(ec.SECP256R1()))[0], b"", pem_of(rsa_key)[0][:200]]
    for pem in wrong:
        service.credential = ClientCertificate("t", "c", pem, "https://login.test")
        with pytest.raises(Problem) as caught:
            both(ask(WANTED))
        assert caught.value.kind is Kind.MALFORMED


def test_a_federated_token_is_read_each_time(service, both, tmp_path):
    """The platform replaces the file; the token in it is used as it stands."""
    file = tmp_path / "token"
    file.write_text("a.b.c\n")
    service.credential = FederatedToken("tenant", "client", file, "https://login.test")
    service.answer(json={"access_token": "T", "expires_in": 3600}).answer()
    both(ask(WANTED))
    assert parse_qs(service.requests[0].content.decode())["client_assertion"] == ["a.b.c"]


def test_managed_identity_asks_for_a_resource(service, both):
    """The App Service form: the resource without `/.default`, the secret in its header."""
    service.credential = ManagedIdentity("http://127.0.0.1/msi/token", "secret", "user-assigned")
    ends = str(int(MOMENT.timestamp()) + 3600)
    service.answer(json={"access_token": "T", "expires_on": ends}).answer()
    both(ask(WANTED))
    asked = service.requests[0]
    assert asked.headers["x-identity-header"] == "secret"
    assert dict(asked.url.params) == {
        "api-version": "2019-08-01",
        "resource": "https://management.core.windows.net",
        "client_id": "user-assigned",
    }


@pytest.mark.parametrize(
    "document",
    [{}, {"access_token": "T"}, {"access_token": "", "expires_in": 1}, {"expires_in": 3600},
     {"access_token": 7, "expires_in": 3600}, {"access_token": "T", "expires_in": "soon"}],
)  # fmt: skip
def test_half_an_answer_is_no_token(service, both, document):
    """A token without an end, or an end without a token, is the token service's fault."""
    service.credential = ClientSecret("t", "c", "s", "https://login.test")
    service.answer(json=document)
    with pytest.raises(ServiceError, match="could not get a token"):
        both(ask(WANTED))


def test_a_refused_secret_is_explained(service, both):
    """The token service's own words reach the user, the secret does not."""
    service.credential = ClientSecret("t", "c", "hunter2", "https://login.test")
    service.answer(401, json={"error": "invalid_client", "error_description": "AADSTS7000215: no"})
    with pytest.raises(ServiceError) as caught:
        both(ask(WANTED))
    assert str(caught.value) == "could not get a token: AADSTS7000215: no (401 invalid_client)"
    assert "hunter2" not in repr(service.credential)


def test_the_environment_says_which_credential(tmp_path):
    """The variables of azure-identity, in its order; none of them means no credential."""
    file = tmp_path / "pem"
    file.write_bytes(b"pem")
    identity = {"IDENTITY_ENDPOINT": "http://127.0.0.1/msi", "IDENTITY_HEADER": "h"}
    assert credential_from_environment({}) is None
    assert credential_from_environment(APPLICATION) is None
    assert credential_from_environment(identity) == ManagedIdentity("http://127.0.0.1/msi", "h")
    secret = {**APPLICATION, **identity, "AZURE_CLIENT_SECRET": "s"}
    assert credential_from_environment(secret) == ClientSecret("tenant", "client", "s")
    host = {**secret, "AZURE_AUTHORITY_HOST": "https://localhost:8443/"}
    assert credential_from_environment(host) == ClientSecret(
        "tenant", "client", "s", "https://localhost:8443"
    )
    certificate = {**APPLICATION, "AZURE_CLIENT_CERTIFICATE_PATH": str(file)}
    assert credential_from_environment(certificate) == ClientCertificate("tenant", "client", b"pem")
    federated = {**APPLICATION, "AZURE_FEDERATED_TOKEN_FILE": str(file)}
    assert credential_from_environment(federated) == FederatedToken("tenant", "client", file)


@pytest.mark.parametrize(
    "environment",
    [{"AZURE_CLIENT_SECRET": "s"}, {**APPLICATION, "AZURE_CLIENT_CERTIFICATE_PATH": "/nowhere"},
     {**APPLICATION, "AZURE_CLIENT_SECRET": "s", "AZURE_AUTHORITY_HOST": "http://plain"}],
)  # fmt: skip
def test_a_half_set_application_is_an_error(environment):
    """Guessing another credential would hide the mistake."""
    with pytest.raises(Problem) as caught:
        credential_from_environment(environment)
    assert caught.value.kind is Kind.MALFORMED


@pytest.mark.parametrize("text", ["", "opaque", "a.b.c", "a.W10.c", "a.!.c"])
def test_claims_need_a_token(text):
    """An opaque token has no claims to read."""
    with pytest.raises(Problem):
        token_claims(text)


def test_claims_are_read_unverified():
    """Enough to tell the caller who it is."""
    token = jwt.encode({"oid": "o"}, "k" * 32, algorithm="HS256")
    assert token_claims(token) == {"oid": "o"}
