"""What those are told who change one thing at the same time."""

from __future__ import annotations

from muster.errors import Kind
from muster.model.contention import contended


def test_losing_every_race_is_temporary() -> None:
    """Clients repeat the change by themselves, after a moment."""
    problem = contended("the hub 'plant'")
    assert (problem.kind, problem.retry_after) == (Kind.UNAVAILABLE, 1)
    assert "the hub 'plant'" in problem.detail
