"""Find the running server and sign in to it.

A server writes a ready file when it listens; whoever may read that file (mode 0600) is its
administrator. It is looked for at `--ready-file`, then `MUSTER_READY_FILE`, then
`./var/ready.json`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
import typer

from muster.client.authorities import Authorities
from muster.client.ezca import Ezca
from muster.client.resource_manager import ResourceManager
from muster.client.session import Session
from muster.client.shared_access import ConnectionString
from muster.client.tokens import ClientSecret
from muster.errors import Kind, Problem

READY_FILE_VARIABLE = "MUSTER_READY_FILE"
DEFAULT_READY_FILE = Path("var/ready.json")

ReadyFileOption = Annotated[
    Path | None,
    typer.Option(
        "--ready-file",
        help="File that `muster up` wrote (MUSTER_READY_FILE; ./var/ready.json).",
        metavar="FILE",
    ),
]


class Endpoints(msgspec.Struct, frozen=True):
    """Where the server listens. An endpoint it does not offer is None."""

    https: str
    mqtts: str
    http: str | None = None
    amqps: str | None = None


class Administrator(msgspec.Struct, frozen=True):
    """The identity that may do everything."""

    client_id: str
    client_secret: str
    object_id: str


class ReadyFile(msgspec.Struct, frozen=True):
    """What `muster up` says about itself once every listener accepts."""

    version: int
    pid: int
    endpoints: Endpoints
    server_ca_file: str
    tenant_id: str
    subscription_id: str
    resource_group: str
    admin: Administrator


@dataclass(frozen=True, slots=True)
class Server:
    """A running server, as its administrator sees it."""

    ready: ReadyFile
    directory: Path

    @property
    def url(self) -> str:
        """The base URL of every HTTPS API."""
        return self.ready.endpoints.https

    @property
    def server_ca(self) -> Path:
        """The file that holds the root of the server's TLS certificate."""
        return self.directory / self.ready.server_ca_file

    @property
    def mqtt_host(self) -> str:
        """The host that devices dial."""
        return self.ready.endpoints.mqtts.rpartition(":")[0].strip("[]")

    @property
    def mqtt_port(self) -> int:
        """The port that devices have to dial."""
        return int(self.ready.endpoints.mqtts.rpartition(":")[2])

    @property
    def credential(self) -> ClientSecret:
        """The administrator's credential."""
        admin = self.ready.admin
        return ClientSecret(self.ready.tenant_id, admin.client_id, admin.client_secret, self.url)

    def session(self) -> Session:
        """Return a session signed in as the administrator."""
        return Session(self.credential, server_ca=self.server_ca)

    def resource_manager(self) -> ResourceManager:
        """Return the resource manager of the server's own resource group."""
        ready = self.ready
        return ResourceManager(ready.subscription_id, ready.resource_group, url=self.url)

    def ezca(self) -> Ezca:
        """Return the server's EZCA API."""
        return Ezca(self.url)

    def authorities(self) -> Authorities:
        """Return the server's API for making CAs."""
        return Authorities(self.url)

    def with_port(self, hostname: str) -> str:
        """Return *hostname* with this server's HTTPS port, unless that is 443 or one is there."""
        port = urlsplit(self.url).port
        if port in {None, 443} or ":" in hostname.rpartition("]")[2]:
            return hostname
        return f"{hostname}:{port}"

    def reachable(self, connection: ConnectionString) -> ConnectionString:
        """Return *connection* with the port at which its REST API answers here."""
        return ConnectionString(self.with_port(connection.hostname), connection.key)


def find_server(given: Path | None, environment: Mapping[str, str] = os.environ) -> Server:
    """Return the server of the ready file that *given*, *environment* or the default names.

    Raises `Problem(MALFORMED)`: no such file, or not a ready file.
    """
    server = look_for_server(given, environment)
    if server is None:
        raise Problem(
            Kind.MALFORMED,
            f"no running server was found at {DEFAULT_READY_FILE}: start one with `muster up`, "
            f"or name its ready file with --ready-file or {READY_FILE_VARIABLE}",
        )
    return server


def look_for_server(
    given: Path | None, environment: Mapping[str, str] = os.environ
) -> Server | None:
    """Like `find_server`, but None when nobody named a file and the default is not there."""
    variable = environment.get(READY_FILE_VARIABLE)
    named = given or (Path(variable) if variable else None)
    path = named or DEFAULT_READY_FILE
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        if named is None:
            return None
        raise Problem(Kind.MALFORMED, f"there is no ready file {path}: is it running?") from None
    except OSError as error:
        raise Problem(Kind.MALFORMED, f"ready file {path}: {error.strerror}") from None
    return Server(read_ready_file(text, path), path.absolute().parent)


def read_ready_file(text: bytes, path: Path) -> ReadyFile:
    """Return the ready file *text*; raises `Problem(MALFORMED)` with *path* in it."""
    try:
        ready = msgspec.json.decode(text, type=ReadyFile)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem(Kind.MALFORMED, f"{path} is not a ready file: {error}") from None
    if ready.version != 1:
        raise Problem(
            Kind.MALFORMED, f"{path} is of version {ready.version}; this program reads version 1"
        )
    if not ready.endpoints.mqtts.rpartition(":")[2].isdigit():
        raise Problem(Kind.MALFORMED, f"{path} is not a ready file: endpoints.mqtts has no port")
    return ready
