"""`muster config`: what the settings are and where each came from."""

from __future__ import annotations

import os

import typer

from muster.cli.output import JsonOption, print_json, print_table
from muster.cli.up import ConfigOption
from muster.config import load_settings

app = typer.Typer(no_args_is_help=True, help="Settings of the server.")


@app.command()
def show(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show every setting, its value and where it came from."""
    _, origins = load_settings({}, os.environ, config)
    if as_json:
        print_json(
            {origin.name: {"value": origin.value, "source": origin.source} for origin in origins}
        )
        return
    print_table(
        ("setting", "value", "from", "about"),
        ((origin.name, origin.value, origin.source, origin.about) for origin in origins),
    )
