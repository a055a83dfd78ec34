"""`muster up` and `muster config`: settings from flags, and starts that fail."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from muster.errors import Kind, Problem


@pytest.fixture
def started(monkeypatch) -> list:
    """The server's part, replaced: collects the settings it was given."""
    collected: list = []
    module = ModuleType("muster.app")
    module.run = collected.append
    monkeypatch.setitem(sys.modules, "muster.app", module)
    for name in ("MUSTER_READY_FILE", "MUSTER_HTTPS_PORT"):
        monkeypatch.delenv(name, raising=False)
    return collected


def test_flags_win_over_variables_over_the_file(muster, started, monkeypatch, tmp_path):
    """And what nobody set is the default."""
    file = tmp_path / "muster.toml"
    file.write_text('https-port = 1001\nhttp-port = 1002\ndomain = "iot.test"\n')
    monkeypatch.setenv("MUSTER_HTTP_PORT", "2002")
    assert muster("up", "--config", str(file), "--https-port", "3001")[0] == 0
    (settings,) = started
    assert (settings.https_port, settings.http_port, settings.domain) == (3001, 2002, "iot.test")
    assert (settings.mqtts_port, settings.data) == (8883, Path("var"))


def test_every_flag_reaches_its_setting(muster, started, tmp_path):
    """No flag is accepted and forgotten."""
    flags = {
        "data": str(tmp_path / "d"), "host": "0.0.0.0", "domain": "iot.test",
        "names": "a.test,b.test",
        "https-port": "1", "mqtts-port": "2", "http-port": "3", "ready-file": str(tmp_path / "r"),
        "workers": "1", "log-format": "json", "log-level": "error",
    }  # fmt: skip
    arguments = [part for name, value in flags.items() for part in (f"--{name}", value)]
    assert muster("up", *arguments)[0] == 0
    (settings,) = started
    shown = {name: getattr(settings, name.replace("-", "_")) for name in flags}
    assert {name: str(value) for name, value in shown.items() if name != "names"} == {
        name: value for name, value in flags.items() if name != "names"
    }
    assert settings.names == ("a.test", "b.test")


@pytest.mark.parametrize(
    "problem", [Problem(Kind.UNAVAILABLE, "port 8883 is in use"), Problem(Kind.FORBIDDEN, "no")]
)
def test_a_server_that_cannot_start_is_exit_2(muster, started, monkeypatch, problem):
    """One line, whatever kind of problem it is."""

    def refuse(_: object) -> None:
        raise problem

    monkeypatch.setattr(sys.modules["muster.app"], "run", refuse)
    assert muster("up") == (2, "", f"muster: {problem.detail}\n")


def test_a_bad_setting_names_itself_and_its_source(muster, started, monkeypatch):
    """So that one knows what to change where."""
    monkeypatch.setenv("MUSTER_HTTPS_PORT", "99999")
    status, _, err = muster("up")
    assert status == 2
    assert "https-port (MUSTER_HTTPS_PORT)" in err
    assert started == []


def test_settings_are_shown_with_where_they_came_from(muster, monkeypatch):
    """`muster config show` in both forms."""
    monkeypatch.setenv("MUSTER_HTTPS_PORT", "9443")
    document = json.loads(muster("config", "show", "--json")[1])
    assert document["https_port"] == {"value": "9443", "source": "MUSTER_HTTPS_PORT"}
    assert document["data"]["source"] == "default"
    assert "MUSTER_HTTPS_PORT" in muster("config", "show")[1]
