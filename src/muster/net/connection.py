"""One accepted connection: TLS or plain, bounded on both sides, with one way out.

The connection owns the socket. Above it sits a `Receiver` (a machine's driver, or HTTP) that
gets plaintext and writes plaintext.

Rules:

1. Every exit passes `close` or `abort` and gets a `CloseReason`; the first one counts. The
   receiver hears of it at once and exactly once; the listener counts and logs it when the
   socket is gone.
2. A failed handshake ends with TLS's alert, and an orderly close with close_notify. After its last
   words the connection reads on for a moment and discards: closing a socket with unread input
   makes the kernel send a reset, which can destroy the last words on their way.
3. A peer that does not read is first no longer read from, then cut (`Limits`).
4. Nothing is allocated for TLS before the peer has sent its first byte.
"""

from __future__ import annotations

import asyncio
from enum import IntEnum
from typing import Any, Protocol, cast

from muster.model.peer import Peer
from muster.net.admission import Admission, Limits
from muster.net.engine import Buffers, Engine, TlsFailure, TooManyCertificates
from muster.net.reasons import CloseReason, Closings, log_bug
from muster.net.tasks import TaskSet
from muster.net.tls import TlsServer


class Receiver(Protocol):
    """What sits on an open connection."""

    def receive(self, data: bytes) -> None:
        """Take plaintext that arrived."""
        ...

    def receive_eof(self) -> None:
        """Take note that the peer will send no more; the connection closes afterwards."""
        ...

    def pause_writing(self) -> None:
        """Take note that the peer does not keep up: produce nothing more for now."""
        ...

    def resume_writing(self) -> None:
        """Undo `pause_writing`."""
        ...

    def stop(self) -> None:
        """Finish what is in flight, then close; the listener waits for so long only."""
        ...

    def lost(self, reason: CloseReason, detail: str) -> None:
        """Take note, exactly once, that nothing more comes or goes."""
        ...


class Application(Protocol):
    """What a listener's port serves."""

    def open(self, connection: Connection) -> Receiver:
        """Return the receiver of a connection whose handshake is done."""
        ...


class Host:
    """What the connections of one listener share."""

    __slots__ = (
        "admission",
        "buffers",
        "closings",
        "connections",
        "empty",
        "limits",
        "loop",
        "stopping",
        "tasks",
    )

    def __init__(self, limits: Limits, closings: Closings) -> None:
        self.limits = limits
        self.closings = closings
        self.admission = Admission(limits)
        self.buffers = Buffers()
        self.loop = asyncio.get_running_loop()
        self.connections: set[Connection] = set()
        self.empty = asyncio.Event()
        self.empty.set()
        self.tasks = TaskSet()
        self.stopping = False


class _State(IntEnum):
    HANDSHAKE = 0
    OPEN = 1
    CLOSING = 2
    CLOSED = 3


class Connection(asyncio.BufferedProtocol):
    """The near end of one accepted socket. Made by `Listener`."""

    __slots__ = (
        "_application",
        "_detail",
        "_discarded",
        "_drained",
        "_engine",
        "_heard_out",
        "_host",
        "_paused_by_receiver",
        "_reason",
        "_receiver",
        "_stalled",
        "_state",
        "_timer",
        "_tls",
        "_transport",
        "_written",
        "address",
        "local",
        "peer",
        "port",
    )

    _transport: asyncio.Transport

    def __init__(self, host: Host, application: Application, tls: TlsServer | None) -> None:
        self._host = host
        self._application = application
        self._tls = tls
        self._engine: Engine | None = None
        self._receiver: Receiver | None = None
        self._state = _State.HANDSHAKE
        self._reason: CloseReason | None = None
        self._detail = ""
        self._timer: asyncio.TimerHandle | None = None
        self._stalled = False
        self._paused_by_receiver = False
        self._heard_out = False
        self._written = 0
        self._drained = 0
        self._discarded = 0
        self.address = ""
        self.port = 0
        self.local: tuple[str, int] = ("", 0)
        self.peer = Peer("")

    # What the receiver may do.

    @property
    def is_open(self) -> bool:
        """Whether anything written now still goes out."""
        return self._state is _State.OPEN

    @property
    def is_tls(self) -> bool:
        """Whether the bytes are protected on the wire."""
        return self._tls is not None

    def write(self, data: bytes) -> None:
        """Send *data*; silently dropped once the connection closes."""
        if self._state is not _State.OPEN or not data:
            return
        if self._stalled and self._waiting() > self._host.limits.write_most:
            self.abort(CloseReason.SLOW_READER, f"{self._waiting()} bytes wait for it")
            return
        if self._engine is None:
            self._send(data)
            return
        try:
            ciphertext = self._engine.write(data)
        except TlsFailure as failure:
            self.abort(CloseReason.TLS_BROKEN, str(failure))
            return
        self._send(ciphertext)

    def pause_reading(self) -> None:
        """Take no more from the peer until `resume_reading`. Idempotent."""
        if not self._paused_by_receiver and self._state is _State.OPEN:
            self._paused_by_receiver = True
            self._apply_reading(wanted=False)

    def resume_reading(self) -> None:
        """Undo `pause_reading`. Idempotent."""
        if self._paused_by_receiver and self._state is _State.OPEN:
            self._paused_by_receiver = False
            self._apply_reading(wanted=not self._stalled)

    def close(self, reason: CloseReason, detail: str = "") -> None:
        """Send what waits and the last words, then close. The first reason counts."""
        if self._state >= _State.CLOSING:
            return
        if self._state is _State.OPEN and self._engine is not None:
            self._engine.close_notify()
            self._send(self._engine.outgoing())
        self._leave(_State.CLOSING, reason, detail)
        if self._transport.is_closing():
            return
        if self._heard_out and not self._waiting():
            return  # both ends are done, and `eof_received` closes
        self._apply_reading(wanted=True)  # to see the peer's end; what comes is discarded
        self._transport.write_eof()
        self._drained = self._written - self._waiting()
        self._later(self._host.limits.linger_timeout, self._linger_over)

    def abort(self, reason: CloseReason, detail: str = "") -> None:
        """Close now; what waits to be sent is lost. The first reason counts."""
        if self._state is _State.CLOSED:
            return
        self._leave(_State.CLOSED, reason, detail)
        self._transport.abort()

    # What the listener may do.

    def stop(self) -> None:
        """End politely because the program ends."""
        if self._state is _State.HANDSHAKE:
            self.close(CloseReason.SHUTDOWN)
        elif self._state is _State.OPEN and self._receiver is not None:
            self._receiver.stop()

    def cut(self) -> None:
        """End at once because the program ends."""
        self.abort(CloseReason.SHUTDOWN)
        self._transport.abort()  # one that lingers has left already, but its socket is still there

    def give_way(self) -> None:
        """End an unfinished handshake in favour of a newer one."""
        self._host.admission.handshake_ends(self)
        self.abort(CloseReason.HANDSHAKE_EVICTED)

    # What the event loop tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the peer in or turn it away."""
        self._transport = cast("asyncio.Transport", transport)
        host = self._host
        self.address, self.port = _host_and_port(transport.get_extra_info("peername"))
        self.local = _host_and_port(transport.get_extra_info("sockname"))
        refusal = CloseReason.SHUTDOWN if host.stopping else host.admission.enter(self)
        if refusal is not None:
            self._state = _State.CLOSED
            host.closings.note(refusal, "", address=self.address, port=self.local[1])
            self._transport.abort()
            return
        host.connections.add(self)
        host.empty.clear()
        self._transport.set_write_buffer_limits(host.limits.write_high, host.limits.write_low)
        if self._tls is None:
            self.peer = Peer(self.address)
            self._open()
            return
        host.admission.handshake_begins(self)
        self._later(host.limits.handshake_timeout, self._handshake_expired)

    def get_buffer(self, _size_hint: int) -> memoryview:
        """Lend the loop's one buffer: it is empty again before anybody else reads."""
        return self._host.buffers.view

    def buffer_updated(self, size: int) -> None:
        """Take *size* bytes from the buffer."""
        try:
            if self._state is _State.OPEN:
                self._take(size)
            elif self._state is _State.HANDSHAKE:
                self._shake_hands(size)
            else:
                self._discard(size)
        except Exception:  # noqa: BLE001 - a bug must end this connection, never the server
            log_bug("a connection failed", address=self.address)
            self.abort(CloseReason.INTERNAL)

    def eof_received(self) -> bool:
        """Take the peer's end of stream; returns True, because closing is ours to do."""
        self._heard_out = True
        if self._state is _State.OPEN:
            self._peer_ended()
        elif self._state is _State.HANDSHAKE:
            self.abort(CloseReason.NO_HANDSHAKE)
        self._transport.close()  # once what waits is written; `_linger_over` bounds it
        return True

    def pause_writing(self) -> None:
        """Stop reading from a peer that does not read, and give it a while."""
        self._stalled = True
        if self._state is not _State.OPEN:
            return
        self._apply_reading(wanted=False)
        self._drained = self._written - self._waiting()
        self._later(self._host.limits.stall_timeout, self._check_stall)
        if self._receiver is not None:
            self._receiver.pause_writing()

    def resume_writing(self) -> None:
        """Go on with a peer that caught up."""
        self._stalled = False
        if self._state is not _State.OPEN:
            return
        self._cancel_timer()
        self._apply_reading(wanted=not self._paused_by_receiver)
        if self._receiver is not None:
            self._receiver.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        """Settle the account: the single place where a connection is counted out."""
        if self not in self._host.connections:
            return  # turned away at the door, and counted there
        if self._state < _State.CLOSING:
            unfinished = self._state is _State.HANDSHAKE
            reset = CloseReason.NO_HANDSHAKE if unfinished else CloseReason.PEER_RESET
            self._leave(_State.CLOSED, reset, str(error) if error else "")
        self._state = _State.CLOSED
        self._cancel_timer()
        host = self._host
        host.connections.discard(self)
        if not host.connections:
            host.empty.set()
        host.admission.leave(self)
        self._engine = None
        assert self._reason is not None
        host.closings.note(
            self._reason,
            self._detail,
            address=self.address,
            peer_port=self.port,
            port=self.local[1],
        )

    # Inside.

    def _shake_hands(self, size: int) -> None:
        assert self._tls is not None
        engine = self._engine
        if engine is None:
            tls = self._tls.connection(self.local[0])
            engine = self._engine = Engine(tls, self._host.buffers)
        engine.feed(size)
        try:
            done = engine.handshake()
        except TlsFailure as failure:
            self._send(engine.outgoing())
            self.close(CloseReason.HANDSHAKE_FAILED, str(failure))
            return
        if not done:
            self._send(engine.outgoing())
            return
        try:
            self.peer = engine.peer(self.address)
        except TooManyCertificates as refusal:
            self._state = _State.OPEN  # so that close_notify goes out
            self.close(CloseReason.TOO_MANY_CERTIFICATES, str(refusal))
            return
        self._host.admission.handshake_ends(self)
        self._cancel_timer()
        self._open()
        if self.is_open:
            # The handshake's last words go with the answer to what came with it, if there is one.
            self._deliver(engine)

    def _open(self) -> None:
        self._state = _State.OPEN
        try:
            self._receiver = self._application.open(self)
        except Exception:  # noqa: BLE001 - a bug must end this connection, never the server
            log_bug("a connection could not be served", address=self.address)
            self.close(CloseReason.INTERNAL)

    def _take(self, size: int) -> None:
        engine = self._engine
        if engine is None:
            assert self._receiver is not None
            self._receiver.receive(bytes(self._host.buffers.view[:size]))
            return
        engine.feed(size)
        self._deliver(engine)

    def _deliver(self, engine: Engine) -> None:
        try:
            data = engine.read()
        except TlsFailure as failure:
            self._send(engine.outgoing())
            self.close(CloseReason.TLS_BROKEN, str(failure))
            return
        if data:
            assert self._receiver is not None
            self._receiver.receive(data)
        if self._state is _State.OPEN:
            # TLS's own answers (to a key update, say), unless a write took them along.
            self._send(engine.outgoing())
            if engine.peer_ended:
                self._peer_ended()

    def _peer_ended(self) -> None:
        if self._receiver is not None:
            self._receiver.receive_eof()
        self.close(CloseReason.PEER_CLOSED)

    def _send(self, data: bytes) -> None:
        # A transport whose socket failed is closing before it says so.
        if data and not self._transport.is_closing():
            self._written += len(data)
            self._transport.write(data)

    def _apply_reading(self, *, wanted: bool) -> None:
        transport = self._transport
        if transport.is_closing() or transport.is_reading() is wanted:
            return
        if wanted:
            transport.resume_reading()
        else:
            transport.pause_reading()

    def _waiting(self) -> int:
        return self._transport.get_write_buffer_size()

    def _discard(self, size: int) -> None:
        self._discarded += size
        if self._discarded > self._host.limits.linger_bytes:
            self._transport.abort()

    def _leave(self, state: _State, reason: CloseReason, detail: str) -> None:
        was_open = self._state is _State.OPEN
        self._state = state
        self._cancel_timer()
        self._host.admission.handshake_ends(self)
        if self._reason is None:
            self._reason, self._detail = reason, detail
        receiver, self._receiver = self._receiver, None
        if was_open and receiver is not None:
            try:
                receiver.lost(reason, detail)
            except Exception:  # noqa: BLE001 - a bug must end this connection, never the server
                log_bug("a connection's end was not taken", address=self.address)

    # Timers: one at a time, because each belongs to one state.

    def _later(self, delay: float, action: Any) -> None:
        self._cancel_timer()
        self._timer = self._host.loop.call_later(delay, action)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _handshake_expired(self) -> None:
        self.abort(CloseReason.HANDSHAKE_TIMEOUT)

    def _check_stall(self) -> None:
        drained = self._written - self._waiting()
        limits = self._host.limits
        if drained - self._drained < limits.stall_progress:
            self.abort(
                CloseReason.SLOW_READER,
                f"took {drained - self._drained} bytes in {limits.stall_timeout:g} s",
            )
            return
        self._drained = drained
        self._later(limits.stall_timeout, self._check_stall)

    def _linger_over(self) -> None:
        # A long last word to a slow peer may take its time, as long as it moves.
        drained = self._written - self._waiting()
        if self._waiting() and drained - self._drained >= self._linger_progress():
            self._drained = drained
            self._later(self._host.limits.linger_timeout, self._linger_over)
        else:
            self._transport.abort()

    def _linger_progress(self) -> float:
        limits = self._host.limits
        return limits.stall_progress * limits.linger_timeout / limits.stall_timeout


def _host_and_port(name: Any) -> tuple[str, int]:
    # A peer that is gone already has no name.
    if isinstance(name, tuple) and len(name) >= 2:
        return str(name[0]), int(name[1])
    return "", 0
