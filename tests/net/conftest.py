"""A line protocol of our own, real sockets on free ports, and both event loops."""

# ruff: noqa: D102 - the machine and its session are documented by their Protocols

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest
import trustme
import uvloop

from muster.model.peer import Peer
from muster.net.admission import Limits
from muster.net.driver import MachineApplication
from muster.net.listener import Listener
from muster.net.tls import ServerCertificate, TlsServer
from muster.protocols.machine import Link


class LineMachine:
    """Lines in, lines out. `idle` seconds without a line end it; so does a line above 100,000."""

    def __init__(self, now: float, *, idle: float | None = None) -> None:
        self._idle = idle
        self._deadline = None if idle is None else now + idle
        self._in = b""
        self._out: list[bytes] = []
        self._events: list[str] = []
        self._finished = False

    def receive(self, data: bytes, now: float) -> None:
        *lines, self._in = (self._in + data).split(b"\n")
        if len(self._in) > 100_000:
            self._end("line too long")
        if lines and self._idle is not None:
            self._deadline = now + self._idle
        self._events += [line.decode("latin-1") for line in lines]

    def receive_eof(self, now: float) -> None:
        self._end("eof")

    def deadline_passed(self, now: float) -> None:
        if self._deadline is not None and now >= self._deadline:
            self.say("bye")
            self._end("idle")

    def events(self) -> Sequence[str]:
        events, self._events = self._events, []
        return events

    def data_to_send(self) -> bytes:
        data, self._out = b"".join(self._out), []
        return data

    def next_deadline(self) -> float | None:
        return None if self._finished else self._deadline

    @property
    def finished(self) -> bool:
        return self._finished

    def say(self, line: str) -> None:
        self._out.append(line.encode("latin-1") + b"\n")

    def finish(self) -> None:
        self._finished = True

    def _end(self, why: str) -> None:
        if not self._finished:
            self._finished = True
            self._events.append(f"!{why}")


class LineSession:
    """Obeys lines: echo TEXT, later TEXT, big N, who, quit, close, pause, resume, fail."""

    def __init__(self, peer: Peer, link: Link, machine: LineMachine) -> None:
        self.peer = peer
        self.link = link
        self.machine = machine
        self.heard: list[str] = []
        self.reasons: list[str] = []
        self.gone = asyncio.Event()

    def handle(self, events: Sequence[str]) -> None:
        for line in events:
            self.heard.append(line)
            word, _, rest = line.partition(" ")
            action = getattr(self, f"do_{word}", None)
            if action is not None:
                action(rest)

    def closed(self, reason: str) -> None:
        self.reasons.append(reason)
        self.gone.set()

    def do_echo(self, text: str) -> None:
        self.machine.say(text)

    def do_later(self, text: str) -> None:
        def act() -> None:
            self.machine.say(text)
            self.link.flush()

        asyncio.get_running_loop().call_soon(act)

    def do_big(self, size: str) -> None:
        self.machine.say("x" * int(size))

    def do_who(self, _rest: str) -> None:
        peer = self.peer
        self.machine.say(f"{peer.address} {peer.server_name} {peer.tls_version} {len(peer.chain)}")

    def do_quit(self, _rest: str) -> None:
        self.machine.say("bye")
        self.machine.finish()

    def do_close(self, reason: str) -> None:
        self.machine.say("closing")
        self.link.close(reason)

    def do_pause(self, _rest: str) -> None:
        self.link.pause_reading()
        asyncio.get_running_loop().call_later(0.05, self.link.resume_reading)

    def do_fail(self, _rest: str) -> None:
        raise RuntimeError("a bug")


class Lines:
    """An application of line sessions that remembers them."""

    def __init__(self, *, idle: float | None = None) -> None:
        self.idle = idle
        self.sessions: list[LineSession] = []
        self.application = MachineApplication(self.open)

    def open(self, peer: Peer, link: Link, now: float) -> tuple[LineMachine, LineSession]:
        machine = LineMachine(now, idle=self.idle)
        session = LineSession(peer, link, machine)
        self.sessions.append(session)
        return machine, session


def pytest_asyncio_loop_factories(config, item):
    """Everything here runs on both event loops."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def ca() -> trustme.CA:
    """The server's CA."""
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


@pytest.fixture(scope="session")
def stranger() -> trustme.CA:
    """A CA that nobody trusts."""
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


def _certificate(ca: trustme.CA, *names: str) -> ServerCertificate:
    leaf = ca.issue_cert(*names, key_type=trustme.KeyType.ECDSA)
    chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
    return ServerCertificate.from_pem(chain, leaf.private_key_pem.bytes())


@pytest.fixture
def issue(ca: trustme.CA) -> Callable[..., ServerCertificate]:
    """Make a server certificate for some names."""
    return lambda *names: _certificate(ca, *names)


@pytest.fixture(scope="session")
def certificate(ca: trustme.CA) -> ServerCertificate:
    """The server's certificate."""
    return _certificate(ca, "localhost", "127.0.0.1")


@pytest.fixture
def tls(certificate: ServerCertificate) -> TlsServer:
    """A TLS server."""
    return TlsServer(certificate)


@pytest.fixture
def trust(ca: trustme.CA) -> Callable[..., ssl.SSLContext]:
    """Make a client context that trusts the server; other versions by argument."""

    def make(
        version: ssl.TLSVersion | None = None, identity: trustme.LeafCert | None = None
    ) -> ssl.SSLContext:
        context = ssl.create_default_context()
        ca.configure_trust(context)
        if version is not None:
            context.minimum_version = context.maximum_version = version
        if identity is not None:
            identity.configure_cert(context)
        return context

    return make


@pytest.fixture
def until() -> Callable[[Callable[[], object]], Awaitable[None]]:
    """Wait, five seconds at most, until something is so."""

    async def wait(condition: Callable[[], object]) -> None:
        for _ in range(1000):
            if condition():
                return
            await asyncio.sleep(0.005)
        raise TimeoutError

    return wait


@pytest.fixture
def lines() -> Lines:
    """An application of line sessions."""
    return Lines()


@pytest.fixture
def lines_class() -> type[Lines]:
    """For tests that need their own."""
    return Lines


@pytest.fixture
def limits() -> Limits:
    """Limits short enough to wait for."""
    return Limits(handshake_timeout=0.3, stall_timeout=0.2, linger_timeout=0.3)


@pytest.fixture
async def listener(limits: Limits) -> AsyncIterator[Listener]:
    """A listener that ends with the test."""
    listener = Listener(limits)
    yield listener
    await listener.close(0.1)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory, ca: trustme.CA) -> Path:
    """A directory with ca.pem for clients that want files."""
    path = tmp_path_factory.mktemp("tls")
    ca.cert_pem.write_to_path(str(path / "ca.pem"))
    return path
