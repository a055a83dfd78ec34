"""Settings: read from flags, environment, a TOML file and defaults, in that order; then frozen.

Every setting is checked here, once, and a bad one stops the start with one line that names it,
where it came from and what would do. Nothing later asks whether a setting makes sense.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from muster.errors import Kind, Problem

_PREFIX = "MUSTER_"
_HOST_NAME = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*\Z"
)


def _path(value: Any) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise ValueError("give a path")
    return Path(value).expanduser()


def _optional_path(value: Any) -> Path | None:
    return None if value is None else _path(value)


def _port(value: Any) -> int:
    try:
        port = int(value)
    except (TypeError, ValueError):
        raise ValueError("give a port number") from None
    if not 0 <= port <= 65535:
        raise ValueError("a port is 1 to 65535, or 0 for any free one")
    return port


def _workers(value: Any) -> int:
    try:
        workers = int(value)
    except (TypeError, ValueError):
        raise ValueError("give a number") from None
    if workers != 1:
        # SQLite has one writer and the embedded event log one owner.
        raise ValueError(
            "more than one worker needs PostgreSQL and NATS, which this version has not"
        )
    return workers


def _address(value: Any) -> str:
    if value == "localhost":
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(str(value)))
    except ValueError:
        raise ValueError("give an IP address to listen on, such as 127.0.0.1 or 0.0.0.0") from None


def _domain(value: Any) -> str:
    name = str(value).lower().rstrip(".")
    if _HOST_NAME.match(name) is None:
        raise ValueError("give a DNS name, such as localhost or iot.example.org")
    return name


def _names(value: Any) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        raise ValueError("give names, separated by commas")  # noqa: TRY004 - one error for bad values
    return tuple(_name(str(part).strip()) for part in parts if str(part).strip())


def _name(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return _domain(text)


def _choice(*allowed: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if value not in allowed:
            raise ValueError(f"give one of {', '.join(allowed)}")
        return str(value)

    return parse


def _setting(parse: Callable[[Any], Any], default: Any, about: str) -> Any:
    return field(default=default, metadata={"parse": parse, "about": about})


@dataclass(frozen=True, slots=True)
class Settings:
    """What one server runs with. Every value has been checked."""

    data: Path = _setting(  # noqa: RUF009 - it returns a field
        _path, Path("var"), "directory of the database, keys and events"
    )
    host: str = _setting(_address, "127.0.0.1", "address to listen on")
    domain: str = _setting(_domain, "localhost", "hubs are called NAME.DOMAIN")
    names: tuple[str, ...] = _setting(_names, (), "further names and addresses of this server")
    https_port: int = _setting(_port, 8443, "port of every HTTPS API and of MQTT over WebSockets")
    mqtts_port: int = _setting(_port, 8883, "port of MQTT; device SDKs insist on 8883")
    amqps_port: int = _setting(_port, 5671, "port of AMQP, on which nothing listens yet")
    http_port: int = _setting(_port, 8080, "port of CRLs and CA certificates, in the clear")
    ready_file: Path | None = _setting(  # noqa: RUF009 - it returns a field
        _optional_path, None, "further file to write when ready"
    )
    workers: int = _setting(_workers, 1, "processes that serve")
    imds: str = _setting(
        _choice("on", "off"), "off", "answer managed identity requests that carry no secret"
    )
    log_format: str = _setting(_choice("console", "json"), "console", "how log lines look")
    log_level: str = _setting(
        _choice("debug", "info", "warning", "error"), "info", "the least that is logged"
    )

    @property
    def own_names(self) -> tuple[str, ...]:
        """The names and addresses that clients may call this server by, hubs' own left out."""
        always = (self.domain, "localhost", "127.0.0.1", "::1", *self.names)
        wildcard = ipaddress.ip_address(self.host).is_unspecified
        return tuple(dict.fromkeys(always if wildcard else (*always, self.host)))


@dataclass(frozen=True, slots=True)
class Origin:
    """One setting as `muster config show` prints it."""

    name: str
    value: str
    source: str
    about: str


def load_settings(
    flags: Mapping[str, Any],
    environment: Mapping[str, str],
    config_file: Path | None = None,
) -> tuple[Settings, list[Origin]]:
    """Return the settings and where each came from.

    *flags* holds what was given on the command line; None means not given. An unknown name in
    the TOML file is refused; an unknown `MUSTER_*` variable is not looked at, because other
    programs may share the prefix.

    Raises `Problem(MALFORMED)`: an unreadable file, an unknown name in it, or a bad value, with
    the name of the setting and its source.
    """
    table = _read_file(config_file)
    known = {entry.name for entry in fields(Settings)}
    for name in table:
        if name.replace("-", "_") not in known:
            raise Problem(Kind.MALFORMED, f"{config_file}: there is no setting {name!r}")
    values: dict[str, Any] = {}
    origins: list[Origin] = []
    for entry in fields(Settings):
        raw, source = _find(entry.name, flags, environment, table, config_file)
        if source == "default":
            value = entry.default
        else:
            try:
                value = entry.metadata["parse"](raw)
            except ValueError as error:
                raise Problem(
                    Kind.MALFORMED,
                    f"{entry.name.replace('_', '-')} ({source}): {error}, not {raw!r}",
                ) from None
        values[entry.name] = value
        origins.append(Origin(entry.name, _shown(value), source, entry.metadata["about"]))
    settings = Settings(**values)
    _check_ports(settings)
    return _named_after_its_address(settings, origins)


def _named_after_its_address(
    settings: Settings, origins: list[Origin]
) -> tuple[Settings, list[Origin]]:
    """Give a server on a loopback address of its own that address for a domain.

    `localhost` leads to 127.0.0.1, where perhaps another server listens: a device that was told
    so would dial that one.
    """
    address = ipaddress.ip_address(settings.host)
    given = any(one.name == "domain" and one.source != "default" for one in origins)
    if given or not address.is_loopback or settings.host in {"127.0.0.1", "::1"}:
        return settings, origins
    renamed = [
        replace(one, value=settings.host, source="host") if one.name == "domain" else one
        for one in origins
    ]
    return replace(settings, domain=settings.host), renamed


def _find(
    name: str,
    flags: Mapping[str, Any],
    environment: Mapping[str, str],
    table: Mapping[str, Any],
    config_file: Path | None,
) -> tuple[Any, str]:
    if flags.get(name) is not None:
        return flags[name], f"--{name.replace('_', '-')}"
    variable = _PREFIX + name.upper()
    if environment.get(variable):
        return environment[variable], variable
    for spelling in (name, name.replace("_", "-")):
        if spelling in table:
            return table[spelling], str(config_file)
    return None, "default"


def _read_file(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Problem(Kind.MALFORMED, f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Problem(Kind.MALFORMED, f"{path} is not TOML: {error}") from None


def _check_ports(settings: Settings) -> None:
    ports = [settings.https_port, settings.mqtts_port, settings.amqps_port, settings.http_port]
    fixed = [port for port in ports if port]
    if len(fixed) != len(set(fixed)):
        raise Problem(
            Kind.MALFORMED, "https-port, mqtts-port, amqps-port and http-port must all differ"
        )


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(value)
    return "" if value is None else str(value)
