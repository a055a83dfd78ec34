"""Every wire has words for every kind of failure, and for a bug."""

from __future__ import annotations

from typing import Any

import pytest

from muster.endpoints import codes
from muster.errors import Kind

TABLES: dict[str, dict[Kind, Any]] = {
    name: value for name, value in vars(codes).items() if isinstance(value, dict) and name[0] != "_"
}


@pytest.mark.parametrize("name", TABLES)
def test_every_kind_can_be_said(name: str) -> None:
    """Adding a Kind fails here until each wire has words for it."""
    assert set(TABLES[name]) == set(Kind)


@pytest.mark.parametrize("name", TABLES)
def test_a_bug_can_be_said(name: str) -> None:
    """In words of the same form as the table's, which no kind has."""
    table, internal = TABLES[name], getattr(codes, f"INTERNAL_{name}")
    assert type(internal) in {type(words) for words in table.values()}
    if name != "CONNACK_CODE":  # MQTT has one code for what may be better at the next try
        assert internal not in table.values()


def test_nothing_is_internal_without_a_table() -> None:
    """A row that belongs to no table is a leftover."""
    rows = {name for name in vars(codes) if name.startswith("INTERNAL_")}
    assert rows == {f"INTERNAL_{name}" for name in TABLES}


def test_provisioning_codes_carry_their_http_status() -> None:
    """Embedded C and .NET divide the error code by 1000 to learn the status."""
    for kind, code in codes.PROVISIONING_CODE.items():
        assert code // 1000 == codes.HTTP_STATUS[kind]
    assert codes.INTERNAL_PROVISIONING_CODE // 1000 == codes.INTERNAL_HTTP_STATUS


def test_hub_codes_carry_an_http_status() -> None:
    """The first three digits of a hub error are what its REST answers with."""
    for kind, (code, _name) in codes.HUB_CODE.items():
        expected = 401 if kind is Kind.FORBIDDEN else codes.HTTP_STATUS[kind]
        assert code // 1000 == expected
    assert codes.INTERNAL_HUB_CODE[0] // 1000 == codes.INTERNAL_HTTP_STATUS
