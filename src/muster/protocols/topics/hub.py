"""The topics of a hub: the ones a device publishes to, the filters it has, and what it is told.

    telemetry       devices/{id}[/modules/{module}]/messages/events/[{bag}]
    method answer   $iothub/methods/res/{status}/?$rid={rid}
    twin get        $iothub/twin/GET/?$rid={rid}
    twin report     $iothub/twin/PATCH/properties/reported/?$rid={rid}[&$version={base}]

Rules:

1. The grammar knows no device: whoever parses compares the ids with those of the connection.
2. `$rid` is repeated in an answer to the letter.
3. Only the documented filters are filters. Wildcards elsewhere in them are refused, so nobody
   hears of another device by way of a wildcard.
4. Ids stand in topics as they are; names that a service chose are percent-encoded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from muster.errors import Kind, Problem
from muster.ids import DeviceId
from muster.protocols.percent import encode_percent
from muster.protocols.topics.query import parse_query, request_id

METHODS_FILTER = "$iothub/methods/POST/#"
TWIN_ANSWERS_FILTER = "$iothub/twin/res/#"
DESIRED_FILTER = "$iothub/twin/PATCH/properties/desired/#"
_METHOD_ANSWER = "$iothub/methods/res/"
_TWIN_GET = "$iothub/twin/GET/"
_TWIN_REPORT = "$iothub/twin/PATCH/properties/reported/"
_INTEGER = re.compile(r"-?[0-9]{1,9}\Z")  # fits AMQP's int, in which a service reads a status
_VERSION = re.compile(r"[0-9]{1,18}\Z")  # fits a 64-bit integer


@dataclass(frozen=True, slots=True)
class Telemetry:
    """A message to the hub. `bag` is its property bag, undecoded."""

    device_id: str
    module_id: str | None
    bag: str


@dataclass(frozen=True, slots=True)
class MethodAnswer:
    """A device's answer to a method call. `status` is the device's own number."""

    request_id: str
    status: int


@dataclass(frozen=True, slots=True)
class TwinGet:
    """A device asks for its twin."""

    request_id: str


@dataclass(frozen=True, slots=True)
class TwinReport:
    """A device reports properties, on condition of a version if it gives one."""

    request_id: str
    base_version: int | None


class Feed(Enum):
    """What a device can subscribe to."""

    COMMANDS = "cloud-to-device messages"
    INPUTS = "module inputs"
    METHODS = "method calls"
    TWIN_ANSWERS = "answers to twin requests"
    DESIRED = "changes of desired properties"


@dataclass(frozen=True, slots=True)
class Subscription:
    """A documented filter. The ids are those in it; None where it names none."""

    feed: Feed
    device_id: str | None = None
    module_id: str | None = None


_COMMON_FILTERS = {
    METHODS_FILTER: Subscription(Feed.METHODS),
    TWIN_ANSWERS_FILTER: Subscription(Feed.TWIN_ANSWERS),
    DESIRED_FILTER: Subscription(Feed.DESIRED),
}


def parse_publish(topic: str) -> Telemetry | MethodAnswer | TwinGet | TwinReport:
    """Return what a PUBLISH to *topic* is.

    Does not check the ids against the connection, nor the property bag.

    Raises:
        Problem(FORBIDDEN): the topic is none that a device may publish to.
        Problem(MALFORMED): a request without `$rid`, a bad status or version.
    """
    if topic.startswith("devices/"):
        return _telemetry(topic)
    if topic.startswith(_METHOD_ANSWER):
        status, _, query = topic[len(_METHOD_ANSWER) :].partition("/")
        if _INTEGER.match(status) is None:
            raise Problem(Kind.MALFORMED, "the status of a method answer is an integer")
        return MethodAnswer(request_id(parse_query(query)), int(status))
    if topic.startswith(_TWIN_GET):
        return TwinGet(request_id(parse_query(topic[len(_TWIN_GET) :])))
    if topic.startswith(_TWIN_REPORT):
        values = parse_query(topic[len(_TWIN_REPORT) :])
        version = values.get("$version")
        if version is not None and _VERSION.match(version) is None:
            raise Problem(Kind.MALFORMED, "$version is a whole number")
        return TwinReport(request_id(values), None if version is None else int(version))
    raise _no_topic()


def parse_filter(topic_filter: str) -> Subscription:
    """Return what a SUBSCRIBE to *topic_filter* wants; raises `Problem(FORBIDDEN)` for others.

    Does not check the ids against the connection.
    """
    common = _COMMON_FILTERS.get(topic_filter)
    if common is not None:
        return common
    match topic_filter.split("/"):
        case ["devices", device, "messages", "devicebound", "#"] if _plain(device):
            return Subscription(Feed.COMMANDS, device)
        case ["devices", device, "modules", module, "inputs", "#"] if _plain(device, module):
            return Subscription(Feed.INPUTS, device, module)
    raise Problem(Kind.FORBIDDEN, "the hub has no such topic to subscribe to")


def telemetry_prefix(device_id: DeviceId, module_id: DeviceId | None = None) -> str:
    """Return the topic of a device's telemetry up to the property bag."""
    return f"{_base(device_id, module_id)}/messages/events/"


def command_topic(device_id: DeviceId, bag: str) -> str:
    """Return the topic of a cloud-to-device message; *bag* is encoded."""
    return f"devices/{device_id}/messages/devicebound/{bag}"


def input_topic(device_id: DeviceId, module_id: DeviceId, name: str, bag: str) -> str:
    """Return the topic of a message to a module's input; *bag* is encoded."""
    return f"{_base(device_id, module_id)}/inputs/{encode_percent(name)}/{bag}"


def method_topic(name: str, request_id: str) -> str:
    """Return the topic of a method call; *request_id* needs no encoding."""
    return f"$iothub/methods/POST/{encode_percent(name)}/?$rid={request_id}"


def twin_answer_topic(status: int, request_id: str, version: int | None = None) -> str:
    """Return the topic of an answer to a twin request; *version* follows a report."""
    topic = f"$iothub/twin/res/{status}/?$rid={request_id}"
    return topic if version is None else f"{topic}&$version={version}"


def desired_topic(version: int) -> str:
    """Return the topic of a change of desired properties."""
    return f"$iothub/twin/PATCH/properties/desired/?$version={version}"


def _telemetry(topic: str) -> Telemetry:
    _, device, rest = [*topic.split("/", 2), ""][:3]
    module = None
    if rest.startswith("modules/"):
        _, module, rest = [*rest.split("/", 2), ""][:3]
    # Clients leave the last slash out when there is no bag.
    head, _, bag = rest.removeprefix("messages/").partition("/")
    if not rest.startswith("messages/") or head != "events" or not device or module == "":
        raise _no_topic()
    # The Node SDK ends output events with a slash of its own.
    return Telemetry(device, module, bag.removesuffix("/"))


def _base(device_id: DeviceId, module_id: DeviceId | None) -> str:
    return (
        f"devices/{device_id}" if module_id is None else f"devices/{device_id}/modules/{module_id}"
    )


def _plain(*names: str) -> bool:
    """Return whether these are names and not the wildcards of MQTT."""
    return all(names) and not {"+", "#"} & {*names}


def _no_topic() -> Problem:
    return Problem(Kind.FORBIDDEN, "the hub has no such topic to publish to")
