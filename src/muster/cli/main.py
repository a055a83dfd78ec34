"""The entry point: every command, and what each way of failing looks like.

| exit | when | standard error |
| --- | --- | --- |
| 0 | done | |
| 1 | somebody refused, or could not be reached | one line: what was wrong, what to do |
| 2 | the command was misused: options, files, settings, a port in use | one line, the same |
| 130 | interrupted | one line |

A traceback is a bug.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from muster import __version__
from muster.cli import ca, config, demo, device, dps, enrollment, hub, quickstart, up
from muster.cli.output import complain
from muster.client.errors import ServiceError
from muster.errors import Kind, Problem

app = typer.Typer(
    name="muster",
    help="A private CA, device provisioning and an IoT hub in one program.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command(name="up")(up.up)
app.command(name="quickstart")(quickstart.quickstart)
app.command(name="demo")(demo.demo)
app.add_typer(ca.app, name="ca")
app.add_typer(hub.app, name="hub")
app.add_typer(dps.app, name="dps")
app.add_typer(enrollment.app, name="enrollment")
app.add_typer(device.app, name="device")
app.add_typer(config.app, name="config")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"muster {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """A private CA, device provisioning and an IoT hub in one program."""


def run(arguments: Sequence[str]) -> int:
    """Run one command line; return its exit status. Never raises for an expected failure."""
    try:
        status = app(list(arguments), prog_name="muster", standalone_mode=False)
    except typer.TyperException as error:
        return _misuse(error)
    except (typer.Abort, KeyboardInterrupt):
        complain("stopped")
        return 130
    except Problem as problem:
        complain(problem.detail)
        misused = problem.kind is Kind.MALFORMED and not isinstance(problem, ServiceError)
        return 2 if misused else 1
    return status if isinstance(status, int) else 0


def _misuse(error: typer.TyperException) -> int:
    context = getattr(error, "ctx", None)
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    if context is not None and message == context.get_help():
        # A group without a command: the help is what was asked for.
        typer.echo(message)
        return 0
    where = context.command_path if context is not None else "muster"
    complain(f"{message.rstrip('.')}; see `{where} --help`")
    return 2


def main() -> NoReturn:
    """Run the command line of this process, then end it."""
    # The device SDK reports each failure once by exception and again, with a traceback, by log.
    logging.getLogger("azure").addHandler(logging.NullHandler())
    logging.getLogger("azure").propagate = False
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
