"""Every wire has words for every kind of failure."""

from __future__ import annotations

from typing import Any

import pytest

from muster.endpoints import codes
from muster.errors import Kind

TABLES = {
    "CONNACK_CODE": codes.CONNACK_CODE,
    "HTTP_STATUS": codes.HTTP_STATUS,
    "PROVISIONING_CODE": codes.PROVISIONING_CODE,
    "HUB_CODE": codes.HUB_CODE,
    "RESOURCE_MANAGER_CODE": codes.RESOURCE_MANAGER_CODE,
    "OAUTH_ERROR": codes.OAUTH_ERROR,
}


@pytest.mark.parametrize("name", TABLES)
def test_every_kind_can_be_said(name: str) -> None:
    """Adding a Kind fails here until each wire has words for it."""
    table: dict[Kind, Any] = TABLES[name]
    assert set(table) == set(Kind)


def test_provisioning_codes_carry_their_http_status() -> None:
    """Embedded C and .NET divide the error code by 1000 to learn the status."""
    for kind, code in codes.PROVISIONING_CODE.items():
        assert code // 1000 == codes.HTTP_STATUS[kind]


def test_hub_codes_carry_an_http_status() -> None:
    """The first three digits of a hub error are what its REST answers with."""
    for kind, (code, _name) in codes.HUB_CODE.items():
        expected = 401 if kind is Kind.FORBIDDEN else codes.HTTP_STATUS[kind]
        assert code // 1000 == expected
