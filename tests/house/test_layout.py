"""The house: what a fresh clone needs is there, locked, and runs anywhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = [ROOT / "package-lock.json", *sorted((ROOT / "requirements").glob("*.lock"))]


@pytest.mark.parametrize(
    "name",
    ["README.md", "LICENSE", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "Makefile",
     "pyproject.toml", "package.json", ".npmrc", ".gitignore"],
)  # fmt: skip
def test_what_a_clone_needs_is_there(name):
    """And is not empty."""
    assert (ROOT / name).stat().st_size > 0


@pytest.mark.parametrize("name", [".ci/run", "tests/system-packages", "requirements/lock.sh"])
def test_scripts_run(name):
    """They are executable, say their shell, and stop at the first error; bash can read them."""
    script = ROOT / name
    assert os.access(script, os.X_OK)
    text = script.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert re.search(r"^set -eu", text, re.MULTILINE)
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_locks_say_what_and_never_from_where(lock):
    """Versions and hashes; an address would tie the build to one network."""
    for line in lock.read_text().splitlines():
        assert "resolved" not in line
        assert "--index-url" not in line
        assert "--find-links" not in line
        assert " @ " not in line or "://" not in line, line


def test_node_packages_are_locked_by_hash():
    """Each has an integrity, and the lock holds what package.json asks for."""
    asked = json.loads((ROOT / "package.json").read_text())["devDependencies"]
    lock = json.loads((ROOT / "package-lock.json").read_text())
    assert lock["packages"][""]["devDependencies"] == asked
    for path, package in lock["packages"].items():
        assert not path or package["integrity"].startswith("sha512-"), path
    for name, version in asked.items():
        assert lock["packages"][f"node_modules/{name}"]["version"] == version


def test_python_packages_are_locked_by_hash():
    """Every requirement has an exact version and a hash."""
    for lock in LOCKS[1:]:
        entries = re.split(r"\n(?=\S)", lock.read_text().strip())
        for entry in entries:
            if not entry.startswith("#"):
                assert re.match(r"[A-Za-z0-9_.\[\],-]+==\S+ \\\n", entry), entry.splitlines()[0]
                assert "--hash=sha256:" in entry


def test_present_packages_need_nothing():
    """The script is quiet when all is there."""
    done = subprocess.run(
        ["/bin/bash", ROOT / "tests" / "system-packages", "test"], capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_missing_packages_are_named_with_the_command(tmp_path):
    """Who is not root is told what to type."""
    (tmp_path / "id").write_text("#!/bin/sh\necho 1000\n")
    (tmp_path / "id").chmod(0o755)
    done = subprocess.run(
        ["/bin/bash", ROOT / "tests" / "system-packages", "test"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "sudo apt-get update && sudo apt-get install" in done.stderr
    assert done.stderr.rstrip().endswith("openssl nodejs npm")
