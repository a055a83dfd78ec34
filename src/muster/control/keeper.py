"""Keep the resources of one kind, which others change at the same time.

What hubs and provisioning services have in common. Rules:

1. A resource's name is unique on the whole server, without case: it is a host name.
2. Keys appear by `keys` and nowhere else.
3. A change is made to the version that was read: somebody else's change in between is tried
   again on top of theirs, and is the caller's to hear when it named a version itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from muster.clock import Clock
from muster.control.certificates import Certificates
from muster.control.placement import Precondition, is_at, is_within, name_taken
from muster.control.subscriptions import Subscriptions
from muster.errors import Kind, Problem
from muster.ids import ETag, new_etag
from muster.model.audit import AuditEntry
from muster.model.contention import ATTEMPTS, contended
from muster.model.resource import AccessPolicy, Hub, ProvisioningService, ResourceAddress
from muster.ports.resources import Stored

Kept = TypeVar("Kept", Hub, ProvisioningService)
Wanted = TypeVar("Wanted")


@dataclass(frozen=True, slots=True)
class Shelf(Generic[Kept]):
    """One kind of resource: what it is called, and the calls of its store (`ports.resources`).

    `word` names it in the audit trail, `title` to people.
    """

    word: str
    title: str
    find: Callable[[str], Awaitable[Kept | None]]
    everything: Callable[[], Awaitable[list[Kept]]]
    insert: Callable[[Kept, AuditEntry], Awaitable[Stored]]
    replace: Callable[[Kept, ETag, AuditEntry], Awaitable[bool]]
    delete: Callable[[str, ETag, AuditEntry], Awaitable[bool]]


class ResourceKeeper(ABC, Generic[Kept, Wanted]):
    """Resources as the control plane sees them. The caller has authorised *by* already.

    Every method that takes an address raises `Problem(NOT_FOUND)` when nothing of the kind stands
    there, and every change `Problem(UNAVAILABLE)` when others are always faster.
    """

    def __init__(self, shelf: Shelf[Kept], subscriptions: Subscriptions, clock: Clock) -> None:
        self._shelf: Shelf[Kept] = shelf
        self._subscriptions = subscriptions
        self._clock = clock

    @abstractmethod
    def _check_name(self, name: str) -> None:
        """Raise `Problem(MALFORMED)` when nothing of the kind can have that name."""

    @abstractmethod
    async def _made(self, place: ResourceAddress, wanted: Wanted) -> Kept:
        """Return a new resource, not stored yet."""

    @abstractmethod
    async def _updated(self, stored: Kept, wanted: Wanted) -> Kept:
        """Return the next version of *stored*, with an entity tag of its own."""

    async def put(
        self, address: ResourceAddress, wanted: Wanted, *, precondition: Precondition, by: str
    ) -> tuple[Kept, bool]:
        """Make the resource, or bring it to what is *wanted*; return it and whether it is new.

        Raises `Problem(MALFORMED)` for what is wanted, `Problem(CONFLICT)` when the name or the
        host name is taken or the subscription full, `Problem(NOT_FOUND)` for its group.
        """
        self._check_name(address.name)
        group = await self._subscriptions.get_group(address.subscription_id, address.resource_group)
        place = ResourceAddress(group.subscription_id, group.name, address.name)
        for _ in range(ATTEMPTS):
            stored = await self._shelf.find(address.name)
            if stored is not None and not is_at(stored.address, place):
                raise name_taken(address.name)
            precondition.check(None if stored is None else stored.etag)
            if stored is None:
                made = await self._made(place, wanted)
                audit = self._audit(by, f"{self._shelf.word}.create", made)
                if await self._shelf.insert(made, audit) is Stored.STORED:
                    return made, True
                # Its name, host name or id scope was taken meanwhile: look and choose again.
                continue
            updated = await self._updated(stored, wanted)
            if await self._replace(updated, stored, by, f"{self._shelf.word}.update"):
                return updated, False
        raise self._contended(address)

    async def get(self, address: ResourceAddress) -> Kept:
        """Return the resource at *address*."""
        found = await self._shelf.find(address.name)
        if found is None or not is_at(found.address, address):
            raise Problem(
                Kind.NOT_FOUND, f"there is no {self._shelf.title} {address.name!r} in this group"
            )
        return found

    async def list(self, subscription_id: str, resource_group: str | None = None) -> Sequence[Kept]:
        """Return the subscription's resources, or those of one of its groups, oldest first."""
        found = await self._shelf.everything()
        return [one for one in found if is_within(one.address, subscription_id, resource_group)]

    async def delete(
        self, address: ResourceAddress, *, precondition: Precondition, by: str
    ) -> bool:
        """Delete the resource with all that belongs to it; False when there was none."""
        for _ in range(ATTEMPTS):
            found = await self._shelf.find(address.name)
            if found is None or not is_at(found.address, address):
                return False
            precondition.check(found.etag)
            audit = self._audit(by, f"{self._shelf.word}.delete", found)
            if await self._shelf.delete(found.id, found.etag, audit):
                return True
        raise self._contended(address)

    async def is_name_free(self, name: str) -> bool:
        """Whether nothing of the kind has that name; `Problem(MALFORMED)` when nothing could."""
        self._check_name(name)
        return await self._shelf.find(name) is None

    async def keys(self, address: ResourceAddress) -> tuple[AccessPolicy, ...]:
        """Return the resource's shared access policies with their keys."""
        return (await self.get(address)).policies

    async def certificates(self, address: ResourceAddress) -> Certificates:
        """Return the resource's CA certificates."""
        return (await self.get(address)).certificates

    async def change_certificates(
        self,
        address: ResourceAddress,
        change: Callable[[Certificates], Certificates],
        *,
        action: str,
        certificate: str,
        by: str,
    ) -> Certificates:
        """Store what *change* makes of the resource's CA certificates; return that."""

        def change_all(stored: Kept) -> Kept:
            after = change(stored.certificates)
            return stored if after == stored.certificates else replace(stored, certificates=after)

        changed = await self._change(
            address, change_all, by=by, action=action, certificate=certificate
        )
        return changed.certificates

    async def _change(
        self,
        address: ResourceAddress,
        change: Callable[[Kept], Kept],
        *,
        by: str,
        action: str,
        **detail: str,
    ) -> Kept:
        """Store what *change* makes of the resource. The same object: nothing to store."""
        for _ in range(ATTEMPTS):
            stored = await self.get(address)
            changed = change(stored)
            if changed is stored:
                return stored
            changed = replace(changed, etag=new_etag())
            if await self._replace(changed, stored, by, action, **detail):
                return changed
        raise self._contended(address)

    async def _replace(
        self, changed: Kept, stored: Kept, by: str, action: str, **detail: str
    ) -> bool:
        audit = self._audit(by, action, changed, **detail)
        return await self._shelf.replace(changed, stored.etag, audit)

    def _audit(self, by: str, action: str, resource: Kept, **detail: str) -> AuditEntry:
        return AuditEntry(
            self._clock.now(),
            by,
            action,
            f"{self._shelf.word}:{resource.address.name}",
            detail={"id": resource.id, **detail},
        )

    def _contended(self, address: ResourceAddress) -> Problem:
        return contended(f"the {self._shelf.title} {address.name!r}")
