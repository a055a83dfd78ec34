"""`muster device`: devices of a hub, and the tutorial's simulated device."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress

from muster.cli.dps import only_service
from muster.cli.hub import connection_to
from muster.cli.output import (
    JsonOption,
    complain,
    console,
    print_fields,
    print_json,
    print_table,
)
from muster.cli.server import ReadyFileOption, Server, find_server, look_for_server
from muster.client.certificates import KeyKind
from muster.client.device_sdk import MQTT_PORT
from muster.client.exchange import base_url
from muster.client.ezca import PUBLIC_URL, Authority, Ezca
from muster.client.registry import Device, Registry
from muster.client.session import Session
from muster.client.simulation import (
    ByHub,
    ByProvisioning,
    Plan,
    SimulatedDevice,
    Simulator,
    check_device_id,
    choose_authority,
)
from muster.client.tokens import credential_from_environment
from muster.errors import Kind, Problem
from muster.ids import new_uuid

app = typer.Typer(no_args_is_help=True, help="Devices: real ones in a hub, and simulated ones.")

# Where the SDKs find Azure's provisioning, for all of its customers.
_PUBLIC_ENDPOINT = "global.azure-devices-provisioning.net"
# Making keys is the work, and it uses the processor: more at once would only take turns.
_AT_ONCE = 4
# Each costs a key, a certificate and a connection; `make bench` is the load test.
_MAX_COUNT = 10_000

HubOption = Annotated[
    str | None, typer.Option("--hub", help="Name of the hub. [default: the only one]")
]


@app.command("list")
def list_devices(
    hub: HubOption = None, ready_file: ReadyFileOption = None, as_json: JsonOption = False
) -> None:
    """List the devices of a hub, at most 1,000."""
    server = find_server(ready_file)
    with server.session() as session:
        registry = Registry(connection_to(session, server, hub))
        devices = session.call(registry.list_devices())
    if as_json:
        print_json([_summary(device) for device in devices])
    else:
        print_table(
            ("device", "status", "connection", "authentication"),
            (
                (
                    device.device_id,
                    device.status,
                    device.connection_state or "",
                    device.authentication_type,
                )
                for device in devices
            ),
        )


@app.command()
def show(
    device_id: Annotated[str, typer.Argument(help="Id of the device; case matters.")],
    hub: HubOption = None,
    ready_file: ReadyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one device of a hub."""
    server = find_server(ready_file)
    with server.session() as session:
        device = session.call(Registry(connection_to(session, server, hub)).find(device_id))
    if device is None:
        raise Problem(Kind.NOT_FOUND, f"there is no device {device_id!r} in that hub")
    if as_json:
        print_json(_summary(device))
    else:
        print_fields(_summary(device).items())


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a simulated device finds its services, given or found."""

    server: Server | None
    ezca_url: str
    global_endpoint: str
    server_ca: Path | None

    def session(self) -> Session:
        """Return a session: the server's administrator, or whom the environment describes."""
        if self.server is not None and self.server_ca == self.server.server_ca:
            return self.server.session()
        if self.server is not None:
            return Session(self.server.credential, server_ca=self.server_ca)
        credential = credential_from_environment(os.environ)
        if credential is None:
            raise Problem(
                Kind.MALFORMED,
                "no credential: set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or "
                "IDENTITY_ENDPOINT and IDENTITY_HEADER, or name a server with --ready-file",
            )
        return Session(credential, server_ca=self.server_ca)


@app.command()
def simulate(
    *,
    ezca_url: Annotated[
        str | None,
        typer.Option(
            "--ezca-url", help=f"The CA's URL. [default: the running server, or {PUBLIC_URL}]"
        ),
    ] = None,
    global_endpoint: Annotated[
        str | None,
        typer.Option(
            "--global-endpoint",
            help=f"Where to provision. [default: the running server, or {_PUBLIC_ENDPOINT}]",
        ),
    ] = None,
    id_scope: Annotated[
        str | None,
        typer.Option("--id-scope", help="Of the provisioning service. [default: the only one]"),
    ] = None,
    hub: Annotated[
        str | None,
        typer.Option(
            "--hub",
            metavar="HOST[:PORT]",
            help="Register in this hub (PORT: its REST API's), instead of provisioning.",
        ),
    ] = None,
    ca: Annotated[str | None, typer.Option("--ca", help="Name or id of the CA.")] = None,
    ca_template: Annotated[
        str | None, typer.Option("--ca-template", help="Id of the CA's template.")
    ] = None,
    device_id: Annotated[
        str | None, typer.Option("--device-id", help="[default: a new UUID]")
    ] = None,
    key: Annotated[KeyKind, typer.Option("--key", help="Kind of key.")] = KeyKind.RSA_4096,
    validity_days: Annotated[
        int, typer.Option("--validity-days", min=1, max=36500, help="Of the certificate.")
    ] = 10,
    count: Annotated[
        int, typer.Option("--count", min=1, max=_MAX_COUNT, help="How many devices.")
    ] = 1,
    messages: Annotated[
        int, typer.Option("--messages", min=0, max=1_000_000, help="How many each sends.")
    ] = 5,
    interval: Annotated[
        float, typer.Option("--interval", min=0, max=86400, help="Seconds between messages.")
    ] = 0.0,
    server_ca: Annotated[
        Path | None,
        typer.Option(
            "--server-ca",
            metavar="FILE",
            help="Root of the servers' TLS certificates. [default: the system's]",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Keep each key and certificate chain here."),
    ] = None,
    ready_file: ReadyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Be a device: get a certificate, provision, send messages. Needs the `device` extra.

    Works against Muster and against EZCA and Azure alike: the addresses decide.
    """
    if device_id is not None and count > 1:
        raise Problem(Kind.MALFORMED, "--device-id names one device: leave it out with --count")
    if hub is not None and (id_scope or global_endpoint):
        raise Problem(Kind.MALFORMED, "--hub goes without --id-scope and --global-endpoint")
    ids = [check_device_id(device_id or new_uuid()) for _ in range(count)]
    around = _surroundings(ezca_url, global_endpoint, server_ca, look_for_server(ready_file))
    say: Callable[[str], None] = _silent if as_json else _say
    with around.session() as session:
        ezca = Ezca(around.ezca_url)
        route = _route(session, around, hub, id_scope)
        say("Getting Available CAs..")
        authorities = session.call(ezca.available_authorities())
        plan = Plan(
            ezca=ezca,
            authority=_pick(choose_authority(authorities, ca, ca_template), say),
            route=route,
            key=key,
            validity_days=validity_days,
            messages=messages,
            interval=interval,
            server_ca=around.server_ca,
            out=out,
        )
        stop = threading.Event()
        if count == 1:
            done = [Simulator(session, plan, say, stop=stop).run(ids[0])]
        else:
            done = _run_many(Simulator(session, plan, _silent, stop=stop), ids, stop)
    if as_json:
        print_json([_result(device) for device in done])
    elif count > 1:
        console().print(f"{len(done)} of {count} devices sent {messages} messages each")
    if len(done) < count:
        raise typer.Exit(1)


def _surroundings(
    ezca_url: str | None,
    global_endpoint: str | None,
    server_ca: Path | None,
    server: Server | None,
) -> Surroundings:
    # A ready file that lies about does not make its administrator speak to another's CA.
    if server is not None and ezca_url is not None and base_url(ezca_url) != base_url(server.url):
        server = None
    if server is None:
        return Surroundings(
            None, ezca_url or PUBLIC_URL, global_endpoint or _PUBLIC_ENDPOINT, server_ca
        )
    if server.mqtt_port != MQTT_PORT:
        raise Problem(
            Kind.MALFORMED,
            f"the device SDK dials port {MQTT_PORT} only and this server listens on "
            f"{server.mqtt_port}: start it with --mqtts-port {MQTT_PORT}",
        )
    return Surroundings(
        server, server.url, global_endpoint or server.mqtt_host, server_ca or server.server_ca
    )


def _route(
    session: Session, around: Surroundings, hub: str | None, id_scope: str | None
) -> ByProvisioning | ByHub:
    if hub is not None:
        address = hub if around.server is None else around.server.with_port(hub)
        host = hub.partition(":")[0]
        return ByHub(host, Registry(host, url=address))
    if id_scope is None and around.server is not None:
        id_scope = only_service(session, around.server, None).text("idScope")
    if not id_scope:
        raise Problem(Kind.MALFORMED, "say which provisioning service: --id-scope 0ne…")
    return ByProvisioning(around.global_endpoint, id_scope)


def _pick(authorities: Sequence[Authority], say: Callable[[str], None]) -> Authority:
    if len(authorities) == 1:
        return authorities[0]
    if not sys.stdin.isatty():
        names = ", ".join(f"{entry.name} (template {entry.template_id})" for entry in authorities)
        raise Problem(Kind.MALFORMED, f"say which CA with --ca and --ca-template: {names}")
    say("Please Select CA:")
    for number, entry in enumerate(authorities):
        say(f"Enter {number} to select {entry.name}")
    while True:
        answer = sys.stdin.readline()
        if not answer:
            raise Problem(Kind.MALFORMED, "no CA was selected")
        if answer.strip().isdecimal() and int(answer) < len(authorities):
            return authorities[int(answer)]
        say(f"Invalid Input: Please enter a value between 0 and {len(authorities) - 1}")


def _run_many(
    simulator: Simulator, ids: Sequence[str], stop: threading.Event
) -> list[SimulatedDevice]:
    """Run *ids* a few at a time; a device that fails is reported and the others go on."""
    done: list[SimulatedDevice] = []
    with (
        Progress(console=console(stderr=True), transient=True) as progress,
        ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="device") as pool,
    ):
        task = progress.add_task("devices", total=len(ids))
        futures = [(device_id, pool.submit(simulator.run, device_id)) for device_id in ids]
        try:
            for device_id, future in futures:
                try:
                    done.append(future.result())
                except Problem as problem:
                    complain(f"{device_id}: {problem.detail}")
                progress.advance(task)
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return done


def _say(text: str) -> None:
    # What a service said may hold anything; the samples' own line ends and tabs are kept.
    typer.echo("".join(char if char.isprintable() or char in "\n\t" else " " for char in text))


def _silent(text: str) -> None:
    del text


def _result(device: SimulatedDevice) -> dict[str, Any]:
    return {
        "device_id": device.device_id,
        "hub": device.hub,
        "messages": [
            {"body": telemetry.body, "properties": dict(telemetry.properties)}
            for telemetry in device.sent
        ],
    }


def _summary(device: Device) -> dict[str, Any]:
    return {
        "device_id": device.device_id,
        "status": device.status,
        "status_reason": device.status_reason or "",
        "connection": device.connection_state or "",
        "authentication": device.authentication_type,
        "generation": device.generation_id or "",
        "last_activity": device.last_activity_time or "",
    }
