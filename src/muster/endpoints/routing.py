"""Routes that match a path as the wire's clients expect.

Azure's resource manager and EZCA treat paths without regard to case and their clients rely on it:
`/resourcegroups/` and `/resourceGroups/` are one. Parameters keep the case they came in.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

Endpoint = Callable[[Request], Awaitable[Response]]


class PathRoute(Route):
    """A `Route` that says how its path is compared.

    *caseless*: without regard to the case of ASCII letters, in converters as well: a `uuid`
    parameter may come in capitals. *final_slash*: with or without one. *longest*: a path of more
    characters is another's. *head*: GET's route takes HEAD too.
    """

    def __init__(
        self,
        path: str,
        endpoint: Endpoint,
        *,
        methods: Collection[str],
        caseless: bool = False,
        final_slash: bool = False,
        head: bool = True,
        longest: int | None = None,
    ) -> None:
        super().__init__(path, endpoint, methods=list(methods))
        if not head:
            self.methods = set(methods)
        self._longest = longest
        pattern = self.path_regex.pattern.removesuffix("$")
        if final_slash and not path.endswith(":path}"):
            pattern += "/?"
        # ASCII: no letter that merely folds to one of ours slips past a check.
        flags = re.IGNORECASE | re.ASCII if caseless else 0
        self.path_regex = re.compile(pattern + r"\Z", flags)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return whether the request is this route's, wholly or but for the method."""
        path = scope["path"]
        if self._longest is not None and len(path) > self._longest:
            return Match.NONE, {}
        # Asked before Starlette does its bookkeeping: most requests are another route's.
        if self.path_regex.match(path) is None:
            return Match.NONE, {}
        return super().matches(scope)
