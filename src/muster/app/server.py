"""One server: listeners, background work, start and ordered stop.

Start: lock the data directory, put the program together, open every port, then say so in the
ready file. Stop (SIGTERM, SIGINT): the ready file goes, background work ends, ports close, what
is in flight is finished, stores close. The whole stop takes less than five seconds.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console
from rich.table import Table

from muster.app.composition import Composition, PublicUrls, compose
from muster.app.directory import DataDirectory, open_data_directory, write_ready_file
from muster.app.hub_names import Door, HubNames, load_certificate
from muster.config import Settings
from muster.errors import Problem
from muster.model.notice import Notice
from muster.net.admission import Limits
from muster.net.driver import MachineApplication
from muster.net.http import HttpApplication
from muster.net.listener import Listener
from muster.net.server_identity import ServerIdentity
from muster.net.tls import TlsServer
from muster.observe import log

_LOG = log.get_logger("muster.app")

# What is in flight gets this long; with the stores' own closing it stays under the five seconds
# that `docs/reference/commands.md` promises.
_STOP_SECONDS = 3.0
# How often CRLs are looked at. They live for days, so a minute late is nothing.
_PUBLICATION_SECONDS = 60.0
# How often the TLS certificate's end is looked at, and a hub's name that could not be served.
_NAMES_SECONDS = 600.0


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises `Problem` when the server cannot start."""
    log.configure(json=settings.log_format == "json", level=settings.log_level.upper())
    # A peer's odd certificate makes the library warn on standard error; what we think of the
    # certificate is in our own log.
    warnings.filterwarnings("ignore", module="cryptography")
    directory = open_data_directory(settings.data)
    try:
        uvloop.run(_serve(settings, directory))
    finally:
        directory.close()


async def _serve(settings: Settings, directory: DataDirectory) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = Server(settings, directory)
    try:
        await server.start()
        await stop.wait()
        _LOG.info("stopping")
    finally:
        await server.stop()


class Server:
    """Everything that runs between `start` and `stop`."""

    def __init__(self, settings: Settings, directory: DataDirectory) -> None:
        self._settings = settings
        self._directory = directory
        self._listener = Listener()
        self._identity = ServerIdentity(directory.tls)
        self._ports = {
            name: port or _free_port(settings.host)
            for name, port in (
                ("https", settings.https_port),
                ("mqtts", settings.mqtts_port),
                ("http", settings.http_port),
            )
        }
        self._parts: Composition | None = None
        self._names: HubNames | None = None
        self._doors: list[Door] = []
        self._ready_files: list[Path] = []
        self._rounds: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Open everything, then write the ready file and print the table."""
        parts = self._parts = await compose(
            self._settings,
            self._directory,
            self._urls(),
            self._listener.tasks,
            self._follow_hubs,
        )
        await self._open(parts)
        for topic in ("hub.changed", "hub.deleted"):
            parts.bus.subscribe(topic, self._hubs_changed)
        parts.dispatcher.start()
        for name, work in parts.background.items():
            self._rounds.append(asyncio.create_task(work(), name=name))
        for seconds, repeated in (
            (_PUBLICATION_SECONDS, parts.publication.refresh_due),
            (_NAMES_SECONDS, self._follow_hubs),
        ):
            task = asyncio.create_task(_every(seconds, repeated), name=repeated.__qualname__)
            self._rounds.append(task)
        # What exists now lives as long as the process: the collector need not walk it again,
        # which halves its pauses under load.
        gc.collect()
        gc.freeze()
        self._announce(parts)

    async def stop(self) -> None:
        """Stop in order. Harmless when `start` failed half-way."""
        for path in self._ready_files:
            path.unlink(missing_ok=True)
        for task in self._rounds:
            task.cancel()
        await asyncio.gather(*self._rounds, return_exceptions=True)
        await self._listener.close(_STOP_SECONDS)
        if self._parts is not None:
            await self._parts.close()

    def _urls(self) -> PublicUrls:
        domain = self._settings.domain
        return PublicUrls(
            https=f"https://{domain}:{self._ports['https']}",
            http=f"http://{domain}:{self._ports['http']}",
        )

    async def _open(self, parts: Composition) -> None:
        tasks, clock, host = self._listener.tasks, parts.clock, self._settings.host
        self._names = HubNames(
            host=host,
            own_names=self._settings.own_names,
            hubs=parts.resources,
            identity=self._identity,
            clock=clock,
        )
        await self._names.ensure_certificate()
        certificate = load_certificate(self._identity)
        https = HttpApplication(parts.https, clock, tasks)
        mqtts = MachineApplication(parts.front_door.open)
        plain = HttpApplication(parts.http, clock, tasks)
        self._doors = [
            Door("https", self._ports["https"], https, TlsServer(certificate, alpn=("http/1.1",))),
            Door("mqtts", self._ports["mqtts"], mqtts, TlsServer(certificate)),
        ]
        for door in self._doors:
            opening = self._listener.open(host, door.port, door.application, door.tls)
            await _explained(door.name, opening)
        await _explained("http", self._listener.open(host, self._ports["http"], plain))
        await self._names.follow(self._listener, self._doors)

    async def _follow_hubs(self) -> None:
        assert self._names is not None
        await self._names.follow(self._listener, self._doors)

    async def _hubs_changed(self, _notice: Notice) -> None:
        # For changes that another process made, and for one whose maker did not get this far.
        await self._follow_hubs()

    # Saying so

    def _announce(self, parts: Composition) -> None:
        document = self._ready(parts)
        self._ready_files = [self._directory.ready_file]
        if self._settings.ready_file is not None:
            self._ready_files.append(self._settings.ready_file)
        for path in self._ready_files:
            write_ready_file(path, document)
        table = Table("what", "where", title="Muster is ready", title_justify="left")
        for name, address in document["endpoints"].items():
            table.add_row(name, address)
        table.add_row("server CA", document["server_ca_file"])
        table.add_row("how to sign in", str(self._directory.ready_file))
        Console(soft_wrap=True).print(table)
        if self._listener.limits.connections < Limits().connections:
            _LOG.warning(
                "fewer connections than this server could hold: raise the limit of open files "
                "(ulimit -n)",
                connections=self._listener.limits.connections,
                possible=Limits().connections,
            )

    def _ready(self, parts: Composition) -> dict[str, Any]:
        urls, domain = self._urls(), self._settings.domain
        identities = parts.identities
        return {
            "version": 1,
            "pid": os.getpid(),
            "endpoints": {
                "https": urls.https,
                "mqtts": f"{domain}:{self._ports['mqtts']}",
                "http": urls.http,
            },
            "server_ca_file": str(self._identity.ca_file),
            "tenant_id": identities.tenant_id,
            "subscription_id": parts.subscription.id,
            "resource_group": parts.group.name,
            "admin": {
                "client_id": identities.administrator_client_id,
                "client_secret": identities.administrator_client_secret,
                "object_id": identities.administrator_object_id,
            },
            "managed_identity": {
                "endpoint": f"{urls.https}/msi/token",
                "header": identities.identity_header,
                "client_id": identities.identity_client_id,
            },
        }


async def _explained(name: str, opening: Awaitable[int]) -> None:
    """Open a port, or raise a `Problem` that names the setting too."""
    try:
        await opening
    except Problem as problem:
        raise Problem(problem.kind, f"{name}-port: {problem.detail}") from problem


async def _every(seconds: float, work: Callable[[], Awaitable[object]]) -> None:
    """Do *work* now and every so many *seconds*; what fails is logged and tried again."""
    while True:
        try:
            await work()
        except Problem as problem:
            _LOG.warning("put off", work=work.__qualname__, why=problem.detail)
        except Exception:  # noqa: BLE001 - a bug in one round must not end the rounds
            _LOG.exception("background work failed", work=work.__qualname__)
        await asyncio.sleep(seconds)


def _free_port(host: str) -> int:
    # A port that URLs in tokens and certificates name must be known before anything listens.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
