"""The hub's topics, in both directions."""

from __future__ import annotations

from contextlib import suppress

import pytest
from azure.iot.device.iothub.pipeline import mqtt_topic_iothub as sdk
from hypothesis import given
from hypothesis import strategies as st

from muster.errors import Kind, Problem
from muster.ids import DeviceId
from muster.protocols.topics.hub import (
    DESIRED_FILTER,
    METHODS_FILTER,
    TWIN_ANSWERS_FILTER,
    Feed,
    MethodAnswer,
    Subscription,
    Telemetry,
    TwinGet,
    TwinReport,
    command_topic,
    desired_topic,
    input_topic,
    method_topic,
    parse_filter,
    parse_publish,
    telemetry_prefix,
    twin_answer_topic,
)

DEV, MOD = DeviceId("dev%1?"), DeviceId("$mod")
RID = "9e2e2f0a-5f0a-4f0e-8e0d-3a1c0a1b2c3d"


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        (telemetry_prefix(DEV), Telemetry(DEV, None, "")),
        (telemetry_prefix(DEV)[:-1], Telemetry(DEV, None, "")),
        (telemetry_prefix(DEV) + "a=b&c=d%2Fe", Telemetry(DEV, None, "a=b&c=d%2Fe")),
        (telemetry_prefix(DEV) + "%24.on=out/", Telemetry(DEV, None, "%24.on=out")),
        (
            telemetry_prefix(DEV) + "$.ct=application/json",
            Telemetry(DEV, None, "$.ct=application/json"),
        ),
        (telemetry_prefix(DEV, MOD) + "a=b", Telemetry(DEV, MOD, "a=b")),
        ("devices/modules/messages/events/", Telemetry("modules", None, "")),
        ("devices/other/messages/events/", Telemetry("other", None, "")),
        (sdk.get_telemetry_topic_for_publish(DEV, None), Telemetry(DEV, None, "")),
        (sdk.get_telemetry_topic_for_publish(DEV, MOD), Telemetry(DEV, MOD, "")),
        (sdk.get_method_topic_for_publish(RID, 200), MethodAnswer(RID, 200)),
        ("$iothub/methods/res/-1/?$rid=1&x=y", MethodAnswer("1", -1)),
        (sdk.get_twin_topic_for_publish("GET", "/", RID), TwinGet(RID)),
        (
            sdk.get_twin_topic_for_publish("PATCH", "/properties/reported/", RID),
            TwinReport(RID, None),
        ),
        ("$iothub/twin/PATCH/properties/reported/?$rid=a%2Fb&$version=7", TwinReport("a%2Fb", 7)),
        ("$iothub/twin/PATCH/properties/reported/?$version=7&$rid=a", TwinReport("a", 7)),
    ],
)
def test_what_devices_publish_to(topic: str, expected: object) -> None:
    """Each documented topic, as the Python SDK writes it and as looser clients do."""
    assert parse_publish(topic) == expected


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "/",
        "devices",
        "devices/",
        "devices//messages/events/",
        "devices/d",
        "devices/d/",
        "devices/d/messages",
        "devices/d/messages/",
        "devices/d/messages/eventsx",
        "devices/d/messages/devicebound/",
        "devices/d/Messages/events/",
        "Devices/d/messages/events/",
        "devices/d/modules//messages/events/",
        "devices/d/modules/m/",
        "devices/d/modules/m",
        "devices/d/modules/m/inputs/i/",
        "/devices/d/messages/events/",
        "devices/d/x/messages/events/",
        "$iothub/methods/POST/name/?$rid=1",
        "$iothub/twin/res/200/?$rid=1",
        "$iothub/twin/PATCH/properties/desired/?$rid=1",
        "$iothub/twin/PUT/?$rid=1",
        "$iothub/",
        "$SYS/x",
        "$dps/registrations/PUT/iotdps-register/?$rid=1",
    ],
)
def test_other_topics_are_forbidden(topic: str) -> None:
    """What nobody allowed is refused."""
    with pytest.raises(Problem) as caught:
        parse_publish(topic)
    assert caught.value.kind is Kind.FORBIDDEN


@pytest.mark.parametrize(
    "topic",
    [
        "$iothub/twin/GET/",
        "$iothub/twin/GET/?",
        "$iothub/twin/GET/?$rid",
        "$iothub/twin/GET/?$rid=",
        "$iothub/twin/GET/?rid=1",
        "$iothub/twin/GET/$rid=1",
        "$iothub/twin/GET/?$rid=1&$rid=2",
        "$iothub/twin/GET/?$rid=a b",
        "$iothub/twin/GET/?$rid=é",
        "$iothub/twin/GET/?$rid=" + "1" * 257,
        "$iothub/twin/PATCH/properties/reported/?$rid=1&$version=x",
        "$iothub/twin/PATCH/properties/reported/?$rid=1&$version=-1",
        "$iothub/twin/PATCH/properties/reported/?$rid=1&$version=" + "9" * 19,
        "$iothub/methods/res/?$rid=1",
        "$iothub/methods/res//?$rid=1",
        "$iothub/methods/res/ok/?$rid=1",
        "$iothub/methods/res/2.5/?$rid=1",
        "$iothub/methods/res/200?$rid=1",
        "$iothub/methods/res/200/",
        "$iothub/methods/res/9999999999/?$rid=1",
        "$iothub/methods/res/\u0662/?$rid=1",
    ],
)
def test_bad_requests_are_malformed(topic: str) -> None:
    """A request that cannot be answered is not taken."""
    with pytest.raises(Problem) as caught:
        parse_publish(topic)
    assert caught.value.kind is Kind.MALFORMED


@pytest.mark.parametrize(
    ("topic_filter", "expected"),
    [
        (sdk.get_c2d_topic_for_subscribe(DEV), Subscription(Feed.COMMANDS, DEV)),
        (sdk.get_input_topic_for_subscribe(DEV, MOD), Subscription(Feed.INPUTS, DEV, MOD)),
        (sdk.get_method_topic_for_subscribe(), Subscription(Feed.METHODS)),
        (sdk.get_twin_response_topic_for_subscribe(), Subscription(Feed.TWIN_ANSWERS)),
        (sdk.get_twin_patch_topic_for_subscribe(), Subscription(Feed.DESIRED)),
    ],
)
def test_documented_filters(topic_filter: str, expected: Subscription) -> None:
    """As the Python SDK writes them."""
    assert parse_filter(topic_filter) == expected


@pytest.mark.parametrize(
    "topic_filter",
    [
        "#",
        "+",
        "+/+",
        "$SYS/#",
        "$iothub/#",
        "$iothub/methods/#",
        "$iothub/methods/POST/+",
        "$iothub/twin/res/+/#",
        "devices/#",
        "devices/+/messages/devicebound/#",
        "devices/#/messages/devicebound/#",
        "devices//messages/devicebound/#",
        "devices/d/messages/devicebound/+",
        "devices/d/messages/devicebound/",
        "devices/d/messages/devicebound/a=b",
        "devices/d/messages/events/#",
        "devices/d/messages/#",
        "devices/d/modules/+/inputs/#",
        "devices/+/modules/m/inputs/#",
        "devices/d/modules/m/#",
        "",
    ],
)
def test_other_filters_are_forbidden(topic_filter: str) -> None:
    """Nobody hears of others by a wildcard, and nothing undocumented is granted."""
    with pytest.raises(Problem) as caught:
        parse_filter(topic_filter)
    assert caught.value.kind is Kind.FORBIDDEN


def test_the_python_sdk_reads_our_topics() -> None:
    """azure-iot-device's own parsers find what we put in."""
    command = command_topic(DEV, "a=b")
    assert sdk.is_c2d_topic(command, DEV)
    call = method_topic("re boot/now", "7")
    assert sdk.is_method_topic(call)
    assert sdk.get_method_name_from_topic(call) == "re boot/now"
    assert sdk.get_method_request_id_from_topic(call) == "7"
    answer = twin_answer_topic(204, RID, 9)
    assert sdk.is_twin_response_topic(answer)
    assert sdk.get_twin_request_id_from_topic(answer) == RID
    assert sdk.get_twin_status_code_from_topic(answer) == "204"
    assert sdk.is_twin_desired_property_patch_topic(desired_topic(3))
    message = input_topic(DEV, MOD, "in 1", "a=b")
    assert sdk.is_input_topic(message, DEV, MOD)
    assert sdk.get_input_name_from_topic(message) == "in 1"


def test_our_topics_are_what_is_documented() -> None:
    """To the letter, and under the filters that devices subscribe to."""
    assert command_topic(DEV, "a=b") == "devices/dev%1?/messages/devicebound/a=b"
    assert method_topic("m", "1") == "$iothub/methods/POST/m/?$rid=1"
    assert twin_answer_topic(200, "1") == "$iothub/twin/res/200/?$rid=1"
    assert twin_answer_topic(204, "1", 5) == "$iothub/twin/res/204/?$rid=1&$version=5"
    assert desired_topic(5) == "$iothub/twin/PATCH/properties/desired/?$version=5"
    assert method_topic("m", "1").startswith(METHODS_FILTER[:-1])
    assert twin_answer_topic(200, "1").startswith(TWIN_ANSWERS_FILTER[:-1])
    assert desired_topic(5).startswith(DESIRED_FILTER[:-1])


@given(st.text() | st.text(alphabet="devicsmonub/$?&=#+%1").map("$iothub/twin/GET/".__add__))
def test_random_text_never_raises_anything_else(text: str) -> None:
    """A topic is one of ours or a Problem."""
    for parse in (parse_publish, parse_filter):
        with suppress(Problem):
            parse(text)
