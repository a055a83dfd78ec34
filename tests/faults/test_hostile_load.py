"""A server with all three ports under hostile load, while a healthy device goes on working."""

# ruff: noqa: D102 - wires and sessions are documented by their Protocols

from __future__ import annotations

import asyncio
import gc
import os
import random
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
import trustme
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from muster.clock import SystemClock
from muster.endpoints.mqtt.front_door import MqttFrontDoor
from muster.model.peer import Peer
from muster.net.admission import Limits
from muster.net.driver import MachineApplication
from muster.net.http import HttpApplication
from muster.net.http_limits import HttpLimits
from muster.net.listener import Listener
from muster.net.reasons import CloseReason
from muster.net.tls import ServerCertificate, TlsServer
from muster.protocols.machine import Link
from muster.protocols.mqtt.events import ConnectRequested, PublishReceived
from muster.protocols.mqtt.packets import encode_connect, encode_publish, encode_topic
from muster.protocols.mqtt.server import ServerConnection

pytestmark = pytest.mark.faults

MEBIBYTE = 1_048_576
# Short, so that the tests wait for little; the proportions are the real ones.
LIMITS = Limits(
    handshakes=600,
    handshakes_per_address=300,
    handshake_timeout=0.5,
    stall_timeout=0.3,
    linger_timeout=0.2,
)
HTTP_LIMITS = HttpLimits(head_timeout=0.5, idle_timeout=0.5, body_grace=0.5)


class Session:
    """Acknowledges what comes."""

    session_present = False
    keep_alive = None

    def __init__(self, machine: ServerConnection) -> None:
        self.machine = machine

    def handle(self, events: Sequence[object]) -> None:
        self.machine.acknowledge(
            [event.packet_id for event in events if isinstance(event, PublishReceived)]
        )

    def closed(self, reason: str) -> None:
        pass


class Wire:
    """Admits everybody."""

    async def connect(
        self, _request: ConnectRequested, _peer: Peer, machine: ServerConnection, _link: Link
    ) -> Session:
        return Session(machine)


class Server:
    """MQTT and HTTPS over TLS and HTTP in the clear, on free ports, and one healthy device."""

    def __init__(self) -> None:
        ca = trustme.CA(key_type=trustme.KeyType.ECDSA)
        leaf = ca.issue_cert("localhost", key_type=trustme.KeyType.ECDSA)
        certificate = ServerCertificate.from_pem(
            leaf.cert_chain_pems[0].bytes(), leaf.private_key_pem.bytes()
        )
        self.trust = ssl.create_default_context()
        ca.configure_trust(self.trust)
        self.tls = TlsServer(certificate)
        self.listener = Listener(LIMITS)
        self.ports: dict[str, int] = {}
        self.round_trips = 0
        self.slowest = 0.0

    async def start(self) -> None:
        listener = self.listener
        door = MqttFrontDoor(hub=Wire(), provisioning=Wire(), tasks=listener.tasks)
        app = Starlette(routes=[Route("/", lambda _request: PlainTextResponse("fine"))])
        http = HttpApplication(app, SystemClock(), listener.tasks, HTTP_LIMITS)
        mqtt = MachineApplication(door.open)
        self.ports["mqtts"] = await listener.open("127.0.0.1", 0, mqtt, self.tls)
        self.ports["https"] = await listener.open("127.0.0.1", 0, http, self.tls)
        self.ports["http"] = await listener.open("127.0.0.1", 0, http)

    async def connect_device(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.ports["mqtts"], ssl=self.trust, server_hostname="localhost"
        )
        name = "localhost/dev1/?api-version=2021-04-12"
        writer.write(encode_connect(ConnectRequested("dev1", name, None, True, 60, None)))
        assert await reader.readexactly(4) == b"\x20\x02\x00\x00"
        return reader, writer

    async def work(self) -> None:
        """Be a healthy device: send, wait for the PUBACK, again; and measure."""
        reader, writer = await self.connect_device()
        message = encode_publish(encode_topic("t"), b"x" * 200, 1, 7, retain=False, duplicate=False)
        clock = asyncio.get_running_loop().time
        try:
            while True:
                begun = clock()
                writer.write(message)
                assert await reader.readexactly(4) == b"\x40\x02\x00\x07"
                self.slowest = max(self.slowest, clock() - begun)
                self.round_trips += 1
                await asyncio.sleep(0.005)
        finally:
            writer.close()

    async def check(self) -> None:
        """See that newcomers are served on every port."""
        _reader, writer = await self.connect_device()
        writer.close()
        for name in ("https", "http"):
            secure = {"ssl": self.trust, "server_hostname": "localhost"} if name == "https" else {}
            reader, writer = await asyncio.open_connection("127.0.0.1", self.ports[name], **secure)
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert (await reader.read()).endswith(b"fine")
            writer.close()

    async def until_alone(self) -> None:
        """Wait until only the healthy device is connected."""
        for _ in range(1000):
            if self.listener.connection_count <= 1:
                return
            await asyncio.sleep(0.01)
        raise TimeoutError


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A server whose device must still be working when the test ends."""
    server = Server()
    await server.start()
    device = asyncio.create_task(server.work())
    while not server.round_trips:  # noqa: ASYNC110 - a counter, not an event
        await asyncio.sleep(0.001)
    before = server.round_trips
    yield server
    await asyncio.sleep(0.05)
    assert not device.done(), "the healthy device was dropped"
    assert server.round_trips > before
    device.cancel()
    with suppress(asyncio.CancelledError):
        await device
    report = await server.listener.close(2)
    assert (report.cut, report.tasks_cancelled) == (0, 0)
    assert server.listener.connection_count == 0


def _memory() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def _connect_raw(port: int) -> socket.socket:
    raw = socket.socket()
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", port))
    return raw


@pytest.mark.parametrize("first", [b"", b"\x16\x03\x01\x02\x00\x01"])
async def test_a_thousand_half_open_handshakes(server, first):
    """Silent or half-way: newcomers get in meanwhile, and all of them are gone in time."""
    before = _memory()
    half_open = []
    for _ in range(1000):
        raw = await _connect_raw(server.ports["mqtts"])
        if first:
            raw.send(first)
        half_open.append(raw)
    await server.check()
    await server.until_alone()
    await server.check()
    counts = server.listener.closings.counts
    cut = counts[CloseReason.HANDSHAKE_EVICTED] + counts[CloseReason.HANDSHAKE_TIMEOUT]
    assert cut >= 1000
    for raw in half_open:
        raw.close()
    assert _memory() - before < 60 * MEBIBYTE


async def _trickle(port: int, start: bytes) -> None:
    raw = await _connect_raw(port)
    try:
        with suppress(OSError):
            raw.send(start)
            for _ in range(200):
                await asyncio.sleep(0.02)
                raw.send(b"x")
            pytest.fail("a trickle kept its connection for four seconds")
    finally:
        raw.close()


async def test_clients_that_trickle(server):
    """One byte now and then, into the handshake and into a request's head and body."""
    start = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"
    tricklers = [
        _trickle(server.ports[name], first)
        for name, first in [
            ("mqtts", b"\x16\x03\x01\x02\x00"),
            ("https", b"\x16\x03\x01\x02\x00"),
            ("http", b"GET /"),
            ("http", start),
        ]
        for _ in range(50)
    ]
    await asyncio.gather(*tricklers, server.check())
    await server.until_alone()


@pytest.mark.parametrize("name", ["mqtts", "https", "http"])
async def test_ten_megabytes_of_noise(server, name):
    """Random bytes, in a hundred connections: each is closed, and nothing is kept."""
    before = _memory()
    noise = random.Random(7).randbytes(100_000)

    async def shout() -> None:
        raw = await _connect_raw(server.ports[name])
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            await loop.sock_sendall(raw, noise)
            while await loop.sock_recv(raw, 65536):
                pass
        raw.close()

    await asyncio.wait_for(asyncio.gather(*[shout() for _ in range(100)], server.check()), 20)
    await server.until_alone()
    assert _memory() - before < 30 * MEBIBYTE


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"0\r\n", b"x00001: y\r\n" * 100),
        (b"0\r\nx: ", b"y" * 1000),
        (b"1;", b"x" * 1000),
    ],
)
async def test_endless_framing(server, start, piece):
    """Trailers and chunk extensions without end, in fifty requests: cut, and nothing is kept."""
    before = _memory()
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"

    async def pour() -> None:
        raw = await _connect_raw(server.ports["http"])
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            await loop.sock_sendall(raw, head + start)
            for _ in range(50_000):
                await loop.sock_sendall(raw, piece)
            pytest.fail("fifty megabytes of framing were taken")
        raw.close()

    await asyncio.wait_for(asyncio.gather(*[pour() for _ in range(50)], server.check()), 30)
    await server.until_alone()
    assert _memory() - before < 30 * MEBIBYTE


async def test_noise_inside_tls(server):
    """Random bytes under a good handshake end as a protocol error, on every port."""
    noise = random.Random(8).randbytes(50_000)
    for name in ("mqtts", "https"):
        for _ in range(20):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", server.ports[name], ssl=server.trust, server_hostname="localhost"
            )
            writer.write(noise)
            with suppress(OSError):
                await asyncio.wait_for(reader.read(), 5)
            writer.close()
    await server.check()
    await server.until_alone()


async def test_a_port_scan(server):
    """Connect and leave, two thousand times over all ports."""
    before = _memory()
    for _ in range(700):
        for port in server.ports.values():
            (await _connect_raw(port)).close()
    await server.check()
    await server.until_alone()
    assert _memory() - before < 20 * MEBIBYTE


async def test_clients_that_never_read(server):
    """Their answers wait to a bound, then they are cut; memory stays where it was."""
    before = _memory()

    def flood() -> None:
        with socket.create_connection(("127.0.0.1", server.ports["mqtts"])) as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            with server.trust.wrap_socket(raw, server_hostname="localhost") as client:
                name = "localhost/dev2/?api-version=2021-04-12"
                client.sendall(encode_connect(ConnectRequested("d", name, None, True, 60, None)))
                message = encode_publish(
                    encode_topic("t"), b"", 1, 7, retain=False, duplicate=False
                )
                client.settimeout(5)
                with suppress(OSError):
                    for _ in range(10_000):
                        client.sendall(message * 2000)
                    pytest.fail("a client that never reads was served for ever")

    await asyncio.wait_for(asyncio.gather(*[asyncio.to_thread(flood) for _ in range(4)]), 60)
    await server.check()
    await server.until_alone()
    assert server.listener.closings.counts[CloseReason.SLOW_READER] == 4
    assert _memory() - before < 40 * MEBIBYTE
