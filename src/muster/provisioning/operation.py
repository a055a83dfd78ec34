"""The life of a registration: a table, and the only functions that move along it.

Pure: the caller brings the moment, fresh ids and tags, and stores what comes out.

Rules:

1. A register call begins an assignment and gets a handle (operation) on it. A handle shows how
   the registration stands whenever it is used, until it expires.
2. A register call with the same certificate and enrolment, while an assignment is under way,
   joins it: fifty parallel calls are one assignment with one handle.
3. With another certificate or enrolment it is refused until the assignment ended or ran past its
   deadline: two credentials must not race for what the hub keeps of them.
4. A former assignment stays readable while a new one is under way, and when that fails.
5. The device id is the registration id as the certificate spells it: hubs compare names with
   case, so that is the spelling which works there. It never changes; a certificate that
   spells it otherwise speaks for another device and is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum, auto

from muster.errors import Kind, Problem
from muster.ids import DeviceId, ETag, RegistrationId, Thumbprint
from muster.model.registration import Operation, Registration, RegistrationStatus, Substatus


class Trigger(Enum):
    """What may happen to a registration."""

    REGISTER = auto()
    ASSIGN = auto()
    FAIL = auto()


# What is not here cannot happen; a registration that is not there yet is None.
TRANSITIONS: dict[tuple[RegistrationStatus | None, Trigger], RegistrationStatus] = {
    (None, Trigger.REGISTER): RegistrationStatus.ASSIGNING,
    (RegistrationStatus.ASSIGNING, Trigger.REGISTER): RegistrationStatus.ASSIGNING,
    (RegistrationStatus.ASSIGNED, Trigger.REGISTER): RegistrationStatus.ASSIGNING,
    (RegistrationStatus.FAILED, Trigger.REGISTER): RegistrationStatus.ASSIGNING,
    (RegistrationStatus.ASSIGNING, Trigger.ASSIGN): RegistrationStatus.ASSIGNED,
    (RegistrationStatus.ASSIGNING, Trigger.FAIL): RegistrationStatus.FAILED,
}

# Handles that one registration keeps. One device needs one; parallel calls may each get one, and
# an hour of a device that starts over every minute gets 60.
MAX_OPERATIONS = 64
# Clients give up after minutes (Python 30 s a request, C 60 s); an hour covers the slowest.
OPERATION_LIFE = timedelta(hours=1)
# Longer than a worker takes with all its retries (`registration.ASSIGNMENT_SECONDS`).
ASSIGNMENT_DEADLINE = timedelta(seconds=40)


@dataclass(frozen=True, slots=True)
class Request:
    """A register call that was admitted: by which enrolment, with which certificate."""

    service_id: str
    registration_id: RegistrationId
    group_id: str
    leaf: Thumbprint
    common_name: str


def joins(stored: Registration | None, request: Request, *, now: datetime) -> Operation | None:
    """Return the handle that *request* shares (rule 2), or None when it begins an assignment.

    Raises `Problem(CONFLICT)` by rules 3 and 5.
    """
    if stored is None:
        return None
    if stored.device_id is not None and stored.device_id != request.common_name:
        raise Problem(
            Kind.CONFLICT,
            "this registration belongs to a device whose certificate spells its name otherwise",
        )
    if stored.status is not RegistrationStatus.ASSIGNING or stored.deadline <= now:
        return None
    if stored.leaf != request.leaf or stored.group_id.lower() != request.group_id.lower():
        raise Problem(Kind.CONFLICT, "another registration of this id is under way", retry_after=2)
    latest = stored.operations[-1] if stored.operations else None
    return latest if latest is not None and latest.expires > now else None


def begin(
    stored: Registration | None,
    request: Request,
    *,
    operation_id: str,
    etag: ETag,
    now: datetime,
) -> Registration:
    """Return the registration with an assignment under way; call when `joins` returned None."""
    status = _step(stored, Trigger.REGISTER)
    handle = Operation(operation_id, now + OPERATION_LIFE)
    if stored is None:
        return Registration(
            service_id=request.service_id,
            registration_id=request.registration_id,
            group_id=request.group_id,
            leaf=request.leaf,
            status=status,
            etag=etag,
            created=now,
            updated=now,
            deadline=now + ASSIGNMENT_DEADLINE,
            operations=(handle,),
        )
    good = [operation for operation in stored.operations if operation.expires > now]
    return replace(
        stored,
        group_id=request.group_id,
        leaf=request.leaf,
        status=status,
        etag=etag,
        updated=now,
        deadline=now + ASSIGNMENT_DEADLINE,
        operations=(*good[-(MAX_OPERATIONS - 1) :], handle),
        error_code=None,
        error_message=None,
    )


def assign(
    stored: Registration,
    *,
    hub: str,
    device_id: DeviceId,
    substatus: Substatus,
    etag: ETag,
    now: datetime,
) -> Registration:
    """Return the registration with its assignment made."""
    return replace(
        stored,
        status=_step(stored, Trigger.ASSIGN),
        substatus=substatus,
        assigned_hub=hub,
        device_id=device_id,
        etag=etag,
        updated=now,
    )


def fail(
    stored: Registration, *, code: int, message: str, etag: ETag, now: datetime
) -> Registration:
    """Return the registration with its assignment failed."""
    return replace(
        stored,
        status=_step(stored, Trigger.FAIL),
        error_code=code,
        error_message=message,
        etag=etag,
        updated=now,
    )


def _step(stored: Registration | None, trigger: Trigger) -> RegistrationStatus:
    status = None if stored is None else stored.status
    return TRANSITIONS[status, trigger]
