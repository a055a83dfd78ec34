from __future__ import annotations

from muster.model.quiet import QuietLog


def test_lines_are_limited_by_key_and_second() -> None:
    """So many a second for each key; the next line says how many were left out."""
    now = [100.0]
    quiet = QuietLog(lines_per_second=2, monotonic=lambda: now[0])
    assert [quiet.allows("a") for _ in range(5)] == [0, 0, None, None, None]
    assert quiet.allows("b") == 0
    now[0] += 1
    assert [quiet.allows("a") for _ in range(2)] == [3, 0]


def test_what_was_left_out_is_said() -> None:
    """The line that follows a silence carries the number."""
    now, written = [100.0], []
    quiet = QuietLog(lines_per_second=1, monotonic=lambda: now[0])
    for moment in (100.0, 100.5, 100.9, 101.0, 102.0):
        now[0] = moment
        quiet.write(lambda event, **fields: written.append((event, fields)), "a", "seen", at=moment)
    assert written == [
        ("seen", {"at": 100.0}),
        ("seen", {"at": 101.0, "left_out": 2}),
        ("seen", {"at": 102.0}),
    ]
