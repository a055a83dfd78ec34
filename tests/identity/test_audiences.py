"""Tokens are for resources that are played here, in the spelling that was asked for."""

from __future__ import annotations

import pytest

from muster.errors import Kind, Problem
from muster.identity.audiences import Audiences, spellings

AUDIENCES = Audiences(own=["https://localhost:8443"])

SCOPES = [
    ("https://management.azure.com/.default", "https://management.azure.com"),
    ("https://management.azure.com//.default", "https://management.azure.com/"),
    ("https://management.core.windows.net/.default", "https://management.core.windows.net"),
    ("https://management.core.windows.net//.default", "https://management.core.windows.net/"),
    ("https://iothubs.azure.net/.default", "https://iothubs.azure.net"),
    (
        "https://azure-devices-provisioning.net/.default",
        "https://azure-devices-provisioning.net",
    ),
    ("https://localhost:8443/.default", "https://localhost:8443"),
    ("HTTPS://Management.Azure.com/.default", "HTTPS://Management.Azure.com"),
]


@pytest.mark.parametrize(("scope", "audience"), SCOPES)
def test_an_audience_is_its_scope_without_default(scope: str, audience: str) -> None:
    """Nothing but /.default is taken off, as the public service does it."""
    assert AUDIENCES.of_scope(scope) == audience


@pytest.mark.parametrize(
    ("scope", "kind"),
    [
        ("", Kind.MALFORMED),
        ("   ", Kind.MALFORMED),
        ("https://management.azure.com", Kind.MALFORMED),
        ("https://management.azure.com/user_impersonation", Kind.MALFORMED),
        (
            "https://management.azure.com/.default https://iothubs.azure.net/.default",
            Kind.MALFORMED,
        ),
        ("https://graph.microsoft.com/.default", Kind.NOT_FOUND),
        ("https://management.azure.com.evil.example/.default", Kind.NOT_FOUND),
        ("https://management.azure.com///.default", Kind.NOT_FOUND),
        ("/.default", Kind.NOT_FOUND),
    ],
)
def test_other_scopes_are_refused(scope: str, kind: Kind) -> None:
    """A token for a resource that is not here would be good only to be passed on."""
    with pytest.raises(Problem) as caught:
        AUDIENCES.of_scope(scope)
    assert caught.value.kind is kind


def test_a_refusal_quotes_safely_and_briefly() -> None:
    """What a client sent comes back escaped and cut."""
    with pytest.raises(Problem) as caught:
        AUDIENCES.of_resource("x\r\n\u202e" + "y" * 10_000)
    assert len(caught.value.detail) < 400
    assert caught.value.detail.isprintable()


def test_spellings_are_two() -> None:
    """Whoever accepts a resource accepts it with and without the slash."""
    assert spellings(["https://a/"]) == {"https://a", "https://a/"}
