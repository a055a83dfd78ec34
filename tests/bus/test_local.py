"""The local bus delivers to all, whatever one handler does."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from muster.bus.local import LocalBus
from muster.errors import Kind, Problem
from muster.model.notice import Notice

NOTICE = Notice("hub.changed", "hub-1")


async def test_every_subscriber_of_the_topic_is_called() -> None:
    """Equal topics match, others do not; `publish` returns when all have run."""
    bus, seen = LocalBus(), []

    async def first(notice: Notice) -> None:
        await asyncio.sleep(0)
        seen.append(("first", notice))

    async def second(notice: Notice) -> None:
        seen.append(("second", notice))

    bus.subscribe("hub.changed", first)
    bus.subscribe("hub.changed", second)
    bus.subscribe("hub.deleted", first)
    await bus.publish(NOTICE)
    assert sorted(seen, key=lambda item: item[0]) == [("first", NOTICE), ("second", NOTICE)]
    await bus.publish(Notice("nobody.cares", "x"))


async def test_a_failing_handler_is_logged_and_keeps_nobody_from_it() -> None:
    """The others get the notice, the failure goes to the log, the publisher hears nothing."""
    bus, seen = LocalBus(), []

    async def broken(_notice: Notice) -> None:
        raise ValueError("a bug")

    async def sound(notice: Notice) -> None:
        seen.append(notice)

    bus.subscribe("hub.changed", broken)
    bus.subscribe("hub.changed", sound)
    with capture_logs() as logs:
        await bus.publish(NOTICE)
    assert seen == [NOTICE]
    assert [(line["topic"], line["subject"]) for line in logs] == [("hub.changed", "hub-1")]


async def test_a_stuck_handler_is_given_up() -> None:
    """A handler that never returns is cancelled after its time and logged."""
    bus = LocalBus(handler_seconds=0.01)
    cancelled = asyncio.Event()

    async def stuck(_notice: Notice) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    bus.subscribe("hub.changed", stuck)
    with capture_logs() as logs:
        await bus.publish(NOTICE)
    assert cancelled.is_set()
    assert len(logs) == 1


async def test_subscriptions_are_bounded() -> None:
    """A leak of subscriptions is refused before it slows every notice down."""
    bus = LocalBus()

    async def handler(_notice: Notice) -> None: ...

    for _ in range(256):
        bus.subscribe("hub.changed", handler)
    with pytest.raises(Problem) as caught:
        bus.subscribe("hub.changed", handler)
    assert caught.value.kind is Kind.THROTTLED
