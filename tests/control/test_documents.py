"""The document a client wrote: bounded, and complete in what a resource needs."""

from __future__ import annotations

from typing import Any

import pytest

from muster.control.documents import HUB_TIERS, MAX_TAGS, check_tags, merge_document
from muster.errors import Kind, Problem

GOOD: dict[str, Any] = {"location": "West US", "sku": {"name": "S1"}}


def merge(wanted: dict[str, Any], stored: dict[str, Any] | None = None) -> dict[str, Any]:
    """Merge as a hub's."""
    return merge_document(wanted, stored, tiers=HUB_TIERS)


def test_a_document_is_completed() -> None:
    """Tier, capacity, tags and properties are there afterwards; what is unknown stays."""
    assert merge({**GOOD, "identity": {"type": "None"}, "properties": None}) == {
        "location": "West US",
        "sku": {"name": "S1", "tier": "Standard", "capacity": 1},
        "tags": {},
        "properties": {},
        "identity": {"type": "None"},
    }


def test_an_update_keeps_location_and_sku() -> None:
    """Tags and properties are replaced, as PUT does."""
    stored = merge({**GOOD, "tags": {"a": "b"}, "properties": {"comments": "x"}})
    after = merge({"location": "westus"}, stored)
    assert after["location"] == "West US"
    assert after["sku"] == stored["sku"]
    assert (after["tags"], after["properties"]) == ({}, {})
    assert merge({"sku": {"name": "B1", "capacity": 2}}, stored)["sku"]["tier"] == "Basic"


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"location": "l"},
        {"sku": {"name": "S1"}},
        {**GOOD, "location": 7},
        {**GOOD, "location": "x" * 65},
        {**GOOD, "sku": "S1"},
        {**GOOD, "sku": {"name": "S9"}},
        {**GOOD, "sku": {"name": "S1", "capacity": 0}},
        {**GOOD, "sku": {"name": "S1", "capacity": 201}},
        {**GOOD, "sku": {"name": "S1", "capacity": True}},
        {**GOOD, "sku": {"name": "S1", "capacity": "1"}},
        {**GOOD, "tags": []},
        {**GOOD, "tags": {"a": 1}},
    ],
)
def test_what_a_resource_needs_is_demanded(wanted: dict[str, Any]) -> None:
    """A location and a SKU that exists."""
    with pytest.raises(Problem) as caught:
        merge(wanted)
    assert caught.value.kind is Kind.MALFORMED


def test_a_resource_does_not_move() -> None:
    """The public service refuses it too."""
    with pytest.raises(Problem) as caught:
        merge({"location": "East US"}, merge(GOOD))
    assert caught.value.kind is Kind.CONFLICT


@pytest.mark.parametrize(
    "tags",
    [
        {f"t{number}": "" for number in range(MAX_TAGS + 1)},
        {"": "x"},
        {"a/b": "x"},
        {"a\x00": "x"},
        {"x" * 513: "x"},
        {"a": "x" * 257},
        {"a": None},
        "text",
    ],
)
def test_tags_are_bounded(tags: Any) -> None:
    """The resource manager's own limits."""
    with pytest.raises(Problem) as caught:
        check_tags(tags)
    assert caught.value.kind is Kind.MALFORMED
