"""`muster demo`: what `make demo` runs, on a loopback address of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile

import pytest
from tests.support.server import DEVICE_SDK_PORT, MUSTER

pytestmark = pytest.mark.end_to_end

# Not 127.0.0.1, whose port 8883 the server of this session holds.
HOST = "127.0.0.78"


def run_demo() -> subprocess.CompletedProcess[str]:
    """Run the demo in an empty directory, with a reader's environment."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MUSTER_")}
    with tempfile.TemporaryDirectory() as directory:
        return subprocess.run(
            [str(MUSTER), "demo", "--host", HOST],
            cwd=directory,
            env=kept,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )


def test_the_demo_ends_with_its_five_messages() -> None:
    """Exit 0, five messages sent, five read back, and each step with its time."""
    finished = run_demo()
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert finished.stdout.count("Sending message:") == 5
    last = finished.stdout.strip().splitlines()[-1]
    assert last.endswith("the five messages came back, as they were sent")


def test_a_taken_port_is_one_line() -> None:
    """Nothing is started, and the line says what to do."""
    with socket.socket() as taken:
        taken.bind((HOST, DEVICE_SDK_PORT))
        taken.listen()
        finished = run_demo()
    assert finished.returncode == 2
    assert finished.stdout == ""
    (line,) = finished.stderr.strip().splitlines()
    assert str(DEVICE_SDK_PORT) in line
