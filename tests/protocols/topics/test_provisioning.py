"""The provisioning topics, in both directions."""

from __future__ import annotations

from contextlib import suppress

import pytest
from azure.iot.device.provisioning.pipeline import mqtt_topic_provisioning as sdk
from hypothesis import given
from hypothesis import strategies as st

from muster.errors import Kind, Problem
from muster.protocols.topics.provisioning import (
    ANSWER_FILTER,
    Poll,
    Register,
    answer_topic,
    parse_request,
)

POLL = "$dps/registrations/GET/iotdps-get-operationstatus/"
REGISTER = "$dps/registrations/PUT/iotdps-register/"


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        (f"{REGISTER}?$rid=1", Register("1")),
        (f"{REGISTER}?$rid=a%2Fb&other=x", Register("a%2Fb")),
        (f"{POLL}?$rid=1&operationId=4.d0a6-guid", Poll("1", "4.d0a6-guid")),
        (f"{POLL}?operationId=4.a%2Fb&$rid=7", Poll("7", "4.a/b")),
        (sdk.get_register_topic_for_publish("r 1"), Register("r%201")),
        (sdk.get_query_topic_for_publish("r1", "4.x/y z"), Poll("r1", "4.x/y z")),
    ],
)
def test_what_devices_ask(topic: str, expected: Register | Poll) -> None:
    """As SDKs write it: $rid to the letter, operationId decoded."""
    assert parse_request(topic) == expected


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "$dps",
        "$dps/registrations/",
        "$dps/registrations/PUT/iotdps-register?$rid=1",
        "$dps/registrations/GET/iotdps-register/?$rid=1",
        "$dps/registrations/res/200/?$rid=1",
        "$dps/registrations/put/iotdps-register/?$rid=1",
        "devices/d/messages/events/",
    ],
)
def test_other_topics_are_forbidden(topic: str) -> None:
    """What nobody allowed is refused."""
    with pytest.raises(Problem) as caught:
        parse_request(topic)
    assert caught.value.kind is Kind.FORBIDDEN


@pytest.mark.parametrize(
    "topic",
    [
        REGISTER,
        f"{REGISTER}?",
        f"{REGISTER}?$rid=",
        f"{REGISTER}?rid=1",
        f"{REGISTER}$rid=1",
        f"{REGISTER}?$rid=1&$rid=2",
        f"{REGISTER}x?$rid=1",
        f"{REGISTER}?$rid=" + "1" * 257,
        f"{REGISTER}?$rid=a b",
        POLL,
        f"{POLL}?$rid=1",
        f"{POLL}?operationId=1",
        f"{POLL}?$rid=1&operationId=",
        f"{POLL}?$rid=1&operationId=a&operationId=b",
        f"{POLL}?$rid=1&operationId=%",
        f"{POLL}?$rid=1&operationId=%00",
        f"{POLL}?$rid=1&operationId=" + "a" * 257,
    ],
)
def test_bad_requests_are_malformed(topic: str) -> None:
    """A request that cannot be answered, or that says two things, is not taken."""
    with pytest.raises(Problem) as caught:
        parse_request(topic)
    assert caught.value.kind is Kind.MALFORMED


def test_the_answer_has_one_shape() -> None:
    """$rid first and right behind the question mark, retry-after last, nothing else."""
    assert answer_topic(200, "1") == "$dps/registrations/res/200/?$rid=1"
    assert answer_topic(202, "a%2F", 3) == "$dps/registrations/res/202/?$rid=a%2F&retry-after=3"
    assert answer_topic(200, "1").startswith(ANSWER_FILTER[:-1])
    assert sdk.get_register_topic_for_subscribe() == ANSWER_FILTER


def test_the_python_sdk_reads_the_answer() -> None:
    """azure-iot-device's own parser, which is the most easily upset."""
    topic = answer_topic(202, "5f0a-1", 3)
    assert sdk.is_dps_response_topic(topic)
    assert sdk.extract_status_code_from_dps_response_topic(topic) == "202"
    assert sdk.extract_properties_from_dps_response_topic(topic) == {
        "rid": "5f0a-1",
        "retry-after": "3",
    }


@given(st.text() | st.text(alphabet="$rid=?&%operatnI1").map(POLL.__add__))
def test_random_text_never_raises_anything_else(text: str) -> None:
    """A request is a request or a Problem."""
    with suppress(Problem):
        parse_request(text)
