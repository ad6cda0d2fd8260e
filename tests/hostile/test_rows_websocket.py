"""Attacks on the HTTP upgrade and on WebSocket frames, against our machine on the real provider."""

import contextlib
import logging
import time
import tracemalloc
import zlib

import pytest

from anyp2p.providers.websocket import Websockets
from anyp2p_core.errors import DecodeError, HandshakeError, RemoteError
from anyp2p_core.websocket import CONTROL_BURST, MAX_HEAD, WebSocket

LIBRARY = Websockets()
KEY = b"\x01\x02\x03\x04"
FIN, CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x80, 0, 1, 2, 8, 9, 10
LINES = (
    b"GET / HTTP/1.1",
    b"Host: example.org",
    b"Upgrade: websocket",
    b"Connection: Upgrade",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    b"Sec-WebSocket-Version: 13",
)
roles = pytest.mark.parametrize("role", ["client", "server"])


def request(*more, end=b"\r\n"):
    return end.join([*LINES, *more, b"", b""])


class Victim:
    """Our end, and how much of the attack came through."""

    def __init__(self, role, *, upgraded=True):
        self.out = []
        self.received = 0
        self.masked = role == "server"
        self.socket = WebSocket(
            initiator=role == "client", host="example.org", provider=LIBRARY, write=self.out.append
        )
        self.socket.on_data = self.on_data
        if upgraded and role == "client":
            answer, refusal = LIBRARY.answer(b"".join(self.out))
            assert refusal is None
            self.socket.receive(answer, 0.0)
        elif upgraded:
            self.socket.receive(request(), 0.0)
        if upgraded:
            assert self.socket.open
            self.out.clear()

    def on_data(self, data, now):
        self.received += len(data)

    def frame(self, first, payload=b"", *, masked=None, size=None):
        masked = self.masked if masked is None else masked
        size = len(payload) if size is None else size
        bit = 0x80 if masked else 0
        if size < 126:
            head = bytes((first, bit | size))
        elif size < 1 << 16:
            head = bytes((first, bit | 126)) + size.to_bytes(2, "big")
        else:
            head = bytes((first, bit | 127)) + size.to_bytes(8, "big")
        return head + (KEY + LIBRARY.apply_mask(payload, KEY) if masked else payload)

    def attack(self, data, step=None):
        """The error that it raises, None if it waits. ``step`` cuts the data into pieces."""
        try:
            for pos in range(0, len(data), step or len(data) or 1):
                self.socket.receive(data[pos : pos + (step or len(data))], 1.0)
        except RemoteError as error:
            return error
        return None

    def said(self):
        return b"".join(self.out)

    def close_code(self):
        """What our close frame says."""
        frame = self.out[-1]
        assert frame[0] == FIN | CLOSE
        payload = LIBRARY.apply_mask(frame[6:], frame[2:6]) if not self.masked else frame[2:]
        return int.from_bytes(payload, "big")


@contextlib.contextmanager
def memory_below(bound):
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < bound, f"{peak} bytes"


# Row 128: the limits


@pytest.mark.parametrize("step", [1, 1000, None])
@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 1_000_000,
        request(b"X: " + b"a" * 1_000_000),
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 100_000,
        b"GET / HTTP/1.1\r\n" + b"X" * 1_000_000,
        b"\0" * 1_000_000,
        b"\r" * 1_000_000,
    ],
)
def test_row_128_a_head_of_a_megabyte(head, step):
    victim = Victim("server", upgraded=False)
    with memory_below(64 * 1024):
        error = victim.attack(head[: 3 * MAX_HEAD] if step == 1 else head, step)
    assert isinstance(error, HandshakeError)
    assert victim.said().startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))
    assert victim.said().count(b"HTTP/1.1") == 1


def test_row_128_a_response_of_a_megabyte():
    for head in (
        b"HTTP/1.1 101 " + b"a" * 1_000_000,
        b"HTTP/1.1 101 x\r\n" + b"X: y\r\n" * 100_000,
    ):
        for step in (100, None):
            victim = Victim("client", upgraded=False)
            with memory_below(64 * 1024):
                assert isinstance(victim.attack(head, step), HandshakeError)


def spent(function, *arguments):
    """The least CPU time of a few calls."""
    times = []
    for _ in range(5):
        start = time.process_time()
        function(*arguments)
        times.append(time.process_time() - start)
    return min(times)


def test_row_128_a_head_byte_by_byte_costs_linear_time():
    def feed(size):
        victim = Victim("server", upgraded=False)
        assert victim.attack(b"GET /".ljust(size, b"a"), 1) is None

    assert spent(feed, MAX_HEAD - 2) < 12 * spent(feed, MAX_HEAD // 4)  # 16 if it were quadratic


@roles
def test_row_128_frames_byte_by_byte_cost_linear_time(role):
    def feed(size):
        victim = Victim(role)
        assert victim.attack(victim.frame(FIN | BINARY, bytes(size)), 1) is None
        assert victim.received == size

    assert spent(feed, 40_000) < 12 * spent(feed, 10_000)


@roles
@pytest.mark.parametrize("size", [2**63, 2**63 - 1, 2**64 - 1, 2**32, 256 * 2**20])
@pytest.mark.parametrize("first", [FIN | BINARY, BINARY])
def test_row_128_a_frame_that_claims_too_much(role, size, first):
    for step in (1, None):
        victim = Victim(role)
        with memory_below(16 * 1024):
            error = victim.attack(victim.frame(first, b"", size=size), step)
        assert isinstance(error, DecodeError)
        assert victim.close_code() == 1009


@roles
def test_row_128_a_message_without_end_is_not_held(role):
    victim = Victim(role)
    piece = victim.frame(CONT, bytes(10_000))
    assert victim.attack(victim.frame(BINARY, b"x")) is None
    with memory_below(64 * 1024):
        for _ in range(500):
            assert victim.attack(piece) is None
    assert victim.received == 5_000_001


@roles
def test_row_128_empty_fragments_without_end_are_not_held(role):
    victim = Victim(role)
    assert victim.attack(victim.frame(BINARY)) is None
    pieces = victim.frame(CONT) * 1000
    with memory_below(32 * 1024):
        for _ in range(20):
            assert victim.attack(pieces) is None
    assert not victim.out


# Row 128: compression


@pytest.mark.parametrize(
    "offer",
    [
        b"permessage-deflate",
        b"permessage-deflate; client_max_window_bits; server_no_context_takeover",
        b"x-webkit-deflate-frame",
        b"permessage-bzip2, permessage-deflate",
    ],
)
def test_row_128_compression_is_not_agreed_to(offer):
    victim = Victim("server", upgraded=False)
    assert victim.attack(request(b"Sec-WebSocket-Extensions: " + offer)) is None
    assert victim.socket.open and b"xtension" not in victim.said()
    bomb = zlib.compress(bytes(50_000_000), 9)[2:-4]
    with memory_below(256 * 1024):
        error = victim.attack(victim.frame(FIN | 0x40 | BINARY, bomb))
    assert isinstance(error, DecodeError) and victim.received == 0
    assert victim.close_code() == 1002


def test_row_128_compression_is_not_offered_and_not_forced():
    victim = Victim("client", upgraded=False)
    asked = victim.said()
    assert b"xtension" not in asked
    answer, _ = LIBRARY.answer(asked)
    forced = answer.replace(
        b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    )
    assert isinstance(victim.attack(forced), HandshakeError)
    assert not victim.socket.open


# Row 128: frames that break the rules

FRAMES = {
    "unmasked by a client, masked by a server": None,
    "text": (FIN | TEXT, b"text"),
    "fragmented text": (TEXT, b"text"),
    "continuation without start": (FIN | CONT, b"x"),
    "fragmented ping": (PING, b"x"),
    "fragmented close": (CLOSE, b"\x03\xe8"),
    "long ping": (FIN | PING, bytes(126)),
    "long pong": (FIN | PONG, bytes(70_000)),
    "long close": (FIN | CLOSE, b"\x03\xe8" + bytes(124)),
    "reserved bit": (FIN | 0x10 | BINARY, b"x"),
    "reserved opcode": (FIN | 3, b"x"),
    "reserved control opcode": (FIN | 0x0B, b"x"),
    "close of one byte": (FIN | CLOSE, b"\x03"),
    "close with a code that is not sent": (FIN | CLOSE, b"\x03\xee"),
}


@roles
@pytest.mark.parametrize("step", [1, None])
@pytest.mark.parametrize("kind", FRAMES)
def test_row_128_frames_against_the_rules(role, kind, step):
    victim = Victim(role)
    if FRAMES[kind] is None:
        wire = victim.frame(FIN | BINARY, b"x", masked=not victim.masked)
    else:
        wire = victim.frame(*FRAMES[kind])
    good = victim.frame(FIN | BINARY, b"good")
    assert victim.attack(good, step) is None
    assert isinstance(victim.attack(wire + good, step), DecodeError)
    assert isinstance(victim.attack(good), DecodeError)  # nothing comes through any more
    assert victim.received == 4
    assert victim.close_code() == (1003 if "text" in kind else 1002)
    assert len(victim.out) == 1


@roles
def test_row_128_a_flood_of_pings(role):
    for together in (1, 7, 10_000):
        victim = Victim(role)
        with memory_below(4 * 1024 * 1024):
            error = victim.attack(victim.frame(FIN | PING, bytes(125)) * 10_000, 131 * together)
        assert isinstance(error, DecodeError) and victim.close_code() == 1008
        assert len(victim.out) <= CONTROL_BURST + 1
        assert len(victim.said()) < (CONTROL_BURST + 1) * 131


@roles
def test_row_128_a_close_in_the_middle_of_a_message(role):
    victim = Victim(role)
    assert victim.attack(victim.frame(BINARY, b"begun")) is None
    assert isinstance(victim.attack(victim.frame(FIN | CLOSE, b"\x03\xe8")), DecodeError)
    assert not victim.socket.ended


@roles
def test_row_128_every_truncation(role):
    """An end at any byte is either after a message or an error."""
    probe = Victim(role)
    frames = [
        probe.frame(FIN | BINARY, b"whole"),
        probe.frame(BINARY, bytes(300)),
        probe.frame(FIN | PING, b"ping"),
        probe.frame(FIN | CONT, b"rest"),
        probe.frame(FIN | PONG),
    ]
    wire = b"".join(frames)
    whole = {0, len(frames[0]), len(wire) - len(frames[4]), len(wire)}
    for length in range(len(wire) + 1):
        victim = Victim(role)
        assert victim.attack(wire[:length]) is None
        if length in whole:
            victim.socket.receive_eof()
        else:
            with pytest.raises(HandshakeError):
                victim.socket.receive_eof()


def test_row_128_every_truncation_of_the_upgrade():
    head = request(b"Origin: https://example.org")
    for length in range(len(head)):
        victim = Victim("server", upgraded=False)
        assert victim.attack(head[:length]) is None
        assert not victim.out and not victim.socket.open
        with pytest.raises(HandshakeError):
            victim.socket.receive_eof()


def test_row_128_the_library_logs_nothing_that_a_stranger_sends(caplog):
    caplog.set_level(logging.DEBUG)
    for head in (request(), request(b"bad"), b"\xff\r\n\r\n", request(b"Upgrade: x")):
        Victim("server", upgraded=False).attack(head)
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]


# Row 129: two readers of one head must read the same


@pytest.mark.parametrize("step", [1, None])
@pytest.mark.parametrize(
    "head",
    [
        request(end=b"\n"),
        request().replace(b"\r\n", b"\n", 1),
        request()[:-2] + b"\n",
        request()[:-4] + b"\n\n",
        request(b"X: a\nY: b"),
        request(b"X: a\rY: b"),
        request(b"X: a\r\r"),
        request(b"X: a\0b"),
        request(b"X: a\x0bb"),
        b"\r\n" + request(),
    ],
)
def test_row_129_line_ends(head, step):
    victim = Victim("server", upgraded=False)
    assert isinstance(victim.attack(head, step), HandshakeError)
    assert victim.said().startswith(b"HTTP/1.1 400 ") and not victim.socket.open


@pytest.mark.parametrize(
    "lines",
    [
        [b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding : chunked"],
        [b"Transfer-Encoding: identity", b"Content-Length: 0"],
        [b"Content-Length: 10"],
        [b"Content-Length: 0", b"Content-Length: 10"],
        [b"Content-Length: +0"],
        [b"Content-Length: 0, 10"],
        [b" folded: into the line before"],
        [b"\tfolded"],
        [b"X: a", b" b"],
        [b"Host: second.example"],
        [b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="],
        [b"Sec-WebSocket-Version: 13"],
        [b"Upgrade: h2c"],
        [b": no name"],
        [b"no colon"],
        [b"na me: x"],
        [b"na\xe9me: x"],
    ],
)
def test_row_129_smuggling_in_headers(lines):
    victim = Victim("server", upgraded=False)
    error = victim.attack(request(*lines) + b"GET /inner HTTP/1.1\r\nHost: x\r\n\r\n")
    assert isinstance(error, HandshakeError)
    assert victim.said().startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 426 "))
    assert not victim.socket.open and victim.received == 0


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET /\x20x HTTP/1.1", b"400"),
        (b"GET\t/ HTTP/1.1", b"400"),
        (b" GET / HTTP/1.1", b"400"),
        (b"GET / HTTP/1.1 ", b"400"),
        (b"GET / http/1.1", b"400"),
        (b"GET / HTTP/1.10", b"400"),
        (b"get / HTTP/1.1", b"405"),
        (b"GET / HTTP/1.0", b"505"),
        (b"CONNECT example.org:80 HTTP/1.1", b"405"),
        (b"PRI * HTTP/2.0", b"400"),
    ],
)
def test_row_129_request_lines(line, status):
    victim = Victim("server", upgraded=False)
    assert isinstance(victim.attack(request().replace(LINES[0], line)), HandshakeError)
    assert victim.said().startswith(b"HTTP/1.1 " + status)


def test_row_129_a_second_request_is_no_frame():
    victim = Victim("server", upgraded=False)
    assert isinstance(victim.attack(request() * 2), DecodeError)
    assert victim.said().count(b"HTTP/1.1") == 1


def test_row_129_responses():
    asked = Victim("client", upgraded=False)
    answer, _ = LIBRARY.answer(asked.said())
    for changed in (
        answer.replace(b"\r\n", b"\n"),
        answer.replace(b"\r\n", b"\n", 1),
        answer.replace(b"101", b"100"),
        answer.replace(b"101", b"200"),
        answer.replace(b"101", b"+101"),
        answer.replace(b"HTTP/1.1 101 ", b"HTTP/1.1  101 "),
        answer.replace(b"Sec-WebSocket-Accept: ", b"Sec-WebSocket-Accept: x"),
        b"HTTP/1.1 100 Continue\r\n\r\n" + answer,
    ):
        victim = Victim("client", upgraded=False)
        assert isinstance(victim.attack(changed), HandshakeError)
        assert not victim.socket.open
