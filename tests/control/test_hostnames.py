"""Host names: the tag, then NAME.DOMAIN, then what works on one machine."""

from __future__ import annotations

import pytest

from muster.control.hostnames import (
    HOSTNAME_TAG,
    hub_hostname,
    is_hostname,
    service_hostname,
)
from muster.errors import Kind, Problem


@pytest.mark.parametrize(
    ("domain", "taken", "tags", "hostname"),
    [
        ("iot.example", [], {}, "plant.iot.example"),
        ("IoT.Example", ["other.iot.example"], {}, "plant.iot.example"),
        ("localhost", [], {}, "localhost"),
        ("LOCALHOST", ["LocalHost"], {}, "127.0.0.2"),
        ("localhost", ["localhost", "127.0.0.2"], {}, "127.0.0.3"),
        ("localhost", ["localhost", "127.0.0.3"], {}, "127.0.0.2"),
        ("localhost", ["127.0.0.2"], {}, "localhost"),
        ("localhost", [], {HOSTNAME_TAG: "Hub.Plant.Example"}, "hub.plant.example"),
        ("iot.example", [], {HOSTNAME_TAG: "127.0.0.7"}, "127.0.0.7"),
        ("192.0.2.1", [], {}, "192.0.2.1"),
    ],
)
def test_a_hubs_hostname(
    domain: str, taken: list[str], tags: dict[str, str], hostname: str
) -> None:
    """contract.md, "Resources and names"."""
    assert hub_hostname("Plant", domain=domain, taken=taken, tags=tags) == hostname


@pytest.mark.parametrize(
    ("domain", "taken", "tags"),
    [
        ("iot.example", ["plant.iot.example"], {}),
        ("localhost", ["x.example"], {HOSTNAME_TAG: "X.example"}),
        ("192.0.2.1", ["192.0.2.1"], {}),
        ("localhost", ["localhost", *[f"127.0.0.{n}" for n in range(2, 255)]], {}),
    ],
)
def test_a_taken_hostname_is_refused(domain: str, taken: list[str], tags: dict[str, str]) -> None:
    """Two hubs never share one; the refusal names the tag that helps."""
    with pytest.raises(Problem, match=HOSTNAME_TAG) as caught:
        hub_hostname("plant", domain=domain, taken=taken, tags=tags)
    assert caught.value.kind is Kind.CONFLICT


@pytest.mark.parametrize(
    "tag", ["", "a b", "a:8883", "-a.example", "a..b", "256.1.1.1", "1.2.3", "a" * 64, "ü.example"]
)
def test_a_tag_has_to_be_a_hostname(tag: str) -> None:
    """It ends up in certificates and in what devices dial."""
    assert not is_hostname(tag)
    with pytest.raises(Problem) as caught:
        hub_hostname("plant", domain="localhost", taken=[], tags={HOSTNAME_TAG: tag})
    assert caught.value.kind is Kind.MALFORMED


@pytest.mark.parametrize(
    ("domain", "hostname"),
    [("localhost", "localhost"), ("iot.example", "line7.iot.example"), ("192.0.2.1", "192.0.2.1")],
)
def test_a_services_hostname(domain: str, hostname: str) -> None:
    """Services may share a host: the id scope tells them apart."""
    assert service_hostname("Line7", domain=domain) == hostname
