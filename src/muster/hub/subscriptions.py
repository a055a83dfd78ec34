"""What devices subscribed to, kept between their connections.

The Python SDK never subscribes again after a reconnect: it relies on the server's memory of a
session with CleanSession 0 (facts/hub.md 0.7). Kept in memory: after a restart of the server,
devices connect anew and SDKs that trust the session-present flag subscribe again.
"""

from __future__ import annotations

# Devices whose subscriptions are remembered while they are away: some 60 MiB when full. The
# longest away are forgotten first, and find session-present 0 when they come back.
REMEMBERED = 100_000

Key = tuple[str, str, str]  # hub id, device id, generation


class Subscriptions:
    """The filters of each device, with the QoS that was granted."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._kept: dict[Key, dict[str, int]] = {}

    def begin(self, key: Key, *, clean: bool) -> tuple[dict[str, int], bool]:
        """Return the filters to begin a session with, and whether they are an earlier one's.

        The caller changes what is returned in place. A clean session begins with nothing, leaves
        nothing, and forgets what there was (MQTT-3.1.2-6).
        """
        known = self._kept.pop(key, None)
        if clean:
            return {}, False
        filters = {} if known is None else known
        self._kept[key] = filters
        if len(self._kept) > self._remembered:
            del self._kept[next(iter(self._kept))]
        return filters, known is not None
