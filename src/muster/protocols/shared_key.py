"""Shared access keys: the one spelling in which devices, policies and signatures use them.

A key is canonical base64 of 16 to 64 bytes. Whoever stores a key and whoever signs with one goes
through here, so that a key that was taken is a key that works.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as Base64Error

from muster.errors import Kind, Problem

# facts/hub.md 2.2: below 16 bytes a key can be searched for, and HMAC-SHA256 folds what is
# longer than 64.
SHORTEST, LONGEST = 16, 64


def parse_key(text: str) -> bytes:
    """Return the bytes of the key *text*; raises `Problem(MALFORMED)`, without quoting it."""
    try:
        key = decode_canonical(text)
    except Problem as problem:
        raise Problem(problem.kind, f"a shared key is {problem.detail}") from None
    if not SHORTEST <= len(key) <= LONGEST:
        raise Problem(
            Kind.MALFORMED, f"a shared key has {SHORTEST} to {LONGEST} bytes before base64"
        )
    return key


def format_key(key: bytes) -> str:
    """Return *key* as text. The caller brings the random bytes, as many as `parse_key` takes."""
    return b64encode(key).decode()


def decode_canonical(text: str) -> bytes:
    """Decode canonical base64: padded, no foreign characters, no stray bits at the end.

    So whatever is stored or signed has one spelling. Raises `Problem(MALFORMED)`.
    """
    try:
        data = b64decode(text, validate=True)
    except (Base64Error, ValueError):
        raise Problem(Kind.MALFORMED, "not base64 [RFC 4648 section 4]") from None
    if b64encode(data).decode() != text:
        raise Problem(Kind.MALFORMED, "not canonical base64 [RFC 4648 section 3.5]")
    return data
