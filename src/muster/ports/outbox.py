"""What the dispatcher of notices needs of the outbox."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from muster.model.notice import Notice


@dataclass(frozen=True, slots=True)
class PendingNotice:
    """A committed notice that is still to be delivered. `id` grows in the order of commits."""

    id: int
    notice: Notice


class Outbox(Protocol):
    """Committed notices, kept until they were delivered."""

    def on_pending(self, callback: Callable[[], None]) -> None:
        """Call *callback* on the event loop whenever new notices were committed."""
        ...

    async def pending(self, limit: int) -> Sequence[PendingNotice]:
        """Return up to *limit* notices, the oldest first."""
        ...

    async def done(self, ids: Sequence[int]) -> None:
        """Forget the notices *ids*: they were delivered. Harmless for those already forgotten."""
        ...
