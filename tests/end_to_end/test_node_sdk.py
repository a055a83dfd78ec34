"""The official Node SDKs, unmodified, over real TLS: provision, connect, send, read back."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.support.device import IssuedDevice, issue
from tests.support.events import read_events
from tests.support.tutorial import Tutorial

pytestmark = pytest.mark.end_to_end

SCRIPT = Path(__file__).with_name("node") / "device.js"


def run_device(
    tutorial: Tutorial, device: IssuedDevice, *, transport: str, **overrides: Any
) -> list[dict[str, Any]]:
    """Run one device on Node; return what it said, step by step."""
    settings = {
        "transport": transport,
        "provisioningHost": "localhost",
        "idScope": tutorial.id_scope,
        "registrationId": device.device_id,
        "cert": device.certificate.read_text(),
        "key": device.key.read_text(),
        "messages": 5,
        **overrides,
    }
    finished = subprocess.run(
        ["node", str(SCRIPT), json.dumps(settings)],
        env=tutorial.server.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    said = [json.loads(line) for line in finished.stdout.splitlines()]
    assert said, finished.stderr
    return said


@pytest.mark.parametrize("transport", ["mqtt", "mqtt-ws"])
def test_a_certificate_takes_a_device_from_nothing_to_its_messages(
    tutorial: Tutorial, device_directory: Path, transport: str
) -> None:
    """Provisioning ends (the server closes after DISCONNECT), and the messages arrive in order."""
    if transport == "mqtt-ws":
        tutorial.need_websocket_port()
    device = issue(tutorial.server, device_directory)
    said = run_device(tutorial, device, transport=transport)
    assert said[0] == {"assigned": {"hub": tutorial.hostname, "device": device.device_id}}
    assert said[-1] == {"done": True}
    events = read_events(tutorial.server, device.device_id, 5)
    assert [event["properties"]["number"] for event in events] == ["0", "1", "2", "3", "4"]


def test_an_unknown_id_scope_is_an_error_and_not_silence(
    tutorial: Tutorial, device_directory: Path
) -> None:
    """The SDK reports a refusal at once instead of retrying for ever."""
    device = issue(tutorial.server, device_directory)
    said = run_device(tutorial, device, transport="mqtt", idScope="0ne00000000")
    assert "Not authorized" in said[-1]["error"]["message"]
