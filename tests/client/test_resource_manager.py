"""Azure Resource Manager: safe to repeat, patient, and careful with what others wrote."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from muster.client.errors import ServiceError
from muster.client.resource_manager import ResourceManager, ResourceType
from muster.client.shared_access import ConnectionString, SharedAccessKey
from muster.errors import Kind

MANAGER = ResourceManager("sub", "my group", url="https://arm.test")
PREFIX = "https://arm.test/subscriptions/sub/resourceGroups/my%20group/providers/Microsoft.Devices"
HUB, DPS = ResourceType.HUB, ResourceType.PROVISIONING


def resource(name: str, state: str = "Succeeded", **properties) -> dict:
    """Return a resource as the service shows it."""
    return {
        "name": name,
        "location": "westeurope",
        "tags": {"owner": "ada"},
        "sku": {"name": "S1", "capacity": 3},
        "properties": {"provisioningState": state, **properties},
    }


@pytest.fixture(scope="module")
def certificate() -> x509.Certificate:
    """A CA certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Devices")])
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


def sent(service, number: int = -1) -> dict:
    """Return the JSON body of a request."""
    return json.loads(service.requests[number].content)


def test_a_hub_that_exists_is_left_as_it_is(service, both):
    """`ensure` reads and does not write."""
    service.answer(json=resource("h")).answer(json=resource("h", hostName="h.test"))
    assert both(MANAGER.ensure(HUB, "h", location="local")).text("hostName") == "h.test"
    assert {request.method for request in service.requests} == {"GET"}
    assert str(service.requests[0].url) == f"{PREFIX}/IotHubs/h?api-version=2023-06-30"


def test_a_hub_is_made_and_waited_for(service, both, waits):
    """Azure takes minutes; the resource is read until its state is final."""
    service.answer(404).answer(201, json=resource("h", "Activating"))
    service.answer(json=resource("h", "Activating")).answer(json=resource("h"))
    assert both(MANAGER.ensure(HUB, "h", location="local", tags={"a": "b"})).state == "Succeeded"
    assert waits == [5.0]
    assert sent(service, 1) == {
        "location": "local",
        "tags": {"a": "b"},
        "sku": {"name": "S1", "capacity": 1},
        "properties": {},
    }


def test_a_hub_that_fails_or_never_settles_is_reported(service, both, waits):
    """The wait ends, one way or the other."""
    service.answer(json=resource("h")).answer(json=resource("h", "Failed"))
    with pytest.raises(ServiceError, match="the hub 'h' is Failed"):
        both(MANAGER.ensure(HUB, "h", location="local"))
    for _ in range(181):
        service.answer(json=resource("h", "Creating"))
    with pytest.raises(ServiceError, match="not ready after 900 s"):
        both(MANAGER.ensure(HUB, "h", location="local"))
    assert sum(waits) == 900


@pytest.mark.parametrize(("kind", "folder"), [(HUB, "IotHubKeys"), (DPS, "keys")])
def test_keys_are_read_by_post(service, both, kind, folder):
    """The two types spell the path differently."""
    service.answer(
        json={"keyName": "owner", "primaryKey": "cA==", "secondaryKey": "", "rights": "x"}
    )
    assert both(MANAGER.key(kind, "n", "owner")) == SharedAccessKey("owner", "cA==")
    request = service.requests[0]
    assert (request.method, request.url.path.rpartition("/n/")[2]) == (
        "POST",
        f"{folder}/owner/listkeys",
    )


def test_linking_a_hub_keeps_the_other_links(service, both):
    """Masked keys go back as they came, which means "keep"; the same host is replaced."""
    masked = {"connectionString": "HostName=other.test;SharedAccessKey=****", "location": "x"}
    named = {"name": "H.test", "location": "y"}
    service.answer(json=resource("d", idScope="0ne1", iotHubs=[masked, named])).answer()
    service.answer(json=resource("d"))
    connection = ConnectionString("h.test", SharedAccessKey("owner", "cA=="))
    both(MANAGER.link_hub("d", connection, location="local"))
    body = sent(service, 1)
    assert body["properties"]["iotHubs"] == [
        masked,
        {"connectionString": connection.render(), "location": "local"},
    ]
    assert (body["tags"], body["sku"]["capacity"]) == ({"owner": "ada"}, 3)
    assert body["location"] == "westeurope"
    assert "api-version=2022-12-12" in str(service.requests[1].url)


def test_trusting_a_ca_uploads_it_verified(service, both, certificate):
    """DER in base64, `isVerified`, and the answer has to agree."""
    service.answer(404).answer(201, json={"name": "ca", "properties": {"isVerified": True}})
    assert both(MANAGER.trust(HUB, "h", "ca", certificate)).is_verified
    assert sent(service) == {
        "properties": {
            "certificate": base64.b64encode(certificate.public_bytes(Encoding.DER)).decode(),
            "isVerified": True,
        }
    }
    assert "if-match" not in service.requests[1].headers


def test_trusting_a_ca_again_changes_nothing(service, both, certificate):
    """The same certificate, verified, is there already."""
    thumbprint = certificate.fingerprint(hashes.SHA1()).hex()
    service.answer(
        json={"name": "ca", "properties": {"isVerified": True, "thumbprint": thumbprint}}
    )
    both(MANAGER.trust(DPS, "d", "ca", certificate))
    assert [request.method for request in service.requests] == ["GET"]


def test_another_certificate_is_replaced_as_it_was_read(service, both, certificate):
    """The etag goes back, so that a change in between is not overwritten."""
    present = {"name": "ca", "etag": "v1", "properties": {"isVerified": True, "thumbprint": "00"}}
    service.answer(json=present).answer(412)
    with pytest.raises(ServiceError) as caught:
        both(MANAGER.trust(HUB, "h", "ca", certificate))
    assert caught.value.kind is Kind.PRECONDITION_FAILED
    assert service.requests[1].headers["if-match"] == "v1"


def test_an_unverified_upload_is_not_called_trust(service, both, certificate):
    """A service that ignores `isVerified` is found out."""
    service.answer(404).answer(json={"name": "ca", "properties": {"isVerified": False}})
    with pytest.raises(ServiceError, match="not verified"):
        both(MANAGER.trust(HUB, "h", "ca", certificate))


def test_pages_are_followed_on_the_same_host_only(service, both):
    """The token does not go to wherever a page points."""
    service.answer(json={"value": [resource("a")], "nextLink": f"{PREFIX}/IotHubs?page=2"})
    service.answer(json={"value": [resource("b")]})
    assert [hub.name for hub in both(MANAGER.list_resources(HUB))] == ["a", "b"]
    assert service.requests[1].url.params["page"] == "2"
    for link in ("https://evil.test/", "https://arm.test.evil.test/"):
        service.answer(json={"value": [], "nextLink": link})
        with pytest.raises(ServiceError, match="another host"):
            both(MANAGER.list_resources(HUB))


def test_a_list_without_end_is_cut(service, both):
    """A service that always has a next page is at fault."""
    for _ in range(100):
        service.answer(json={"value": [], "nextLink": f"{PREFIX}/IotHubs?page=2"})
    with pytest.raises(ServiceError, match="does not end"):
        both(MANAGER.list_resources(HUB))


def test_certificates_are_listed(service, both):
    """Thumbprints in one spelling."""
    service.answer(json={"value": [{"name": "ca", "properties": {"thumbprint": "ab"}}]})
    (found,) = both(MANAGER.list_certificates(HUB, "h"))
    assert (found.name, found.is_verified, found.thumbprint) == ("ca", False, "AB")


def test_deleting_what_is_not_there_is_done(service, both):
    """Delete is safe to repeat."""
    service.answer(204).answer(404)
    both(MANAGER.delete(HUB, "h"))
    both(MANAGER.delete(HUB, "h"))


def test_a_list_of_odd_entries_is_reported(service, both):
    """An entry without a name is no resource."""
    service.answer(json={"value": [{"id": 3}]})
    with pytest.raises(ServiceError, match="not what this API promises"):
        both(MANAGER.list_resources(HUB))
