"""Routes whose literal parts are compared without case.

Azure's resource manager and EZCA treat paths that way and their clients rely on it:
`/resourcegroups/` and `/resourceGroups/` are one. Parameters keep the case they came in.
"""

from __future__ import annotations

import re
from typing import Any

from starlette.routing import Route


class CaselessRoute(Route):
    """A `Route` that matches its path without regard to case.

    Converters match without case too, so a `uuid` parameter may come in capitals.
    """

    def __init__(self, path: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(path, *args, **kwargs)
        self.path_regex = re.compile(self.path_regex.pattern, re.IGNORECASE | re.ASCII)
