"""Tasks that somebody owns: none is lost to the garbage collector, none fails in silence.

And `begin`, for work that mostly has nothing to wait for and then needs no task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any, Generic, TypeVar

import structlog

T = TypeVar("T")

_LOG = structlog.get_logger("muster.net")


class TaskSet:
    """The tasks of a listener's connections."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """Run *work*; an exception that leaves it is a bug and is logged with its traceback."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        # Registered by the creator: a task that registers itself can be missed by `close`.
        self.tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def close(self, timeout: float) -> int:  # noqa: ASYNC109 - a deadline, then cancellation: not what asyncio.timeout does
        """Wait *timeout* seconds for all tasks, cancel the rest; return how many those were."""
        tasks = set(self.tasks)
        if not tasks:
            return 0
        _done, late = await asyncio.wait(tasks, timeout=timeout)
        for task in late:
            task.cancel()
        if late:
            # A second for their clean-up; a task that ignores its cancellation is left behind.
            await asyncio.wait(late, timeout=1.0)
        return len(late)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.error("a task failed", task=task.get_name(), exc_info=error)


class Unfinished(Generic[T]):
    """What is left of a coroutine that `begin` ran up to its first wait. Await it, once."""

    __slots__ = ("_awaited", "_work")

    def __init__(self, work: Coroutine[Any, Any, T], awaited: Any) -> None:
        self._work = work
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, T]:
        work, awaited = self._work, self._awaited
        while True:
            failure: BaseException | None = None
            try:
                answer = yield awaited
            except GeneratorExit:
                work.close()
                raise
            except BaseException as error:  # noqa: BLE001 - a cancellation most of all is for *work*
                failure = error
            try:
                awaited = work.send(answer) if failure is None else work.throw(failure)
            except StopIteration as end:
                result: T = end.value
                return result


def begin(work: Coroutine[Any, Any, T]) -> T | Unfinished[T]:
    """Run *work* now, outside any task, up to its first wait or its end.

    Returns its result, or what is left to be awaited (by a task). Raises what *work* raises.
    """
    try:
        awaited = work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    return Unfinished(work, awaited)
