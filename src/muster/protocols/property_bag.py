"""IoT Hub's property bag: the last segment of a message's topic.

    {key}[={value}]&...

Rules:

1. Keys and values are percent-encoded each by itself; `+` is a plus sign.
2. A key without `=` has the value None, one with nothing after it the empty string.
3. A key comes once. Encoded and plain spellings of a key are the same key, so that nobody
   can show one value to a check and another to a route.
4. `$.mid` and its like are system properties, everything else is the application's.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from muster.errors import Kind, Problem
from muster.protocols.percent import decode_percent, encode_percent

# All keys and values of a message together, decoded (bytes of UTF-8). Since each key has a
# byte of its own and comes once, it bounds their number too.
MAX_PROPERTIES_SIZE = 8 * 1024
# Every byte percent-encoded, and an = and an & for each of the most keys that fit.
_MAX_BAG_LENGTH = 3 * MAX_PROPERTIES_SIZE + 2 * MAX_PROPERTIES_SIZE

MESSAGE_ID = "$.mid"
CORRELATION_ID = "$.cid"
USER_ID = "$.uid"
TO = "$.to"
CONTENT_TYPE = "$.ct"
CONTENT_ENCODING = "$.ce"
EXPIRY = "$.exp"
OUTPUT_NAME = "$.on"
INTERFACE_ID = "$.ifid"
SUBJECT = "$.sub"
CREATION_TIME = "iothub-creation-time-utc"
SYSTEM_KEYS = frozenset(
    {
        MESSAGE_ID,
        CORRELATION_ID,
        USER_ID,
        TO,
        CONTENT_TYPE,
        CONTENT_ENCODING,
        EXPIRY,
        OUTPUT_NAME,
        INTERFACE_ID,
        SUBJECT,
        CREATION_TIME,
    }
)


class Properties(NamedTuple):
    """A message's properties by their keys; system keys are those of `SYSTEM_KEYS`."""

    system: dict[str, str | None]
    application: dict[str, str | None]


def parse_property_bag(text: str) -> dict[str, str | None]:
    """Return the properties in *text*, in their order. Empty parts between `&` mean nothing.

    Does not check what system properties say, such as whether an expiry is a time.

    Raises:
        Problem(MALFORMED): bad percent-encoding, an empty key, or a key that comes twice.
        Problem(TOO_LARGE): keys and values exceed `MAX_PROPERTIES_SIZE`.
    """
    properties: dict[str, str | None] = {}
    if not text:
        return properties
    if len(text) > _MAX_BAG_LENGTH:
        raise _too_large()
    # Decoding makes nothing longer, so most bags need no counting.
    room = None if len(text) <= MAX_PROPERTIES_SIZE and text.isascii() else MAX_PROPERTIES_SIZE
    for part in text.split("&"):
        if not part:
            continue
        raw_key, equals, raw_value = part.partition("=")
        key = _decode_key(raw_key) if len(raw_key) <= 64 else decode_percent(raw_key)
        value = decode_percent(raw_value) if equals else None
        if not key:
            raise Problem(Kind.MALFORMED, "a property without a key")
        if key in properties:
            raise Problem(Kind.MALFORMED, f"the property {key[:40]!r} comes twice")
        if room is not None:
            room -= _size(key, value)
            if room < 0:
                raise _too_large()
        properties[key] = value
    return properties


def separate(properties: Mapping[str, str | None]) -> Properties:
    """Return the system properties and the application's, apart."""
    system = {key: value for key, value in properties.items() if key in SYSTEM_KEYS}
    application = {key: value for key, value in properties.items() if key not in SYSTEM_KEYS}
    return Properties(system, application)


def encode_property_bag(properties: Mapping[str, str | None]) -> str:
    """Return *properties* as a bag, in their order. The result is one topic segment.

    Raises `Problem(MALFORMED)` for an empty key, U+0000 or half a surrogate pair, and
    `Problem(TOO_LARGE)` beyond `MAX_PROPERTIES_SIZE`.
    """
    parts = []
    size = 0
    for key, value in properties.items():
        if not key or "\0" in key or "\0" in (value or ""):
            raise Problem(Kind.MALFORMED, "a property without a key, or with U+0000")
        try:
            size += _size(key, value)
        except UnicodeEncodeError:
            raise Problem(Kind.MALFORMED, "a property is not Unicode text") from None
        encoded = encode_percent(key)
        parts.append(encoded if value is None else f"{encoded}={encode_percent(value)}")
    if size > MAX_PROPERTIES_SIZE:
        raise _too_large()
    return "&".join(parts)


# A fleet uses few keys, over and over; short ones only, so that the cache stays small.
_decode_key = lru_cache(maxsize=1024)(decode_percent)


def _size(key: str, value: str | None) -> int:
    return len(key.encode()) + len((value or "").encode())


def _too_large() -> Problem:
    return Problem(
        Kind.TOO_LARGE, f"the properties of a message have at most {MAX_PROPERTIES_SIZE} bytes"
    )
