"""Every failure that can be explained to a peer.

One family: a coarse `Kind` that every wire can say, and a detail fit to be shown.
Each wire has one complete table from `Kind` to its own words (`endpoints/codes.py`).
Any exception that is not a `Problem` is a bug: it is logged with its traceback and the
peer is told "internal" and nothing more.
"""

from __future__ import annotations

from enum import Enum


class Kind(Enum):
    """What went wrong, as coarsely as the poorest wire can say it."""

    MALFORMED = "malformed"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not found"
    CONFLICT = "conflict"
    PRECONDITION_FAILED = "precondition failed"
    TOO_LARGE = "too large"
    UNSUPPORTED = "unsupported"
    THROTTLED = "throttled"
    UNAVAILABLE = "unavailable"


class Problem(Exception):  # noqa: N818 - the field's word; it is a value as often as it is raised
    """A failure whose `detail` may be shown to the peer.

    `detail` names the offending thing and the rule it broke, never a secret and never an
    internal path. `retry_after` is in seconds.
    """

    def __init__(self, kind: Kind, detail: str, *, retry_after: float | None = None) -> None:
        super().__init__(f"{kind.value}: {detail}")
        self.kind = kind
        self.detail = detail
        self.retry_after = retry_after
