"""A real `muster up` as a child process, for tests that drive it from outside."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MUSTER = Path(sys.executable).with_name("muster")
DEVICE_SDK_PORT = 8883  # the Python device SDK dials no other
WEBSOCKET_SDK_PORT = 443  # nor do its WebSockets, nor Node's
START_SECONDS = 30


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def can_bind(port: int) -> bool:
    """Return whether this user may listen on *port* now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


@contextmanager
def sdk_ports() -> Iterator[None]:
    """Hold the ports that SDKs hard-code: one test run at a time on this machine."""
    path = Path(tempfile.gettempdir()) / f"muster-sdk-ports-{os.getuid()}.lock"
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@dataclass
class MusterProcess:
    """One server on *directory*. Started by `start`, ended by `stop` or `kill`, startable again."""

    directory: Path
    https_port: int = field(default_factory=free_port)
    mqtts_port: int = field(default_factory=free_port)
    http_port: int = field(default_factory=free_port)
    arguments: tuple[str, ...] = ()
    ready: dict[str, Any] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        """The server's data directory."""
        return self.directory / "data"

    @property
    def ready_file(self) -> Path:
        """Where the server says that it accepts."""
        return self.data / "ready.json"

    @property
    def log(self) -> Path:
        """Everything the server printed, over all its starts."""
        return self.directory / "log"

    @property
    def ca_file(self) -> str:
        """The root that clients must trust."""
        return str(self.ready["server_ca_file"])

    def command(self) -> list[str]:
        """Return the command line of this server."""
        return [
            str(MUSTER), "up", f"--data={self.data}", f"--https-port={self.https_port}",
            f"--mqtts-port={self.mqtts_port}", f"--http-port={self.http_port}", *self.arguments,
        ]  # fmt: skip

    def start(self) -> None:
        """Start and return when every listener accepts."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.ready_file.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
            )
        self._wait_until_ready()
        self.ready = json.loads(self.ready_file.read_text())

    def _wait_until_ready(self) -> None:
        # The table on standard output comes after ready.json is in place: an event, not a poll.
        assert self.process is not None
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], START_SECONDS)
        if not readable or not self.process.stdout.readline():
            self.kill()
            raise RuntimeError(f"muster did not start:\n{self.log.read_text()[-4000:]}")

    def stop(self) -> int:
        """Ask the server to end; return its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self._reap(15)

    def kill(self) -> None:
        """`kill -9`: no farewell, nothing written out."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self._reap(15)

    def _reap(self, seconds: float) -> int:
        assert self.process is not None
        try:
            code = self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code

    def resident_bytes(self) -> int:
        """Return the server's resident memory."""
        assert self.process is not None
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def environment(self) -> dict[str, str]:
        """Return an environment in which official clients trust this server and no other."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("AZURE_", "IDENTITY_"))}
        variables = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
        return kept | dict.fromkeys(variables, self.ca_file) | {
            "MUSTER_READY_FILE": str(self.ready_file)
        }  # fmt: skip

    def run(self, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run `muster …` against this server and return what it printed."""
        return subprocess.run(
            [str(MUSTER), *arguments],
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def quickstart(self) -> dict[str, Any]:
        """Run `muster quickstart --json`; return what it printed."""
        finished = self.run("quickstart", "--json")
        assert finished.returncode == 0, finished.stderr
        answer: dict[str, Any] = json.loads(finished.stdout)
        return answer


@contextmanager
def running(server: MusterProcess) -> Iterator[MusterProcess]:
    """Start *server*; stop it at the end, and insist that it ends well."""
    server.start()
    try:
        yield server
    except BaseException:
        server.kill()
        raise
    if server.process is not None and server.process.poll() is None:
        assert server.stop() == 0
