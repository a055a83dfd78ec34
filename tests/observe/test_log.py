from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from muster.observe.log import configure, escape, get_logger


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leave logging as it was found."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def _lines(*, json_lines: bool = True) -> tuple[io.StringIO, object]:
    stream = io.StringIO()
    configure(json=json_lines, stream=stream)
    return stream, get_logger("muster.test")


def test_one_event_is_one_line_of_json():
    """With a time, a level, who wrote it, the event and its fields."""
    stream, log = _lines()
    log.info("device connected", device="dev1", count=3, ok=True, none=None)
    line = json.loads(stream.getvalue())
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "device connected", "level": "info", "logger": "muster.test",
        "device": "dev1", "count": 3, "ok": True, "none": None,
    }  # fmt: skip


@pytest.mark.parametrize("json_lines", [True, False])
@pytest.mark.parametrize(
    "hostile",
    [
        "a\nforged line",
        "a\r\nforged",
        "\x1b[31mred",
        "a\x00b",
        "a\u202eb",
        "a\u2028b",
        "a\x85b",
        "\ud800",
    ],
)
def test_a_value_cannot_forge_or_repaint(hostile, json_lines):
    """Control characters, separators and direction marks are written as escapes."""
    stream, log = _lines(json_lines=json_lines)
    log.warning("refused", username=hostile)
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert text.rstrip("\n").isprintable()


def test_letters_stay_letters():
    """Escaping leaves what prints as itself, in any language."""
    assert escape("Gerät 温度 é") == "Gerät 温度 é"
    assert escape("a\tb") == "a\\tb"


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "client_secret",
        "SharedAccessKey",
        "primaryKey",
        "primary_key",
        "authorization",
        "access_token",
        "pin",
    ],
)
def test_secret_fields_are_masked(name):
    """A field with a secret's name never shows its value."""
    stream, log = _lines()
    log.info("x", **{name: "hunter2"})
    assert "hunter2" not in stream.getvalue()
    assert json.loads(stream.getvalue())[name] == "***"


@pytest.mark.parametrize(
    "text",
    [
        "HostName=h;SharedAccessKeyName=n;SharedAccessKey=hunter2==",
        "HostName=h; SharedAccessKeyName = n; SharedAccessKey = hunter2==",
        "SharedAccessSignature sr=h&sig=hunter2%3D&se=1",
        "grant_type=x&client_secret=hunter2&y=z",
        "Authorization: Bearer hunter2.abc",
        "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----",
        "eyJhbGciOiJub25lIn0.hunter2.",
    ],
)
def test_secrets_inside_text_are_masked(text):
    """Connection strings, tokens, forms, headers and keys lose their secret in any field."""
    stream, log = _lines()
    log.info("x", line=text)
    log.info(text)
    logging.getLogger("library").warning("said %s", text)
    assert "hunter2" not in stream.getvalue()
    assert stream.getvalue().count("***") == 3


@pytest.mark.parametrize("json_lines", [True, False])
def test_a_traceback_has_no_secrets_and_no_variables(json_lines):
    """The trace is there; local variables and signatures are not."""
    stream, log = _lines(json_lines=json_lines)

    def fail() -> None:
        hidden = "local" + "-variable"
        raise RuntimeError(f"sig=hunter2 {len(hidden)}")

    try:
        fail()
    except RuntimeError:
        log.exception("failed")
    text = stream.getvalue()
    assert "RuntimeError" in text
    assert "test_log.py" in text
    assert "hunter2" not in text
    assert "local-variable" not in text


def test_long_values_are_cut():
    """A peer cannot make one line as long as it likes."""
    stream, log = _lines()
    log.info("x", username="y" * 1_000_000)
    assert len(stream.getvalue()) < 3000
    assert "(1000000 characters)" in stream.getvalue()


def test_libraries_take_the_same_way():
    """What is written with `logging` comes out as the same kind of line, at the same level."""
    stream, log = _lines()
    logging.getLogger("library").info("said %s", "hello\nthere")
    logging.getLogger("library").debug("not asked for")
    log.debug("nor this")
    line = json.loads(stream.getvalue())
    assert (line["event"], line["logger"], line["level"]) == (
        "said hello\\nthere",
        "library",
        "info",
    )


def test_configuring_again_replaces_the_first():
    """Two calls do not make two lines of one event."""
    first, _ = _lines()
    second, log = _lines()
    log.info("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1
