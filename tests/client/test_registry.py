"""A hub's registry over REST."""

from __future__ import annotations

import json

import pytest

from muster.client.errors import ServiceError
from muster.client.registry import Registry
from muster.client.shared_access import ConnectionString, SharedAccessKey
from muster.errors import Kind

KEYED = Registry(
    ConnectionString("hub.test:8443", SharedAccessKey("service", "a2V5a2V5a2V5a2V5a2V5a2V5"))
)


def test_a_device_is_registered_for_a_ca_certificate(service, both):
    """The lighter sample's call: a token for the hub's audience, no keys."""
    service.answer(json={"deviceId": "d", "authentication": {"type": "certificateAuthority"}})
    device = both(Registry("hub.test").add_ca_device("d"))
    assert device.authentication_type == "certificateAuthority"
    request = service.requests[0]
    assert request.method == "PUT"
    assert str(request.url) == "https://hub.test/devices/d?api-version=2021-04-12"
    assert json.loads(request.content) == {
        "deviceId": "d",
        "authentication": {"type": "certificateAuthority"},
    }
    assert service.credential.asked == [("https://iothubs.azure.net/.default",)]


def test_a_device_that_exists_is_a_conflict(service, both, waits):
    """It is never repeated, so a conflict is somebody else's device."""
    service.answer(
        409,
        json={"Message": "ErrorCode:DeviceAlreadyExists;A device with ID 'd' exists"},
        iothub_errorcode="DeviceAlreadyExists",
    ).answer(503)
    with pytest.raises(ServiceError) as caught:
        both(KEYED.add_ca_device("d"))
    assert (caught.value.kind, caught.value.code) == (Kind.CONFLICT, "DeviceAlreadyExists")
    with pytest.raises(ServiceError):
        both(KEYED.add_ca_device("d"))
    assert waits == []


def test_device_ids_stay_one_segment(service, both):
    """An id may hold characters that a path must not."""
    service.answer(404)
    assert both(KEYED.find("a/b?c#d")) is None
    assert service.requests[0].url.raw_path.startswith(b"/devices/a%2Fb%3Fc%23d?")
    assert service.requests[0].headers["authorization"].startswith("SharedAccessSignature ")


def test_devices_are_listed_within_the_hubs_limit(service, both):
    """More than a thousand are not asked for."""
    service.answer(json=[{"deviceId": "a", "status": "disabled"}, {"deviceId": "b"}])
    found = both(KEYED.list_devices(5000))
    assert [(device.device_id, device.status) for device in found] == [
        ("a", "disabled"),
        ("b", "enabled"),
    ]
    assert found[1].authentication_type == "none"
    assert service.requests[0].url.params["top"] == "1000"


def test_deleting_takes_any_version(service, both):
    """`*`, quoted, as the SDKs send it."""
    service.answer(204)
    both(KEYED.delete("d"))
    assert service.requests[0].headers["if-match"] == '"*"'
