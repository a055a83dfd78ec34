"""What every HTTP wire does alike: refusals, bugs, and what is logged of either."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from structlog.testing import capture_logs
from tests.support.hub import ManualClock, MemoryHubs, a_hub

from muster.endpoints.ca import http as ca_http
from muster.endpoints.control.wire import ResourceManagerWire
from muster.endpoints.hub.wire import HubWire, TwinWire
from muster.endpoints.provisioning import http as provisioning_service_http
from muster.endpoints.service_door import hub_door
from muster.endpoints.tokens import http as token_http
from muster.endpoints.wire import (
    Operation,
    PlainWire,
    Wire,
    WordedProblem,
    retry_after_seconds,
    routes_of,
)
from muster.errors import Kind, Problem
from muster.model.principal import Principal, PrincipalKind, Role
from muster.model.quiet import QuietLog
from muster.model.resource import Right
from muster.observe import refusals

CLOCK = ManualClock()
OWNER = Principal("t", "object", PrincipalKind.USER, "owner", roles=frozenset({Role.OWNER}))
SECRET = "a detail of ours: /var/lib/muster/keys"


async def authenticate(request: Request) -> Principal:
    """Let the owner in, and nobody else."""
    if request.headers.get("authorization") != "Bearer owner":
        raise Problem(Kind.UNAUTHENTICATED, "the token is not one of ours")
    return OWNER


def _hub_door() -> Any:
    return hub_door(MemoryHubs(a_hub()), authenticate, CLOCK)


# The wires by class, and where in a bug's answer the tracking id stands, if the form has a place.
WIRES: dict[type[Wire[Any]], tuple[Wire[Any], Any]] = {
    type(wire): (wire, place)
    for wire, place in (
        (PlainWire("plain"), None),
        (HubWire(_hub_door()), lambda a: a.json()["ExceptionMessage"].removeprefix("Tracking ID:")),
        (TwinWire(_hub_door(), CLOCK), lambda a: json.loads(a.json()["Message"])["trackingId"]),
        (
            provisioning_service_http._ServiceWire(_hub_door(), CLOCK),
            lambda a: a.json()["trackingId"],
        ),
        (
            ResourceManagerWire(authenticate, cast("Any", None), "https://localhost/t"),
            lambda a: a.headers["x-ms-request-id"],
        ),
        (ca_http._ResultWire(authenticate), None),
        (ca_http._PlainWire(authenticate), None),
        (ca_http._JsonWire(authenticate), None),
        (token_http._OAuthWire(CLOCK), lambda a: a.json()["trace_id"]),
        (token_http._AppServiceWire(), None),
        (token_http._MetadataWire(), None),
    )
}
BUGS = {
    HubWire: {"Message": "ErrorCode:ServerError;internal error"},
    ResourceManagerWire: {"error": {"code": "InternalServerError", "message": "internal error"}},
    provisioning_service_http._ServiceWire: {"errorCode": 500001, "message": "internal error"},
    ca_http._ResultWire: {"Success": False, "Message": "internal error"},
    ca_http._JsonWire: {"error": {"code": "Internal", "message": "internal error"}},
    token_http._OAuthWire: {
        "error": "server_error", "error_description": "AADSTS50000: internal error",
    },
    token_http._AppServiceWire: {"statusCode": 500, "message": "internal error"},
    token_http._MetadataWire: {"error": "server_error", "error_description": "internal error"},
}  # fmt: skip
ALL = pytest.mark.parametrize("kind", WIRES, ids=lambda kind: kind.__name__.strip("_"))


@pytest.fixture(autouse=True)
def _standing_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """All lines are of one second, and no other test's count."""
    monkeypatch.setattr(refusals, "_QUIET", QuietLog(monotonic=lambda: 1.0, lines_per_second=5))


async def raising(error: Exception, wire: Wire[Any], **headers: str) -> httpx2.Response:
    """Return what the owner is told by an operation that raises *error*."""

    async def handler(_call: Any) -> Response:
        raise error

    operation = Operation(
        "GET", "/x/{id}", handler, "Microsoft.Devices/x/read", Right.REGISTRY_READ
    )
    app = Starlette(routes=routes_of(wire, [operation]))
    transport = httpx2.ASGITransport(app, client=("127.0.0.1", 1))
    async with httpx2.AsyncClient(transport=transport, base_url="https://hub1.example") as client:
        sent = {"authorization": "Bearer owner", **headers}
        return await client.get("/x/anything", headers=sent)


def concrete(kind: type[Any]) -> Iterator[type[Wire[Any]]]:
    """Yield every wire there is."""
    for below in kind.__subclasses__():
        if not below.__abstractmethods__:
            yield below
        yield from concrete(below)


def test_no_wire_is_forgotten() -> None:
    """A new one is driven through these tests too."""
    assert {one for one in concrete(Wire) if one.__module__.startswith("muster.")} == set(WIRES)
    assert len({wire.name for wire, _ in WIRES.values()}) == len(WIRES)


@ALL
async def test_a_bug_is_told_as_internal_and_no_more(kind: type[Wire[Any]]) -> None:
    """In the wire's own form, with its tracking id; the log has the traceback, once."""
    wire, place = WIRES[kind]
    error = RuntimeError(SECRET)
    with capture_logs() as logs:
        answer = await raising(error, wire)
    assert answer.status_code == 500
    assert "internal error" in answer.text
    assert SECRET not in answer.text
    assert SECRET.encode() not in b"".join(value for _, value in answer.headers.raw)
    if kind in BUGS:
        assert answer.json().items() >= BUGS[kind].items()
    [line] = logs
    assert (line["log_level"], line["exc_info"]) == ("error", error)
    assert line["event"] == f"a request of the {wire.name} wire failed"
    assert (line["method"], line["operation"]) == ("GET", "/x/{id}")
    if place is not None:
        assert place(answer) == line["tracking_id"]


@ALL
async def test_a_bug_at_the_door_is_a_bug_too(kind: type[Wire[Any]], monkeypatch: Any) -> None:
    """Whoever judges the caller may fail like anything else."""
    wire, _ = WIRES[kind]

    async def enter(*_: Any) -> Any:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(wire, "enter", enter)
    with capture_logs() as logs:
        answer = await raising(AssertionError("not reached"), wire)
    assert (answer.status_code, len(logs)) == (500, 1)
    assert SECRET not in answer.text


@ALL
@pytest.mark.parametrize("problem", Kind)
async def test_every_problem_is_said_and_noted(kind: type[Wire[Any]], problem: Kind) -> None:
    """With its detail; the log has the tracking id that the peer was shown."""
    wire, place = WIRES[kind]
    with capture_logs() as logs:
        answer = await raising(Problem(problem, "no such luck", retry_after=0.2), wire)
    assert "no such luck" in answer.text
    assert answer.status_code == 200 or 400 <= answer.status_code < 600
    assert answer.headers["retry-after"] == "1"
    [line] = logs
    assert (line["event"], line["wire"]) == ("request refused", wire.name)
    assert (line["kind"], line["why"]) == (problem.value, "no such luck")
    assert (line["method"], line["operation"]) == ("GET", "/x/{id}")
    if place is not None:
        assert place(answer) == line["tracking_id"]


@ALL
async def test_neither_fills_the_disk(kind: type[Wire[Any]]) -> None:
    """A stranger who asks a hundred times is logged a few."""
    wire, _ = WIRES[kind]
    for error in (RuntimeError("bug"), Problem(Kind.MALFORMED, "bad")):
        with capture_logs() as logs:
            for _ in range(30):
                await raising(error, wire)
        assert len(logs) == 5


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.0, 1), (0.4, 1), (1.0, 1), (1.2, 2), (30.0, 30), (59.01, 60)]
)
def test_nobody_is_asked_back_too_early(seconds: float, told: int) -> None:
    """Rounded up, and never 0, which would mean at once."""
    assert retry_after_seconds(seconds) == told


def test_a_worded_problem_keeps_what_it_was() -> None:
    """Only the word is more exact."""
    worded = WordedProblem(Problem(Kind.NOT_FOUND, "gone", retry_after=2.0), "GroupNotFound")
    assert (worded.kind, worded.detail, worded.retry_after) == (Kind.NOT_FOUND, "gone", 2.0)
    assert worded.word == "GroupNotFound"


async def test_routes_remember_their_operations() -> None:
    """What is served is what the table says, so documents can be made from the routes."""

    async def handler(_request: Request) -> Response:
        return PlainTextResponse("done")

    table = [Operation("GET", "/a", handler), Operation("PUT", "/b", handler)]
    wire = PlainWire("plain")
    routes: list[Any] = routes_of(wire, table)
    assert [route.operation for route in routes] == table
    assert all(route.wire is wire for route in routes)
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(Starlette(routes=routes)), base_url="https://x"
    ) as client:
        assert (await client.get("/a")).text == "done"
        assert (await client.get("/b")).status_code == 405
