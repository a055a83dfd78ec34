from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from muster.errors import Kind, Problem
from muster.model.quiet import QuietLog
from muster.observe import refusals
from muster.observe.refusals import log_bug, note_refusal


@pytest.fixture(autouse=True)
def _standing_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """All lines are of one second, and no other test's count."""
    monkeypatch.setattr(refusals, "_QUIET", QuietLog(monotonic=lambda: 1.0, lines_per_second=5))


def test_refusals_do_not_flood() -> None:
    """Bounded for each wire and kind, whatever the peer varies."""
    with capture_logs() as logs:
        for number in range(100):
            note_refusal("a", Problem(Kind.UNAUTHENTICATED, f"no {number}"), tracking_id="t")
        note_refusal("a", Problem(Kind.NOT_FOUND, "gone"))
        note_refusal("b", Problem(Kind.UNAUTHENTICATED, "no"))
    assert len(logs) == 7
    assert logs[0] == {
        "event": "request refused", "log_level": "info", "wire": "a", "kind": "unauthenticated",
        "why": "no 0", "tracking_id": "t",
    }  # fmt: skip


def test_tracebacks_are_limited_too() -> None:
    """A bug that a peer can cause at will must not fill the disk."""
    error = RuntimeError("again")
    with capture_logs() as logs:
        for _ in range(100):
            log_bug("the same bug", error, address="a")
        try:
            raise error
        except RuntimeError:
            log_bug("another bug")
    assert len(logs) == 6
    assert logs[0]["exc_info"] is error
    assert logs[0]["log_level"] == "error"
    assert logs[-1]["exc_info"] is True
