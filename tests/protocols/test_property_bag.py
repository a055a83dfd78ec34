"""Property bags as devices send and receive them."""

from __future__ import annotations

from contextlib import suppress

import pytest
from azure.iot.device import Message
from azure.iot.device.iothub.pipeline.mqtt_topic_iothub import (
    encode_message_properties_in_topic,
    extract_message_properties_from_topic,
)
from hypothesis import given
from hypothesis import strategies as st

from muster.errors import Kind, Problem
from muster.protocols.property_bag import (
    MAX_PROPERTIES_SIZE,
    SYSTEM_KEYS,
    encode_property_bag,
    parse_property_bag,
    separate,
)

BAGS = [
    ("", {}),
    ("a=b", {"a": "b"}),
    ("a=b&c=d", {"a": "b", "c": "d"}),
    ("a&b=&c=d", {"a": None, "b": "", "c": "d"}),
    ("a%20b=c%2Fd%26e%3Df%24", {"a b": "c/d&e=f$"}),
    ("%24.mid=m%201&%24.cid=c%2F1&x=1", {"$.mid": "m 1", "$.cid": "c/1", "x": "1"}),
    ("a=%C3%A9%F0%9F%98%80", {"a": "é\U0001f600"}),
]


@pytest.mark.parametrize(("wire", "properties"), BAGS)
def test_round_trip(wire: str, properties: dict[str, str | None]) -> None:
    """One table drives both directions."""
    assert parse_property_bag(wire) == properties
    assert encode_property_bag(properties) == wire


@pytest.mark.parametrize(
    ("wire", "properties"),
    [
        ("$.mid=1&$.ct=application/json", {"$.mid": "1", "$.ct": "application/json"}),
        ("a=1+1", {"a": "1+1"}),
        ("a=b=c", {"a": "b=c"}),
        ("&a=1&&b=2&", {"a": "1", "b": "2"}),
        ("a=%252B", {"a": "%2B"}),
        ("k=é", {"k": "é"}),
    ],
)
def test_what_looser_clients_send(wire: str, properties: dict[str, str | None]) -> None:
    """Spellings that no SDK produces, and that mean one thing only."""
    assert parse_property_bag(wire) == properties


@pytest.mark.parametrize(
    "wire",
    [
        "=a",
        "a=1&=",
        "a=%",
        "a=%4",
        "%zz=1",
        "a=%FF",
        "a=%00",
        "a=1&a=2",
        "a&a",
        "%24.mid=1&$.mid=2",
    ],
)
def test_bad_bags_are_refused(wire: str) -> None:
    """Nothing is guessed, and no key has two values, however it is spelled."""
    with pytest.raises(Problem) as caught:
        parse_property_bag(wire)
    assert caught.value.kind is Kind.MALFORMED


def test_the_size_is_bounded() -> None:
    """Decoded bytes count, keys as well as values; the limit itself is allowed."""
    room = MAX_PROPERTIES_SIZE - 1
    assert parse_property_bag("k=" + "v" * room) == {"k": "v" * room}
    assert parse_property_bag("k=" + "%76" * room) == {"k": "v" * room}
    too_large = [
        "k=" + "v" * (room + 1),
        "k" * room + "=vv",
        "k=" + "é" * (room // 2 + 1),
        "&" * 50_000,
    ]
    for wire in too_large:
        with pytest.raises(Problem) as caught:
            parse_property_bag(wire)
        assert caught.value.kind is Kind.TOO_LARGE
    with pytest.raises(Problem) as caught:
        encode_property_bag({"k": "v" * (room + 1)})
    assert caught.value.kind is Kind.TOO_LARGE


@pytest.mark.parametrize("properties", [{"": "a"}, {"a\0": "b"}, {"a": "\0"}, {"a": "\ud800"}])
def test_what_no_bag_can_hold_is_not_encoded(properties: dict[str, str | None]) -> None:
    """Properties come from a service's request, so they are a Problem and not a bug."""
    with pytest.raises(Problem) as caught:
        encode_property_bag(properties)
    assert caught.value.kind is Kind.MALFORMED


def test_system_properties_are_told_apart() -> None:
    """By key alone, and unknown dollar keys are the application's."""
    system, application = separate(
        {"$.mid": "1", "$.xyz": "2", "iothub-creation-time-utc": "3", "a": None}
    )
    assert system == {"$.mid": "1", "iothub-creation-time-utc": "3"}
    assert application == {"$.xyz": "2", "a": None}
    assert len(SYSTEM_KEYS) == 11


def test_a_message_of_the_python_sdk_is_read() -> None:
    """azure-iot-device's own encoder, with everything that it can set."""
    message = Message(
        "body", message_id="m 1", content_encoding="utf-8", content_type="application/json"
    )
    message.correlation_id = "c/1"
    message.user_id = "u&1"
    message.output_name = "out"
    message.custom_properties = {"temp alert": "tr+ue&x=$", "z": "", "é": "ü"}
    assert parse_property_bag(encode_message_properties_in_topic(message, "")) == {
        "$.on": "out", "$.mid": "m 1", "$.cid": "c/1", "$.uid": "u&1",
        "$.ct": "application/json", "$.ce": "utf-8", "temp alert": "tr+ue&x=$", "z": "", "é": "ü",
    }  # fmt: skip


def test_the_python_sdk_reads_what_we_encode() -> None:
    """azure-iot-device's own decoder, on a cloud-to-device topic."""
    bag = encode_property_bag(
        {
            "$.mid": "m/1",
            "$.to": "/devices/d/messages/deviceBound",
            "iothub-ack": "full",
            "a b": "c=d&e",
            "f": None,
        }
    )
    message = Message("")
    extract_message_properties_from_topic(f"devices/d/messages/devicebound/{bag}", message)
    assert (message.message_id, message.ack) == ("m/1", "full")
    assert message.custom_properties == {"a b": "c=d&e", "f": None}


TEXT = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20)


@given(st.dictionaries(TEXT.filter(bool), TEXT | st.none(), max_size=10))
def test_any_properties_round_trip(properties: dict[str, str | None]) -> None:
    """Keys and values may hold anything but NUL; the bag is one segment of a topic name."""
    wire = encode_property_bag(properties)
    assert not set(wire) & set("/#+")
    assert parse_property_bag(wire) == properties


@given(st.text())
def test_random_text_never_raises_anything_else(text: str) -> None:
    """A bag is a bag or a Problem."""
    with suppress(Problem):
        parse_property_bag(text)
