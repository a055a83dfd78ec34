"""Percent-encoding as topics, tokens and user names use it (RFC 3986 section 2.1).

`+` is a plus sign and never a space. Decoding happens once: what is still encoded after it
was meant so.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote_to_bytes

from muster.errors import Kind, Problem

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def decode_percent(text: str) -> str:
    """Return *text* decoded.

    Raises `Problem(MALFORMED)` for a `%` without two hexadecimal digits, for bytes that are not
    UTF-8 and for U+0000, which neither MQTT nor a database takes.
    """
    if "%" in text:
        if _BAD_ESCAPE.search(text) is not None:
            raise Problem(Kind.MALFORMED, "a % without two hexadecimal digits [RFC 3986 2.1]")
        try:
            text = unquote_to_bytes(text).decode("utf-8")
        except UnicodeDecodeError:
            raise Problem(Kind.MALFORMED, "percent-encoded bytes that are not UTF-8") from None
    if "\0" in text:
        raise Problem(Kind.MALFORMED, "an encoded U+0000")
    return text


def encode_percent(text: str) -> str:
    """Return *text* with all but letters, digits and `-._~` encoded, upper-case hexadecimal."""
    return quote(text, safe="")
