"""What both ends share, under input that nobody planned."""

from __future__ import annotations

from collections.abc import Iterable
from time import perf_counter

from hypothesis import given, settings
from hypothesis import strategies as st

from muster.protocols.mqtt import packets
from muster.protocols.mqtt.client import ClientConnection
from muster.protocols.mqtt.connection import Connection
from muster.protocols.mqtt.events import ConnectionEnded, Event, PublishReceived
from muster.protocols.mqtt.server import ServerConnection

CONNECT = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01d"
LIMIT = 512
STREAMS = st.lists(st.binary(max_size=300), max_size=12)
# Bytes that are almost right reach further into the parser than noise does.
PACKETS = st.one_of(
    st.binary(max_size=20),
    st.builds(
        lambda first, body: bytes((first,)) + packets.encode_length(len(body)) + body,
        st.integers(0, 255),
        st.binary(max_size=200),
    ),
    st.builds(
        lambda topic, payload, qos, retain: packets.encode_publish(
            packets.encode_topic(topic), payload, qos, 7, retain=retain, duplicate=False
        ),
        st.text(st.characters(exclude_characters="+#\0", codec="utf-8"), min_size=1, max_size=9),
        st.binary(max_size=200),
        st.integers(0, 1),
        st.booleans(),
    ),
    st.sampled_from([b"\xc0\x00", b"\x40\x02\x00\x01", b"\x82\x06\x00\x01\x00\x01a\x00"]),
)
TRAFFIC = st.lists(PACKETS, max_size=12).map(b"".join)


def open_server(**options) -> ServerConnection:
    """Return a server that has accepted a client."""
    server = ServerConnection(now=0.0, **options)
    server.receive(CONNECT, 0.0)
    server.accept(now=0.0)
    server.events()
    server.data_to_send()
    return server


def open_client() -> ClientConnection:
    """Return a client that was accepted."""
    client = ClientConnection(max_packet_size=LIMIT)
    client.connect("d", now=0.0)
    client.receive(b"\x20\x02\x00\x00", 0.0)
    client.events()
    client.data_to_send()
    return client


def feed(connection: Connection, chunks: Iterable[bytes]) -> list[Event]:
    """Feed *chunks*, checking after each that the contract of a machine holds."""
    seen: list[Event] = []
    for chunk in chunks:
        ended_before = connection.finished
        connection.receive(chunk, 1.0)
        events = connection.events()
        seen += events
        assert len(connection._pending) <= max(LIMIT + 5, len(CONNECT))
        assert not (ended_before and events)
        assert connection.finished is (connection.next_deadline() is None)
        connection.data_to_send()
    ends = [event for event in seen if isinstance(event, ConnectionEnded)]
    assert len(ends) == connection.finished
    assert not ends or seen[-1] is ends[0]
    return seen


@given(STREAMS)
def test_random_bytes_never_raise(chunks: list[bytes]) -> None:
    """Whatever arrives, in whatever state, ends in events and bounded buffers."""
    feed(ServerConnection(now=0.0, max_packet_size=LIMIT), chunks)
    feed(ServerConnection(now=0.0, max_packet_size=LIMIT), [CONNECT, *chunks])
    feed(open_server(max_packet_size=LIMIT), chunks)
    feed(open_client(), chunks)


@given(TRAFFIC, st.integers(1, 50))
def test_how_bytes_are_cut_makes_no_difference(traffic: bytes, size: int) -> None:
    """Whole, in pieces and byte by byte give the same events: quick path and slow agree."""
    pieces = [traffic[start : start + size] for start in range(0, len(traffic), size)]
    single = [bytes((byte,)) for byte in traffic]
    whole = feed(open_server(max_packet_size=LIMIT), [traffic])
    assert feed(open_server(max_packet_size=LIMIT), pieces) == whole
    assert feed(open_server(max_packet_size=LIMIT), single) == whole


@given(TRAFFIC)
def test_the_quick_path_takes_nothing_that_the_slow_one_refuses(traffic: bytes) -> None:
    """With the quick path cut out, every byte stream means the same."""

    class Slow(ServerConnection):
        def _take_publishes(self, data: bytes, position: int) -> int:
            return position

    slow = Slow(now=0.0, max_packet_size=LIMIT)
    slow.receive(CONNECT, 0.0)
    slow.accept(now=0.0)
    slow.events()
    assert feed(slow, [traffic]) == feed(open_server(max_packet_size=LIMIT), [traffic])


@settings(max_examples=30)
@given(st.lists(st.tuples(st.text(min_size=1, max_size=5), st.binary(max_size=50)), max_size=20))
def test_topics_do_not_stick(messages: list[tuple[str, bytes]]) -> None:
    """The remembered topic never leaks into another message."""
    server, expected, wire = open_server(), [], b""
    for topic, payload in messages:
        clean = topic.encode("utf-8", "ignore").decode().translate({0: "x", 35: "x", 43: "x"})
        topic_wire = packets.encode_topic(clean or "x")
        wire += packets.encode_publish(topic_wire, payload, 1, 3, retain=False, duplicate=False)
        expected.append(PublishReceived(clean or "x", payload, 1, 3, False, False))
    server.receive(wire, 1.0)
    assert server.events() == expected


def test_byte_by_byte_is_linear() -> None:
    """A packet of 256 KiB that trickles in costs no more than its bytes, not their square."""
    body = b"\x00\x01t" + bytes(256 * 1024)
    wire = b"\x30" + packets.encode_length(len(body)) + body
    server = open_server()
    start = perf_counter()
    for index in range(len(wire)):
        server.receive(wire[index : index + 1], 1.0)
    elapsed = perf_counter() - start
    (event,) = server.events()
    assert len(event.payload) == 256 * 1024
    # 0.05 s here; copying the buffer for each byte would take over ten.
    assert elapsed < 5


def test_a_megabyte_at_once_is_one_pass() -> None:
    """Thousands of messages in one read, and the beginning of one more."""
    one = packets.encode_publish(b"\x00\x01t", b"x" * 200, 1, 9, retain=False, duplicate=False)
    server = open_server()
    server.receive(one * 5000 + one[:100], 1.0)
    assert len(server.events()) == 5000
    server.receive(one[100:] + one, 1.0)
    assert len(server.events()) == 2
