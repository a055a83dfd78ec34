"""CRLs: there from the start, current, and numbers that never go back."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from cryptography import x509
from sqlalchemy import update

from muster.ca.publication import OVERLAP, VALIDITY
from muster.errors import Kind, Problem
from muster.store.certificates import certificates


async def load(world, authority) -> x509.CertificateRevocationList:
    """Return the CA's published CRL, its signature checked."""
    crl = x509.load_der_x509_crl((await world.publication.current_list(authority.id)).der)
    issuer = x509.load_der_x509_certificate(authority.certificate)
    assert crl.is_signature_valid(issuer.public_key())
    assert crl.issuer == issuer.subject
    return crl


def number(crl: x509.CertificateRevocationList) -> int:
    """Return the CRL's number."""
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def revoke(world, certificate, reason: int | None) -> None:
    """Mark the certificate revoked in the store."""
    serial = certificate.serial_number.to_bytes(20, "big")
    with world.database.engine.begin() as connection:
        connection.execute(
            update(certificates)
            .where(certificates.c.serial == serial)
            .values(status="revoked", revoked=world.clock.now(), revocation_reason=reason)
        )


async def test_every_ca_has_a_crl_from_the_start(world, plant) -> None:
    """Root and issuing CA: empty, valid now."""
    for authority in (plant.root, plant.issuing):
        crl = await load(world, authority)
        assert len(crl) == 0
        assert crl.last_update_utc <= world.clock.now() < crl.next_update_utc


async def test_lists_are_replaced_before_they_run_out(world, plant) -> None:
    """Nothing happens while there is time; then every list is made anew, once."""
    before = await load(world, plant.issuing)
    world.clock.advance(seconds=(VALIDITY - OVERLAP).total_seconds() - 60)
    assert await world.publication.refresh_due() == 0
    world.clock.advance(seconds=120)
    assert await world.publication.refresh_due() == 2
    assert await world.publication.refresh_due() == 0
    after = await load(world, plant.issuing)
    assert number(after) > number(before)
    assert after.next_update_utc > before.next_update_utc


async def test_revoked_certificates_are_listed_until_they_expire(world, plant, csr) -> None:
    """With their reason, where one was given; RFC 5280 asks to leave out `unspecified`."""
    first = await world.request(plant, csr("dev-1"), days=6)
    second = await world.request(plant, csr("dev-1"), days=30)
    third = await world.request(plant, csr("dev-1"), days=30)
    revoke(world, first, 1)
    revoke(world, second, 4)
    revoke(world, third, 0)
    world.clock.advance(days=5)
    await world.publication.refresh_due()
    crl = await load(world, plant.issuing)
    reasons = {
        one.serial_number: [extension.value.reason for extension in one.extensions] for one in crl
    }
    assert reasons == {
        first.serial_number: [x509.ReasonFlags.key_compromise],
        second.serial_number: [x509.ReasonFlags.superseded],
        third.serial_number: [],
    }
    world.clock.advance(days=5)
    await world.publication.refresh_due()
    listed = {one.serial_number for one in await load(world, plant.issuing)}
    assert listed == {second.serial_number, third.serial_number}
    assert len(await load(world, plant.root)) == 0


async def test_numbers_rise_after_a_restore_from_backup(world, plant) -> None:
    """The database forgot the last lists; relying parties did not."""
    backup = await world.lists.get_list(plant.issuing.id)
    world.clock.advance(days=5)
    await world.publication.refresh_due()
    lost = number(await load(world, plant.issuing))
    from muster.model.audit import AuditEntry

    entry = AuditEntry(world.clock.now(), "test", "restore", "x")
    assert await world.lists.replace_list(backup, lost, entry)
    world.clock.advance(minutes=1)
    await world.publication.refresh_due()
    assert number(await load(world, plant.issuing)) > lost


async def test_numbers_rise_when_the_clock_goes_back(world, plant) -> None:
    """The last number counts as well as the time."""
    last = await world.lists.get_list(plant.issuing.id)
    world.clock.advance(days=-400)
    new = replace(last, next_update=world.clock.now())
    from muster.model.audit import AuditEntry

    entry = AuditEntry(world.clock.now(), "test", "expire", "x")
    await world.lists.replace_list(new, last.number, entry)
    assert await world.publication.refresh_due() == 1
    assert (await world.lists.get_list(plant.issuing.id)).number == last.number + 1


async def test_two_publishers_do_not_disturb_each_other(world, plant) -> None:
    """Of two that replace the same list at once one wins, and the other does no harm."""
    world.clock.advance(days=5)
    counts = await asyncio.gather(world.publication.refresh_due(), world.publication.refresh_due())
    assert sum(counts) == 2
    await load(world, plant.issuing)


async def test_absent_key_leaves_the_old_list(world, plant) -> None:
    """No list is better than a list by another key; the next round tries again."""

    class AbsentSigner:
        async def sign(self, key_id, data, hashing):
            raise Problem(Kind.UNAVAILABLE, "the token is not there")

    signer, world.signer = world.signer, AbsentSigner()
    world.clock.advance(days=5)
    before = await load(world, plant.issuing)
    with pytest.raises(Problem):
        await world.publication.refresh_due()
    assert await load(world, plant.issuing) == before
    world.signer = signer
    assert await world.publication.refresh_due() == 2


async def test_unknown_ca_has_neither_list_nor_certificate(world, plant) -> None:
    """None, for whoever asks."""
    assert await world.publication.current_list("nonsense") is None
    assert await world.publication.certificate("nonsense") is None
    assert await world.publication.certificate(plant.root.id) == plant.root.certificate
