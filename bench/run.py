"""One measurement: a server, a generator process, and what both cost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from bench.processes import Server

# uvloop's TLS frees and maps its buffers on every write without these (targets.md).
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "16777216", "MALLOC_TRIM_THRESHOLD_": "536870912"}


@dataclass(frozen=True)
class Measured:
    """What one run gave. `per_core` is operations per CPU-second of the server."""

    count: int
    seconds: float
    server_cpu: float
    load_cpu: float

    @property
    def per_core(self) -> float:
        return self.count / self.server_cpu

    @property
    def load_share(self) -> float:
        """The generator's share of its core: near 1 means that it was the bottleneck in time."""
        return self.load_cpu / self.seconds


class Load:
    """A generator process, told when to start."""

    def __init__(self, kind: str, case: dict[str, Any]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.load", kind, json.dumps(case)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **_MALLOC},
            text=True,
        )
        self._expect("ready")

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the generator ended with {self._process.wait()}")
        return line.strip()

    def _expect(self, word: str) -> None:
        line = self._line()
        if line != word:
            raise RuntimeError(f"the generator said {line!r}, not {word!r}")

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def measure(self, server: Server) -> Measured:
        self.go()
        self._expect("begin")
        before = server.cpu_seconds()
        answer = json.loads(self._line())
        server_cpu = max(server.cpu_seconds() - before, 0.01)
        server.check()
        return Measured(answer["count"], answer["seconds"], server_cpu, answer["cpu"])

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
