from __future__ import annotations

import uuid

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.testclient import TestClient

from muster.endpoints.routing import PathRoute


async def _parameters(request: Request) -> Response:
    return JSONResponse({name: str(value) for name, value in request.path_params.items()})


@pytest.fixture
def client() -> TestClient:
    """A client of four such routes."""
    return TestClient(
        Starlette(
            routes=[
                PathRoute(
                    "/subscriptions/{sub}/resourceGroups/{group}",
                    _parameters,
                    methods=["GET"],
                    caseless=True,
                    longest=100,
                ),
                PathRoute("/api/CA/{ca:uuid}", _parameters, methods=["POST"], caseless=True),
                PathRoute("/exact", _parameters, methods=["GET"], head=False),
                PathRoute("/lax/{name}", _parameters, methods=["GET"], final_slash=True),
            ],
        )
    )


@pytest.mark.parametrize("word", ["resourceGroups", "resourcegroups", "RESOURCEGROUPS"])
def test_literal_parts_match_without_case(client, word):
    """Clients disagree on the case of path segments; parameters keep the one they came in."""
    answer = client.get(f"/Subscriptions/Sub-A/{word}/My-Group")
    assert answer.json() == {"sub": "Sub-A", "group": "My-Group"}


def test_converters_still_judge(client):
    """A uuid parameter takes a uuid in any case, and nothing else."""
    identifier = uuid.uuid4()
    assert client.post(f"/API/ca/{str(identifier).upper()}").json() == {"ca": str(identifier)}
    assert client.post("/api/ca/none").status_code == 404
    assert client.get(f"/api/ca/{identifier}").status_code == 405


def test_letters_that_only_fold_to_ascii_do_not_match(client):
    """U+017F folds to s, but is not one: no second spelling of a path slips past a check."""
    assert client.get("/\u017fubscriptions/a/resourceGroups/b").status_code == 404


def test_case_counts_unless_said(client):
    """A route is as exact as Starlette's, and takes no line feed at its end."""
    assert client.get("/exact").status_code == 200
    for path in ("/EXACT", "/exact%0A", "/exacter"):
        assert client.get(path).status_code == 404


def test_a_final_slash_is_taken_where_said(client):
    """Served as if it were not there, and not by a redirect."""
    for path in ("/lax/a", "/lax/a/"):
        answer = client.get(path, follow_redirects=False)
        assert (answer.status_code, answer.json()) == (200, {"name": "a"})


def test_head_can_be_left_out(client):
    """GET brings HEAD along, unless the wire answers it in its own words."""
    assert client.head("/lax/a").status_code == 200
    assert client.head("/exact").status_code == 405


def test_a_path_beyond_the_longest_is_another_s(client):
    """So that something else can say what is wrong with it."""
    path = "/subscriptions/a/resourceGroups/"
    assert client.get(path + "b" * (100 - len(path))).status_code == 200
    assert client.get(path + "b" * (101 - len(path))).status_code == 404
