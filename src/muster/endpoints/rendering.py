"""JSON, the one way it is written here, on every wire."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec
from starlette.responses import Response

JSON = "application/json"
JSON_UTF_8 = "application/json; charset=utf-8"
# DEL too: it is in ASCII, yet no character that one prints.
_BEYOND_ASCII = re.compile(r"[^\x00-\x7e]")


def encode_json(value: object, *, ascii_only: bool = False) -> bytes:
    """Return *value* as JSON in UTF-8, or with everything beyond ASCII escaped (*ascii_only*)."""
    body = msgspec.json.encode(value, enc_hook=_as_text)
    if not ascii_only:
        return body
    # Beyond ASCII there is nothing in JSON but what stands inside strings.
    return _BEYOND_ASCII.sub(_escaped, body.decode()).encode("ascii")


def json_response(
    value: object,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    *,
    media_type: str = JSON,
    ascii_only: bool = False,
) -> Response:
    """Return *value* as an answer."""
    body = encode_json(value, ascii_only=ascii_only)
    return Response(body, status, headers, media_type=media_type)


def _as_text(value: object) -> str:
    # Identifiers are subclasses of str, which the encoder does not take for text.
    if isinstance(value, str):
        return str(value)
    raise TypeError(f"{type(value)} is not JSON")


def _escaped(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be")  # RFC 8259 section 7: beyond U+FFFF as a surrogate pair
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
