"""Registering names: who is first, who may, and what cannot be a name."""

from __future__ import annotations

import asyncio

import pytest

from muster.ca.domains import Registration, RegistrationPolicy
from muster.errors import Kind, Problem
from muster.model.domain import Party


@pytest.fixture
async def made(world):
    """An issuing CA without any registered name."""
    return await world.hierarchy()


async def refusal(world, made, name, **changes) -> Problem:
    """Return why the registration is refused."""
    with pytest.raises(Problem) as caught:
        await world.register(made, name, **changes)
    return caught.value


async def test_caller_is_owner_and_requester_unless_others_are_named(
    world, made, principals
) -> None:
    """What a client leaves out is filled with the caller, as EZCA's does it."""
    await world.register(made, "dev-1")
    (domain,) = await world.domain_store.get_domains(made.issuing.id, ["dev-1"])
    assert [one.object_id for one in domain.owners] == [principals.agent.object_id]
    assert domain.may_request(principals.agent.object_id)
    assert not domain.may_request(principals.stranger.object_id)


async def test_registration_is_safe_to_repeat(world, made) -> None:
    """The same from the same caller is no error: clients repeat what got no answer."""
    for _ in range(3):
        await world.register(made, "dev-1", owners=(Party("o-1", None),))
    assert [line[1] for line in world.audit_lines()].count("domain.register") == 1
    await world.register(made, "dev-1", owners=(Party("O-1", "a better label"),))


@pytest.mark.parametrize("name", ["dev-1", "DEV-1"])
async def test_taken_names_are_refused(world, made, principals, name) -> None:
    """To another caller, with other lists, and in another case: the first one has the name."""
    await world.register(made, "dev-1")
    problem = await refusal(world, made, name, by=principals.stranger)
    assert problem.kind is Kind.CONFLICT
    if name == "dev-1":
        problem = await refusal(world, made, name, requesters=(Party("somebody-else"),))
        assert problem.kind is Kind.CONFLICT


async def test_parallel_registrations_have_one_winner(world, made, principals) -> None:
    """Two callers at once: one has the name, the other is told."""
    results = await asyncio.gather(
        *(world.register(made, "dev-1", by=by) for by in (principals.agent, principals.stranger)),
        return_exceptions=True,
    )
    assert sorted(type(one).__name__ for one in results) == ["NoneType", "Problem"]


async def test_a_name_may_be_registered_with_several_cas(world, made, principals) -> None:
    """Registrations belong to their CA."""
    other = await world.hierarchy("Other")
    await world.register(made, "dev-1")
    await world.register(other, "dev-1", by=principals.stranger)


@pytest.mark.parametrize(
    "name",
    ["", " ", "x" * 65, "*", "*.test", "a b", "a/b", "dev\r\n1", "dev\x00", "d\u202ev", "\u0435",
     "a\\b", "<script>", '"', "a;b", "[::1]"],
    ids=ascii,
)  # fmt: skip
async def test_what_cannot_be_a_name_is_refused(world, made, name) -> None:
    """Nothing that would be dangerous in a certificate, a topic, a path or a log."""
    problem = await refusal(world, made, name)
    assert problem.kind is Kind.MALFORMED
    assert problem.detail.isascii()
    assert problem.detail.isprintable()


@pytest.mark.parametrize(
    "name", ["a", "x" * 64, "dev_1", "a.example.test", "10.0.0.1", "::1", "a=b,c", "0A:1B", "x@y"]
)
async def test_what_can_be_a_name(world, made, name) -> None:
    """Device ids, DNS names and addresses."""
    await world.register(made, name)


async def test_addresses_are_registered_in_canonical_form(world, made) -> None:
    """One address has one spelling."""
    await world.register(made, "2001:DB8::0:1")
    assert await world.domain_store.get_domains(made.issuing.id, ["2001:db8::1"])


@pytest.mark.parametrize(
    "lists",
    [
        {"owners": ()},
        {"owners": (Party(""),)},
        {"owners": (Party("x y"),)},
        {"owners": (Party("o", "a\nb"),)},
        {"owners": (Party("o", "x" * 257),)},
        {"requesters": tuple(Party(f"o-{n}") for n in range(101))},
        {"request_only": (Party("' OR 1=1 --"),)},
        {"notification_emails": ("nobody",)},
        {"notification_emails": ("a@b", "a b@c")},
        {"notification_emails": ("a@b\r\nBcc: x@y",)},
        {"notification_emails": tuple(f"{n}@test" for n in range(21))},
    ],
)
async def test_impossible_lists_are_refused(world, made, lists) -> None:
    """Empty ownership, odd ids, header injection, and more than anybody needs."""
    assert (await refusal(world, made, "dev-1", **lists)).kind is Kind.MALFORMED
    assert await world.domain_store.get_domains(made.issuing.id, ["dev-1"]) == []


async def test_machines_as_owners_are_a_matter_of_policy(world, made, principals) -> None:
    """Allowed by default, since enrolment is done by machines; EZCA's own rule can be had."""
    world.policy = RegistrationPolicy(machine_owners=False)
    assert (await refusal(world, made, "dev-1")).kind is Kind.FORBIDDEN
    await world.register(made, "dev-1", by=principals.stranger)
    await world.register(made, "dev-2", owners=(Party(principals.stranger.object_id),))


async def test_other_tenants_cas_do_not_exist(world, made, principals) -> None:
    """Nobody can reserve names with somebody else's CA."""
    problem = await refusal(world, made, "dev-1", by=principals.foreigner)
    assert problem.kind is Kind.NOT_FOUND


async def test_unknown_template_is_not_found(world, made, principals) -> None:
    """A name is registered for a template, so there must be one."""
    with pytest.raises(Problem) as caught:
        await world.domains.register(
            principals.agent, Registration(made.issuing.id, made.root.id, "dev-1")
        )
    assert caught.value.kind is Kind.NOT_FOUND
