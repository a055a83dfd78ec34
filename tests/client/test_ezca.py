"""EZCA's wire, as the real service and the real clients have it."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from muster.client.errors import ServiceError
from muster.client.ezca import (
    IP_ADDRESS,
    AlternativeName,
    Authority,
    CertificateRequest,
    DirectoryObject,
    Ezca,
    caller_of,
)
from muster.errors import Kind

AUTHORITY = Authority("ca-id", "template-id", "Devices")
EZCA = Ezca("https://ezca.test/")


@pytest.fixture(scope="module")
def certificate() -> x509.Certificate:
    """Any certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "device")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=10))
        .sign(key, hashes.SHA256())
    )


def test_available_authorities_are_a_bare_array(service, both):
    """Unknown keys are ignored, nulls are taken, and the token is Resource Manager's."""
    entry = {
        "CAID": "c",
        "TemplateID": "t",
        "CAFriendlyName": None,
        "MaxCertLifeDays": 90,
        "CAKeyType": "RSA 4096",
        "DomainRestrictions": "",
        "New": 1,
    }
    service.answer(json=[entry])
    (found,) = both(EZCA.available_authorities())
    assert (found.ca_id, found.template_id, found.name) == ("c", "t", "c")
    assert (found.maximum_days, found.key_type) == (90, "RSA 4096")
    assert str(service.requests[0].url) == "https://ezca.test/api/CA/GetAvailableSSLCAs"
    assert service.credential.asked == [("https://management.core.windows.net/.default",)]


def test_registering_a_name_sends_the_samples_keys(service, both):
    """The spelling of every key matters to the real service, `isValid` included."""
    service.answer(json={"Success": True, "Message": "Registered"})
    owner = DirectoryObject("oid", None)
    said = both(EZCA.register_name(AUTHORITY, "device-1", owners=[owner], requesters=[owner]))
    assert said == "Registered"
    person = {"ObjectId": "oid", "FriendlyName": None, "ObjectType": "User", "isValid": True}
    assert json.loads(service.requests[0].content) == {
        "CAID": "ca-id",
        "TemplateID": "template-id",
        "Domain": "device-1",
        "Owners": [person],
        "Requesters": [person],
    }


def test_a_wrapped_refusal_is_a_refusal(service, both):
    """Status 200 with Success=false is a no, and the Message is why."""
    service.answer(json={"Success": False, "Message": "Domain is already registered"})
    with pytest.raises(ServiceError) as caught:
        both(EZCA.register_name(AUTHORITY, "d", owners=[], requesters=[]))
    assert str(caught.value) == "could not register 'd': Domain is already registered"
    assert caught.value.kind is Kind.FORBIDDEN


def test_registration_is_not_repeated(service, both, waits):
    """The service refuses a name that exists, so a second try would hide a success."""
    service.answer(503)
    with pytest.raises(ServiceError):
        both(EZCA.register_name(AUTHORITY, "d", owners=[], requesters=[]))
    assert waits == []


@pytest.mark.parametrize("form", ["pem", "crlf", "base64"])
def test_a_certificate_comes_in_any_of_ezcas_forms(service, both, certificate, form):
    """PEM with either line end, or bare base64."""
    pem = certificate.public_bytes(Encoding.PEM).decode()
    text = {
        "pem": pem,
        "crlf": pem.replace("\n", "\r\n"),
        "base64": base64.b64encode(certificate.public_bytes(Encoding.DER)).decode(),
    }[form]
    service.answer(json={"Success": True, "Message": text})
    wanted = CertificateRequest(subject_name="CN=d", csr="CSR", subject_alt_names=["d"])
    assert both(EZCA.request_certificate(AUTHORITY, wanted)) == certificate
    sent = json.loads(service.requests[0].content)
    assert sent == {
        "CAID": "ca-id",
        "TemplateID": "template-id",
        "SubjectName": "CN=d",
        "CSR": "CSR",
        "SubjectAltNames": ["d"],
        "ValidityInDays": 10,
        "EKUs": ["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"],
        "KeyUsages": ["Key Encipherment", "Digital Signature"],
        "SelectedLocation": "IoT Device",
        "ResourceID": "",
        "SecretName": "",
        "AKVName": "",
        "AutoRenew": False,
        "AutoRenewPercentage": 80,
    }


@pytest.mark.parametrize("message", ["", "hello", None, "-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_what_is_no_certificate_is_refused(service, both, message):
    """A success without a certificate is the service's fault."""
    service.answer(json={"Success": True, "Message": message})
    with pytest.raises(ServiceError, match="not one certificate"):
        both(EZCA.request_certificate(AUTHORITY, CertificateRequest(subject_name="d", csr="")))


def test_a_chain_is_asked_for_with_typed_names(service, both):
    """V2 takes kinds of names and returns the issuers; "" means that there is none."""
    service.answer(json={"CertificatePEM": "L", "IssuingCACertificate": "I", "RootCertificate": ""})
    wanted = CertificateRequest(
        subject_name="CN=d",
        csr="CSR",
        subject_alt_names=[AlternativeName("d"), AlternativeName("10.0.0.1", IP_ADDRESS)],
    )
    assert both(EZCA.request_chain(AUTHORITY, wanted)).chain == ["L", "I"]
    assert service.requests[0].url.path == "/api/CA/RequestSSLCertificateV2"
    assert json.loads(service.requests[0].content)["SubjectAltNames"] == [
        {"ValueSTR": "d", "SubjectAltType": 2},
        {"ValueSTR": "10.0.0.1", "SubjectAltType": 7},
    ]


@pytest.mark.parametrize("upn", [None, "ada@example.org"])
def test_the_caller_is_read_from_the_token(upn):
    """A machine has an object id and no name."""
    claims = {"oid": "o"} | ({"upn": upn} if upn else {})
    caller = caller_of(jwt.encode(claims, "k" * 32, algorithm="HS256"))
    assert (caller.object_id, caller.friendly_name) == ("o", upn)
