"""`muster enrollment`: which devices a provisioning service admits."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from muster.cli.dps import enrollments_of
from muster.cli.output import JsonOption, print_fields, print_json, print_table
from muster.cli.server import ReadyFileOption, find_server
from muster.client.enrollments import EnrollmentGroup
from muster.errors import Kind, Problem

app = typer.Typer(no_args_is_help=True, help="Enrolment groups of a provisioning service.")

DpsOption = Annotated[
    str | None,
    typer.Option("--dps", help="Name of the provisioning service. [default: the only one]"),
]


@app.command("list")
def list_groups(
    dps: DpsOption = None, ready_file: ReadyFileOption = None, as_json: JsonOption = False
) -> None:
    """List the enrolment groups."""
    with find_server(ready_file).session() as session:
        groups = session.call(enrollments_of(session, ready_file, dps).list_groups())
    if as_json:
        print_json([_summary(group) for group in groups])
    else:
        print_table(
            ("name", "status", "CA certificates"),
            (
                (
                    group.enrollment_group_id,
                    group.provisioning_status,
                    ", ".join(group.ca_references),
                )
                for group in groups
            ),
        )


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name of the enrolment group.")],
    dps: DpsOption = None,
    ready_file: ReadyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one enrolment group."""
    with find_server(ready_file).session() as session:
        group = session.call(enrollments_of(session, ready_file, dps).find_group(name))
    if group is None:
        raise Problem(Kind.NOT_FOUND, f"there is no enrolment group {name!r}")
    summary = _summary(group)
    if as_json:
        print_json(summary)
    else:
        print_fields(
            (key, ", ".join(value) if isinstance(value, list) else value)
            for key, value in summary.items()
        )


def _summary(group: EnrollmentGroup) -> dict[str, Any]:
    return {
        "name": group.enrollment_group_id,
        "status": group.provisioning_status,
        "attestation": str(group.attestation.get("type") or ""),
        "ca_references": group.ca_references,
        "allocation": group.allocation_policy or "",
        "hubs": group.iot_hubs or [],
    }
