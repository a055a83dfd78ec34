"""Choose the hub of an attested device.

Pure: the caller loads the links and stores the answer.

Rules (DPS how-to-use-allocation-policies, concepts-device-reprovision; facts/dps.md 4):

1. The candidates are the linked hubs, narrowed to those the enrolment names if it names any. A hub
   whose link says `applyAllocationPolicy: false` is chosen only by a static allocation, which
   is not a policy but a name.
2. A device whose enrolment does not let it change hubs keeps the one it has, candidate or not.
3. Static: the enrolment names exactly one hub, and that is it, wherever the device was before.
4. Hashed: a device keeps its hub while that is a candidate, so that linking one more hub moves
   nobody. Otherwise the highest weighted-rendezvous score wins: each hub gets the share
   of its weight, and unlinking one spreads its devices over the rest and moves no others.
5. Lowest latency: nobody here knows a device's latency, and the service itself falls back to the
   weighted hash among equals, so this is rule 4.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

from muster.errors import Kind, Problem
from muster.ids import RegistrationId
from muster.model.enrollment import EnrollmentGroup
from muster.model.registration import Substatus
from muster.model.resource import AllocationPolicy, LinkedHub, ProvisioningService


def choose_hub(
    registration_id: RegistrationId,
    service: ProvisioningService,
    group: EnrollmentGroup,
    *,
    current: str | None,
) -> LinkedHub:
    """Return the link of *service* that the device is to be assigned to.

    *current* is the host name of the hub it was assigned to before, if any. Spelling in case
    does not matter, neither of hosts nor of the id.

    Raises `Problem(NOT_FOUND)` when there is no such hub, and says which rule left none.
    """
    if current is not None and not group.reprovision_policy.update_hub_assignment:
        kept = service.linked_hub(current)
        if kept is None:
            raise Problem(
                Kind.NOT_FOUND,
                f"the device is to stay at {current}, which is no longer linked",
            )
        return kept
    policy = group.allocation_policy or service.allocation_policy
    if policy is AllocationPolicy.STATIC:
        return _named_hub(service, group)
    candidates = _candidates(service, group)
    if current is not None:
        for hub in candidates:
            if hub.hostname.lower() == current.lower():
                return hub
    return max(candidates, key=lambda hub: _score(registration_id, hub))


def begins_anew(group: EnrollmentGroup, *, former: str | None) -> bool:
    """Whether a device that was at *former* is to begin with its initial twin again.

    Reprovisioning without migration does so even when the hub stays the same: that is how a
    factory reset is asked for (DPS concepts-device-reprovision).
    """
    policy = group.reprovision_policy
    return former is not None and policy.update_hub_assignment and not policy.migrate_device_data


def substatus_of(group: EnrollmentGroup, *, former: str | None, chosen: str) -> Substatus:
    """Return what the assignment to *chosen* of a device formerly at *former* is called."""
    if former is None:
        return Substatus.INITIAL_ASSIGNMENT
    if begins_anew(group, former=former):
        return Substatus.DEVICE_DATA_RESET
    if former.lower() == chosen.lower():
        return Substatus.REPROVISIONED_TO_INITIAL_ASSIGNMENT
    return Substatus.DEVICE_DATA_MIGRATED


def _named_hub(service: ProvisioningService, group: EnrollmentGroup) -> LinkedHub:
    if len(group.allowed_hubs) != 1:
        raise Problem(
            Kind.NOT_FOUND,
            f"a static allocation names one hub; the enrolment names {len(group.allowed_hubs)}",
        )
    named = service.linked_hub(group.allowed_hubs[0])
    if named is None:
        raise Problem(Kind.NOT_FOUND, f"the hub {group.allowed_hubs[0]} is not linked")
    return named


def _candidates(service: ProvisioningService, group: EnrollmentGroup) -> Sequence[LinkedHub]:
    if not service.linked_hubs:
        raise Problem(Kind.NOT_FOUND, "no hub is linked to the provisioning service")
    allowed = {hostname.lower() for hostname in group.allowed_hubs}
    narrowed = [
        hub for hub in service.linked_hubs if not allowed or hub.hostname.lower() in allowed
    ]
    if not narrowed:
        raise Problem(Kind.NOT_FOUND, "none of the hubs that the enrolment names is linked")
    open_ones = [hub for hub in narrowed if hub.apply_allocation_policy]
    if not open_ones:
        raise Problem(Kind.NOT_FOUND, "every hub is kept out of the allocation policy")
    return open_ones


def _score(registration_id: RegistrationId, hub: LinkedHub) -> float:
    # weight / -ln(u), u uniform in (0, 1): the exponential race, in which each hub wins with
    # probability weight / sum of weights. u stays off both ends, where ln is 0 or undefined.
    seed = f"{registration_id.folded}\0{hub.hostname.lower()}".encode()
    u = (int.from_bytes(hashlib.sha256(seed).digest()[:8], "big") + 0.5) / 2**64
    u = min(u, 1 - 2**-53)
    return max(hub.allocation_weight, 1) / -math.log(u)
