"""A log that nobody outside can fill: so many lines a second for each key, the rest counted.

Pure: it takes the clock and what writes a line, so that every layer can have one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

# Enough to see who it is, too few to fill a disk (200 bytes a line, 18 keys: 3 GB a day at the very
# worst).
LINES_PER_SECOND = 10


class QuietLog:
    """Lets a bounded number of lines a second through for each key, and counts the rest."""

    def __init__(
        self, *, monotonic: Callable[[], float], lines_per_second: int = LINES_PER_SECOND
    ) -> None:
        self._limit = lines_per_second
        self._monotonic = monotonic
        self._second = 0
        self._written: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()

    def allows(self, key: str) -> int | None:
        """Return None to stay silent, or how many lines of *key* were left out before this one.

        The caller bounds the number of distinct keys: use the words of an enum, never a
        value that a peer sent.
        """
        second = int(self._monotonic())
        if second != self._second:
            self._second = second
            self._written.clear()
        if self._written[key] >= self._limit:
            self._left_out[key] += 1
            return None
        self._written[key] += 1
        return self._left_out.pop(key, 0)

    def write(self, write: Callable[..., object], key: str, event: str, /, **fields: Any) -> None:
        """Call *write*, a method of a logger, with *event* and *fields* if *key* is allowed.

        A line that follows some that were left out says how many, in `left_out`.
        """
        left_out = self.allows(key)
        if left_out is None:
            return
        if left_out:
            fields["left_out"] = left_out
        write(event, **fields)
