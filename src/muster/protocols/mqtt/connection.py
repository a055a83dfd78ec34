"""What both ends of an MQTT 3.1.1 connection share.

Rules:

1. Bytes are parsed where they arrived. Only the tail of an incomplete packet is kept, never
   more than the packet limit, and it is looked at again when the packet is whole: a peer that
   sends byte by byte costs no more copying than one that sends a megabyte.
2. A fixed header is judged as soon as it is there: what must not come is not waited for.
3. A peer's fault becomes `ConnectionEnded`, once and as the last event, and never an exception.
   Events for packets before the fault stand.
4. After the end every method is permitted and does nothing.

Whoever wants another packet adds it to `states.py` and to `_take_own` of its role.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from muster.errors import Kind, Problem
from muster.protocols.mqtt.events import (
    ConnectionEnded,
    Event,
    PublishAcknowledged,
    PublishReceived,
)
from muster.protocols.mqtt.packets import (
    PUBACK,
    PUBLISH,
    Packet,
    decode_length,
    decode_packet_id,
    decode_publish,
    decode_topic,
    encode_pubacks,
    encode_publish,
    encode_topic,
    judge_first,
    judge_length,
    malformed,
)
from muster.protocols.mqtt.states import (
    ENDED,
    JUDGING,
    OPEN,
    RECEIVED,
    SENT,
    Act,
    Role,
    State,
    refusal,
)

# A hub queues 50 messages for a device; the rest is room for what is not queued.
MAX_IN_FLIGHT = 100
# SUBSCRIBE and UNSUBSCRIBE that wait for their answer; IoT Hub has five subscriptions in all.
MAX_UNANSWERED = 100
# What may wait to be fetched by `data_to_send`. The driver fetches at every turn, so more means
# that nobody fetches: a full queue of 50 messages of 64 KiB is 3.2 MiB.
MAX_UNSENT = 8 * 1024 * 1024
_FIRST_TOPIC = ("/", b"\x00\x01/")  # any valid topic: the cache is never without one


class Connection:
    """The part of a connection that does not depend on the role. Not for use by itself."""

    __slots__ = (
        "_allowed",
        "_deadline",
        "_events",
        "_in_flight",
        "_last_id",
        "_max_in_flight",
        "_max_packet_size",
        "_out",
        "_pending",
        "_role",
        "_sent_topic",
        "_sent_topic_wire",
        "_state",
        "_topic",
        "_topic_wire",
        "_unanswered",
        "_unsent",
        "_wanted",
    )

    def __init__(
        self, role: Role, state: State, *, max_packet_size: int, max_in_flight: int
    ) -> None:
        if not 0 < max_in_flight <= 65_535 - 2 * MAX_UNANSWERED:
            raise ValueError("so many in flight would leave no packet identifier free")
        self._role = role
        self._move(state)
        self._max_packet_size = max_packet_size
        self._max_in_flight = max_in_flight
        self._pending = bytearray()
        self._wanted = 0
        self._events: list[Event] = []
        self._out: list[bytes] = []
        self._unsent = 0
        self._in_flight: set[int] = set()
        self._unanswered: dict[int, int] = {}  # packet identifier -> number of filters
        self._last_id = 0
        self._deadline: float | None = None
        self._topic, self._topic_wire = _FIRST_TOPIC
        self._sent_topic, self._sent_topic_wire = _FIRST_TOPIC

    # What the driver calls ------------------------------------------------------------------

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes that arrived at *now* (monotonic seconds)."""
        if self._state is ENDED:
            return
        pending = self._pending
        if pending or self._state is JUDGING:
            pending += data
            if self._state is JUDGING:
                self._hold()
                return
            if len(pending) < self._wanted:
                return
            data = bytes(pending)
            pending.clear()
        self._parse(data, now)

    def receive_eof(self, now: float) -> None:  # noqa: ARG002 - the driver's contract has it
        """Take note that the peer will send no more."""
        self._end("the peer closed the connection without DISCONNECT")

    def deadline_passed(self, now: float) -> None:
        """Act on a deadline; harmless when called early."""
        if self._deadline is not None and now >= self._deadline:
            self._expire(now)

    def events(self) -> Sequence[Event]:
        """Return what happened since the last call, in order."""
        events, self._events = self._events, []
        return events

    def data_to_send(self) -> bytes:
        """Return the bytes to write since the last call."""
        out = self._out
        if not out:
            return b""
        self._out = []
        self._unsent = 0
        return out[0] if len(out) == 1 else b"".join(out)

    def next_deadline(self) -> float | None:
        """Return when `deadline_passed` wants to be called, or None for never."""
        return self._deadline

    @property
    def finished(self) -> bool:
        """Whether the connection is to be closed once the bytes are written."""
        return self._state is ENDED

    # What either role may do ----------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """How many messages that this end sent at QoS 1 still lack their PUBACK."""
        return len(self._in_flight)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 0,
        retain: bool = False,
        duplicate: bool = False,
        packet_id: int | None = None,
    ) -> int:
        """Send a message and return its packet identifier, which is 0 at QoS 0.

        At QoS 1 `PublishAcknowledged` follows when the peer has it. *packet_id* is for sending
        again under the identifier that a lost connection had used (MQTT-4.4.0-1); by default a
        free one is chosen. Does not check whether the peer has subscribed. Returns 0 and
        does nothing after the end.

        Raises:
            Problem(MALFORMED): *topic* is empty, too long, or holds a wildcard or U+0000.
            Problem(TOO_LARGE): topic and payload exceed the packet limit.
            Problem(THROTTLED): the limit of messages in flight is reached.
        """
        if self._state is not OPEN and not self._may(Act.PUBLISH):
            return 0
        if qos not in (0, 1) or (duplicate and not qos):
            raise ValueError("messages go out at QoS 0, or at QoS 1 and then perhaps again")
        topic_wire = self._sent_topic_wire
        if topic != self._sent_topic:
            topic_wire = encode_topic(topic)
            self._sent_topic, self._sent_topic_wire = topic, topic_wire
        if len(topic_wire) + 2 + len(payload) > self._max_packet_size:
            raise Problem(Kind.TOO_LARGE, f"a message of {len(payload)} bytes is too large")
        identifier = self._fly(packet_id) if qos else 0
        self._send(
            encode_publish(topic_wire, payload, qos, identifier, retain=retain, duplicate=duplicate)
        )
        return identifier

    def acknowledge(self, packet_ids: Iterable[int]) -> None:
        """Send a PUBACK for each of *packet_ids*, in order, as one buffer.

        The receiver of a QoS 1 message owes one (MQTT-4.3.2-2), in the order of the messages
        (MQTT-4.6.0-2). Does not check that these were received. `ValueError` for an identifier
        that cannot be.
        """
        if self._state is not OPEN and not self._may(Act.ACKNOWLEDGE):
            return
        if acknowledgements := encode_pubacks(packet_ids):
            self._send(acknowledgements)

    def fail(self, reason: str) -> None:
        """Close without a word: MQTT 3.1.1 gives a server no farewell. *reason* is for the log."""
        self._end(reason)

    # Parsing --------------------------------------------------------------------------------

    def _parse(self, data: bytes, now: float) -> None:
        try:
            position = self._take_packets(data)
        except Problem as problem:
            self._refuse_packet(problem)
            return
        if self._state is ENDED:
            return
        if position:
            self._heard(now)
        if position < len(data):
            self._pending += data[position:] if position else data
            if self._state is JUDGING:
                self._hold()

    def _take_packets(self, data: bytes) -> int:
        """Take every whole packet in *data*; return where the rest begins."""
        position, size = 0, len(data)
        while position < size:
            state, first = self._state, data[position]
            if state is OPEN:
                if first & 0xF0 == 0x30:
                    position = self._take_publishes(data, position)
                    if position == size:
                        break
                    first = data[position]
            elif state is JUDGING or state is ENDED:
                break
            kind = self._judge(first)
            header = decode_length(data, position + 1)
            if header is None:
                self._wanted = 0
                break
            length, body = header
            judge_length(first, length, self._max_packet_size)
            end = body + length
            if end > size:
                self._wanted = end - position
                break
            position = end
            following = self._allowed[kind]
            if following is not state and following is not ENDED:
                self._move(following)
            self._take(kind, first, data[body:end])
        return position

    def _judge(self, first: int) -> Packet:
        """Return the kind of packet that begins so; raises `Problem` when it may not come now."""
        kind = judge_first(first)
        if kind not in self._allowed:
            raise refusal(self._role, self._state, kind)
        if kind is PUBLISH and first & 0b110 == 0b100:
            # IoT Hub closes the connection at a PUBLISH of QoS 2, and so do we.
            raise malformed("PUBLISH at QoS 2, which is not in use", "section 4.3.3")
        return kind

    def _take_publishes(self, data: bytes, position: int) -> int:
        """Take the ordinary PUBLISH packets at *position*; return where the first other begins.

        The hot path: one pass, local names, and for each message its payload and its event.
        It takes first sends, unretained, of less than 16 KiB, and only when they are
        whole and right; anything else is left to `_take`, which knows the reasons.
        """
        size = len(data)
        last = size - 5  # where the shortest PUBLISH can begin
        # Two bytes of length can say no more.
        longest = min(self._max_packet_size, 16_383)
        topic, topic_wire = self._topic, self._topic_wire
        starts_with, append, new = data.startswith, self._events.append, tuple.__new__
        while position <= last:
            first = data[position]
            if first != 0x32 and first != 0x30:  # noqa: PLR1714 - a set costs twice as much
                break
            body = position + 2
            length = data[position + 1]
            if length > 127:
                length += (data[body] << 7) - 128
                body += 1
            end = body + length
            if end > size or not 3 <= length <= longest:
                break
            # Most devices publish to one topic again and again.
            if not starts_with(topic_wire, body):
                if not self._learn_topic(data, body, end):
                    break
                topic, topic_wire = self._topic, self._topic_wire
            start = body + len(topic_wire) + (first & 2)
            if start > end:
                break
            packet_id = data[start - 2] << 8 | data[start - 1] if first & 2 else 0
            if not packet_id and first & 2:
                break
            # tuple.__new__ goes round the named tuple's own constructor, which is Python code.
            fields = (topic, data[start:end], first >> 1 & 1, packet_id, False, False)
            append(new(PublishReceived, fields))
            position = end
        return position

    def _learn_topic(self, data: bytes, body: int, end: int) -> bool:
        """Remember the topic at *body*, if it lies before *end*."""
        start = body + 2 + (data[body] << 8 | data[body + 1])
        if start > end:
            return False
        wire = data[body:start]
        self._topic = decode_topic(wire[2:])
        self._topic_wire = wire
        return True

    def _take(self, kind: Packet, first: int, body: bytes) -> None:
        """Act on a packet that the tables let in."""
        if kind is PUBLISH:
            self._events.append(decode_publish(first, body))
        elif kind is PUBACK:
            packet_id = decode_packet_id(body)
            # A PUBACK for what is not in flight answers an earlier connection; it says nothing.
            if packet_id in self._in_flight:
                self._in_flight.remove(packet_id)
                self._events.append(PublishAcknowledged(packet_id))
        else:
            self._take_own(kind, body)

    def _take_own(self, kind: Packet, body: bytes) -> None:
        """Act on a packet that only this role receives."""
        raise NotImplementedError

    def _hold(self) -> None:
        if len(self._pending) > self._max_packet_size:
            self._end("too much was sent before CONNACK [section 3.1.4]")

    # For the roles --------------------------------------------------------------------------

    def _may(self, act: Act) -> bool:
        """Return whether *act* has an effect, and move to the state it leads to.

        Raises `RuntimeError` when this program does what the state does not have.
        """
        if self._state is ENDED:
            return False
        following = SENT[self._role, self._state].get(act)
        if following is None:
            raise RuntimeError(f"cannot {act.value} while {self._state.value}")
        if (
            following is not self._state and following is not ENDED
        ):  # the caller ends, with a reason
            self._move(following)
        return True

    def _move(self, state: State) -> None:
        self._state = state
        self._allowed = RECEIVED.get((self._role, state), {})

    def _send(self, data: bytes) -> None:
        self._out.append(data)
        self._unsent += len(data)
        if self._unsent > MAX_UNSENT:
            self._end("too much waits to be sent")

    def _end(self, reason: str, *, graceful: bool = False) -> None:
        """Emit the last event, drop what is kept, and stay ended. Idempotent."""
        if self._state is ENDED:
            return
        self._move(ENDED)
        self._deadline = None
        self._pending.clear()
        self._in_flight.clear()
        self._unanswered.clear()
        self._events.append(ConnectionEnded(graceful, reason))

    def _refuse_packet(self, problem: Problem) -> None:
        """End because of what the peer sent."""
        self._end(problem.detail)

    def _heard(self, now: float) -> None:
        """Take note that a whole packet arrived at *now*."""

    def _expire(self, now: float) -> None:
        """Act on the deadline, which has passed."""

    def _fly(self, packet_id: int | None) -> int:
        in_flight = self._in_flight
        if len(in_flight) >= self._max_in_flight:
            raise Problem(Kind.THROTTLED, f"{len(in_flight)} messages lack their PUBACK")
        if packet_id is None:
            packet_id = self._free_id()
        elif packet_id in in_flight or not 0 < packet_id < 65_536:
            raise ValueError(f"packet identifier {packet_id} is in use or impossible")
        in_flight.add(packet_id)
        return packet_id

    def _free_id(self) -> int:
        """Return an identifier that nothing of ours uses (MQTT-2.3.1-2).

        Ends, because in flight and unanswered together never fill all 65,535.
        """
        packet_id = self._last_id % 65_535 + 1
        while packet_id in self._in_flight or packet_id in self._unanswered:
            packet_id = packet_id % 65_535 + 1
        self._last_id = packet_id
        return packet_id
