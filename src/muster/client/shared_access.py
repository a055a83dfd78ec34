"""The keys and connection strings with which Azure's IoT services are called."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from muster.errors import Kind, Problem
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
        """Read `HostName=…;SharedAccessKeyName=…;SharedAccessKey=…`.

        Raises `Problem(MALFORMED)` for anything else, and never repeats the text: it holds a key.
        """
        values: dict[str, str] = {}
        for part in text.strip().strip(";").split(";"):
            name, separator, value = part.partition("=")
            if not separator or not value or name.strip().lower() in values:
                raise Problem(Kind.MALFORMED, _EXPECTED)
            values[name.strip().lower()] = value.strip()
        try:
            return cls(
                values["hostname"],
                SharedAccessKey(values["sharedaccesskeyname"], values["sharedaccesskey"]),
            )
        except KeyError:
            raise Problem(Kind.MALFORMED, _EXPECTED) from None

    def render(self) -> str:
        """Return the text form. It is a secret."""
        return (
            f"HostName={self.hostname};SharedAccessKeyName={self.key.name};"
            f"SharedAccessKey={self.key.value}"
        )


_EXPECTED = "a service connection string reads HostName=…;SharedAccessKeyName=…;SharedAccessKey=…"
