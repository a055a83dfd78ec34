"""One `muster up` against peers that mean no good, while a healthy device goes on."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.fleet import make_fleet
from tests.support.mqtt import RawClient
from tests.support.server import MusterProcess, running

pytestmark = [pytest.mark.faults, pytest.mark.slow]

DEVICE = "healthy"
HALF_OPEN = 1000
NOISE = 10 * 1024 * 1024
# What all the attacks together may add to the server's resident memory: 1,000 half-open
# handshakes at some 50 KiB each, and nothing that stays.
MEMORY = 150 * 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MusterProcess]:
    """Run one server for all the attacks."""
    with running(MusterProcess(tmp_path_factory.mktemp("hostile"))) as process:
        yield process


@pytest.fixture(scope="module")
def files(server: MusterProcess, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return certificate and key of the healthy device."""
    return make_fleet(server, tmp_path_factory.mktemp("fleet"), [DEVICE])[DEVICE]


@pytest.fixture
def healthy(server: MusterProcess, files: tuple[Path, Path]) -> Iterator[RawClient]:
    """Connect the healthy device before the attack, and insist that it works after it."""
    with RawClient(server.ca_file, server.mqtts_port, chain=files[0], key=files[1]) as raw:
        assert raw.connect(DEVICE, f"localhost/{DEVICE}/?api-version=2021-04-12") == 0
        before = server.resident_bytes()
        yield raw
        raw.publish(f"devices/{DEVICE}/messages/events/", b"still here")
        assert server.resident_bytes() - before < MEMORY
        with RawClient(server.ca_file, server.mqtts_port) as newcomer:
            assert newcomer.socket.version() is not None


def ports(server: MusterProcess) -> dict[str, int]:
    """Return the listening ports by name."""
    return {"mqtts": server.mqtts_port, "https": server.https_port, "http": server.http_port}


def test_a_port_scan(server: MusterProcess, healthy: RawClient) -> None:
    """Connections that come and go without a word."""
    for port in ports(server).values():
        for _ in range(200):
            socket.create_connection(("127.0.0.1", port), timeout=5).close()


def test_a_thousand_half_open_handshakes(server: MusterProcess, healthy: RawClient) -> None:
    """Peers that begin a handshake and never finish do not keep a healthy one out.

    The per-address limit may turn some of them away at once: that is as good as a time-out.
    """
    hello = _client_hello()
    held: list[socket.socket] = []
    try:
        for number in range(HALF_OPEN):
            port = server.mqtts_port if number % 2 else server.https_port
            # Different loopback addresses: as many attackers, not one.
            source = (f"127.0.1.{number % 200 + 1}", 0)
            with contextlib.suppress(OSError):
                raw = socket.create_connection(("127.0.0.1", port), 5, source_address=source)
                held.append(raw)
                raw.sendall(hello)
        assert len(held) > HALF_OPEN // 2
        healthy.publish(f"devices/{DEVICE}/messages/events/", b"meanwhile")
    finally:
        for raw in held:
            raw.close()


def test_one_byte_a_second(server: MusterProcess, healthy: RawClient) -> None:
    """A handshake that trickles is cut after the handshake limit, not kept alive by each byte."""
    hello = _client_hello()
    with socket.create_connection(("127.0.0.1", server.mqtts_port), timeout=1) as raw:
        sent = 0
        closed = False
        while not closed and sent < 30:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                raw.sendall(hello[sent : sent + 1])
            sent += 1
            try:
                closed = raw.recv(1024) == b"" or closed  # paces itself: waits up to a second
            except TimeoutError:
                continue
            except ConnectionResetError:
                closed = True
        assert closed, "the server kept a trickling handshake for 30 s"
        assert sent < 15


@pytest.mark.parametrize("name", ["mqtts", "https", "http"])
def test_ten_megabytes_of_noise(server: MusterProcess, healthy: RawClient, name: str) -> None:
    """Bytes that are no protocol at all: the server closes and remembers nothing."""
    port = ports(server)[name]
    noise = os.urandom(NOISE)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
        with contextlib.suppress(OSError):
            raw.sendall(noise)
        with contextlib.suppress(OSError):
            while raw.recv(65536):
                pass


@pytest.mark.parametrize("name", ["mqtts", "https"])
def test_noise_inside_tls(server: MusterProcess, healthy: RawClient, name: str) -> None:
    """The same behind a good handshake: the protocol machines see it and end."""
    context = ssl.create_default_context(cafile=server.ca_file)
    with (
        socket.create_connection(("127.0.0.1", ports(server)[name]), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as tls,
        contextlib.suppress(OSError),
    ):
        for _ in range(NOISE // 65536):
            tls.sendall(os.urandom(65536))
        while tls.recv(65536):
            pass


def test_many_at_once(server: MusterProcess, healthy: RawClient) -> None:
    """Eight noisy peers in parallel, and the healthy device is served in between."""
    stop = threading.Event()

    def attack() -> None:
        while not stop.is_set():
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", server.mqtts_port), timeout=5) as raw,
            ):
                raw.sendall(os.urandom(4096))
                raw.recv(1024)

    attackers = [threading.Thread(target=attack) for _ in range(8)]
    for attacker in attackers:
        attacker.start()
    try:
        for number in range(50):
            healthy.publish(f"devices/{DEVICE}/messages/events/", str(number).encode())
    finally:
        stop.set()
        for attacker in attackers:
            attacker.join(timeout=30)


def _client_hello() -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()
