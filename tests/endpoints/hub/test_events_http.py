"""The event stream over HTTPS, as a reader without AMQP sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette
from tests.support.hub import (
    HOST,
    NOW,
    POLICY_KEY,
    ManualClock,
    MemoryHubs,
    MemoryLog,
    a_hub,
    policy,
    token,
)

from muster.endpoints.hub import events_http as hub_events_http
from muster.endpoints.hub.events_http import routes
from muster.errors import Kind, Problem
from muster.hub.access import AuthMethod
from muster.hub.envelope import Sender
from muster.hub.telemetry import TelemetryWriter
from muster.model.resource import Right


@dataclass
class Reader:
    """One request and what has come of it. ASGI by hand, to see lines as they come."""

    app: Starlette
    query: str = ""
    authorization: str = field(
        default_factory=lambda: token(HOST, POLICY_KEY, name="service").decode()
    )
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def begin(self) -> None:
        """Send the request and wait for the status line."""
        scope = {
            "type": "http", "http_version": "1.1", "method": "GET", "scheme": "https",
            "path": "/messages/events", "raw_path": b"/messages/events",
            "query_string": self.query.encode(), "root_path": "", "server": (HOST, 8443),
            "headers": [(b"host", HOST.encode()), (b"authorization", self.authorization.encode())],
            "asgi": {"version": "3.0", "spec_version": "2.3"},
        }  # fmt: skip
        self.task = asyncio.ensure_future(self.app(scope, self._receive, self._send))
        await self.until(lambda: self.status != 0)

    async def until(self, true: Any) -> None:
        """Wait until *true* of what has come."""
        async with asyncio.timeout(10):
            while not true():
                await self.moved.wait()
                self.moved.clear()

    async def lines(self, count: int) -> list[dict[str, Any]]:
        """Wait for so many events and return all there are."""
        await self.until(lambda: len(self.events()) >= count)
        return self.events()

    async def end(self) -> list[dict[str, Any]]:
        """Wait for the end of the answer and return its events."""
        assert self.task is not None
        async with asyncio.timeout(10):
            await self.task
        return self.events()

    async def leave(self) -> None:
        """Close the connection."""
        self.gone.set()
        assert self.task is not None
        async with asyncio.timeout(10):
            await self.task

    def events(self) -> list[dict[str, Any]]:
        """Return the events that have come."""
        return [msgspec.json.decode(line) for line in bytes(self.data).split(b"\n") if line]

    async def _receive(self) -> dict[str, Any]:
        if not hasattr(self, "_asked"):
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {key.decode(): value.decode() for key, value in message["headers"]}
        else:
            self.data += message.get("body", b"")
        self.moved.set()


class Hub:
    """A hub with a stream to write to and readers of it."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.hubs = MemoryHubs(a_hub())
        self.log = MemoryLog(durable=True)
        self.app = Starlette(
            routes=routes(log=self.log, hubs=self.hubs, authenticate=self._nobody, clock=self.clock)
        )
        self.readers: list[Reader] = []

    async def _nobody(self, _request: Any) -> Any:
        raise Problem(Kind.UNAUTHENTICATED, "no token of ours")

    async def send(self, device_id: str, *bodies: bytes, bag: str = "") -> int:
        """Store messages of a device; return their partition."""
        stream = await self.log.open_stream("hub-1", partition_count=4, retention_days=1)
        sender = Sender(device_id, None, "g1", AuthMethod.DEVICE_KEY.value)
        writer = TelemetryWriter(stream, sender)
        for body in bodies:
            writer.append(bag, body)
        return writer.partition

    async def read(self, query: str = "", **fields: Any) -> Reader:
        """Begin to read."""
        reader = Reader(self.app, query, **fields)
        self.readers.append(reader)
        await reader.begin()
        return reader


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    """A hub; readers that still stand at the end are sent away."""
    made = Hub()
    yield made
    for reader in made.readers:
        if reader.task is not None and not reader.task.done():
            await reader.leave()


async def test_a_line_tells_all_of_an_event(hub: Hub) -> None:
    """Properties, annotations, position and body, under Event Hubs' names."""
    partition = await hub.send("dev1", b'{"t":1}', bag="%24.ct=application%2Fjson&k=v&flag")
    reader = await hub.read("maxEvents=1")
    assert (reader.status, reader.headers["content-type"]) == (200, "application/x-ndjson")
    moment = NOW.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    assert await reader.end() == [
        {
            "partition": partition,
            "sequenceNumber": 0,
            "offset": "0",
            "enqueuedTime": moment,
            "systemProperties": {"content-type": "application/json"},
            "properties": {"k": "v", "flag": None},
            "annotations": {
                "iothub-connection-device-id": "dev1",
                "iothub-connection-auth-method": AuthMethod.DEVICE_KEY.value,
                "iothub-connection-auth-generation-id": "g1",
                "iothub-enqueuedtime": moment,
                "iothub-message-source": "Telemetry",
                "x-opt-sequence-number": 0,
                "x-opt-offset": "0",
                "x-opt-enqueued-time": moment,
            },
            "body": '{"t":1}',
            "bodyEncoding": "utf-8",
        }
    ]


async def test_bodies_that_are_not_text_come_as_base64(hub: Hub) -> None:
    """Bytes survive, and line feeds do not break lines."""
    await hub.send("dev1", b"\xff\n\x00", b"a\nb\x00\xc3\xa9")
    one, two = await (await hub.read("waitSeconds=0")).end()
    assert (one["body"], one["bodyEncoding"]) == ("/woA", "base64")
    assert (two["body"], two["bodyEncoding"]) == ("a\nb\x00é", "utf-8")


async def test_all_partitions_are_read_each_in_order(hub: Hub) -> None:
    """Nothing is lost or twice, and the order of a device holds, across many batches."""
    devices = [f"d{n}" for n in range(20)]
    for number in range(20):
        for device in devices:
            await hub.send(device, b"%d" % number)
    events = await (await hub.read("waitSeconds=0")).end()
    assert len(events) == 400
    for device in devices:
        mine = [e for e in events if e["annotations"]["iothub-connection-device-id"] == device]
        assert [int(event["body"]) for event in mine] == list(range(20))


async def test_latest_is_settled_before_the_status_line(hub: Hub) -> None:
    """Who has seen the status line gets what is sent from then on, and nothing older."""
    await hub.send("dev1", b"old")
    reader = await hub.read("from=latest")
    await hub.send("dev1", b"new")
    assert [event["body"] for event in await reader.lines(1)] == ["new"]


async def test_events_come_live(hub: Hub) -> None:
    """A reader that stays gets each event as it is stored, on whatever partition."""
    reader = await hub.read()
    for number in range(5):
        await hub.send(f"d{number}", b"%d" % number)
        assert len(await reader.lines(number + 1)) == number + 1


@pytest.mark.parametrize(
    ("start", "bodies"),
    [
        ("earliest", ["0", "1", "2"]),
        ("1", ["1", "2"]),
        ("7", []),
        ("2000-01-01", ["0", "1", "2"]),
        ((NOW - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ"), ["0", "1", "2"]),
        ((NOW + timedelta(hours=1)).isoformat(), []),
    ],
)
async def test_where_reading_begins(hub: Hub, start: str, bodies: list[str]) -> None:
    """At the oldest, at a number, or at a time; a plus sign need not be encoded."""
    partition = await hub.send("dev1", b"0", b"1", b"2")
    reader = await hub.read(f"partition={partition}&waitSeconds=0&from={start}")
    assert reader.status == 200
    hub.clock.pass_(seconds=1)
    assert [event["body"] for event in await reader.end()] == bodies


async def test_one_partition_alone(hub: Hub) -> None:
    """Others' events are not shown."""
    partition = await hub.send("dev1", b"mine")
    for number in range(20):
        await hub.send(f"d{number}", b"theirs")
    events = await (await hub.read(f"partition={partition}&waitSeconds=0")).end()
    assert {event["partition"] for event in events} == {partition}


async def test_max_events_is_exact(hub: Hub) -> None:
    """Also when more lie in one batch, and in several partitions."""
    for number in range(50):
        await hub.send(f"d{number}", b"x")
    assert len(await (await hub.read("maxEvents=33")).end()) == 33


async def test_waiting_ends(hub: Hub) -> None:
    """After waitSeconds, counted from the beginning, without an event."""
    reader = await hub.read("waitSeconds=0.05")
    hub.clock.pass_(seconds=1)
    assert await reader.end() == []


BAD = {
    "consumerGroup=nobody": (404, "DeviceNotFound"),
    "partition=4": (400, "ArgumentInvalid"),
    "partition=-1": (400, "ArgumentInvalid"),
    "partition=x": (400, "ArgumentInvalid"),
    "from=1": (400, "ArgumentInvalid"),
    "from=yesterday": (400, "ArgumentInvalid"),
    "partition=0&from=99999999999999999999": (400, "ArgumentInvalid"),
    "maxEvents=0": (400, "ArgumentInvalid"),
    "maxEvents=x": (400, "ArgumentInvalid"),
    "waitSeconds=-1": (400, "ArgumentInvalid"),
    "waitSeconds=nan": (400, "ArgumentInvalid"),
    "waitSeconds=inf": (400, "ArgumentInvalid"),
}


@pytest.mark.parametrize("query", BAD)
async def test_bad_questions(hub: Hub, query: str) -> None:
    """They are refused before the answer begins, in the hub's words."""
    await hub.send("dev1", b"x")
    reader = await hub.read(query)
    status, name = BAD[query]
    assert (reader.status, reader.headers["iothub-errorcode"]) == (status, name)


@pytest.mark.parametrize("name", ["registryRead", "device", "nobody"])
async def test_who_may_not_read(hub: Hub, name: str) -> None:
    """Reading events takes ServiceConnect."""
    reader = await hub.read(authorization=token(HOST, POLICY_KEY, name=name).decode())
    assert reader.status == 401
    assert reader.events()[0]["Message"].startswith("ErrorCode:IotHubUnauthorizedAccess;")


async def test_a_heartbeat_is_an_empty_line_and_asks_for_the_right_again(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A silent stream shows that it lives; a key that was taken away ends it."""
    monkeypatch.setattr(hub_events_http, "_HEARTBEAT_SECONDS", 0.02)
    reader = await hub.read()
    hub.clock.pass_(seconds=1)
    await reader.until(lambda: bytes(reader.data) == b"\n")
    hub.hubs.hubs[0] = a_hub(policies=(policy("other", Right.SERVICE_CONNECT),))
    hub.clock.pass_(seconds=1)
    assert await reader.end() == []


async def test_streams_are_counted_and_given_back(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many at a time; whoever leaves, in whatever way, makes room."""
    monkeypatch.setattr(hub_events_http, "_MAX_STREAMS", 2)
    first, _second = await hub.read(), await hub.read()
    third = await hub.read()
    assert (third.status, third.headers["retry-after"]) == (429, "10")
    await first.leave()
    assert (await hub.read()).status == 200
