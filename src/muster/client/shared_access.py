"""The keys and connection strings with which Azure's IoT services are called."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from muster.errors import Problem
from muster.protocols import connection_string
from muster.protocols.sas import build_token

# Long enough for one call and its retries, short enough to be worthless in a log.
TOKEN_SECONDS = 600


@dataclass(frozen=True, slots=True)
class SharedAccessKey:
    """A shared access policy's name and one of its keys (base64)."""

    name: str
    value: str = field(repr=False)

    def token(self, resource: str, now: datetime, seconds: int = TOKEN_SECONDS) -> str:
        """Return a token for *resource* that ends *seconds* after *now*.

        Raises `Problem(MALFORMED)`, which names the key, when no service could take it.
        """
        try:
            return build_token(resource, self.value, int(now.timestamp()) + seconds, self.name)
        except Problem as problem:
            raise Problem(
                problem.kind, f"the shared access key {self.name!r}: {problem.detail}"
            ) from None


@dataclass(frozen=True, slots=True)
class ConnectionString:
    """A service connection string: the host (with a port when it is not 443) and a key."""

    hostname: str
    key: SharedAccessKey

    @classmethod
    def parse(cls, text: str) -> ConnectionString:
        """Read `HostName=…;SharedAccessKeyName=…;SharedAccessKey=…`; other fields are passed over.

        Raises `Problem(MALFORMED)` for anything else, and never repeats the text: it holds a key.
        """
        parsed = connection_string.parse_connection_string(text)
        return cls(parsed.hostname, SharedAccessKey(parsed.key_name, parsed.key))

    def render(self) -> str:
        """Return the text form. It is a secret."""
        return connection_string.ConnectionString(
            self.hostname, self.key.name, self.key.value
        ).render()
