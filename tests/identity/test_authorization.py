"""Owner may do everything, Reader may read the control plane, nobody else anything."""

from __future__ import annotations

import pytest

from muster.errors import Kind, Problem
from muster.identity.authorization import authorize
from muster.model.principal import Principal, PrincipalKind, Role

SCOPE = "/subscriptions/s/resourceGroups/g"
HUBS = "Microsoft.Devices/IotHubs"


def caller(*roles: Role) -> Principal:
    """Return a caller with these roles."""
    return Principal("t", "o", PrincipalKind.APPLICATION, "Owner", roles=frozenset(roles))


@pytest.mark.parametrize(
    "action", [f"{HUBS}/write", f"{HUBS}/listkeys/action", f"{HUBS}/devices/write", f"{HUBS}/read"]
)
def test_an_owner_may(action: str) -> None:
    """Owner is `*`."""
    authorize(caller(Role.OWNER), action, SCOPE)
    authorize(caller(Role.OWNER, Role.READER), action, SCOPE)


@pytest.mark.parametrize(
    "action",
    [f"{HUBS}/read", f"{HUBS}/certificates/Read", "Microsoft.Devices/provisioningServices/READ"],
)
def test_a_reader_may_read(action: str) -> None:
    """Actions are compared without case."""
    authorize(caller(Role.READER), action, SCOPE)


@pytest.mark.parametrize(
    "action",
    [
        f"{HUBS}/write",
        f"{HUBS}/delete",
        f"{HUBS}/listkeys/action",
        f"{HUBS}/iotHubKeys/listkeys/action",
        f"{HUBS}/devices/read",
        f"{HUBS}/twins/read",
        "Microsoft.Devices/provisioningServices/enrollments/read",
        "read/x",
        "",
    ],
)
def test_a_reader_may_not(action: str) -> None:
    """No changes, no keys, no devices."""
    with pytest.raises(Problem) as caught:
        authorize(caller(Role.READER), action, SCOPE)
    assert caught.value.kind is Kind.FORBIDDEN


def test_nobody_else_may() -> None:
    """A name that sounds like a role is none, and the refusal names action and scope."""
    with pytest.raises(Problem) as caught:
        authorize(caller(), f"{HUBS}/read", SCOPE)
    assert caught.value.kind is Kind.FORBIDDEN
    assert f"{HUBS}/read" in caught.value.detail
    assert SCOPE in caught.value.detail
