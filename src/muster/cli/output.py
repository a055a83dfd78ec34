"""What commands print: a table for people, JSON for programs, one line for errors."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def print_json(document: Any) -> None:
    """Print *document* as indented JSON on standard output."""
    typer.echo(msgspec.json.format(msgspec.json.encode(document), indent=2))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print *rows* under *columns*; cells are text, never markup, and are not cut."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(visible(cell)) for cell in row))
    console().print(table)


def print_fields(rows: Iterable[tuple[str, object]]) -> None:
    """Print one thing as a column of names and a column of values."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(escape(name), escape(visible(value)))
    console().print(table)


def console(*, stderr: bool = False) -> Console:
    """Return a console for standard output or standard error.

    Made anew each time, because a test or a shell may have replaced the streams. Piped output is
    not wrapped at 80 columns.
    """
    made = Console(stderr=stderr, highlight=False, soft_wrap=True)
    if not made.is_terminal:
        made.width = 200
    return made


def complain(text: str) -> None:
    """Print *text* as one line on standard error."""
    print(f"muster: {visible(text)}", file=sys.stderr)


def visible(value: object) -> str:
    """Return *value* as text that cannot move the cursor or colour the screen."""
    return "".join(char if char.isprintable() else " " for char in str(value))
