"""One shape for every HTTP API: a table of operations, and a wire that has the words.

Rules:

1. An API is data: each operation is a method, a path, what the caller needs for it, and a handler.
   Routes, documentation and the tests of who may what are made from the same tables.
2. Who calls is asked first (`Wire.enter`), and only who may is let on to the handler.
3. A `Problem` is told in the wire's words. `Retry-After` is set here, for every wire.
4. Any other exception is a bug: told as "internal" in the wire's form and no more, with a
   tracking id where the form has one, and logged with its traceback.
5. Every refusal and every bug is logged once, bounded (`observe/refusals.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from math import ceil
from typing import Generic, TypeVar

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute

from muster.endpoints.codes import HTTP_STATUS, INTERNAL_HTTP_STATUS
from muster.endpoints.routing import Endpoint, PathRoute
from muster.errors import Problem
from muster.ids import new_uuid
from muster.model.resource import Right
from muster.observe.refusals import log_bug, note_refusal

# What a peer is told of a bug, on every wire.
INTERNAL = "internal error"

C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class Operation(Generic[C]):
    """One thing that an API does.

    `action` is Azure's name of it, which a caller's role must allow; `right` what a shared access
    policy must have. One without either is open, or decided by the service behind it.
    """

    method: str
    path: str
    handler: Callable[[C], Awaitable[Response]]
    action: str | None = None
    right: Right | None = None


class Wire(ABC, Generic[C]):
    """How an API's requests are let in, and how it words what goes wrong.

    `name` is for the log. The rest says how paths are compared, as in `PathRoute`.
    """

    name: str
    caseless = False
    final_slash = False
    head = True
    longest: int | None = None

    @abstractmethod
    async def enter(self, request: Request, operation: Operation[C]) -> C:
        """Return what the handler needs to know of a caller who may; raises `Problem`."""

    @abstractmethod
    def refuse(self, request: Request, problem: Problem, tracking_id: str) -> Response:
        """Return *problem* in the wire's form. `Retry-After` is not its business."""

    @abstractmethod
    def fail(self, request: Request, tracking_id: str) -> Response:
        """Return "internal error" in the wire's form."""


class WordedProblem(Problem):
    """*problem*, for which the wire has a more exact *word* than its table."""

    def __init__(self, problem: Problem, word: str) -> None:
        super().__init__(problem.kind, problem.detail, retry_after=problem.retry_after)
        self.word = word


class OperationRoute(PathRoute):
    """The route of one operation, which remembers whose it is."""

    def __init__(self, wire: Wire[C], operation: Operation[C]) -> None:
        super().__init__(
            operation.path,
            answering(wire, operation),
            methods=[operation.method],
            caseless=wire.caseless,
            final_slash=wire.final_slash,
            head=wire.head,
            longest=wire.longest,
        )
        self.wire = wire
        self.operation = operation


def routes_of(wire: Wire[C], operations: Iterable[Operation[C]]) -> list[BaseRoute]:
    """Return the routes of a table, in its order: the first that matches serves."""
    return [OperationRoute(wire, operation) for operation in operations]


def answering(wire: Wire[C], operation: Operation[C]) -> Endpoint:
    """Return the endpoint that lets a caller in and does *operation*; it raises nothing."""

    async def endpoint(request: Request) -> Response:
        try:
            try:
                return await operation.handler(await wire.enter(request, operation))
            except Problem as problem:
                return _refused(wire, operation, request, problem)
        except Exception as error:  # noqa: BLE001 - a bug: logged, told as "internal" and no more
            tracking_id = new_uuid()
            log_bug(
                f"a request of the {wire.name} wire failed",
                error,
                method=request.method,
                operation=operation.path,
                tracking_id=tracking_id,
            )
            return wire.fail(request, tracking_id)

    return endpoint


def retry_after_seconds(seconds: float) -> int:
    """Return the whole seconds to tell a peer: never early, and never 0, which means at once."""
    return max(1, ceil(seconds))


def _refused(
    wire: Wire[C], operation: Operation[C], request: Request, problem: Problem
) -> Response:
    tracking_id = new_uuid()
    note_refusal(
        wire.name,
        problem,
        method=request.method,
        operation=operation.path,
        tracking_id=tracking_id,
    )
    response = wire.refuse(request, problem, tracking_id)
    if problem.retry_after is not None:
        response.headers["Retry-After"] = str(retry_after_seconds(problem.retry_after))
    return response


class PlainWire(Wire[Request]):
    """For everybody, with errors as one line of text."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def enter(self, request: Request, operation: Operation[Request]) -> Request:  # noqa: ARG002 - one of the base class
        """Let everybody in."""
        return request

    def refuse(self, request: Request, problem: Problem, tracking_id: str) -> Response:  # noqa: ARG002 - as above
        """Say the detail."""
        return PlainTextResponse(problem.detail, HTTP_STATUS[problem.kind])

    def fail(self, request: Request, tracking_id: str) -> Response:  # noqa: ARG002 - as above
        """Say that it is not the caller's doing."""
        return PlainTextResponse(INTERNAL, INTERNAL_HTTP_STATUS)
