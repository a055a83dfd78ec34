"""The MQTT machine against paho, the client inside azure-iot-device, over plain loopback TCP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import paho.mqtt.client as paho
import pytest

from muster.protocols.mqtt.events import (
    ConnectionEnded,
    ConnectRequested,
    Event,
    PublishAcknowledged,
    PublishReceived,
    SubscribeRequested,
    UnsubscribeRequested,
    Will,
)
from muster.protocols.mqtt.server import ServerConnection


class Served(asyncio.Protocol):
    """The smallest driver: bytes to the machine, its bytes back, its events in a queue."""

    def __init__(self, on_event: Callable[[Served, Event], None]) -> None:
        self.machine = ServerConnection(now=0.0)
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self._on_event = on_event

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Keep the way back."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Feed the machine."""
        self.machine.receive(data, 0.0)
        self.flush()

    def eof_received(self) -> None:
        """Tell the machine."""
        self.machine.receive_eof(0.0)
        self.flush()

    def flush(self) -> None:
        """Deliver what the machine has, until it has no more."""
        while events := self.machine.events():
            for event in events:
                self.events.put_nowait(event)
                self._on_event(self, event)
        self.transport.write(self.machine.data_to_send())
        if self.machine.finished:
            self.transport.close()


def answer(served: Served, event: Event) -> None:
    """Grant and acknowledge everything, and send what was published back to its publisher."""
    machine = served.machine
    if isinstance(event, ConnectRequested):
        if event.username == "refuse":
            machine.refuse(5)
        else:
            machine.accept(session_present=not event.clean_session, now=0.0)
    elif isinstance(event, SubscribeRequested):
        machine.answer_subscribe(event.packet_id, [min(qos, 1) for _, qos in event.filters])
    elif isinstance(event, UnsubscribeRequested):
        machine.answer_unsubscribe(event.packet_id)
    elif isinstance(event, PublishReceived):
        if event.qos:
            machine.acknowledge([event.packet_id])
        machine.publish(f"echo/{event.topic}", event.payload, qos=event.qos)


class Device:
    """A paho client whose callbacks arrive in a queue of this event loop."""

    def __init__(self, **options) -> None:
        loop = asyncio.get_running_loop()
        self.calls: asyncio.Queue[tuple] = asyncio.Queue()

        def put(*call) -> None:
            loop.call_soon_threadsafe(self.calls.put_nowait, call)

        self.client = paho.Client("dev 1", protocol=paho.MQTTv311, **options)
        self.client.on_connect = lambda _c, _u, flags, code: put(
            "connect", flags["session present"], code
        )
        self.client.on_subscribe = lambda _c, _u, _mid, granted: put("subscribe", granted)
        self.client.on_unsubscribe = lambda *_: put("unsubscribe")
        self.client.on_publish = lambda *_: put("published")
        self.client.on_message = lambda _c, _u, m: put("message", m.topic, m.payload, m.qos)
        self.client.on_disconnect = lambda _c, _u, code: put("disconnect", code)

    async def next(self) -> tuple:
        """Return the next callback: its name, and what it was told."""
        return await asyncio.wait_for(self.calls.get(), 10)


@pytest.fixture
async def port_and_served() -> AsyncIterator[tuple[int, asyncio.Queue[Served]]]:
    """A listener on a free port, and the connections it has served."""
    accepted: asyncio.Queue[Served] = asyncio.Queue()

    def make() -> Served:
        served = Served(answer)
        accepted.put_nowait(served)
        return served

    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1], accepted
    server.close()
    await server.wait_closed()


async def start(device: Device, port: int) -> None:
    """Dial and run the client's own thread; the dialling blocks, so it has a thread too."""
    await asyncio.to_thread(device.client.connect, "127.0.0.1", port, 60)
    device.client.loop_start()


async def test_a_whole_session_with_paho(port_and_served) -> None:
    """Connect with a will, subscribe, echo at both QoS, unsubscribe, disconnect."""
    port, accepted = port_and_served
    device = Device(clean_session=False)
    device.client.username_pw_set("hub/dev 1/?api-version=1", "pass wörd")
    device.client.will_set("will/topic", b"gone", qos=1, retain=True)
    await start(device, port)
    assert await device.next() == ("connect", 1, 0)

    device.client.subscribe([("echo/#", 2), ("other/+", 0)])
    assert await device.next() == ("subscribe", (1, 0))

    payload = bytes(range(256)) * 1000
    device.client.publish("a/é", payload, qos=1)
    both = sorted([await device.next(), await device.next()])
    assert both == [("message", "echo/a/é", payload, 1), ("published",)]
    device.client.publish("b", b"", qos=0)
    rest = sorted([await device.next(), await device.next()])
    assert rest == [("message", "echo/b", b"", 0), ("published",)]

    device.client.unsubscribe("other/+")
    assert await device.next() == ("unsubscribe",)
    device.client.disconnect()
    assert await device.next() == ("disconnect", 0)
    await asyncio.to_thread(device.client.loop_stop)

    served = accepted.get_nowait()
    events = []
    while not events or not isinstance(events[-1], ConnectionEnded):
        events.append(await asyncio.wait_for(served.events.get(), 10))
    assert events[0] == ConnectRequested(
        "dev 1", "hub/dev 1/?api-version=1", "pass wörd".encode(), False, 60,
        Will("will/topic", b"gone", 1, True),
    )  # fmt: skip
    # paho acknowledges from a thread of its own: when is its affair, but it must.
    kinds = [type(event) for event in events[1:]]
    kinds.remove(PublishAcknowledged)
    assert kinds == [
        SubscribeRequested,
        PublishReceived,
        PublishReceived,
        UnsubscribeRequested,
        ConnectionEnded,
    ]
    assert events[2].payload == payload
    assert events[-1].graceful


async def test_paho_understands_a_refusal(port_and_served) -> None:
    """CONNACK 5 reaches the application as such."""
    port, _ = port_and_served
    device = Device()
    device.client.username_pw_set("refuse")
    await start(device, port)
    assert await device.next() == ("connect", 0, 5)
    device.client.disconnect()
    await asyncio.to_thread(device.client.loop_stop)


async def test_qos_2_of_paho_is_cut_off(port_and_served) -> None:
    """As IoT Hub does: the connection closes, and the reason is in our log."""
    port, accepted = port_and_served
    device = Device()
    await start(device, port)
    assert await device.next() == ("connect", 0, 0)
    device.client.publish("t", b"x", qos=2)
    kind, code = await device.next()
    assert (kind, code != 0) == ("disconnect", True)
    device.client.disconnect()
    await asyncio.to_thread(device.client.loop_stop)
    served = accepted.get_nowait()
    assert isinstance(await served.events.get(), ConnectRequested)
    ended = await asyncio.wait_for(served.events.get(), 10)
    assert isinstance(ended, ConnectionEnded)
    assert "4.3.3" in ended.reason
