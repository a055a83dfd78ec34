"""The part of a resource that is kept as the client wrote it: location, tags, SKU, properties.

What the program acts on stands in the record's own fields; the document keeps the rest and gives it
back, so that a client finds what it put. It is bounded, and holds nothing secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from muster.errors import Kind, Problem

# Azure Resource Manager's limits on tags.
MAX_TAGS = 50
_MAX_TAG_NAME = 512
_MAX_TAG_VALUE = 256
_TAG_NAME_REFUSED = re.compile(r"[<>%&\\?/\x00-\x1f\x7f]")
_MAX_LOCATION = 64
_MAX_CAPACITY = 200

HUB_TIERS = {
    "F1": "Free",
    "B1": "Basic",
    "B2": "Basic",
    "B3": "Basic",
    "S1": "Standard",
    "S2": "Standard",
    "S3": "Standard",
}
SERVICE_TIERS = {"S1": "Standard"}


def merge_document(
    wanted: Mapping[str, Any], stored: Mapping[str, Any] | None, *, tiers: Mapping[str, str]
) -> dict[str, Any]:
    """Return the document that a PUT of *wanted* over *stored* (None: a new resource) makes.

    Location and SKU are needed the first time and kept when left out later; a resource does
    not move. Raises `Problem(MALFORMED)`, `Problem(CONFLICT)`.
    """
    before = stored or {}
    location = wanted.get("location") or before.get("location")
    if not isinstance(location, str) or not 0 < len(location) <= _MAX_LOCATION:
        raise Problem(Kind.MALFORMED, "the resource needs a location")
    if "location" in before and _plain(location) != _plain(before["location"]):
        raise Problem(Kind.CONFLICT, f"the resource is in {before['location']} and cannot be moved")
    sku = wanted.get("sku") or before.get("sku")
    if not isinstance(sku, Mapping) or sku.get("name") not in tiers:
        raise Problem(Kind.MALFORMED, f"the resource needs a sku: one of {', '.join(tiers)}")
    capacity = sku.get("capacity", 1)
    if isinstance(capacity, bool) or not isinstance(capacity, int):
        raise Problem(Kind.MALFORMED, "the sku's capacity is a number")
    if not 1 <= capacity <= _MAX_CAPACITY:
        raise Problem(Kind.MALFORMED, f"the sku's capacity is between 1 and {_MAX_CAPACITY}")
    document = dict(wanted)
    document["location"] = before.get("location", location)
    document["sku"] = {"name": sku["name"], "tier": tiers[sku["name"]], "capacity": capacity}
    document["tags"] = check_tags(wanted.get("tags"))
    document["properties"] = dict(wanted.get("properties") or {})
    return document


def check_tags(tags: Any) -> dict[str, str]:
    """Return *tags* (None: none) if they are within the limits; raises `Problem(MALFORMED)`."""
    if tags is None:
        return {}
    if not isinstance(tags, Mapping) or len(tags) > MAX_TAGS:
        raise Problem(Kind.MALFORMED, f"tags are an object of at most {MAX_TAGS} texts")
    for name, value in tags.items():
        if not 0 < len(name) <= _MAX_TAG_NAME or _TAG_NAME_REFUSED.search(name):
            raise Problem(
                Kind.MALFORMED,
                f"a tag's name has 1 to {_MAX_TAG_NAME} characters and none of < > % & \\ ? /",
            )
        if not isinstance(value, str) or len(value) > _MAX_TAG_VALUE:
            raise Problem(
                Kind.MALFORMED, f"a tag's value is a text of at most {_MAX_TAG_VALUE} characters"
            )
    return dict(tags)


def _plain(location: str) -> str:
    # "West US" and "westus" are one place.
    return location.replace(" ", "").lower()
