"""Finding the running server by its ready file."""

from __future__ import annotations

import json

import pytest

from muster.cli.server import find_server, look_for_server
from muster.client.shared_access import ConnectionString, SharedAccessKey
from muster.client.tokens import ClientSecret
from muster.errors import Kind, Problem


def test_the_option_wins_over_the_variable_over_the_default(
    ready_file, ready_document, tmp_path, monkeypatch
):
    """In that order, each naming one file."""
    monkeypatch.chdir(tmp_path)
    assert look_for_server(None, {}) is None
    for place, tenant in (("var/ready.json", "default"), ("variable.json", "variable")):
        file = tmp_path / place
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({**ready_document, "tenant_id": tenant}))
    variable = {"MUSTER_READY_FILE": str(tmp_path / "variable.json")}
    assert find_server(None, {}).ready.tenant_id == "default"
    assert find_server(None, variable).ready.tenant_id == "variable"
    assert find_server(ready_file, variable).ready.tenant_id == "tenant"


def test_what_the_file_says_is_what_is_used(ready_file):
    """Addresses, the administrator's credential, and the CA file beside the ready file."""
    server = find_server(ready_file, {})
    assert server.url == "https://localhost:8443"
    assert (server.mqtt_host, server.mqtt_port) == ("localhost", 8883)
    assert server.server_ca == ready_file.parent / "tls" / "ca.pem"
    assert server.credential == ClientSecret("tenant", "c", "s3cret", "https://localhost:8443")
    assert "s3cret" not in repr(server.credential)


@pytest.mark.parametrize(
    ("url", "host", "shown"),
    [
        ("https://localhost:8443", "localhost", "localhost:8443"),
        ("https://localhost:8443", "localhost:1", "localhost:1"),
        ("https://localhost:443", "localhost", "localhost"),
        ("https://iot.example.org", "hub.example.org", "hub.example.org"),
        ("https://localhost:8443", "[::1]", "[::1]:8443"),
    ],
)
def test_hosts_get_the_port_that_answers(ready_file, ready_document, url, host, shown):
    """A REST API on a port of its own needs it in the connection string."""
    ready_document["endpoints"]["https"] = url
    ready_file.write_text(json.dumps(ready_document))
    connection = ConnectionString(host, SharedAccessKey("n", "a2V5"))
    assert find_server(ready_file, {}).reachable(connection).hostname == shown


@pytest.mark.parametrize(
    "change",
    [{"version": 2}, {"admin": None}, {"endpoints": {"https": "x"}},
     {"endpoints": {"https": "x", "mqtts": "localhost"}}],
)  # fmt: skip
def test_another_document_is_refused_by_name(ready_file, ready_document, change):
    """The file is named; what is wrong with it, too."""
    ready_file.write_text(json.dumps({**ready_document, **change}))
    with pytest.raises(Problem, match=r"ready\.json") as caught:
        find_server(ready_file, {})
    assert caught.value.kind is Kind.MALFORMED


def test_no_server_is_an_error_that_says_what_to_do(tmp_path, monkeypatch):
    """Named or not, in one line."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Problem, match="muster up"):
        find_server(None, {})
    with pytest.raises(Problem, match=r"no ready file .*none\.json"):
        look_for_server(tmp_path / "none.json", {})
    (tmp_path / "not.json").write_text("{")
    with pytest.raises(Problem, match="is not a ready file"):
        look_for_server(tmp_path / "not.json", {})
