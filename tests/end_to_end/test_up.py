"""`muster up`: what it prints and writes, how it ends, what it says when it cannot start."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
from pathlib import Path

import pytest
from tests.support.server import MUSTER, MusterProcess, free_port, running

pytestmark = pytest.mark.end_to_end


def fails(*arguments: str) -> str:
    """Run `muster up` with what cannot work; return its one line."""
    finished = subprocess.run(
        [str(MUSTER), "up", *arguments],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert finished.returncode == 2, finished.stderr
    lines = [line for line in finished.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, finished.stderr
    assert "Traceback" not in finished.stderr
    return lines[0]


def test_the_ready_file_is_the_contract(tmp_path: Path) -> None:
    """Its keys are what users and tests rely on, and nobody else can read its secret."""
    other = tmp_path / "elsewhere.json"
    process = MusterProcess(tmp_path, arguments=(f"--ready-file={other}",))
    with running(process) as server:
        ready = server.ready
        assert ready["version"] == 1
        assert server.process is not None
        assert ready["pid"] == server.process.pid
        assert ready["endpoints"]["https"] == f"https://localhost:{server.https_port}"
        assert ready["endpoints"]["mqtts"] == f"localhost:{server.mqtts_port}"
        assert ready["endpoints"]["http"] == f"http://localhost:{server.http_port}"
        assert Path(ready["server_ca_file"]).is_file()
        assert {"tenant_id", "subscription_id", "resource_group", "admin"} <= set(ready)
        assert set(ready["admin"]) == {"client_id", "client_secret", "object_id"}
        assert json.loads(other.read_text()) == ready
        for file in (server.ready_file, other):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_restart_is_the_same_server(tmp_path: Path) -> None:
    """Tenant, subscription, administrator and TLS root outlive the process."""
    process = MusterProcess(tmp_path)
    with running(process) as server:
        first = server.ready
        root = Path(server.ca_file).read_bytes()
    with running(process) as server:
        for key in ("tenant_id", "subscription_id", "admin"):
            assert server.ready[key] == first[key]
        assert Path(server.ca_file).read_bytes() == root


@pytest.mark.parametrize("flag", ["--https-port", "--mqtts-port", "--http-port"])
def test_a_taken_port_is_named(tmp_path: Path, flag: str) -> None:
    """One line: which port, which setting, what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = {name: free_port() for name in ("--https-port", "--mqtts-port", "--http-port")}
        settings[flag] = port
        line = fails(f"--data={tmp_path / 'data'}", *(f"{k}={v}" for k, v in settings.items()))
    assert str(port) in line
    assert flag.removeprefix("--") in line


def test_a_data_directory_in_use_is_named(tmp_path: Path) -> None:
    """Two servers on one database would be two writers."""
    with running(MusterProcess(tmp_path)) as server:
        line = fails(
            f"--data={server.data}", f"--https-port={free_port()}",
            f"--mqtts-port={free_port()}", f"--http-port={free_port()}",
        )  # fmt: skip
    assert str(server.data) in line


def test_a_data_path_that_is_no_directory_is_named(tmp_path: Path) -> None:
    """The path is in the line."""
    file = tmp_path / "file"
    file.write_text("")
    assert str(file) in fails(f"--data={file}")


def test_a_data_directory_that_others_can_write_is_named(tmp_path: Path) -> None:
    """Somebody else could put another administrator's secret there."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    line = fails(f"--data={shared}")
    assert f"chmod go-w {shared}" in line


@pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
def test_an_unreadable_directory_is_named(tmp_path: Path) -> None:
    """The path is in the line."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o000)
    assert str(closed) in fails(f"--data={closed / 'data'}")


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("--host=example.org", "IP address"),
        ("--domain=no spaces", "DNS name"),
        ("--https-port=99999", "https-port"),
        ("--workers=4", "PostgreSQL"),
        ("--config=/nowhere.toml", "/nowhere.toml"),
    ],
)
def test_a_bad_setting_is_named(tmp_path: Path, argument: str, told: str) -> None:
    """Which one, and what would do."""
    assert told in fails(f"--data={tmp_path / 'data'}", argument)


def test_no_secret_reaches_the_log(tmp_path: Path) -> None:
    """Neither a client secret nor a key nor a token (invariant 9)."""
    with running(MusterProcess(tmp_path)) as server:
        quickstart = server.quickstart()
        secret = server.ready["admin"]["client_secret"]
        key = quickstart["hub"]["connection_string"].partition("SharedAccessKey=")[2]
        header = server.ready["managed_identity"]["header"]
    log = server.log.read_text()
    for kept in (secret, key, header, "Bearer ", "PRIVATE KEY"):
        assert kept not in log


def test_private_files_are_private(tmp_path: Path) -> None:
    """Nothing under the data directory can be read by group or others but what is public."""
    with running(MusterProcess(tmp_path)) as server:
        server.quickstart()
        for path in server.data.rglob("*"):
            if path.is_dir():
                continue
            mode = stat.S_IMODE(path.stat().st_mode)
            public = path.suffix in {".pem", ".cer", ".crl"} and "key" not in path.name
            assert public or not mode & 0o077, f"{path} has mode {mode:o}"
