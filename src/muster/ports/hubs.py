"""What the hub, provisioning and the listeners need to know of hubs and provisioning services."""

from __future__ import annotations

from typing import Protocol

from muster.model.device import ProvisionedDevice
from muster.model.resource import Hub, LinkedHub, ProvisioningService


class HubDirectory(Protocol):
    """Look a hub up, read-only."""

    async def find_hub(self, hostname: str) -> Hub | None:
        """Return the hub that answers to *hostname*, compared without case and without port."""
        ...

    async def list_hubs(self) -> list[Hub]:
        """Return every hub, oldest first."""
        ...


class ServiceDirectory(Protocol):
    """Look a provisioning service up, read-only."""

    async def find_service(self, id_scope: str) -> ProvisioningService | None:
        """Return the provisioning service of *id_scope*, compared without case."""
        ...

    async def list_services(self) -> list[ProvisioningService]:
        """Return every provisioning service, oldest first."""
        ...


class LinkedHubRegistry(Protocol):
    """The registry of a linked hub, ours or another's."""

    async def ensure_device(self, link: LinkedHub, device: ProvisionedDevice) -> None:
        """Have *device* at the hub of *link*, created or brought up to date; safe to repeat.

        A device that exists keeps its generation, twin and status: a disabled device stays
        disabled. Raises `Problem(NOT_FOUND)` when the hub is not there, `Problem(FORBIDDEN)` when
        the link's key does not allow registry writes, `Problem(UNAVAILABLE)` to be tried again.
        """
        ...
