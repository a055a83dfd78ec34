"""Pumps a protocol machine for its session: the only loop that machines and sessions know.

Rules:

1. One read from the peer is one turn: bytes into the machine, its events to the session, what
   the machine has to say in one write. No call is made per message.
2. A session is never re-entered. What it asks of its `Link` while it handles events happens after
   it returns.
3. What tasks do to a machine is sent by `Link.flush`: once an event-loop turn for all that was
   done in it, so that a thousand answers that became durable together cost one pass.
4. An exception that leaves a session is a bug: logged with its traceback, connection closed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol

from muster.model.peer import Peer
from muster.net.connection import Connection
from muster.net.reasons import CloseReason, log_bug
from muster.protocols.machine import Link, Machine, Session

# What a stopping connection is given for answers in flight (a commit takes milliseconds),
# well inside the five seconds in which the program promises to end.
STOP_GRACE = 0.5
# Timers nearer than this would only spin on a clock that a loop reads once a turn.
_SHORTEST_WAIT = 0.001


class Pipe(Protocol):
    """What carries a driver's bytes: a connection, or a WebSocket on one."""

    def write(self, data: bytes) -> None:
        """Send *data*, or drop it once closed."""
        ...

    def close(self, reason: CloseReason, detail: str = "") -> None:
        """Send what waits, then close; calls `Driver.lost` before it returns."""
        ...

    def pause_reading(self) -> None:
        """Deliver nothing more until `resume_reading`. Idempotent."""
        ...

    def resume_reading(self) -> None:
        """Undo `pause_reading`. Idempotent."""
        ...


MachineAndSession = tuple[Machine[Any], Session[Any]]
# Called once for each connection, with who is there, how to reach the driver, and the moment.
OpenSession = Callable[[Peer, Link, float], MachineAndSession]


class Turn:
    """Gathers the drivers that have something to send, and flushes them once a loop turn."""

    def __init__(self) -> None:
        self._waiting: list[Driver] = []

    def add(self, driver: Driver) -> None:
        """Flush *driver* soon; each driver asks once a turn."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._run)
        self._waiting.append(driver)

    def _run(self) -> None:
        waiting, self._waiting = self._waiting, []
        for driver in waiting:
            driver.flush_now()


class Driver:
    """One machine, its session and its pipe. Is the session's `Link`."""

    __slots__ = (
        "_closing",
        "_end",
        "_flushing",
        "_lost",
        "_machine",
        "_monotonic",
        "_pipe",
        "_pumping",
        "_session",
        "_timer",
        "_timer_at",
        "_turn",
    )

    def __init__(
        self,
        pipe: Pipe,
        peer: Peer,
        open_session: OpenSession,
        turn: Turn,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pipe = pipe
        self._turn = turn
        self._monotonic = monotonic
        self._pumping = False
        self._flushing = False
        self._closing: str | None = None
        self._end = CloseReason.PROTOCOL_ENDED
        self._lost = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._machine, self._session = open_session(peer, self, monotonic())
        # A machine may wait for its first bytes from the start; who speaks first flushes its link.
        self._arm(monotonic())

    # What the pipe tells.

    def receive(self, data: bytes) -> None:
        """Take bytes that arrived."""
        now = self._monotonic()
        self._machine.receive(data, now)
        self._pump(now)

    def receive_eof(self) -> None:
        """Take note that the peer will send no more."""
        self._end = CloseReason.PEER_CLOSED
        now = self._monotonic()
        self._machine.receive_eof(now)
        self._pump(now)

    def pause_writing(self) -> None:
        """Nothing to do: the connection stops reading, so the machine has nothing to answer."""

    def resume_writing(self) -> None:
        """Nothing to do, as above."""

    def stop(self) -> None:
        """Take no more, give the answers in flight a moment, then close."""
        self._pipe.pause_reading()
        asyncio.get_running_loop().call_later(STOP_GRACE, self._stop_now)

    def lost(self, reason: CloseReason, detail: str) -> None:
        """Take note that the pipe is gone; tells the session, once."""
        if self._lost:
            return
        self._lost = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            self._session.closed(f"{reason.value}: {detail}" if detail else reason.value)
        except Exception:  # noqa: BLE001 - a bug must end this connection, never the server
            log_bug("a session did not take its end")

    # What the session asks (`Link`).

    def flush(self) -> None:
        """Deliver the machine's events and bytes at the end of this turn."""
        if not self._flushing and not self._pumping:
            self._flushing = True
            self._turn.add(self)

    def close(self, reason: str) -> None:
        """Write what the machine has left, then close. Idempotent; the first reason wins."""
        if self._closing is None:
            self._closing = reason
            self.flush()

    def pause_reading(self) -> None:
        """Take no more from the peer for now."""
        self._pipe.pause_reading()

    def resume_reading(self) -> None:
        """Undo `pause_reading`."""
        self._pipe.resume_reading()

    # Inside.

    def flush_now(self) -> None:
        """Do what `flush` promised; for `Turn`."""
        self._flushing = False
        self._pump(self._monotonic())

    def _pump(self, now: float) -> None:
        if self._lost:
            return
        machine, handle = self._machine, self._session.handle
        self._pumping = True
        try:
            # Handling may set free what the machine held back (bytes behind a CONNECT).
            while events := machine.events():
                handle(events)
        except Exception:  # noqa: BLE001 - a bug must end this connection, never the server
            log_bug("a session failed")
            self._pipe.close(CloseReason.INTERNAL)
            return
        finally:
            self._pumping = False
        data = machine.data_to_send()
        if data:
            self._pipe.write(data)
        if self._closing is not None:
            self._pipe.close(CloseReason.SESSION_ENDED, self._closing)
        elif machine.finished:
            self._pipe.close(self._end)
        else:
            self._arm(now)

    def _arm(self, now: float) -> None:
        deadline = self._machine.next_deadline()
        # A timer that fires too early is cheaper than one that is moved with every packet.
        if deadline is None or (self._timer is not None and self._timer_at <= deadline):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = asyncio.get_running_loop().call_later(
            max(deadline - now, _SHORTEST_WAIT), self._timer_fired
        )

    def _timer_fired(self) -> None:
        self._timer = None
        now = self._monotonic()
        self._machine.deadline_passed(now)
        self._pump(now)

    def _stop_now(self) -> None:
        if not self._lost:
            # What the machine still has to say goes out first, so not straight to the pipe.
            data = self._machine.data_to_send()
            if data:
                self._pipe.write(data)
            self._pipe.close(CloseReason.SHUTDOWN)


class MachineApplication:
    """Serves a protocol machine on a listener's port."""

    def __init__(self, open_session: OpenSession) -> None:
        self._open_session = open_session
        self._turn = Turn()

    def open(self, connection: Connection) -> Driver:
        """Return the driver of a new connection."""
        return Driver(connection, connection.peer, self._open_session, self._turn)
