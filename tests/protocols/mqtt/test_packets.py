"""Every packet in both directions, and every way in which one can be wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from muster.errors import Kind, Problem
from muster.protocols.mqtt import packets
from muster.protocols.mqtt.client import ClientConnection
from muster.protocols.mqtt.events import (
    ConnectionEnded,
    ConnectRequested,
    Event,
    PingAnswered,
    PublishReceived,
    SubscribeAnswered,
    SubscribeRequested,
    UnsubscribeAnswered,
    UnsubscribeRequested,
    Will,
)
from muster.protocols.mqtt.server import ServerConnection

# The boundary values of MQTT-3.1.1 table 2.4.
LENGTHS = [
    (0, b"\x00"), (127, b"\x7f"), (128, b"\x80\x01"), (16_383, b"\xff\x7f"),
    (16_384, b"\x80\x80\x01"), (2_097_151, b"\xff\xff\x7f"), (2_097_152, b"\x80\x80\x80\x01"),
    (268_435_455, b"\xff\xff\xff\x7f"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "wire"), LENGTHS)
def test_length_round_trip(value: int, wire: bytes) -> None:
    """One table drives both directions, whole, byte by byte, and with a tail."""
    assert packets.encode_length(value) == wire
    assert packets.decode_length(wire) == (value, len(wire))
    for cut in range(len(wire)):
        assert packets.decode_length(wire[:cut]) is None
    assert packets.decode_length(b"tip" + wire + b"tail", 3) == (value, 3 + len(wire))


def test_fifth_length_byte_is_refused() -> None:
    """A peer cannot make us wait for ever for a length that never ends."""
    with pytest.raises(Problem, match=r"2\.2\.3") as caught:
        packets.decode_length(b"\x80\x80\x80\x80")
    assert caught.value.kind is Kind.MALFORMED


@pytest.mark.parametrize("value", [-1, 268_435_456])
def test_impossible_lengths_are_not_encoded(value: int) -> None:
    """What four bytes cannot say is a bug of ours, not a corrupt packet."""
    with pytest.raises(ValueError, match="remaining length"):
        packets.encode_length(value)


# CONNECT -----------------------------------------------------------------------------------

CONNECTS = [
    (
        ConnectRequested("dev", None, None, True, 60, None),
        b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x3c\x00\x03dev",
    ),
    (
        ConnectRequested("dev", "hub/dev/?a=b", None, False, 180, None),
        b"\x10\x1d\x00\x04MQTT\x04\x80\x00\xb4\x00\x03dev\x00\x0chub/dev/?a=b",
    ),
    (
        ConnectRequested("d", "u", b"\x00\xff", False, 0, None),
        b"\x10\x14\x00\x04MQTT\x04\xc0\x00\x00\x00\x01d\x00\x01u\x00\x02\x00\xff",
    ),
    (
        ConnectRequested("d", "u", b"", True, 65_535, Will("w/t", b"bye", 1, True)),
        b"\x10\x1c\x00\x04MQTT\x04\xee\xff\xff\x00\x01d\x00\x03w/t\x00\x03bye\x00\x01u\x00\x00",
    ),
    (
        ConnectRequested("", None, None, True, 1, Will("\ufeffé", b"", 2, False)),
        b"\x10\x15\x00\x04MQTT\x04\x16\x00\x01\x00\x00\x00\x05\xef\xbb\xbf\xc3\xa9\x00\x00",
    ),
]


@pytest.mark.parametrize(("request_", "wire"), CONNECTS)
def test_connect_round_trip(request_: ConnectRequested, wire: bytes) -> None:
    """One table drives both directions, whole, byte by byte, and with a tail."""
    assert packets.encode_connect(request_) == wire
    assert packets.decode_connect(wire[2:]) == request_

    client = ClientConnection()
    client.connect(
        request_.client_id,
        username=request_.username,
        password=request_.password,
        clean_session=request_.clean_session,
        keep_alive=request_.keep_alive,
        will=request_.will,
        now=0.0,
    )
    assert client.data_to_send() == wire

    for chunks in ([wire], [bytes((byte,)) for byte in wire], [wire + b"\xc0"]):
        server = ServerConnection(now=0.0)
        for chunk in chunks:
            server.receive(chunk, 0.0)
        assert server.events() == [request_]
        assert server.data_to_send() == b""
    server.accept(now=0.0)
    server.receive(b"\x00", 0.0)
    assert server.data_to_send() == b"\x20\x02\x00\x00\xd0\x00"


HEAD = b"\x00\x04MQTT\x04"
BAD_CONNECTS = [
    ("another name", b"\x00\x06MQIsdp\x03\x02\x00\x00\x00\x00", "MQTT-3.1.2-1"),
    ("a name in lower case", b"\x00\x04mqtt\x04\x02\x00\x00\x00\x00", "MQTT-3.1.2-1"),
    ("level 3", b"\x00\x04MQTT\x03\x02\x00\x00\x00\x01d", "MQTT-3.1.2-2"),
    ("level 5", b"\x00\x04MQTT\x05\x02\x00\x00\x00\x01d", "MQTT-3.1.2-2"),
    ("reserved flag", HEAD + b"\x03\x00\x00\x00\x01d", "MQTT-3.1.2-3"),
    ("will QoS without will", HEAD + b"\x0a\x00\x00\x00\x01d", "MQTT-3.1.2-13"),
    ("will QoS 3", HEAD + b"\x1e\x00\x00\x00\x01d\x00\x01t\x00\x00", "MQTT-3.1.2-14"),
    ("will retain without will", HEAD + b"\x22\x00\x00\x00\x01d", "MQTT-3.1.2-15"),
    ("password without user name", HEAD + b"\x42\x00\x00\x00\x01d\x00\x01p", "MQTT-3.1.2-22"),
    ("user name missing", HEAD + b"\x82\x00\x00\x00\x01d", "section 1.5.3"),
    ("will missing", HEAD + b"\x06\x00\x00\x00\x01d", "section 1.5.3"),
    (
        "will topic with a wildcard",
        HEAD + b"\x06\x00\x00\x00\x01d\x00\x01#\x00\x00",
        "MQTT-3.3.2-2",
    ),
    ("empty will topic", HEAD + b"\x06\x00\x00\x00\x01d\x00\x00\x00\x00", "MQTT-4.7.3-1"),
    ("client id too long", HEAD + b"\x02\x00\x00\x00\x09d", "section 1.5.3"),
    ("client id not UTF-8", HEAD + b"\x02\x00\x00\x00\x02\xc3\x28", "MQTT-1.5.3-1"),
    ("client id with a surrogate", HEAD + b"\x02\x00\x00\x00\x03\xed\xa0\x80", "MQTT-1.5.3-1"),
    ("client id with NUL", HEAD + b"\x02\x00\x00\x00\x01\x00", "MQTT-1.5.3-2"),
    ("user name with NUL", HEAD + b"\x82\x00\x00\x00\x01d\x00\x01\x00", "MQTT-1.5.3-2"),
    ("trailing bytes", HEAD + b"\x02\x00\x00\x00\x01dx", "section 2.2.3"),
    ("a session without client id", HEAD + b"\x00\x00\x00\x00\x00", "MQTT-3.1.3-8"),
]


@pytest.mark.parametrize(
    ("body", "clause"), [row[1:] for row in BAD_CONNECTS], ids=[row[0] for row in BAD_CONNECTS]
)
def test_bad_connects_end_the_connection(body: bytes, clause: str) -> None:
    """Nobody is judged on a CONNECT that is wrong, and the reason quotes the clause."""
    server = ServerConnection(now=0.0)
    server.receive(b"\x10" + bytes((len(body),)) + body, 0.0)
    (ended,) = server.events()
    assert isinstance(ended, ConnectionEnded)
    assert not ended.graceful
    assert clause in ended.reason
    assert server.finished
    # Two faults have a word in table 3.1; for all others the server closes.
    answer = {"MQTT-3.1.2-2": b"\x20\x02\x00\x01", "MQTT-3.1.3-8": b"\x20\x02\x00\x02"}
    assert server.data_to_send() == answer.get(clause, b"")


def test_a_huge_connect_is_refused_from_its_header() -> None:
    """A stranger cannot make the server hold more than a CONNECT needs."""
    server = ServerConnection(now=0.0)
    server.receive(b"\x10" + packets.encode_length(packets.MAX_CONNECT_SIZE + 1), 0.0)
    assert server.finished


# What an open client sends ------------------------------------------------------------------

FROM_CLIENT: list[tuple[Callable[[ClientConnection], object], bytes, Event | None]] = [
    (
        lambda c: c.publish("t", b"hi"),
        b"\x30\x05\x00\x01thi",
        PublishReceived("t", b"hi", 0, 0, False, False),
    ),
    (
        lambda c: c.publish("t", b"", qos=1),
        b"\x32\x05\x00\x01t\x00\x01",
        PublishReceived("t", b"", 1, 1, False, False),
    ),
    (
        lambda c: c.publish("é/b", b"\x00\xff", qos=1, retain=True),
        b"\x33\x0a\x00\x04\xc3\xa9/b\x00\x01\x00\xff",
        PublishReceived("é/b", b"\x00\xff", 1, 1, False, True),
    ),
    (
        lambda c: c.publish("t", b"x", qos=1, duplicate=True, packet_id=258),
        b"\x3a\x06\x00\x01t\x01\x02x",
        PublishReceived("t", b"x", 1, 258, True, False),
    ),
    (
        lambda c: c.publish("t", b"x" * 200, retain=True),
        b"\x31\xcb\x01\x00\x01t" + b"x" * 200,
        PublishReceived("t", b"x" * 200, 0, 0, False, True),
    ),
    (
        lambda c: c.publish("t", b"x" * 200, qos=1),
        b"\x32\xcd\x01\x00\x01t\x00\x01" + b"x" * 200,
        PublishReceived("t", b"x" * 200, 1, 1, False, False),
    ),
    (
        lambda c: c.publish("t", b"x" * 16_378),
        b"\x30\xfd\x7f\x00\x01t" + b"x" * 16_378,
        PublishReceived("t", b"x" * 16_378, 0, 0, False, False),
    ),
    (
        lambda c: c.publish("t", b"x" * 16_381),
        b"\x30\x80\x80\x01\x00\x01t" + b"x" * 16_381,
        PublishReceived("t", b"x" * 16_381, 0, 0, False, False),
    ),
    (
        lambda c: c.subscribe([("a/+/b", 0), ("#", 2)]),
        b"\x82\x0e\x00\x01\x00\x05a/+/b\x00\x00\x01#\x02",
        SubscribeRequested(1, (("a/+/b", 0), ("#", 2))),
    ),
    (
        lambda c: c.unsubscribe(["a", "b/#"]),
        b"\xa2\x0a\x00\x01\x00\x01a\x00\x03b/#",
        UnsubscribeRequested(1, ("a", "b/#")),
    ),
    (
        lambda c: c.disconnect(),
        b"\xe0\x00",
        ConnectionEnded(True, "the client sent DISCONNECT"),
    ),
    (lambda c: c.ping(), b"\xc0\x00", None),
    (lambda c: c.acknowledge([1, 65_535]), b"\x40\x02\x00\x01\x40\x02\xff\xff", None),
]  # fmt: skip


@pytest.mark.parametrize(("act", "wire", "event"), FROM_CLIENT)
def test_client_packets_in_both_directions(
    pair, act: Callable[[ClientConnection], object], wire: bytes, event: Event | None
) -> None:
    """One table drives both directions, whole, byte by byte, and with a tail."""
    act(pair.client)
    assert pair.client.data_to_send() == wire
    tail = b"\x30\x04\x00\x01z!"
    ended = isinstance(event, ConnectionEnded)
    for chunks in ([wire], [bytes((byte,)) for byte in wire], [wire + tail], [wire, tail]):
        server = ServerConnection(now=0.0)
        server.receive(CONNECTS[0][1], 0.0)
        server.accept(now=0.0)
        server.events()
        for chunk in chunks:
            server.receive(chunk, 0.0)
        expected: list[Event] = [] if event is None else [event]
        if tail in b"".join(chunks) and not ended:
            expected.append(PublishReceived("z", b"!", 0, 0, False, False))
        assert server.events() == expected
        assert server.finished is ended


# What a server sends to an open client --------------------------------------------------------


def _suback(server: ServerConnection) -> None:
    server.answer_subscribe(1, [0, 1, 0x80])


FROM_SERVER: list[tuple[Callable[[ServerConnection], object], bytes, Event]] = [
    (_suback, b"\x90\x05\x00\x01\x00\x01\x80", SubscribeAnswered(1, (0, 1, 0x80))),
    (lambda s: s.answer_unsubscribe(2), b"\xb0\x02\x00\x02", UnsubscribeAnswered(2)),
    (
        lambda s: s.publish("c", b"2d", qos=1),
        b"\x32\x07\x00\x01c\x00\x032d",
        PublishReceived("c", b"2d", 1, 3, False, False),
    ),
]


@pytest.mark.parametrize(("act", "wire", "event"), FROM_SERVER)
def test_server_packets_in_both_directions(
    pair, act: Callable[[ServerConnection], object], wire: bytes, event: Event
) -> None:
    """One table drives both directions, whole, byte by byte, and with a tail."""
    for shape in ("whole", "bytewise", "tail"):
        pair.client.__init__()
        pair.server.__init__(now=0.0)
        pair.client.connect("d", now=0.0)
        pair.pump()
        pair.server.accept(now=0.0)
        pair.pump()
        pair.client.subscribe([("a", 0), ("b", 1), ("c", 2)])
        pair.client.unsubscribe(["a"])
        pair.pump()
        act(pair.server)
        assert pair.server.data_to_send() == wire
        chunks = {
            "whole": [wire],
            "bytewise": [bytes((byte,)) for byte in wire],
            "tail": [wire + b"\xd0\x00"],
        }[shape]
        for chunk in chunks:
            pair.client.receive(chunk, 0.0)
        assert pair.client.events() == [event, *([PingAnswered()] if shape == "tail" else [])]


# What no open connection takes ----------------------------------------------------------------

BAD_PACKETS = [
    ("reserved type 0", b"\x00\x00", "section 2.2.1"),
    ("reserved type 15", b"\xf0\x00", "section 2.2.1"),
    ("second CONNECT", CONNECTS[0][1], "MQTT-3.1.0-2"),
    ("CONNACK from a client", b"\x20\x02\x00\x00", "section 2.2.1"),
    ("SUBACK from a client", b"\x90\x03\x00\x01\x00", "section 2.2.1"),
    ("PINGRESP from a client", b"\xd0\x00", "section 2.2.1"),
    ("PUBREC", b"\x50\x02\x00\x01", "MQTT-4.3.3-1"),
    ("PUBREL", b"\x62\x02\x00\x01", "MQTT-4.3.3-1"),
    ("PUBCOMP", b"\x70\x02\x00\x01", "MQTT-4.3.3-1"),
    ("QoS 2", b"\x34\x05\x00\x01t\x00\x01", "section 4.3.3"),
    ("QoS 3", b"\x36\x05\x00\x01t\x00\x01", "MQTT-3.3.1-4"),
    ("duplicate at QoS 0", b"\x38\x03\x00\x01t", "MQTT-3.3.1-2"),
    ("PUBLISH without topic", b"\x30\x02\x00\x00", "too short"),
    ("empty topic", b"\x30\x03\x00\x00x", "MQTT-4.7.3-1"),
    ("topic with +", b"\x30\x05\x00\x03a/+", "MQTT-3.3.2-2"),
    ("topic with #", b"\x30\x03\x00\x01#", "MQTT-3.3.2-2"),
    ("topic with NUL", b"\x30\x03\x00\x01\x00", "MQTT-1.5.3-2"),
    ("topic not UTF-8", b"\x30\x03\x00\x01\xff", "MQTT-1.5.3-1"),
    ("overlong UTF-8", b"\x30\x04\x00\x02\xc0\xaf", "MQTT-1.5.3-1"),
    ("topic beyond the packet", b"\x30\x03\x00\x02t", "section 1.5.3"),
    ("topic beyond the packet at QoS 1", b"\x32\x03\x00\x02/", "section 1.5.3"),
    ("cached topic beyond the packet", b"\x30\x03\x00\x03dup\x00\x01t", "section 1.5.3"),
    ("no room for the identifier", b"\x32\x04\x00\x01/\x00", "section 1.5.3"),
    ("identifier 0", b"\x32\x05\x00\x01t\x00\x00", "MQTT-2.3.1-1"),
    ("identifier 0, again", b"\x3a\x05\x00\x01t\x00\x00", "MQTT-2.3.1-1"),
    ("PUBACK of identifier 0", b"\x40\x02\x00\x00", "MQTT-2.3.1-1"),
    ("PUBACK flags", b"\x41\x02\x00\x01", "MQTT-2.2.2-2"),
    ("PUBACK of one byte", b"\x40\x01\x00", "too short"),
    ("PUBACK of three bytes", b"\x40\x03\x00\x01\x00", "too large"),
    ("SUBSCRIBE flags", b"\x80\x06\x00\x01\x00\x01a\x00", "MQTT-2.2.2-2"),
    ("SUBSCRIBE of nothing", b"\x82\x02\x00\x01", "MQTT-3.8.3-3"),
    ("SUBSCRIBE of identifier 0", b"\x82\x06\x00\x00\x00\x01a\x00", "MQTT-2.3.1-1"),
    ("SUBSCRIBE without QoS", b"\x82\x05\x00\x01\x00\x01a", "section 1.5.3"),
    ("SUBSCRIBE at QoS 3", b"\x82\x06\x00\x01\x00\x01a\x03", "MQTT-3-8.3-4"),
    ("SUBSCRIBE reserved QoS bits", b"\x82\x06\x00\x01\x00\x01a\x81", "MQTT-3-8.3-4"),
    ("empty filter", b"\x82\x05\x00\x01\x00\x00\x00", "MQTT-4.7.3-1"),
    ("# before the end", b"\x82\x08\x00\x01\x00\x03#/a\x00", "MQTT-4.7.1-2"),
    ("# within a level", b"\x82\x07\x00\x01\x00\x02a#\x00", "MQTT-4.7.1-2"),
    ("+ within a level", b"\x82\x07\x00\x01\x00\x02a+\x00", "MQTT-4.7.1-3"),
    ("filter with NUL", b"\x82\x06\x00\x01\x00\x01\x00\x00", "MQTT-1.5.3-2"),
    ("UNSUBSCRIBE flags", b"\xa0\x05\x00\x01\x00\x01a", "MQTT-2.2.2-2"),
    ("UNSUBSCRIBE of nothing", b"\xa2\x02\x00\x01", "MQTT-3.10.3-2"),
    ("UNSUBSCRIBE of identifier 0", b"\xa2\x05\x00\x00\x00\x01a", "MQTT-2.3.1-1"),
    ("PINGREQ with a body", b"\xc0\x01\x00", "too large"),
    ("PINGREQ flags", b"\xc1\x00", "MQTT-2.2.2-2"),
    ("DISCONNECT flags", b"\xe1\x00", "MQTT-2.2.2-2"),
    ("DISCONNECT with a body", b"\xe0\x01\x00", "too large"),
    ("five bytes of length", b"\x30\xff\xff\xff\xff", "section 2.2.3"),
    ("268 MB", b"\x30\xff\xff\xff\x7f", "too large"),
    ("a byte too many", b"\x30" + packets.encode_length(packets.MAX_PACKET_SIZE + 1), "too large"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("wire", "clause"), [row[1:] for row in BAD_PACKETS], ids=[row[0] for row in BAD_PACKETS]
)
@pytest.mark.parametrize("bytewise", [False, True])
def test_bad_packets_end_the_connection(pair, wire: bytes, clause: str, bytewise: bool) -> None:
    """What came before stands, the fault is the last event, and nothing after it is read."""
    good = PublishReceived("dup", b"ok", 1, 5, False, False)
    before = b"\x32\x09\x00\x03dup\x00\x05ok"
    stream = before + wire + before
    chunks = [bytes((byte,)) for byte in stream] if bytewise else [stream]
    for chunk in chunks:
        pair.server.receive(chunk, 1.0)
    first, ended = pair.server.events()
    assert first == good
    assert isinstance(ended, ConnectionEnded)
    assert not ended.graceful
    assert clause in ended.reason
    assert pair.server.finished
    assert pair.server.data_to_send() == b""


def test_too_many_filters_are_refused(pair) -> None:
    """One packet cannot make the server judge thousands of filters."""
    body = b"\x00\x01" + b"\x00\x01a\x00" * (packets.MAX_FILTERS + 1)
    pair.server.receive(b"\x82" + packets.encode_length(len(body)) + body, 1.0)
    (ended,) = pair.server.events()
    assert "filters" in ended.reason


def test_what_no_packet_can_hold_is_not_encoded() -> None:
    """Text from elsewhere is a Problem; a number out of range is a bug."""
    for topic in ("", "a/+", "#", "a\0", "\ud800"):
        with pytest.raises(Problem) as caught:
            packets.encode_topic(topic)
        assert caught.value.kind is Kind.MALFORMED
    with pytest.raises(Problem) as caught:
        packets.encode_topic("x" * 65_536)
    assert caught.value.kind is Kind.TOO_LARGE
    with pytest.raises(ValueError, match="CONNACK"):
        packets.encode_connack(6, session_present=False)
    with pytest.raises(ValueError, match="SUBACK"):
        packets.encode_suback(1, [3])
    with pytest.raises(ValueError, match="SUBACK"):
        packets.encode_suback(1, [])
    for packet_id in (0, 65_536, -1):
        with pytest.raises(ValueError, match="65,535"):
            packets.encode_pubacks([1, packet_id])


def test_packet_identifier_bodies_are_exact() -> None:
    """A body that the header let through is still read to its last byte."""
    for body in (b"", b"\x01", b"\x00\x00", b"\x00\x01\x00"):
        with pytest.raises(Problem):
            packets.decode_packet_id(body)
