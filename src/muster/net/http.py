"""HTTP behind the front door: uvicorn's parser and ASGI machinery on our own connections.

Rules:

1. The peer of the connection is in `scope["extensions"]["muster.peer"]`, for HTTP and WebSockets,
   with TLS or without.
2. A request's head is bounded in bytes, headers and seconds; its body in bytes and by a least
   rate; what frames the body in proportion to it; an idle connection in seconds. Whoever exceeds
   them is answered where HTTP has words for it (408, 413, 431), and closed.
3. One parser decides where a request ends: a message that could be read in two ways is refused
   (RFC 9112 section 6.3), as is one without exactly one Host (section 3.2). HTTP/1.1 and 1.0
   are spoken, and nothing else.
4. No access log, no Server header, no URL in any log: URLs can carry signatures.
"""

from __future__ import annotations

import asyncio
import email.utils
import logging
from enum import IntEnum
from http import HTTPStatus
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from muster.clock import Clock
from muster.net.asgi import PEER, AsgiApplication, with_peer
from muster.net.connection import Connection
from muster.net.http_limits import HttpLimits
from muster.net.reasons import CloseReason
from muster.net.request_head import Refusal, RequestHead, judge_head, judge_upgrade
from muster.net.tasks import TaskSet
from muster.net.websocket import LIMITS, WebSocketProtocol


class HttpApplication:
    """Serves an ASGI application on a listener's ports, with TLS or without.

    *tasks* owns the requests under way. The application's lifespan is the caller's business.
    """

    def __init__(
        self,
        app: AsgiApplication,
        clock: Clock,
        tasks: TaskSet,
        limits: HttpLimits | None = None,
    ) -> None:
        self.limits = limits or HttpLimits()
        # uvicorn tells of URLs at info and of every malformed request at warning; its errors
        # (an exception in the application, with traceback) are the only lines worth keeping.
        self.config = uvicorn.Config(
            app,
            http=_HttpProtocol,
            ws=WebSocketProtocol,
            interface="asgi3",
            lifespan="off",
            log_config=None,
            log_level=logging.ERROR,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=int(self.limits.idle_timeout) + 60,  # ours comes first
            ws_max_size=self.limits.websocket_bytes,
            ws_ping_interval=None,  # MQTT has its own; TCP's finds who vanished
            ws_per_message_deflate=False,  # facts/hub.md 1.7; and no zip bombs
        )
        self.config.load()
        # Whether the parser reports requests to a log is asked of this logger, which
        # inherits whatever handlers the program has.
        logging.getLogger("uvicorn.access").propagate = False
        self.state = _State(clock, tasks)

    def open(self, connection: Connection) -> HttpReceiver:
        """Return the receiver of a new connection."""
        return HttpReceiver(self, connection)


class _State(ServerState):
    """What the requests of one application share."""

    def __init__(self, clock: Clock, tasks: TaskSet) -> None:
        self._clock = clock
        self._second = 0
        self._headers: list[tuple[bytes, bytes]] = []
        super().__init__()
        self.tasks = tasks.tasks

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """The Date header (RFC 9110 section 6.6.1), made once a second."""
        now = self._clock.now().timestamp()
        if int(now) != self._second:
            self._second = int(now)
            self._headers = [(b"date", email.utils.formatdate(now, usegmt=True).encode())]
        return self._headers

    @default_headers.setter
    def default_headers(self, _value: list[tuple[bytes, bytes]]) -> None:
        """Ignore uvicorn's own list."""


# Bytes on the wire for each byte of a chunked body, beyond which the rest counts against
# `head_bytes`: a chunk of a single byte takes six.
_FRAMING_RATIO = 8


class _Phase(IntEnum):
    IDLE = 0
    HEAD = 1
    BODY = 2
    ANSWER = 3  # the request is read; how long the answer takes is the application's business
    WEBSOCKET = 4


class HttpReceiver:
    """One HTTP connection: uvicorn's protocol above, our connection below, time-outs between."""

    __slots__ = (
        "_application",
        "_body_bytes",
        "_connection",
        "_head_bytes",
        "_heads",
        "_loop",
        "_phase",
        "_raw_bytes",
        "_silent_bytes",
        "_since",
        "_timer",
        "_trailer_bytes",
        "_trailers",
        "_transport",
        "limits",
        "protocol",
    )

    def __init__(self, application: HttpApplication, connection: Connection) -> None:
        self._application = application
        self._connection = connection
        self.limits = application.limits
        self._loop = asyncio.get_running_loop()
        self._phase = _Phase.IDLE
        self._since = self._loop.time()
        self._heads = 0
        self._begin_counting()
        self._transport = HttpTransport(self, connection)
        self.protocol: Any = _HttpProtocol(application.config, application.state, {})
        self._timer: asyncio.TimerHandle | None = None
        self.protocol.connection_made(self._transport)
        self._arm()

    def _begin_counting(self) -> None:
        self._head_bytes = 0
        self._body_bytes = 0
        self._raw_bytes = 0
        self._silent_bytes = 0
        self._trailers = 0
        self._trailer_bytes = 0

    # What the connection tells.

    def receive(self, data: bytes) -> None:
        """Parse *data*."""
        if self._phase is _Phase.IDLE:
            self._enter(_Phase.HEAD)
        before = (self._phase, self._heads)
        payload = self._body_bytes
        self.protocol.data_received(data)
        if before != (self._phase, self._heads):
            return  # a part ended within this read, whose size bounds what was not counted
        if self._phase is _Phase.HEAD:
            # The parser keeps an unfinished header for as long as it grows.
            self._head_bytes += len(data)
            if self._head_bytes > self.limits.head_bytes:
                self.refuse(431, "the request's head is too long")
        elif self._phase is _Phase.BODY:
            self._count_framing(len(data), silent=self._body_bytes == payload)

    def _count_framing(self, size: int, *, silent: bool) -> None:
        # The parser tells of a chunk's extensions never, and of a trailer when it is complete: it
        # keeps that one as it keeps a header. Against it stands the count of what came without
        # any of the body; against extensions on every chunk the proportion.
        self._raw_bytes += size
        self._silent_bytes = self._silent_bytes + size if silent else 0
        framing = self._raw_bytes - _FRAMING_RATIO * self._body_bytes
        if max(framing, self._silent_bytes) > self.limits.head_bytes:
            self.refuse(431, "the request's chunk extensions or trailers are too long")

    def receive_eof(self) -> None:
        """Nothing more comes; the connection closes and `lost` follows."""

    def pause_writing(self) -> None:
        """Tell the application to wait."""
        self.protocol.pause_writing()

    def resume_writing(self) -> None:
        """Tell the application to go on."""
        self.protocol.resume_writing()

    def stop(self) -> None:
        """Finish the request under way, then close."""
        self.protocol.shutdown()

    def lost(self, reason: CloseReason, detail: str) -> None:  # noqa: ARG002 - for the log below us
        """Tell the protocol, but not from inside one of its own calls."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._loop.call_soon(self._tell_loss)

    def _tell_loss(self) -> None:
        # Whoever has the connection by now: a WebSocket that refuses its handshake closes before
        # it is ours, and would otherwise be remembered for ever.
        self.protocol.connection_lost(None)

    # What the protocol tells.

    def request_begins(self) -> None:
        """The first bytes of a request were parsed."""
        if self._phase is not _Phase.HEAD:
            self._enter(_Phase.HEAD)

    def head_is_complete(self) -> None:
        """The head was parsed."""
        self._heads += 1
        self._begin_counting()
        self._enter(_Phase.BODY)

    def trailer_came(self, size: int) -> bool:
        """Whether the header just parsed, of *size* bytes, is a trailer; too many are refused."""
        if self._phase is not _Phase.BODY:
            return False
        self._trailers += 1
        self._trailer_bytes += size
        limits = self.limits
        if self._trailers > limits.headers or self._trailer_bytes > limits.head_bytes:
            self.refuse(431, "the request's trailers are too long")
            raise _Refused
        return True

    def body_came(self, size: int, *, answered: bool) -> None:
        """Some of the body was parsed."""
        self._body_bytes += size
        if answered and self._body_bytes > self.limits.body_bytes:
            # Nobody reads it, so nobody but us finds that it is too long.
            self._connection.close(CloseReason.BAD_REQUEST, "the request's body is too long")

    def request_is_complete(self, *, answered: bool) -> None:
        """The whole request was parsed."""
        self._enter(_Phase.IDLE if answered else _Phase.ANSWER)

    def answer_is_complete(self) -> None:
        """The response was written."""
        if self._phase is _Phase.ANSWER and not self.is_working():
            self._enter(_Phase.IDLE)

    def upgraded(self, protocol: asyncio.BaseProtocol) -> None:
        """The connection speaks WebSocket from now on; its application has its own time-outs."""
        self._enter(_Phase.WEBSOCKET)
        self.protocol = protocol
        if not self.protocol.handshake_initiated:
            # Its own parser has limits too (lines of 8 KiB, say), and says nothing beyond them.
            self.refuse(400, "the WebSocket's opening handshake cannot be read")

    def refuse(self, status: int, why: str) -> None:
        """Answer *status*, if an answer is what the peer can take next, and close."""
        if self._may_answer():
            body = f"{why}\n".encode()
            self._connection.write(
                b"HTTP/1.1 %d %s\r\ncontent-type: text/plain; charset=utf-8\r\n"
                b"content-length: %d\r\nconnection: close\r\n\r\n%s"
                % (status, HTTPStatus(status).phrase.encode(), len(body), body)
            )
        slow = status == 408
        self._connection.close(CloseReason.SLOW_REQUEST if slow else CloseReason.BAD_REQUEST, why)

    def _may_answer(self) -> bool:
        # Never inside another request's answer, and never a second time: the peer would take it
        # for part of that answer, or for the answer to a request that it has yet to send.
        cycle = getattr(self.protocol, "cycle", None)
        if cycle is None:
            return True
        if self._phase is _Phase.BODY:  # the newest request is the one that is refused
            return not cycle.response_started and not self.protocol.pipeline
        return bool(cycle.response_complete)

    def is_working(self) -> bool:
        """Whether any request waits for its answer, or for the rest of it."""
        # Answers keep the requests' order, so the newest one says it for all.
        cycle = self.protocol.cycle
        return cycle is not None and not cycle.response_complete

    # Time.

    def _enter(self, phase: _Phase) -> None:
        self._phase = phase
        self._since = self._loop.time()
        if self._timer is None or phase is _Phase.HEAD:
            self._arm()

    def _deadline(self) -> float | None:
        limits = self.limits
        if self._phase is _Phase.IDLE:
            return self._since + limits.idle_timeout
        if self._phase is _Phase.HEAD:
            return self._since + limits.head_timeout
        if self._phase is _Phase.BODY and not self._transport.reading_paused:
            return self._since + limits.body_grace + self._body_bytes / limits.body_rate
        if self._phase is _Phase.ANSWER and not self.is_working():
            # Cannot be; but a connection that waits for nothing would be held for ever.
            return self._since + limits.head_timeout
        return None

    def _arm(self) -> None:
        # Only ever brought forward: a timer that finds nothing to do arms itself again.
        deadline = self._deadline()
        if not self._connection.is_open:
            return
        if deadline is None:
            deadline = self._loop.time() + self.limits.idle_timeout
        if self._timer is not None:
            if self._timer.when() <= deadline:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._check)

    def _check(self) -> None:
        self._timer = None
        deadline = self._deadline()
        if deadline is None or deadline > self._loop.time() + 0.001:
            if self._phase is not _Phase.WEBSOCKET:
                self._arm()
        elif self._phase is _Phase.IDLE:
            self._connection.close(CloseReason.IDLE)
        else:
            self.refuse(408, "the request took too long")


class HttpTransport(asyncio.Transport):
    """A connection in the clothes that uvicorn's protocols expect."""

    def __init__(self, receiver: HttpReceiver, connection: Connection) -> None:
        super().__init__()
        self.receiver = receiver
        self.connection = connection
        self.reading_paused = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the addresses, whether there is TLS, the peer and the limits; nothing else."""
        connection = self.connection
        if name == PEER:
            return connection.peer
        if name == LIMITS:
            return self.receiver.limits
        if name == "peername":
            return (connection.address, connection.port)
        if name == "sockname":
            return connection.local
        if name == "sslcontext":  # only its presence is asked for
            return connection.is_tls or default
        return default

    def write(self, data: Any) -> None:
        """Send *data*."""
        self.connection.write(bytes(data))

    def is_closing(self) -> bool:
        """Whether nothing more can be written."""
        return not self.connection.is_open

    def close(self) -> None:
        """Close once everything is written."""
        self.connection.close(CloseReason.PROTOCOL_ENDED)

    def abort(self) -> None:
        """Close now."""
        self.connection.abort(CloseReason.PROTOCOL_ENDED)

    def pause_reading(self) -> None:
        """Read no more for now."""
        self.reading_paused = True
        self.connection.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        self.reading_paused = False
        self.connection.resume_reading()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand the connection to a WebSocket protocol."""
        self.receiver.upgraded(protocol)


class _HttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 with our limits."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, HttpTransport)
        super().connection_made(transport)
        self.receiver = transport.receiver
        self.limits = transport.receiver.limits
        peer = transport.connection.peer
        self.app = with_peer(self.app, peer, self.limits.body_bytes)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                if self._should_upgrade():
                    self._upgrade(data)
                    return
                # RFC 9110 section 7.8: an upgrade that we do not know is ignored, so what follows
                # is the next request; `pipeline` bounds how often.
            except httptools.HttpParserError:
                self.send_400_response("")
                return
            else:
                return

    def _upgrade(self, rest: bytes) -> None:
        if rest:  # RFC 6455 section 4.1
            self.receiver.refuse(400, "a WebSocket's client waits for the server's handshake")
        else:
            self.handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words say no more
        self.receiver.refuse(400, "the request is not HTTP/1.1")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.receiver.request_begins()

    def on_header(self, name: bytes, value: bytes) -> None:
        # RFC 9110 section 6.5.1: a trailer is not merged into the headers, which say who asks for
        # what. Nobody here reads trailers, so they are dropped.
        if not self.receiver.trailer_came(len(name) + len(value) + 4):
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        refusal = self._judge_head()
        if refusal is not None:
            self.receiver.refuse(*refusal)
            raise _Refused
        self.receiver.head_is_complete()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self.receiver.body_came(len(body), answered=self._is_answered())
        super().on_body(body)

    def on_message_complete(self) -> None:
        self.receiver.request_is_complete(answered=self._is_answered())
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self.receiver.answer_is_complete()

    def _is_answered(self) -> bool:
        cycle: Any = self.cycle  # None before the first request, whatever its type says
        return cycle is not None and bool(cycle.response_complete)

    def _judge_head(self) -> Refusal | None:
        head = RequestHead(
            self.parser.get_method(), self.url, self.parser.get_http_version(), self.headers
        )
        limits = self.limits
        refusal = judge_head(head, most_bytes=limits.head_bytes, most_headers=limits.headers)
        if refusal is not None:
            return refusal
        if len(self.pipeline) >= limits.pipeline:
            return 429, "too many requests at once"
        if self.parser.should_upgrade() and self._should_upgrade():
            if self.receiver.is_working():
                return 400, "a WebSocket begins when all other requests are answered"
            return judge_upgrade(head)
        return None

    def handle_websocket_upgrade(self) -> None:
        # The one of 0, which means nothing; the WebSocket's parser takes none at all.
        self.headers[:] = [field for field in self.headers if field[0] != b"content-length"]
        super().handle_websocket_upgrade()


class _Refused(Exception):  # noqa: N818 - ends the parser's work, nothing else
    """The request was answered already."""
