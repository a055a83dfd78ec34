"""Identifiers: parsed once at the edge, typed ever after.

Each class is a `str` whose `parse` is the only way in for text that a peer sent.
`parse` raises `Problem(MALFORMED)`; the constructor itself checks nothing and is for
text that this program made or stored.
"""

from __future__ import annotations

import re
import uuid
from typing import Self

from muster.errors import Kind, Problem

# IoT Hub identity registry: case-sensitive, at most 128 of these ASCII characters.
_DEVICE_ID = re.compile(r"[A-Za-z0-9\-.+%_#*?!(),:=@$']{1,128}\Z")
# DPS concepts-service: at most 128, alphanumerics and - . _ :, the last one alphanumeric or dash.
_REGISTRATION_ID = re.compile(r"[A-Za-z0-9\-._:]{0,127}[A-Za-z0-9\-]\Z")
_HEX = re.compile(r"(?:[0-9A-F]{40}|[0-9A-F]{64})\Z")
_ETAG = re.compile(r"[\x21\x23-\x7e]{1,128}\Z")  # RFC 9110 section 8.8.3: etagc without obs-text


class _Text(str):
    __slots__ = ()


class DeviceId(_Text):
    """The name of a device at a hub. Case matters."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return *text* as a device id; raises `Problem(MALFORMED)` when it cannot be one."""
        if _DEVICE_ID.match(text) is None:
            raise Problem(
                Kind.MALFORMED,
                "a device id has 1 to 128 ASCII characters out of "
                "A-Z a-z 0-9 - . + % _ # * ? ! ( ) , : = @ $ '",
            )
        return cls(text)


class RegistrationId(_Text):
    """The name under which a device provisions. Compared by `folded`, kept as received."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return *text* as a registration id; raises `Problem(MALFORMED)` when it cannot be one."""
        if _REGISTRATION_ID.match(text) is None:
            raise Problem(
                Kind.MALFORMED,
                "a registration id has 1 to 128 characters out of A-Z a-z 0-9 - . _ : "
                "and ends with a letter, a digit or a dash",
            )
        return cls(text)

    @property
    def folded(self) -> str:
        """The spelling that equal ids share (DPS: registration ids are case-insensitive)."""
        return self.lower()


class Thumbprint(_Text):
    """A whole SHA-1 (40) or SHA-256 (64) digest of a DER certificate, upper-case hexadecimal."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return *text* without colons and in upper case; raises `Problem(MALFORMED)`."""
        plain = text.replace(":", "").strip().upper()
        if _HEX.match(plain) is None:
            raise Problem(
                Kind.MALFORMED, "a thumbprint is 40 (SHA-1) or 64 (SHA-256) hexadecimal digits"
            )
        return cls(plain)


class ETag(_Text):
    """An entity tag without its quotes: clients send it quoted, unquoted or as `*`."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Strip one layer of quotes; raises `Problem(MALFORMED)` for what cannot be a tag."""
        plain = text.strip().removeprefix("W/")
        if len(plain) >= 2 and plain[0] == plain[-1] == '"':
            plain = plain[1:-1]
        if _ETAG.match(plain) is None:
            raise Problem(Kind.MALFORMED, "an entity tag has 1 to 128 visible ASCII characters")
        return cls(plain)

    @property
    def matches_any(self) -> bool:
        """Whether this is `*`: any existing version will do."""
        return self == "*"


def new_etag() -> ETag:
    """Return a fresh entity tag; versions of one thing never share one."""
    return ETag(uuid.uuid4().hex)


def new_uuid() -> str:
    """Return a random UUID, lower case and hyphenated, as every client here spells them."""
    return str(uuid.uuid4())
