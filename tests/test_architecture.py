"""Imports point down, pure code stays pure, and a new room is a decision."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1] / "src" / "muster"

# A package may import only from layers with a smaller number.
# Packages with the same number are siblings, and siblings never meet.
LAYER = {
    "errors": 0, "clock": 0, "ids": 0, "files": 0,
    "model": 1, "certs": 1, "protocols": 1,
    "ports": 2,
    "ca": 3, "provisioning": 3, "hub": 3, "control": 3, "identity": 3,
    "store": 3, "events": 3, "bus": 3, "keystore": 3, "net": 3, "observe": 3, "client": 3,
    "endpoints": 4, "portal": 4, "config": 4,
    "app": 5,
    "cli": 6,
}  # fmt: skip
PURE = {"errors", "ids", "model", "certs", "protocols"}
EFFECTS = {
    "files",
    "asyncio",
    "socket",
    "ssl",
    "sqlite3",
    "time",
    "random",
    "logging",
    "threading",
    "os",
    "pathlib",
    "structlog",
}
# Services reach the world through ports: no sockets, files or databases of their own.
SERVICES = {"ca", "provisioning", "hub", "control", "identity"}
IO_LIBRARIES = {
    "socket",
    "ssl",
    "sqlite3",
    "sqlalchemy",
    "OpenSSL",
    "starlette",
    "uvicorn",
    "httpx2",
    "pathlib",
    "os",
    "files",
}
MODULE_LINES = 500


def modules() -> Iterator[tuple[tuple[str, ...], ast.Module]]:
    """Yield (dotted parts under muster, syntax tree) of every module."""
    for path in sorted(ROOT.rglob("*.py")):
        yield path.relative_to(ROOT).with_suffix("").parts, ast.parse(path.read_text())


def imports() -> Iterator[tuple[str, str, str]]:
    """Yield (importing module, its package, imported top-level name) for every import."""
    for parts, tree in modules():
        name, package = "/".join(parts), parts[0]
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield name, package, _top(alias.name)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{name}: imports are absolute"
                if node.module == "muster":
                    for alias in node.names:
                        yield name, package, alias.name
                else:
                    yield name, package, _top(node.module or "")


def _top(dotted: str) -> str:
    first, _, rest = dotted.partition(".")
    return rest.split(".")[0] if first == "muster" and rest else first


def test_imports_point_down() -> None:
    """No package imports a sibling or anything above it."""
    for name, package, used in imports():
        if package != used and LAYER.get(package, 0) > 0 and used in LAYER:
            assert LAYER[used] < LAYER[package], f"{name} imports {used}"


def test_pure_packages_have_no_effects() -> None:
    """Protocol and certificate code cannot reach a socket, a clock or a log."""
    for name, package, used in imports():
        assert not (package in PURE and used in EFFECTS), f"{name} imports {used}"


def test_services_reach_the_world_through_ports() -> None:
    """A service that opens a socket or a database itself cannot be moved to another process."""
    for name, package, used in imports():
        assert not (package in SERVICES and used in IO_LIBRARIES), f"{name} imports {used}"


def test_only_the_clock_reads_the_clock() -> None:
    """`datetime.now` and friends appear once, so that time can be an argument everywhere else."""
    for parts, tree in modules():
        if parts == ("clock",):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                called = f"{node.value.id}.{node.attr}"
                assert called not in {
                    "datetime.now",
                    "datetime.utcnow",
                    "time.time",
                    "date.today",
                }, f"{'/'.join(parts)}:{node.lineno} reads the clock"


def test_every_package_has_a_layer() -> None:
    """A new top-level name is a decision, so it is written down here."""
    found = {
        p.stem for p in ROOT.iterdir() if p.suffix == ".py" or (p.is_dir() and any(p.glob("*.py")))
    }
    assert found - {"__init__", "__main__"} <= set(LAYER)


def test_modules_fit_in_the_head() -> None:
    """A module that outgrows its budget is split by noun."""
    for path in ROOT.rglob("*.py"):
        if "migrations" not in path.parts:
            lines = path.read_text().count("\n")
            assert lines <= MODULE_LINES, f"{path.relative_to(ROOT)} has {lines} lines"
