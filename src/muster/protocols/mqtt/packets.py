"""MQTT 3.1.1 packets: values to bytes, and bytes to values.

Rules:

1. A reader gets one whole packet and takes it apart to its last byte, or raises
   `Problem(MALFORMED)` whose detail names the rule and its clause.
2. A fixed header is judged before its body has arrived, so that what is not allowed is
   never buffered (`judge_first`, `judge_length`).
3. Writers are for this program's own values. Text and sizes that may come from a peer's
   request are checked (`Problem`); numbers out of range are bugs (`ValueError`).

Clauses are those of the OASIS standard MQTT 3.1.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from struct import pack

from muster.errors import Kind, Problem
from muster.protocols.mqtt.events import ConnectRequested, PublishReceived, Will

# IoT Hub takes messages of 256 KiB, and a topic has at most 65,535 bytes because its length
# has two (section 1.5.3). Two more for that length and two for the packet identifier.
MAX_PACKET_SIZE = 256 * 1024 + 65_535 + 4
# What a stranger may make us hold before anyone has judged him: ids and a user name of a few
# hundred bytes, a token or password of at most 4 KiB, and a will that describes an absence.
MAX_CONNECT_SIZE = 16 * 1024
# IoT Hub grants five subscriptions at a time; nobody needs a hundred in one packet.
MAX_FILTERS = 100
_MAX_LENGTH = 268_435_455  # section 2.2.3: what four bytes of seven bits hold


class Packet(IntEnum):
    """Table 2.1: the control packets."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14


PUBLISH, PUBACK = Packet.PUBLISH, Packet.PUBACK  # the common ones; looking a member up is slow

# Table 2.2's flags and the lengths a body can have; the longest None means the connection's limit.
# PUBLISH has flags of its own.
_SHAPE: dict[Packet, tuple[int, int, int | None]] = {
    Packet.CONNECT: (0, 12, MAX_CONNECT_SIZE),
    Packet.CONNACK: (0, 2, 2),
    Packet.PUBACK: (0, 2, 2),
    Packet.PUBREC: (0, 2, 2),
    Packet.PUBREL: (2, 2, 2),
    Packet.PUBCOMP: (0, 2, 2),
    Packet.SUBSCRIBE: (2, 2, None),
    Packet.SUBACK: (0, 3, 2 + MAX_FILTERS),
    Packet.UNSUBSCRIBE: (2, 2, None),
    Packet.UNSUBACK: (0, 2, 2),
    Packet.PINGREQ: (0, 0, 0),
    Packet.PINGRESP: (0, 0, 0),
    Packet.DISCONNECT: (0, 0, 0),
}


def malformed(rule: str, clause: str) -> Problem:
    """Return the refusal of a packet that breaks *rule*; *clause* is quoted in brackets."""
    return Problem(Kind.MALFORMED, f"{rule} [{clause}]")


# The fixed header, section 2.2 --------------------------------------------------------------


def encode_length(value: int) -> bytes:
    """Return *value* as a remaining length; raises `ValueError` for what four bytes cannot hold."""
    if not 0 <= value <= _MAX_LENGTH:
        raise ValueError(f"{value} is no remaining length")
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def decode_length(data: bytes, position: int = 0) -> tuple[int, int] | None:
    """Return (remaining length, where the body begins), or None when bytes are missing.

    Raises `Problem(MALFORMED)` when a fifth byte is announced.
    """
    if position < len(data) and data[position] < 128:
        return data[position], position + 1
    value = 0
    for index, byte in enumerate(data[position : position + 4]):
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value, position + index + 1
    if len(data) - position >= 4:
        raise malformed("a remaining length has at most four bytes", "section 2.2.3")
    return None


def judge_first(first: int) -> Packet:
    """Return the kind of a packet that begins with *first*.

    Raises `Problem(MALFORMED)` for reserved types and wrong flags. Does not check whether the
    kind may come now.
    """
    shape = _SHAPES[first]
    return shape[0] if shape is not None else _shape(first)[0]


def judge_length(first: int, length: int, limit: int) -> None:
    """Check the *length* of the body of a packet that begins with *first*.

    Raises `Problem(MALFORMED)` when it is too short for its kind, and `Problem(TOO_LARGE)` for
    more than the kind has or *limit* allows.
    """
    kind, shortest, longest = _SHAPES[first] or _shape(first)
    if length < shortest:
        raise malformed(f"{kind.name} of {length} bytes is too short", "section 3")
    if length > limit or (longest is not None and length > longest):
        raise Problem(Kind.TOO_LARGE, f"{kind.name} of {length} bytes is too large [section 3]")


def _shape(first: int) -> tuple[Packet, int, int | None]:
    """Return (kind, shortest body, longest body or None); raises as `judge_first` does."""
    if first >> 4 in (0, 15):
        raise malformed(f"packet type {first >> 4} is reserved", "section 2.2.1")
    kind = Packet(first >> 4)
    if kind is Packet.PUBLISH:
        if first & 0b0110 == 0b0110:
            raise malformed("there is no QoS 3", "MQTT-3.3.1-4")
        if first & 0b1110 == 0b1000:
            raise malformed("a QoS 0 message has no duplicate", "MQTT-3.3.1-2")
        return kind, 3, None  # a topic of one character
    flags, shortest, longest = _SHAPE[kind]
    if first & 15 != flags:
        raise malformed(f"wrong flags for {kind.name}", "MQTT-2.2.2-2")
    return kind, shortest, longest


def _shape_or_none(first: int) -> tuple[Packet, int, int | None] | None:
    try:
        return _shape(first)
    except Problem:
        return None


# Every first byte, judged in advance; None for those that `_shape` refuses.
_SHAPES = tuple(_shape_or_none(first) for first in range(256))


# Text, section 1.5.3 ------------------------------------------------------------------------


def decode_text(data: bytes) -> str:
    """Return an UTF-8 string; raises `Problem(MALFORMED)` for bad UTF-8, surrogates and NUL."""
    try:
        text = data.decode("utf-8")  # strict: refuses surrogates, keeps U+FEFF (MQTT-1.5.3-3)
    except UnicodeDecodeError:
        raise malformed("a string is not UTF-8", "MQTT-1.5.3-1") from None
    if "\0" in text:
        raise malformed("a string holds U+0000", "MQTT-1.5.3-2")
    return text


def decode_topic(data: bytes) -> str:
    """Return a topic name; raises `Problem(MALFORMED)` when it is empty or holds a wildcard."""
    topic = decode_text(data)
    if not topic:
        raise malformed("a topic has at least one character", "MQTT-4.7.3-1")
    if "+" in topic or "#" in topic:
        raise malformed("a topic name holds a wildcard", "MQTT-3.3.2-2")
    return topic


def encode_topic(topic: str) -> bytes:
    """Return *topic* with its length; raises `Problem(MALFORMED)` when no topic name is such."""
    wire = _encode_text(topic)
    decode_topic(wire[2:])
    return wire


def judge_filter(topic_filter: str) -> str:
    """Return *topic_filter* if it is one; else raises `Problem(MALFORMED)`."""
    if not topic_filter:
        raise malformed("a topic filter has at least one character", "MQTT-4.7.3-1")
    if "#" in topic_filter or "+" in topic_filter:
        *levels, last = topic_filter.split("/")
        if any("#" in level for level in levels) or ("#" in last and last != "#"):
            raise malformed("# is a last level of its own", "MQTT-4.7.1-2")
        if any("+" in level and level != "+" for level in [*levels, last]):
            raise malformed("+ is a level of its own", "MQTT-4.7.1-3")
    return topic_filter


def _encode_text(text: str) -> bytes:
    try:
        wire = text.encode()
    except UnicodeEncodeError:
        raise malformed("a string is not Unicode text", "MQTT-1.5.3-1") from None
    if "\0" in text:
        raise malformed("a string holds U+0000", "MQTT-1.5.3-2")
    return _encode_binary(wire)


def _encode_binary(data: bytes) -> bytes:
    if len(data) > 65_535:
        raise Problem(Kind.TOO_LARGE, "a field has at most 65,535 bytes [section 1.5.3]")
    return pack(">H", len(data)) + data


class _Fields:
    """A packet's body, taken field by field from the front; running out is `Problem`."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._position = 0

    def take(self, count: int) -> bytes:
        end = self._position + count
        if end > len(self._body):
            raise malformed("a field is longer than its packet", "section 1.5.3")
        taken = self._body[self._position : end]
        self._position = end
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def binary(self) -> bytes:
        return self.take(self.number(2))

    def text(self) -> str:
        return decode_text(self.binary())

    def packet_id(self) -> int:
        number = self.number(2)
        if not number:
            raise malformed("packet identifier 0", "MQTT-2.3.1-1")
        return number

    def rest(self) -> bytes:
        return self.take(len(self._body) - self._position)

    @property
    def exhausted(self) -> bool:
        return self._position == len(self._body)

    def finish(self) -> None:
        if not self.exhausted:
            raise malformed("bytes follow the last field", "section 2.2.3")


# CONNECT and CONNACK, sections 3.1 and 3.2 --------------------------------------------------


def decode_connect(body: bytes) -> ConnectRequested:
    """Read a CONNECT.

    Raises `Problem(UNSUPPORTED)` for another protocol level, which the server answers with
    CONNACK 1 (MQTT-3.1.2-2), and `Problem(MALFORMED)` for everything it closes without a word.
    An empty client id is handed on: whether it may be empty is for the server to say.
    """
    fields = _Fields(body)
    if fields.binary() != b"MQTT":
        raise malformed("the protocol name is not MQTT", "MQTT-3.1.2-1")
    level = fields.number(1)
    if level != 4:
        raise Problem(Kind.UNSUPPORTED, f"protocol level {level} is not 4 [MQTT-3.1.2-2]")
    flags = fields.number(1)
    _judge_connect_flags(flags)
    keep_alive = fields.number(2)
    client_id = fields.text()
    will = None
    if flags & 0b100:
        topic = decode_topic(fields.binary())
        will = Will(topic, fields.binary(), flags >> 3 & 3, bool(flags & 0b10_0000))
    username = fields.text() if flags & 0b1000_0000 else None
    password = fields.binary() if flags & 0b100_0000 else None
    fields.finish()
    return ConnectRequested(client_id, username, password, bool(flags & 2), keep_alive, will)


def _judge_connect_flags(flags: int) -> None:
    if flags & 1:
        raise malformed("CONNECT's reserved flag is set", "MQTT-3.1.2-3")
    if flags & 0b100:
        if flags & 0b1_1000 == 0b1_1000:
            raise malformed("there is no will QoS 3", "MQTT-3.1.2-14")
    elif flags & 0b1_1000:
        raise malformed("a will QoS without a will", "MQTT-3.1.2-13")
    elif flags & 0b10_0000:
        raise malformed("will retain without a will", "MQTT-3.1.2-15")
    if flags & 0b1100_0000 == 0b100_0000:
        raise malformed("a password without a user name", "MQTT-3.1.2-22")


def encode_connect(request: ConnectRequested) -> bytes:
    """Return a CONNECT; raises `Problem` for text that no field can hold."""
    will = request.will
    flags = (
        (request.username is not None) << 7
        | (request.password is not None) << 6
        | request.clean_session << 1
    )
    fields = [_encode_text(request.client_id)]
    if will is not None:
        flags |= will.retain << 5 | will.qos << 3 | 1 << 2
        fields += [encode_topic(will.topic), _encode_binary(will.payload)]
    _judge_connect_flags(flags)
    if request.username is not None:
        fields.append(_encode_text(request.username))
    if request.password is not None:
        fields.append(_encode_binary(request.password))
    head = b"\x00\x04MQTT\x04" + pack(">BH", flags, request.keep_alive)
    return _packet(0x10, head + b"".join(fields))


def decode_connack(body: bytes) -> tuple[int, bool]:
    """Read a CONNACK: (return code, session present)."""
    flags, code = body
    if flags > 1:
        raise malformed("CONNACK's reserved flags are set", "section 3.2.2.1")
    if flags and code:
        raise malformed("a refusal has no session", "MQTT-3.2.2-4")
    return code, bool(flags)


def encode_connack(code: int, *, session_present: bool) -> bytes:
    """Return a CONNACK; raises `ValueError` for a code that table 3.1 does not have."""
    if not 0 <= code <= 5:
        raise ValueError(f"there is no CONNACK code {code}")
    return bytes((0x20, 2, session_present and not code, code))


# PUBLISH and PUBACK, sections 3.3 and 3.4 ---------------------------------------------------


def decode_publish(first: int, body: bytes) -> PublishReceived:
    """Read a PUBLISH, whose flags are in the low bits of *first*."""
    fields = _Fields(body)
    topic = decode_topic(fields.binary())
    qos = first >> 1 & 3
    packet_id = fields.packet_id() if qos else 0
    return PublishReceived(
        topic, fields.rest(), qos, packet_id, bool(first & 0b1000), bool(first & 1)
    )


def encode_publish(
    topic_wire: bytes, payload: bytes, qos: int, packet_id: int, *, retain: bool, duplicate: bool
) -> bytes:
    """Return a PUBLISH of QoS 0 or 1 to a topic that `encode_topic` has made."""
    identifier = pack(">H", packet_id) if qos else b""
    length = encode_length(len(topic_wire) + len(identifier) + len(payload))
    first = 0x30 | duplicate << 3 | qos << 1 | retain
    return b"".join((bytes((first,)), length, topic_wire, identifier, payload))


def encode_pubacks(packet_ids: Iterable[int]) -> bytes:
    """Return one PUBACK for each of *packet_ids*, in order.

    Raises `ValueError` for 0 or more than 65,535.
    """
    # A PUBACK is 40 02 and the identifier: one 32-bit number.
    words = [0x4002_0000 + packet_id for packet_id in packet_ids]
    if not words:
        return b""
    if min(words) <= 0x4002_0000 or max(words) > 0x4002_FFFF:
        raise ValueError("a packet identifier is 1 to 65,535")
    return pack(f">{len(words)}I", *words)


def decode_packet_id(body: bytes) -> int:
    """Read a body that is a packet identifier: PUBACK's and UNSUBACK's."""
    packet_id = int.from_bytes(body, "big")
    if len(body) != 2 or not packet_id:
        raise malformed("a packet identifier is two bytes and not 0", "MQTT-2.3.1-1")
    return packet_id


# SUBSCRIBE and UNSUBSCRIBE with their answers, sections 3.8 to 3.11 -------------------------


def decode_subscribe(body: bytes) -> tuple[int, tuple[tuple[str, int], ...]]:
    """Read a SUBSCRIBE: (packet identifier, (filter, QoS) pairs)."""
    fields = _Fields(body)
    packet_id = fields.packet_id()
    filters: list[tuple[str, int]] = []
    while not fields.exhausted:
        topic_filter = judge_filter(fields.text())
        qos = fields.number(1)
        if qos > 2:
            raise malformed("a requested QoS is 0, 1 or 2", "MQTT-3-8.3-4")
        filters.append((topic_filter, qos))
        _judge_count(filters)
    if not filters:
        raise malformed("SUBSCRIBE without a filter", "MQTT-3.8.3-3")
    return packet_id, tuple(filters)


def encode_subscribe(packet_id: int, filters: Sequence[tuple[str, int]]) -> bytes:
    """Return a SUBSCRIBE; raises `Problem(MALFORMED)` for what is no filter."""
    fields = [pack(">H", packet_id)]
    for topic_filter, qos in filters:
        fields += [_encode_text(judge_filter(topic_filter)), bytes((qos,))]
    return _packet(0x82, b"".join(fields))


def decode_suback(body: bytes) -> tuple[int, tuple[int, ...]]:
    """Read a SUBACK: (packet identifier, granted QoS or 0x80 for each filter)."""
    fields = _Fields(body)
    packet_id = fields.packet_id()
    codes = tuple(fields.rest())
    if not set(codes) <= {0, 1, 2, 0x80}:
        raise malformed("a SUBACK code is 0, 1, 2 or 128", "MQTT-3.9.3-2")
    return packet_id, codes


def encode_suback(packet_id: int, codes: Sequence[int]) -> bytes:
    """Return a SUBACK; raises `ValueError` for codes that are not 0, 1, 2 or 0x80."""
    if not codes or not set(codes) <= {0, 1, 2, 0x80}:
        raise ValueError("a SUBACK code is 0, 1, 2 or 128 [MQTT-3.9.3-2]")
    return _packet(0x90, pack(">H", packet_id) + bytes(codes))


def decode_unsubscribe(body: bytes) -> tuple[int, tuple[str, ...]]:
    """Read an UNSUBSCRIBE: (packet identifier, filters)."""
    fields = _Fields(body)
    packet_id = fields.packet_id()
    filters: list[str] = []
    while not fields.exhausted:
        filters.append(judge_filter(fields.text()))
        _judge_count(filters)
    if not filters:
        raise malformed("UNSUBSCRIBE without a filter", "MQTT-3.10.3-2")
    return packet_id, tuple(filters)


def encode_unsubscribe(packet_id: int, filters: Sequence[str]) -> bytes:
    """Return an UNSUBSCRIBE; raises `Problem(MALFORMED)` for what is no filter."""
    texts = [_encode_text(judge_filter(topic_filter)) for topic_filter in filters]
    return _packet(0xA2, pack(">H", packet_id) + b"".join(texts))


def encode_unsuback(packet_id: int) -> bytes:
    """Return an UNSUBACK."""
    return _packet(0xB0, pack(">H", packet_id))


def _judge_count(filters: Sequence[object]) -> None:
    if len(filters) > MAX_FILTERS:
        raise Problem(Kind.TOO_LARGE, f"more than {MAX_FILTERS} filters in one packet")


# Packets without a body, sections 3.12 to 3.14 ----------------------------------------------

PINGREQ = b"\xc0\x00"
PINGRESP = b"\xd0\x00"
DISCONNECT = b"\xe0\x00"


def _packet(first: int, body: bytes) -> bytes:
    return bytes((first,)) + encode_length(len(body)) + body
