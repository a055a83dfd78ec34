from __future__ import annotations

import asyncio
import json
import ssl
from contextlib import suppress
from types import SimpleNamespace

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError

from muster.clock import SystemClock
from muster.errors import Kind, Problem
from muster.net.asgi import PEER
from muster.net.http import HttpApplication
from muster.net.http_limits import HttpLimits
from muster.net.listener import Listener
from muster.net.reasons import CloseReason
from muster.net.tls import TlsServer


async def _who(request: Request) -> Response:
    peer = request.scope["extensions"][PEER]
    return JSONResponse(
        {
            "address": peer.address,
            "chain": len(peer.chain),
            "name": peer.server_name,
            "scheme": request.url.scheme,
            "client": request.client.host,
            "server": list(request.scope["server"]),
        }
    )


async def _size(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


async def _deaf(_request: Request) -> Response:
    return PlainTextResponse("not listening")


async def _headers(request: Request) -> Response:
    await request.body()
    return JSONResponse(list(request.headers))


async def _bug(_request: Request) -> Response:
    raise RuntimeError("a bug")


async def _slow(_request: Request) -> Response:
    await asyncio.sleep(0.2)
    return PlainTextResponse("slow")


async def _slower(_request: Request) -> Response:
    await asyncio.sleep(LIMITS.idle_timeout + 0.5)
    return PlainTextResponse("slower")


async def _drip(_request: Request) -> Response:
    async def pieces():
        yield b"one"
        await asyncio.sleep(5)

    return StreamingResponse(pieces(), headers={"content-length": "200"})


async def _big(_request: Request) -> Response:
    async def pieces():
        for _ in range(300):
            yield b"x" * 10_000

    return StreamingResponse(pieces())


async def _echo(socket: WebSocket) -> None:
    await socket.accept(subprotocol="mqtt")
    await socket.send_json({"chain": len(socket.scope["extensions"][PEER].chain)})
    async for data in socket.iter_bytes():
        await socket.send_bytes(data)


async def _denied(socket: WebSocket) -> None:
    await socket.send_denial_response(PlainTextResponse("no", status_code=400))


async def _too_large(_request: Request, problem: Exception) -> Response:
    assert isinstance(problem, Problem)
    assert problem.kind is Kind.TOO_LARGE
    return JSONResponse({"error": problem.detail}, status_code=413)


ROUTES = [
    Route("/who", _who),
    Route("/size", _size, methods=["POST"]),
    Route("/deaf", _deaf, methods=["POST", "GET"]),
    Route("/headers", _headers, methods=["POST", "GET"]),
    Route("/bug", _bug),
    Route("/slow", _slow),
    Route("/slower", _slower),
    Route("/big", _big),
    Route("/drip", _drip),
    WebSocketRoute("/echo", _echo),
    WebSocketRoute("/denied", _denied),
]
# Short enough to wait for; long enough for a busy machine.
LIMITS = HttpLimits(
    head_timeout=0.4, idle_timeout=0.6, body_grace=0.4, body_rate=1000, body_bytes=100_000
)


@pytest.fixture
def application(listener: Listener) -> HttpApplication:
    """An application without any error handling of its own."""
    return HttpApplication(Starlette(routes=ROUTES), SystemClock(), listener.tasks, LIMITS)


@pytest.fixture
async def port(listener: Listener, application: HttpApplication) -> int:
    """Where it answers in the clear."""
    return await listener.open("127.0.0.1", 0, application)


async def _ask(port: int, request: bytes, *, ends: bool = True) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    async with asyncio.timeout(5):
        answer = await reader.read() if ends else await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return answer


def _get(path: str, *headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", *headers, "", ""]
    return "\r\n".join(lines).encode()


def _post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


async def test_the_peer_is_in_the_scope(listener, application, port, certificate, trust, stranger):  # noqa: PLR0917 - fixtures
    """With TLS its chain and server name, without TLS its address; HTTP is the same otherwise."""
    tls = TlsServer(certificate, alpn=["http/1.1"])
    secure = await listener.open("127.0.0.1", 0, application, tls)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = trust(version, stranger.issue_cert("device@example.com"))
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", secure, ssl=context, server_hostname="localhost"
        )
        writer.write(_get("/who", "Connection: close"))
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert json.loads(body) == {
            "address": "127.0.0.1", "chain": 1, "name": "localhost", "scheme": "https",
            "client": "127.0.0.1", "server": ["127.0.0.1", secure],
        }  # fmt: skip
        writer.close()
    plain = (await _ask(port, _get("/who", "Connection: close"))).partition(b"\r\n\r\n")[2]
    assert json.loads(plain) == {
        "address": "127.0.0.1", "chain": 0, "name": None, "scheme": "http",
        "client": "127.0.0.1", "server": ["127.0.0.1", port],
    }  # fmt: skip


async def test_answers_carry_a_date_and_no_server(port):
    """A Date as RFC 9110 wants it; nothing that tells which software this is."""
    head = (await _ask(port, _get("/who"), ends=False)).lower()
    assert b"\r\ndate: " in head
    assert b"gmt" in head
    assert b"server:" not in head
    assert b"uvicorn" not in head


async def test_a_connection_is_kept_for_the_next_request(port):
    """Requests follow each other on one connection, pipelined or not."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(3):
        writer.write(_post("/size", b"12345"))
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(1) == b"5"
    writer.write(
        _post("/size", b"1") + _post("/size", b"12") + _post("/size", b"1", "Connection: close")
    )
    answers = await reader.read()
    assert [part[:1] for part in answers.split(b"\r\n\r\n")[1:]] == [b"1", b"2", b"1"]
    writer.close()


async def test_a_chunked_body_is_read(port):
    """The official Node SDK sends every body chunked."""
    request = (
        b"POST /size HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        b"5\r\nhello\r\n3\r\nyou\r\n0\r\n\r\n"
    )
    assert (await _ask(port, request)).endswith(b"\r\n\r\n8")


async def test_big_answers_wait_for_slow_readers(port):
    """Three megabytes arrive whole however slowly they are read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=20_000)
    writer.write(_get("/big", "Connection: close"))
    size = 0
    while data := await reader.read(50_000):
        size += len(data)
        await asyncio.sleep(0.002)
    assert size > 3_000_000
    writer.close()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x00\x01\x02" * 50,
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /who HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET http://b/who HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://a/who HTTP/1.0\r\n\r\n",
        b"GET http://a HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /size HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        (b"GET /echo HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"),
        b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
        (b"POST /size HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (b"POST /size HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
        b"Content-Length: 5\r\n\r\n0\r\n\r\n"),
        b"POST /size HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /size HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nhello",
        b"POST /size HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello",
        b"POST /size HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"POST /size HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"GET /who HTTP/1.1\r\nHost: a\r\nX: a\r\n folded\r\n\r\n",
        b"GET /who HTTP/1.1\nHost: a\n\n",
        b"GET /who HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET /who HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
        b"POST /size HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    ],
)  # fmt: skip
async def test_what_can_be_read_in_two_ways_is_refused(listener, port, request_bytes, until):
    """Smuggling and nonsense get 400 and a close, and no application sees a second request."""
    answer = await _ask(port, request_bytes + b"GET /who HTTP/1.1\r\nHost: smuggled\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n"), answer
    assert b"smuggled" not in answer
    assert b'"chain"' not in answer
    await until(lambda: listener.closings.counts[CloseReason.BAD_REQUEST] == 1)


@pytest.mark.parametrize(
    "head",
    [
        _get("/who", "X: " + "y" * 40_000),
        _get("/who?" + "y" * 40_000),
        _get("/who", *[f"X{number}: y" for number in range(120)]),
        b"GET /who HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 200_000,
        b"GET /" + b"y" * 200_000,
    ],
)
async def test_a_head_that_is_too_long_is_refused(listener, port, head, until):
    """Whole or endless, in one header or many: 431 and a close."""
    assert (await _ask(port, head)).startswith(b"HTTP/1.1 431 ")
    await until(lambda: listener.closings.counts[CloseReason.BAD_REQUEST] == 1)


_CHUNKED = b"POST /size HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


async def _pour(port: int, start: bytes, piece: bytes, most: int) -> tuple[bytes, int]:
    """Send *start*, then *piece* again and again; return the answer and the bytes sent by then."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(start)
    answer = asyncio.create_task(reader.read())
    sent = 0
    while sent < most and not answer.done():
        writer.write(piece)
        sent += len(piece)
        await asyncio.sleep(0)
        with suppress(ConnectionError):
            await writer.drain()
    try:
        return await asyncio.wait_for(answer, 5), sent
    finally:
        writer.close()


@pytest.mark.parametrize("path", [b"/size", b"/deaf"])
@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"0\r\n", b"x0001: y\r\n" * 50),
        (b"0\r\nx: ", b"y" * 1000),
        (b"0\r\n", b"x" * 1000),
        (b"5;", b"x" * 1000),
        (b"5;x=", b"y" * 1000),
        (b"", b"1;" + b"x" * 5000 + b"\r\ny\r\n"),
        (b"", b"0" * 1000),
    ],
)
async def test_what_frames_a_body_is_bounded(listener, port, path, start, piece, until):  # noqa: PLR0917 - fixtures
    """Endless trailers, one endless trailer, endless chunk extensions: 431 and a close, soon."""
    request = _CHUNKED.replace(b"/size", path) + start
    answer, sent = await _pour(port, request, piece, 5_000_000)
    assert sent < 2_000_000
    assert answer.startswith(b"HTTP/1.1 431 " if path == b"/size" else b"HTTP/1.1 ")
    assert answer.count(b"HTTP/1.1") == 1
    await until(lambda: listener.closings.counts[CloseReason.BAD_REQUEST] == 1)


async def test_a_refusal_never_falls_into_another_answer(port):
    """A bad request behind one that is being answered closes; its 400 would be read as content."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(_get("/drip"))
    await reader.readuntil(b"one")
    writer.write(_get("/who") + _get("/who", "Host: b"))
    assert b"HTTP/1.1" not in await asyncio.wait_for(reader.read(), 5)
    writer.close()


async def test_trailers_after_a_long_body_are_bounded_too(port):
    """A body earns its own framing, not a long trailer."""
    body = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    answer, sent = await _pour(port, _CHUNKED + body + b"0\r\nx: ", b"y" * 1000, 5_000_000)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert sent < 2_000_000


async def test_a_body_of_single_bytes_is_read(port):
    """Chunks of one byte are wasteful, not hostile; trailers in measure are dropped."""
    chunks = b"1\r\nx\r\n" * 50_000
    request = _CHUNKED.replace(b"Host: a", b"Host: a\r\nConnection: close")
    answer = await _ask(port, request + chunks + b"0\r\nx: y\r\n\r\n")
    assert answer.endswith(b"\r\n\r\n50000")


async def test_a_trailer_is_no_header(port):
    """What a peer says after the body changes neither this request nor the next one."""
    request = _CHUNKED.replace(b"/size", b"/headers") + b"0\r\nx-trailer: y\r\n\r\n"
    answer = await _ask(port, request + _get("/headers", "Connection: close"))
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert b"x-trailer" not in answer


@pytest.mark.parametrize(
    "start",
    [
        b"GET /",
        b"GET /who HTTP/1.1\r\nHost: a\r\n",
        b"POST /size HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\nx",
    ],
)
async def test_a_trickle_is_cut(listener, port, start, until):
    """One byte now and then does not keep a connection: 408 and a close."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(start)
    answer = asyncio.create_task(reader.read())
    for _ in range(60):
        await asyncio.wait([answer], timeout=0.05)
        if answer.done():
            break
        writer.write(b"x")
    assert (await answer).startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    await until(lambda: listener.closings.counts[CloseReason.SLOW_REQUEST] == 1)
    writer.close()


async def test_an_idle_connection_is_closed(listener, port, until):
    """Before a first request and after the last one, silence is limited."""
    assert await _ask(port, b"") == b""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(_get("/who"))
    assert b"200 OK" in await asyncio.wait_for(reader.read(), 5)
    await until(lambda: listener.closings.counts[CloseReason.IDLE] == 2)
    writer.close()


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("path", ["/size", "/deaf"])
async def test_a_body_that_is_too_large_is_refused(listener, port, declared, path):
    """Declared or not, read by the application or not, a large body ends the connection."""
    if declared:
        request = _post(path, b"x" * 300_000)
    else:
        lines = f"POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        request = lines.encode() + (b"ffff\r\n" + b"x" * 65535 + b"\r\n") * 5
    answer = await _ask(port, request)
    assert answer.startswith(b"HTTP/1.1 413 " if path == "/size" else b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1") == 1


async def test_an_application_says_too_large_in_its_own_words(listener):
    """The limit reaches the application as a Problem, which it may render."""
    app = Starlette(routes=ROUTES, exception_handlers={Problem: _too_large})
    port = await listener.open(
        "127.0.0.1", 0, HttpApplication(app, SystemClock(), listener.tasks, LIMITS)
    )
    answer = await _ask(port, _post("/size", b"x" * 300_000))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.endswith(b'{"error":"a request\'s body has at most 100000 bytes"}')


async def test_a_client_that_asks_first_is_told_before_it_sends(port):
    """Expect: 100-continue gets 413 instead of an invitation (RFC 9110 section 10.1.1)."""
    request = (
        b"POST /size HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\nExpect: 100-continue\r\n\r\n"
    )
    assert (await _ask(port, request)).startswith(b"HTTP/1.1 413 ")


async def test_a_bug_is_500_and_says_no_more(port, caplog):
    """The traceback is for the log, not for the peer."""
    answer = await _ask(port, _get("/bug", "Connection: close"))
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"a bug" not in answer
    assert "RuntimeError: a bug" in caplog.text


async def test_a_flood_of_pipelined_requests_is_cut(listener, port, until):
    """Requests ahead of their answers are limited, so they cannot fill the memory."""
    answer = await _ask(port, _get("/slow") * 500)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 429 ")
    await until(lambda: listener.closings.counts[CloseReason.BAD_REQUEST] == 1)


async def test_stop_finishes_the_request_under_way(listener, port):
    """A request that was taken is answered; an idle connection is closed at once."""
    idle, idle_writer = await asyncio.open_connection("127.0.0.1", port)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(_get("/slow"))
    await asyncio.sleep(0.05)
    report, answer, rest = await asyncio.gather(listener.close(3), reader.read(), idle.read())
    assert answer.endswith(b"slow")
    assert rest == b""
    assert (report.cut, report.tasks_cancelled) == (0, 0)
    idle_writer.close()
    writer.close()


async def test_websockets_carry_the_peer(listener, application, certificate, trust, stranger):
    """A WebSocket over TLS sees the client certificate too, and echoes the sub-protocol."""
    tls = TlsServer(certificate, alpn=["http/1.1"])
    secure = await listener.open("127.0.0.1", 0, application, tls)
    async with connect(
        f"wss://localhost:{secure}/echo",
        ssl=trust(identity=stranger.issue_cert("device@example.com")),
        subprotocols=["mqtt"],
        proxy=None,
    ) as socket:
        assert socket.subprotocol == "mqtt"
        assert socket.protocol.extensions == []
        assert json.loads(await socket.recv()) == {"chain": 1}
        for size in (1, 70_000, 400_000):
            await socket.send(b"x" * size)
            assert await socket.recv() == b"x" * size
        await asyncio.sleep(0.8)  # longer than an idle HTTP connection may be
        await socket.send(b"still here")
        assert await socket.recv() == b"still here"


def _upgrade(*headers: str, start: str = "GET /echo HTTP/1.1") -> bytes:
    lines = [
        start, "Host: a", "Upgrade: websocket", "Connection: Upgrade",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Version: 13", *headers,
    ]  # fmt: skip
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.mark.parametrize(
    "handshake",
    [
        _upgrade("Content-Length: 5"),
        _upgrade("Content-Length: 5") + b"hello",
        _upgrade("Transfer-Encoding: chunked"),
        _upgrade("Transfer-Encoding: chunked") + b"0\r\n\r\n",
        _upgrade("X: " + "y" * 9000),
        _upgrade(start="GET /echo HTTP/1.0"),
        _get("/slow") + _upgrade(),
    ],
)
async def test_an_upgrade_that_cannot_be_is_refused(listener, port, handshake, until):
    """With a body, unreadable, or behind an unanswered request: closed at once, never held."""
    answer = await _ask(port, handshake)
    assert answer.startswith(b"HTTP/1.1 400 ") or (not answer and b"/slow" in handshake)
    await until(lambda: listener.closings.counts[CloseReason.BAD_REQUEST] == 1)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /who\r\n\r\n", b"505"),
        (b"GET /who\r\nHost: a\r\n\r\n", b"505"),
        (b"GET /who HTTP/0.9\r\nHost: a\r\n\r\n", b"505"),
        (b"GET /who HTTP/2.0\r\nHost: a\r\n\r\n", b"505"),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", b"501"),
        (b"CONNECT /who HTTP/1.1\r\nHost: a\r\n\r\n", b"501"),
        (_CHUNKED.replace(b"chunked", b"gzip, chunked") + b"0\r\n\r\n", b"501"),
        (b"TRACE /who HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"405"),
        (b"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"404"),
        (b"HEAD /who HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"200"),
        (b"GET /who HTTP/1.0\r\n\r\n", b"200"),
        (b"GET http://A/who HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"200"),
    ],
)
async def test_versions_and_methods(port, request_bytes, status):
    """HTTP/1.0 and 1.1 are served; no proxy, no codings but chunked; HEAD has no content."""
    head, _, body = (await _ask(port, request_bytes)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status)
    assert b"\r\nconnection: close" in head
    assert bool(body) is not request_bytes.startswith(b"HEAD")


async def test_an_upgrade_to_something_else_is_ignored(port):
    """Clients offer h2c; they get HTTP/1.1, and the request behind is not lost."""
    first = _get("/who", "Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings")
    answer = await _ask(port, first + _get("/who", "Connection: close"))
    assert answer.count(b"HTTP/1.1 200 OK") == 2


async def test_an_upgrade_may_say_that_it_has_no_body(port):
    """Content-Length: 0 is superfluous and harmless."""
    answer = await _ask(port, _upgrade("Content-Length: 0"), ends=False)
    assert answer.startswith(b"HTTP/1.1 101 ")


async def test_a_connection_that_waits_for_nothing_is_closed(application):
    """The safety net: a request is complete, nobody works on it, and the time comes."""
    connection = SimpleNamespace(
        is_open=True, is_tls=False, address="", port=0, local=("", 0), peer=None, closed=[]
    )
    connection.write = connection.closed.append
    connection.close = lambda reason, _why: connection.closed.append(reason)
    receiver = application.open(connection)
    receiver.request_begins()
    receiver.request_is_complete(answered=False)
    await asyncio.sleep(LIMITS.head_timeout + 0.3)
    assert connection.closed[-1] is CloseReason.SLOW_REQUEST
    connection.is_open = False
    receiver.lost(CloseReason.SLOW_REQUEST, "")
    await asyncio.sleep(0)


async def test_a_slow_answer_behind_another_is_waited_for(port):
    """The idle time does not run while any request is being worked on."""
    answer = await _ask(port, _get("/who") + _get("/slower", "Connection: close"))
    assert answer.endswith(b"slower")


@pytest.mark.parametrize(
    ("handshake", "status"),
    [
        (_upgrade(start="GET /nowhere HTTP/1.1"), b"403"),
        (_upgrade(start="GET /size HTTP/1.1"), b"403"),
        (_upgrade(start="GET /denied HTTP/1.1"), b"400"),
        (_upgrade(start="POST /echo HTTP/1.1"), b"405"),
        (_upgrade().replace(b"Version: 13", b"Version: 12"), b"400"),
        (_upgrade().replace(b"-Key", b"-Lock"), b"400"),
        (_upgrade("X: " + "y" * 9000), b"400"),
    ],
)
async def test_a_denied_websocket_leaves_nothing_behind(  # noqa: PLR0917 - fixtures
    application, listener, port, handshake, status, caplog, until
):
    """No line at error, however it is denied, and no object that stays in memory."""
    for _ in range(3):
        assert (await _ask(port, handshake)).startswith(b"HTTP/1.1 " + status)
    await until(lambda: listener.connection_count == 0)
    await until(lambda: not application.state.connections)
    assert not caplog.records


async def test_text_that_is_not_utf_8_is_refused_quietly(port, caplog):
    """Close code 1007 and no traceback, which any stranger could cause."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(_upgrade())
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"\x81\x82\0\0\0\0\xff\xfe")
    assert b"\x03\xef" in await asyncio.wait_for(reader.read(), 5)
    assert not caplog.records
    writer.close()


@pytest.mark.parametrize("rest", [b"ZZ\r\n", b"5\r\nhel"])
async def test_who_leaves_within_a_body_fills_no_log(listener, port, caplog, rest, until):
    """A broken or unfinished body is the peer's doing: no traceback for it."""
    _reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(_CHUNKED)
    await asyncio.sleep(0.05)
    writer.write(rest)
    writer.close()
    await until(lambda: listener.connection_count == 0 and not listener.tasks.tasks)
    assert not caplog.records


async def _send_empty_fragments(socket: ClientConnection) -> None:
    await socket.send(b"" for _ in range(5000))
    await socket.recv()


async def test_websocket_messages_are_bounded(port):
    """In bytes, and in empty fragments that no size limit would ever see."""
    async with connect(f"ws://127.0.0.1:{port}/echo", subprotocols=["mqtt"], proxy=None) as socket:
        await socket.recv()
        await socket.send(b"x" * 600_000)
        with pytest.raises(ConnectionClosedError, match="1009"):
            await socket.recv()
    async with connect(f"ws://127.0.0.1:{port}/echo", subprotocols=["mqtt"], proxy=None) as socket:
        await socket.recv()
        with pytest.raises(ConnectionClosedError, match="1009"):
            await _send_empty_fragments(socket)
