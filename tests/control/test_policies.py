"""Shared access policies: rights in words, keys that survive updates."""

from __future__ import annotations

import base64

import pytest

from muster.control.policies import (
    DEFAULT_HUB_POLICIES,
    DEFAULT_SERVICE_POLICIES,
    HUB_RIGHTS,
    MAX_POLICIES,
    SERVICE_RIGHTS,
    PolicySpecification,
    default_policies,
    format_rights,
    merge_policies,
    new_key,
    parse_rights,
)
from muster.errors import Kind, Problem
from muster.model.resource import Right


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("RegistryRead", "RegistryRead"),
        ("registrywrite", "RegistryRead, RegistryWrite"),
        ("DeviceConnect,ServiceConnect", "ServiceConnect, DeviceConnect"),
        (
            "RegistryWrite, ServiceConnect, DeviceConnect",
            "RegistryRead, RegistryWrite, ServiceConnect, DeviceConnect",
        ),
    ],
)
def test_rights_are_read_and_written(text: str, canonical: str) -> None:
    """Any order and case in, one order out; writing includes reading."""
    rights = parse_rights(text, allowed=HUB_RIGHTS)
    assert format_rights(rights) == canonical
    assert parse_rights(canonical, allowed=HUB_RIGHTS) == rights


@pytest.mark.parametrize("text", ["", ",", "Owner", "EnrollmentRead", "RegistryRead;DeviceConnect"])
def test_other_rights_are_refused(text: str) -> None:
    """Another resource's rights are none of a hub's."""
    with pytest.raises(Problem) as caught:
        parse_rights(text, allowed=HUB_RIGHTS)
    assert caught.value.kind is Kind.MALFORMED


def test_the_default_owner_may_everything() -> None:
    """And every key is its own."""
    hub = {policy.key_name: policy for policy in default_policies(DEFAULT_HUB_POLICIES)}
    assert hub["iothubowner"].rights == set(HUB_RIGHTS)
    assert hub["device"].rights == {Right.DEVICE_CONNECT}
    keys = {key for policy in hub.values() for key in (policy.primary_key, policy.secondary_key)}
    assert len(keys) == 10
    (owner,) = default_policies(DEFAULT_SERVICE_POLICIES)
    assert owner.rights == set(SERVICE_RIGHTS)
    assert len(base64.b64decode(owner.primary_key)) == 32
    assert owner.primary_key not in repr(owner)


def test_an_update_keeps_the_keys_that_it_does_not_bring() -> None:
    """One key can be rolled while the other stays in use."""
    stored = default_policies({"a": (Right.DEVICE_CONNECT,), "b": (Right.DEVICE_CONNECT,)})
    fresh = new_key()
    (after,) = merge_policies(
        [PolicySpecification("a", "ServiceConnect", primary_key=fresh)], stored, allowed=HUB_RIGHTS
    )
    assert after.primary_key == fresh
    assert after.secondary_key == stored[0].secondary_key
    assert after.rights == {Right.SERVICE_CONNECT}
    assert merge_policies([], stored, allowed=HUB_RIGHTS) == ()


@pytest.mark.parametrize(
    ("wanted", "kind"),
    [
        ([PolicySpecification("a b", "DeviceConnect")], Kind.MALFORMED),
        ([PolicySpecification("a", "DeviceConnect", primary_key="short")], Kind.MALFORMED),
        ([PolicySpecification("a", "DeviceConnect", primary_key="A" * 20)], Kind.MALFORMED),
        ([PolicySpecification("a", "DeviceConnect", secondary_key="A" * 88)], Kind.MALFORMED),
        ([PolicySpecification("a", "DeviceConnect", primary_key="ü" * 24)], Kind.MALFORMED),
        (
            [PolicySpecification("a", "DeviceConnect", primary_key="AAAAAAAAAAAAAAAAAAAAAB==")],
            Kind.MALFORMED,
        ),
        ([PolicySpecification("a", "DeviceConnect")] * 2, Kind.CONFLICT),
        (
            [PolicySpecification(f"a{n}", "DeviceConnect") for n in range(MAX_POLICIES + 1)],
            Kind.CONFLICT,
        ),
    ],
)
def test_bad_policies_are_refused(wanted: list[PolicySpecification], kind: Kind) -> None:
    """Names, rights, keys, doubles and numbers; and no refusal holds a key."""
    with pytest.raises(Problem) as caught:
        merge_policies(wanted, (), allowed=HUB_RIGHTS)
    assert caught.value.kind is kind
    assert wanted[0].primary_key is None or wanted[0].primary_key not in caught.value.detail
