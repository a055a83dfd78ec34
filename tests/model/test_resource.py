"""What a shared access policy says of its keys."""

from __future__ import annotations

import pytest

from muster.model.resource import AccessPolicy, Right

PRIMARY, SECONDARY = "cHJpbWFyeS1wcmltYXJ5LTE=", "c2Vjb25kYXJ5LXNlY29uZDI="
POLICY = AccessPolicy("owner", PRIMARY, SECONDARY, frozenset(Right))


@pytest.mark.parametrize(
    ("key", "held"),
    [
        (PRIMARY, True),
        (SECONDARY, True),
        ("", False),
        (PRIMARY[:-1], False),
        (PRIMARY.lower(), False),
        (f"{PRIMARY} ", False),
        (PRIMARY + SECONDARY, False),
        ("ключ", False),
    ],
)
def test_a_policy_holds_its_two_keys(key: str, held: bool) -> None:
    """Either will do, to the letter; any other text is just another key."""
    assert POLICY.holds(key) is held


def test_nothing_is_not_a_key() -> None:
    """A policy that lost a key is not opened by the lack of one."""
    assert not AccessPolicy("owner", "", PRIMARY, frozenset()).holds("")
