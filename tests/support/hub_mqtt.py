"""A hub behind the MQTT front door, and clients joined to it without sockets."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from tests.support.hub import (
    HOST,
    ManualClock,
    ManualStream,
    MemoryDevices,
    MemoryHubs,
    MemoryLog,
    RecordingLink,
    a_hub,
    token,
)
from tests.support.pki import TestAuthority

from muster.endpoints.hub.mqtt import HubMqtt
from muster.endpoints.mqtt.front_door import MqttFrontDoor
from muster.hub.envelope import open_envelope
from muster.hub.sessions import Sessions
from muster.hub.subscriptions import Subscriptions
from muster.hub.telemetry import Telemetry
from muster.model.message import Event as HubEvent
from muster.model.peer import Peer
from muster.net.tasks import TaskSet
from muster.protocols.mqtt.client import ClientConnection
from muster.protocols.mqtt.events import ConnectAnswered, Event, SubscribeAnswered, Will

E = TypeVar("E")


class Server:
    """The front door with a hub behind it."""

    def __init__(self, *authorities: TestAuthority) -> None:
        self.clock = ManualClock()
        self.devices = MemoryDevices()
        self.log = MemoryLog()
        self.sessions = Sessions(MemoryHubs(a_hub(*authorities)), self.devices, self.clock)
        hub = HubMqtt(self.sessions, Telemetry(self.log), Subscriptions(), self.clock)
        self.tasks = TaskSet()
        self.door = MqttFrontDoor(
            hub=hub, provisioning=hub, tasks=self.tasks, monotonic=self.clock.monotonic
        )

    @property
    def stream(self) -> ManualStream:
        """The hub's stream."""
        return self.log.streams["hub-1"]

    def events(self) -> list[HubEvent]:
        """What is durable, of all partitions."""
        return [
            open_envelope(number, one)
            for number, partition in enumerate(self.stream.stored)
            for one in partition
        ]


class Client(RecordingLink):
    """A client joined to the server: a driver without a socket."""

    def __init__(self, server: Server, chain: tuple[bytes, ...] = ()) -> None:
        super().__init__()
        self.server = server
        self.device = ClientConnection()
        self.machine, self.session = server.door.open(
            Peer("192.0.2.1", chain), self, server.clock.monotonic()
        )
        self.seen: list[Event] = []
        self.ended = False

    async def connect(
        self,
        device_id: str = "dev1",
        *,
        user_name: str | None = None,
        client_id: str | None = None,
        password: bytes | None = None,
        clean: bool = False,
        keep_alive: int = 60,
        will: Will | None = None,
    ) -> ConnectAnswered:
        """Send CONNECT and return its answer."""
        self.device.connect(
            device_id if client_id is None else client_id,
            username=user_name or f"{HOST}/{device_id}/?api-version=2021-04-12",
            password=token(f"{HOST}/devices/{device_id}") if password is None else password,
            clean_session=clean,
            keep_alive=keep_alive,
            will=will,
            now=self.server.clock.monotonic(),
        )
        for _ in range(50):  # turns that judging may take
            self.pump()
            await asyncio.sleep(0)
        return self.one(ConnectAnswered)

    def pump(self) -> None:
        """Carry bytes and events both ways until nothing moves."""
        now = self.server.clock.monotonic()
        while True:
            up = self.device.data_to_send()
            if up:
                self.machine.receive(up, now)
            events = self.machine.events()
            if events:
                self.session.handle(events)
            down = self.machine.data_to_send()
            if down:
                self.device.receive(down, now)
            self.seen += self.device.events()
            if not (up or events or down):
                break
        if (self.machine.finished or self.closed_with) and not self.ended:
            self.ended = True
            self.session.closed(self.closed_with or "the machine has finished")
            self.device.receive_eof(now)

    def vanish(self) -> None:
        """Lose the connection without a word."""
        self.machine.receive_eof(self.server.clock.monotonic())
        self.pump()

    def all(self, kind: type[E]) -> list[E]:
        """Return what the client saw of *kind*, and forget it."""
        found = [event for event in self.seen if isinstance(event, kind)]
        self.seen = [event for event in self.seen if not isinstance(event, kind)]
        return found

    def one(self, kind: type[E]) -> E:
        """Return the one event of *kind*."""
        (found,) = self.all(kind)
        return found

    def publish(self, topic: str, payload: bytes = b"{}", qos: int = 1, **more: bool) -> int:
        """Publish and let it arrive."""
        packet_id = self.device.publish(topic, payload, qos=qos, **more)
        self.pump()
        return packet_id

    def subscribe(self, *filters: tuple[str, int]) -> tuple[int, ...]:
        """Subscribe and return the answer."""
        self.device.subscribe(filters)
        self.pump()
        return self.one(SubscribeAnswered).codes
