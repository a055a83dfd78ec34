"""What a deleted service leaves behind."""

from __future__ import annotations

import pytest
from tests.support.provisioning import World

from muster.errors import Problem
from muster.ids import RegistrationId
from muster.provisioning import removal
from muster.provisioning.removal import ServiceRemains


@pytest.fixture
def remains(world: World) -> ServiceRemains:
    """What clears away after services."""
    return ServiceRemains(world.enrollments._store, world.registrations, world.hubs)


async def test_everything_of_a_deleted_service_goes(
    world: World, remains: ServiceRemains, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Enrolments and registrations go, however many steps that takes; devices stay."""
    monkeypatch.setattr(removal, "_STEP", 2)
    names = [f"dev-{number}" for number in range(5)]
    for name in names:
        await world.registrar.register(await world.judge(name))
    await world.registrar.settle()
    world.hubs.services.clear()
    await remains.clear("service-1")
    for name in names:
        found = await world.registrations.get_registration("service-1", RegistrationId(name))
        assert found is None
    with pytest.raises(Problem):
        await world.enrollments.get_group("service-1", "factory")
    assert len(world.hubs.devices) == 5


async def test_a_service_that_is_there_keeps_everything(
    world: World, remains: ServiceRemains
) -> None:
    """What is stored decides, not who calls."""
    await remains.clear("service-1")
    assert (await world.enrollments.get_group("service-1", "factory")).group_id == "factory"
