"""What the documentation shows exists: commands, options, settings, files, paths, error words."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer.main
from starlette.routing import WebSocketRoute

from muster.app.composition import PublicUrls, compose
from muster.app.directory import open_data_directory
from muster.cli.main import app
from muster.config import Settings
from muster.endpoints import codes
from muster.endpoints.wire import OperationRoute
from muster.errors import Kind
from muster.net.tasks import TaskSet

ROOT = Path(__file__).parents[2]
DOCS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
COMMAND = typer.main.get_command(app)
ASSIGNMENT = re.compile(r"[A-Z_]+=\S*\s+")


def shown_commands(text: str) -> Iterator[str]:
    """Yield every `muster …` command line of shell blocks, and every one in back quotes."""
    for block in re.findall(r"^ *```sh\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            plain = line.strip()
            while found := ASSIGNMENT.match(plain):
                plain = plain[found.end() :]
            plain = plain.removeprefix(".venv/bin/")
            if plain.startswith("muster "):
                yield plain
    yield from re.findall(r"`(muster [a-z][^`\n]*)`", text)


def check(line: str) -> None:
    """Fail unless *line* is a command that exists, with options that it has."""
    words = shlex.split(line)[1:]
    command = COMMAND
    while words and hasattr(command, "commands"):
        assert words[0] in command.commands, f"there is no command {line!r}"
        command = command.commands[words.pop(0)]
    if not hasattr(command, "params"):
        return
    known = {name for parameter in command.params for name in parameter.opts}
    for word in words:
        if word.startswith("--"):
            assert word.partition("=")[0] in known | {"--help"}, f"{line!r}: no option {word}"


def documents() -> list[object]:
    """Return the documents that are there, for parametrization."""
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in DOCS]


@pytest.mark.parametrize("path", documents())
def test_commands_that_are_shown_exist(path):
    """Every command and option in the documentation can be typed."""
    for line in shown_commands(path.read_text()):
        check(line)


def test_the_check_would_notice():
    """A wrong command or option in a block or in a sentence is found."""
    text = "```sh\n.venv/bin/muster hub shov x\nA=1 muster hub show x --nope\n```\n`muster nope`\n"
    shown = list(shown_commands(text))
    assert shown == ["muster hub shov x", "muster hub show x --nope", "muster nope"]
    for line in shown:
        with pytest.raises(AssertionError):
            check(line)


@pytest.mark.parametrize("path", documents())
def test_links_lead_somewhere(path):
    """Relative links name files of the repository."""
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{target} is not there"


@pytest.mark.parametrize("path", documents())
def test_make_targets_that_are_shown_exist(path):
    """`make x` in a block is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for block in re.findall(r"^ *```sh\n(.*?)^ *```", path.read_text(), re.DOTALL | re.MULTILINE):
        for target in re.findall(r"^ *make ([a-z]+)", block, re.MULTILINE):
            assert target in targets, f"make {target}"


def leaves(command: object, path: str) -> Iterator[str]:
    """Yield the full name of every command below *command*."""
    if not hasattr(command, "commands"):
        yield path
        return
    for name, below in command.commands.items():
        yield from leaves(below, f"{path} {name}")


def test_every_command_is_in_the_reference():
    """A command that nobody can look up is not finished."""
    text = (ROOT / "docs/reference/commands.md").read_text()
    missing = [name for name in leaves(COMMAND, "muster") if f"| `{name}` |" not in text]
    assert missing == []


def test_every_setting_is_in_the_reference():
    """With its default, as it is now."""
    text = (ROOT / "docs/reference/settings.md").read_text()
    for entry in fields(Settings):
        shown = "" if entry.default is None else entry.default
        shown = ",".join(shown) if isinstance(shown, tuple) else str(shown)
        row = f"| `{entry.name.replace('_', '-')}` | {f'`{shown}`' if shown else 'none'} |"
        assert row in text, f"docs/reference/settings.md has no row {row}"


# The columns of errors.md: a table of codes.py, and how its words are shown.
COLUMNS: dict[str, Callable[[Any], str]] = {
    "HTTP_STATUS": str,
    "CONNACK_CODE": lambda code: "none" if code is None else str(code),
    "PROVISIONING_CODE": str,
    "HUB_CODE": lambda words: "{} {}".format(*words),
    "RESOURCE_MANAGER_CODE": str,
    "OAUTH_ERROR": lambda words: "{} {}, AADSTS{}".format(*words),
}


def test_every_table_of_words_has_a_column():
    """A wire's table that nobody can look up is not finished."""
    assert set(COLUMNS) == {
        name for name, value in vars(codes).items() if isinstance(value, dict) and name[0] != "_"
    }


@pytest.mark.parametrize("kind", [*Kind, None])
def test_every_kind_of_error_is_in_the_reference(kind):
    """The table says what the code says, of every kind and of bugs."""
    cells = ["a bug" if kind is None else kind.value]
    for name, shown in COLUMNS.items():
        words = getattr(codes, f"INTERNAL_{name}") if kind is None else vars(codes)[name][kind]
        cells.append(shown(words))
    row = f"| {' | '.join(cells)} |"
    assert row in (ROOT / "docs/reference/errors.md").read_text(), row


async def served_operations(directory: Path) -> set[tuple[str, str]]:
    """Return method and path of every operation that the composed program serves."""
    settings = Settings(data=directory / "data", imds="on")
    opened = open_data_directory(settings.data)
    urls = PublicUrls("https://localhost:8443", "http://localhost:8080")

    async def follow_hubs() -> None: ...

    try:
        parts = await compose(settings, opened, urls, TaskSet(), follow_hubs)
        found = set()
        for route in (*parts.https.routes, *parts.http.routes):
            path = re.sub(r":[a-z]+}", "}", route.path)
            if isinstance(route, OperationRoute):
                found.add((route.operation.method, path))
            elif isinstance(route, WebSocketRoute):
                found.add(("WebSocket", path))
            else:  # what says no in the resource manager's form
                assert re.fullmatch(r"/(subscriptions|providers)(/\{rest\})?", path), path
        await parts.close()
    finally:
        opened.close()
    return found


def shown_operations(text: str) -> set[tuple[str, str]]:
    """Return method and path of every row of http.md."""
    group = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Devices"
    found = set()
    for methods, paths in re.findall(r"^\| ([A-Z][A-Za-z, ]+) \| (`[^|]*`) \|", text, re.MULTILINE):
        for path in re.findall(r"`([^`]+)`", paths):
            found |= {(method, path.replace("…", group)) for method in methods.split(", ")}
    return found


async def test_every_operation_is_in_the_reference(tmp_path):
    """Whatever is served stands in http.md with its methods, and nothing else does."""
    shown = shown_operations((ROOT / "docs/reference/http.md").read_text())
    served = await served_operations(tmp_path)
    assert sorted(served - shown) == []
    assert sorted(shown - served) == []


def test_decisions_are_numbered_titled_and_listed():
    """`NNNN-title.md`, unique numbers, the number in the title, and a line in the list."""
    folder = ROOT / "docs" / "decisions"
    files = sorted(path for path in folder.glob("*.md") if path.name != "README.md")
    numbers = [path.name[:4] for path in files]
    assert len(set(numbers)) == len(numbers)
    listed = (folder / "README.md").read_text()
    for path in files:
        assert re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", path.name), path.name
        assert path.read_text().startswith(f"# {path.name[:4]}: "), path.name
        assert f"]({path.name})" in listed, f"{path.name} is not in docs/decisions/README.md"
