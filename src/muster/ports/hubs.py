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


class ServiceHosts(Protocol):
    """Find the provisioning services behind a host name, read-only."""

    async def find_services_by_host(self, hostname: str) -> list[ProvisioningService]:
        """Return the services that answer to *hostname*, compared without case and without port.

        Several may share one; the caller tells them apart by whose key it was shown.
        """
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


class DeviceMover(Protocol):
    """Taking a device from one linked hub to another, or back to its beginnings."""

    async def move_device(
        self, origin: LinkedHub, target: LinkedHub, device: ProvisionedDevice, *, keep_data: bool
    ) -> None:
        """Have *device* at *target* and no longer at *origin*; safe to repeat after a failure.

        With *keep_data* its tags, desired properties and capabilities come along; without, it
        begins with what *device* says. A device that was disabled stays disabled. When *origin*
        does not have it (any more), this is `LinkedHubRegistry.ensure_device` at *target*. It is
        removed from *origin* last. Raises as `ensure_device` does.
        """
        ...

    async def reset_device(self, link: LinkedHub, device: ProvisionedDevice) -> None:
        """Give a device its initial twin and capabilities back, where it is; safe to repeat.

        Its status stays. Made if it is not there. Raises as `ensure_device` does.
        """
        ...
