"""`muster up`: start the server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from muster.cli.output import complain
from muster.config import load_settings
from muster.errors import Problem

ConfigOption = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="TOML file with settings.")
]


def up(
    *,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="Database, keys and events. [default: var]"),
    ] = None,
    config: ConfigOption = None,
    host: Annotated[
        str | None,
        typer.Option("--host", help="Address to listen on. [default: 127.0.0.1]"),
    ] = None,
    domain: Annotated[
        str | None,
        typer.Option("--domain", help="Hubs are called NAME.DOMAIN. [default: localhost]"),
    ] = None,
    names: Annotated[
        str | None,
        typer.Option("--names", help="Further names of this server, separated by commas."),
    ] = None,
    https_port: Annotated[
        int | None, typer.Option("--https-port", help="Every HTTPS API. [default: 8443]")
    ] = None,
    mqtts_port: Annotated[
        int | None,
        typer.Option("--mqtts-port", help="MQTT; device SDKs insist on it. [default: 8883]"),
    ] = None,
    amqps_port: Annotated[
        int | None,
        typer.Option("--amqps-port", help="AMQP; nothing listens there yet. [default: 5671]"),
    ] = None,
    http_port: Annotated[
        int | None,
        typer.Option("--http-port", help="CRLs and CA certificates. [default: 8080]"),
    ] = None,
    ready_file: Annotated[
        Path | None,
        typer.Option("--ready-file", metavar="FILE", help="Further file to write when ready."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Processes that serve. [default: 1]")
    ] = None,
    imds: Annotated[
        str | None,
        typer.Option("--imds", help="Managed identity without a secret. [default: off]"),
    ] = None,
    log_format: Annotated[
        str | None, typer.Option("--log-format", help="console or json. [default: console]")
    ] = None,
    log_level: Annotated[
        str | None,
        typer.Option("--log-level", help="debug, info, warning or error. [default: info]"),
    ] = None,
) -> None:
    """Start the server and serve until SIGTERM or Ctrl-C.

    Settings come from these options, then MUSTER_* variables, then the TOML file, then defaults.
    """
    flags = {
        "data": data,
        "host": host,
        "domain": domain,
        "names": names,
        "https_port": https_port,
        "mqtts_port": mqtts_port,
        "amqps_port": amqps_port,
        "http_port": http_port,
        "ready_file": ready_file,
        "workers": workers,
        "imds": imds,
        "log_format": log_format,
        "log_level": log_level,
    }
    try:
        settings, _ = load_settings(flags, os.environ, config)
        # Imported here: the server's libraries take time that no other command should spend.
        from muster.app import run  # noqa: PLC0415

        run(settings)
    except Problem as problem:
        # Whatever keeps a server from starting is for the one who starts it to put right.
        complain(problem.detail)
        raise typer.Exit(2) from None
