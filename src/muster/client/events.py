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
_PURPOSE = "read the hub's events"


class Event(msgspec.Struct, frozen=True, rename="camel"):
    """One message as the hub stored it."""

    partition: str | int
    sequence_number: int
    offset: str | int
    enqueued_time: str
    body: Any
    system_properties: dict[str, Any] = {}
    properties: dict[str, Any] = {}
    annotations: dict[str, Any] = {}
    body_encoding: str | None = None

    @property
    def device_id(self) -> str:
        """The device that sent it, as the hub attests; "" when the hub does not say."""
        for properties in (self.system_properties, self.annotations):
            found = properties.get("iothub-connection-device-id")
            if found:
                return str(found)
        return ""

    @property
    def content(self) -> bytes:
        """The body as the device sent it. A JSON body has lost its spacing, not its meaning."""
        if self.body_encoding == "base64":
            try:
                return base64.b64decode(str(self.body), validate=True)
            except (binascii.Error, ValueError):
                raise ServiceError(
                    Kind.UNAVAILABLE, f"could not {_PURPOSE}: a body is not base64"
                ) from None
        if isinstance(self.body, str) and self.body_encoding != "json":
            return self.body.encode()
        return msgspec.json.encode(self.body)


class EventRead:
    """One reading of the stream: give it to a session's `stream`.

    *start* is `earliest`, `latest`, a sequence number or an ISO 8601 moment. The reading ends
    after *max_events*, or when *wait_seconds* pass without one; None leaves it to the service.
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
        params = {"consumerGroup": consumer_group, "from": start}
        if partition is not None:
            params["partition"] = str(partition)
        if max_events is not None:
            params["maxEvents"] = str(max_events)
        if wait_seconds is not None:
            params["waitSeconds"] = f"{wait_seconds:g}"
        self._buffer = bytearray()
        self.request = Request(
            method="GET",
            url=f"{base_url(url or hub.hostname)}/messages/events",
            purpose=_PURPOSE,
            repeatable=True,
            authorization=SharedAccess(hub.key, hub.hostname),
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
        return [_event(line) for line in lines if line.strip()]


def _event(line: bytearray) -> Event:
    try:
        return msgspec.json.decode(line, type=Event)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ServiceError(
            Kind.UNAVAILABLE, f"could not {_PURPOSE}: a line is not an event ({error})"
        ) from error
