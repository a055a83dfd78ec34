"""The `?name=value&...` at the end of a request's topic."""

from __future__ import annotations

import re

from muster.errors import Kind, Problem

# UUIDs have 36 characters; an answer's topic repeats what the request said.
MAX_REQUEST_ID_LENGTH = 256
REQUEST_ID = "$rid"
_REQUEST_ID = re.compile(r"[\x21-\x7e]+\Z")


def parse_query(text: str) -> dict[str, str]:
    """Return the values in *text*, still encoded. Raises `Problem(MALFORMED)` if a name repeats.

    *text* begins with `?`, after the slash that ends a topic. Parts without `=` mean nothing.
    """
    if not text.startswith("?"):
        raise Problem(Kind.MALFORMED, "the topic of a request ends in /? and its parameters")
    values: dict[str, str] = {}
    for part in text[1:].split("&"):
        name, equals, value = part.partition("=")
        if not equals:
            continue
        if name in values:
            raise Problem(Kind.MALFORMED, f"{name[:40]!r} comes twice in a topic")
        values[name] = value
    return values


def request_id(values: dict[str, str]) -> str:
    """Return the request's `$rid` exactly as it was sent, for the answer to repeat.

    Raises `Problem(MALFORMED)` when it is missing, empty, too long or not visible ASCII.
    """
    rid = values.get(REQUEST_ID, "")
    if len(rid) > MAX_REQUEST_ID_LENGTH or _REQUEST_ID.match(rid) is None:
        raise Problem(
            Kind.MALFORMED,
            f"a request needs a $rid of 1 to {MAX_REQUEST_ID_LENGTH} visible ASCII characters",
        )
    return rid
