"""MQTT over WebSockets: the same machine and session as on the MQTT port, in binary frames.

Rules (facts/hub.md 1.7, MQTT-3.1.1 section 6):

1. The client offers the sub-protocol `mqtt` and gets it echoed; without it the upgrade is refused.
2. Frames carry a byte stream: packets need not end where frames end (MQTT-6.0.0-2). A text
   frame ends the connection (MQTT-6.0.0-1).
3. A client that does not read is no longer read from, and cut when what waits for it does not
   go out in `SEND_TIMEOUT`.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketState

from muster.model.peer import Peer
from muster.net.asgi import PEER
from muster.net.driver import Driver, OpenSession, Turn
from muster.net.reasons import CloseReason
from muster.observe.refusals import log_bug

SUBPROTOCOL = "mqtt"
# The paths that SDKs dial: the official ones use the first, plain MQTT clients the root.
PATHS = ("/$iothub/websocket", "/")
# Bytes that wait for the client at which nothing more is read from it, and at which it is cut.
_WAITING_HIGH = 65_536
_WAITING_MOST = 1_048_576
# A frame that is not taken in this time, in seconds, has no reader.
SEND_TIMEOUT = 20.0
# RFC 6455 section 7.4.1.
_NORMAL, _UNSUPPORTED_DATA, _INTERNAL = 1000, 1003, 1011


def routes(open_session: OpenSession) -> list[BaseRoute]:
    """Return the routes that serve MQTT over WebSockets with sessions from *open_session*."""
    endpoint = MqttWebSocket(open_session)
    return [WebSocketRoute(path, endpoint) for path in PATHS]


class MqttWebSocket:
    """The endpoint itself: an ASGI application for one WebSocket path."""

    def __init__(self, open_session: OpenSession, *, send_timeout: float = SEND_TIMEOUT) -> None:
        self._open_session = open_session
        self._send_timeout = send_timeout
        self._turn = Turn()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one WebSocket until either end closes it."""
        socket = WebSocket(scope, receive=receive, send=send)
        if SUBPROTOCOL not in socket.scope.get("subprotocols", ()):
            await socket.send_denial_response(
                PlainTextResponse(f"offer the sub-protocol {SUBPROTOCOL}\n", status_code=400)
            )
            return
        await socket.accept(subprotocol=SUBPROTOCOL)
        pipe = WebSocketPipe(socket, self._send_timeout)
        peer: Peer = socket.scope["extensions"][PEER]
        pipe.driver = Driver(pipe, peer, self._open_session, self._turn)
        await pipe.run()


class WebSocketPipe:
    """Carries a driver's bytes over a WebSocket: a `Pipe`."""

    def __init__(self, socket: WebSocket, send_timeout: float) -> None:
        self.driver: Driver
        self._socket = socket
        self._send_timeout = send_timeout
        self._waiting: list[bytes] = []
        self._size = 0
        self._wake = asyncio.Event()
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._paused = False
        self._reason: CloseReason | None = None

    def write(self, data: bytes) -> None:
        """Send *data* in a frame of its own, soon."""
        if self._reason is not None:
            return
        self._size += len(data)
        if self._size > _WAITING_MOST and self._waiting:
            self._waiting.clear()
            self.close(CloseReason.SLOW_READER, f"{self._size} bytes wait for it")
            return
        self._waiting.append(data)
        self._wake.set()
        self._settle_reading()

    def close(self, reason: CloseReason, detail: str = "") -> None:
        """Send what waits, then close; the first reason counts."""
        if self._reason is not None:
            return
        self._reason = reason
        self._wake.set()
        self._may_read.set()
        self.driver.lost(reason, detail)

    def pause_reading(self) -> None:
        """Take no more frames for now."""
        self._paused = True
        self._settle_reading()

    def resume_reading(self) -> None:
        """Undo `pause_reading`."""
        self._paused = False
        self._settle_reading()

    def _settle_reading(self) -> None:
        if self._reason is None and (self._paused or self._size > _WAITING_HIGH):
            self._may_read.clear()
        else:
            self._may_read.set()

    async def run(self) -> None:
        """Move bytes both ways until either end closes."""
        reader = asyncio.create_task(self._read(), name="mqtt-websocket-read")
        try:
            await self._write()
        except Exception:  # noqa: BLE001 - a bug must end this connection, never the server
            log_bug("an MQTT WebSocket failed")
            self.close(CloseReason.INTERNAL)
        except asyncio.CancelledError:
            self.close(CloseReason.SHUTDOWN)
            raise
        finally:
            reader.cancel()
            await asyncio.wait([reader])

    async def _read(self) -> None:
        try:
            while self._reason is None:
                await self._may_read.wait()
                message = await self._socket.receive()
                data = message.get("bytes")
                if message["type"] == "websocket.disconnect":
                    self.driver.receive_eof()
                    self.close(CloseReason.PEER_CLOSED)
                elif data is None:
                    self.close(CloseReason.BAD_REQUEST, "a text frame [MQTT-6.0.0-1]")
                elif data:
                    self.driver.receive(data)
        except Exception:  # noqa: BLE001 - as in `run`
            log_bug("an MQTT WebSocket failed")
            self.close(CloseReason.INTERNAL)

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            waiting, self._waiting = self._waiting, []
            if waiting and not await self._send(b"".join(waiting)):
                return
            self._size = sum(map(len, self._waiting))
            self._settle_reading()
            if self._reason is not None and not self._waiting:
                await self._say_goodbye()
                return

    async def _send(self, data: bytes) -> bool:
        try:
            async with asyncio.timeout(self._send_timeout):
                await self._socket.send_bytes(data)
        except TimeoutError:
            self.close(CloseReason.SLOW_READER, f"took nothing for {self._send_timeout:g} s")
            return False
        except (RuntimeError, OSError):  # what Starlette and uvicorn say of a peer that left
            self.close(CloseReason.PEER_CLOSED)
            return False
        return True

    async def _say_goodbye(self) -> None:
        if self._socket.client_state is not WebSocketState.CONNECTED:
            return
        code = _NORMAL
        if self._reason is CloseReason.BAD_REQUEST:
            code = _UNSUPPORTED_DATA
        elif self._reason is CloseReason.INTERNAL:
            code = _INTERNAL
        try:
            async with asyncio.timeout(self._send_timeout):
                await self._socket.close(code)
        except (TimeoutError, RuntimeError, OSError):
            return
