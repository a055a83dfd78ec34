"""A device as its hub knows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

from muster.ids import DeviceId, ETag, Thumbprint


class DeviceStatus(Enum):
    """Whether the hub lets the device in."""

    ENABLED = "enabled"
    DISABLED = "disabled"


class AuthenticationType(Enum):
    """How a device proves who it is, in the registry's own words."""

    SAS = "sas"
    SELF_SIGNED = "selfSigned"
    CERTIFICATE_AUTHORITY = "certificateAuthority"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class DeviceAuthentication:
    """A device's credentials: keys for `SAS`, thumbprints for `SELF_SIGNED`, nothing for a CA.

    Keys are base64 text; a missing one is None, never "".
    """

    type: AuthenticationType
    primary_key: str | None = field(default=None, repr=False)
    secondary_key: str | None = field(default=None, repr=False)
    primary_thumbprint: Thumbprint | None = None
    secondary_thumbprint: Thumbprint | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """One device identity of one hub.

    `generation_id` tells a device from an earlier one of the same id that was deleted.
    """

    hub_id: str
    device_id: DeviceId
    generation_id: str
    etag: ETag
    status: DeviceStatus
    status_reason: str | None
    status_updated: datetime
    authentication: DeviceAuthentication
    created: datetime
    iot_edge: bool = False
    tags: dict[str, Any] = field(default_factory=dict)
    desired: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InitialTwin:
    """What an enrolment wants a new device's twin to hold."""

    tags: dict[str, Any] = field(default_factory=dict)
    desired: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProvisionedDevice:
    """What provisioning asks a hub to have.

    `chain` is the attested certificate chain, DER, leaf first. The hub decides what it
    keeps of it: nothing but "signed by a CA" where it trusts one of these CAs itself, so that
    the device may change its certificate, or the leaf's thumbprint where it does not.
    """

    device_id: DeviceId
    chain: tuple[bytes, ...]
    iot_edge: bool = False
    initial_twin: InitialTwin = field(default_factory=InitialTwin)
