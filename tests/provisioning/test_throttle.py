"""Token buckets."""

from __future__ import annotations

import pytest

from muster.provisioning.throttle import Bucket, Throttle


def test_burst_then_rate() -> None:
    """A full bucket lets its capacity through, then as much as flows in."""
    bucket = Bucket(3, 0.5)
    assert [bucket.take(0) for _ in range(3)] == [0, 0, 0]
    assert bucket.take(0) == pytest.approx(2)
    assert bucket.take(1) == pytest.approx(1)
    assert bucket.take(2) == 0


def test_never_fuller_than_full() -> None:
    """A long rest earns no more than the capacity."""
    bucket = Bucket(2, 10)
    bucket.take(0)
    assert [bucket.take(1e9) == 0 for _ in range(3)] == [True, True, False]


def test_clock_that_goes_back_earns_nothing() -> None:
    """Time that went back is no time passed."""
    bucket = Bucket(1, 1)
    assert bucket.take(100) == 0
    assert bucket.take(0) > 0


def test_nonsense_is_refused() -> None:
    """A bucket that lets nothing through is a mistake."""
    for capacity, rate in ((0.5, 1), (1, 0)):
        with pytest.raises(ValueError):
            Bucket(capacity, rate)


def test_keys_do_not_share() -> None:
    """One key's flood leaves the others alone."""
    throttle = Throttle(1, 0.1, most=10)
    assert throttle.take("a", 0) == 0
    assert throttle.take("a", 0) > 0
    assert throttle.take("b", 0) == 0


def test_keys_are_bounded() -> None:
    """The key that was seen longest ago is forgotten first."""
    throttle = Throttle(1, 0.1, most=2)
    for key in "abac":
        throttle.take(key, 0)
    assert throttle.take("a", 0) > 0  # kept: b was pushed out by c
    assert throttle.take("b", 0) == 0
