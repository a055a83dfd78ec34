"""Registrations as an operator sees them."""

from __future__ import annotations

import pytest
from tests.support.provisioning import World

from muster.errors import Kind, Problem
from muster.ids import ETag, RegistrationId
from muster.model.registration import Substatus
from muster.store.registrations import SqlRegistrationStore

NAME = RegistrationId("dev-1")


async def provision(world: World) -> None:
    """Register a device."""
    await world.registrar.register(await world.judge("dev-1"))
    await world.registrar.settle()


async def test_what_is_not_there_is_not_found(world: World) -> None:
    """Reading and deleting say so alike."""
    with pytest.raises(Problem) as caught:
        await world.records.get("service-1", NAME)
    assert caught.value.kind is Kind.NOT_FOUND
    with pytest.raises(Problem) as caught:
        await world.records.delete("service-1", NAME, None, actor="test")
    assert caught.value.kind is Kind.NOT_FOUND


async def test_delete_names_a_version_or_none(world: World) -> None:
    """A wrong version changes nothing; none and `*` take any."""
    await provision(world)
    with pytest.raises(Problem) as caught:
        await world.records.delete("service-1", NAME, ETag("other"), actor="test")
    assert caught.value.kind is Kind.PRECONDITION_FAILED
    await world.records.delete("service-1", NAME, ETag("*"), actor="test")
    await provision(world)
    stored = await world.records.get("service-1", NAME)
    await world.records.delete("service-1", NAME, stored.etag, actor="policy:owner")
    assert ("policy:owner", "registration.delete", "ok") in await world.audit_trail()


async def test_a_forgotten_device_begins_anew(world: World) -> None:
    """Its device at the hub stays, and the registration counts as the first one."""
    await provision(world)
    await world.records.delete("service-1", NAME, None, actor="test")
    assert list(world.hubs.devices) == [("hub-1.example", "dev-1")]
    await provision(world)
    stored = await world.records.get("service-1", NAME)
    assert stored.substatus is Substatus.INITIAL_ASSIGNMENT


async def test_a_registration_that_others_keep_changing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever loses every race is told to try again."""
    await provision(world)

    async def lose(*_: object) -> bool:
        return False

    monkeypatch.setattr(SqlRegistrationStore, "delete_registration", lose)
    with pytest.raises(Problem) as caught:
        await world.records.delete("service-1", NAME, None, actor="test")
    assert (caught.value.kind, caught.value.retry_after) == (Kind.UNAVAILABLE, 1)
