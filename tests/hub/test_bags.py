"""Bags are checked quickly, and exactly as the grammar says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.errors import Kind, Problem
from muster.hub.bags import BagChecker
from muster.protocols.property_bag import MAX_PROPERTIES_SIZE, parse_property_bag

PIECES = st.sampled_from(
    [
        "a",
        "b",
        "%24.mid",
        "$.mid",
        "%61",
        "=",
        "&",
        "%",
        "%2",
        "%ff",
        "%00",
        "\0",
        "é",
        "%C3%A9",
        "1",
    ]
)
BAGS = st.lists(PIECES, max_size=12).map("".join)


def verdict(bag: str, checker: BagChecker | None = None) -> Kind | None:
    """Return how *bag* is judged, by the grammar without a *checker*."""
    try:
        (parse_property_bag if checker is None else checker.check)(bag)
    except Problem as problem:
        return problem.kind
    return None


@given(st.lists(BAGS, max_size=6))
def test_whatever_came_before_the_verdict_is_the_grammar_s(bags: list[str]) -> None:
    """What is remembered of earlier bags, good or bad, never changes what is accepted."""
    checker = BagChecker()
    for bag in bags:
        assert verdict(bag, checker) == verdict(bag), bag


@pytest.mark.parametrize(
    "bag",
    [
        "k=" + "v" * (MAX_PROPERTIES_SIZE - 1),
        "k=" + "v" * MAX_PROPERTIES_SIZE,
        "k=" + "%41" * (MAX_PROPERTIES_SIZE - 1),
        "&" * (6 * MAX_PROPERTIES_SIZE),
        "&".join(f"k{n:03}=" + "v" * 60 for n in range(128)),
        "&".join(f"k{n:03}=" + "v" * 60 for n in range(129)),
    ],
)
def test_limits_are_the_grammar_s(bag: str) -> None:
    """The size limit counts the same bytes."""
    checker = BagChecker()
    assert verdict(bag, checker) == verdict(bag)
    assert verdict(bag, checker) == verdict(bag)


def test_what_is_remembered_is_bounded() -> None:
    """A device that spells keys anew each time does not fill our memory."""
    checker = BagChecker()
    for number in range(1000):
        checker.check(f"key{number}=1")
    assert len(checker._keys) <= 64
    assert len(checker._parts) == 1
