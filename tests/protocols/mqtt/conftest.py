"""Connections that are already open, and both ends back to back."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from muster.protocols.mqtt.client import ClientConnection
from muster.protocols.mqtt.events import Event
from muster.protocols.mqtt.server import ServerConnection


@dataclass
class Pair:
    """A client and a server whose bytes go straight to each other."""

    client: ClientConnection
    server: ServerConnection

    def pump(self, now: float = 1.0) -> tuple[list[Event], list[Event]]:
        """Carry bytes until neither end has more; return (client's events, server's events)."""
        at_client: list[Event] = []
        at_server: list[Event] = []
        moved = True
        while moved:
            to_server, to_client = self.client.data_to_send(), self.server.data_to_send()
            moved = bool(to_server or to_client)
            self.server.receive(to_server, now)
            self.client.receive(to_client, now)
            at_client += self.client.events()
            at_server += self.server.events()
        return at_client, at_server


@pytest.fixture
def pair() -> Pair:
    """Both ends, connected and accepted at second 0, with nothing left to fetch."""
    pair = Pair(ClientConnection(), ServerConnection(now=0.0))
    pair.client.connect("device", keep_alive=60, now=0.0)
    pair.pump(0.0)
    pair.server.accept(now=0.0)
    pair.pump(0.0)
    return pair
