"""`muster hub`: hubs and their event streams."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.markup import escape

from muster.cli.output import JsonOption, console, print_fields, print_json, print_table, visible
from muster.cli.quickstart import HUB_POLICY
from muster.cli.server import ReadyFileOption, Server, find_server, look_for_server
from muster.client.events import Event, EventRead
from muster.client.resource_manager import Resource, ResourceType
from muster.client.session import Session
from muster.client.shared_access import ConnectionString
from muster.errors import Kind, Problem

_RESUME_SECONDS = 1.0

app = typer.Typer(no_args_is_help=True, help="Hubs: devices connect here.")


@app.command("list")
def list_hubs(ready_file: ReadyFileOption = None, as_json: JsonOption = False) -> None:
    """List the hubs."""
    server = find_server(ready_file)
    with server.session() as session:
        hubs = session.call(server.resource_manager().list_resources(ResourceType.HUB))
    if as_json:
        print_json([_summary(hub) for hub in hubs])
    else:
        print_table(
            ("name", "hostname", "state"),
            ((hub.name, hub.text("hostName"), hub.state) for hub in hubs),
        )


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name of the hub.")],
    ready_file: ReadyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a hub and the CA certificates that it trusts."""
    server = find_server(ready_file)
    manager = server.resource_manager()
    with server.session() as session:
        hub = session.call(manager.get(ResourceType.HUB, name))
        certificates = session.call(manager.list_certificates(ResourceType.HUB, name))
    trusted = [
        {"name": entry.name, "verified": entry.is_verified, "thumbprint": entry.thumbprint}
        for entry in certificates
    ]
    if as_json:
        print_json({**_summary(hub), "certificates": trusted})
        return
    print_fields(_summary(hub).items())
    print_table(
        ("certificate", "verified", "thumbprint"),
        ((entry["name"], entry["verified"], entry["thumbprint"]) for entry in trusted),
    )


@app.command("monitor-events")
def monitor_events(
    *,
    hub: Annotated[
        str | None, typer.Option("--hub", help="Name of the hub. [default: the only one]")
    ] = None,
    connection_string: Annotated[
        str | None,
        typer.Option(
            "--connection-string",
            envvar="MUSTER_HUB_CONNECTION_STRING",
            help="Of a policy with ServiceConnect, instead of --hub; better in the variable.",
        ),
    ] = None,
    start: Annotated[
        str,
        typer.Option("--from", help="earliest, latest, a sequence number or an ISO 8601 moment."),
    ] = "latest",
    consumer_group: Annotated[
        str, typer.Option("--consumer-group", help="Who reads.")
    ] = "$Default",
    partition: Annotated[
        int | None, typer.Option("--partition", min=0, help="Only this one. [default: all]")
    ] = None,
    count: Annotated[
        int | None, typer.Option("--count", min=1, help="Stop after so many events.")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", min=0, help="Stop after so many seconds. [default: never]"),
    ] = None,
    server_ca: Annotated[
        Path | None,
        typer.Option("--server-ca", metavar="FILE", help="Root of the server's TLS certificate."),
    ] = None,
    ready_file: ReadyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print events as the hub stores them; with --json one document a line.

    With --count, exit 1 when --timeout came first.
    """
    server = look_for_server(ready_file)
    with _session(server, server_ca) as session:
        target = _target(session, server, hub, connection_string)
        read = EventRead(
            target,
            start=start,
            partition=partition,
            consumer_group=consumer_group,
            wait_seconds=timeout,
        )
        seen = _follow(session, read, count, timeout, as_json)
    if count is not None and seen < count:
        raise Problem(Kind.NOT_FOUND, f"{seen} of {count} events came")


def connection_to(session: Session, server: Server, name: str | None) -> ConnectionString:
    """Return how to reach the hub *name*, or the only hub, with its owner's key."""
    manager = server.resource_manager()
    if name is None:
        hubs = session.call(manager.list_resources(ResourceType.HUB))
        if len(hubs) != 1:
            wrong = "there is no hub: make one with `muster quickstart`"
            raise Problem(Kind.NOT_FOUND, "say which hub: --hub NAME" if hubs else wrong)
        hub = hubs[0]
    else:
        hub = session.call(manager.get(ResourceType.HUB, name))
    key = session.call(manager.key(ResourceType.HUB, hub.name, HUB_POLICY))
    return server.reachable(ConnectionString(hub.text("hostName"), key))


def _session(server: Server | None, server_ca: Path | None) -> Session:
    if server is None or server_ca is not None:
        return Session(None if server is None else server.credential, server_ca=server_ca)
    return server.session()


def _target(
    session: Session, server: Server | None, hub: str | None, connection_string: str | None
) -> ConnectionString:
    if connection_string is not None and hub is None:
        return ConnectionString.parse(connection_string)
    if connection_string is not None:
        raise Problem(Kind.MALFORMED, "give --hub or --connection-string, not both")
    if server is None:
        server = find_server(None, os.environ)
    return connection_to(session, server, hub)


def _follow(
    session: Session, read: EventRead, count: int | None, timeout: float | None, as_json: bool
) -> int:
    """Print events until *count* came or *timeout* passed; return how many came."""
    seen = 0
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        for event in session.stream(read):
            seen += 1
            _print_event(event, as_json)
            if seen == count:
                return seen
        if end is not None and time.monotonic() >= end - _RESUME_SECONDS:
            return seen
        # A reading ends with its token at the latest. One that ends at once must not spin.
        time.sleep(_RESUME_SECONDS)
        left = None if end is None else max(0.0, end - time.monotonic())
        read = read.resumed(wait_seconds=left)


def _print_event(event: Event, as_json: bool) -> None:
    if as_json:
        typer.echo(msgspec.json.encode(event).decode())
        return
    properties = " ".join(f"{name}={value}" for name, value in event.properties.items())
    text = event.content.decode("utf-8", "backslashreplace")
    where = f"{event.enqueued_time} {event.partition}/{event.sequence_number}"
    when, who, what, how = (
        escape(visible(part)) for part in (where, event.device_id, text, properties)
    )
    console().print(f"[dim]{when}[/] [bold]{who}[/] {what} [dim]{how}[/]")


def _summary(hub: Resource) -> dict[str, Any]:
    return {"name": hub.name, "hostname": hub.text("hostName"), "state": hub.state}
