"""What may happen when, on an MQTT 3.1.1 connection: the whole state machine as data.

Rules:

1. A connection is in one `State`, and has one `Role` for life.
2. `RECEIVED` says which packets may come in a state and where each leads. What is not in it
   ends the connection; `refusal` says with which clause.
3. `SENT` says what this end may do in a state and where each leads. What is not in it is a
   bug of this program (`RuntimeError`) and changes nothing. In ENDED everything is
   permitted and does nothing, because a task that answers cannot know that the peer has left.
4. The end is not in the tables: any state leads to ENDED, and nothing leads out of it.

    server:  AWAITING_CONNECT --CONNECT--> JUDGING --accept--> OPEN
    client:  IDLE --connect--> AWAITING_CONNACK --CONNACK 0--> OPEN

While JUDGING nothing is read: what the client sends before its CONNACK, as section 3.1.4
allows, is kept unparsed until somebody has said who he is.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from muster.errors import Problem
from muster.protocols.mqtt.packets import Packet, malformed


class Role(Enum):
    """Which end of the connection this is."""

    SERVER = "server"
    CLIENT = "client"


class State(Enum):
    """Where a connection stands."""

    AWAITING_CONNECT = "awaiting CONNECT"
    JUDGING = "judging CONNECT"
    IDLE = "not connected"
    AWAITING_CONNACK = "awaiting CONNACK"
    OPEN = "open"
    ENDED = "ended"


# Looking a member up costs as much as the rest of a small packet.
OPEN, ENDED, JUDGING = State.OPEN, State.ENDED, State.JUDGING


class Act(Enum):
    """What this end may do of its own accord."""

    CONNECT = "connect"
    ACCEPT = "accept"
    REFUSE = "refuse"
    PUBLISH = "publish"
    ACKNOWLEDGE = "acknowledge"
    SUBSCRIBE = "subscribe"
    ANSWER = "answer"
    PING = "ping"
    DISCONNECT = "disconnect"


RECEIVED: Mapping[tuple[Role, State], Mapping[Packet, State]] = {
    (Role.SERVER, State.AWAITING_CONNECT): {Packet.CONNECT: State.JUDGING},
    (Role.SERVER, State.JUDGING): {},
    (Role.SERVER, State.OPEN): {
        Packet.PUBLISH: State.OPEN,
        Packet.PUBACK: State.OPEN,
        Packet.SUBSCRIBE: State.OPEN,
        Packet.UNSUBSCRIBE: State.OPEN,
        Packet.PINGREQ: State.OPEN,
        Packet.DISCONNECT: State.ENDED,
    },
    (Role.CLIENT, State.IDLE): {},
    (Role.CLIENT, State.AWAITING_CONNACK): {Packet.CONNACK: State.OPEN},
    (Role.CLIENT, State.OPEN): {
        Packet.PUBLISH: State.OPEN,
        Packet.PUBACK: State.OPEN,
        Packet.SUBACK: State.OPEN,
        Packet.UNSUBACK: State.OPEN,
        Packet.PINGRESP: State.OPEN,
    },
}

SENT: Mapping[tuple[Role, State], Mapping[Act, State]] = {
    (Role.SERVER, State.AWAITING_CONNECT): {},
    (Role.SERVER, State.JUDGING): {Act.ACCEPT: State.OPEN, Act.REFUSE: State.ENDED},
    (Role.SERVER, State.OPEN): {
        Act.PUBLISH: State.OPEN,
        Act.ACKNOWLEDGE: State.OPEN,
        Act.ANSWER: State.OPEN,
    },
    (Role.CLIENT, State.IDLE): {Act.CONNECT: State.AWAITING_CONNACK},
    # Section 3.1.4 lets a client send before its CONNACK; ours waits, as every SDK does.
    (Role.CLIENT, State.AWAITING_CONNACK): {Act.DISCONNECT: State.ENDED},
    (Role.CLIENT, State.OPEN): {
        Act.PUBLISH: State.OPEN,
        Act.ACKNOWLEDGE: State.OPEN,
        Act.SUBSCRIBE: State.OPEN,
        Act.PING: State.OPEN,
        Act.DISCONNECT: State.ENDED,
    },
}

_QOS_2 = {Packet.PUBREC, Packet.PUBREL, Packet.PUBCOMP}


def refusal(role: Role, state: State, kind: Packet) -> Problem:
    """Return why *kind* may not come in *state*; call only for what `RECEIVED` lacks."""
    if state is State.AWAITING_CONNECT:
        return malformed(f"the first packet is {kind.name}, not CONNECT", "MQTT-3.1.0-1")
    if state is State.AWAITING_CONNACK:
        return malformed(f"the first packet is {kind.name}, not CONNACK", "MQTT-3.2.0-1")
    if kind is Packet.CONNECT and role is Role.SERVER:
        return malformed("a second CONNECT", "MQTT-3.1.0-2")
    if kind in _QOS_2:
        return malformed(f"{kind.name} belongs to QoS 2, which is not in use", "MQTT-4.3.3-1")
    if kind is Packet.CONNACK and role is Role.CLIENT:
        return malformed("a second CONNACK", "section 3.2")
    return malformed(f"{kind.name} does not come from a {_peer(role)}", "section 2.2.1")


def _peer(role: Role) -> str:
    return Role.CLIENT.value if role is Role.SERVER else Role.SERVER.value
