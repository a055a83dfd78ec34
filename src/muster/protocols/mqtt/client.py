"""The client's end of an MQTT 3.1.1 connection, for load generators and tests.

Rules beyond those of `connection.py`:

1. Nothing is sent between CONNECT and CONNACK.
2. While open, a PINGREQ goes out every keep-alive, whatever else was sent, so there is no need to
   remember sends; without its PINGRESP by the next one the server counts as gone.
3. Sessions are the owner's: to send again after a reconnect, `publish` takes the old identifier.
"""

from __future__ import annotations

from collections.abc import Sequence

from muster.errors import Kind, Problem
from muster.protocols.mqtt.connection import MAX_IN_FLIGHT, MAX_UNANSWERED, Connection
from muster.protocols.mqtt.events import (
    ConnectAnswered,
    ConnectRequested,
    PingAnswered,
    SubscribeAnswered,
    UnsubscribeAnswered,
    Will,
)
from muster.protocols.mqtt.packets import (
    DISCONNECT,
    MAX_PACKET_SIZE,
    PINGREQ,
    Packet,
    decode_connack,
    decode_packet_id,
    decode_suback,
    encode_connect,
    encode_subscribe,
    encode_unsubscribe,
    malformed,
)
from muster.protocols.mqtt.states import Act, Role, State

# The longest that an SDK waits for its CONNACK (azure-iot-device's watchdog).
CONNACK_TIMEOUT = 60.0


class ClientConnection(Connection):
    """A connection as its client sees it: a `Machine[Event]`. Begin with `connect`."""

    __slots__ = ("_connected", "_keep_alive", "_ping_waits")

    def __init__(
        self, *, max_packet_size: int = MAX_PACKET_SIZE, max_in_flight: int = MAX_IN_FLIGHT
    ) -> None:
        super().__init__(
            Role.CLIENT, State.IDLE, max_packet_size=max_packet_size, max_in_flight=max_in_flight
        )
        self._keep_alive = 0
        self._connected = False
        self._ping_waits = False

    def connect(
        self,
        client_id: str,
        *,
        username: str | None = None,
        password: bytes | None = None,
        clean_session: bool = True,
        keep_alive: int = 60,
        will: Will | None = None,
        now: float,
    ) -> None:
        """Send CONNECT; `ConnectAnswered` follows. *keep_alive* is in seconds, 0 for none.

        Raises `Problem` for what no CONNECT can hold.
        """
        if self._state is not State.IDLE:
            self._may(Act.CONNECT)
            return
        packet = encode_connect(
            ConnectRequested(client_id, username, password, clean_session, keep_alive, will)
        )
        self._may(Act.CONNECT)
        self._keep_alive = keep_alive
        self._deadline = now + CONNACK_TIMEOUT
        self._send(packet)

    def subscribe(self, filters: Sequence[tuple[str, int]]) -> int:
        """Send SUBSCRIBE for (filter, QoS) pairs and return its identifier.

        `SubscribeAnswered` follows. Raises `Problem` for what is no filter, or when too many
        answers are awaited.
        """
        if not self._may(Act.SUBSCRIBE):
            return 0
        packet_id = self._ask_id()
        packet = encode_subscribe(packet_id, filters)
        self._unanswered[packet_id] = len(filters)
        self._send(packet)
        return packet_id

    def unsubscribe(self, filters: Sequence[str]) -> int:
        """Send UNSUBSCRIBE and return its identifier; `UnsubscribeAnswered` follows."""
        if not self._may(Act.SUBSCRIBE):
            return 0
        packet_id = self._ask_id()
        packet = encode_unsubscribe(packet_id, filters)
        self._unanswered[packet_id] = 0
        self._send(packet)
        return packet_id

    def ping(self) -> None:
        """Send PINGREQ; `PingAnswered` follows."""
        if self._may(Act.PING):
            self._ping_waits = True
            self._send(PINGREQ)

    def disconnect(self) -> None:
        """Send DISCONNECT and end: the client closes the connection (MQTT-3.14.4-1)."""
        if self._may(Act.DISCONNECT):
            self._send(DISCONNECT)
            self._end("this end sent DISCONNECT", graceful=True)

    def _take_own(self, kind: Packet, body: bytes) -> None:
        if kind is Packet.CONNACK:
            code, session_present = decode_connack(body)
            self._events.append(ConnectAnswered(code, session_present))
            if code:
                self._end(f"the server refused with CONNACK {code}")
        elif kind is Packet.SUBACK:
            packet_id, codes = decode_suback(body)
            self._answered(packet_id, len(codes))
            self._events.append(SubscribeAnswered(packet_id, codes))
        elif kind is Packet.UNSUBACK:
            packet_id = decode_packet_id(body)
            self._answered(packet_id, 0)
            self._events.append(UnsubscribeAnswered(packet_id))
        elif kind is Packet.PINGRESP:
            self._ping_waits = False
            self._events.append(PingAnswered())

    def _heard(self, now: float) -> None:
        if not self._connected and self._state is State.OPEN:
            self._connected = True
            self._deadline = now + self._keep_alive if self._keep_alive else None

    def _expire(self, now: float) -> None:
        if not self._connected:
            self._end(f"no CONNACK within {CONNACK_TIMEOUT:g} s")
        elif self._ping_waits:
            self._end(f"no PINGRESP within {self._keep_alive} s")
        else:
            self.ping()
            self._deadline = now + self._keep_alive

    def _ask_id(self) -> int:
        if len(self._unanswered) >= MAX_UNANSWERED:
            raise Problem(Kind.THROTTLED, f"{MAX_UNANSWERED} subscriptions wait for an answer")
        return self._free_id()

    def _answered(self, packet_id: int, filters: int) -> None:
        if self._unanswered.get(packet_id) != filters:
            raise malformed(f"an answer under {packet_id} that nobody awaits", "MQTT-3.8.4-2")
        del self._unanswered[packet_id]
