"""Shared access signatures and connection strings, as Azure's IoT services take them.

A token reads `SharedAccessSignature sr=…&sig=…&se=…[&skn=…]`; `sig` is the HMAC-SHA256, under
the base64-decoded key, of `sr` exactly as it stands in the token, a line feed, and `se`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote

from muster.errors import Kind, Problem

# Long enough for one call and its retries, short enough to be worthless in a log.
TOKEN_SECONDS = 600


@dataclass(frozen=True, slots=True)
class SharedAccessKey:
    """A shared access policy's name and one of its keys (base64)."""

    name: str
    value: str = field(repr=False)

    def token(self, resource: str, now: datetime, seconds: int = TOKEN_SECONDS) -> str:
        """Return a token for *resource* that ends *seconds* after *now*.

        Raises `Problem(MALFORMED)` when the key is not base64.
        """
        expiry = str(int(now.timestamp()) + seconds)
        audience = quote(resource, safe="")
        try:
            secret = base64.b64decode(self.value, validate=True)
        except (binascii.Error, ValueError):
            raise Problem(
                Kind.MALFORMED, f"the shared access key {self.name!r} is not base64"
            ) from None
        digest = hmac.new(secret, f"{audience}\n{expiry}".encode(), hashlib.sha256).digest()
        signature = quote(base64.b64encode(digest).decode(), safe="")
        return (
            f"SharedAccessSignature sr={audience}&sig={signature}&se={expiry}"
            f"&skn={quote(self.name, safe='')}"
        )


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
