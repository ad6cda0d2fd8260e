import base64
import hashlib
import socket
import threading

import pytest
import websockets.sync.client
import websockets.sync.server
from hypothesis import given, settings, strategies as st

from anyp2p.providers.websocket import Websockets
from anyp2p_core.errors import HandshakeError, RemoteError
from anyp2p_core.websocket import WebSocket

LIBRARY = Websockets()
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
REQUEST = {
    "Host": "example.org",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


def request(line="GET / HTTP/1.1", **changes):
    """A request that is right, but for the changes; underscores stand for hyphens."""
    headers = {**REQUEST, **{name.replace("_", "-"): value for name, value in changes.items()}}
    lines = [line, *(f"{name}: {value}" for name, value in headers.items() if value is not None)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def headers_of(head):
    lines = head.decode("latin-1").split("\r\n")
    return lines[0], dict(line.split(": ", 1) for line in lines[1:] if ": " in line)


def response(asked, line="HTTP/1.1 101 Switching Protocols", **changes):
    key = headers_of(asked)[1]["Sec-WebSocket-Key"]
    magic = (key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()
    headers = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": base64.b64encode(hashlib.sha1(magic).digest()).decode(),
        **{name.replace("_", "-"): value for name, value in changes.items()},
    }
    lines = [line, *(f"{name}: {value}" for name, value in headers.items() if value is not None)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


# Requests


def test_what_a_client_asks():
    upgrade = LIBRARY.upgrade("example.org:4001", "/path?x=%20")
    line, headers = headers_of(upgrade.request)
    assert line == "GET /path?x=%20 HTTP/1.1" and upgrade.request.endswith(b"\r\n\r\n")
    key = headers.pop("Sec-WebSocket-Key")
    assert len(base64.b64decode(key)) == 16
    assert headers == {
        "Host": "example.org:4001",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
    }  # no extension, no subprotocol
    assert key not in LIBRARY.upgrade("example.org", "/").request.decode()


def test_the_example_of_the_rfc():
    answer, refusal = LIBRARY.answer(request())
    line, headers = headers_of(answer)
    assert refusal is None and line == "HTTP/1.1 101 Switching Protocols"
    assert headers["Sec-WebSocket-Accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert headers["Upgrade"] == "websocket" and headers["Connection"] == "Upgrade"


@pytest.mark.parametrize(
    "head",
    [
        request("GET /any/path?and=query HTTP/1.1"),
        request(Host="rewritten.by.a.proxy:1"),
        request(Origin="https://elsewhere.example"),
        request(Origin="null"),
        request(Connection="keep-alive, Upgrade"),
        request(Upgrade="WebSocket"),
        request(Content_Length="0"),
        request(X_Forwarded_For="192.0.2.1", Cookie="a=\xe9"),
        request(Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits"),
        request(Sec_WebSocket_Extensions="this is; no; valid === list"),
        request(Sec_WebSocket_Protocol="chat, superchat"),
    ],
)
def test_requests_that_are_accepted(head):
    answer, refusal = LIBRARY.answer(head)
    assert refusal is None and answer.startswith(b"HTTP/1.1 101 ")
    assert b"Extensions" not in answer and b"Protocol:" not in answer


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (request("POST / HTTP/1.1"), 405),
        (request("GET / HTTP/1.0"), 505),
        (request("GET / HTTP/2"), 400),
        (request("GET /"), 400),
        (request("GET  / HTTP/1.1"), 400),
        (request("GET /\xe9 HTTP/1.1"), 400),
        (request(Upgrade=None), 426),
        (request(Upgrade="h2c"), 426),
        (request(Upgrade="h2c, websocket"), 426),
        (request(Connection=None), 426),
        (request(Connection="close"), 426),
        (request(Connection=";;"), 400),
        (request(Sec_WebSocket_Key=None), 400),
        (request(Sec_WebSocket_Key="short"), 400),
        (request(Sec_WebSocket_Key="\xe9" * 24), 400),
        (request(Sec_WebSocket_Version=None), 400),
        (request(Sec_WebSocket_Version="8"), 400),
        (request(Host=None), 400),
        (request(host="a second one"), 400),
        (request(sec_websocket_key=KEY), 400),
        (request(Transfer_Encoding="chunked"), 400),
        (request(Content_Length="5"), 400),
        (request(content_length="0", Content_Length="7"), 400),
        (request(**{"Host ": "x"}), 400),
        (request(**{" Host": "x"}), 400),
        (request(**{"": "x"}), 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"nothing\r\n\r\n", 400),
    ],
)
def test_requests_that_are_refused(head, status):
    answer, refusal = LIBRARY.answer(head)
    line, headers = headers_of(answer.partition(b"\r\n\r\n")[0])
    assert line.split()[1] == str(status) and isinstance(refusal, str) and refusal
    assert headers["Connection"] == "close"
    body = answer.partition(b"\r\n\r\n")[2]
    assert int(headers["Content-Length"]) == len(body)


# Responses


def test_a_response_that_is_right():
    upgrade = LIBRARY.upgrade("example.org", "/")
    upgrade.check(response(upgrade.request))
    upgrade = LIBRARY.upgrade("example.org", "/")
    upgrade.check(response(upgrade.request, X_Via="a proxy", Upgrade="WebSocket"))


@pytest.mark.parametrize(
    "changes",
    [
        {"Sec_WebSocket_Extensions": "permessage-deflate"},
        {"Sec_WebSocket_Extensions": "\xe9"},
        {"Sec_WebSocket_Protocol": "chat"},
        {"Sec_WebSocket_Accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="},
        {"Sec_WebSocket_Accept": None},
        {"sec_websocket_accept": "x"},
        {"Upgrade": None},
        {"Upgrade": "h2c"},
        {"Connection": None},
        {"Connection": "\xe9"},
        {" Folded": "x"},
        {"line": "HTTP/1.1 101"},
        {"line": "HTTP/1.1 200 OK", "Content_Length": "0"},
        {"line": "HTTP/1.1 200 OK", "Content_Length": "5"},
        {"line": "nonsense"},
    ],
)
def test_responses_that_are_wrong(changes):
    upgrade = LIBRARY.upgrade("example.org", "/")
    with pytest.raises(HandshakeError, match=r"upgrade is not valid: \w") as caught:
        upgrade.check(response(upgrade.request, **changes))
    assert "None" not in str(caught.value)


# Masks


@given(st.binary(max_size=200), st.binary(min_size=4, max_size=4))
def test_masks(data, key):
    masked = LIBRARY.apply_mask(data, key)
    assert masked == bytes(byte ^ key[n % 4] for n, byte in enumerate(data))
    assert LIBRARY.apply_mask(memoryview(b"x" + data)[1:], key) == masked


def test_masking_keys_differ():
    keys = [LIBRARY.masking_key() for _ in range(20)]
    assert len(set(keys)) == 20 and {len(key) for key in keys} == {4}


# The whole


def pair():
    """A client and a server, the upgrade behind them."""
    said = {True: [], False: []}
    client, server = (
        WebSocket(initiator=role, host="x", provider=LIBRARY, write=said[role].append)
        for role in said
    )
    server.receive(b"".join(said[True]), 0.0)
    client.receive(b"".join(said[False]), 0.0)
    assert client.open and server.open
    return client, server


@given(st.binary(max_size=100_000), st.integers(1, 70_000))
@settings(deadline=None, max_examples=50)
def test_both_ways(data, cut):
    client, server = pair()
    for near, far in ((client, server), (server, client)):
        got = []
        far.on_data = lambda piece, now, got=got: got.append(piece)
        wire = near.seal([data])
        for pos in range(0, len(wire), cut):
            far.receive(wire[pos : pos + cut], 1.0)
        assert b"".join(got) == data


MUTATIONS = st.lists(st.tuples(st.integers(0, 2000), st.binary(max_size=4)), max_size=4)


@given(MUTATIONS, st.booleans())
@settings(deadline=None, max_examples=300)
def test_mutated_heads_raise_typed_errors_or_wait(mutations, initiator):
    said = []
    socket = WebSocket(initiator=initiator, host="x", provider=LIBRARY, write=said.append)
    head = response(said[0]) if initiator else request(Sec_WebSocket_Extensions="x; y=z")
    for at, new in mutations:
        at %= len(head)
        head = head[:at] + new + head[at + 1 :]
    try:
        socket.receive(head, 1.0)
        socket.receive_eof()
    except RemoteError:
        pass


# The library's own ends, over sockets


class Wire:
    """One of our ends on a blocking socket."""

    def __init__(self, sock, **options):
        self.sock = sock
        self.got = bytearray()
        sock.settimeout(10)
        self.socket = WebSocket(provider=LIBRARY, write=sock.sendall, **options)
        self.socket.on_data = lambda data, now: self.got.extend(data)

    def until(self, condition):
        while not condition():
            data = self.sock.recv(65536)
            assert data
            self.socket.receive(data, 0.0)

    def send(self, data):
        self.sock.sendall(self.socket.seal([data]))


BULK = bytes(range(256)) * 1500


def test_our_client_and_the_librarys_server():
    closed = []

    def serve(connection):
        assert connection.request.path == "/p" and connection.request.headers["Host"] == "host:1"
        for message in connection:
            assert isinstance(message, bytes) and len(message) <= 65536
            assert connection.ping(b"are you there").wait(10)
            in_fragments = [message[:1000], message[1000:]]
            connection.send(in_fragments if len(message) > 1 else message)
        closed.append(connection.close_code)

    with websockets.sync.server.serve(serve, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with socket.create_connection(server.socket.getsockname()) as sock:
                wire = Wire(sock, initiator=True, host="host:1", path="/p")
                wire.until(lambda: wire.socket.open)
                wire.send(BULK)
                wire.until(lambda: len(wire.got) == len(BULK))
                assert wire.got == BULK
                wire.send(b"!")  # its answer is behind the end of the last fragmented message
                wire.until(lambda: wire.got == BULK + b"!")
                sock.sendall(wire.socket.finish())
                wire.until(lambda: wire.socket.ended)
                assert wire.socket.close_code == 1000
        finally:
            server.shutdown()
            thread.join(10)
    assert closed == [1000]


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_the_librarys_client_and_our_server(compression):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        failures = []

        def serve():
            try:
                sock, _ = listener.accept()
                with sock:
                    wire = Wire(sock, initiator=False)
                    wire.until(lambda: len(wire.got) == len(BULK))
                    wire.send(bytes(wire.got))
                    wire.until(lambda: wire.socket.ended)
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        with websockets.sync.client.connect(
            f"ws://127.0.0.1:{port}/x", compression=compression, proxy=None
        ) as client:
            client.send(BULK[:1000])
            client.send([BULK[1000:2000], BULK[2000:]])
            assert client.ping().wait(10)
            got = b""
            while len(got) < len(BULK):
                got += client.recv(10)
            assert got == BULK
        thread.join(10)
        assert not failures and client.close_code == 1000
