"""Devices are admitted, assigned and answered."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.support.pki import TestAuthority
from tests.support.provisioning import ID_SCOPE, World, a_world, linked, peer_of, uploaded

from muster.errors import Kind, Problem
from muster.ids import DeviceId, RegistrationId
from muster.model.device import InitialTwin, ProvisionedDevice
from muster.model.enrollment import CaReferences, ProvisioningStatus, ReprovisionPolicy
from muster.model.peer import Peer
from muster.model.registration import RegistrationStatus, Substatus
from muster.provisioning.enrollments import GroupSettings
from muster.provisioning.registration import (
    FAILURE_CODE,
    Admission,
    OperationStatus,
    RegistrarSettings,
)


async def finish(world: World, admission: Admission, begun: OperationStatus) -> OperationStatus:
    """Wait for the assignment and look it up."""
    await world.registrar.settle()
    return await world.registrar.look_up(admission, begun.operation_id)


async def provision(world: World, name: str = "dev-1", **credential: object) -> OperationStatus:
    """Register a device and wait for its assignment."""
    admission = await world.judge(name, **credential)  # type: ignore[arg-type]  # test helper
    return await finish(world, admission, await world.registrar.register(admission))


async def problem_of(call: object) -> Problem:
    """The problem that *call* raises."""
    with pytest.raises(Problem) as caught:
        await call  # type: ignore[misc]  # an awaitable
    return caught.value


# The plain way


async def test_a_device_is_assigned(world: World) -> None:
    """Register answers "under way", and the look-up afterwards where the device belongs."""
    leaf = world.root.leaf("dev-1")
    admission = await world.judge("dev-1", leaf)
    begun = await world.registrar.register(admission)
    assert begun.is_under_way
    done = await finish(world, admission, begun)
    assert done.operation_id == begun.operation_id
    found = done.registration
    assert (found.status, found.substatus) == (
        RegistrationStatus.ASSIGNED,
        Substatus.INITIAL_ASSIGNMENT,
    )
    assert (found.assigned_hub, found.device_id) == ("hub-1.example", "dev-1")
    assert found.group_id == "factory"
    device = world.hubs.devices["hub-1.example", "dev-1"]
    assert device.chain == peer_of(leaf).chain


async def test_group_settings_reach_the_device(world: World) -> None:
    """Initial twin and capabilities come from the enrolment."""
    twin = InitialTwin({"line": 3}, {"rate": 5})
    await world.put(
        GroupSettings("factory", CaReferences("root"), initial_twin=twin, iot_edge=True)
    )
    await provision(world)
    device = world.hubs.devices["hub-1.example", "dev-1"]
    assert (device.initial_twin, device.iot_edge) == (twin, True)


async def test_everything_is_written_down(world: World) -> None:
    """Each change has its audit line."""
    await provision(world)
    trail = [line for line in await world.audit_trail() if line[1].startswith("registration")]
    assert trail == [
        ("device:dev-1", "registration.register", "ok"),
        ("device:dev-1", "registration.assign", "ok"),
    ]


async def test_operation_ids_look_the_same_encoded_or_not(world: World) -> None:
    """Python encodes the id in the poll, .NET does not; and no two are alike."""
    ids = set()
    for number in range(5):
        admission = await world.judge(f"dev-{number}")
        ids.add((await world.registrar.register(admission)).operation_id)
    assert len(ids) == 5
    for one in ids:
        assert set(one) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-")
        assert len(one) >= 48


# Who gets in


async def test_unknown_scope(world: World) -> None:
    """A scope that no service has is not found."""
    peer = peer_of(world.root.leaf("dev-1"))
    call = world.registrar.judge("0neFFFFFFFF", RegistrationId("dev-1"), peer)
    assert (await problem_of(call)).kind is Kind.NOT_FOUND


@pytest.mark.parametrize(
    ("chain", "told", "reason"),
    [
        ("none", "Unauthorized", "no client certificate"),
        ("garbage", "Invalid certificate.", "not an X.509"),
        ("foreign", "CA certificate not found", "no enrolment has"),
        ("other", "Unauthorized", "dev-2"),
    ],
)
async def test_refusals_tell_the_trail_more_than_the_device(
    world: World, chain: str, told: str, reason: str
) -> None:
    """The device hears the kind of refusal; log and audit trail hear why."""
    peer = {
        "none": Peer("127.0.0.1"),
        "garbage": Peer("127.0.0.1", (b"\x30\x03\x02\x01\x01",)),
        "foreign": peer_of(TestAuthority("Stranger").leaf("dev-1")),
        "other": peer_of(world.root.leaf("dev-2")),
    }[chain]
    problem = await problem_of(world.registrar.judge(ID_SCOPE, RegistrationId("dev-1"), peer))
    assert (problem.kind, problem.detail) == (Kind.UNAUTHENTICATED, told)
    assert ("device:dev-1", "registration.refuse", "refused") in await world.audit_trail()
    [detail] = await world.audit_details("registration.refuse")
    assert reason in detail["reason"]
    assert not world.hubs.calls


async def test_refusals_cannot_fill_the_trail(world: World) -> None:
    """A flood of refusals leaves a bounded number of lines."""
    peer = Peer("127.0.0.1")
    for number in range(100):
        await problem_of(world.registrar.judge(ID_SCOPE, RegistrationId(f"dev-{number}"), peer))
    assert len(await world.audit_details("registration.refuse")) == 60


async def test_refusal_that_cannot_be_stored_is_still_a_refusal(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk does not turn "no" into "try again"."""

    async def full(*_: object) -> None:
        raise Problem(Kind.UNAVAILABLE, "the database cannot be written")

    monkeypatch.setattr(world.registrations, "insert_refusal", full)
    call = world.registrar.judge(ID_SCOPE, RegistrationId("dev-1"), Peer("127.0.0.1"))
    assert (await problem_of(call)).kind is Kind.UNAUTHENTICATED


@pytest.mark.parametrize("change", ["disabled", "deleted", "removed", "unverified", "expired"])
async def test_what_changed_since_connect_counts(world: World, change: str) -> None:
    """Register and look-up judge again: nothing is admitted on what was true at CONNECT."""
    admission = await world.judge("dev-1")
    begun = await world.registrar.register(admission)
    await world.registrar.settle()
    off = ProvisioningStatus.DISABLED
    if change == "disabled":
        await world.put(GroupSettings("factory", CaReferences("root"), status=off))
    elif change == "deleted":
        await world.enrollments.delete_group("service-1", "factory", None, actor="test")
    elif change == "removed":
        world.change_service(certificates=())
    elif change == "unverified":
        world.change_service(certificates=(uploaded("root", world.root, verified=False),))
    else:
        world.clock.advance(11 * 86_400)
    for call in (
        world.registrar.register(admission),
        world.registrar.look_up(admission, begun.operation_id),
    ):
        assert (await problem_of(call)).kind is Kind.UNAUTHENTICATED


async def test_enrolment_enabled_again_admits(world: World) -> None:
    """Disabling is not for ever, and nothing kept in memory outlives a change."""
    for status in (ProvisioningStatus.DISABLED, ProvisioningStatus.ENABLED):
        await world.put(GroupSettings("factory", CaReferences("root"), status=status))
        if status is ProvisioningStatus.DISABLED:
            await problem_of(world.judge("dev-1"))
        else:
            await world.judge("dev-1")


# Operations


async def test_fifty_parallel_calls_are_one_device(world: World) -> None:
    """One device, one assignment, the same answer to all."""
    leaf = world.root.leaf("dev-1")
    admissions = [await world.judge("dev-1", leaf) for _ in range(50)]
    begun = await asyncio.gather(*(world.registrar.register(one) for one in admissions))
    await world.registrar.settle()
    answers = [
        await world.registrar.look_up(admission, one.operation_id)
        for admission, one in zip(admissions, begun, strict=True)
    ]
    assert {a.registration.status for a in answers} == {RegistrationStatus.ASSIGNED}
    assert len({(a.registration.assigned_hub, a.registration.etag) for a in answers}) == 1
    assert list(world.hubs.devices) == [("hub-1.example", "dev-1")]


async def test_calls_during_an_assignment_share_it(world: World) -> None:
    """While the hub is busy, every call joins the one assignment."""
    world.hubs.gate = asyncio.Event()
    admission = await world.judge("dev-1")
    begun = [await world.registrar.register(admission) for _ in range(10)]
    assert len({one.operation_id for one in begun}) == 1
    world.hubs.gate.set()
    done = await finish(world, admission, begun[0])
    assert done.registration.status is RegistrationStatus.ASSIGNED
    assert world.hubs.calls == ["ensure hub-1.example"]


async def test_operations_of_others_are_not_found(world: World) -> None:
    """A guessed, foreign or expired handle is alike: not found."""
    mine, other = await world.judge("dev-1"), await world.judge("dev-2")
    begun = await world.registrar.register(mine)
    await world.registrar.register(other)
    await world.registrar.settle()
    for admission, handle in ((other, begun.operation_id), (mine, "4.guess"), (mine, "")):
        problem = await problem_of(world.registrar.look_up(admission, handle))
        assert problem.kind is Kind.NOT_FOUND
    world.clock.advance(3601)
    problem = await problem_of(world.registrar.look_up(mine, begun.operation_id))
    assert problem.kind is Kind.NOT_FOUND


async def test_renewed_certificate_waits_for_the_assignment_under_way(world: World) -> None:
    """Two credentials of one device do not race for what the hub keeps of them."""
    world.hubs.gate = asyncio.Event()
    first = await world.judge("dev-1")
    await world.registrar.register(first)
    second = await world.judge("dev-1", world.root.leaf("dev-1"))
    assert (await problem_of(world.registrar.register(second))).kind is Kind.CONFLICT
    world.hubs.gate.set()
    await world.registrar.settle()
    done = await finish(world, second, await world.registrar.register(second))
    assert done.registration.status is RegistrationStatus.ASSIGNED


async def test_renewed_certificate_brings_the_hub_up_to_date(world: World) -> None:
    """After a renewal the device registers again, and the hub learns the new certificate."""
    await provision(world)
    renewed = world.root.leaf("dev-1")
    done = await provision(world, credential=renewed)
    assert done.registration.substatus is Substatus.REPROVISIONED_TO_INITIAL_ASSIGNMENT
    assert world.hubs.devices["hub-1.example", "dev-1"].chain == peer_of(renewed).chain


# What goes wrong


@pytest.mark.parametrize("kind", [Kind.NOT_FOUND, Kind.FORBIDDEN, Kind.UNSUPPORTED])
async def test_failure_is_told_in_the_registration(world: World, kind: Kind) -> None:
    """A hub that refuses makes the registration failed, with the code clients know."""
    world.hubs.failures = [Problem(kind, "the hub says no")]
    done = await provision(world)
    assert done.registration.status is RegistrationStatus.FAILED
    assert done.registration.error_code == FAILURE_CODE[kind]
    assert done.registration.error_message == "the hub says no"
    assert ("device:dev-1", "registration.fail", "failed") in await world.audit_trail()


async def test_no_hub_is_400208(world: World) -> None:
    """A service without hubs fails its devices with "no hub specified"."""
    world.change_service(linked_hubs=())
    done = await provision(world)
    assert done.registration.error_code == 400208


async def test_failed_device_may_try_again(world: World) -> None:
    """A failure is not for ever."""
    world.hubs.failures = [Problem(Kind.FORBIDDEN, "no")]
    assert (await provision(world)).registration.status is RegistrationStatus.FAILED
    done = await provision(world)
    assert done.registration.status is RegistrationStatus.ASSIGNED
    assert done.registration.substatus is Substatus.INITIAL_ASSIGNMENT


async def test_passing_trouble_is_tried_again(world: World) -> None:
    """A hub that is away for a moment costs time and nothing else."""
    world.hubs.failures = [Problem(Kind.UNAVAILABLE, "away")] * 2
    assert (await provision(world)).registration.status is RegistrationStatus.ASSIGNED
    world.hubs.failures = [Problem(Kind.UNAVAILABLE, "away")] * 3
    done = await provision(world, "dev-2")
    assert done.registration.error_code == 503001


async def test_bug_is_told_as_internal(world: World) -> None:
    """What nobody expected reaches the device as "internal error" and no more."""
    world.hubs.failures = [RuntimeError("secret detail")]
    done = await provision(world)
    assert done.registration.status is RegistrationStatus.FAILED
    assert done.registration.error_message == "internal error"


def test_every_kind_of_failure_has_a_code() -> None:
    """Adding a Kind fails here until a failed registration has a number for it."""
    assert set(FAILURE_CODE) == set(Kind)


async def test_crash_after_the_hub_before_the_store_converges(world: World) -> None:
    """A device that was made and not recorded is found again by the next poll."""
    leaf = world.root.leaf("dev-1")
    world.hubs.gate = asyncio.Event()
    admission = await world.judge("dev-1", leaf)
    begun = await world.registrar.register(admission)
    await world.registrar.close(patience=0)  # the task dies in mid-work, as in a crash
    device = ProvisionedDevice(DeviceId("dev-1"), ())
    world.hubs.devices["hub-1.example", "dev-1"] = device
    world.hubs.gate = None
    world.restart()
    admission = await world.judge("dev-1", leaf)
    assert (await world.registrar.look_up(admission, begun.operation_id)).is_under_way
    done = await finish(world, admission, begun)
    assert done.registration.status is RegistrationStatus.ASSIGNED
    assert list(world.hubs.devices) == [("hub-1.example", "dev-1")]


async def test_register_after_a_crash_goes_on_with_what_was_begun(world: World) -> None:
    """A device that starts over after a crash joins its own assignment."""
    leaf = world.root.leaf("dev-1")
    world.hubs.gate = asyncio.Event()
    begun = await world.registrar.register(await world.judge("dev-1", leaf))
    await world.registrar.close(patience=0)
    world.hubs.gate = None
    world.restart()
    admission = await world.judge("dev-1", leaf)
    again = await world.registrar.register(admission)
    assert again.operation_id == begun.operation_id
    done = await finish(world, admission, again)
    assert done.registration.status is RegistrationStatus.ASSIGNED


# Reprovisioning


async def test_move_with_data(world: World) -> None:
    """A device whose enrolment names another hub moves there, with its data."""
    await provision(world)
    world.change_service(linked_hubs=(linked("hub-1.example"), linked("hub-2.example")))
    await world.put(GroupSettings("factory", CaReferences("root"), iot_hubs=("hub-2.example",)))
    done = await provision(world)
    assert world.hubs.calls[-1] == "move hub-1.example hub-2.example keep=True"
    assert done.registration.assigned_hub == "hub-2.example"
    assert done.registration.substatus is Substatus.DEVICE_DATA_MIGRATED
    assert list(world.hubs.devices) == [("hub-2.example", "dev-1")]


async def test_move_and_reset(world: World) -> None:
    """Without migration the device begins anew, at another hub or at the same one."""
    reset = ReprovisionPolicy(migrate_device_data=False)
    await world.put(GroupSettings("factory", CaReferences("root"), reprovision_policy=reset))
    await provision(world)
    done = await provision(world)
    assert world.hubs.calls == ["ensure hub-1.example", "reset hub-1.example"]
    assert done.registration.substatus is Substatus.DEVICE_DATA_RESET
    world.change_service(linked_hubs=(linked("hub-1.example"), linked("hub-2.example")))
    await world.put(
        GroupSettings(
            "factory",
            CaReferences("root"),
            reprovision_policy=reset,
            iot_hubs=("hub-2.example",),
        )
    )
    await provision(world)
    assert world.hubs.calls[-1] == "move hub-1.example hub-2.example keep=False"


async def test_never_reprovision(world: World) -> None:
    """A device stays at its hub, and its credentials are brought up to date there."""
    await provision(world)
    world.change_service(linked_hubs=(linked("hub-1.example"), linked("hub-2.example")))
    await world.put(
        GroupSettings(
            "factory",
            CaReferences("root"),
            reprovision_policy=ReprovisionPolicy(update_hub_assignment=False),
            iot_hubs=("hub-2.example",),
        )
    )
    done = await provision(world)
    assert done.registration.assigned_hub == "hub-1.example"
    assert world.hubs.calls == ["ensure hub-1.example"] * 2


async def test_hub_that_was_unlinked_is_left_without_a_move(world: World) -> None:
    """Nothing can be taken from a hub that there is no key for any more."""
    await provision(world)
    world.change_service(linked_hubs=(linked("hub-2.example"),))
    await provision(world)
    assert world.hubs.calls[-1] == "ensure hub-2.example"


async def test_former_assignment_survives_a_failure(world: World) -> None:
    """A failed attempt does not make the service forget where the device is."""
    await provision(world)
    world.hubs.failures = [Problem(Kind.FORBIDDEN, "no")]
    done = await provision(world)
    assert done.registration.status is RegistrationStatus.FAILED
    assert done.registration.assigned_hub == "hub-1.example"


# Names


async def test_case_of_the_id_does_not_make_another_device(world: World) -> None:
    """One registration, and the device id as the certificate spells it."""
    leaf = world.root.leaf("Dev-1")
    await provision(world, "Dev-1", credential=leaf)
    done = await provision(world, "DEV-1", credential=leaf)
    assert done.registration.device_id == "Dev-1"
    assert list(world.hubs.devices) == [("hub-1.example", "Dev-1")]


async def test_other_spelling_in_a_certificate_takes_nothing_over(world: World) -> None:
    """To a hub `dev-1` and `DEV-1` are two devices; one registration is not both."""
    await provision(world, "dev-1")
    admission = await world.judge("dev-1", world.root.leaf("DEV-1"))
    assert (await problem_of(world.registrar.register(admission))).kind is Kind.CONFLICT


# Limits


async def test_polling_storm_is_throttled(world: World) -> None:
    """A connection that polls without pause is told to wait."""
    admission = await world.judge("dev-1")
    begun = await world.registrar.register(admission)
    for _ in range(10):
        await world.registrar.look_up(admission, begun.operation_id)
    problem = await problem_of(world.registrar.look_up(admission, begun.operation_id))
    assert problem.kind is Kind.THROTTLED
    assert problem.retry_after == 1
    world.clock.advance(1)
    await world.registrar.look_up(admission, begun.operation_id)


async def test_registering_storm_is_throttled(world: World) -> None:
    """One id cannot keep the service busy; another id does not notice."""
    admission = await world.judge("dev-1")
    for _ in range(60):
        await world.registrar.register(admission)
    assert (await problem_of(world.registrar.register(admission))).kind is Kind.THROTTLED
    await world.registrar.register(await world.judge("dev-2"))


async def test_assignments_under_way_are_bounded(tmp_path: Path) -> None:
    """More devices than the limit are told to come back, and nothing of them is kept."""
    async with a_world(tmp_path, RegistrarSettings(max_running=2)) as world:
        world.hubs.gate = asyncio.Event()
        for name in ("dev-1", "dev-2"):
            await world.registrar.register(await world.judge(name))
        admission = await world.judge("dev-3")
        problem = await problem_of(world.registrar.register(admission))
        assert problem.kind is Kind.THROTTLED
        found = await world.registrations.get_registration("service-1", RegistrationId("dev-3"))
        assert found is None
        world.hubs.gate.set()
        await world.registrar.settle()
        await world.registrar.register(admission)


async def test_close_cuts_what_is_under_way(world: World) -> None:
    """Stopping does not wait for a hub that never answers, and takes nothing new."""
    world.hubs.gate = asyncio.Event()
    admission = await world.judge("dev-1")
    await world.registrar.register(admission)
    await world.registrar.close(patience=0)
    await world.registrar.settle()
    assert (await problem_of(world.registrar.register(admission))).kind is Kind.UNAVAILABLE


def test_contradictory_settings_do_not_start() -> None:
    """Retries that outlast an assignment, or a wait of nothing, are mistakes."""
    for settings in ({"retry_after": 0}, {"max_running": 0}, {"retry_delays": (20.0, 20.0)}):
        with pytest.raises(ValueError):
            RegistrarSettings(**settings)  # type: ignore[arg-type]  # each is one field


async def test_a_flood_of_refusals_does_not_fill_the_log(world: World) -> None:
    """A stranger decides how often; we decide how many lines a second, and say how many more."""
    other = world.root.leaf("somebody-else")
    with capture_logs() as logs:
        for _ in range(50):
            with pytest.raises(Problem):
                await world.judge("dev-1", other)
    assert 0 < len([line for line in logs if line["event"] == "device refused"]) <= 10
