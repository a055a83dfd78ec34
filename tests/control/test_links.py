"""Linked hubs: connection strings in, masked ones out, keys kept."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from muster.control.links import (
    MAX_LINKED_HUBS,
    MAX_WEIGHT,
    LinkSpecification,
    check_link,
    merge_links,
    parse_link,
)
from muster.errors import Kind, Problem
from muster.ids import ETag
from muster.model.resource import AccessPolicy, Hub, LinkedHub, ResourceAddress, Right
from muster.protocols.connection_string import mask_connection_string

KEY = "c2VjcmV0LXNlY3JldC1zZWNyZXQ="
STRING = f"HostName=Hub.example:8443;SharedAccessKeyName=iothubowner;SharedAccessKey={KEY}"
LINK = LinkedHub("hub.example", STRING, "local", False, 7)


def refused(call: Any, *args: Any, **kwargs: Any) -> Problem:
    """Return why *call* is refused; never with the key in it."""
    with pytest.raises(Problem) as caught:
        call(*args, **kwargs)
    assert KEY not in caught.value.detail
    return caught.value


def test_a_connection_string_is_taken_apart() -> None:
    """The host in lower case and without its port; a trailing semicolon does not matter."""
    for text in (STRING, STRING + ";", STRING.replace("HostName", "hostname")):
        parsed = parse_link(text)
        assert (parsed.hostname, parsed.key_name, parsed.key) == ("hub.example", "iothubowner", KEY)
        assert KEY not in repr(parsed)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "HostName=h",
        "SharedAccessKeyName=a;SharedAccessKey=b",
        f"HostName=;SharedAccessKeyName=a;SharedAccessKey={KEY}",
        f"HostName=a b;SharedAccessKeyName=a;SharedAccessKey={KEY}",
        f"HostName=a/b;SharedAccessKeyName=a;SharedAccessKey={KEY}",
        f"HostName=https://a;SharedAccessKeyName=a;SharedAccessKey={KEY}",
        f"{STRING};HostName=other",
        f"{STRING};DeviceId=d",
        "x" * 10_000,
    ],
)
def test_other_strings_are_refused(text: str) -> None:
    """Unknown, missing and doubled fields, and hosts that are none."""
    assert refused(parse_link, text).kind is Kind.MALFORMED


def test_what_was_shown_can_be_put_back() -> None:
    """A masked key, or only the host's name, keeps the stored key and everything left out."""
    for entry in (
        LinkSpecification(connection_string=mask_connection_string(STRING)),
        LinkSpecification(hostname="HUB.example"),
    ):
        assert merge_links([entry], [LINK]) == (LINK,)
    changed = LinkSpecification(hostname="hub.example", allocation_weight=0, location="north")
    (after,) = merge_links([changed], [LINK])
    assert (after.allocation_weight, after.location) == (0, "north")
    assert merge_links([], [LINK]) == ()


def test_a_new_link_has_defaults() -> None:
    """It takes part in allocation with weight one."""
    (link,) = merge_links([LinkSpecification(STRING, location="local")], [])
    assert link == LinkedHub("hub.example", STRING, "local", True, 1)


@pytest.mark.parametrize(
    ("wanted", "kind"),
    [
        ([LinkSpecification()], Kind.MALFORMED),
        ([LinkSpecification(mask_connection_string(STRING), location="l")], Kind.MALFORMED),
        ([LinkSpecification(hostname="hub.example", location="l")], Kind.MALFORMED),
        ([LinkSpecification(STRING)], Kind.MALFORMED),
        ([LinkSpecification(STRING, location="")], Kind.MALFORMED),
        ([LinkSpecification(STRING, location="a\nb")], Kind.MALFORMED),
        ([LinkSpecification(STRING, "other.example", "l")], Kind.MALFORMED),
        ([LinkSpecification(STRING, location="l", allocation_weight=-1)], Kind.MALFORMED),
        (
            [LinkSpecification(STRING, location="l", allocation_weight=MAX_WEIGHT + 1)],
            Kind.MALFORMED,
        ),
        ([LinkSpecification(STRING, location="l")] * 2, Kind.CONFLICT),
        (
            [
                LinkSpecification(STRING.replace("Hub", f"h{n}"), location="l")
                for n in range(MAX_LINKED_HUBS + 1)
            ],
            Kind.CONFLICT,
        ),
    ],
)
def test_bad_links_are_refused(wanted: list[LinkSpecification], kind: Kind) -> None:
    """A key that was never there cannot be kept; hosts are linked once."""
    assert refused(merge_links, wanted, []).kind is kind


def a_hub(*rights: Right) -> Hub:
    """Return the hub that `LINK` leads to."""
    return Hub(
        id="1",
        address=ResourceAddress("s", "g", "hub"),
        hostname="hub.example",
        etag=ETag("x"),
        created=datetime(2026, 11, 23, tzinfo=UTC),
        partition_count=4,
        retention_days=1,
        policies=(AccessPolicy("iothubowner", "other", KEY, frozenset(rights)),),
    )


def test_a_hub_of_ours_is_checked() -> None:
    """It has to exist, know the key, and let it write; a hub elsewhere is not asked."""
    check_link(LINK, a_hub(Right.REGISTRY_WRITE), ours=True)
    check_link(LINK, None, ours=False)
    assert refused(check_link, LINK, None, ours=True).kind is Kind.MALFORMED
    assert (
        "may not write" in refused(check_link, LINK, a_hub(Right.REGISTRY_READ), ours=True).detail
    )
    wrong = LinkedHub("hub.example", STRING.replace(KEY, "AAAA"), "local")
    assert "key" in refused(check_link, wrong, a_hub(Right.REGISTRY_WRITE), ours=False).detail
