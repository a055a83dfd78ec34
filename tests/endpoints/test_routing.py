from __future__ import annotations

import uuid

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.testclient import TestClient

from muster.endpoints.routing import CaselessRoute


async def _parameters(request: Request) -> Response:
    return JSONResponse({name: str(value) for name, value in request.path_params.items()})


@pytest.fixture
def client() -> TestClient:
    """A client of two such routes."""
    return TestClient(
        Starlette(
            routes=[
                CaselessRoute("/subscriptions/{sub}/resourceGroups/{group}", _parameters),
                CaselessRoute("/api/CA/{ca:uuid}", _parameters, methods=["POST"]),
            ]
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
