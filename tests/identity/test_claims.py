"""Times in tokens: three spellings of a number, one leeway, no clock."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from muster.errors import Kind, Problem
from muster.identity.claims import check_times, numeric_date

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
SECONDS = NOW.timestamp()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (1_700_000_000, 1_700_000_000.0),
        (1_700_000_000.5, 1_700_000_000.5),
        ("1700000000", 1_700_000_000.0),
        (True, None),
        (None, None),
        ("", None),
        ("1_0", None),
        (" 1", None),
        ("1e9", None),
        ("\u0661", None),
        ("9" * 400, None),
        (10**400, None),
        (-1, None),
        (float("nan"), None),
        (float("inf"), None),
        ([1], None),
        ({}, None),
    ],
)
def test_a_numeric_date_is_a_number_of_seconds(value: Any, seconds: float | None) -> None:
    """Integers, fractions and .NET's digits in a string are taken; nothing else is."""
    assert numeric_date(value) == seconds


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": SECONDS + 600},
        {"exp": SECONDS - 59},
        {"exp": str(int(SECONDS) + 600), "nbf": str(int(SECONDS))},
        {"exp": SECONDS + 600, "nbf": SECONDS + 59},
        {"exp": SECONDS + 600, "iat": SECONDS + 10_000},
    ],
)
def test_times_within_the_leeway_count(claims: dict[str, Any]) -> None:
    """Two clocks may differ by a minute; `iat` says nothing about validity."""
    assert check_times(claims, NOW) == float(claims["exp"])


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"exp": None},
        {"exp": SECONDS - 60},
        {"exp": SECONDS + 600, "nbf": SECONDS + 61},
        {"exp": SECONDS + 600, "nbf": None},
        {"exp": SECONDS + 600, "nbf": "soon"},
        {"exp": SECONDS + 3661},
    ],
)
def test_other_times_are_refused(claims: dict[str, Any]) -> None:
    """Expired, not yet valid, too long or unreadable: all are refused."""
    with pytest.raises(Problem) as caught:
        check_times(claims, NOW, longest=3600)
    assert caught.value.kind is Kind.UNAUTHENTICATED
