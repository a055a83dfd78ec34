"""Settings: which source wins, and what a bad value is told."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

from muster.config import Settings, load_settings
from muster.errors import Kind, Problem


def test_defaults_are_the_contract() -> None:
    """The ports and names that users and tests rely on (contract: `muster up`)."""
    settings, origins = load_settings({}, {})
    assert (settings.https_port, settings.mqtts_port, settings.http_port) == (8443, 8883, 8080)
    assert (settings.host, settings.domain, settings.data) == (
        "127.0.0.1",
        "localhost",
        Path("var"),
    )
    assert {origin.source for origin in origins} == {"default"}


def test_flags_win_over_environment_over_file(tmp_path: Path) -> None:
    """Each source speaks for what the ones before it left open, and is named."""
    file = tmp_path / "muster.toml"
    file.write_text('https-port = 1001\nmqtts_port = 1002\nhttp-port = 1003\nlog-level = "debug"\n')
    settings, origins = load_settings(
        {"https_port": 3001, "mqtts_port": None},
        {"MUSTER_HTTPS_PORT": "2001", "MUSTER_MQTTS_PORT": "2002", "MUSTER_HTTP_PORT": ""},
        file,
    )
    assert (settings.https_port, settings.mqtts_port, settings.http_port) == (3001, 2002, 1003)
    sources = {origin.name: origin.source for origin in origins}
    assert sources["https_port"] == "--https-port"
    assert sources["mqtts_port"] == "MUSTER_MQTTS_PORT"
    assert sources["http_port"] == str(file)
    assert sources["host"] == "default"


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("https_port", "70000", "1 to 65535"),
        ("https_port", "many", "port number"),
        ("mqtts_port", -1, "1 to 65535"),
        ("host", "example.org", "IP address"),
        ("domain", "no spaces allowed", "DNS name"),
        ("domain", "-dash.example", "DNS name"),
        ("names", "a b", "DNS name"),
        ("names", 5, "separated by commas"),
        ("workers", 2, "PostgreSQL"),
        ("workers", "two", "number"),
        ("log_format", "xml", "console, json"),
        ("data", "", "path"),
    ],
)
def test_a_bad_value_is_named_with_its_source(name: str, value: Any, told: str) -> None:
    """One line says which setting, where it came from, and what would do."""
    with pytest.raises(Problem, match=told) as caught:
        load_settings({name: value}, {})
    assert caught.value.kind is Kind.MALFORMED
    assert f"--{name.replace('_', '-')}" in caught.value.detail


def test_two_listeners_cannot_share_a_port() -> None:
    """Contradictory settings do not start; 0 twice is two free ports."""
    with pytest.raises(Problem, match="differ"):
        load_settings({"https_port": 8883}, {})
    load_settings({"https_port": 0, "mqtts_port": 0}, {})


@pytest.mark.parametrize(
    ("text", "told"), [("https_prot = 1", "no setting 'https_prot'"), ("= 1", "not TOML")]
)
def test_a_slip_in_the_file_is_refused(tmp_path: Path, text: str, told: str) -> None:
    """A misspelt name would otherwise be a default that nobody asked for."""
    file = tmp_path / "muster.toml"
    file.write_text(text)
    with pytest.raises(Problem, match=told):
        load_settings({}, {}, file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """No traceback for a path that is not there."""
    with pytest.raises(Problem, match=r"nowhere\.toml"):
        load_settings({}, {}, tmp_path / "nowhere.toml")


def test_own_names_hold_what_clients_dial() -> None:
    """The certificate speaks for the domain, loopback, the address and any name given."""
    settings, _ = load_settings(
        {"host": "192.0.2.7", "domain": "IoT.Example.org.", "names": "hub.example.org, ::2"}, {}
    )
    assert settings.own_names == (
        "iot.example.org", "localhost", "127.0.0.1", "::1", "hub.example.org", "::2", "192.0.2.7",
    )  # fmt: skip
    anywhere, _ = load_settings({"host": "0.0.0.0"}, {})
    assert "0.0.0.0" not in anywhere.own_names


def test_a_loopback_address_of_its_own_is_the_domain() -> None:
    """`localhost` would lead devices to another server; a domain that was given stays."""
    settings, origins = load_settings({"host": "127.0.0.9"}, {})
    assert settings.domain == "127.0.0.9"
    assert [one.source for one in origins if one.name == "domain"] == ["host"]
    settings, _ = load_settings({"host": "127.0.0.9", "domain": "localhost"}, {})
    assert settings.domain == "localhost"
    settings, _ = load_settings({"host": "0.0.0.0"}, {})
    assert settings.domain == "localhost"


def test_settings_are_frozen() -> None:
    """Nobody changes a setting behind the others' backs."""
    with pytest.raises(FrozenInstanceError):
        Settings().https_port = 1  # type: ignore[misc]  # that it is refused is the point
