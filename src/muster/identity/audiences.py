"""For whom a token may be asked: the resources this server plays, and no others.

A token's audience is its scope without `/.default` and with nothing else done to it, as the
public service does: `https://management.core.windows.net//.default` keeps its trailing slash.
So each resource has two spellings, and whoever accepts a token accepts both.

Rules:

1. A resource that is not played here is refused: a token for it would be good for nothing but
   to be passed on.
2. Hosts are compared without case; the token carries the spelling that was asked for.
"""

from __future__ import annotations

from collections.abc import Iterable

from muster.errors import Kind, Problem

RESOURCE_MANAGER = ("https://management.azure.com", "https://management.core.windows.net")
HUB_DATA = ("https://iothubs.azure.net",)
PROVISIONING_DATA = ("https://azure-devices-provisioning.net",)

_DEFAULT = "/.default"
# The longest resource of ours has some 50 characters; this bounds what an error may quote.
_MAX_LENGTH = 256


def spellings(resources: Iterable[str]) -> frozenset[str]:
    """Return each of *resources* without and with a trailing slash."""
    plain = [resource.rstrip("/") for resource in resources]
    return frozenset(plain) | {f"{resource}/" for resource in plain}


class Audiences:
    """The resources that tokens are minted for.

    *own* adds resources of this installation, its public URL for one, to the well-known ones.
    """

    def __init__(self, own: Iterable[str] = ()) -> None:
        known = (*RESOURCE_MANAGER, *HUB_DATA, *PROVISIONING_DATA, *own)
        self._known = {spelling.lower() for spelling in spellings(known)}

    def of_scope(self, scope: str) -> str:
        """Return the audience that the one scope *scope* asks for.

        Raises `Problem(MALFORMED)` for none, several, or one that is not `RESOURCE/.default`;
        `Problem(NOT_FOUND)` for a resource that is not played here.
        """
        if not scope or len(scope.split()) != 1:
            raise Problem(Kind.MALFORMED, "scope must be exactly one RESOURCE/.default")
        if not scope.endswith(_DEFAULT):
            raise Problem(Kind.MALFORMED, "a client credentials scope must end with /.default")
        return self.of_resource(scope.removesuffix(_DEFAULT))

    def of_resource(self, resource: str) -> str:
        """Return *resource* as the audience it is; raises `Problem(NOT_FOUND)`."""
        if resource.lower() not in self._known:
            shown = resource[:_MAX_LENGTH].encode("ascii", "backslashreplace").decode()
            raise Problem(Kind.NOT_FOUND, f"the resource {shown!r} is not served here")
        return resource
