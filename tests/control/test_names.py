"""Names are what the management SDKs let through, and nothing that breaks a path or a host."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from muster.control import names
from muster.errors import Kind, Problem

NAMES: list[tuple[Callable[[str], None], list[str], list[str]]] = [
    (
        names.check_hub_name,
        ["abc", "a-1", "1a2", "A" * 50, "x" * 3],
        ["", "ab", "-ab", "ab-", "123", "a_b", "a.b", "A" * 51, "abc\n", "a/b", "ábc"],
    ),
    (
        names.check_service_name,
        ["abc", "123", "A" * 63],
        ["", "ab", "-abc", "abc-", "a_bc", "A" * 64, "abc\n"],
    ),
    (
        names.check_certificate_name,
        ["a", "A-b._9", "x" * 64],
        ["", "a b", "x" * 65, "a/b", "a\n", "é"],
    ),
    (
        names.check_consumer_group_name,
        ["a", "lab.1-x_y", "x" * 50],
        ["", "$Default", ".a", "x" * 51, "a b"],
    ),
    (names.check_key_name, ["iothubowner", "a.b-c_d"], ["", "a;b", "a=b", "x" * 65]),
]


@pytest.mark.parametrize(("check", "good", "bad"), NAMES)
def test_names(check: Callable[[str], None], good: list[str], bad: list[str]) -> None:
    """Good ones pass; each bad one is refused with the rule it broke."""
    for name in good:
        check(name)
    for name in bad:
        with pytest.raises(Problem) as caught:
            check(name)
        assert caught.value.kind is Kind.MALFORMED, name
