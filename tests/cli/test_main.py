"""Exit codes and errors: what each way of failing looks like."""

from __future__ import annotations

import httpx2
import pytest

from muster import __version__
from muster.cli import main
from muster.errors import Kind, Problem


def test_nothing_asked_is_helped(muster):
    """No command, and a group without one, show the help."""
    for arguments in ((), ("hub",)):
        status, out, err = muster(*arguments)
        assert (status, err) == (0, "")
        assert "Commands:" in out


def test_the_version_is_the_packages(muster):
    """And nothing else."""
    assert muster("--version") == (0, f"muster {__version__}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [("nope",), ("hub", "nope"), ("hub", "list", "--nope"), ("device", "simulate", "--count", "0"),
     ("device", "simulate", "--key", "dsa"), ("ca", "show"), ("up", "--https-port", "x")],
)  # fmt: skip
def test_misuse_is_one_line_and_exit_2(muster, arguments):
    """The line says what was wrong and where the help is."""
    status, out, err = muster(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("muster: ")
    assert err.count("\n") == 1
    assert "--help`" in err


def test_a_refusal_is_one_line_and_exit_1(muster, server):
    """In the service's own words."""
    server.refuse["/IotHubs"] = httpx2.Response(
        403, json={"error": {"code": "AuthorizationFailed", "message": "you\nmay not"}}
    )
    assert muster("hub", "list") == (
        1,
        "",
        "muster: could not list the hubs: you may not (403 AuthorizationFailed)\n",
    )


def test_a_400_of_a_service_is_a_refusal_and_not_misuse(muster, server):
    """The command line was right; the service did not like what it means."""
    server.refuse["/IotHubs"] = httpx2.Response(400, text="Error: no")
    assert muster("hub", "list")[0] == 1


def test_an_interrupt_has_the_usual_status(muster, monkeypatch):
    """130, one line."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "app", interrupted)
    assert muster("hub") == (130, "", "muster: stopped\n")


def test_a_bug_keeps_its_traceback(monkeypatch):
    """What nobody expected is not dressed up as a refusal."""

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(main, "app", broken)
    with pytest.raises(ZeroDivisionError):
        main.run(["hub"])


def test_errors_cannot_steer_the_terminal(muster, monkeypatch):
    """Text from elsewhere is shown, not obeyed."""

    def refused(*_: object, **__: object) -> None:
        raise Problem(Kind.FORBIDDEN, "\x1b[31mred")

    monkeypatch.setattr(main, "app", refused)
    assert muster("hub")[2] == "muster:  [31mred\n"
