"""Check one property bag after another, as they come from one device.

Most bags of a device differ from the one before in a message id or a time stamp. So each part is
looked up among the parts of the last bag, and only new ones are taken apart. What is accepted is
exactly what `parse_property_bag` accepts, at a third of its cost.
"""

from __future__ import annotations

from muster.errors import Kind, Problem
from muster.protocols.property_bag import MAX_PROPERTIES_SIZE, parse_property_bag

# Spellings of keys that are remembered: more than the messages of one device have in practice.
_MAX_KEYS = 64

Part = tuple[str, int]  # the decoded key; the bytes of key and value together


class BagChecker:
    """Holds the parts of one bag: as much as one message brings, whatever a device sends."""

    __slots__ = ("_keys", "_parts")

    def __init__(self) -> None:
        self._parts: dict[str, Part] = {}
        self._keys: dict[str, str] = {}  # as it was spelled: what it means

    def check(self, bag: str) -> None:
        """Raise `Problem` where `parse_property_bag` would."""
        if len(bag) > MAX_PROPERTIES_SIZE:  # rare, and the limit on its raw length is not ours
            parse_property_bag(bag)
            return
        known = self._parts
        parts: dict[str, Part] = {}
        keys: set[str] = set()
        size = 0
        for text in bag.split("&"):
            if not text:
                continue
            part = known.get(text) or self._take_apart(text)
            if part[0] in keys:
                raise Problem(Kind.MALFORMED, f"the property {part[0][:40]!r} comes twice")
            keys.add(part[0])
            parts[text] = part
            size += part[1]
        if size > MAX_PROPERTIES_SIZE:
            raise Problem(
                Kind.TOO_LARGE,
                f"the properties of a message have at most {MAX_PROPERTIES_SIZE} bytes",
            )
        self._parts = parts

    def _take_apart(self, text: str) -> Part:
        spelled, _, value = text.partition("=")
        key = self._keys.get(spelled)
        if key is None or "%" in value or not (value.isascii() and value.isprintable()):
            ((key, decoded),) = parse_property_bag(text).items()
            if len(self._keys) >= _MAX_KEYS:
                self._keys.clear()
            self._keys[spelled] = key
            value = decoded or ""
        return key, len(key.encode()) + len(value.encode())
