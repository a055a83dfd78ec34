"""The server's end of an MQTT 3.1.1 connection.

Rules beyond those of `connection.py`:

1. After `ConnectRequested` nothing is parsed until `accept` or `refuse`.
2. A client that says nothing is not waited for: `connect_timeout` seconds for its CONNECT, as
   many again for our judgement, then one and a half times its keep-alive (MQTT-3.1.2-24).
   Only whole packets count as a sign of life.
3. PINGREQ is answered here; SUBSCRIBE, UNSUBSCRIBE and QoS 1 messages by the owner.

A driver pumps it; see `machine.Machine` for that side of the contract.
"""

from __future__ import annotations

from collections.abc import Sequence

from muster.errors import Kind, Problem
from muster.protocols.mqtt.connection import MAX_IN_FLIGHT, MAX_UNANSWERED, Connection
from muster.protocols.mqtt.events import SubscribeRequested, UnsubscribeRequested
from muster.protocols.mqtt.packets import (
    MAX_PACKET_SIZE,
    PINGRESP,
    Packet,
    decode_connect,
    decode_subscribe,
    decode_unsubscribe,
    encode_connack,
    encode_suback,
    encode_unsuback,
    malformed,
)
from muster.protocols.mqtt.states import Act, Role, State

# A device on a slow link sends its CONNECT within a second of the handshake; a minute of
# silence here would be a free place in the connection table for anyone.
CONNECT_TIMEOUT = 10.0
# IoT Hub drops a silent client after 1,767 s at the latest, whatever keep-alive it asked for.
MAX_SILENCE = 1767.0
_UNACCEPTABLE_LEVEL, _IDENTIFIER_REJECTED, _UNAVAILABLE = 1, 2, 3  # table 3.1


class ServerConnection(Connection):
    """A client's connection as the server sees it: a `Machine[Event]`.

    *max_packet_size* limits the body of any packet in either direction. *connect_timeout* is in
    seconds. *max_in_flight* limits the messages that lack the client's PUBACK, and
    *max_silence* the seconds without a packet.
    """

    __slots__ = (
        "_clean_session",
        "_client_keep_alive",
        "_connect_timeout",
        "_max_silence",
        "_silence",
    )

    def __init__(
        self,
        *,
        max_packet_size: int = MAX_PACKET_SIZE,
        connect_timeout: float = CONNECT_TIMEOUT,
        max_in_flight: int = MAX_IN_FLIGHT,
        max_silence: float = MAX_SILENCE,
        now: float,
    ) -> None:
        super().__init__(
            Role.SERVER,
            State.AWAITING_CONNECT,
            max_packet_size=max_packet_size,
            max_in_flight=max_in_flight,
        )
        self._connect_timeout = connect_timeout
        self._max_silence = max_silence
        self._silence = max_silence
        self._client_keep_alive = 0
        self._clean_session = True
        self._deadline = now + connect_timeout

    def accept(
        self, *, session_present: bool = False, keep_alive: float | None = None, now: float
    ) -> None:
        """Answer CONNACK 0 and read on; what the client sent meanwhile is taken at once.

        *keep_alive* is in seconds and overrides the client's; 0 means none. Either way silence is
        limited to `max_silence`. A clean session is never announced as present
        (MQTT-3.2.2-1).
        """
        if not self._may(Act.ACCEPT):
            return
        seconds = self._client_keep_alive if keep_alive is None else keep_alive
        self._silence = min(1.5 * seconds, self._max_silence) if seconds else self._max_silence
        self._deadline = now + self._silence
        present = session_present and not self._clean_session
        self._send(encode_connack(0, session_present=present))
        held = bytes(self._pending)
        self._pending.clear()
        if held:
            self._parse(held, now)

    def refuse(self, code: int) -> None:
        """Answer CONNACK *code*, 1 to 5 of table 3.1, and end (MQTT-3.2.2-5)."""
        if not 1 <= code <= 5:
            raise ValueError(f"{code} is no CONNACK code for a refusal")
        if self._may(Act.REFUSE):
            self._refuse(code, f"refused with CONNACK {code}")

    def answer_subscribe(self, packet_id: int, codes: Sequence[int]) -> None:
        """Send the SUBACK: the QoS granted, or 0x80, for each filter in order (MQTT-3.8.4-5).

        Raises `ValueError` when no SUBSCRIBE of that identifier and so many filters waits.
        """
        if self._may(Act.ANSWER):
            answer = encode_suback(packet_id, codes)
            self._answered(packet_id, len(codes))
            self._send(answer)

    def answer_unsubscribe(self, packet_id: int) -> None:
        """Send the UNSUBACK (MQTT-3.10.4-4).

        Raises `ValueError` when no UNSUBSCRIBE of that identifier waits.
        """
        if self._may(Act.ANSWER):
            self._answered(packet_id, 0)
            self._send(encode_unsuback(packet_id))

    def _take_own(self, kind: Packet, body: bytes) -> None:
        if kind is Packet.CONNECT:
            self._take_connect(body)
        elif kind is Packet.SUBSCRIBE:
            packet_id, filters = decode_subscribe(body)
            self._owe(packet_id, len(filters))
            self._events.append(SubscribeRequested(packet_id, filters))
        elif kind is Packet.UNSUBSCRIBE:
            packet_id, names = decode_unsubscribe(body)
            self._owe(packet_id, 0)
            self._events.append(UnsubscribeRequested(packet_id, names))
        elif kind is Packet.PINGREQ:
            self._send(PINGRESP)
        elif kind is Packet.DISCONNECT:
            self._end("the client sent DISCONNECT", graceful=True)

    def _take_connect(self, body: bytes) -> None:
        try:
            request = decode_connect(body)
        except Problem as problem:
            if problem.kind is not Kind.UNSUPPORTED:
                raise
            self._refuse(_UNACCEPTABLE_LEVEL, problem.detail)
            return
        if not request.client_id and not request.clean_session:
            reason = "a session without a client id [MQTT-3.1.3-8]"
            self._refuse(_IDENTIFIER_REJECTED, reason)
            return
        self._client_keep_alive = request.keep_alive
        self._clean_session = request.clean_session
        self._events.append(request)

    def _refuse(self, code: int, reason: str) -> None:
        self._send(encode_connack(code, session_present=False))
        self._end(reason)

    def _owe(self, packet_id: int, filters: int) -> None:
        if packet_id in self._unanswered:
            raise malformed(f"packet identifier {packet_id} is in use", "MQTT-2.3.1-2")
        if len(self._unanswered) >= MAX_UNANSWERED:
            raise Problem(Kind.THROTTLED, f"{MAX_UNANSWERED} subscriptions wait for an answer")
        self._unanswered[packet_id] = filters

    def _answered(self, packet_id: int, filters: int) -> None:
        if self._unanswered.get(packet_id) != filters:
            raise ValueError(f"nothing of {filters} filters waits under {packet_id}")
        del self._unanswered[packet_id]

    def _heard(self, now: float) -> None:
        silent = self._connect_timeout if self._state is State.JUDGING else self._silence
        self._deadline = now + silent

    def _expire(self, now: float) -> None:  # noqa: ARG002 - only the client needs the moment
        if self._state is State.AWAITING_CONNECT:
            self._end(f"no CONNECT within {self._connect_timeout:g} s [section 3.1]")
        elif self._state is State.JUDGING:
            self._refuse(_UNAVAILABLE, f"CONNECT was not judged in {self._connect_timeout:g} s")
        else:
            self._end(f"nothing was heard for {self._silence:g} s [MQTT-3.1.2-24]")
