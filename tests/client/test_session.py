"""The drivers: TLS trust, limits, and what a broken connection is called."""

from __future__ import annotations

import asyncio
import http.server
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import trustme

from muster.client import session as sessions
from muster.client.errors import ServiceError
from muster.client.exchange import Bearer, Request, ask
from muster.client.session import AsyncSession, Session
from muster.client.tokens import AccessToken
from muster.errors import Kind, Problem


def get(url: str) -> Request:
    """Return a plain request."""
    return Request(method="GET", url=url, purpose="look", repeatable=False)


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers everything with its user agent."""

    def do_GET(self) -> None:
        """Answer."""
        body = self.headers["user-agent"].encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """A CA that no system trusts."""
    return trustme.CA()


@pytest.fixture
def server(authority: trustme.CA) -> Iterator[str]:
    """A TLS server on loopback; yields its URL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.socket = context.wrap_socket(listening.socket, server_side=True)
    thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"https://localhost:{listening.server_port}/"
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()


@pytest.fixture
def server_ca(authority: trustme.CA, tmp_path: Path) -> Path:
    """The file with the root of the server's certificate."""
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    return file


async def call_async(request: Request, server_ca: Path | None) -> bytes:
    """Perform *request* with an awaiting session."""
    async with AsyncSession(server_ca=server_ca) as session:
        return (await session.call(ask(request))).body


def call(request: Request, server_ca: Path | None) -> bytes:
    """Perform *request* with a blocking session."""
    with Session(server_ca=server_ca) as session:
        return session.call(ask(request)).body


PERFORM = [call, lambda request, ca: asyncio.run(call_async(request, ca))]


@pytest.mark.parametrize("perform", PERFORM, ids=["blocking", "awaiting"])
def test_a_private_root_is_trusted_when_named(perform, server, server_ca, monkeypatch):
    """The file decides, whatever the environment says about roots and proxies."""
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert perform(get(server), server_ca).startswith(b"muster/")


@pytest.mark.parametrize("perform", PERFORM, ids=["blocking", "awaiting"])
def test_an_unknown_root_is_refused_and_explained(perform, server):
    """The error says what to do about it."""
    with pytest.raises(ServiceError, match="not trusted here: name the CA that signed it"):
        perform(get(server), None)


def test_a_wrong_name_is_refused(server, server_ca):
    """A certificate for localhost does not speak for 127.0.0.1."""
    with pytest.raises(ServiceError, match="not trusted here"):
        call(get(server.replace("localhost", "127.0.0.1")), server_ca)


@pytest.mark.parametrize("content", [None, "", "not a certificate"])
def test_a_bad_ca_file_is_named(tmp_path, content):
    """A file that is missing, empty or something else is the user's to put right."""
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(Problem) as caught:
        Session(server_ca=file)
    assert caught.value.kind is Kind.MALFORMED
    assert str(file) in caught.value.detail


def test_an_answer_that_does_not_end_is_cut(service, both, monkeypatch):
    """A service cannot fill the memory of its caller."""
    monkeypatch.setattr(sessions, "_MAX_BODY", 10)
    service.answer(text="x" * 11)
    with pytest.raises(ServiceError) as caught:
        both(ask(get("https://x.test/")))
    assert caught.value.kind is Kind.TOO_LARGE


def test_redirects_are_not_followed(service, both):
    """A token stays with the host it was meant for."""
    service.answer(302, location="https://elsewhere.test/")
    with pytest.raises(ServiceError):
        both(ask(get("https://x.test/")))
    assert len(service.requests) == 1


@pytest.mark.parametrize(
    ("error", "text"),
    [(httpx2.ReadTimeout("x"), "no answer in time"), (httpx2.ReadError(""), "ReadError")],
)
def test_failures_have_words(service, both, error, text):
    """Even an exception without a message says something."""
    service.fail(error)
    with pytest.raises(ServiceError, match=f"could not look: {text}"):
        both(ask(get("https://x.test/")))


class Lines:
    """A stream whose items are chunks."""

    request = get("https://x.test/")

    def receive(self, data: bytes) -> list[bytes]:
        """Return the chunk."""
        return [data]


def test_streams_are_read_as_they_come(service):
    """Both sessions yield items, and explain a refusal."""
    transport = httpx2.MockTransport(service.handle)
    service.answer(text="one").answer(403, text="Error: no").answer(text="one")

    with Session(transport=transport) as session:
        assert list(session.stream(Lines())) == [b"one"]
        with pytest.raises(ServiceError, match="could not look: no"):
            list(session.stream(Lines()))

    async def read() -> list[bytes]:
        async with AsyncSession(transport=transport) as session:
            return [item async for item in session.stream(Lines())]

    assert asyncio.run(read()) == [b"one"]


def test_an_awaitable_credential_is_awaited(service):
    """azure-identity's asynchronous credentials work in an asynchronous session only."""

    class Awaitable:
        async def get_token(self, *scopes: str) -> AccessToken:
            return AccessToken(f"for {scopes[0]}", 4e9)

    wanted = Request(
        method="GET", url="https://x.test/", purpose="look", repeatable=True,
        authorization=Bearer("scope"),
    )  # fmt: skip
    service.credential = Awaitable()
    service.answer()
    service.call_async(ask(wanted))
    assert service.requests[0].headers["authorization"] == "Bearer for scope"
