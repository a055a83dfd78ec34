"""The hub's MQTT wire, spoken to by a real client machine through the front door."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from tests.support.hub import HOST, a_device
from tests.support.hub_mqtt import Client, Server

from muster.errors import Kind, Problem
from muster.ids import DeviceId
from muster.protocols.mqtt.events import (
    ConnectionEnded,
    PublishAcknowledged,
    PublishReceived,
    UnsubscribeAnswered,
    Will,
)
from muster.protocols.mqtt.packets import encode_publish, encode_topic

OWN = "devices/dev1/messages/events/"
TWIN_ANSWERS = "$iothub/twin/res/#"


@pytest.fixture
def server() -> Server:
    """A hub with one device."""
    made = Server()
    made.devices.put(a_device())
    return made


@pytest.fixture
async def client(server: Server) -> Client:
    """The device, connected."""
    made = Client(server)
    assert (await made.connect()).code == 0
    return made


async def test_a_message_arrives_and_is_acknowledged_when_durable(client: Client) -> None:
    """The five messages of a device are stored in order, and only then acknowledged."""
    ids = [client.publish(OWN + f"n={n}", b"%d" % n) for n in range(5)]
    assert client.all(PublishAcknowledged) == []
    client.server.stream.settle()
    client.pump()
    assert [one.packet_id for one in client.all(PublishAcknowledged)] == ids
    assert [event.body for event in client.server.events()] == [b"0", b"1", b"2", b"3", b"4"]
    assert client.server.events()[0].annotations["iothub-connection-device-id"] == "dev1"


async def test_an_event_that_could_not_be_stored_closes(client: Client) -> None:
    """No PUBACK and a closed connection: the device will send again."""
    client.publish(OWN)
    client.server.stream.settle(Problem(Kind.UNAVAILABLE, "full"))
    client.pump()
    assert client.ended
    assert client.all(PublishAcknowledged) == []


CONNECTS = {
    "another client id": ({"client_id": "dev2"}, 5),
    "an unknown device": ({"device_id": "ghost"}, 5),
    "a wrong key": ({"password": b"SharedAccessSignature sr=x&sig=x&se=1"}, 5),
    "an unknown hub": ({"user_name": "elsewhere.example/dev1"}, 5),
    "a module": ({"user_name": f"{HOST}/dev1/m", "client_id": "dev1/m"}, 5),
    "no user name of ours": ({"user_name": "dev1"}, 4),
}


@pytest.mark.parametrize("name", CONNECTS)
async def test_a_refused_connect(server: Server, name: str) -> None:
    """The SDKs are told by code; nobody is registered."""
    arguments, code = CONNECTS[name]
    client = Client(server)
    assert (await client.connect(**arguments)).code == code
    assert client.ended
    assert server.sessions.count("hub-1") == 0


FORBIDDEN = [
    "devices/dev2/messages/events/",
    "devices/dev10/messages/events/",
    "devices/dev1/modules/m/messages/events/",
    "devices/dev1/messages/devicebound/",
    "$iothub/methods/POST/x/?$rid=1",
    "$iothub/twin/GET/",
    "$iothub/twin/res/200/?$rid=1",
    "$SYS/broker",
    "anything",
]


@pytest.mark.parametrize("topic", FORBIDDEN)
async def test_a_topic_that_is_not_the_device_s_ends_the_connection(
    client: Client, topic: str
) -> None:
    """Nothing is stored and nothing acknowledged, also of what came behind it."""
    client.device.publish(topic, b"x", qos=1)
    client.device.publish(OWN, b"y", qos=1)
    client.pump()
    assert client.ended
    assert client.server.stream.appended == []
    assert client.all(PublishAcknowledged) == []


@pytest.mark.parametrize("payload", [256 * 1024 + 1, 300 * 1024])
async def test_oversize_ends_the_connection(client: Client, payload: int) -> None:
    """256 KiB is the limit, as on IoT Hub."""
    packet = encode_publish(encode_topic(OWN), b"x" * payload, 1, 1, retain=False, duplicate=False)
    client.machine.receive(packet, client.server.clock.monotonic())
    client.pump()
    assert client.ended
    assert client.server.stream.appended == []


async def test_a_bad_bag_ends_the_connection(client: Client) -> None:
    """IoT Hub closes on a bag that breaks the grammar."""
    client.publish(OWN + "a=%zz")
    assert client.ended


async def test_documented_filters_are_granted_at_qos_1_at_most(client: Client) -> None:
    """The four filters of a device, whatever QoS it asks for."""
    filters = [
        ("devices/dev1/messages/devicebound/#", 1),
        ("$iothub/methods/POST/#", 0),
        (TWIN_ANSWERS, 2),
        ("$iothub/twin/PATCH/properties/desired/#", 1),
    ]
    assert client.subscribe(*filters) == (1, 0, 1, 1)
    assert not client.ended


@pytest.mark.parametrize(
    "name",
    [
        "#", "+/+", "$SYS/#", "devices/dev2/messages/devicebound/#",
        "devices/+/messages/devicebound/#",
        "devices/dev1/messages/events/#", "devices/dev1/#", "$iothub/#", "$iothub/twin/res/+",
        "devices/dev1/modules/m/inputs/#", "devices/dev10/messages/devicebound/#",
    ],
)  # fmt: skip
async def test_other_filters_are_refused(client: Client, name: str) -> None:
    """0x80 for each, beside what is granted in the same packet; the connection stays."""
    assert client.subscribe((name, 1), (TWIN_ANSWERS, 1)) == (0x80, 1)
    assert not client.ended


async def test_subscriptions_outlive_the_connection(server: Server, client: Client) -> None:
    """CleanSession 0 finds them again; 1 begins without, and leaves none."""
    client.subscribe((TWIN_ANSWERS, 1))
    again = Client(server)
    assert (await again.connect()).session_present
    again.publish("$iothub/twin/GET/?$rid=a")
    assert len(again.all(PublishReceived)) == 1
    clean = Client(server)
    assert not (await clean.connect(clean=True)).session_present
    clean.publish("$iothub/twin/GET/?$rid=b")
    assert clean.all(PublishReceived) == []
    last = Client(server)
    assert not (await last.connect()).session_present


async def test_unsubscribing(client: Client) -> None:
    """What was given up is no longer answered on."""
    client.subscribe((TWIN_ANSWERS, 1))
    client.device.unsubscribe([TWIN_ANSWERS, "never/had"])
    client.pump()
    client.one(UnsubscribeAnswered)
    client.publish("$iothub/twin/GET/?$rid=1")
    assert client.all(PublishReceived) == []


@pytest.mark.parametrize(
    "topic",
    [
        "$iothub/twin/GET/?$rid=4a2b-Z%201",
        "$iothub/twin/PATCH/properties/reported/?$rid=4a2b-Z%201",
        "$iothub/twin/PATCH/properties/reported/?$rid=4a2b-Z%201&$version=3",
    ],
)
async def test_twin_requests_are_answered_as_not_served(client: Client, topic: str) -> None:
    """With the request's id to the letter, and the body by which Node sees a failure."""
    client.subscribe((TWIN_ANSWERS, 1))
    packet_id = client.publish(topic, b" ")
    answer = client.one(PublishReceived)
    assert answer.topic == "$iothub/twin/res/501/?$rid=4a2b-Z%201"
    body = msgspec.json.decode(answer.payload)
    assert body["errorCode"] == 501001
    assert {"trackingId", "message", "timestampUtc"} < set(body)
    client.server.stream.settle()
    client.pump()
    assert [one.packet_id for one in client.all(PublishAcknowledged)] == [packet_id]


async def test_a_late_method_answer_harms_nobody(client: Client) -> None:
    """It is acknowledged and forgotten."""
    client.publish("$iothub/methods/res/200/?$rid=1")
    client.server.stream.settle()
    client.pump()
    client.one(PublishAcknowledged)
    assert client.server.stream.appended == []


async def test_a_newer_connection_drops_the_older(server: Server, client: Client) -> None:
    """The older one is closed, and whatever it still sends is not stored."""
    newer = Client(server)
    await newer.connect()
    assert "400027" in (client.closed_with or "")
    client.device.publish(OWN, b"late", qos=1)
    client.pump()
    assert server.stream.appended == []
    newer.publish(OWN)
    assert len(server.stream.appended) == 1


async def test_nothing_is_accepted_after_a_disconnect(server: Server, client: Client) -> None:
    """From the moment the hub was told, not from when the socket is gone."""
    server.sessions.disconnect("hub-1", DeviceId("dev1"), "revoked")
    client.device.publish(OWN, b"late", qos=1)
    client.machine.receive(client.device.data_to_send(), server.clock.monotonic())
    client.session.handle(client.machine.events())
    assert server.stream.appended == []


WILL = Will(OWN + "k=1", b"gone", qos=1, retain=False)


async def test_a_will_is_stored_when_the_device_vanishes(server: Server) -> None:
    """With the property that says so."""
    client = Client(server)
    await client.connect(will=WILL)
    client.vanish()
    server.stream.settle()
    (event,) = server.events()
    assert (event.body, event.properties) == (b"gone", {"k": "1", "iothub-MessageType": "Will"})


@pytest.mark.parametrize("how", ["disconnect", "refused"])
async def test_a_will_is_not_stored(server: Server, how: str) -> None:
    """After a farewell (MQTT-3.1.2-10), and when the device was refused to stay."""
    client = Client(server)
    await client.connect(will=WILL)
    if how == "disconnect":
        client.device.disconnect()
    else:
        server.sessions.disconnect("hub-1", DeviceId("dev1"), "revoked")
    client.pump()
    assert client.ended
    assert server.stream.appended == []


BAD_WILLS = {
    "another device's topic": (replace(WILL, topic="devices/dev2/messages/events/"), 5),
    "a bad bag": (replace(WILL, topic=OWN + "%"), 4),
    "QoS 2": (replace(WILL, qos=2), 5),
}


@pytest.mark.parametrize("name", BAD_WILLS)
async def test_a_bad_will_is_refused_at_connect(server: Server, name: str) -> None:
    """Not when the device has vanished, and nobody can be told."""
    will, code = BAD_WILLS[name]
    client = Client(server)
    assert (await client.connect(will=will)).code == code
    assert server.sessions.count("hub-1") == 0


async def test_the_registry_sees_the_device_come_and_go(server: Server, client: Client) -> None:
    """Connected while it is, and no longer when it has left."""
    assert server.sessions.connection_of("hub-1", DeviceId("dev1")).connected
    client.device.disconnect()
    client.pump()
    assert client.one(ConnectionEnded).graceful
    assert not server.sessions.connection_of("hub-1", DeviceId("dev1")).connected


async def test_a_stream_that_cannot_be_opened_leaves_no_session(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused CONNECT is no live session, whatever step refused it."""

    async def broken(*_: object, **__: object) -> None:
        raise Problem(Kind.UNAVAILABLE, "the disk is full")

    monkeypatch.setattr(server.log, "open_stream", broken)
    client = Client(server)
    assert (await client.connect()).code == 3
    assert server.sessions.count("hub-1") == 0
