"""What a deleted service leaves behind."""

from __future__ import annotations

import pytest
from tests.support.provisioning import World

from muster.errors import Problem
from muster.ids import RegistrationId
from muster.model.notice import Notice
from muster.ports.notices import NoticeHandler
from muster.provisioning import removal
from muster.provisioning.removal import ServiceRemoval


class Bus:
    """Remembers who subscribed."""

    def __init__(self) -> None:
        self.handlers: dict[str, NoticeHandler] = {}

    def subscribe(self, topic: str, handler: NoticeHandler) -> None:
        """As the port says."""
        self.handlers[topic] = handler

    async def publish(self, notice: Notice) -> None:
        """As the port says."""
        await self.handlers[notice.topic](notice)


@pytest.fixture
def bus(world: World) -> Bus:
    """A bus that the removal listens to."""
    made = Bus()
    ServiceRemoval(world.enrollments._store, world.registrations, world.hubs, made)
    return made


async def test_everything_of_a_deleted_service_goes(
    world: World, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Enrolments and registrations go, however many steps that takes; devices stay."""
    monkeypatch.setattr(removal, "_STEP", 2)
    names = [f"dev-{number}" for number in range(5)]
    for name in names:
        await world.registrar.register(await world.judge(name))
    await world.registrar.settle()
    world.hubs.services.clear()
    await bus.publish(Notice("service.deleted", "service-1"))
    for name in names:
        found = await world.registrations.get_registration("service-1", RegistrationId(name))
        assert found is None
    with pytest.raises(Problem):
        await world.enrollments.get_group("service-1", "factory")
    assert len(world.hubs.devices) == 5


async def test_a_notice_alone_deletes_nothing(world: World, bus: Bus) -> None:
    """A service that is still there keeps what it has, whatever a notice says."""
    await bus.publish(Notice("service.deleted", "service-1"))
    assert (await world.enrollments.get_group("service-1", "factory")).group_id == "factory"
