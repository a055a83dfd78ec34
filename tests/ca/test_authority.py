"""Creating CAs, and who sees them."""

from __future__ import annotations

import asyncio
import subprocess
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from muster.ca.authority import MAX_AUTHORITIES, HierarchyPlan
from muster.certs.chain import common_name
from muster.errors import Kind, Problem
from muster.model.authority import Hashing, KeyType, Tier


def parsed(authority) -> x509.Certificate:
    """Return the CA's certificate."""
    return x509.load_der_x509_certificate(authority.certificate)


@pytest.mark.parametrize(
    ("key_type", "hashing"),
    [
        (KeyType.ECDSA_P256, Hashing.SHA256),
        (KeyType.ECDSA_P384, Hashing.SHA384),
        (KeyType.RSA_2048, Hashing.SHA512),
    ],
)
async def test_hierarchy_satisfies_openssl(world, tmp_path, key_type, hashing) -> None:
    """A strict verifier that is not ours accepts the issuing CA and its CRLs."""
    made = await world.hierarchy(key_type=key_type, hashing=hashing)
    for name, authority in (("root", made.root), ("issuing", made.issuing)):
        pem = parsed(authority).public_bytes(Encoding.PEM)
        crl = x509.load_der_x509_crl((await world.lists.get_list(authority.id)).der)
        (tmp_path / f"{name}.pem").write_bytes(pem + crl.public_bytes(Encoding.PEM))
    at = str(int(world.clock.now().timestamp()))
    checked = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-check_ss_sig", "-crl_check", "-attime", at,
         "-CAfile", tmp_path / "root.pem", tmp_path / "issuing.pem"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stderr


async def test_hierarchy_is_a_root_with_one_issuing_ca(world) -> None:
    """Names, tiers, path lengths and lifetimes are as planned; only the issuing CA issues."""
    made = await world.hierarchy(root_days=100, issuing_days=50, max_certificate_days=10)
    root, issuing = parsed(made.root), parsed(made.issuing)
    assert made.is_new
    assert (common_name(root), common_name(issuing)) == ("Plant Root", "Plant")
    assert (made.root.tier, made.issuing.tier) == (Tier.ROOT, Tier.SUBORDINATE)
    assert made.issuing.parent_id == made.root.id
    assert issuing.issuer == root.subject
    limits = [
        one.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
        for one in (root, issuing)
    ]
    assert limits == [1, 0]
    start = world.clock.now().replace(microsecond=0)
    assert root.not_valid_after_utc == start + timedelta(days=100)
    assert issuing.not_valid_after_utc == start + timedelta(days=50)
    assert made.root.templates == ()
    assert [one.max_days for one in made.issuing.templates] == [10]


async def test_issuing_ca_may_live_as_long_as_its_root(world) -> None:
    """Equal lifetimes are no conflict, although the root is made first."""
    made = await world.hierarchy(root_days=30, issuing_days=30, max_certificate_days=30)
    assert parsed(made.root).not_valid_after_utc == parsed(made.issuing).not_valid_after_utc


async def test_creation_is_safe_to_repeat(world) -> None:
    """The same plan again returns the same CAs, whatever the name's case."""
    made = await world.hierarchy("Plant")
    again = await world.hierarchy("PLANT")
    assert not again.is_new
    assert (again.root, again.issuing) == (made.root, made.issuing)


async def test_same_name_with_another_key_is_a_conflict(world) -> None:
    """Nobody gets a weaker CA than the one they asked for."""
    await world.hierarchy()
    with pytest.raises(Problem) as caught:
        await world.hierarchy(key_type=KeyType.ECDSA_P384)
    assert caught.value.kind is Kind.CONFLICT


async def test_an_existing_ca_may_have_any_key_unless_one_is_named(world) -> None:
    """Who asks for a CA by name alone gets it, whatever it was made with."""
    made = await world.hierarchy(key_type=KeyType.RSA_2048, hashing=Hashing.SHA512)
    assert (await world.hierarchy()).issuing == made.issuing
    assert (await world.hierarchy(key_type=KeyType.RSA_2048)).issuing == made.issuing
    with pytest.raises(Problem):
        await world.hierarchy(hashing=Hashing.SHA256)


async def test_parallel_creations_make_one_hierarchy(world, principals) -> None:
    """Five who create the same CA at once all get the same one."""
    made = await asyncio.gather(*(world.hierarchy() for _ in range(5)))
    assert len({one.issuing.id for one in made}) == 1
    assert sum(one.is_new for one in made) == 1
    assert len(await world.authorities.list_all(principals.owner)) == 2


async def test_only_owners_create(world, principals) -> None:
    """A caller without the role is told so, and nothing was made."""
    with pytest.raises(Problem) as caught:
        await world.authorities.create_hierarchy(principals.agent, HierarchyPlan("Plant"))
    assert caught.value.kind is Kind.FORBIDDEN
    assert await world.authorities.list_all(principals.owner) == []


@pytest.mark.parametrize(
    "plan",
    [
        HierarchyPlan(""),
        HierarchyPlan(" Plant"),
        HierarchyPlan("Pl\nant"),
        HierarchyPlan("Pl\u202eant"),
        HierarchyPlan("x" * 60),
        HierarchyPlan("Plant", root_days=0, issuing_days=0),
        HierarchyPlan("Plant", root_days=10**9),
        HierarchyPlan("Plant", root_days=10, issuing_days=11),
        HierarchyPlan("Plant", max_certificate_days=0),
        HierarchyPlan("Plant", issuing_days=10, max_certificate_days=11),
    ],
)
async def test_impossible_plans_are_refused(world, principals, plan) -> None:
    """Bad names and lifetimes are malformed, and no CA comes of them."""
    with pytest.raises(Problem) as caught:
        await world.authorities.create_hierarchy(principals.owner, plan)
    assert caught.value.kind is Kind.MALFORMED
    assert await world.authorities.list_all(principals.owner) == []


async def test_tenants_do_not_see_each_other(world, principals) -> None:
    """Another tenant's CA is not found, and its name is free."""
    made = await world.hierarchy()
    for by in (world.authorities.list_all, world.authorities.list_available):
        assert await by(principals.foreigner) == []
    with pytest.raises(Problem) as caught:
        await world.authorities.get(principals.foreigner, made.issuing.id)
    assert caught.value.kind is Kind.NOT_FOUND
    theirs = await world.authorities.create_hierarchy(principals.foreigner, HierarchyPlan("Plant"))
    assert theirs.is_new


async def test_available_cas_issue_and_are_valid(world, principals) -> None:
    """Roots have no template, and an expired CA is not offered."""
    made = await world.hierarchy(issuing_days=30, max_certificate_days=10)
    offered = await world.authorities.list_available(principals.stranger)
    assert [one.id for one in offered] == [made.issuing.id]
    world.clock.advance(days=31)
    assert await world.authorities.list_available(principals.stranger) == []


async def test_chain_ends_at_the_root(world) -> None:
    """The CAs above a leaf, the issuing one first."""
    made = await world.hierarchy()
    assert await world.authorities.chain(made.issuing) == (made.issuing, made.root)
    assert await world.authorities.chain(made.root) == (made.root,)


async def test_number_of_cas_is_bounded(world, principals) -> None:
    """A tenant cannot fill the keystore."""
    assert MAX_AUTHORITIES >= 2
    made = await world.hierarchy()
    with pytest.raises(Problem) as caught:
        await world.store.insert_authorities(
            [principals.replace(made.root, id="x", name="x")], [], [], limit=2
        )
    assert caught.value.kind is Kind.THROTTLED
    assert len(await world.authorities.list_all(principals.owner)) == 2
