"""A device's registration with a provisioning service, and the operations that led to it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from muster.ids import DeviceId, ETag, RegistrationId, Thumbprint


class RegistrationStatus(Enum):
    """Where a registration stands, in the service's own words."""

    ASSIGNING = "assigning"
    ASSIGNED = "assigned"
    FAILED = "failed"


class Substatus(Enum):
    """How an assigned device came to its hub (DPS service models)."""

    INITIAL_ASSIGNMENT = "initialAssignment"
    DEVICE_DATA_MIGRATED = "deviceDataMigrated"
    DEVICE_DATA_RESET = "deviceDataReset"
    REPROVISIONED_TO_INITIAL_ASSIGNMENT = "reprovisionedToInitialAssignment"


@dataclass(frozen=True, slots=True)
class Operation:
    """A handle on a registration that one register call was given, good until `expires`."""

    operation_id: str
    expires: datetime


@dataclass(frozen=True, slots=True)
class Registration:
    """One device's registration.

    `group_id` and `leaf` say which enrolment and which certificate the latest register call
    was admitted with. `assigned_hub` and `device_id` are the latest assignment and stay while
    a new one is under way. `deadline` is when an unfinished assignment may be taken over.
    `operations` are the handles on this registration that are still good, oldest first.
    """

    service_id: str
    registration_id: RegistrationId
    group_id: str
    leaf: Thumbprint
    status: RegistrationStatus
    etag: ETag
    created: datetime
    updated: datetime
    deadline: datetime
    operations: tuple[Operation, ...]
    substatus: Substatus | None = None
    assigned_hub: str | None = None
    device_id: DeviceId | None = None
    error_code: int | None = None
    error_message: str | None = None

    @property
    def key(self) -> str:
        """The spelling that equal registration ids share."""
        return self.registration_id.folded

    def operation(self, operation_id: str, now: datetime) -> Operation | None:
        """Return that operation of this registration if it is still good at *now*."""
        return next(
            (
                operation
                for operation in self.operations
                if operation.operation_id == operation_id and operation.expires > now
            ),
            None,
        )
