"""Subscriptions and resource groups: as many as it takes for resources to stand somewhere.

One subscription and one group are made on the first start. More than to look them up is not done
with them yet.
"""

from __future__ import annotations

from collections.abc import Sequence

from muster.clock import Clock
from muster.errors import Kind, Problem
from muster.ids import new_uuid
from muster.model.audit import AuditEntry
from muster.model.resource import ResourceGroup, Subscription
from muster.ports.resources import SubscriptionStore

RESOURCE_GROUP = "muster"
LOCATION = "local"


class Subscriptions:
    """Looks subscriptions and resource groups up."""

    def __init__(self, store: SubscriptionStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def bootstrap(self, tenant_id: str) -> tuple[Subscription, ResourceGroup]:
        """Return the first subscription and its resource group, made when there is none."""
        subscription = Subscription(new_uuid(), tenant_id, "Muster")
        group = ResourceGroup(subscription.id, RESOURCE_GROUP, LOCATION)
        audit = AuditEntry(
            self._clock.now(), "system:bootstrap", "subscription.create", subscription.id
        )
        return await self._store.ensure_subscription(subscription, group, audit)

    async def list(self) -> list[Subscription]:
        """Return every subscription."""
        return await self._store.list_subscriptions()

    async def get(self, subscription_id: str) -> Subscription:
        """Return that subscription; raises `Problem(NOT_FOUND)`."""
        folded = subscription_id.lower()
        for subscription in await self._store.list_subscriptions():
            if subscription.id == folded:
                return subscription
        raise Problem(Kind.NOT_FOUND, f"The subscription {_shown(folded)} could not be found.")

    async def groups(self, subscription_id: str) -> Sequence[ResourceGroup]:
        """Return the resource groups of that subscription; raises `Problem(NOT_FOUND)`."""
        subscription = await self.get(subscription_id)
        return await self._store.list_groups(subscription.id)

    async def get_group(self, subscription_id: str, name: str) -> ResourceGroup:
        """Return that resource group, its name compared without case; `Problem(NOT_FOUND)`."""
        for group in await self.groups(subscription_id):
            if group.name.lower() == name.lower():
                return group
        raise Problem(Kind.NOT_FOUND, f"Resource group {_shown(name)} could not be found.")


def _shown(text: str) -> str:
    """Return what a client sent in a form that can be shown: escaped and cut."""
    return ascii(text[:90])
