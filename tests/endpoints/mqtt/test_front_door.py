# ruff: noqa: D102 - wires and sessions are documented by their Protocols

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import pytest
from structlog.testing import capture_logs

from muster.endpoints.codes import CONNACK_CODE
from muster.endpoints.mqtt.front_door import MqttFrontDoor
from muster.errors import Kind, Problem
from muster.model.peer import Peer
from muster.net.driver import MachineApplication
from muster.net.listener import Listener
from muster.protocols.machine import Link
from muster.protocols.mqtt.events import ConnectRequested, PublishReceived
from muster.protocols.mqtt.packets import encode_connect, encode_publish, encode_topic
from muster.protocols.mqtt.server import ServerConnection

HUB = "localhost/dev1/?api-version=2021-04-12"
PROVISIONING = "0ne0000abcd/registrations/dev1/api-version=2019-03-31&ClientVersion=x"
PUBLISH = encode_publish(encode_topic("t"), b"hello", 1, 7, retain=False, duplicate=False)


@dataclass
class Session:
    """A wire's session that acknowledges messages and remembers what it was told."""

    machine: ServerConnection
    link: Link
    session_present: bool = False
    keep_alive: float | None = None
    calls: list[tuple] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    def handle(self, events: Sequence[object]) -> None:
        self.calls.append(tuple(events))
        for event in events:
            if isinstance(event, PublishReceived):
                if event.payload == b"problem":
                    raise Problem(Kind.FORBIDDEN, "not this topic")
                if event.payload == b"bug":
                    raise RuntimeError("a bug")
                self.machine.acknowledge([event.packet_id])

    def closed(self, reason: str) -> None:
        self.reasons.append(reason)
        self.gone.set()


Judge = Callable[[ConnectRequested, Peer], Awaitable[None]]


class Wire:
    """A wire whose judgement each test chooses."""

    def __init__(self) -> None:
        self.judge: Judge | None = None
        self.options: dict[str, object] = {}
        self.requests: list[ConnectRequested] = []
        self.sessions: list[Session] = []
        self.cancelled = 0

    async def connect(
        self, request: ConnectRequested, peer: Peer, machine: ServerConnection, link: Link
    ) -> Session:
        self.requests.append(request)
        if self.judge is not None:
            try:
                await self.judge(request, peer)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        session = Session(machine, link, **self.options)
        self.sessions.append(session)
        return session


class Door:
    """A front door on a port."""

    def __init__(self, listener: Listener) -> None:
        self.hub, self.provisioning = Wire(), Wire()
        self.listener = listener
        self.door = MqttFrontDoor(
            hub=self.hub,
            provisioning=self.provisioning,
            tasks=listener.tasks,
            judgement_timeout=0.2,
        )
        self.port = 0

    async def connect(
        self, username: str | None, behind: bytes = b""
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        request = ConnectRequested("dev1", username, None, True, 60, None)
        writer.write(encode_connect(request) + behind)
        return reader, writer


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    """A front door on a free port, without TLS."""
    listener = Listener()
    door = Door(listener)
    door.port = await listener.open("127.0.0.1", 0, MachineApplication(door.door.open))
    yield door
    await listener.close(0.1)


async def _answer(streams: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> bytes:
    """Return all that the server says until it closes."""
    reader, writer = streams
    data = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return data


@pytest.mark.parametrize(("username", "wire"), [(HUB, "hub"), (PROVISIONING, "provisioning")])
async def test_the_user_name_chooses_the_wire(door, username, wire):
    """Hub and provisioning share a port; each CONNECT goes to one of them."""
    reader, writer = await door.connect(username)
    assert await reader.readexactly(4) == b"\x20\x02\x00\x00"
    chosen = getattr(door, wire)
    other = door.hub if chosen is door.provisioning else door.provisioning
    assert [request.username for request in chosen.requests] == [username]
    assert other.requests == []
    writer.close()


async def test_an_accepted_session_gets_its_events(door):
    """Also those that were sent right behind the CONNECT, after an empty first call."""
    door.hub.options = {"session_present": True, "keep_alive": 5.0}
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    request = ConnectRequested("dev1", HUB, None, False, 60, None)
    writer.write(encode_connect(request) + PUBLISH + PUBLISH)
    # CONNACK with session present, then two PUBACKs of packet 7.
    assert await reader.readexactly(12) == b"\x20\x02\x01\x00" + b"\x40\x02\x00\x07" * 2
    session = door.hub.sessions[0]
    assert session.calls[0] == ()
    assert [len(call) for call in session.calls[1:]] == [2]
    writer.write(b"\xe0\x00")  # DISCONNECT
    await asyncio.wait_for(session.gone.wait(), 5)
    assert session.calls[-1][0].graceful is True
    assert session.reasons == ["protocol ended"]
    writer.close()


@pytest.mark.parametrize("kind", list(Kind))
async def test_every_refusal_is_said_and_logged_once(door, kind):
    """By the one table, with the reason in the log and not on the wire."""

    async def refuse(_request: ConnectRequested, _peer: Peer) -> None:
        raise Problem(kind, "the reason")

    door.hub.judge = refuse
    with capture_logs() as logs:
        answer = await _answer(await door.connect(HUB))
    code = CONNACK_CODE[kind]
    assert answer == (b"" if code is None else bytes([0x20, 2, 0, code]))
    refusals = [line for line in logs if line["event"] == "mqtt connection refused"]
    assert len(refusals) == 1
    assert refusals[0]["detail"] == "the reason"
    assert refusals[0]["username"] == HUB
    assert refusals[0]["address"] == "127.0.0.1"


@pytest.mark.parametrize(
    "username", [None, "", "nonsense", "a b/c/?x", "h/" + "d" * 200, "x" * 3000]
)
async def test_a_user_name_that_says_nothing_is_refused(door, username):
    """CONNACK 4, and neither wire is asked."""
    with capture_logs() as logs:
        assert await _answer(await door.connect(username)) == b"\x20\x02\x00\x04"
    assert door.hub.requests == door.provisioning.requests == []
    line = next(line for line in logs if line["event"] == "mqtt connection refused")
    assert line["username"] is None or len(line["username"]) < 300


async def test_a_bug_is_told_as_unavailable(door):
    """Code 3, the one that SDKs retry; the traceback is for the log."""

    async def fail(_request: ConnectRequested, _peer: Peer) -> None:
        raise RuntimeError("a bug")

    door.hub.judge = fail
    with capture_logs() as logs:
        assert await _answer(await door.connect(HUB)) == b"\x20\x02\x00\x03"
    assert [line["log_level"] for line in logs if "failed" in line["event"]] == ["error"]


async def test_judging_is_bounded(door):
    """A judgement that hangs is cancelled and told as code 3."""

    async def hang(_request: ConnectRequested, _peer: Peer) -> None:
        await asyncio.Event().wait()

    door.hub.judge = hang
    assert await _answer(await door.connect(HUB)) == b"\x20\x02\x00\x03"
    assert door.hub.cancelled == 1
    assert door.hub.sessions == []


@pytest.mark.parametrize("reset", [False, True])
async def test_a_peer_that_leaves_while_judged_leaves_nothing(door, reset):
    """The session that comes out of the judgement is closed at once, exactly once."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def wait(_request: ConnectRequested, _peer: Peer) -> None:
        begun.set()
        await go_on.wait()

    door.hub.judge = wait
    _reader, writer = await door.connect(HUB)
    await asyncio.wait_for(begun.wait(), 5)
    if reset:
        writer.transport.abort()
    else:
        writer.close()
    for _ in range(500):
        if not door.listener.connection_count:
            break
        await asyncio.sleep(0.005)
    go_on.set()
    for _ in range(500):
        if door.hub.sessions:
            break
        await asyncio.sleep(0.001)
    session = door.hub.sessions[0]
    await asyncio.wait_for(session.gone.wait(), 5)
    assert len(session.reasons) == 1
    assert session.calls == []
    assert door.listener.tasks.tasks == set()


async def test_a_problem_in_a_session_ends_the_connection(door):
    """MQTT 3.1.1 has no words for it: the peer sees the end, the log has the reason."""
    bad = encode_publish(encode_topic("t"), b"problem", 1, 7, retain=False, duplicate=False)
    with capture_logs() as logs:
        assert await _answer(await door.connect(HUB, bad)) == b"\x20\x02\x00\x00"
    assert [line["detail"] for line in logs if line["event"] == "mqtt connection ended"] == [
        "not this topic"
    ]
    assert len(door.hub.sessions[0].reasons) == 1


async def test_a_bug_in_a_session_ends_its_connection(door):
    """It is logged with its traceback; the session still hears of its end."""
    bad = encode_publish(encode_topic("t"), b"bug", 1, 7, retain=False, duplicate=False)
    with capture_logs() as logs:
        await _answer(await door.connect(HUB, bad))
    assert "a session failed" in [line["event"] for line in logs]
    assert door.hub.sessions[0].reasons == ["internal error"]


async def test_refusals_do_not_flood_the_log(door):
    """A hundred refusals in a second make a few lines, and the rest is counted."""

    async def refuse(_request: ConnectRequested, _peer: Peer) -> None:
        raise Problem(Kind.UNAUTHENTICATED, "no")

    door.hub.judge = refuse
    with capture_logs() as logs:
        for _ in range(100):
            assert await _answer(await door.connect(HUB)) == b"\x20\x02\x00\x05"
    refusals = [line for line in logs if line["event"] == "mqtt connection refused"]
    assert len(refusals) <= 40
    assert all(line.get("left_out", 1) for line in refusals)


async def test_shutdown_tells_the_session(door):
    """When the listener closes, each session hears it once."""
    reader, writer = await door.connect(HUB)
    assert await reader.readexactly(4) == b"\x20\x02\x00\x00"
    await door.listener.close(2)
    assert door.hub.sessions[0].reasons == ["shutdown"]
    assert await reader.read() == b""
    writer.close()


@pytest.mark.parametrize("noise", [b"\x00" * 10, b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 300, PUBLISH])
async def test_what_is_not_a_connect_is_closed(door, noise):
    """No CONNACK, no judgement, no session."""
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    writer.write(noise)
    assert await _answer((reader, writer)) == b""
    assert door.hub.requests == []
