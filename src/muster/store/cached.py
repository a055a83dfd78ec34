"""Writes that make a cache forget, whatever becomes of their caller.

A cache beside the database is stale from the commit on. The commit happens even when the request
that asked for it is cancelled meanwhile (its client hung up), so forgetting must not depend
on that request living on: it is done in a task of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection

from muster.store.database import Database

T = TypeVar("T")


class ForgetfulWriter:
    """Runs changes and calls *forget* after each, on the event loop, before the caller hears."""

    def __init__(self, database: Database, forget: Callable[[], None]) -> None:
        self._database = database
        self._forget = forget
        # Held so that no task is collected half done; the database bounds how many wait.
        self._tasks: set[asyncio.Task[object]] = set()

    async def write(self, change: Callable[[Connection], T]) -> T:
        """Run *change* as `Database.write` does, then forget."""
        task = asyncio.ensure_future(self._run(change))
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    async def _run(self, change: Callable[[Connection], T]) -> T:
        try:
            return await self._database.write(change)
        finally:
            # Also after a failure: whether a commit that broke off took place is not known.
            self._forget()

    def _done(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # the caller heard it, or is gone: either way it was looked at
