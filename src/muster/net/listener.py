"""Open ports, their connections, and their ordered end.

Rules:

1. A listener owns two sets: its connections and their tasks. Nothing else holds them open.
2. Ports come and go while others serve: a second hub gets an address of its own.
3. `close` is a list, in order: stop accepting, ask every connection to finish, wait, cut the
   rest, wait for tasks, cancel the rest. It is idempotent and says what it had to cut.
"""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
from contextlib import suppress
from dataclasses import dataclass, replace

import structlog

from muster.errors import Kind, Problem
from muster.net.admission import Limits
from muster.net.connection import Application, Connection, Host
from muster.net.reasons import Closings
from muster.net.tasks import TaskSet
from muster.net.tls import TlsServer

_LOG = structlog.get_logger("muster.net")

# Connections the kernel keeps until the loop accepts them: a reconnect storm of one second.
_BACKLOG = 4096
# Files that are not connections: database, event log, listening sockets, lookups.
_OTHER_FILES = 256
# A vanished peer is noticed after 60 + 4 x 15 s where the protocol itself has no keep-alive.
_KEEPALIVE = (
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 60),
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 15),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", 4),
)


@dataclass(frozen=True, slots=True)
class ShutdownReport:
    """What `Listener.close` found: connections in all, those it had to cut, tasks it cancelled."""

    connections: int
    cut: int
    tasks_cancelled: int


class Listener:
    """A set of open ports. Make it inside a running event loop."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.closings = Closings()
        self._host = Host(within_file_limit(limits or Limits()), self.closings)
        self._servers: dict[tuple[str, int], list[asyncio.AbstractServer]] = {}
        self._closing: asyncio.Task[ShutdownReport] | None = None

    @property
    def tasks(self) -> TaskSet:
        """Where the applications of these ports start their tasks."""
        return self._host.tasks

    @property
    def limits(self) -> Limits:
        """What is borne: what was asked for, within the limit of open files."""
        return self._host.limits

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """What is open, as (host, port), in the order of opening."""
        return list(self._servers)

    @property
    def connection_count(self) -> int:
        """How many connections there are, unfinished handshakes included."""
        return len(self._host.connections)

    async def open(
        self, host: str, port: int, application: Application, tls: TlsServer | None = None
    ) -> int:
        """Serve *application* at *host*:*port*, over TLS when *tls* is given; return the port.

        Port 0 takes a free one. Raises `Problem` that names the address and says what to do:
        CONFLICT when it is in use, FORBIDDEN without the right to it, MALFORMED when *host* is
        not an address of this machine.
        """
        if self._host.stopping:
            raise Problem(Kind.UNAVAILABLE, "the server is stopping")
        if (host, port) in self._servers:
            raise Problem(Kind.CONFLICT, f"{_name(host, port)} is already open")
        sockets = await _bind(host, port)
        bound: int = sockets[0].getsockname()[1]
        servers: list[asyncio.AbstractServer] = []
        try:
            for sock in sockets:
                servers.append(  # noqa: PERF401 - what was opened must be known when one fails
                    await self._host.loop.create_server(
                        lambda: Connection(self._host, application, tls),
                        sock=sock,
                        backlog=_BACKLOG,
                    )
                )
        except OSError as error:
            for server in servers:
                server.close()
            raise _explain(error, host, port) from error
        self._servers[host, bound] = servers
        _LOG.debug("listening", address=_name(host, bound), tls=tls is not None)
        return bound

    async def close_address(self, host: str, port: int) -> None:
        """Stop accepting at *host*:*port*; who is connected stays. Harmless when not open."""
        for server in self._servers.pop((host, port), []):
            server.close()
        await asyncio.sleep(0)  # the loop closes the sockets in its next turn

    async def close(self, timeout: float = 3.0) -> ShutdownReport:  # noqa: ASYNC109 - a deadline, then a cut: not what asyncio.timeout does
        """End everything within about *timeout* seconds and report. Idempotent."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(timeout), name="listener-close")
        return await asyncio.shield(self._closing)

    async def _close(self, timeout: float) -> ShutdownReport:  # noqa: ASYNC109 - as above
        host = self._host
        host.stopping = True
        for address in self.addresses:
            await self.close_address(*address)
        deadline = host.loop.time() + timeout
        present = list(host.connections)
        for connection in present:
            connection.stop()
        with suppress(TimeoutError):
            await asyncio.wait_for(host.empty.wait(), timeout)
        late = list(host.connections)
        for connection in late:
            connection.cut()
        cancelled = await host.tasks.close(max(deadline - host.loop.time(), 0.1))
        for _turn in range(3):  # lets the transports of those cut say goodbye
            await asyncio.sleep(0)
        report = ShutdownReport(len(present), len(late), cancelled)
        _LOG.debug(
            "closed", connections=report.connections, cut=report.cut, tasks_cancelled=cancelled
        )
        return report


def within_file_limit(limits: Limits) -> Limits:
    """Return *limits* with no more connections than this process may have files open.

    Raises the process's own (soft) limit first, as far as the system allows: with none left,
    the database could not open its files either.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.connections + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return limits
    room = max(soft - _OTHER_FILES, 1)
    return replace(
        limits,
        connections=room,
        connections_per_address=min(limits.connections_per_address, max(room // 2, 1)),
        handshakes=min(limits.handshakes, max(room // 4, 1)),
        handshakes_per_address=min(limits.handshakes_per_address, max(room // 8, 1)),
    )


async def _bind(host: str, port: int) -> list[socket.socket]:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (socket.gaierror, UnicodeError, OverflowError) as error:
        raise Problem(
            Kind.MALFORMED, f"{_name(host, port)} is not an address to listen on: {error}"
        ) from error
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _canonical, address in dict.fromkeys(found):
            # A name with two addresses gets the same port on both, also when any port will do.
            number = sockets[0].getsockname()[1] if sockets else port
            sock = socket.socket(family, kind, protocol)
            sockets.append(sock)
            _prepare(sock)
            sock.bind((address[0], number, *address[2:]))
            sock.listen(_BACKLOG)
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise _explain(error, host, port) from error
    return sockets


def _prepare(sock: socket.socket) -> None:
    sock.setblocking(False)
    # A restart must not wait for the connections of the last run to leave TIME_WAIT.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    for level, name, value in _KEEPALIVE:
        # Accepted sockets inherit these. Not every system has every name.
        with suppress(AttributeError, OSError):
            sock.setsockopt(level, getattr(socket, name), value)


def _explain(error: OSError, host: str, port: int) -> Problem:
    name = _name(host, port)
    if error.errno == errno.EADDRINUSE:
        return Problem(
            Kind.CONFLICT,
            f"{name} is in use: stop the program that listens there, or choose another port",
        )
    if error.errno in {errno.EACCES, errno.EPERM}:
        return Problem(
            Kind.FORBIDDEN, f"no permission to listen on {name}: choose a port above 1023"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return Problem(
            Kind.MALFORMED, f"{name}: this machine has no such address; choose one it has"
        )
    return Problem(Kind.UNAVAILABLE, f"cannot listen on {name}: {error.strerror}")


def _name(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host or '*'}:{port}"
