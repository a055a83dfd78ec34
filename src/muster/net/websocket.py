"""WebSockets behind the front door: uvicorn's protocol with our limits, and quieter."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from muster.net.asgi import PEER, with_peer
from muster.net.http_limits import HttpLimits

# The name under which the transport tells the limits, as it tells the peer under `PEER`.
LIMITS = "muster.limits"


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket, from its opening handshake on."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over *transport*, which tells the peer and the limits."""
        super().connection_made(transport)
        self.limits: HttpLimits = transport.get_extra_info(LIMITS)
        self.app = with_peer(self.app, transport.get_extra_info(PEER), self.limits.body_bytes)

    def handle_cont(self, event: Any) -> None:
        """Take one more frame of a message."""
        # Empty continuation frames never reach the size limit, but each takes its place.
        if len(self.frames) >= self.limits.websocket_frames:
            self.conn.fail(1009, "too many frames in a message")
            self.handle_parser_exception()
            return
        super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        """Hand a complete message to the application."""
        if self.curr_msg_data_type == "text" and not _is_text(b"".join(self.frames)):
            # Refused here, because uvicorn would write a traceback for it.
            self.conn.fail(1007, "a text message is not UTF-8")
            self.handle_parser_exception()
            return
        super().send_receive_event_to_app()

    async def send(self, message: Any) -> None:
        """Take what the application says."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            # The handshake was answered with a denial. uvicorn holds it for unanswered, and writes
            # an error line for each.
            self.handshake_complete = True


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
