"""What happens on an MQTT 3.1.1 connection, seen from either end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Will:
    """What the server publishes for a client that vanishes (MQTT-3.1.1 section 3.1.2.5)."""

    topic: str
    payload: bytes
    qos: int
    retain: bool


@dataclass(frozen=True, slots=True)
class ConnectRequested:
    """CONNECT arrived. Nothing more is read until the server accepts or refuses.

    `keep_alive` is in seconds, 0 for none. `password` is raw bytes.
    """

    client_id: str
    username: str | None
    password: bytes | None
    clean_session: bool
    keep_alive: int
    will: Will | None


class PublishReceived(NamedTuple):
    """PUBLISH arrived. `packet_id` is 0 at QoS 0; at QoS 1 the receiver owes a PUBACK for it.

    A tuple, because this is the hot path: a frozen dataclass costs three times as much to make.
    """

    topic: str
    payload: bytes
    qos: int
    packet_id: int
    duplicate: bool
    retain: bool


@dataclass(frozen=True, slots=True)
class SubscribeRequested:
    """SUBSCRIBE arrived: (filter, requested QoS) pairs in order. The server owes a SUBACK."""

    packet_id: int
    filters: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class UnsubscribeRequested:
    """UNSUBSCRIBE arrived. The server owes an UNSUBACK."""

    packet_id: int
    filters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PublishAcknowledged:
    """PUBACK arrived for a message that this end sent at QoS 1."""

    packet_id: int


@dataclass(frozen=True, slots=True)
class ConnectAnswered:
    """CONNACK arrived (client role). `code` is table 3.1's: 0 is accepted."""

    code: int
    session_present: bool


@dataclass(frozen=True, slots=True)
class SubscribeAnswered:
    """SUBACK arrived (client role): granted QoS or 0x80 for each filter."""

    packet_id: int
    codes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class UnsubscribeAnswered:
    """UNSUBACK arrived (client role)."""

    packet_id: int


@dataclass(frozen=True, slots=True)
class PingAnswered:
    """PINGRESP arrived (client role)."""


@dataclass(frozen=True, slots=True)
class ConnectionEnded:
    """The last event of a connection.

    `graceful` only when the peer sent DISCONNECT: then the will is discarded
    (MQTT-3.1.2-10). `reason` says why in words fit for a log: the rule that was broken with its
    clause, a missed keep-alive, or end of stream.
    """

    graceful: bool
    reason: str


Event = (
    ConnectRequested
    | PublishReceived
    | SubscribeRequested
    | UnsubscribeRequested
    | PublishAcknowledged
    | ConnectAnswered
    | SubscribeAnswered
    | UnsubscribeAnswered
    | PingAnswered
    | ConnectionEnded
)
