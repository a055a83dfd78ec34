"""A hub's event stream over HTTPS: one JSON document a line, for as long as one listens.

Muster's own API (docs/decisions/0012): Azure offers the same stream over AMQP only. A line is
an event; an empty line says that the connection is alive.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import msgspec

from muster.client.errors import ServiceError
from muster.client.exchange import Request, SharedAccess, base_url
from muster.client.shared_access import ConnectionString
from muster.errors import Kind

# A message of 256 KiB in base64 with 8 KiB of properties, every character escaped, stays below.
_MAX_LINE = 2 * 2**20
# The service asks again for the reader's right while it reads, so the token has to last.
_TOKEN_SECONDS = 24 * 3600
_PURPOSE = "read the hub's events"


class Event(msgspec.Struct, frozen=True, rename="camel"):
    """One message as the hub stored it. `properties` are the device's own."""

    partition: int
    sequence_number: int
    offset: str
    enqueued_time: str
    body: str
    body_encoding: str
    system_properties: dict[str, str] = {}
    properties: dict[str, str | None] = {}
    annotations: dict[str, Any] = {}

    @property
    def device_id(self) -> str:
        """The device that sent it, as the hub attests; "" when no device did."""
        return str(self.annotations.get("iothub-connection-device-id") or "")

    @property
    def content(self) -> bytes:
        """The body, byte for byte as the device sent it. Raises `ServiceError(UNAVAILABLE)`."""
        if self.body_encoding == "utf-8":
            return self.body.encode()
        try:
            if self.body_encoding == "base64":
                return base64.b64decode(self.body, validate=True)
        except (binascii.Error, ValueError):
            pass
        raise ServiceError(
            Kind.UNAVAILABLE,
            f"could not {_PURPOSE}: a body is not {self.body_encoding}",
        )


class EventRead:
    """One reading of the stream: give it to a session's `stream`.

    *start* is `earliest`, `latest`, an ISO 8601 moment or, with a *partition*, a sequence number.
    The reading ends after *max_events*, or *wait_seconds* after it began (0: with what is there),
    or within a day, when its token does; `resumed` goes on from there.
    """

    def __init__(
        self,
        hub: ConnectionString,
        *,
        url: str | None = None,
        start: str = "latest",
        partition: int | None = None,
        consumer_group: str = "$Default",
        max_events: int | None = None,
        wait_seconds: float | None = None,
    ) -> None:
        self._hub = hub
        self._url = base_url(url or hub.hostname)
        self._start = start
        self._partition = partition
        self._consumer_group = consumer_group
        self._buffer = bytearray()
        self._seen: dict[int, int] = {}
        params = {"consumerGroup": consumer_group, "from": start}
        if partition is not None:
            params["partition"] = str(partition)
        if max_events is not None:
            params["maxEvents"] = str(max_events)
        if wait_seconds is not None:
            params["waitSeconds"] = f"{wait_seconds:.3f}"
        self.request = Request(
            method="GET",
            url=f"{self._url}/messages/events",
            purpose=_PURPOSE,
            repeatable=True,
            authorization=SharedAccess(hub.key, hub.hostname, _TOKEN_SECONDS),
            params=params,
            headers={"accept": "application/x-ndjson"},
        )

    def receive(self, data: bytes) -> Sequence[Event]:
        """Take bytes; return the events they complete. Raises `ServiceError(UNAVAILABLE)`."""
        self._buffer += data
        *lines, rest = self._buffer.split(b"\n")
        self._buffer = rest
        if len(rest) > _MAX_LINE:
            raise ServiceError(Kind.UNAVAILABLE, f"could not {_PURPOSE}: a line does not end")
        events = [_event(line) for line in lines if line.strip()]
        return [event for event in events if self._is_new(event)]

    def resumed(
        self, *, max_events: int | None = None, wait_seconds: float | None = None
    ) -> EventRead:
        """Return a reading that goes on after the last event that this one returned.

        After a reading from `latest` without any event, what came in between is not seen.
        """
        again = EventRead(
            self._hub,
            url=self._url,
            start=self._start,
            partition=self._partition,
            consumer_group=self._consumer_group,
            max_events=max_events,
            wait_seconds=wait_seconds,
        )
        again._seen = dict(self._seen)
        return again

    def _is_new(self, event: Event) -> bool:
        # A start by time may repeat events of that moment; within a partition numbers only grow.
        if event.sequence_number <= self._seen.get(event.partition, -1):
            return False
        self._seen[event.partition] = event.sequence_number
        self._start = event.enqueued_time
        return True


def _event(line: bytearray) -> Event:
    try:
        return msgspec.json.decode(line, type=Event)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ServiceError(
            Kind.UNAVAILABLE, f"could not {_PURPOSE}: a line is not an event ({error})"
        ) from error
