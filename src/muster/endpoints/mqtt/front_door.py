"""The front door of MQTT: every connection until its CONNECT is judged.

Rules:

1. The user name says which service is wanted (`protocols/user_name.py`); hub and provisioning
   share a port, because the SDKs' port is fixed.
2. A refusal is said in CONNACK by the one table in `codes.py`, and logged once with the reason,
   which the peer is never told. A bug is code 3: "try again later".
3. Judging takes `JUDGEMENT_TIMEOUT` at most. A peer that leaves meanwhile does not stop the
   judgement, but a session that comes out of it is closed at once.
4. Nothing but `ConnectRequested` and the end can come before the answer: the machine reads no
   further. After it, events go straight to the wire's session.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from muster.endpoints.codes import CONNACK_CODE, INTERNAL_CONNACK_CODE
from muster.endpoints.mqtt.wire import MqttWire, MqttWireSession
from muster.errors import Kind, Problem
from muster.model.peer import Peer
from muster.model.quiet import QuietLog
from muster.net.tasks import TaskSet, Unfinished, begin
from muster.observe.refusals import log_bug
from muster.protocols.machine import Link
from muster.protocols.mqtt.events import ConnectRequested, Event
from muster.protocols.mqtt.server import ServerConnection
from muster.protocols.user_name import ProvisioningUserName, parse_user_name

_LOG = structlog.get_logger("muster.mqtt")

# Longer than any commit under load, shorter than the 10 s in which the machine gives up and
# the 30 s in which the SDKs do.
JUDGEMENT_TIMEOUT = 8.0
# Longest user name that is worth a log line; real ones have some 150 characters.
_LOGGED_NAME = 256


class MqttFrontDoor:
    """Opens a session for each MQTT connection and lets the right wire judge it.

    *tasks* owns the judgements under way.
    """

    def __init__(
        self,
        *,
        hub: MqttWire,
        provisioning: MqttWire,
        tasks: TaskSet,
        judgement_timeout: float = JUDGEMENT_TIMEOUT,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hub = hub
        self._provisioning = provisioning
        self.tasks = tasks
        self.judgement_timeout = judgement_timeout
        self.monotonic = monotonic
        self.quiet = QuietLog(monotonic=monotonic)

    def open(self, peer: Peer, link: Link, now: float) -> tuple[ServerConnection, FrontDoorSession]:
        """Return the machine and the session of a new connection (an `OpenSession`)."""
        machine = ServerConnection(now=now)
        return machine, FrontDoorSession(self, peer, machine, link)

    def wire_for(self, username: str | None) -> MqttWire:
        """Return the wire that *username* asks for; raises `Problem(MALFORMED)`."""
        if username is None:
            raise Problem(Kind.MALFORMED, "CONNECT has no user name, which says what is wanted")
        if isinstance(parse_user_name(username), ProvisioningUserName):
            return self._provisioning
        return self._hub


class FrontDoorSession:
    """One MQTT connection: a `Session[Event]`."""

    __slots__ = ("_closed", "_door", "_link", "_machine", "_peer", "_wire_session")

    def __init__(
        self, door: MqttFrontDoor, peer: Peer, machine: ServerConnection, link: Link
    ) -> None:
        self._door = door
        self._peer = peer
        self._machine = machine
        self._link = link
        self._wire_session: MqttWireSession | None = None
        self._closed: str | None = None

    def handle(self, events: Sequence[Event]) -> None:
        """Hand events to the wire's session, or start judging the first one."""
        session = self._wire_session
        if session is None:
            for event in events:
                if isinstance(event, ConnectRequested):
                    self._judge(event)
            return
        try:
            session.handle(events)
        except Problem as problem:
            self._end(problem)

    def closed(self, reason: str) -> None:
        """Pass the end on; before the answer there is nobody yet to be told."""
        self._closed = reason
        session, self._wire_session = self._wire_session, None
        if session is not None:
            session.closed(reason)

    def _end(self, problem: Problem) -> None:
        self._note("mqtt connection ended", problem.kind, problem.detail)
        self._machine.fail(problem.detail)

    def _judge(self, request: ConnectRequested) -> None:
        # A judgement that waits for nothing, as most do, is over at once: a task and a turn of
        # the loop would cost a tenth of a CONNECT.
        try:
            wire = self._door.wire_for(request.username)
            verdict = begin(wire.connect(request, self._peer, self._machine, self._link))
        except Exception as error:  # noqa: BLE001 - sorted out below
            self._turn_away(request, error)
            return
        if isinstance(verdict, Unfinished):
            self._door.tasks.start(self._await(request, verdict), name="mqtt-connect")
        else:
            self._admit(verdict)

    async def _await(self, request: ConnectRequested, verdict: Unfinished[MqttWireSession]) -> None:
        try:
            async with asyncio.timeout(self._door.judgement_timeout):
                session = await verdict
        except Exception as error:  # noqa: BLE001 - sorted out there
            self._turn_away(request, error)
        else:
            self._admit(session)
        self._link.flush()

    def _turn_away(self, request: ConnectRequested, error: Exception) -> None:
        match error:
            case Problem():
                self._refuse(request, error)
            case TimeoutError():
                late = Problem(Kind.UNAVAILABLE, "judging the CONNECT took too long")
                self._refuse(request, late)
            case _:  # a bug must refuse this CONNECT, never end the server
                log_bug(
                    "judging a CONNECT failed",
                    error,
                    address=self._peer.address,
                    username=_shortened(request.username),
                )
                self._machine.refuse(INTERNAL_CONNACK_CODE)

    def _admit(self, session: MqttWireSession) -> None:
        if self._closed is not None:
            session.closed(self._closed)
            return
        self._wire_session = session
        if self._machine.finished:
            # Its own deadline came first, or the wire failed it; `closed` follows.
            return
        self._machine.accept(
            session_present=session.session_present,
            keep_alive=session.keep_alive,
            now=self._door.monotonic(),
        )
        try:
            session.handle(())
        except Problem as problem:
            self._end(problem)

    def _refuse(self, request: ConnectRequested, problem: Problem) -> None:
        code = CONNACK_CODE[problem.kind]
        self._note(
            "mqtt connection refused",
            problem.kind,
            problem.detail,
            connack=code,
            username=_shortened(request.username),
            client_id=_shortened(request.client_id),
        )
        if code is None:
            self._machine.fail(problem.detail)
        else:
            self._machine.refuse(code)

    def _note(self, what: str, kind: Kind, detail: str, **fields: Any) -> None:
        self._door.quiet.write(
            _LOG.info,
            f"{what} {kind.value}",
            what,
            kind=kind.value,
            detail=detail,
            address=self._peer.address,
            **fields,
        )


def _shortened(text: str | None) -> str | None:
    if text is None or len(text) <= _LOGGED_NAME:
        return text
    return f"{text[:_LOGGED_NAME]}..."
