"""Limits on how often one peer may ask: token buckets. Pure; time is an argument."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable


class Bucket:
    """Lets *capacity* requests through at once, and *rate* a second in the long run."""

    __slots__ = ("_capacity", "_level", "_rate", "_seen")

    def __init__(self, capacity: float, rate: float) -> None:
        if capacity < 1 or rate <= 0:
            raise ValueError("a bucket lets at least one request through, now and then")
        self._capacity = capacity
        self._rate = rate
        self._level = capacity
        self._seen: float | None = None

    def take(self, now: float) -> float:
        """Let a request through and return 0, or return how many seconds it should wait.

        *now* is in monotonic seconds; one that went back counts as no time passed.
        """
        if self._seen is not None:
            passed = max(now - self._seen, 0.0)
            self._level = min(self._capacity, self._level + passed * self._rate)
        self._seen = now
        if self._level >= 1:
            self._level -= 1
            return 0.0
        return (1 - self._level) / self._rate


class Throttle:
    """A bucket for each key, for the *most* keys that were seen last.

    A key that was pushed out begins afresh: forgetting errs towards letting through, and whoever
    could push others out by asking under many names had to authenticate under each.
    """

    def __init__(self, capacity: float, rate: float, *, most: int) -> None:
        self._capacity = capacity
        self._rate = rate
        self._most = most
        self._buckets: OrderedDict[Hashable, Bucket] = OrderedDict()

    def take(self, key: Hashable, now: float) -> float:
        """As `Bucket.take`, for *key*."""
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = Bucket(self._capacity, self._rate)
            if len(self._buckets) > self._most:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
        return bucket.take(now)
