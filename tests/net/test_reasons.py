from __future__ import annotations

from structlog.testing import capture_logs

from muster.net.reasons import CloseReason, Closings, log_bug


def test_every_end_is_counted_and_few_are_logged():
    """Counting is complete; logging is bounded, and ordinary ends are for debugging only."""
    closings = Closings(monotonic=lambda: 100.0)
    with capture_logs() as logs:
        for _ in range(100):
            closings.note(CloseReason.HANDSHAKE_FAILED, "bad", address="a")
            closings.note(CloseReason.PEER_CLOSED, "", address="a")
    assert closings.counts == {CloseReason.HANDSHAKE_FAILED: 100, CloseReason.PEER_CLOSED: 100}
    assert sum(line["log_level"] == "info" for line in logs) == 10
    assert logs[0] == {
        "event": "connection closed", "log_level": "info", "reason": "handshake failed",
        "detail": "bad", "address": "a",
    }  # fmt: skip


def test_tracebacks_are_limited_too():
    """A bug that a peer can cause at will must not fill the disk."""

    def fail() -> None:
        raise RuntimeError("again")

    with capture_logs() as logs:
        for _ in range(200):
            try:
                fail()
            except RuntimeError:
                log_bug("the same bug", address="a")
    assert 1 <= len(logs) <= 30
    assert logs[0]["exc_info"] is True


def test_every_reason_has_words_of_its_own():
    """Reasons are told apart in logs and metrics."""
    assert len({reason.value for reason in CloseReason}) == len(CloseReason)
