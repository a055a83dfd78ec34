"""`muster ca`: certificate authorities."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from muster.certs.encoding import certificate_pem
from muster.cli.output import JsonOption, print_fields, print_json, print_table
from muster.cli.server import ReadyFileOption, find_server
from muster.client.authorities import ManagedAuthority
from muster.errors import Kind, Problem

app = typer.Typer(no_args_is_help=True, help="Certificate authorities.")

NameArgument = Annotated[str, typer.Argument(metavar="CA", help="Name or id of the CA.")]


@app.command("list")
def list_authorities(ready_file: ReadyFileOption = None, as_json: JsonOption = False) -> None:
    """List the certificate authorities."""
    server = find_server(ready_file)
    with server.session() as session:
        entries = session.call(server.authorities().list_authorities())
    if as_json:
        print_json(entries)
        return
    print_table(
        ("name", "tier", "key", "ends", "id"),
        (
            (entry.name, entry.tier, entry.key_type, entry.not_after.date(), entry.id)
            for entry in entries
        ),
    )


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Common name of the new CA.")],
    ready_file: ReadyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a root and an issuing CA of that name; one that exists is left as it is."""
    server = find_server(ready_file)
    with server.session() as session:
        made = session.call(server.authorities().ensure(name)).issuing
        certificate = session.call(server.authorities().certificate(made.id))
    _print_one(made, certificate, as_json)


@app.command()
def show(ca: NameArgument, ready_file: ReadyFileOption = None, as_json: JsonOption = False) -> None:
    """Show one certificate authority and its certificate."""
    found, certificate = _find(ca, ready_file)
    _print_one(found, certificate, as_json)


@app.command()
def download(
    ca: NameArgument,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="File to write (PEM).")],
    ready_file: ReadyFileOption = None,
) -> None:
    """Write a certificate authority's certificate to a file, to upload it elsewhere."""
    _, certificate = _find(ca, ready_file)
    try:
        out.write_text(_pem(certificate), encoding="ascii")
    except OSError as error:
        raise Problem(Kind.MALFORMED, f"{out}: {error.strerror}") from None


def _find(ca: str, ready_file: Path | None) -> tuple[ManagedAuthority, x509.Certificate]:
    server = find_server(ready_file)
    with server.session() as session:
        entries = session.call(server.authorities().list_authorities())
        matches = [
            entry for entry in entries if ca.lower() in {entry.id.lower(), entry.name.lower()}
        ]
        if len(matches) != 1:
            wrong = "no CA" if not matches else "more than one CA"
            raise Problem(Kind.NOT_FOUND, f"{wrong} is called {ca!r}: see `muster ca list`")
        return matches[0], session.call(server.authorities().certificate(matches[0].id))


def _pem(certificate: x509.Certificate) -> str:
    return certificate_pem(certificate.public_bytes(Encoding.DER))


def _print_one(found: ManagedAuthority, certificate: x509.Certificate, as_json: bool) -> None:
    if as_json:
        print_json({"authority": found, "certificate": _pem(certificate)})
        return
    print_fields(
        (
            ("name", found.name),
            ("id", found.id),
            ("tier", found.tier),
            ("key", found.key_type),
            ("enabled", "yes" if found.is_enabled else "no"),
            ("subject", certificate.subject.rfc4514_string()),
            ("issuer", certificate.issuer.rfc4514_string()),
            ("valid", f"{found.not_before.isoformat()} to {found.not_after.isoformat()}"),
            ("SHA-256", found.sha256_thumbprint),
            *(
                ("template", f"{one.id} ({one.type}, at most {one.maximum_days} days)")
                for one in found.templates
            ),
        )
    )
