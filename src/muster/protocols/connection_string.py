"""Connection strings of hubs and services: read, written and shown masked.

    HostName={host};SharedAccessKeyName={policy};SharedAccessKey={key}

Rules:

1. Fields come in any order, each once and with a value. Their names are compared without case;
   spaces around names and values, and a semicolon at the end, do not count.
2. The three fields have to be there. Whether others may be beside them is the caller's to say.
3. It is a secret: no error repeats it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from muster.errors import Kind, Problem

# A host name of 253, a policy of 64 and a key of 88 characters, with their names and a port.
MAX_LENGTH = 512
MASK = "****"
_HOST, _KEY_NAME, _KEY = "HostName", "SharedAccessKeyName", "SharedAccessKey"
_REQUIRED = (_HOST, _KEY_NAME, _KEY)
_SPELLING = {name.lower(): name for name in _REQUIRED}
_KEY_FIELD = re.compile(rf"({_KEY}\s*=)[^;]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ConnectionString:
    """A connection string, taken apart.

    `hostname` is as it was written, with a port or without, and not checked; nor is the key.
    `others` are the names of the fields that are none of the three.
    """

    hostname: str
    key_name: str
    key: str = field(repr=False)
    others: tuple[str, ...] = ()

    @property
    def is_masked(self) -> bool:
        """Whether the key was replaced by asterisks."""
        return self.key == MASK

    def render(self) -> str:
        """Return the text form, without `others`. It is a secret."""
        return f"{_HOST}={self.hostname};{_KEY_NAME}={self.key_name};{_KEY}={self.key}"


def parse_connection_string(text: str) -> ConnectionString:
    """Take a connection string apart; raises `Problem(MALFORMED)` by the rules."""
    if len(text) > MAX_LENGTH:
        raise Problem(Kind.MALFORMED, f"a connection string has at most {MAX_LENGTH} characters")
    fields: dict[str, str] = {}
    for part in text.strip().rstrip(";").split(";"):
        # A key ends in "=", so only the first one separates.
        name, _, value = (piece.strip() for piece in part.partition("="))
        known = _SPELLING.get(name.lower(), name.lower())
        if known in fields or not value:
            raise Problem(
                Kind.MALFORMED,
                f"a connection string is {_HOST}=…;{_KEY_NAME}=…;{_KEY}=…, each once",
            )
        fields[known] = value
    missing = [name for name in _REQUIRED if name not in fields]
    if missing:
        raise Problem(Kind.MALFORMED, f"the connection string lacks {', '.join(missing)}")
    others = tuple(name for name in fields if name not in _REQUIRED)
    return ConnectionString(fields[_HOST], fields[_KEY_NAME], fields[_KEY], others)


def mask_connection_string(text: str) -> str:
    """Return *text* with its key replaced by asterisks, even where it does not parse."""
    return _KEY_FIELD.sub(rf"\g<1>{MASK}", text)
