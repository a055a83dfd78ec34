"""Enrolments: what may be written, and which CAs count at this moment."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.support.pki import TestAuthority
from tests.support.provisioning import World, a_service, der, linked, uploaded

from muster.errors import Kind, Problem
from muster.ids import ETag
from muster.model.enrollment import (
    CaReferences,
    EnrollmentGroup,
    ProvisioningStatus,
    SigningCertificates,
)
from muster.provisioning import enrollments as module
from muster.provisioning.enrollments import GroupSettings
from muster.store.enrollments import SqlEnrollmentStore


async def problem_of(call: Any) -> Problem:
    """The problem that *call* raises."""
    with pytest.raises(Problem) as caught:
        await call
    return caught.value


async def put(world: World, *arguments: Any, **settings: Any) -> EnrollmentGroup:
    """Write a group without an entity tag."""
    wanted = GroupSettings(*arguments, **settings)
    return await world.enrollments.put_group(world.service, wanted, None, actor="test")


def carry(authority: TestAuthority) -> SigningCertificates:
    """Carry that CA."""
    return SigningCertificates(der(authority.certificate))


async def test_replacing_keeps_the_beginning(world: World) -> None:
    """Id and creation stay as they were; version and change time are new."""
    first = await world.enrollments.get_group("service-1", "factory")
    world.clock.advance(5)
    second = await world.enrollments.put_group(
        world.service, GroupSettings("FACTORY", CaReferences("root")), first.etag, actor="test"
    )
    assert (second.group_id, second.created) == ("factory", first.created)
    assert second.etag != first.etag
    assert second.updated > first.updated


async def test_any_version_will_do_for_a_star(world: World) -> None:
    """`*` replaces and deletes whatever is stored, and nothing that is not there."""
    star = ETag("*")
    settings = GroupSettings("factory", CaReferences("root"))
    await world.enrollments.put_group(world.service, settings, star, actor="test")
    await world.enrollments.delete_group("service-1", "factory", star, actor="test")
    call = world.enrollments.put_group(world.service, settings, star, actor="test")
    assert (await problem_of(call)).kind is Kind.PRECONDITION_FAILED


async def test_a_name_cannot_be_made_to_mean_another_group_s_certificate(world: World) -> None:
    """Replacing what a name refers to does not let a second group refer to it."""
    world.change_service(certificates=(uploaded("root", TestAuthority("New Root")),))
    problem = await problem_of(put(world, "second", CaReferences("ROOT")))
    assert problem.kind is Kind.CONFLICT


async def test_one_certificate_under_two_styles_is_still_one(world: World) -> None:
    """Carrying what another group refers to is a conflict as well."""
    assert (await problem_of(put(world, "second", carry(world.root)))).kind is Kind.CONFLICT


async def test_a_deleted_group_frees_its_certificate(world: World) -> None:
    """The CA may then be used by another group."""
    await world.enrollments.delete_group("service-1", "factory", None, actor="test")
    await put(world, "second", CaReferences("root"))


async def test_changes_count_at_once(world: World) -> None:
    """What is kept in memory is made anew after each change, and only then."""
    first = await world.enrollments.trusted(world.service)
    assert await world.enrollments.trusted(world.service) is first
    off = GroupSettings("factory", CaReferences("root"), status=ProvisioningStatus.DISABLED)
    await world.put(off)
    second = await world.enrollments.trusted(world.service)
    assert second is not first
    world.change_service(linked_hubs=(linked("hub-2.example"),))
    assert await world.enrollments.trusted(world.service) is second
    world.change_service(certificates=(uploaded("root", world.root, verified=False),))
    third = await world.enrollments.trusted(world.service)
    assert third is not second
    assert third.candidates.verified == ()


async def test_changes_of_another_process_count_at_once(world: World) -> None:
    """The version in the store says so, whoever changed it."""
    first = await world.enrollments.trusted(world.service)
    other = module.Enrollments(world.enrollments._store, world.clock)
    await other.delete_group("service-1", "factory", None, actor="test")
    assert await world.enrollments.trusted(world.service) is not first


async def test_every_group_counts_however_many_pages_they_fill(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last page is read like the first."""
    monkeypatch.setattr(module, "_PAGE", 2)
    authorities = [TestAuthority(f"CA {number}") for number in range(5)]
    for number, authority in enumerate(authorities):
        await put(world, f"group-{number}", carry(authority))
    trusted = await world.enrollments.trusted(world.service)
    for authority in authorities:
        [entry] = trusted.candidates.named_issuers_of(authority.leaf("dev-1").certificate)
        assert entry.certificate == authority.certificate


async def test_services_in_memory_are_bounded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the services that devices asked for last are kept arranged."""
    monkeypatch.setattr(module, "_KEPT_SERVICES", 2)
    services = [replace(a_service(), id=f"service-{number}") for number in range(4)]
    for service in services:
        await world.enrollments.trusted(service)
    assert list(world.enrollments._kept) == ["service-2", "service-3"]


async def test_groups_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service has so many groups and no more; replacing one still works."""
    monkeypatch.setattr(module, "MAX_GROUPS", 2)
    await put(world, "second", carry(TestAuthority("Second")))
    problem = await problem_of(put(world, "third", carry(TestAuthority("Third"))))
    assert problem.kind is Kind.TOO_LARGE
    await world.put(GroupSettings("factory", CaReferences("root")))


@pytest.mark.parametrize(
    "attestation",
    [
        SigningCertificates(b"\x30\x00"),
        SigningCertificates(b"x" * 20_000),
        SigningCertificates(None, None),
        CaReferences(None, None),
    ],
    ids=["garbage", "large", "nothing carried", "nothing referred to"],
)
async def test_nonsense_is_refused(world: World, attestation: Any) -> None:
    """A group is made of CA certificates that can be read."""
    assert (await problem_of(put(world, "second", attestation))).kind is Kind.MALFORMED


async def test_who_did_what_is_written_down(world: World) -> None:
    """Each change leaves its audit line and its notice."""
    await world.put(GroupSettings("factory", CaReferences("root")))
    await world.enrollments.delete_group("service-1", "factory", None, actor="policy:owner")
    trail = [(line[0], line[1]) for line in await world.audit_trail()]
    assert trail == [
        ("test", "enrollment.create"),
        ("test", "enrollment.update"),
        ("policy:owner", "enrollment.delete"),
    ]
    assert await world.notices() == [
        ("enrollment.changed", "service-1/factory"),
        ("enrollment.changed", "service-1/factory"),
        ("enrollment.deleted", "service-1/factory"),
    ]


async def test_an_enrolment_that_others_keep_changing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever loses every race is told to try again, whatever the change was."""

    async def lose(*_: Any) -> bool:
        return False

    for change in ("replace_group", "delete_group"):
        monkeypatch.setattr(SqlEnrollmentStore, change, lose)
    star, settings = ETag("*"), GroupSettings("factory", CaReferences("root"))
    for call in (
        world.enrollments.put_group(world.service, settings, star, actor="test"),
        world.enrollments.delete_group("service-1", "factory", star, actor="test"),
    ):
        assert (await problem_of(call)).kind is Kind.UNAVAILABLE
