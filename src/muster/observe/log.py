"""The program's log: structured lines, as JSON or for a terminal, safe to read and to keep.

Rules:

1. One event is one line. Control characters, line breaks and text-direction marks in any value
   are escaped, so that a peer cannot forge a line or repaint a terminal.
2. Secrets do not get in: fields with a secret's name are masked, and so are signatures, keys
   and bearer tokens inside any text, tracebacks included. This is the net below the rule,
   not the rule: do not log secrets.
3. Long values are cut. Tracebacks have no local variables.
4. What libraries write with `logging` takes the same way.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

# No event of ours needs more in one value; a traceback has its own, larger bound.
_LONGEST_VALUE = 2_000
_LONGEST_TRACEBACK = 20_000
_MASK = "***"

_SECRET_NAMES = re.compile(
    r"password|passwd|secret|private_?key|shared_?access_?key|primary_?key|secondary_?key|"
    r"authorization|cookie|token|assertion|signature|pin\Z",
    re.IGNORECASE,
)
# Inside text: connection strings, SAS tokens, form fields, headers, JWTs, PEM keys.
_SECRET_TEXT = (
    re.compile(r"(SharedAccessKey\s*=\s*)[^;\s\"'&]+", re.IGNORECASE),
    re.compile(r"(\bsig=)[^&;\s\"']+", re.IGNORECASE),
    re.compile(r"(\b(?:client_secret|password|client_assertion)=)[^&;\s\"']+", re.IGNORECASE),
    re.compile(r"(\bBearer\s+)[A-Za-z0-9._~+/=-]+", re.IGNORECASE),
    re.compile(r"()\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"),
    re.compile(
        r"(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
        re.DOTALL,
    ),
)

EventDict = MutableMapping[str, Any]


def configure(
    *, json: bool = False, level: int | str = logging.INFO, stream: TextIO | None = None
) -> None:
    """Set the whole program's log up, on standard error unless *stream* says otherwise.

    May be called again; the last call counts for loggers that have not written yet.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendered: list[Any] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        # Plain tracebacks: richer ones print local variables, secrets among them.
        structlog.processors.format_exc_info,
        make_safe,
        _json_renderer() if json else _console_renderer(),
    ]
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=rendered)
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        if getattr(old, "muster", False):
            root.removeHandler(old)
    handler.muster = True  # type: ignore[attr-defined] # how the next call knows it
    root.addHandler(handler)
    root.setLevel(level)
    # These tell of every task or every connection at debug and info; nobody asked.
    for name in ("alembic", "asyncio", "websockets", "httpx2", "httpcore2", "sqlalchemy.engine"):
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def get_logger(name: str) -> Any:
    """Return the logger *name*; its methods take an event in words and fields by name."""
    return structlog.get_logger(name)


def make_safe(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Mask secrets, escape what could forge or repaint, and cut what is too long."""
    for name, value in event.items():
        if name == "exception":
            text = _mask(str(value))[:_LONGEST_TRACEBACK]
            event[name] = "\n".join(escape(line) for line in text.split("\n"))
        elif value is None or isinstance(value, bool | int | float):
            continue
        elif _SECRET_NAMES.search(name):
            event[name] = _MASK
        else:
            event[name] = escape(_shorten(_mask(value if isinstance(value, str) else str(value))))
    return event


def escape(text: str) -> str:
    r"""Return *text* with everything that does not print as itself written as `\x0a`, `\u202e`."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )


def _mask(text: str) -> str:
    for pattern in _SECRET_TEXT:
        text = pattern.sub(rf"\1{_MASK}", text)
    return text


def _shorten(text: str) -> str:
    if len(text) <= _LONGEST_VALUE:
        return text
    return f"{text[:_LONGEST_VALUE]}... ({len(text)} characters)"


def _json_renderer() -> Any:
    return structlog.processors.JSONRenderer(sort_keys=False)


def _console_renderer() -> Any:
    return structlog.dev.ConsoleRenderer(
        colors=False, exception_formatter=structlog.dev.plain_traceback
    )
