"""What every implementation of the ports in `ports.authorities` promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from muster.errors import Kind, Problem
from muster.ids import Thumbprint
from muster.model.audit import AuditEntry
from muster.model.authority import (
    Authority,
    Hashing,
    KeyType,
    RevocationList,
    Template,
    TemplateType,
    Tier,
)
from muster.model.certificate import CertificateStatus, IntendedCertificate, RevokedSerial
from muster.model.domain import Domain, Party
from muster.store.audit import audit
from muster.store.authorities import SqlAuthorityStore
from muster.store.certificates import SqlCertificateLedger, certificates
from muster.store.database import Database
from muster.store.domains import SqlDomainStore
from muster.store.revocation_lists import SqlRevocationListStore
from muster.store.schema import metadata

NOW = datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC)
ENTRY = AuditEntry(NOW, "someone", "thing.change", "thing")
ROOT = Authority(
    id="root-1", tenant_id="tenant-1", name="Straße Root", tier=Tier.ROOT, key_id="key-1",
    key_type=KeyType.RSA_4096, hashing=Hashing.SHA512, certificate=b"\x30\x00", created=NOW,
)  # fmt: skip
ISSUING = replace(
    ROOT, id="ca-1", name="Straße", tier=Tier.SUBORDINATE, parent_id="root-1", is_enabled=False,
    templates=(Template("t-1", TemplateType.SSL, 30), Template("t-2", TemplateType.SSL, 7)),
)  # fmt: skip
LIST = RevocationList("ca-1", 5, b"crl", NOW, NOW + timedelta(days=7))
DOMAIN = Domain(
    id="d-1", tenant_id="tenant-1", authority_id="ca-1", template_id="t-1", name="Dev-1",
    owners=(Party("o-1", "One"),), requesters=(Party("r-1", None, "Group"),), request_only=(),
    notification_emails=("a@b",), registered_by="o-1", created=NOW,
)  # fmt: skip
INTENDED = IntendedCertificate(
    authority_id="ca-1", serial=2**158 + 7, tenant_id="tenant-1", template_id="t-1",
    requester="r-1", common_name="Dev-1", not_before=NOW, not_after=NOW + timedelta(days=10),
    to_be_signed=b"tbs", request_digest=b"digest", requested=NOW, location="IoT Device", tags="a",
)  # fmt: skip


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """An empty database."""
    opened = Database(tmp_path / "muster.db")
    metadata.create_all(opened.engine)
    yield opened
    await opened.close()


@pytest.fixture
def authorities(database: Database) -> SqlAuthorityStore:
    """The CAs."""
    return SqlAuthorityStore(database)


@pytest.fixture
def ledger(database: Database) -> SqlCertificateLedger:
    """The certificates."""
    return SqlCertificateLedger(database)


@pytest.fixture
def domains(database: Database) -> SqlDomainStore:
    """The registered names."""
    return SqlDomainStore(database)


@pytest.fixture
def lists(database: Database) -> SqlRevocationListStore:
    """The CRLs."""
    return SqlRevocationListStore(database)


def audit_lines(database: Database) -> int:
    """Return how long the trail is."""
    with database.engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(audit)).scalar_one()


async def test_authorities_come_back_as_they_went_in(authorities, lists, database) -> None:
    """Every field, by id, by name in any case, and in the tenant's list by name."""
    assert await authorities.insert_authorities([ROOT, ISSUING], [LIST], [ENTRY, ENTRY], limit=9)
    assert await authorities.get_authority("root-1") == ROOT
    assert await authorities.find_authority("tenant-1", "STRASSE") == ISSUING
    assert await authorities.list_authorities("tenant-1") == [ISSUING, ROOT]
    assert await lists.get_list("ca-1") == LIST
    assert audit_lines(database) == 2


async def test_absent_authorities_are_none(authorities) -> None:
    """Another tenant's name is not found, an id is found whatever the tenant."""
    await authorities.insert_authorities([ROOT], [], [], limit=9)
    assert await authorities.get_authority("x") is None
    assert await authorities.find_authority("tenant-2", ROOT.name) is None
    assert await authorities.list_authorities("tenant-2") == []


async def test_taken_name_changes_nothing(authorities, lists, database) -> None:
    """Both or neither, with their lists and audit lines."""
    await authorities.insert_authorities([ROOT], [], [], limit=9)
    clash = replace(ROOT, id="root-2", name="STRASSE ROOT")
    assert not await authorities.insert_authorities([ISSUING, clash], [LIST], [ENTRY], limit=9)
    assert await authorities.list_authorities("tenant-1") == [ROOT]
    assert await lists.get_list("ca-1") is None
    assert audit_lines(database) == 0
    elsewhere = replace(clash, tenant_id="tenant-2")
    assert await authorities.insert_authorities([elsewhere], [], [], limit=9)


async def test_limit_of_authorities_changes_nothing(authorities) -> None:
    """One more than allowed is refused as a whole."""
    with pytest.raises(Problem) as caught:
        await authorities.insert_authorities([ROOT, ISSUING], [], [], limit=1)
    assert caught.value.kind is Kind.THROTTLED
    assert await authorities.list_authorities("tenant-1") == []


async def test_certificate_goes_from_recorded_to_issued(ledger, database) -> None:
    """Each step with its audit line; the record holds what was recorded."""
    record = await ledger.record_intended(INTENDED, ENTRY, same_since=NOW)
    assert (record.status, record.intended) == (CertificateStatus.RECORDED, INTENDED)
    issued = replace(
        record, status=CertificateStatus.ISSUED, der=b"der",
        sha1=Thumbprint("A" * 40), sha256=Thumbprint("B" * 64),
    )  # fmt: skip
    assert await ledger.store_issued(issued, ENTRY) == issued
    assert audit_lines(database) == 2
    assert await ledger.record_intended(INTENDED, ENTRY, same_since=NOW) == issued
    assert audit_lines(database) == 2


async def test_same_request_gets_the_same_record(ledger) -> None:
    """Until the window closes, whatever serial it comes with."""
    first = await ledger.record_intended(INTENDED, ENTRY, same_since=NOW)
    again = replace(INTENDED, serial=9, to_be_signed=b"other", requested=NOW + timedelta(minutes=1))
    assert await ledger.record_intended(again, ENTRY, same_since=NOW) == first
    later = await ledger.record_intended(again, ENTRY, same_since=NOW + timedelta(microseconds=1))
    assert later.intended == again
    elsewhere = replace(INTENDED, authority_id="ca-2")
    assert (await ledger.record_intended(elsewhere, ENTRY, same_since=NOW)).intended == elsewhere


async def test_parallel_same_requests_make_one_record(ledger, database) -> None:
    """One writes; all get what it wrote."""
    records = await asyncio.gather(
        *(
            ledger.record_intended(replace(INTENDED, serial=n), ENTRY, same_since=NOW)
            for n in range(1, 21)
        )
    )
    assert len({record.intended.serial for record in records}) == 1
    assert audit_lines(database) == 1


async def test_serial_is_used_once(ledger, database) -> None:
    """Another request with the same serial is a conflict; another CA may use it."""
    await ledger.record_intended(INTENDED, ENTRY, same_since=NOW)
    other = replace(INTENDED, request_digest=b"other")
    with pytest.raises(Problem) as caught:
        await ledger.record_intended(other, ENTRY, same_since=NOW)
    assert caught.value.kind is Kind.CONFLICT
    assert audit_lines(database) == 1
    await ledger.record_intended(replace(other, authority_id="ca-2"), ENTRY, same_since=NOW)


async def test_first_certificate_stored_stays(ledger, database) -> None:
    """Who comes second gets what the first one stored."""
    record = await ledger.record_intended(INTENDED, ENTRY, same_since=NOW)
    ours, theirs = (
        replace(
            record, status=CertificateStatus.ISSUED, der=der,
            sha1=Thumbprint("A" * 40), sha256=Thumbprint("B" * 64),
        )
        for der in (b"ours", b"theirs")
    )  # fmt: skip
    assert await ledger.store_issued(theirs, ENTRY) == theirs
    assert await ledger.store_issued(ours, ENTRY) == theirs
    assert audit_lines(database) == 2


def _revoke(database: Database, serial: int, reason: int | None) -> None:
    with database.engine.begin() as connection:
        connection.execute(
            update(certificates)
            .where(certificates.c.serial == serial.to_bytes(20, "big"))
            .values(status="revoked", revoked=NOW, revocation_reason=reason)
        )


async def test_revoked_record_stays_revoked(ledger, database) -> None:
    """A certificate that comes after its revocation is not stored, nor found as the same."""
    record = await ledger.record_intended(INTENDED, ENTRY, same_since=NOW)
    _revoke(database, INTENDED.serial, None)
    issued = replace(
        record, status=CertificateStatus.ISSUED, der=b"der",
        sha1=Thumbprint("A" * 40), sha256=Thumbprint("B" * 64),
    )  # fmt: skip
    assert (await ledger.store_issued(issued, ENTRY)).status is CertificateStatus.REVOKED
    again = replace(INTENDED, serial=9)
    assert (await ledger.record_intended(again, ENTRY, same_since=NOW)).intended.serial == 9


async def test_refusals_are_kept(ledger, database) -> None:
    """An audit line alone."""
    await ledger.note_refusal(ENTRY)
    assert audit_lines(database) == 1


async def test_domains_come_back_as_they_went_in(domains, database) -> None:
    """By folded name, one or several, of that CA only."""
    other = replace(DOMAIN, id="d-2", name="dev-2")
    assert await domains.insert_domain(DOMAIN, ENTRY) is None
    assert await domains.insert_domain(other, ENTRY) is None
    assert await domains.get_domains("ca-1", ["dev-1"]) == [DOMAIN]
    assert await domains.get_domains("ca-1", ["dev-2", "dev-1", "dev-3"]) in (
        [DOMAIN, other],
        [other, DOMAIN],
    )
    assert await domains.get_domains("ca-2", ["dev-1"]) == []
    assert await domains.get_domains("ca-1", []) == []
    assert audit_lines(database) == 2


async def test_taken_domain_is_returned(domains, database) -> None:
    """Also in another case, and nothing changed."""
    await domains.insert_domain(DOMAIN, ENTRY)
    clash = replace(DOMAIN, id="d-2", name="DEV-1", registered_by="x")
    assert await domains.insert_domain(clash, ENTRY) == DOMAIN
    assert audit_lines(database) == 1
    assert await domains.insert_domain(replace(clash, authority_id="ca-2"), ENTRY) is None


async def test_lists_are_replaced_over_the_expected_number(authorities, lists, database) -> None:
    """Numbers cannot go back or be given twice."""
    await authorities.insert_authorities([ISSUING], [LIST], [], limit=9)
    new = replace(LIST, number=6, der=b"new", next_update=NOW + timedelta(days=9))
    assert not await lists.replace_list(new, 4, ENTRY)
    assert await lists.replace_list(new, 5, ENTRY)
    assert not await lists.replace_list(replace(new, number=7), 5, ENTRY)
    assert await lists.get_list("ca-1") == new
    assert audit_lines(database) == 1


async def test_due_lists_come_most_urgent_first(authorities, lists) -> None:
    """Up to the limit, and only those before the moment."""
    others = [replace(ISSUING, id=f"ca-{n}", name=f"ca {n}") for n in range(3)]
    made = [
        replace(LIST, authority_id=f"ca-{n}", next_update=NOW + timedelta(days=3 - n))
        for n in range(3)
    ]
    await authorities.insert_authorities(others, made, [], limit=9)
    due = await lists.list_due(NOW + timedelta(days=3), limit=9)
    assert [one.authority_id for one in due] == ["ca-2", "ca-1"]
    assert len(await lists.list_due(NOW + timedelta(days=30), limit=1)) == 1


async def test_revoked_serials_are_those_of_the_ca_that_still_matter(
    ledger, lists, database
) -> None:
    """By serial, with reason, without the expired and without those of other CAs."""
    for number, serial in enumerate((7, 2**158, 3)):
        one = replace(INTENDED, serial=serial, request_digest=bytes([number]))
        await ledger.record_intended(one, ENTRY, same_since=NOW)
    expired = replace(INTENDED, serial=8, request_digest=b"x", not_after=NOW - timedelta(days=1))
    foreign = replace(INTENDED, serial=9, request_digest=b"y", authority_id="ca-2")
    for one in (expired, foreign):
        await ledger.record_intended(one, ENTRY, same_since=NOW)
    for serial, reason in ((7, None), (2**158, 4), (8, 1), (9, 1)):
        _revoke(database, serial, reason)
    assert await lists.list_revoked("ca-1", NOW) == [
        RevokedSerial(7, NOW, None),
        RevokedSerial(2**158, NOW, 4),
    ]
