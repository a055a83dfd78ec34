"""The client's end, alone and back to back with the server's."""

from __future__ import annotations

import pytest

from muster.errors import Kind, Problem
from muster.protocols.mqtt.client import CONNACK_TIMEOUT, ClientConnection
from muster.protocols.mqtt.connection import MAX_UNANSWERED
from muster.protocols.mqtt.events import (
    ConnectAnswered,
    ConnectionEnded,
    PingAnswered,
    PublishAcknowledged,
    PublishReceived,
    SubscribeAnswered,
    SubscribeRequested,
    UnsubscribeAnswered,
    UnsubscribeRequested,
)


def test_a_whole_conversation(pair) -> None:
    """Subscribe, publish both ways, acknowledge, ping, unsubscribe and part."""
    client, server = pair.client, pair.server
    question = client.subscribe([("c2d/#", 1)])
    assert pair.pump() == ([], [SubscribeRequested(question, (("c2d/#", 1),))])
    server.answer_subscribe(question, [1])
    assert pair.pump() == ([SubscribeAnswered(question, (1,))], [])

    up, down = client.publish("d2c", b"21", qos=1), server.publish("c2d/x", b"on", qos=1)
    assert pair.pump() == (
        [PublishReceived("c2d/x", b"on", 1, down, False, False)],
        [PublishReceived("d2c", b"21", 1, up, False, False)],
    )
    client.acknowledge([down])
    server.acknowledge([up])
    assert pair.pump() == ([PublishAcknowledged(up)], [PublishAcknowledged(down)])

    client.ping()
    assert pair.pump() == ([PingAnswered()], [])
    question = client.unsubscribe(["c2d/#"])
    assert pair.pump() == ([], [UnsubscribeRequested(question, ("c2d/#",))])
    server.answer_unsubscribe(question)
    assert pair.pump() == ([UnsubscribeAnswered(question)], [])

    client.disconnect()
    ours, theirs = pair.pump()
    assert [event.graceful for event in (*ours, *theirs)] == [True, True]
    assert client.finished
    assert server.finished


@pytest.mark.parametrize("present", [False, True])
def test_connack_zero_opens(present: bool) -> None:
    """The client learns whether the server has kept its session."""
    client = ClientConnection()
    client.connect("d", clean_session=False, now=0.0)
    client.receive(bytes((0x20, 2, present, 0)), 1.0)
    assert client.events() == [ConnectAnswered(0, present)]
    assert not client.finished


def test_a_refusal_ends() -> None:
    """Both the code and the end are told."""
    client = ClientConnection()
    client.connect("d", now=0.0)
    client.receive(b"\x20\x02\x00\x05\xd0\x00", 1.0)
    assert client.events() == [
        ConnectAnswered(5, False),
        ConnectionEnded(False, "the server refused with CONNACK 5"),
    ]
    assert client.finished


@pytest.mark.parametrize(
    ("wire", "clause"),
    [
        (b"\xd0\x00", "MQTT-3.2.0-1"),
        (b"\x20\x02\x02\x00", "section 3.2.2.1"),
        (b"\x20\x02\x01\x05", "MQTT-3.2.2-4"),
        (b"\x20\x02\x00\x00\x20\x02\x00\x00", "section 3.2"),
        (b"\x20\x02\x00\x00\x90\x03\x00\x07\x00", "MQTT-3.8.4-2"),
        (b"\x20\x02\x00\x00\xb0\x02\x00\x07", "MQTT-3.8.4-2"),
        (b"\x20\x02\x00\x00\x90\x03\x00\x07\x03", "MQTT-3.9.3-2"),
        (b"\x20\x02\x00\x00\xc0\x00", "section 2.2.1"),
        (b"\x20\x02\x00\x00\x10\x0c" + bytes(12), "section 2.2.1"),
    ],
)
def test_a_server_that_breaks_the_rules_is_left(wire: bytes, clause: str) -> None:
    """The reason quotes the clause."""
    client = ClientConnection()
    client.connect("d", now=0.0)
    client.receive(wire, 1.0)
    ended = client.events()[-1]
    assert isinstance(ended, ConnectionEnded)
    assert clause in ended.reason


def test_suback_must_answer_every_filter(pair) -> None:
    """MQTT-3.8.4-5: one code for each filter."""
    packet_id = pair.client.subscribe([("a", 0), ("b", 0)])
    pair.client.receive(b"\x90\x03\x00" + bytes((packet_id,)) + b"\x00", 1.0)
    assert pair.client.finished


def test_pings_go_out_every_keep_alive_and_must_be_answered() -> None:
    """An idle client stays connected; one whose server is gone finds out."""
    client = ClientConnection()
    client.connect("d", keep_alive=30, now=0.0)
    assert client.next_deadline() == CONNACK_TIMEOUT
    client.data_to_send()
    client.receive(b"\x20\x02\x00\x00", 10.0)
    assert client.next_deadline() == 40.0
    client.deadline_passed(39.0)
    assert client.data_to_send() == b""
    client.deadline_passed(40.0)
    assert client.data_to_send() == b"\xc0\x00"
    client.receive(b"\xd0\x00", 41.0)
    assert client.next_deadline() == 70.0
    client.deadline_passed(70.0)
    client.deadline_passed(100.0)
    assert client.events()[-1] == ConnectionEnded(False, "no PINGRESP within 30 s")


def test_no_keep_alive_means_no_pings() -> None:
    """Keep-alive 0 turns the mechanism off (section 3.1.2.10)."""
    client = ClientConnection()
    client.connect("d", keep_alive=0, now=0.0)
    client.receive(b"\x20\x02\x00\x00", 1.0)
    assert client.next_deadline() is None


def test_a_server_that_never_answers_is_left() -> None:
    """Waiting for CONNACK is bounded."""
    client = ClientConnection()
    client.connect("d", now=0.0)
    client.deadline_passed(CONNACK_TIMEOUT)
    assert client.events() == [ConnectionEnded(False, "no CONNACK within 60 s")]


def test_a_client_may_leave_before_it_was_answered() -> None:
    """DISCONNECT is the only thing our client says while it waits."""
    client = ClientConnection()
    client.connect("d", now=0.0)
    client.data_to_send()
    client.disconnect()
    assert client.data_to_send() == b"\xe0\x00"
    assert client.finished
    assert client.subscribe([("a", 0)]) == 0
    assert client.unsubscribe(["a"]) == 0
    client.ping()
    client.disconnect()
    client.connect("d", now=1.0)
    assert client.data_to_send() == b""


def test_a_connect_that_no_packet_can_hold_changes_nothing() -> None:
    """The client can connect with better values afterwards."""
    client = ClientConnection()
    for bad in ({"password": b"p"}, {"username": "\ud800"}, {"username": "\0"}):
        with pytest.raises(Problem) as caught:
            client.connect("d", now=0.0, **bad)
        assert caught.value.kind is Kind.MALFORMED
    assert client.data_to_send() == b""
    client.connect("d", now=0.0)
    assert client.data_to_send()


def test_questions_are_bounded_and_checked(pair) -> None:
    """What is no filter is refused here already, and takes no identifier."""
    with pytest.raises(Problem):
        pair.client.subscribe([("a/#/b", 0)])
    with pytest.raises(Problem):
        pair.client.unsubscribe([""])
    for _ in range(MAX_UNANSWERED):
        pair.client.subscribe([("a", 0)])
    with pytest.raises(Problem) as caught:
        pair.client.unsubscribe(["a"])
    assert caught.value.kind is Kind.THROTTLED
