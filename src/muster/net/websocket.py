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
