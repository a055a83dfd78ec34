"""`muster dps`: provisioning services."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from muster.cli.output import JsonOption, print_fields, print_json, print_table
from muster.cli.quickstart import SERVICE_POLICY
from muster.cli.server import ReadyFileOption, Server, find_server
from muster.client.enrollments import Enrollments
from muster.client.resource_manager import Resource, ResourceType
from muster.client.session import Session
from muster.client.shared_access import ConnectionString
from muster.errors import Kind, Problem

app = typer.Typer(no_args_is_help=True, help="Provisioning services: devices find their hub here.")


@app.command("list")
def list_services(ready_file: ReadyFileOption = None, as_json: JsonOption = False) -> None:
    """List the provisioning services."""
    server = find_server(ready_file)
    with server.session() as session:
        services = session.call(server.resource_manager().list_resources(ResourceType.PROVISIONING))
    summaries = [_summary(service) for service in services]
    if as_json:
        print_json(summaries)
    else:
        print_table(
            ("name", "ID scope", "global endpoint", "hubs"),
            (
                (entry["name"], entry["id_scope"], entry["global_endpoint"], len(entry["hubs"]))
                for entry in summaries
            ),
        )


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name of the provisioning service.")],
    ready_file: ReadyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a provisioning service, its linked hubs and the CA certificates that it trusts."""
    server = find_server(ready_file)
    manager = server.resource_manager()
    kind = ResourceType.PROVISIONING
    with server.session() as session:
        service = session.call(manager.get(kind, name))
        certificates = session.call(manager.list_certificates(kind, name))
    trusted = [
        {"name": entry.name, "verified": entry.is_verified, "thumbprint": entry.thumbprint}
        for entry in certificates
    ]
    summary = _summary(service)
    if as_json:
        print_json({**summary, "certificates": trusted})
        return
    print_fields({**summary, "hubs": ", ".join(summary["hubs"])}.items())
    print_table(
        ("certificate", "verified", "thumbprint"),
        ((entry["name"], entry["verified"], entry["thumbprint"]) for entry in trusted),
    )


def only_service(session: Session, server: Server, name: str | None) -> Resource:
    """Return the provisioning service *name*, or the only one; raises `Problem`."""
    manager = server.resource_manager()
    kind = ResourceType.PROVISIONING
    if name is not None:
        return session.call(manager.get(kind, name))
    services = session.call(manager.list_resources(kind))
    if len(services) != 1:
        wrong = "there is no provisioning service: make one with `muster quickstart`"
        raise Problem(Kind.NOT_FOUND, "say which provisioning service" if services else wrong)
    return services[0]


def enrollments_of(session: Session, ready_file: Path | None, name: str | None) -> Enrollments:
    """Return the enrolments of the provisioning service *name*, or of the only one."""
    server = find_server(ready_file)
    service = only_service(session, server, name)
    key = session.call(
        server.resource_manager().key(ResourceType.PROVISIONING, service.name, SERVICE_POLICY)
    )
    hostname = service.text("serviceOperationsHostName")
    return Enrollments(server.reachable(ConnectionString(hostname, key)), url=server.url)


def _summary(service: Resource) -> dict[str, Any]:
    links = service.properties.get("iotHubs") or []
    return {
        "name": service.name,
        "id_scope": service.text("idScope"),
        "global_endpoint": service.text("deviceProvisioningHostName"),
        "service_endpoint": service.text("serviceOperationsHostName"),
        "state": service.state,
        "hubs": [str(link.get("name") or link.get("hostName") or "") for link in links],
    }
