# ruff: noqa: D102 - wires and sessions are documented by their Protocols

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from starlette.applications import Starlette
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from muster.clock import SystemClock
from muster.endpoints.mqtt.front_door import MqttFrontDoor
from muster.endpoints.mqtt.websocket import routes
from muster.model.peer import Peer
from muster.net.admission import Limits
from muster.net.http import HttpApplication
from muster.net.listener import Listener
from muster.protocols.machine import Link
from muster.protocols.mqtt.events import ConnectRequested, PublishReceived
from muster.protocols.mqtt.packets import encode_connect, encode_publish, encode_topic
from muster.protocols.mqtt.server import ServerConnection

CONNECT = encode_connect(ConnectRequested("d", "localhost/d/?api-version=1", None, True, 60, None))
CONNACK = b"\x20\x02\x00\x00"


class Session:
    """Echoes messages at QoS 0."""

    session_present = False
    keep_alive = None

    def __init__(self, machine: ServerConnection, link: Link) -> None:
        self.machine, self.link = machine, link
        self.heard = 0
        self.reasons: list[str] = []
        self.gone = asyncio.Event()

    def handle(self, events: Sequence[object]) -> None:
        for event in events:
            if isinstance(event, PublishReceived):
                self.heard += 1
                self.machine.publish(event.topic, event.payload)
                if event.payload == b"bug":
                    raise RuntimeError("a bug")

    def closed(self, reason: str) -> None:
        self.reasons.append(reason)
        self.gone.set()


class Wire:
    """Admits everybody."""

    def __init__(self) -> None:
        self.sessions: list[Session] = []
        self.peers: list[Peer] = []

    async def connect(
        self, _request: ConnectRequested, peer: Peer, machine: ServerConnection, link: Link
    ) -> Session:
        self.peers.append(peer)
        self.sessions.append(Session(machine, link))
        return self.sessions[-1]


@pytest.fixture
def wire() -> Wire:
    """A wire that admits everybody."""
    return Wire()


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    """A listener that ends with the test and does not wait long for who does not read."""
    listener = Listener(Limits(stall_timeout=0.3))
    yield listener
    await listener.close(0.5)


@pytest.fixture
async def port(listener: Listener, wire: Wire) -> int:
    """Where MQTT is spoken over WebSockets."""
    door = MqttFrontDoor(hub=wire, provisioning=wire, tasks=listener.tasks)
    app = Starlette(routes=routes(door.open))
    application = HttpApplication(app, SystemClock(), listener.tasks)
    return await listener.open("127.0.0.1", 0, application)


def _dial(port: int, path: str = "/$iothub/websocket", subprotocols: Sequence[str] = ("mqtt",)):
    return connect(
        f"ws://127.0.0.1:{port}{path}", subprotocols=list(subprotocols) or None, proxy=None
    )


def _publish(payload: bytes) -> bytes:
    return encode_publish(encode_topic("t"), payload, 0, 0, retain=False, duplicate=False)


async def _read(socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += await asyncio.wait_for(socket.recv(), 5)
    return data


@pytest.mark.parametrize("path", ["/$iothub/websocket", "/%24iothub/websocket", "/", "/?x=1"])
async def test_mqtt_goes_through_a_websocket(port, wire, path):
    """On the SDKs' path and at the root, with the sub-protocol echoed and no compression."""
    async with _dial(port, path, ["other", "mqtt"]) as socket:
        assert socket.subprotocol == "mqtt"
        assert socket.protocol.extensions == []
        await socket.send(CONNECT)
        assert await _read(socket, 4) == CONNACK
        await socket.send(_publish(b"hello"))
        assert await _read(socket, 10) == _publish(b"hello")
    await asyncio.wait_for(wire.sessions[0].gone.wait(), 5)
    assert wire.sessions[0].reasons == ["peer closed"]
    assert wire.peers[0].address == "127.0.0.1"


async def test_packets_need_not_end_where_frames_end(port):
    """One byte a frame, and two packets in a frame (MQTT-6.0.0-2)."""
    async with _dial(port) as socket:
        for byte in CONNECT:
            await socket.send(bytes([byte]))
        assert await _read(socket, 4) == CONNACK
        await socket.send(_publish(b"one") + _publish(b"two"))
        assert await _read(socket, 16) == _publish(b"one") + _publish(b"two")


@pytest.mark.parametrize("offered", [[], ["amqp"], ["MQTT"], ["mqttv3.1"]])
async def test_without_the_sub_protocol_the_upgrade_is_refused(port, wire, offered):
    """400 with a word on what to offer; no session is made."""
    with pytest.raises(InvalidStatus) as caught:
        await _dial(port, subprotocols=offered)
    assert caught.value.response.status_code == 400
    assert b"mqtt" in caught.value.response.body
    assert wire.sessions == []


async def test_a_text_frame_ends_the_connection(port, wire):
    """MQTT-6.0.0-1: close code 1003, and the session is told."""
    async with _dial(port) as socket:
        await socket.send(CONNECT)
        assert await _read(socket, 4) == CONNACK
        await socket.send("text")
        with pytest.raises(ConnectionClosed, match="1003"):
            await socket.recv()
    assert wire.sessions[0].reasons == ["bad request: a text frame [MQTT-6.0.0-1]"]


async def test_the_server_closes_when_the_protocol_ends(port, wire):
    """DISCONNECT, a protocol error and a bug all end the WebSocket, each with its code."""
    for payload, code in [(b"\xe0\x00", "1000"), (b"\x00\x00", "1000"), (_publish(b"bug"), "1011")]:
        async with _dial(port) as socket:
            await socket.send(CONNECT)
            assert await _read(socket, 4) == CONNACK
            await socket.send(payload)
            with pytest.raises(ConnectionClosed, match=code):
                await socket.recv()
        assert len(wire.sessions[-1].reasons) == 1


async def test_a_frame_that_is_too_large_ends_the_connection(port, wire):
    """A message beyond the limit is refused by its length."""
    async with _dial(port) as socket:
        await socket.send(CONNECT)
        assert await _read(socket, 4) == CONNACK
        await socket.send(b"\x00" * 600_000)
        with pytest.raises(ConnectionClosed, match="1009"):
            await socket.recv()
    await asyncio.wait_for(wire.sessions[0].gone.wait(), 5)


async def test_a_client_that_does_not_read_is_cut(port, wire, listener):
    """What waits for it is bounded, it is no longer read from, and then it goes."""
    async with _dial(port) as socket:
        await socket.send(CONNECT)
        assert await _read(socket, 4) == CONNACK
        socket.transport.pause_reading()
        message = _publish(b"x" * 60_000)
        for _ in range(2000):
            if wire.sessions[0].reasons:
                break
            await asyncio.wait([asyncio.ensure_future(socket.send(message))], timeout=0.05)
        assert len(wire.sessions[0].reasons) == 1
        assert wire.sessions[0].heard < 400
        socket.transport.abort()


async def test_shutdown_ends_the_session(port, wire, listener):
    """A stopping server closes the WebSocket and tells the session, once."""
    async with _dial(port) as socket:
        await socket.send(CONNECT)
        assert await _read(socket, 4) == CONNACK
        report = await listener.close(3)
        assert report.cut == 0
        with pytest.raises(ConnectionClosed):
            await socket.recv()
    assert len(wire.sessions[0].reasons) == 1
