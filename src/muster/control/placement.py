"""Where resources stand, and on what condition they may be changed: alike for every kind."""

from __future__ import annotations

from dataclasses import dataclass

from muster.errors import Kind, Problem
from muster.ids import ETag
from muster.model.resource import ResourceAddress


@dataclass(frozen=True, slots=True)
class Precondition:
    """What must be true of what is stored: its If-Match and If-None-Match."""

    if_match: ETag | None = None
    must_be_new: bool = False

    def check(self, etag: ETag | None) -> None:
        """Raise `Problem(PRECONDITION_FAILED)` unless it holds for version *etag* (None: none)."""
        if self.must_be_new and etag is not None:
            raise Problem(Kind.PRECONDITION_FAILED, "the resource exists")
        if self.if_match is None:
            return
        if etag is None or not (self.if_match.matches_any or self.if_match == etag):
            raise Problem(
                Kind.PRECONDITION_FAILED, "the resource has another entity tag than If-Match says"
            )


def is_at(address: ResourceAddress, other: ResourceAddress) -> bool:
    """Whether both are one place: every part is compared without case."""
    return address.name.lower() == other.name.lower() and is_within(
        address, other.subscription_id, other.resource_group
    )


def is_within(address: ResourceAddress, subscription_id: str, resource_group: str | None) -> bool:
    """Whether *address* lies in that subscription and, if one is given, that group."""
    return address.subscription_id.lower() == subscription_id.lower() and (
        resource_group is None or address.resource_group.lower() == resource_group.lower()
    )


def name_taken(name: str) -> Problem:
    """Return the refusal of a name that a resource elsewhere has."""
    return Problem(Kind.CONFLICT, f"the name {name!r} is taken by a resource of another group")
