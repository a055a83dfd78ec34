"""The MQTT dialects of provisioning clients, byte for byte, against the wire.

Each test plays one SDK as facts describe it: what it sends, in which order, and what it insists
on. No sockets: the machine is pumped by hand.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.support.pki import Credential
from tests.support.provisioning import ID_SCOPE, World, a_world, peer_of

from muster.endpoints.provisioning.mqtt import ProvisioningMqtt, ProvisioningMqttSession
from muster.errors import Kind, Problem
from muster.model.enrollment import CaReferences, ProvisioningStatus
from muster.model.peer import Peer
from muster.protocols.mqtt.events import ConnectRequested
from muster.protocols.mqtt.server import ServerConnection
from muster.provisioning.enrollments import GroupSettings

REGISTER = "$dps/registrations/PUT/iotdps-register/?$rid={rid}"
POLL = "$dps/registrations/GET/iotdps-get-operationstatus/?$rid={rid}&operationId={id}"
ANSWERS = "$dps/registrations/res/#"


def text(value: str | bytes) -> bytes:
    """A length-prefixed field."""
    data = value.encode() if isinstance(value, str) else value
    return len(data).to_bytes(2, "big") + data


def packet(first: int, body: bytes) -> bytes:
    """A whole packet."""
    length, left = bytearray(), len(body)
    while True:
        left, digit = divmod(left, 128)
        length.append(digit | (0x80 if left else 0))
        if not left:
            return bytes([first]) + bytes(length) + body


def connect_packet(
    name: str = "dev-1",
    *,
    flags: int = 0x82,
    keep_alive: int = 60,
    version: str = "api-version=2019-03-31&ClientVersion=x",
    client_id: str | None = None,
    user_name: str | None = None,
    more: bytes = b"",
    password: str | None = None,
) -> bytes:
    """CONNECT; flags 0x82 are a user name and a clean session."""
    user = user_name or f"{ID_SCOPE}/registrations/{name}/{version}"
    body = text("MQTT") + bytes([4, flags]) + keep_alive.to_bytes(2, "big")
    body += text(client_id or name) + more + text(user)
    return packet(0x10, body if password is None else body + text(password))


def publish_packet(topic: str, body: bytes, *, qos: int, packet_id: int = 1) -> bytes:
    """PUBLISH."""
    identifier = packet_id.to_bytes(2, "big") if qos else b""
    return packet(0x30 | qos << 1, text(topic) + identifier + body)


def subscribe_packet(*filters: tuple[str, int], packet_id: int = 1) -> bytes:
    """SUBSCRIBE."""
    pairs = b"".join(text(name) + bytes([qos]) for name, qos in filters)
    return packet(0x82, packet_id.to_bytes(2, "big") + pairs)


@dataclass(frozen=True)
class Answer:
    """A PUBLISH of the server."""

    topic: str
    qos: int
    packet_id: int
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON, which must be one object in ASCII."""
        document = json.loads(self.body.decode("ascii"))
        assert isinstance(document, dict)
        return document

    @property
    def status(self) -> int:
        """The status in the topic."""
        return int(self.topic.split("/")[3])


@dataclass
class Device:
    """A client that writes bytes and reads packets."""

    world: World
    credential: Credential
    machine: ServerConnection = field(init=False)
    session: ProvisioningMqttSession | None = None
    sent: bytearray = field(default_factory=bytearray)
    flushed: asyncio.Event = field(default_factory=asyncio.Event)
    closed_for: str | None = None

    def __post_init__(self) -> None:
        """Dial."""
        self.machine = ServerConnection(now=0.0)

    # The driver's `Link`.

    def flush(self) -> None:
        """Collect what the machine says."""
        self._pump()
        self.flushed.set()

    def close(self, reason: str) -> None:
        """Take note that the server closes."""
        self.closed_for = reason

    def pause_reading(self) -> None:
        """Nothing is read here."""

    def resume_reading(self) -> None:
        """Nothing is read here."""

    # The client.

    async def connect(self, data: bytes | None = None, peer: Peer | None = None) -> bytes:
        """Send CONNECT as the front door takes it; return what came back."""
        self.machine.receive(data or connect_packet(), 0.0)
        [request] = self.machine.events()
        assert isinstance(request, ConnectRequested)
        wire = ProvisioningMqtt(self.world.registrar, self.world.clock)
        self.session = await wire.connect(
            request, peer or peer_of(self.credential), self.machine, self
        )
        self.machine.accept(
            session_present=self.session.session_present,
            keep_alive=self.session.keep_alive,
            now=0.0,
        )
        self.session.handle(())
        return self.take()

    def send(self, *packets: bytes) -> None:
        """Send bytes."""
        self.machine.receive(b"".join(packets), 0.0)
        self._pump()

    def take(self) -> bytes:
        """Return the bytes that arrived since."""
        self._pump()
        data, self.sent = bytes(self.sent), bytearray()
        return data

    async def packets(self, count: int) -> list[tuple[int, bytes]]:
        """Wait for *count* packets: (first byte, body)."""
        found: list[tuple[int, bytes]] = []
        while True:
            self.flushed.clear()
            data = self.take()
            while data:
                length, shift, place = 0, 0, 1
                while True:
                    digit = data[place]
                    length |= (digit & 0x7F) << shift
                    place, shift = place + 1, shift + 7
                    if digit < 0x80:
                        break
                found.append((data[0], data[place : place + length]))
                data = data[place + length :]
            if len(found) >= count:
                return found
            await asyncio.wait_for(self.flushed.wait(), 5)

    async def answer(self) -> Answer:
        """Wait for one packet, which must be a PUBLISH."""
        [found] = await self.packets(1)
        return as_answer(found)

    async def ask(self, topic: str, body: bytes = b"", *, packet_id: int = 7) -> Answer:
        """Publish at QoS 1; return the answer that follows the PUBACK."""
        self.send(publish_packet(topic, body, qos=1, packet_id=packet_id))
        puback, answer = await self.packets(2)
        assert puback == (0x40, packet_id.to_bytes(2, "big"))
        return as_answer(answer)

    def _pump(self) -> None:
        while events := self.machine.events():
            if self.session is not None:
                try:
                    self.session.handle(events)
                except Problem as problem:  # as the front door does
                    self.machine.fail(problem.detail)
                    self.closed_for = problem.detail
        self.sent += self.machine.data_to_send()


def as_answer(found: tuple[int, bytes]) -> Answer:
    """Read a PUBLISH."""
    first, body = found
    assert first & 0xF0 == 0x30
    size = int.from_bytes(body[:2], "big")
    qos = first >> 1 & 3
    start = 2 + size + (2 if qos else 0)
    packet_id = int.from_bytes(body[2 + size : start], "big")
    return Answer(body[2 : 2 + size].decode(), qos, packet_id, body[start:])


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A provisioning service."""
    async with a_world(tmp_path) as opened:
        yield opened


@pytest.fixture
async def device(world: World) -> AsyncIterator[Device]:
    """A device that has not connected yet."""
    made = Device(world, world.root.leaf("dev-1"))
    yield made
    if made.session is not None:
        made.session.closed("end of test")


async def connected(device: Device, qos: int = 1) -> Device:
    """Connect and subscribe."""
    await device.connect()
    device.send(subscribe_packet((ANSWERS, qos)))
    device.take()
    return device


# Dialects


async def test_python(device: Device) -> None:
    """Clean session 0, QoS 1, a body with a null payload, the operation id percent-encoded."""
    connack = await device.connect(connect_packet(flags=0x80))
    assert connack == b"\x20\x02\x00\x00"  # SessionPresent 0 although CleanSession is 0
    device.send(subscribe_packet((ANSWERS, 1)))
    assert device.take() == b"\x90\x03\x00\x01\x01"
    rid = "3d1f6a3e-6c3b-4a1c-8c4e-2f5d8f0f6f6f"
    body = b'{"payload": null, "registrationId": "dev-1"}'
    begun = await device.ask(REGISTER.format(rid=rid), body, packet_id=2)
    assert begun.topic == f"$dps/registrations/res/202/?$rid={rid}&retry-after=1"
    assert begun.json["status"] == "assigning"
    await device.world.registrar.settle()
    operation_id = begun.json["operationId"].replace("-", "%2D").replace(".", "%2E")
    done = await device.ask(POLL.format(rid="other", id=operation_id), b" ", packet_id=3)
    assert done.topic == "$dps/registrations/res/200/?$rid=other"
    state = done.json["registrationState"]
    # Without any one of these the SDK waits for ever.
    assert (state["assignedHub"], state["deviceId"], state["substatus"]) == (
        "hub-1.example",
        "dev-1",
        "initialAssignment",
    )


async def test_dotnet(device: Device) -> None:
    """Zero-length bodies, small numbers as `$rid`, and PUBACK strictly before the answer."""
    await device.connect(connect_packet(flags=0x82, keep_alive=300))
    device.send(subscribe_packet((ANSWERS, 1), packet_id=1))
    assert device.take() == b"\x90\x03\x00\x01\x01"
    device.send(publish_packet(REGISTER.format(rid="1"), b"", qos=1, packet_id=2))
    puback, publish = await device.packets(2)
    assert puback == (0x40, b"\x00\x02")
    answer = as_answer(publish)
    assert answer.topic.startswith("$dps/registrations/res/202/?$rid=1&")
    assert (answer.qos, answer.packet_id > 0) == (1, True)
    device.send(packet(0x40, answer.packet_id.to_bytes(2, "big")))
    await device.world.registrar.settle()
    done = await device.ask(POLL.format(rid="2", id=answer.json["operationId"]))
    assert done.status == 200


async def test_dotnet_with_a_payload(device: Device) -> None:
    """A custom payload comes without a registration id."""
    await connected(device)
    answer = await device.ask(REGISTER.format(rid="1"), b'{"payload":{"a":{"b":[1,2]}}}')
    assert answer.status == 202


async def test_java_and_c(device: Device) -> None:
    """Publishes at QoS 0, so no PUBACK; the poll repeats the register body."""
    await connected(device)
    body = b'{"registrationId":"dev-1"}'
    device.send(publish_packet(REGISTER.format(rid="1"), body, qos=0))
    begun = await device.answer()
    assert (begun.status, begun.qos) == (202, 1)
    assert begun.topic.split("&")[1].startswith("retry-after=")  # Java: a segment of its own
    await device.world.registrar.settle()
    poll = POLL.format(rid="2", id=begun.json["operationId"])
    device.send(publish_packet(poll, body, qos=0))
    assert (await device.answer()).status == 200


async def test_c_speaks_another_version(device: Device) -> None:
    """Any api-version, and a user agent with what C puts there, are fine."""
    version = "api-version=2021-06-01&ClientVersion=prov_device_client/1.14.1 (Linux%3b x86_64)"
    assert await device.connect(connect_packet(version=version)) == b"\x20\x02\x00\x00"


async def test_embedded_c(device: Device) -> None:
    """The same `$rid` for everything, a subscription at QoS 0, no client version."""
    await device.connect(connect_packet(version="api-version=2019-03-31"))
    device.send(subscribe_packet((ANSWERS, 0)))
    assert device.take() == b"\x90\x03\x00\x01\x00"
    begun = await device.ask(REGISTER.format(rid="1"), b'{"registrationId":"dev-1","payload":{}}')
    assert begun.qos == 0
    await device.world.registrar.settle()
    done = await device.ask(POLL.format(rid="1", id=begun.json["operationId"]))
    assert done.topic == "$dps/registrations/res/200/?$rid=1"
    document = done.json
    assert {"status", "operationId"} <= set(document)
    assert all(value is not None for value in document["registrationState"].values())


async def test_node(device: Device) -> None:
    """Node unsubscribes before it leaves, and parses every body as JSON."""
    await connected(device)
    begun = await device.ask(REGISTER.format(rid="a-b-c"), b'{"registrationId":"dev-1"}')
    assert begun.status == 202
    device.send(packet(0xA2, b"\x00\x09" + text(ANSWERS)))
    assert device.take() == b"\xb0\x02\x00\x09"
    device.send(packet(0xE0, b""))
    assert device.machine.finished  # the driver closes the socket, which Node waits for


async def test_a_subscription_at_qos_2_is_granted_at_1(device: Device) -> None:
    """The service's own rule."""
    await device.connect()
    device.send(subscribe_packet((ANSWERS, 2)))
    assert device.take() == b"\x90\x03\x00\x01\x01"


async def test_other_subscriptions_are_refused(device: Device) -> None:
    """Nothing but the answers is to be had; each filter gets its own code."""
    await device.connect()
    filters = [
        ("#", 1),
        (ANSWERS, 1),
        ("$dps/registrations/#", 1),
        ("$dps/+/res/#", 0),
        ("devices/x/#", 0),
    ]
    device.send(subscribe_packet(*filters))
    assert device.take() == b"\x90\x07\x00\x01" + bytes([0x80, 1, 0x80, 0x80, 0x80])


# Answers


async def test_the_whole_registration_state(device: Device) -> None:
    """An assigned device is told all that the service's own answer has, in its own form."""
    await connected(device)
    begun = await device.ask(REGISTER.format(rid="1"))
    await device.world.registrar.settle()
    done = await device.ask(POLL.format(rid="2", id=begun.json["operationId"]))
    document = done.json
    assert (document["operationId"], document["status"]) == (begun.json["operationId"], "assigned")
    state = document["registrationState"]
    assert set(state) == {
        "x509",
        "registrationId",
        "createdDateTimeUtc",
        "assignedHub",
        "deviceId",
        "status",
        "substatus",
        "lastUpdatedDateTimeUtc",
        "etag",
    }
    assert state["x509"] == {"enrollmentGroupId": "factory"}
    assert len(state["createdDateTimeUtc"]) == len("2026-11-23T12:00:00.0000000Z")
    assert state["createdDateTimeUtc"].endswith("0Z")


async def test_polling_while_the_hub_is_busy(device: Device) -> None:
    """202 again, with the registration's id and how long to wait."""
    device.world.hubs.gate = asyncio.Event()
    await connected(device)
    begun = await device.ask(REGISTER.format(rid="1"))
    still = await device.ask(POLL.format(rid="2", id=begun.json["operationId"]))
    assert still.topic == "$dps/registrations/res/202/?$rid=2&retry-after=1"
    assert still.json == {
        "operationId": begun.json["operationId"],
        "status": "assigning",
        "registrationState": {"registrationId": "dev-1", "status": "assigning"},
    }


async def test_failed_assignment(device: Device) -> None:
    """Status 200 with the reason inside, as text and number, and no hub."""
    device.world.hubs.failures = [Problem(Kind.FORBIDDEN, "the link has no key \u00fc")]
    await connected(device)
    begun = await device.ask(REGISTER.format(rid="1"))
    await device.world.registrar.settle()
    done = await device.ask(POLL.format(rid="2", id=begun.json["operationId"]))
    assert done.status == 200
    assert b"\\u00fc" in done.body
    assert done.json["status"] == "failed"
    state = done.json["registrationState"]
    assert (state["errorCode"], state["registrationId"]) == (400209, "dev-1")
    assert state["errorMessage"] == "the link has no key \u00fc"
    assert "assignedHub" not in state


async def test_foreign_operation_is_404(device: Device) -> None:
    """A guessed id is told apart from nothing."""
    await connected(device)
    answer = await device.ask(POLL.format(rid="1", id="4.d0a6.00000000-0000"))
    assert answer.topic == "$dps/registrations/res/404/?$rid=1"
    assert set(answer.json) == {"errorCode", "trackingId", "message", "timestampUtc"}
    assert answer.json["errorCode"] == 404201


async def test_enrolment_disabled_meanwhile_is_401(device: Device) -> None:
    """What was true at CONNECT is not enough; the message says no more than it must."""
    await connected(device)
    off = GroupSettings("factory", CaReferences("root"), status=ProvisioningStatus.DISABLED)
    await device.world.put(off)
    answer = await device.ask(REGISTER.format(rid="1"))
    assert answer.topic == "$dps/registrations/res/401/?$rid=1"
    assert (answer.json["errorCode"], answer.json["message"]) == (401002, "Unauthorized")
    assert not device.world.hubs.calls


async def test_throttled_polls_are_429_with_a_wait(device: Device) -> None:
    """Python and Java send again after `retry-after`; Node parses the body."""
    await connected(device)
    answers = [await device.ask(POLL.format(rid="1", id="4.x")) for _ in range(11)]
    assert [one.status for one in answers] == [404] * 10 + [429]
    assert answers[-1].topic.endswith("&retry-after=1")
    assert answers[-1].json["errorCode"] == 429001


async def test_bug_is_500_and_costs_only_the_request(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unexpected failure says "internal error"; the connection lives on."""
    await connected(device)

    async def broken(*_: object) -> None:
        raise RuntimeError("secret detail")

    with monkeypatch.context() as patch:
        patch.setattr(device.world.registrar, "register", broken)
        answer = await device.ask(REGISTER.format(rid="1"))
    assert answer.status == 500
    assert answer.topic.endswith("&retry-after=1")
    assert (answer.json["errorCode"], answer.json["message"]) == (500001, "internal error")
    assert (await device.ask(REGISTER.format(rid="2"))).status == 202


async def test_answers_come_in_order(device: Device) -> None:
    """Several requests in one packet burst: PUBACK and answer of each, one after the other."""
    await connected(device)
    topics = [REGISTER.format(rid="1"), POLL.format(rid="2", id="x"), REGISTER.format(rid="3")]
    device.send(
        *(publish_packet(topic, b"", qos=1, packet_id=10 + n) for n, topic in enumerate(topics))
    )
    found = await device.packets(6)
    assert [one[1] for one in found[::2]] == [b"\0\x0a", b"\0\x0b", b"\0\x0c"]
    answers = [as_answer(one) for one in found[1::2]]
    assert [answer.status for answer in answers] == [202, 404, 202]
    assert ["$rid=" + rid in answer.topic for rid, answer in zip("123", answers, strict=True)]


async def test_nobody_subscribed_nothing_is_sent(device: Device) -> None:
    """The message is acknowledged when it is stored, and the answer has nowhere to go."""
    await device.connect()
    device.send(publish_packet(REGISTER.format(rid="1"), b"", qos=1, packet_id=5))
    assert await device.packets(1) == [(0x40, b"\x00\x05")]
    assert device.take() == b""


# Bad input


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"registrationId":"dev-2"}', 401),
        (b'{"registrationId":"DEV-1"}', 202),
        (b'{"registrationId":7}', 400),
        (b"not json", 400),
        (b'["dev-1"]', 400),
        (b'"dev-1"', 400),
        (b"null", 400),
        (b'{"payload":[1]}', 400),
        (b'{"payload":' + b'{"a":' * 5000 + b"1" + b"}" * 5001, 400),
        (b"\xff\xfe", 400),
        (b'{"tpm":{"endorsementKey":"x"}}', 501),
        (b'{"csr":"x"}', 501),
        (b'{"unknown":{"more":1}}', 202),
        (b" \r\n", 202),
        (b'{"payload":{"a":"' + b"x" * 98_304 + b'"}}', 413),
    ],
    ids=range(15),
)
async def test_bodies(device: Device, body: bytes, status: int) -> None:
    """A bad body is an answer with its reason, and leaves nothing behind."""
    await connected(device)
    answer = await device.ask(REGISTER.format(rid="1"), body)
    assert answer.status == status
    if status != 202:
        assert answer.json["errorCode"] // 1000 == status
        assert not device.world.hubs.calls


@pytest.mark.parametrize(
    "topic",
    [
        "devices/dev-1/messages/events/",
        "$dps/registrations/res/200/?$rid=1",
        "$dps/registrations/PUT/iotdps-register/",
        "$dps/registrations/PUT/iotdps-register/?rid=1",
        "$dps/registrations/PUT/iotdps-register/?$rid=",
        "$dps/registrations/DELETE/iotdps-register/?$rid=1",
        "$iothub/twin/GET/?$rid=1",
    ],
)
async def test_topics_that_cannot_be_answered_end_the_connection(
    device: Device, topic: str
) -> None:
    """Another topic, or a request without an id, has no other answer in MQTT 3.1.1."""
    await connected(device)
    device.send(publish_packet(topic, b"", qos=1))
    assert device.machine.finished
    assert device.closed_for
    assert not device.world.hubs.calls


@pytest.mark.parametrize("tail", ["", "&operationId=", "&operationId=%zz"])
async def test_a_poll_without_its_operation_is_400(device: Device, tail: str) -> None:
    """What has an id of its own can be told what it lacks."""
    await connected(device)
    topic = f"$dps/registrations/GET/iotdps-get-operationstatus/?$rid=9{tail}"
    answer = await device.ask(topic)
    assert answer.topic == "$dps/registrations/res/400/?$rid=9"


async def test_too_many_requests_at_once_end_the_connection(device: Device) -> None:
    """Nobody can queue work without end behind one connection."""
    device.world.hubs.gate = asyncio.Event()
    await connected(device)
    device.send(*(publish_packet(REGISTER.format(rid="1"), b"", qos=0) for _ in range(20)))
    assert device.machine.finished
    assert "wait" in str(device.closed_for)


# Who may connect


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ({"name": "dev-2"}, Kind.UNAUTHENTICATED),
        ({"client_id": "dev-2"}, Kind.FORBIDDEN),
        ({"user_name": "0neFFFFFFFF/registrations/dev-1/api-version=x"}, Kind.NOT_FOUND),
        ({"user_name": f"{ID_SCOPE}/registrations/dev_/api-version=x"}, Kind.MALFORMED),
        ({"user_name": "hub.example/dev-1/?api-version=x"}, Kind.MALFORMED),
        ({"flags": 0x86, "more": text("topic") + text("will")}, Kind.FORBIDDEN),
    ],
    ids=["name", "client id", "scope", "bad id", "hub", "will"],
)
async def test_connects_that_are_refused(device: Device, data: dict[str, Any], kind: Kind) -> None:
    """Each disagreement between certificate, user name and client id is a refusal."""
    with pytest.raises(Problem) as caught:
        await device.connect(connect_packet(**data))
    assert caught.value.kind is kind
    assert not device.world.hubs.calls


async def test_no_certificate_is_refused(device: Device) -> None:
    """Whoever presents nothing is nobody."""
    with pytest.raises(Problem) as caught:
        await device.connect(peer=Peer("127.0.0.1"))
    assert caught.value.kind is Kind.UNAUTHENTICATED


async def test_symmetric_keys_are_refused_clearly(device: Device) -> None:
    """A SAS password is another attestation; it is not passed over in silence."""
    data = connect_packet(flags=0xC2, password="SharedAccessSignature sr=x")
    with pytest.raises(Problem) as caught:
        await device.connect(data, peer=Peer("127.0.0.1"))
    assert caught.value.kind is Kind.UNSUPPORTED


async def test_leaving_in_the_middle_does_not_stop_the_assignment(device: Device) -> None:
    """A device that reconnects finds what it began."""
    device.world.hubs.gate = asyncio.Event()
    await connected(device)
    begun = await device.ask(REGISTER.format(rid="1"))
    assert device.session is not None
    device.session.closed("the peer went away")
    device.world.hubs.gate.set()
    await device.world.registrar.settle()
    again = Device(device.world, device.credential)
    await connected(again)
    done = await again.ask(POLL.format(rid="1", id=begun.json["operationId"]))
    assert (done.status, done.json["status"]) == (200, "assigned")
