"""Whether the server lives and serves: for supervisors and load balancers."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute

from muster.endpoints.wire import Operation, PlainWire, routes_of


def routes() -> list[BaseRoute]:
    """Return the routes, for the host root.

    Both answer 200 for as long as requests are served at all: the listeners open after everything
    that a request needs is there, and close before it goes.
    """
    table = [Operation("GET", "/healthz", _alive), Operation("GET", "/readyz", _alive)]
    return routes_of(PlainWire("operations"), table)


async def _alive(_request: Request) -> Response:
    return PlainTextResponse("ok\n", headers={"Cache-Control": "no-store"})
