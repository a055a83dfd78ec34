"""Publish certificate revocation lists.

A CA has a CRL from the moment it exists. `Publication.refresh_due` makes a new one well before
the last one's next update; run it every minute or so. Numbers always rise: the database accepts
a list only over the number that it was made after, and the time is part of the number
(see `certs.crl.next_crl_number`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509

from muster.ca.issuers import PublicLocations, SigningAuthority, signing_authority
from muster.certs.crl import RevokedEntry, assemble_crl, next_crl_number, prepare_crl
from muster.clock import Clock
from muster.model.audit import AuditEntry
from muster.model.authority import RevocationList
from muster.model.certificate import RevokedSerial
from muster.ports.authorities import AuthorityReader, RevocationListStore
from muster.ports.signing import Signer

# A relying party that cannot reach us goes on for this long with what it has.
VALIDITY = timedelta(days=7)
# How long before its next update a list is replaced: three days of outage go unnoticed.
OVERLAP = timedelta(days=3)
# Lists made in one round, so that a restart after a long pause does not keep the keystore from
# signing certificates; the rest follow in the next round.
_ROUND = 50

# RFC 5280 section 5.3.1. 0 (unspecified) is said by saying nothing; 7 is unused.
_REASON = {
    1: x509.ReasonFlags.key_compromise,
    2: x509.ReasonFlags.ca_compromise,
    3: x509.ReasonFlags.affiliation_changed,
    4: x509.ReasonFlags.superseded,
    5: x509.ReasonFlags.cessation_of_operation,
    6: x509.ReasonFlags.certificate_hold,
    9: x509.ReasonFlags.privilege_withdrawn,
    10: x509.ReasonFlags.aa_compromise,
}


class Publication:
    """Keeps every CA's CRL current."""

    def __init__(
        self,
        authorities: AuthorityReader,
        lists: RevocationListStore,
        signer: Signer,
        clock: Clock,
        locations: PublicLocations,
    ) -> None:
        self._authorities = authorities
        self._lists = lists
        self._signer = signer
        self._clock = clock
        self._locations = locations

    async def current_list(self, authority_id: str) -> RevocationList | None:
        """Return the CRL to serve for that CA, of any tenant: CRLs are public."""
        return await self._lists.get_list(authority_id)

    async def certificate(self, authority_id: str) -> bytes | None:
        """Return that CA's certificate, DER, of any tenant: CA certificates are public."""
        authority = await self._authorities.get_authority(authority_id)
        return None if authority is None else authority.certificate

    async def refresh_due(self) -> int:
        """Replace the lists that are about to run out; return how many.

        Raises `Problem(UNAVAILABLE)` when key or storage are away; the next round tries again.
        """
        due = await self._lists.list_due(self._clock.now() + OVERLAP, limit=_ROUND)
        published = 0
        for last in due:
            published += await self._replace(last)
        return published

    async def _replace(self, last: RevocationList) -> bool:
        authority = await self._authorities.get_authority(last.authority_id)
        if authority is None:
            return False
        now = self._clock.now()
        revoked = await self._lists.list_revoked(authority.id, now)
        new = await make_list(
            signing_authority(authority, self._locations),
            revoked,
            self._signer,
            previous=last.number,
            now=now,
        )
        audit = AuditEntry(
            now, "system", "crl.publish", authority.id, detail={"number": str(new.number)}
        )
        # False: another process was faster, and its list is as good.
        return await self._lists.replace_list(new, last.number, audit)


async def make_list(
    authority: SigningAuthority,
    revoked: Sequence[RevokedSerial],
    signer: Signer,
    *,
    previous: int | None,
    now: datetime,
) -> RevocationList:
    """Return a new CRL of *authority*, signed and not yet published."""
    this_update = now.astimezone(UTC).replace(microsecond=0)
    next_update = this_update + VALIDITY
    number = next_crl_number(previous, now)

    def prepare() -> bytes:
        entries = [
            RevokedEntry(one.serial, one.revoked, _REASON.get(one.reason or 0)) for one in revoked
        ]
        return prepare_crl(
            entries,
            authority.issuer,
            number=number,
            this_update=this_update,
            next_update=next_update,
        )

    # Some microseconds for each entry: a long list would hold the event loop up.
    to_be_signed = await asyncio.to_thread(prepare)
    signature = await signer.sign(authority.key_id, to_be_signed, authority.hashing)
    der = assemble_crl(to_be_signed, signature, authority.issuer)
    return RevocationList(authority.authority_id, number, der, this_update, next_update)
