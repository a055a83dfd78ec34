"""Enrolments: who may provision, by which credential, and what becomes of them.

An enrolment is one entry of a provisioning service: `EnrollmentGroup` admits whoever holds a
certificate under one of its CAs. Each kind of entry is a record of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from muster.ids import ETag
from muster.model.device import InitialTwin
from muster.model.resource import AllocationPolicy


class ProvisioningStatus(Enum):
    """Whether an enrolment lets its devices in."""

    ENABLED = "enabled"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class SigningCertificates:
    """CA certificates carried in the enrolment itself, DER. At least one is set.

    Carrying one proves nothing: see `muster.provisioning.attestation`, rule 4.
    """

    primary: bytes | None
    secondary: bytes | None = None

    @property
    def present(self) -> tuple[bytes, ...]:
        """Those that are set, primary first."""
        return tuple(der for der in (self.primary, self.secondary) if der is not None)


@dataclass(frozen=True, slots=True)
class CaReferences:
    """Names of CA certificates that were uploaded to the service. At least one is set.

    A name that the service no longer knows refers to nothing and admits nobody.
    """

    primary: str | None
    secondary: str | None = None

    @property
    def present(self) -> tuple[str, ...]:
        """Those that are set, primary first."""
        return tuple(name for name in (self.primary, self.secondary) if name is not None)


# An enrolment uses one style or the other, never both (facts/dps.md 2.2).
GroupAttestation = SigningCertificates | CaReferences


@dataclass(frozen=True, slots=True)
class ReprovisionPolicy:
    """What a device that registers again may expect (DPS concepts-device-reprovision).

    `update_hub_assignment`: it may be given another hub. `migrate_device_data`: its twin moves
    along; otherwise it begins again with the enrolment's initial twin. The second counts only
    with the first: without it nothing is ever reprovisioned.
    """

    update_hub_assignment: bool = True
    migrate_device_data: bool = True


@dataclass(frozen=True, slots=True)
class EnrollmentGroup:
    """One enrolment group of one provisioning service.

    `group_id` is kept as received and compared without case. An `allocation_policy` of None
    leaves the choice to the service's own; an empty `iot_hubs` means every linked hub.
    `iot_hub_hostname` is the older way of naming the one hub of a static allocation.
    """

    service_id: str
    group_id: str
    etag: ETag
    created: datetime
    updated: datetime
    attestation: GroupAttestation
    status: ProvisioningStatus = ProvisioningStatus.ENABLED
    reprovision_policy: ReprovisionPolicy = field(default_factory=ReprovisionPolicy)
    allocation_policy: AllocationPolicy | None = None
    iot_hub_hostname: str | None = None
    iot_hubs: tuple[str, ...] = ()
    initial_twin: InitialTwin = field(default_factory=InitialTwin)
    iot_edge: bool = False

    @property
    def key(self) -> str:
        """The spelling that equal group ids share."""
        return self.group_id.lower()

    @property
    def allowed_hubs(self) -> tuple[str, ...]:
        """The host names that this enrolment narrows the linked hubs to; empty: no narrowing."""
        if self.iot_hub_hostname is not None:
            return (self.iot_hub_hostname,)
        return self.iot_hubs
