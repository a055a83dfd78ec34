"""The server's end: judging, deadlines, answers and limits."""

from __future__ import annotations

import pytest

from muster.errors import Kind, Problem
from muster.protocols.machine import Machine
from muster.protocols.mqtt import connection, packets
from muster.protocols.mqtt.events import (
    ConnectionEnded,
    ConnectRequested,
    Event,
    PublishAcknowledged,
    PublishReceived,
    SubscribeRequested,
)
from muster.protocols.mqtt.server import ServerConnection

CONNECT = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01d"  # keep-alive 60, clean session
CONNECT_KEPT = CONNECT.replace(b"\x04\x02", b"\x04\x00")
CONNECT_FOR_EVER = CONNECT.replace(b"\x00\x3c", b"\x00\x00")


def connected(wire: bytes = CONNECT, **options) -> ServerConnection:
    """Return a server that has a CONNECT to judge."""
    server = ServerConnection(now=0.0, **options)
    server.receive(wire, 0.0)
    server.events()
    return server


def opened(wire: bytes = CONNECT, **options) -> ServerConnection:
    """Return a server that accepted at second 0."""
    server = connected(wire, **options)
    server.accept(now=0.0)
    server.data_to_send()
    return server


def test_it_is_a_machine() -> None:
    """The driver's contract is met, as the type checker sees it and at run time."""
    machine: Machine[Event] = ServerConnection(now=0.0)
    for name in ("receive", "receive_eof", "deadline_passed", "events", "data_to_send"):
        assert callable(getattr(machine, name))
    assert machine.next_deadline() == 10.0
    assert machine.finished is False


def test_nothing_is_read_until_the_client_is_judged() -> None:
    """What a client sends before its CONNACK waits, and is taken in order after it."""
    server = ServerConnection(now=0.0)
    early = b"\x82\x06\x00\x01\x00\x01a\x00\x30\x05\x00\x01thi"
    server.receive(CONNECT + early[:5], 0.0)
    server.receive(early[5:], 0.0)
    assert [type(event) for event in server.events()] == [ConnectRequested]
    assert server.data_to_send() == b""

    server.accept(now=0.0)
    assert server.data_to_send() == b"\x20\x02\x00\x00"
    assert server.events() == [
        SubscribeRequested(1, (("a", 0),)),
        PublishReceived("t", b"hi", 0, 0, False, False),
    ]


def test_what_waits_for_judgement_is_bounded() -> None:
    """A stranger cannot fill the memory while he is judged."""
    server = connected(max_packet_size=100)
    server.receive(b"\xc0\x00" * 50, 0.0)
    assert not server.finished
    server.receive(b"\xc0", 0.0)
    (ended,) = server.events()
    assert ended == ConnectionEnded(False, "too much was sent before CONNACK [section 3.1.4]")

    at_once = ServerConnection(now=0.0, max_packet_size=100)
    at_once.receive(CONNECT + b"\xc0" * 101, 0.0)
    assert at_once.finished


def test_a_fault_after_connect_is_found_after_judgement() -> None:
    """A second CONNECT right behind the first is refused, once the first is accepted."""
    server = ServerConnection(now=0.0)
    server.receive(CONNECT + CONNECT, 0.0)
    assert not server.finished
    server.accept(now=0.0)
    assert "MQTT-3.1.0-2" in server.events()[-1].reason


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5])
def test_refusal_has_a_code_and_ends(code: int) -> None:
    """CONNACK with the code, no session, and nothing more is read."""
    server = connected()
    server.refuse(code)
    assert server.data_to_send() == bytes((0x20, 2, 0, code))
    assert server.finished
    server.receive(b"\xc0\x00", 0.0)
    assert server.events() == [ConnectionEnded(False, f"refused with CONNACK {code}")]
    assert server.data_to_send() == b""


def test_session_present_is_said_for_kept_sessions_only() -> None:
    """MQTT-3.2.2-1: a clean session is never present, whatever the owner believes."""
    for wire, flag in ((CONNECT, 0), (CONNECT_KEPT, 1)):
        server = connected(wire)
        server.accept(session_present=True, now=0.0)
        assert server.data_to_send() == bytes((0x20, 2, flag, 0))


# Time --------------------------------------------------------------------------------------


def test_a_client_that_never_connects_is_dropped() -> None:
    """Silence after the handshake is bounded, and part of a packet is no sign of life."""
    server = ServerConnection(now=5.0, connect_timeout=3.0)
    server.receive(CONNECT[:-1], 7.0)
    assert server.next_deadline() == 8.0
    server.deadline_passed(7.9)
    assert not server.finished
    server.deadline_passed(8.0)
    assert server.events() == [ConnectionEnded(False, "no CONNECT within 3 s [section 3.1]")]
    assert server.data_to_send() == b""
    assert server.next_deadline() is None


def test_a_client_that_nobody_judges_hears_unavailable() -> None:
    """Our own delay is bounded as well, and 3 is the code that SDKs retry."""
    server = ServerConnection(now=0.0, connect_timeout=3.0)
    server.receive(CONNECT, 2.0)
    assert server.next_deadline() == 5.0
    server.deadline_passed(5.0)
    assert server.data_to_send() == b"\x20\x02\x00\x03"
    assert server.finished
    server.events()
    server.accept(now=6.0)  # the judge comes too late; that is no bug of his
    server.refuse(5)
    assert server.events() == []
    assert server.data_to_send() == b""


@pytest.mark.parametrize(
    ("wire", "keep_alive", "silence"),
    [
        (CONNECT, None, 90.0),
        (CONNECT, 10.0, 15.0),
        (CONNECT, 0, 1767.0),
        (CONNECT_FOR_EVER, None, 1767.0),
        (CONNECT_FOR_EVER, 20.0, 30.0),
        (CONNECT.replace(b"\x00\x3c", b"\xff\xff"), None, 1767.0),
    ],
)
def test_silence_is_limited(wire: bytes, keep_alive: float | None, silence: float) -> None:
    """MQTT-3.1.2-24: one and a half keep-alives, and never more than IoT Hub's maximum."""
    server = connected(wire)
    server.accept(keep_alive=keep_alive, now=100.0)
    assert server.next_deadline() == 100.0 + silence
    server.receive(b"\xc0\x00", 110.0)
    assert server.next_deadline() == 110.0 + silence
    server.receive(b"\x30\x7f", 120.0)  # the beginning of a packet proves nothing
    assert server.next_deadline() == 110.0 + silence
    server.deadline_passed(110.0 + silence - 0.1)
    assert not server.finished
    server.deadline_passed(110.0 + silence)
    (ended,) = server.events()
    assert not ended.graceful
    assert "MQTT-3.1.2-24" in ended.reason


# The open connection ------------------------------------------------------------------------


def test_pings_are_answered_by_the_machine() -> None:
    """The owner never hears of PINGREQ (MQTT-3.12.4-1)."""
    server = opened()
    server.receive(b"\xc0\x00\xc0\x00", 1.0)
    assert server.data_to_send() == b"\xd0\x00\xd0\x00"
    assert server.events() == []


def test_disconnect_is_graceful_and_final() -> None:
    """The owner learns to discard the will; what follows DISCONNECT is not read."""
    server = opened()
    server.receive(b"\x30\x05\x00\x01thi\xe0\x00\x30\x05\x00\x01thi", 1.0)
    assert server.events() == [
        PublishReceived("t", b"hi", 0, 0, False, False),
        ConnectionEnded(True, "the client sent DISCONNECT"),
    ]
    server.receive_eof(2.0)
    server.fail("too late")
    assert server.events() == []
    assert server.finished


def test_end_of_stream_is_not_graceful() -> None:
    """A client that vanishes leaves its will behind."""
    server = opened()
    server.receive(b"\x30\x7f\x00", 1.0)
    server.receive_eof(2.0)
    (ended,) = server.events()
    assert not ended.graceful
    assert "without DISCONNECT" in ended.reason


def test_failing_closes_without_a_word_but_keeps_what_was_said() -> None:
    """PUBACKs that the owner asked for before still go out."""
    server = opened()
    server.acknowledge([7])
    server.fail("a newer connection of the same device")
    assert server.data_to_send() == b"\x40\x02\x00\x07"
    assert server.events() == [ConnectionEnded(False, "a newer connection of the same device")]
    assert server.finished


def test_after_the_end_everything_is_permitted_and_does_nothing() -> None:
    """A task that answers cannot know that the peer has left."""
    server = opened()
    server.receive(b"\x82\x06\x00\x01\x00\x01a\x00\xe0\x00", 1.0)
    server.events()
    server.acknowledge([1, 2])
    server.answer_subscribe(1, [0])
    server.answer_unsubscribe(9)
    assert server.publish("t", b"", qos=1) == 0
    server.receive(b"\x00", 2.0)
    server.deadline_passed(10_000.0)
    assert server.events() == []
    assert server.data_to_send() == b""
    assert server.next_deadline() is None


def test_acknowledgements_are_one_buffer_in_order() -> None:
    """MQTT-4.6.0-2: in the order of the messages; any iterable will do."""
    server = opened()
    server.acknowledge(iter([3, 1, 2]))
    server.acknowledge([])
    assert server.data_to_send() == b"\x40\x02\x00\x03\x40\x02\x00\x01\x40\x02\x00\x02"


def test_only_what_is_in_flight_is_acknowledged() -> None:
    """A PUBACK counts once; one for a stranger's message says nothing."""
    server = opened()
    first, second = server.publish("t", b"a", qos=1), server.publish("t", b"b", qos=1)
    assert (first, second) == (1, 2)
    assert server.in_flight == 2
    server.receive(packets.encode_pubacks([9, second, second, first]), 1.0)
    assert server.events() == [PublishAcknowledged(second), PublishAcknowledged(first)]
    assert server.in_flight == 0


def test_messages_in_flight_are_bounded_and_their_identifiers_distinct() -> None:
    """MQTT-2.3.1-2: an identifier in use is never given again, also after 65,535."""
    server = opened(max_in_flight=3)
    kept = server.publish("t", b"", qos=1)
    seen = []
    for _ in range(65_535):
        packet_id = server.publish("t", b"", qos=1)
        seen.append(packet_id)
        server.receive(packets.encode_pubacks([packet_id]), 1.0)
        server.data_to_send()
    assert kept not in seen
    assert set(seen) == set(range(1, 65_536)) - {kept}

    server.publish("t", b"", qos=1)
    server.publish("t", b"", qos=1)
    server.data_to_send()
    with pytest.raises(Problem) as caught:
        server.publish("t", b"", qos=1)
    assert caught.value.kind is Kind.THROTTLED
    assert server.publish("t", b"") == 0
    assert server.data_to_send() == b"\x30\x03\x00\x01t"


def test_a_message_sent_again_keeps_its_identifier() -> None:
    """MQTT-4.4.0-1: after a reconnect the same identifier and the duplicate flag."""
    server = opened()
    assert server.publish("t", b"x", qos=1, duplicate=True, packet_id=300) == 300
    assert server.data_to_send() == b"\x3a\x06\x00\x01t\x01\x2cx"
    with pytest.raises(ValueError, match="in use"):
        server.publish("t", b"x", qos=1, packet_id=300)
    with pytest.raises(ValueError, match="impossible"):
        server.publish("t", b"x", qos=1, packet_id=65_536)
    server.publish("t", b"", qos=1, packet_id=1)
    assert server.publish("t", b"", qos=1) == 2


def test_what_cannot_be_published_changes_nothing() -> None:
    """A refused message takes no identifier and leaves no bytes."""
    server = opened(max_packet_size=1000)
    for topic in ("", "a/#", "+", "x\0"):
        with pytest.raises(Problem) as caught:
            server.publish(topic, b"", qos=1)
        assert caught.value.kind is Kind.MALFORMED
    with pytest.raises(Problem) as caught:
        server.publish("t", b"x" * 996, qos=1)
    assert caught.value.kind is Kind.TOO_LARGE
    with pytest.raises(ValueError, match="QoS"):
        server.publish("t", b"", qos=2)
    with pytest.raises(ValueError, match="QoS"):
        server.publish("t", b"", duplicate=True)
    assert server.in_flight == 0
    assert server.data_to_send() == b""
    assert server.publish("t", b"x" * 995, qos=1) == 1


def test_answers_fit_their_questions() -> None:
    """MQTT-3.8.4-2 and -5: the SUBSCRIBE's identifier, and a code for each filter, once."""
    server = opened()
    server.receive(b"\x82\x0a\x00\x05\x00\x01a\x02\x00\x01b\x00", 1.0)
    server.receive(b"\xa2\x05\x00\x06\x00\x01a", 1.0)
    with pytest.raises(ValueError, match="waits"):
        server.answer_subscribe(5, [0])
    with pytest.raises(ValueError, match="waits"):
        server.answer_subscribe(6, [0])
    with pytest.raises(ValueError, match="waits"):
        server.answer_unsubscribe(5)
    server.answer_subscribe(5, [1, 0x80])
    server.answer_unsubscribe(6)
    assert server.data_to_send() == b"\x90\x04\x00\x05\x01\x80\xb0\x02\x00\x06"
    with pytest.raises(ValueError, match="waits"):
        server.answer_subscribe(5, [1, 0x80])


def test_unanswered_subscriptions_are_bounded() -> None:
    """A peer cannot queue work without end, nor use an identifier twice meanwhile."""
    server = opened()
    for number in range(1, connection.MAX_UNANSWERED + 1):
        server.receive(b"\x82\x06" + number.to_bytes(2, "big") + b"\x00\x01a\x00", 1.0)
    assert not server.finished
    server.receive(b"\xa2\x05\x01\x00\x00\x01a", 1.0)
    assert "wait for an answer" in server.events()[-1].reason

    twice = opened()
    twice.receive(b"\x82\x06\x00\x01\x00\x01a\x00" * 2, 1.0)
    assert "MQTT-2.3.1-2" in twice.events()[-1].reason


def test_what_nobody_fetches_is_bounded() -> None:
    """An owner that floods a machine without a driver ends it, not the process."""
    server = opened()
    payload = bytes(200_000)
    for _ in range(connection.MAX_UNSENT // len(payload) + 1):
        server.publish("t", payload)
    assert server.finished
    assert "waits to be sent" in server.events()[-1].reason


def test_the_packet_limit_holds_for_small_limits_too() -> None:
    """The quick path honours the limit as the slow one does."""
    server = opened(max_packet_size=20)
    server.receive(b"\x30\x14\x00\x01t" + b"x" * 17, 1.0)
    assert len(server.events()) == 1
    server.receive(b"\x30\x15\x00\x01t" + b"x" * 18, 1.0)
    assert "too large" in server.events()[-1].reason


def test_the_largest_message_passes() -> None:
    """256 KiB under the longest topic, in one piece or in many, is within the limit."""
    topic = b"t" * 65_535
    body = b"\xff\xff" + topic + b"\x00\x01" + bytes(256 * 1024)
    wire = b"\x32" + packets.encode_length(len(body)) + body
    for size in (len(wire), 1000):
        server = opened()
        for start in range(0, len(wire), size):
            server.receive(wire[start : start + size], 1.0)
        (event,) = server.events()
        assert (len(event.topic), len(event.payload)) == (65_535, 256 * 1024)


@pytest.mark.parametrize("limit", [0, -1, 65_400])
def test_a_limit_that_cannot_hold_is_refused_at_construction(limit: int) -> None:
    """Otherwise the search for a free identifier might not end."""
    with pytest.raises(ValueError, match="identifier"):
        ServerConnection(now=0.0, max_in_flight=limit)
