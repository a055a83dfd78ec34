"""Register names: say who may ask for certificates that carry them.

Whoever is first has the name, on that CA, whatever its case: the registration is what later
entitles its requesters, so a second one must come from an owner and not from anybody.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from muster.ca.authority import Authorities
from muster.certs.chain import shown
from muster.certs.names import has_invisible, parse_name
from muster.clock import Clock
from muster.errors import Kind, Problem
from muster.ids import new_uuid
from muster.model.audit import AuditEntry
from muster.model.domain import Domain, Party
from muster.model.principal import Principal, PrincipalKind
from muster.ports.authorities import DomainStore

# People and machines on one list. More than this is a group's job.
_MAX_PARTIES = 100
_MAX_EMAILS = 20
_MAX_EMAIL_CHARACTERS = 254  # RFC 5321 section 4.5.3.1.3, without the angle brackets
_MAX_FRIENDLY_NAME = 256  # Entra ID's limit for display names
_OBJECT_ID = re.compile(r"[A-Za-z0-9\-]{1,64}\Z")


@dataclass(frozen=True, slots=True)
class RegistrationPolicy:
    """Who may register names. EZCA refuses machines as owners; without people, someone must."""

    machine_owners: bool = True


@dataclass(frozen=True, slots=True)
class Registration:
    """A name that somebody wants to register. None for a list means the caller alone."""

    authority_id: str
    template_id: str
    name: str
    owners: tuple[Party, ...] | None = None
    requesters: tuple[Party, ...] | None = None
    request_only: tuple[Party, ...] = ()
    notification_emails: tuple[str, ...] = ()


class Domains:
    """The registered names of every CA."""

    def __init__(
        self,
        store: DomainStore,
        authorities: Authorities,
        clock: Clock,
        policy: RegistrationPolicy | None = None,
    ) -> None:
        self._store = store
        self._authorities = authorities
        self._clock = clock
        self._policy = policy or RegistrationPolicy()

    async def register(self, caller: Principal, wanted: Registration) -> Domain:
        """Register a name with a CA of the caller's tenant; return it as it is registered.

        Any member of the tenant may register a name that is free. Safe to repeat: the same
        caller with the same content gets the registration that is there.

        Raises `Problem(NOT_FOUND)` for an unknown CA or template, `Problem(MALFORMED)` for a name
        or a list that cannot be, `Problem(FORBIDDEN)` where policy is against it,
        `Problem(CONFLICT)` when the name is taken.
        """
        authority = await self._authorities.get(caller, wanted.authority_id)
        template = authority.template(wanted.template_id.lower())
        if template is None:
            raise Problem(Kind.NOT_FOUND, "the CA has no such template")
        domain = Domain(
            id=new_uuid(),
            tenant_id=authority.tenant_id,
            authority_id=authority.id,
            template_id=template.id,
            name=parse_name(wanted.name),
            owners=_parties("Owners", wanted.owners, caller),
            requesters=_parties("Requesters", wanted.requesters, caller),
            request_only=_parties("RequestersOnly", wanted.request_only, caller),
            notification_emails=_emails(wanted.notification_emails),
            registered_by=caller.object_id,
            created=self._clock.now(),
        )
        self._check_owners(caller, domain)
        audit = AuditEntry(
            domain.created,
            caller.object_id,
            "domain.register",
            f"{authority.id}/{domain.name}",
            detail={
                "owners": _ids(domain.owners),
                "requesters": _ids((*domain.requesters, *domain.request_only)),
            },
        )
        taken = await self._store.insert_domain(domain, audit)
        if taken is None:
            return domain
        if _content(taken) == _content(domain):
            return taken
        raise Problem(Kind.CONFLICT, f"{domain.name} is already registered with this CA")

    def _check_owners(self, caller: Principal, domain: Domain) -> None:
        if not domain.owners:
            raise Problem(Kind.MALFORMED, "Owners: a name needs at least one owner")
        is_machine = caller.kind is not PrincipalKind.USER
        if is_machine and not self._policy.machine_owners:
            own = caller.object_id.lower()
            if any(owner.object_id.lower() == own for owner in domain.owners):
                raise Problem(Kind.FORBIDDEN, "Owners: a machine cannot own a name here")


def _parties(which: str, asked: Sequence[Party] | None, caller: Principal) -> tuple[Party, ...]:
    if asked is None:
        return (Party(caller.object_id, caller.name),)
    if len(asked) > _MAX_PARTIES:
        raise Problem(Kind.MALFORMED, f"{which}: at most {_MAX_PARTIES} are possible")
    for party in asked:
        if _OBJECT_ID.match(party.object_id) is None:
            raise Problem(
                Kind.MALFORMED, f"{which}: {shown(party.object_id)!r} is not a directory object id"
            )
        for text in (party.name or "", party.type):
            if len(text) > _MAX_FRIENDLY_NAME or has_invisible(text):
                raise Problem(Kind.MALFORMED, f"{which}: {shown(text)!r} cannot be a name")
    return tuple(asked)


def _emails(asked: Sequence[str]) -> tuple[str, ...]:
    if len(asked) > _MAX_EMAILS:
        raise Problem(Kind.MALFORMED, f"NotificationEmails: at most {_MAX_EMAILS} are possible")
    for address in asked:
        local, at, host = address.rpartition("@")
        if (
            not (local and at and host)
            or len(address) > _MAX_EMAIL_CHARACTERS
            or " " in address
            or has_invisible(address)
        ):
            raise Problem(
                Kind.MALFORMED, f"NotificationEmails: {shown(address)!r} is not an e-mail address"
            )
    return tuple(asked)


def _content(domain: Domain) -> tuple[object, ...]:
    """Return what makes two registrations the same one; friendly names are only labels."""
    return (
        domain.name,
        domain.template_id,
        domain.registered_by,
        *(
            frozenset(party.object_id.lower() for party in parties)
            for parties in (domain.owners, domain.requesters, domain.request_only)
        ),
        frozenset(domain.notification_emails),
    )


def _ids(parties: Sequence[Party]) -> str:
    return " ".join(party.object_id for party in parties)
