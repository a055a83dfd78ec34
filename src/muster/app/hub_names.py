"""Serve every hub under the host name it has: a certificate that says it, an address that has it.

Each hub has a host name of its own, so the TLS certificate is made anew when hubs come. Where a
name is a loopback address (contract: several hubs on the domain `localhost`), the doors are opened
on that address too, as long as the server itself is on loopback: an operator who listens on the
network decides what else listens there.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from muster.clock import Clock
from muster.errors import Problem
from muster.ids import ETag
from muster.model.audit import AuditEntry
from muster.model.resource import Hub
from muster.net.connection import Application
from muster.net.listener import Listener
from muster.net.server_identity import ServerIdentity
from muster.net.tls import ServerCertificate, TlsServer
from muster.observe import log
from muster.ports.hubs import HubDirectory
from muster.ports.resources import HubStore, Stored

_LOG = log.get_logger("muster.app")


@dataclass(frozen=True, slots=True)
class Door:
    """A TLS port that devices and back ends dial at a hub's name."""

    name: str
    port: int
    application: Application
    tls: TlsServer


def load_certificate(identity: ServerIdentity) -> ServerCertificate:
    """Return the server's present certificate and key."""
    return ServerCertificate.from_files(identity.certificate_file, identity.key_file)


class HubNames:
    """The names that the doors answer to, kept in step with the hubs there are."""

    def __init__(
        self,
        *,
        host: str,
        own_names: Sequence[str],
        hubs: HubDirectory,
        identity: ServerIdentity,
        clock: Clock,
    ) -> None:
        self._host = host
        self._own_names = own_names
        self._hubs = hubs
        self._identity = identity
        self._clock = clock
        self._following = asyncio.Lock()

    async def ensure_certificate(self) -> bool:
        """Have a certificate for the server's own names and every hub's; whether it is new."""
        hubs = [hub.hostname for hub in await self._hubs.list_hubs()]
        names = [*self._own_names, *hubs]
        return await asyncio.to_thread(self._identity.ensure, names, now=self._clock.now())

    async def follow(self, listener: Listener, doors: Sequence[Door]) -> None:
        """Bring certificate and addresses to what the stored hubs need. Safe to repeat.

        Raises `Problem` when an address cannot be opened; what could be done is done.
        """
        async with self._following:
            if await self.ensure_certificate():
                certificate = load_certificate(self._identity)
                for door in doors:
                    door.tls.reload(certificate)
                _LOG.info("tls certificate made anew")
            await self._follow_addresses(listener, doors)

    async def _follow_addresses(self, listener: Listener, doors: Sequence[Door]) -> None:
        if not _is_loopback(self._host):
            return
        names = {hub.hostname for hub in await self._hubs.list_hubs()}
        wanted = {name for name in names if _is_loopback(name)} - {self._host}
        present = {host for host, _ in listener.addresses} - {self._host}
        for host in present - wanted:
            for door in doors:
                await listener.close_address(host, door.port)
        for host in wanted - present:
            for door in doors:
                await listener.open(host, door.port, door.application, door.tls)


class ServedHubs:
    """A `HubStore` whose changes return when they are in force.

    The hub can be dialled at its name, so a resource is ready when its PUT returns, as the
    resource manager says; and its sessions were judged again under its keys and CAs. A name that
    cannot be served is logged: the hub is stored, and another try comes with the next change.
    """

    def __init__(
        self,
        store: HubStore,
        follow: Callable[[], Awaitable[None]],
        enforce: Callable[[str], Awaitable[None]],
    ) -> None:
        self._store = store
        self._follow = follow
        self._enforce = enforce

    async def find_hub_by_name(self, name: str) -> Hub | None:
        """Return the hub of that name, compared without case."""
        return await self._store.find_hub_by_name(name)

    async def list_hubs(self) -> list[Hub]:
        """Return every hub, oldest first."""
        return await self._store.list_hubs()

    async def insert_hub(self, hub: Hub, audit: AuditEntry) -> Stored:
        """Store a new hub; nothing changed when its name or its host name is taken."""
        outcome = await self._store.insert_hub(hub, audit)
        if outcome is Stored.STORED:
            await self._serve(hub.id)
        return outcome

    async def replace_hub(self, hub: Hub, expected: ETag, audit: AuditEntry) -> bool:
        """Store *hub* over the version *expected*; False when that is not the stored one."""
        replaced = await self._store.replace_hub(hub, expected, audit)
        if replaced:
            await self._serve(hub.id)
        return replaced

    async def delete_hub(self, hub_id: str, expected: ETag, audit: AuditEntry) -> bool:
        """Delete it if it still has version *expected*; False when it was not so."""
        deleted = await self._store.delete_hub(hub_id, expected, audit)
        if deleted:
            await self._serve(hub_id)
        return deleted

    async def _serve(self, hub_id: str) -> None:
        await self._enforce(hub_id)
        try:
            await self._follow()
        except Problem as problem:
            _LOG.warning("a hub's name is not served", why=problem.detail)


def _is_loopback(hostname: str) -> bool:
    try:
        return ipaddress.ip_address(hostname).is_loopback
    except ValueError:
        return False
