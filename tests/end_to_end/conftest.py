"""One server for all official clients: on the ports that they hard-code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.server import (
    DEVICE_SDK_PORT,
    WEBSOCKET_SDK_PORT,
    MusterProcess,
    can_bind,
    free_port,
    running,
    sdk_ports,
)
from tests.support.tutorial import Tutorial


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MusterProcess]:
    """Run one server for the whole session on the SDKs' ports."""
    with sdk_ports():
        if not can_bind(DEVICE_SDK_PORT):
            pytest.fail(f"port {DEVICE_SDK_PORT} is taken; the device SDKs dial no other")
        privileged = can_bind(WEBSOCKET_SDK_PORT)
        process = MusterProcess(
            tmp_path_factory.mktemp("server"),
            https_port=WEBSOCKET_SDK_PORT if privileged else free_port(),
            mqtts_port=DEVICE_SDK_PORT,
        )
        with running(process):
            yield process


@pytest.fixture(scope="session")
def tutorial(server: MusterProcess) -> Tutorial:
    """Do the tutorial's portal steps once, through `muster quickstart`."""
    return Tutorial(server, server.quickstart())


@pytest.fixture
def device_directory(tmp_path: Path) -> Path:
    """Return a directory for one test's keys and certificates."""
    return tmp_path / "device"
