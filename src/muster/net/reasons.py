"""Why connections close: a named reason for every exit, counted, and logged without flooding.

Rules:

1. A connection has one reason, the first one given; `Closings.note` is called once for it.
2. Ordinary ends are logged at debug. Refusals and cuts are logged at info, at most a few a second
   for each reason, because whoever floods a port must not fill the disk as well.
   What was left out is counted and said with the next line.
3. Every value is a structured field: the log's renderer escapes it.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from enum import Enum
from typing import Any

import structlog

from muster.model.quiet import QuietLog

_LOG = structlog.get_logger("muster.net")
_STANDARD = logging.getLogger("muster.net")


class CloseReason(Enum):
    """Why a connection ended; the values are for logs and metrics and never change."""

    PEER_CLOSED = "peer closed"
    PEER_RESET = "peer reset"
    PROTOCOL_ENDED = "protocol ended"
    SESSION_ENDED = "session ended"
    SHUTDOWN = "shutdown"
    NO_HANDSHAKE = "closed before the handshake was done"
    HANDSHAKE_FAILED = "handshake failed"
    HANDSHAKE_TIMEOUT = "handshake timeout"
    HANDSHAKE_EVICTED = "handshake gave way to newer ones"
    TOO_MANY_CONNECTIONS = "too many connections"
    TOO_MANY_FROM_ADDRESS = "too many connections from one address"
    TOO_MANY_CERTIFICATES = "too many client certificates"
    TLS_BROKEN = "tls broken"
    BAD_REQUEST = "bad request"
    SLOW_REQUEST = "slow request"
    SLOW_READER = "slow reader"
    IDLE = "idle"
    INTERNAL = "internal error"


# What happens all day on a healthy server.
_ORDINARY = frozenset(
    {
        CloseReason.PEER_CLOSED,
        CloseReason.PEER_RESET,
        CloseReason.PROTOCOL_ENDED,
        CloseReason.SESSION_ENDED,
        CloseReason.SHUTDOWN,
        CloseReason.NO_HANDSHAKE,
        CloseReason.IDLE,
    }
)

_BUGS = QuietLog(monotonic=time.monotonic)


def log_bug(what: str, error: BaseException | None = None, **fields: Any) -> None:
    """Log *error*, or else the exception being handled, with its traceback.

    Bounded for each *what* like everything that a peer may be able to cause again and again.
    """
    _BUGS.write(_LOG.error, what, what, exc_info=error or True, **fields)


class Closings:
    """Counts and logs the ends of connections."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.counts: Counter[CloseReason] = Counter()
        self._quiet = QuietLog(monotonic=monotonic)

    def note(self, reason: CloseReason, detail: str, **fields: Any) -> None:
        """Count one end and log it, with *fields* that say whose it was."""
        self.counts[reason] += 1
        if reason in _ORDINARY:
            # Asked first: a line that nobody wants costs more than all else in here.
            if _STANDARD.isEnabledFor(logging.DEBUG):
                _LOG.debug("connection closed", reason=reason.value, detail=detail, **fields)
            return
        self._quiet.write(
            _LOG.info,
            reason.value,
            "connection closed",
            reason=reason.value,
            detail=detail,
            **fields,
        )
