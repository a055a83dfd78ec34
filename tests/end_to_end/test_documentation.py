"""What the documentation shows is run, as it stands there, against a running server."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.server import MUSTER
from tests.support.tutorial import Tutorial

pytestmark = pytest.mark.end_to_end

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# What the documents say in place of the value that `muster quickstart` printed.
SHOWN_SCOPE = "0ne0000000A"


def blocks(document: str, language: str) -> list[str]:
    """Return the code blocks of *language* in a file under docs."""
    text = (DOCS / document).read_text()
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)


@pytest.fixture
def desk(tutorial: Tutorial, tmp_path: Path) -> Path:
    """Return a directory in which `var` is the server's data directory, as in the documents."""
    (tmp_path / "var").symlink_to(tutorial.server.data)
    return tmp_path


def environment(tutorial: Tutorial) -> dict[str, str]:
    """Return the reader's environment: the program on the path, and nothing about the server."""
    kept = {k: v for k, v in os.environ.items() if not k.endswith(("CA_BUNDLE", "CERT_FILE"))}
    kept.pop("NODE_EXTRA_CA_CERTS", None)
    kept["PATH"] = f"{MUSTER.parent}:{kept['PATH']}"
    kept["NODE_PATH"] = str(ROOT / "node_modules")
    return kept


def run(tutorial: Tutorial, desk: Path, arguments: list[str], **more: str) -> str:
    """Run one program in *desk*; return what it printed, and insist that it went well."""
    finished = subprocess.run(
        arguments,
        cwd=desk,
        env=environment(tutorial) | more,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, f"{arguments}: {finished.stdout}\n{finished.stderr}"
    return finished.stdout


def shell(tutorial: Tutorial, desk: Path, line: str) -> str:
    """Run one shown command line."""
    return run(tutorial, desk, shlex.split(line.replace(".venv/bin/", "")))


def test_the_tutorial(tutorial: Tutorial, desk: Path) -> None:
    """Every command in order; the watcher of section 3 sees the device of section 4."""
    lines = [line for block in blocks("tutorial.md", "sh") for line in block.splitlines()]
    # The server of this test session stands for these; other tests see it start.
    assert lines[:2] == ["make setup", ".venv/bin/muster up --data var"]
    watch = ".venv/bin/muster hub monitor-events"
    before, after = lines[2 : lines.index(watch)], lines[lines.index(watch) + 1 :]
    for line in before:
        shell(tutorial, desk, line)
    watcher = subprocess.Popen(
        [*shlex.split(watch.replace(".venv/bin/", "")), "--json"],
        cwd=desk,
        env=environment(tutorial),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for line in after:
            shell(tutorial, desk, line)
        assert watcher.stdout is not None
        seen = [watcher.stdout.readline() for _ in range(5)]
        assert all('"messageId' in line for line in seen), seen
    finally:
        watcher.send_signal(signal.SIGINT)
        watcher.communicate(timeout=30)


@pytest.fixture
def sensor(tutorial: Tutorial, desk: Path) -> None:
    """Do the shell part of the Python how-to, which the Node how-to builds on."""
    lines = "".join(blocks("how-to/python-device.md", "sh")).splitlines()
    assert lines[-1] == "muster quickstart --json"
    for line in lines:
        shell(tutorial, desk, line)


@pytest.mark.usefixtures("sensor")
def test_the_python_device(tutorial: Tutorial, desk: Path) -> None:
    """The program of the how-to, with the reader's own id scope in it."""
    program = "\n".join(blocks("how-to/python-device.md", "python"))
    program = program.replace(SHOWN_SCOPE, tutorial.id_scope)
    run(tutorial, desk, [sys.executable, "-c", program])


@pytest.mark.usefixtures("sensor")
def test_the_node_device(tutorial: Tutorial, desk: Path) -> None:
    """The program of the how-to, started as it says."""
    (program,) = blocks("how-to/node-device.md", "js")
    (start,) = blocks("how-to/node-device.md", "sh")
    (desk / "device.js").write_text(program.replace(SHOWN_SCOPE, tutorial.id_scope))
    setting, _, command = start.strip().partition(" ")
    name, _, value = setting.partition("=")
    run(tutorial, desk, shlex.split(command), **{name: value})


def test_default_azure_credential(tutorial: Tutorial, desk: Path) -> None:
    """The exports, then a credential with no arguments; and the programs one after the other."""
    (exports,) = blocks("how-to/default-azure-credential.md", "sh")
    ask = (
        "from azure.identity import DefaultAzureCredential as C; "
        "print(C().get_token('https://management.azure.com/.default').token.count('.'))"
    )
    script = f"{exports}\n{shlex.quote(sys.executable)} -c {shlex.quote(ask)}"
    assert run(tutorial, desk, ["bash", "-euc", script]).strip() == "2"
    programs = "\n".join(blocks("how-to/default-azure-credential.md", "python"))
    printed = run(tutorial, desk, [sys.executable, "-W", "ignore::ResourceWarning", "-c", programs])
    assert tutorial.hostname in printed
    assert "Muster Devices" in printed


def test_our_ca_with_azure(tutorial: Tutorial, desk: Path) -> None:
    """The part that needs no Azure: a CA is made, and its certificate downloaded."""
    first = blocks("how-to/azure-with-our-ca.md", "sh")[0]
    for line in first.splitlines():
        shell(tutorial, desk, line.strip())
    assert (desk / "factory-7.pem").read_text().startswith("-----BEGIN CERTIFICATE-----")
