"""May this caller do that: one function, asked by every wire that takes tokens.

Actions are Azure's own strings (`Microsoft.Devices/IotHubs/write`), so that the permissions one
reads about there mean the same here.

Rules:

1. Owner may do everything.
2. Reader may do what ends in `/read`, on the control plane: like Azure's role of that name it
   sees no device, twin or enrolment, and no key.
3. Everything else is refused.
"""

from __future__ import annotations

from muster.errors import Kind, Problem
from muster.model.principal import Principal, Role

# Azure's data actions (built-in-roles/internet-of-things): what follows the provider's type.
_DATA = {
    "iothubs": frozenset(
        {
            "devices", "twins", "jobs", "configurations", "statistics", "fileupload",
            "cloudtodevicemessages", "directmethods", "telemetry",
        }
    ),
    "provisioningservices": frozenset(
        {"enrollments", "enrollmentgroups", "registrationstates", "attestationmechanism"}
    ),
}  # fmt: skip


def authorize(principal: Principal, action: str, scope: str) -> None:
    """Return if *principal* may do *action* on *scope* (a resource path); raise otherwise.

    A role holds for the whole installation: *scope* is named in the refusal and not yet
    compared with anything. Does not check that the thing exists.

    Raises `Problem(FORBIDDEN)`.
    """
    if Role.OWNER in principal.roles:
        return
    if Role.READER in principal.roles and _is_control_read(action):
        return
    raise Problem(
        Kind.FORBIDDEN,
        f"The client {principal.object_id!r} does not have authorization to perform action "
        f"{action!r} over scope {scope!r}.",
    )


def _is_control_read(action: str) -> bool:
    parts = action.lower().split("/")
    if parts[-1] != "read":
        return False
    # PROVIDER / type / noun ...: a data action is told by its noun.
    return not (len(parts) > 2 and parts[2] in _DATA.get(parts[1], ()))
