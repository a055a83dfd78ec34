"""What devices send: from a PUBLISH to a durable event, and only then to its PUBACK.

This is the path that all messages of all devices take, so what can be known once is worked out
once: a session's envelope up to the property bag when it opens, and the rest when a topic
differs from the one before. What is left for each message is a comparison and an append.

Rules:

1. Messages of one device go to one partition, in the order they came, whichever session, node
   or day: the partition is a stable hash of the device id.
2. A message is acknowledged after all that was appended with it is durable, and acknowledgements
   leave in the order of arrival (MQTT-3.1.1 section 4.6). One that could not be stored is
   never acknowledged: the connection ends, and the device sends it again.
3. A property bag is checked on arrival: what breaks its grammar ends the connection, as IoT
   Hub does, instead of reaching a consumer that cannot tell who is to blame.
4. A session has a bounded number of messages that wait to be durable; then its device is not
   read from until half of them are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from muster.errors import Kind, Problem
from muster.hub.bags import BagChecker
from muster.hub.envelope import Flag, Sender, envelope_prefix, seal
from muster.model.resource import Hub
from muster.ports.events import EventAppender, EventLog
from muster.protocols.machine import Link
from muster.protocols.mqtt.events import Event, PublishReceived

# IoT Hub: 256 KiB for the body and the properties together (facts/hub.md 7).
MAX_MESSAGE_BYTES = 256 * 1024
# A commit takes some milliseconds: one device that sends 100,000 messages a second has this many
# under way. Large messages reach the other limit first, which keeps a thousand floods at 1 GiB.
_MAX_WAITING = 512
_MAX_WAITING_BYTES = 1024 * 1024


class Telemetry:
    """Opens the streams of hubs for the devices that were let in."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    async def open(self, hub: Hub, sender: Sender) -> TelemetryWriter:
        """Return the way into *hub*'s stream for one session. Raises `Problem(UNAVAILABLE)`."""
        stream = await self._log.open_stream(
            hub.id, partition_count=hub.partition_count, retention_days=hub.retention_days
        )
        return TelemetryWriter(stream, sender)


def partition_of(device_id: str, partition_count: int) -> int:
    """Return the partition that the messages of *device_id* go to, for ever."""
    digest = hashlib.sha256(device_id.encode()).digest()
    return int.from_bytes(digest[:8], "big") % partition_count


class TelemetryWriter:
    """Writes the messages of one session, whatever wire they came by."""

    def __init__(self, stream: EventAppender, sender: Sender) -> None:
        self.stream = stream
        self.partition = partition_of(sender.device_id, stream.partition_count)
        self._prefix = envelope_prefix(sender)
        self._bags = BagChecker()

    def envelope(self, bag: str, flags: Flag = Flag(0)) -> bytes:  # noqa: B008 - immutable
        """Return the envelope of a message with that property bag.

        Raises `Problem(MALFORMED)` when the bag breaks its grammar.
        """
        self._bags.check(bag)
        return seal(self._prefix, bag, flags)

    def append(self, bag: str, payload: bytes, flags: Flag = Flag(0)) -> None:  # noqa: B008 - immutable
        """Take one message. Raises `Problem`: `MALFORMED`, `TOO_LARGE` or `UNAVAILABLE`."""
        check_size(bag, payload)
        self.stream.append(self.partition, self.envelope(bag, flags), payload)


def check_size(bag: str, payload: bytes) -> None:
    """Raise `Problem(TOO_LARGE)` for a message above IoT Hub's limit."""
    if len(payload) + len(bag) > MAX_MESSAGE_BYTES:
        raise _too_large()


def _too_large() -> Problem:
    return Problem(Kind.TOO_LARGE, f"a message has at most {MAX_MESSAGE_BYTES} bytes")


class TelemetryChannel:
    """The MQTT side of a `TelemetryWriter`: takes PUBLISH packets, gives PUBACKs.

    *prefix* is the device's own topic up to the property bag. *acknowledge* queues PUBACKs;
    *fail* ends the connection with a reason for the log. One for each connection.
    """

    def __init__(
        self,
        writer: TelemetryWriter,
        *,
        prefix: str,
        link: Link,
        acknowledge: Callable[[Sequence[int]], None],
        fail: Callable[[str], None],
    ) -> None:
        self._writer = writer
        self._prefix = prefix
        self._bare = prefix[:-1]  # how some clients spell a topic without properties
        self._link = link
        self._acknowledge = acknowledge
        self._fail = fail
        self._topic: str | None = None  # the last one, for which the next two hold
        self._envelope = b""
        self._room = 0
        self._waiting = 0
        self._waiting_bytes = 0
        self._paused = False
        self._closed = False

    def take(self, events: Sequence[Event], other: Callable[[Event], None]) -> None:
        """Append the messages among *events*; hand what else there is to *other*, in order.

        *other* also gets each PUBLISH to another topic, before it is acknowledged. Raises
        `Problem` where the connection has to end; nothing of that batch is acknowledged.
        """
        known = self._topic
        if len(events) == 1:
            event = events[0]
            if type(event) is PublishReceived and event.topic == known and not event.retain:
                # What most reads of most devices bring.
                _, payload, qos, packet_id, _, _ = event
                size = len(payload)
                if size > self._room:
                    raise _too_large()
                self._writer.stream.append(self._writer.partition, self._envelope, payload)
                self._settle_later([packet_id] if qos else [], 1, size)
                return
        owed: list[int] = []
        alike: list[bytes] = []  # payloads that share an envelope and are not appended yet
        count = size = 0
        for event in events:
            if type(event) is not PublishReceived:
                size += self._append(alike)
                other(event)
                continue
            topic, payload, qos, packet_id, _, retain = event
            if topic != known or retain:
                size += self._append(alike)
                if not topic.startswith(self._prefix) and topic != self._bare:
                    other(event)
                    if qos:
                        owed.append(packet_id)
                    continue
                self._learn(topic, retain)
                known = self._topic
            alike.append(payload)
            count += 1
            if qos:
                owed.append(packet_id)
        size += self._append(alike)
        if count or owed:
            self._settle_later(owed, count, size)

    def will(self, topic: str, payload: bytes) -> None:
        """Append a device's last will. Raises `Problem` as `TelemetryWriter.append` does."""
        self._writer.append(self._bag(topic), payload, Flag.WILL)

    def close(self) -> None:
        """Owe nobody anything any more: the connection is gone."""
        self._closed = True

    def _learn(self, topic: str, retain: bool) -> None:
        bag = self._bag(topic)
        self._envelope = self._writer.envelope(bag, Flag.RETAIN if retain else Flag(0))
        self._room = MAX_MESSAGE_BYTES - len(bag)
        # A retained message is rare: its envelope is not one to keep.
        self._topic = None if retain else topic

    def _bag(self, topic: str) -> str:
        # Some clients end every topic with a slash; a bag cannot hold one (facts/hub.md 1.5).
        return topic[len(self._prefix) :].removesuffix("/")

    def _append(self, alike: list[bytes]) -> int:
        """Append and forget *alike*; return how many bytes they had.

        Raises `Problem`, with some of them appended perhaps.
        """
        if not alike:
            return 0
        if max(map(len, alike)) > self._room:
            raise _too_large()
        self._writer.stream.append_all(self._writer.partition, self._envelope, alike)
        size = sum(map(len, alike))
        alike.clear()
        return size

    def _settle_later(self, owed: list[int], count: int, size: int) -> None:
        self._waiting += count
        self._waiting_bytes += size
        if not self._paused and (
            self._waiting >= _MAX_WAITING or self._waiting_bytes >= _MAX_WAITING_BYTES
        ):
            self._paused = True
            self._link.pause_reading()

        def settle(problem: Problem | None) -> None:
            self._settle(problem, owed, count, size)

        self._writer.stream.on_durable(settle)

    def _settle(self, problem: Problem | None, owed: list[int], count: int, size: int) -> None:
        if self._closed:
            return
        self._waiting -= count
        self._waiting_bytes -= size
        if problem is not None:
            self._fail(f"messages could not be stored: {problem.detail}")
            return
        if owed:
            self._acknowledge(owed)
            self._link.flush()
        if self._paused and (
            self._waiting <= _MAX_WAITING // 2 and self._waiting_bytes <= _MAX_WAITING_BYTES // 2
        ):
            self._paused = False
            self._link.resume_reading()
