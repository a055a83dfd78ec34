"""A hub's event stream over HTTPS: one JSON document a line, for as long as the reader stays.

    GET /messages/events?consumerGroup=$Default&partition=0&from=latest&maxEvents=5&waitSeconds=60

Our own, until consumers can come by AMQP (docs/decisions/0012). Rules:

1. `from` is `earliest` (default), `latest`, a sequence number (of one partition, included), or a
   time (ISO 8601; the first event stored at or after it). It is settled before the answer
   begins: what is sent once the status line has arrived is in a stream from `latest`.
2. All partitions when none is named; ordered within each, not between them.
3. It ends after `maxEvents`, or `waitSeconds` after it began (0: with what there is now), or when
   the reader goes, or when the reader's right to be here ends: that is asked again at each
   heartbeat, a blank line.
4. Readers share nothing and acknowledge nothing: a position is the reader's to keep.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from muster.clock import Clock
from muster.endpoints.authentication import Authenticate
from muster.endpoints.hub.wire import HUB_TYPE, Call, HubWire, timestamp
from muster.endpoints.rendering import encode_json
from muster.endpoints.service_door import hub_door
from muster.endpoints.wire import Operation, routes_of
from muster.errors import Kind, Problem
from muster.hub.envelope import open_envelope
from muster.model.message import Event
from muster.model.resource import Hub, Right
from muster.ports.events import EventLog, EventReader
from muster.ports.hubs import HubDirectory

# Events read at once: with the largest messages 8 MiB in memory for one slow reader.
_BATCH = 32
# Proxies cut a silent response after 60 s or more; a reader that is gone is noticed by writing.
_HEARTBEAT_SECONDS = 15.0
# Event Hubs allows five readers for each partition and consumer group; a node that serves more than
# this many streams over HTTPS is being used for what AMQP is for.
_MAX_STREAMS = 100
_MAX_EVENTS = 1_000_000_000
_MAX_WAIT = 7 * 24 * 3600.0  # longer than the longest retention: as good as for ever
_MAX_PARTITION = 31  # IoT Hub: 32 partitions at most
_MAX_SEQUENCE = 2**63 - 1
_MEDIA_TYPE = "application/x-ndjson"


def routes(
    *, log: EventLog, hubs: HubDirectory, authenticate: Authenticate, clock: Clock
) -> list[BaseRoute]:
    """Return the route of the event stream, for the host root."""
    wire = HubWire(hub_door(hubs, authenticate, clock))
    return routes_of(wire, [_EventStreams(log, wire, clock).operation])


def event_line(event: Event) -> bytes:
    """Return *event* as one line of JSON, with its line feed."""
    try:
        body, encoding = event.body.decode(), "utf-8"
    except UnicodeDecodeError:
        body, encoding = base64.b64encode(event.body).decode(), "base64"
    document = {
        "partition": event.partition,
        "sequenceNumber": event.sequence_number,
        "offset": str(event.offset),
        "enqueuedTime": timestamp(event.enqueued),
        "systemProperties": event.system_properties,
        "properties": event.properties,
        "annotations": {
            key: timestamp(value) if isinstance(value, datetime) else value
            for key, value in event.annotations.items()
        },
        "body": body,
        "bodyEncoding": encoding,
    }
    return encode_json(document) + b"\n"


@dataclass(frozen=True, slots=True)
class _Query:
    partition: int | None
    start: str | int | datetime
    max_events: int
    wait_seconds: float


class _EventStreams:
    def __init__(self, log: EventLog, wire: HubWire, clock: Clock) -> None:
        self._log = log
        self._wire = wire
        self._clock = clock
        self._open = 0
        self.operation = Operation(
            "GET",
            "/messages/events",
            self.get,
            f"{HUB_TYPE}/telemetry/read",
            Right.SERVICE_CONNECT,
        )

    async def get(self, call: Call) -> Response:
        hub = call.resource
        query = _parse_query(call.request, hub)
        stream = await self._log.open_stream(
            hub.id, partition_count=hub.partition_count, retention_days=hub.retention_days
        )
        if query.partition is not None and query.partition >= stream.partition_count:
            raise Problem(
                Kind.MALFORMED, f"partition is a number from 0 to {stream.partition_count - 1}"
            )
        wanted = range(stream.partition_count) if query.partition is None else [query.partition]
        positions = {one: await _position(stream, one, query.start) for one in wanted}
        # What is there already is sent even to a reader that will not wait.
        stored = {one: (await stream.partition_info(one)).last_sequence_number for one in wanted}
        if self._open >= _MAX_STREAMS:
            raise Problem(Kind.THROTTLED, f"{_MAX_STREAMS} streams are open", retry_after=10)
        # Counted from here and not from the first line on: a reader may never ask for one.
        self._open += 1
        lines = self._lines(call.request, stream, positions, stored, query)
        return _CountedStream(lines, self._closed)

    def _closed(self) -> None:
        self._open -= 1

    async def _lines(
        self,
        request: Request,
        stream: EventReader,
        positions: dict[int, int],
        stored: dict[int, int],
        query: _Query,
    ) -> AsyncIterator[bytes]:
        left = query.max_events
        end = self._clock.monotonic() + query.wait_seconds
        heartbeat = self._clock.monotonic() + _HEARTBEAT_SECONDS
        while True:
            found = False
            for partition, start in positions.items():
                batch = await stream.read(partition, start, min(_BATCH, left))
                if not batch:
                    continue
                found = True
                positions[partition] = batch[-1].sequence_number + 1
                left -= len(batch)
                yield b"".join(event_line(open_envelope(partition, one)) for one in batch)
                if left == 0:
                    return
            now = self._clock.monotonic()
            if now >= end and all(positions[one] > stored[one] for one in positions):
                return
            if now >= heartbeat:
                heartbeat = now + _HEARTBEAT_SECONDS
                try:
                    await self._wire.enter(request, self.operation)
                except Problem:
                    return
                yield b"\n"
            if not found:
                await _wait_for_any(stream, positions, min(end, heartbeat) - now)


class _CountedStream(StreamingResponse):
    """A streaming response that says when it is over, however it ends."""

    def __init__(self, lines: AsyncIterator[bytes], closed: Callable[[], None]) -> None:
        super().__init__(lines, media_type=_MEDIA_TYPE, headers={"Cache-Control": "no-store"})
        self._closed = closed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._closed()


async def _wait_for_any(stream: EventReader, positions: dict[int, int], seconds: float) -> None:
    waits = [
        asyncio.ensure_future(stream.wait(partition, start))
        for partition, start in positions.items()
    ]
    try:
        await asyncio.wait(waits, timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        # Gathered, so that a failure of one is not reported as never retrieved.
        await asyncio.gather(*waits, return_exceptions=True)


async def _position(stream: EventReader, partition: int, start: str | int | datetime) -> int:
    if isinstance(start, int):
        return start
    if isinstance(start, datetime):
        return await stream.sequence_number_at(partition, start)
    if start == "earliest":
        return 0  # a start older than what is kept begins at the oldest kept
    return (await stream.partition_info(partition)).last_sequence_number + 1


def _parse_query(request: Request, hub: Hub) -> _Query:
    values = request.query_params
    group = values.get("consumerGroup", "$Default")
    if group.lower() not in {one.lower() for one in hub.consumer_groups}:
        raise Problem(Kind.NOT_FOUND, f"the hub has no consumer group {group[:100]!r}")
    named = values.get("partition")
    partition = None if named is None else _number("partition", named, 0, _MAX_PARTITION)
    start = _parse_start(values.get("from", "earliest"))
    if isinstance(start, int) and partition is None:
        raise Problem(Kind.MALFORMED, "a sequence number in from needs a partition")
    most = _number("maxEvents", values.get("maxEvents", str(_MAX_EVENTS)), 1, _MAX_EVENTS)
    try:
        wait = float(values.get("waitSeconds", _MAX_WAIT))
    except ValueError:
        wait = -1.0
    if not 0 <= wait <= _MAX_WAIT:
        raise Problem(Kind.MALFORMED, f"waitSeconds is a number from 0 to {_MAX_WAIT:.0f}")
    return _Query(partition, start, most, wait)


def _parse_start(text: str) -> str | int | datetime:
    if text in {"earliest", "latest"}:
        return text
    if text.isascii() and text.isdigit():
        return _number("from", text, 0, _MAX_SEQUENCE)
    try:
        # A plus sign that was not percent-encoded arrives as a space.
        moment = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
    except ValueError:
        raise Problem(
            Kind.MALFORMED, "from is earliest, latest, a sequence number or an ISO 8601 time"
        ) from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _number(name: str, text: str, least: int, most: int) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 19 and least <= int(text) <= most:
        return int(text)
    raise Problem(Kind.MALFORMED, f"{name} is a number from {least} to {most}")
