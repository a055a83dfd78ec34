"""The state tables: complete, closed, and obeyed."""

from __future__ import annotations

import itertools

import pytest

from muster.protocols.mqtt.client import ClientConnection
from muster.protocols.mqtt.events import ConnectionEnded
from muster.protocols.mqtt.packets import Packet
from muster.protocols.mqtt.server import ServerConnection
from muster.protocols.mqtt.states import RECEIVED, SENT, Act, Role, State, refusal

CONNECT = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01d"


def server_in(state: State) -> ServerConnection:
    """Return a server in *state*, with nothing left to fetch."""
    server = ServerConnection(now=0.0)
    if state is not State.AWAITING_CONNECT:
        server.receive(CONNECT, 0.0)
    if state is State.OPEN:
        server.accept(now=0.0)
    server.events()
    server.data_to_send()
    return server


def client_in(state: State) -> ClientConnection:
    """Return a client in *state*, with nothing left to fetch."""
    client = ClientConnection()
    if state is not State.IDLE:
        client.connect("d", now=0.0)
    if state is State.OPEN:
        client.receive(b"\x20\x02\x00\x00", 0.0)
    client.events()
    client.data_to_send()
    return client


SERVER_ACTS = {
    Act.ACCEPT: lambda c: c.accept(now=0.0),
    Act.REFUSE: lambda c: c.refuse(5),
    Act.PUBLISH: lambda c: c.publish("t", b""),
    Act.ACKNOWLEDGE: lambda c: c.acknowledge([1]),
    Act.ANSWER: lambda c: c.answer_subscribe(1, [0]),
}
CLIENT_ACTS = {
    Act.CONNECT: lambda c: c.connect("d", now=0.0),
    Act.PUBLISH: lambda c: c.publish("t", b""),
    Act.ACKNOWLEDGE: lambda c: c.acknowledge([1]),
    Act.SUBSCRIBE: lambda c: c.subscribe([("t", 0)]),
    Act.PING: lambda c: c.ping(),
    Act.DISCONNECT: lambda c: c.disconnect(),
}


def test_both_tables_cover_the_same_states() -> None:
    """A state without a row would be a hole; ENDED has none, as nothing leads out of it."""
    assert set(RECEIVED) == set(SENT)
    assert not [state for _, state in RECEIVED if state is State.ENDED]
    assert {state for _, state in RECEIVED} == set(State) - {State.ENDED}


def test_every_refused_packet_has_a_reason() -> None:
    """Whatever may not come is refused with a clause."""
    for (role, state), kind in itertools.product(RECEIVED, Packet):
        if kind not in RECEIVED[role, state]:
            assert "[" in refusal(role, state, kind).detail


@pytest.mark.parametrize("state", [State.AWAITING_CONNECT, State.JUDGING, State.OPEN])
@pytest.mark.parametrize("act", SERVER_ACTS)
def test_illegal_acts_of_the_server_change_nothing(state: State, act: Act) -> None:
    """What the table lacks is a bug of this program, told loudly and without effect."""
    server = server_in(state)
    if act in SENT[Role.SERVER, state]:
        if act is not Act.ANSWER:  # needs a question; test_server has them
            SERVER_ACTS[act](server)
            assert server.data_to_send()
        return
    deadline = server.next_deadline()
    with pytest.raises(RuntimeError, match=act.value):
        SERVER_ACTS[act](server)
    assert server.data_to_send() == b""
    assert server.events() == []
    assert server.next_deadline() == deadline
    assert not server.finished


@pytest.mark.parametrize("state", [State.IDLE, State.AWAITING_CONNACK, State.OPEN])
@pytest.mark.parametrize("act", CLIENT_ACTS)
def test_illegal_acts_of_the_client_change_nothing(state: State, act: Act) -> None:
    """The client's table is obeyed in the same way."""
    client = client_in(state)
    if act in SENT[Role.CLIENT, state]:
        CLIENT_ACTS[act](client)
        assert client.data_to_send()
        return
    with pytest.raises(RuntimeError, match=act.value):
        CLIENT_ACTS[act](client)
    assert client.data_to_send() == b""
    assert client.events() == []
    assert not client.finished


def test_a_server_that_speaks_first_is_left() -> None:
    """Nothing may come before our CONNECT."""
    client = ClientConnection()
    client.receive(b"\x20\x02\x00\x00", 0.0)
    (ended,) = client.events()
    assert isinstance(ended, ConnectionEnded)


@pytest.mark.parametrize("first", [0x30, 0xC0, 0x82, 0xE0, 0x20])
def test_the_first_packet_must_be_connect(first: int) -> None:
    """One byte is enough to refuse a peer that is no MQTT client (MQTT-3.1.0-1)."""
    server = ServerConnection(now=0.0)
    server.receive(bytes((first,)), 0.0)
    (ended,) = server.events()
    assert "MQTT-3.1.0-1" in ended.reason


def test_http_and_tls_on_the_wrong_port_are_refused_at_once() -> None:
    """Strangers of other protocols are not waited for."""
    for stray in (b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02\x00", b"AMQP\x00\x01\x00\x00"):
        server = ServerConnection(now=0.0)
        server.receive(stray, 0.0)
        assert server.finished
        assert server.data_to_send() == b""
