"""`muster quickstart`: what the tutorial does in two portals, through the public APIs only."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography.hazmat.primitives.serialization import Encoding

from muster.certs.encoding import certificate_pem
from muster.cli.output import JsonOption, print_fields, print_json
from muster.cli.server import ReadyFileOption, Server, find_server
from muster.client.authorities import ManagedAuthority
from muster.client.enrollments import Enrollments
from muster.client.errors import ServiceError
from muster.client.ezca import Authority
from muster.client.resource_manager import Resource, ResourceType
from muster.client.session import Session
from muster.client.shared_access import ConnectionString
from muster.errors import Kind, Problem

# The policies that the tutorial picks: all rights, made with each resource.
HUB_POLICY = "iothubowner"
SERVICE_POLICY = "provisioningserviceowner"
# One machine has no regions, but a resource must have one.
LOCATION = "local"


@dataclass(frozen=True, slots=True)
class Names:
    """What the resources are called."""

    ca: str
    hub: str
    dps: str
    group: str


def quickstart(
    *,
    ca: Annotated[str, typer.Option("--ca", help="Name of the CA.")] = "Muster Devices",
    hub: Annotated[str, typer.Option("--hub", help="Name of the hub.")] = "muster-hub",
    dps: Annotated[
        str, typer.Option("--dps", help="Name of the provisioning service.")
    ] = "muster-dps",
    group: Annotated[
        str, typer.Option("--group", help="Name of the enrolment group.")
    ] = "muster-devices",
    certificate_file: Annotated[
        Path | None,
        typer.Option(
            "--certificate-file",
            metavar="FILE",
            help="Where to write the CA's certificate. [default: beside the ready file]",
        ),
    ] = None,
    ready_file: ReadyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a CA, a hub and a provisioning service that trust each other, and enrol a group.

    Safe to repeat: what is there already is kept. With --json the output holds keys.
    """
    server = find_server(ready_file)
    with server.session() as session:
        made = set_up(session, server, Names(ca, hub, dps, group), certificate_file)
    if as_json:
        print_json(made)
        return
    print_fields(
        (
            ("CA", f"{made['ca']['name']} ({made['ca']['id']})"),
            ("CA certificate", made["ca"]["certificate_file"]),
            ("hub", f"{made['hub']['name']} at {made['hub']['hostname']}"),
            ("provisioning", f"{made['dps']['name']} at {made['dps']['global_endpoint']}"),
            ("ID scope", made["dps"]["id_scope"]),
            ("enrolment group", made["enrollment_group"]),
            ("next", "muster device simulate"),
        )
    )


def set_up(
    session: Session, server: Server, names: Names, certificate_file: Path | None = None
) -> dict[str, Any]:
    """Do what the command does; return the document it prints.

    Raises `ServiceError` at the first step that is refused, and `Problem` for an unwritable file.
    """
    made = session.call(server.authorities().ensure(names.ca)).issuing
    template = _template_of(session, server, made)
    certificate = session.call(server.authorities().certificate(made.id))
    file = certificate_file or server.directory / "quickstart-ca.pem"
    _write(file, certificate_pem(certificate.public_bytes(Encoding.DER)))

    manager = server.resource_manager()
    hub = session.call(manager.ensure(ResourceType.HUB, names.hub, location=LOCATION))
    hub_key = session.call(manager.key(ResourceType.HUB, names.hub, HUB_POLICY))
    connection = ConnectionString(hub.text("hostName"), hub_key)
    kind = ResourceType.PROVISIONING
    session.call(manager.ensure(kind, names.dps, location=LOCATION))
    dps = session.call(manager.link_hub(names.dps, connection, location=LOCATION))
    dps_key = session.call(manager.key(kind, names.dps, SERVICE_POLICY))

    # Certificate names allow fewer characters than CA names do.
    uploaded = f"ca-{made.id}"
    session.call(manager.trust(ResourceType.HUB, names.hub, uploaded, certificate))
    session.call(manager.trust(kind, names.dps, uploaded, certificate))

    service = ConnectionString(
        dps.text("serviceOperationsHostName") or dps.text("deviceProvisioningHostName"), dps_key
    )
    enrollments = Enrollments(server.reachable(service), url=server.url)
    session.call(enrollments.ensure_ca_group(names.group, (uploaded,), hubs=(connection.hostname,)))
    return {
        "ca": {
            "id": made.id,
            "template_id": template.template_id,
            "name": made.name,
            "certificate_file": str(file),
        },
        "hub": {
            "name": hub.name,
            "hostname": connection.hostname,
            "connection_string": server.reachable(connection).render(),
            "event_hub_connection_string": _event_hub_string(hub, connection),
        },
        "dps": {
            "name": dps.name,
            "id_scope": dps.text("idScope"),
            "global_endpoint": dps.text("deviceProvisioningHostName"),
            "service_connection_string": server.reachable(service).render(),
        },
        "enrollment_group": names.group,
    }


def _template_of(session: Session, server: Server, made: ManagedAuthority) -> Authority:
    for authority in session.call(server.ezca().available_authorities()):
        if authority.ca_id.lower() == made.id.lower():
            return authority
    raise ServiceError(
        Kind.FORBIDDEN, f"the CA {made.name!r} has no template that may be requested from"
    )


def _event_hub_string(hub: Resource, connection: ConnectionString) -> str:
    events = (hub.properties.get("eventHubEndpoints") or {}).get("events") or {}
    endpoint = events.get("endpoint") or f"sb://{connection.hostname}/"
    return (
        f"Endpoint={endpoint};SharedAccessKeyName={connection.key.name};"
        f"SharedAccessKey={connection.key.value};EntityPath={events.get('path') or hub.name}"
    )


def _write(file: Path, text: str) -> None:
    # By rename, so that a reader sees the old or the new one.
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="ascii")
        temporary.replace(file)
    except OSError as error:
        raise Problem(Kind.MALFORMED, f"{file}: {error.strerror}") from None
