"""What a service provides to be spoken to over MQTT.

The front door takes the connection, reads the CONNECT's user name and hands over to the wire
of the service that it names. From then on the wire's session gets the events.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from muster.model.peer import Peer
from muster.protocols.machine import Link
from muster.protocols.mqtt.events import ConnectRequested, Event
from muster.protocols.mqtt.server import ServerConnection


class MqttWireSession(Protocol):
    """One accepted connection, as its service sees it."""

    @property
    def session_present(self) -> bool:
        """Whether the CONNACK says that the server kept state from before (MQTT-3.2.2-2)."""
        ...

    @property
    def keep_alive(self) -> float | None:
        """Seconds to use instead of the client's own keep-alive; None for the client's."""
        ...

    def handle(self, events: Sequence[Event]) -> None:
        """Act on events that came after the CONNECT, in order; the machine is flushed afterwards.

        Called first with no events, right behind the CONNACK: from then on the session may send.
        A `Problem` that leaves it ends the connection with its detail in the log (MQTT 3.1.1
        has no farewell); anything else is a bug and does the same with a traceback.
        """
        ...

    def closed(self, reason: str) -> None:
        """Take note, exactly once, that the connection is gone."""
        ...


class MqttWire(Protocol):
    """A service behind the front door."""

    async def connect(
        self, request: ConnectRequested, peer: Peer, machine: ServerConnection, link: Link
    ) -> MqttWireSession:
        """Judge *request* and return the session it gets.

        Raises `Problem` to refuse: the front door turns its `Kind` into the CONNACK code. Does
        not answer the CONNECT itself, and leaves *machine* alone until the session's first
        `handle`.

        Runs outside any task up to its first wait, so it cannot begin with `asyncio.timeout`.
        May be cancelled when it takes too long; it then leaves nothing behind. A session that
        was returned always gets its `closed`, also when the peer left in the meantime.
        """
        ...
