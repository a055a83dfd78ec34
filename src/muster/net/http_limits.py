"""What one HTTP connection bears, each limit with its reason."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What one HTTP connection bears. Bytes and seconds.

    `head_bytes`, `headers`: request line and headers; a SAS token and a client certificate's worth
    of cookies fit four times. As much again is borne of trailers. `body_bytes`: a megabyte holds
    any request of these APIs; an endpoint may ask for less. `head_timeout`: from the first byte of
    a request to the end of its head. `idle_timeout`: with no request under way; more than the
    minute for which client pools keep connections. `body_grace`, `body_rate`: a body may take so
    many seconds, and one more for each `body_rate` bytes that came. `pipeline`: requests sent ahead
    of their answers. `websocket_bytes`, `websocket_frames`: one WebSocket message; MQTT packets
    have 256 KiB.
    """

    head_bytes: int = 32_768
    headers: int = 100
    body_bytes: int = 1_048_576
    head_timeout: float = 10.0
    idle_timeout: float = 75.0
    body_grace: float = 20.0
    body_rate: int = 1024
    pipeline: int = 16
    websocket_bytes: int = 524_288
    websocket_frames: int = 1024
