"""What is logged when a request is refused, and when it meets a bug.

Rules:

1. A stranger can cause either at will, so lines are bounded for each wire and kind. What was left
   out is counted and said with the next line.
2. The tracking id that the peer was shown is in the line, if the line was written.
3. No value of the peer's decides how many lines there are.
"""

from __future__ import annotations

import time
from typing import Any

import structlog

from muster.errors import Problem
from muster.model.quiet import QuietLog

_LOG = structlog.get_logger("muster.requests")

# A stranger can cause four kinds of refusal on ten wires: 300 bytes a line, 5 GB a day at worst.
_LINES_PER_SECOND = 5
_QUIET = QuietLog(monotonic=time.monotonic, lines_per_second=_LINES_PER_SECOND)


def note_refusal(wire: str, problem: Problem, **fields: Any) -> None:
    """Log that *wire* refused a request with *problem*; *fields* say which request."""
    _QUIET.write(
        _LOG.info,
        f"{wire} {problem.kind.value}",
        "request refused",
        wire=wire,
        kind=problem.kind.value,
        why=problem.detail,
        **fields,
    )


def log_bug(what: str, error: BaseException | None = None, **fields: Any) -> None:
    """Log *error*, or else the exception being handled, with its traceback.

    *what* is one of a few texts of ours, and the key of the bound.
    """
    _QUIET.write(_LOG.error, what, what, exc_info=error or True, **fields)
