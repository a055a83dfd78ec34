"""What is written of a message's origin is what its readers are shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.hub import NOW

from muster.hub.access import AuthMethod
from muster.hub.envelope import Flag, Sender, envelope_prefix, open_envelope, seal
from muster.ports.events import StoredEvent

SENDER = Sender("dev1", None, "generation-1", AuthMethod.CERTIFICATE.value)


def opened(envelope: bytes, payload: bytes = b"{}"):
    """Return the envelope as a reader of partition 3 sees it."""
    return open_envelope(3, StoredEvent(7, 4096, NOW, envelope, payload))


def test_annotations_say_where_a_message_comes_from() -> None:
    """Readers see the device, how it was authenticated, and where the event lies."""
    event = opened(seal(envelope_prefix(SENDER), ""))
    assert event.annotations == {
        "iothub-connection-device-id": "dev1",
        "iothub-connection-auth-method": AuthMethod.CERTIFICATE.value,
        "iothub-connection-auth-generation-id": "generation-1",
        "iothub-enqueuedtime": NOW,
        "iothub-message-source": "Telemetry",
        "x-opt-sequence-number": 7,
        "x-opt-offset": "4096",
        "x-opt-enqueued-time": NOW,
    }
    assert (event.partition, event.sequence_number, event.offset) == (3, 7, 4096)
    assert (event.enqueued, event.body) == (NOW, b"{}")
    assert event.system_properties == event.properties == {}


def test_properties_go_where_event_hubs_puts_them() -> None:
    """System properties, annotations and the device's own are told apart by their short names."""
    bag = (
        "%24.mid=m%201&$.cid=c%2F1&%24.uid=u&%24.to=%2Fx&%24.ct=application%2Fjson&%24.ce=utf-8"
        "&%24.exp=2026-11-23T00%3A00%3A00Z&%24.ifid=i&%24.sub=thermostat1"
        "&iothub-creation-time-utc=2026&temp%20alert=tr%2Bue%26x%3D%24&flag&empty="
    )
    event = opened(seal(envelope_prefix(SENDER), bag))
    assert event.system_properties == {
        "message-id": "m 1",
        "correlation-id": "c/1",
        "user-id": "u",
        "to": "/x",
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "absolute-expiry-time": "2026-11-23T00:00:00Z",
    }
    assert event.properties == {
        "iothub-creation-time-utc": "2026",
        "temp alert": "tr+ue&x=$",
        "flag": None,
        "empty": "",
    }
    assert event.annotations["iothub-interface-id"] == "i"
    assert event.annotations["dt-subject"] == "thermostat1"


def test_a_device_cannot_claim_what_the_hub_says() -> None:
    """Annotations come from the envelope and flags from the wire, whatever the bag says."""
    bag = "iothub-connection-device-id=other&iothub-MessageType=x&mqtt-retain=no"
    event = opened(seal(envelope_prefix(SENDER), bag, Flag.RETAIN | Flag.WILL))
    assert event.annotations["iothub-connection-device-id"] == "dev1"
    assert event.properties["iothub-MessageType"] == "Will"
    assert event.properties["mqtt-retain"] == "true"


TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=200)


@given(TEXT, st.none() | TEXT.filter(bool), TEXT, TEXT)
def test_every_sender_comes_back(device: str, module: str | None, generation: str, by: str) -> None:
    """Lengths and encodings of the fields do not disturb each other."""
    sender = Sender(device, module, generation, by)
    event = opened(seal(envelope_prefix(sender), "a=1", Flag.RETAIN))
    assert event.annotations["iothub-connection-device-id"] == device
    assert event.annotations.get("iothub-connection-module-id") == module
    assert event.annotations["iothub-connection-auth-generation-id"] == generation
    assert event.annotations["iothub-connection-auth-method"] == by
    assert event.properties == {"a": "1", "mqtt-retain": "true"}


def test_a_foreign_envelope_is_not_guessed_at() -> None:
    """Another version, another source or a cut raises, at every length."""
    good = seal(envelope_prefix(SENDER), "")
    for broken in (b"", b"\x02" + good[1:], b"\x01\xff" + good[2:]):
        with pytest.raises(ValueError):
            opened(broken)
    for length in range(len(good)):
        with pytest.raises(ValueError):
            opened(good[:length])
