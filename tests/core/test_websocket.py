import tracemalloc
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings, strategies as st

from anyp2p_core.errors import DecodeError, HandshakeError, LocalError, RemoteError
from anyp2p_core.route import Route
from anyp2p_core.websocket import (
    CONTROL_BURST,
    CONTROL_RATE,
    MAX_FRAME,
    MAX_HEAD,
    MAX_HEADERS,
    MAX_MESSAGE,
    WebSocket,
    WebSockets,
)

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
ACCEPTED = b"HTTP/1.1 101 Welcome\r\nX: y\r\n\r\n"
KEY = b"\x01\x02\x03\x04"


class Library:
    """A provider that looks at nothing but the words "refuse" and "wrong"."""

    def __init__(self):
        self.heads = []

    def upgrade(self, host, path):
        return Asked(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())

    def answer(self, request):
        self.heads.append(request)
        if b"refuse" in request:
            return b"HTTP/1.1 426 Upgrade Required\r\n\r\n", "told to refuse"
        return ACCEPTED, None

    def masking_key(self):
        return KEY

    def apply_mask(self, data, key):
        assert len(key) == 4
        return bytes(byte ^ key[n & 3] for n, byte in enumerate(data))


class Asked:
    def __init__(self, request):
        self.request = request

    def check(self, response):
        if b"wrong" in response:
            raise HandshakeError("wrong")


LIBRARY = Library()


@dataclass
class Side:
    """A machine and what it did."""

    machine: WebSocket
    out: list
    data: list = field(default_factory=list)
    opened: list = field(default_factory=list)
    ended: list = field(default_factory=list)

    def __post_init__(self):
        self.machine.on_data = lambda data, now: self.data.append(data)
        self.machine.on_open = self.opened.append
        self.machine.on_end = self.ended.append

    def feed(self, data, now=1.0):
        self.machine.receive(data, now)

    @property
    def received(self):
        return b"".join(self.data)

    def take(self):
        said = b"".join(self.out)
        self.out.clear()
        return said


def make(role, *, upgraded=True, provider=LIBRARY):
    out = []
    machine = WebSocket(initiator=role == "client", host="x", provider=provider, write=out.append)
    side = Side(machine, out)
    if upgraded:
        side.feed(ACCEPTED if role == "client" else REQUEST)
        assert machine.open
        side.take()
    return side


def frame(first, payload=b"", *, masked, size=None):
    """One frame; ``size`` is what its header claims if that is not the truth."""
    size = len(payload) if size is None else size
    bit = 0x80 if masked else 0
    if size < 126:
        head = bytes((first, bit | size))
    elif size < 1 << 16:
        head = bytes((first, bit | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, bit | 127)) + size.to_bytes(8, "big")
    if not masked:
        return head + payload
    return head + KEY + LIBRARY.apply_mask(payload, KEY)


def to(side, first, payload=b"", **options):
    """A frame as the peer of ``side`` sends it."""
    return frame(first, payload, masked=side.machine._initiator is False, **options)


FIN, CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x80, 0, 1, 2, 8, 9, 10
roles = pytest.mark.parametrize("role", ["client", "server"])


def each(data):
    return [data[n : n + 1] for n in range(len(data))]


# The upgrade


def test_a_client_asks_for_what_it_was_told():
    out = []
    WebSocket(initiator=True, host="h:1", path="/p?q", provider=LIBRARY, write=out.append)
    assert out == [b"GET /p?q HTTP/1.1\r\nHost: h:1\r\n\r\n"]


@pytest.mark.parametrize(
    ("host", "path"),
    [("", "/"), ("a b", "/"), ("a\r\nb", "/"), ("é", "/"), ("a", ""), ("a", "x"), ("a", "/ x")],
)
def test_what_cannot_stand_in_a_request_is_refused(host, path):
    with pytest.raises(LocalError, match="cannot stand in an HTTP request"):
        WebSocket(initiator=True, host=host, path=path, provider=LIBRARY, write=[].append)


def test_a_maker_takes_the_host_from_the_route():
    out = []
    maker = WebSockets(LIBRARY)
    route = Route("tcp", "dns", "example.org", 4001, layers=("ws",), http_path="/p")
    client = maker.start(initiator=True, route=route, write=out.append)
    assert out == [b"GET /p HTTP/1.1\r\nHost: example.org:4001\r\n\r\n"]
    server = maker.start(initiator=False, route=None, write=out.append)
    assert (repr(client), repr(server)) == (
        "<WebSocket client, in the upgrade>",
        "<WebSocket server, in the upgrade>",
    )


def test_a_maker_says_beforehand_what_it_cannot_dial():
    maker = WebSockets(LIBRARY)
    maker.check(Route("tcp", "dns", "example.org", 4001, layers=("ws",)))
    maker.check(Route("tcp", "dns", "\u00e9.org", 4001, layers=("ws",)))
    for bad in ("a b", "\u00e9" * 64):
        with pytest.raises(LocalError, match="cannot stand in"):
            maker.check(Route("tcp", "dns", bad, 4001, layers=("ws",)))


def test_two_machines_talk():
    out = {"client": [], "server": []}
    client, server = (
        Side(
            WebSocket(
                initiator=role == "client", host="x", provider=LIBRARY, write=out[role].append
            ),
            out[role],
        )
        for role in out
    )
    server.feed(client.take(), 2.0)
    assert server.opened == [2.0] and not client.opened
    client.feed(server.take(), 3.0)
    assert client.opened == [3.0]
    server.feed(client.machine.seal([b"he", b"llo"]))
    client.feed(server.machine.seal([b"wo", b"rld"]))
    assert (server.received, client.received) == (b"hello", b"world")
    assert repr(client.machine) == "<WebSocket client, open>"
    server.feed(client.machine.finish(), 4.0)
    assert server.ended == [4.0] and server.machine.close_code == 1000
    client.feed(server.take(), 5.0)
    assert client.ended == [5.0] and repr(client.machine) == "<WebSocket client, ended>"


@roles
@pytest.mark.parametrize("cut", [each, lambda data: [data]])
def test_frames_may_come_with_the_head(role, cut):
    side = make(role, upgraded=False)
    head = ACCEPTED if role == "client" else REQUEST
    for piece in cut(head + to(side, FIN | BINARY, b"early")):
        side.feed(piece)
    assert len(side.opened) == 1 and side.received == b"early"


def test_the_server_answers_before_it_opens():
    side = make("server", upgraded=False)
    side.machine.on_open = lambda now: side.opened.append(side.take())
    side.feed(REQUEST)
    assert side.opened == [ACCEPTED]
    assert LIBRARY.heads[-1] == REQUEST


def test_a_request_that_the_provider_refuses():
    side = make("server", upgraded=False)
    for _ in range(2):
        with pytest.raises(HandshakeError, match="no WebSocket upgrade: told to refuse"):
            side.feed(b"GET /refuse HTTP/1.1\r\n\r\n")
    assert side.take() == b"HTTP/1.1 426 Upgrade Required\r\n\r\n"
    assert not side.opened and "failed" in repr(side.machine)
    assert side.machine.finish() == b""


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "'HTTP/1.1 404 Not Found' instead of"),
        (b"HTTP/1.0 101 Welcome\r\n\r\n", "instead of"),
        (b"HTTP/1.1 302 Go\r\nLocation: ws://y/\r\n\r\n", "instead of"),
        (b"HTTP/1.1 101 wrong\r\n\r\n", "wrong"),
        (b"HTTP/1.1 101 x\n\n", "does not end in CR LF"),
    ],
)
def test_responses_that_are_no_upgrade(head, reason):
    side = make("client", upgraded=False)
    side.take()
    with pytest.raises(HandshakeError, match=reason):
        side.feed(head)
    assert not side.out and not side.opened


BAD, LARGE = b"400 Bad Request", b"431 Request Header Fields Too Large"
HEADS = [
    (b"GET / HTTP/1.1\nHost: x\n\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: x\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: x\r\n\n", BAD),
    (b"GET / HTTP/1.1\r\nHo\rst: x\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: \0\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: \x7f\r\n\r\n", BAD),
    (b"\n", BAD),
    (b"\r\n", BAD),
    (b"\x13/multistream/1.0.0\n", BAD),
    (b"GET / HTTP/1.1\r\n" + b"a:\r\n" * (MAX_HEADERS + 1) + b"\r\n", LARGE),
    (b"GET /" + b"a" * MAX_HEAD, LARGE),
    (b"GET / HTTP/1.1\r\na: " + b"a" * 1_000_000 + b"\r\n\r\n", LARGE),
]


@pytest.mark.parametrize(("head", "status"), HEADS)
@pytest.mark.parametrize("single", [False, True])
def test_heads_that_are_refused(head, status, single):
    side = make("server", upgraded=False)
    with pytest.raises(HandshakeError, match="breaks HTTP"):
        for piece in each(head[: 2 * MAX_HEAD]) if single else [head]:
            side.feed(piece)
    assert side.take() == (
        b"HTTP/1.1 " + status + b"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    )


def test_the_largest_heads_are_accepted():
    for head in (
        b"GET / HTTP/1.1\r\n" + b"a:\r\n" * MAX_HEADERS + b"\r\n",
        b"GET / HTTP/1.1\r\na: ".ljust(MAX_HEAD - 4, b"a") + b"\r\n\r\n",
    ):
        side = make("server", upgraded=False)
        for piece in each(head[:-1]):
            side.feed(piece)
        assert not side.opened
        side.feed(head[-1:] + to(side, FIN | BINARY, b"data"))
        assert side.opened and side.received == b"data"


def test_a_head_one_byte_too_long():
    side = make("server", upgraded=False)
    with pytest.raises(HandshakeError, match="more than 8192 bytes"):
        side.feed(b"GET / HTTP/1.1\r\na: ".ljust(MAX_HEAD - 3, b"a") + b"\r\n\r\n")


# Frames that are right

SIZES = [0, 1, 2, 125, 126, 127, 4095, 4096, 65535, 65536, 65537, 70_000]


@roles
@pytest.mark.parametrize("size", SIZES)
def test_messages_of_all_sizes(role, size):
    payload = bytes(n * 7 & 0xFF for n in range(size))
    for pieces in (
        lambda wire: [wire],
        lambda wire: [wire[:1], wire[1:]],
        lambda wire: [wire[n : n + 1000] for n in range(0, len(wire), 1000)],
        lambda wire: [*each(wire[:300]), wire[300:]],
    ):
        side = make(role)
        for piece in pieces(to(side, FIN | BINARY, payload) + to(side, FIN | BINARY, b"tail")):
            side.feed(piece)
        assert side.received == payload + b"tail"
        side.machine.receive_eof()


@roles
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 65537, 200_000])
def test_what_is_sealed_comes_out(role, size):
    payload = bytes(n * 7 & 0xFF for n in range(size))
    near, far = make(role), make("server" if role == "client" else "client")
    chunks = [payload[:5], payload[5:99], payload[99:]]
    wire = near.machine.seal(chunks)
    far.feed(wire)
    assert far.received == payload
    if 0 < size <= MAX_MESSAGE:
        assert wire == frame(FIN | BINARY, payload, masked=role == "client")
    assert (wire == b"") == (size == 0)
    assert near.machine.seal([]) == b""


def test_long_data_is_several_messages():
    side = make("server")
    wire = side.machine.seal([bytes(MAX_MESSAGE), b"x"])
    assert wire == frame(FIN | BINARY, bytes(MAX_MESSAGE), masked=False) + frame(
        FIN | BINARY, b"x", masked=False
    )


def test_nothing_is_sealed_before_the_upgrade():
    side = make("server", upgraded=False)
    with pytest.raises(LocalError, match="not open"):
        side.machine.seal([b"x"])
    assert side.machine.finish() == b""


@roles
def test_fragments_go_up_as_they_come(role):
    side = make(role)
    side.feed(to(side, BINARY, b"one"))
    assert side.data == [b"one"]
    side.feed(to(side, FIN | PING, b"?"))  # allowed in between
    side.feed(to(side, CONT, b""))
    side.feed(to(side, CONT, b"two"))
    side.feed(to(side, FIN | CONT, b"three") + to(side, FIN | BINARY, b"four"))
    assert side.received == b"onetwothreefour"
    side.machine.receive_eof()


def test_half_of_a_frame_goes_up():
    side = make("server")
    wire = to(side, FIN | BINARY, b"0123456789")
    side.feed(wire[:9])
    assert side.data == [b"012"]
    side.feed(wire[9:11])
    side.feed(wire[11:])
    assert side.data == [b"012", b"34", b"56789"]


@roles
def test_an_unbounded_message_is_not_held(role):
    side = make(role)
    side.machine.on_data = lambda data, now: None
    piece = to(side, CONT, bytes(1000))
    side.feed(to(side, BINARY, b"x"))
    tracemalloc.start()
    for _ in range(1000):
        side.feed(piece)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 10_000


@roles
def test_the_largest_frame(role):
    side = make(role)
    side.feed(to(side, FIN | BINARY, b"x", size=MAX_FRAME))
    assert side.received == b"x"


# Control frames


@roles
def test_a_ping_is_answered_with_its_payload(role):
    for payload in (b"", b"hello", bytes(125)):
        for pieces in (lambda wire: [wire], each):
            side = make(role)
            for piece in pieces(to(side, FIN | PING, payload)):
                side.feed(piece)
            assert side.take() == frame(FIN | PONG, payload, masked=role == "client")


@roles
def test_of_many_pings_the_last_is_answered(role):
    side = make(role)
    side.feed(b"".join(to(side, FIN | PING, bytes((n,))) for n in range(CONTROL_BURST)))
    assert side.take() == frame(FIN | PONG, bytes((CONTROL_BURST - 1,)), masked=role == "client")


@roles
@pytest.mark.parametrize("kind", [PING, PONG])
def test_too_many_control_frames_end_it(role, kind):
    side = make(role)
    wire = to(side, FIN | kind, b"x")
    for _ in range(CONTROL_BURST):
        side.feed(wire, 10.0)
    assert len(side.out) == (CONTROL_BURST if kind == PING else 0)
    for n in range(1, 100):  # at the allowed rate for ever
        side.feed(wire, 10.0 + n / CONTROL_RATE)
    side.take()
    with pytest.raises(DecodeError, match="pings or pongs"):
        side.feed(wire, 10.0 + 99 / CONTROL_RATE)
    assert side.take() == frame(FIN | CLOSE, b"\x03\xf0", masked=role == "client")


@roles
def test_nobody_saves_up_pings(role):
    side = make(role)
    wire = to(side, FIN | PING)
    with pytest.raises(DecodeError, match="pings or pongs"):
        side.feed(wire * (CONTROL_BURST + 1), 1e6)


CODES = [
    (b"", None),
    (b"\x03\xe8", 1000),
    (b"\x03\xe8bye", 1000),
    (b"\x03\xe9\xff", 1001),
    (b"\x0b\xb8", 3000),
    (b"\x13\x87", 4999),
]


@roles
@pytest.mark.parametrize(("payload", "code"), CODES)
def test_the_peer_closes(role, payload, code):
    side = make(role)
    wire = to(side, FIN | BINARY, b"last") + to(side, FIN | CLOSE, payload)
    side.feed(wire + to(side, FIN | BINARY, b"too late"), 7.0)
    assert side.received == b"last"
    assert (side.ended, side.machine.ended, side.machine.close_code) == ([7.0], True, code)
    assert side.take() == frame(FIN | CLOSE, payload[:2], masked=role == "client")
    side.feed(b"garbage")
    side.machine.receive_eof()
    assert side.machine.finish() == b"" == side.machine.seal([b"x"])
    assert side.ended == [7.0] and side.received == b"last"


@roles
def test_we_close_first(role):
    side = make(role)
    assert side.machine.finish() == frame(FIN | CLOSE, b"\x03\xe8", masked=role == "client")
    assert side.machine.finish() == b"" == side.machine.seal([b"x"])
    side.feed(to(side, FIN | BINARY, b"still coming") + to(side, FIN | PING))
    assert side.received == b"still coming"
    side.feed(to(side, FIN | CLOSE, b"\x03\xe8"))
    assert side.machine.ended and not side.out


# Frames that are wrong

WRONG = [
    (FIN | TEXT, b"text", "text", 1003),
    (TEXT, b"text", "text", 1003),
    (FIN | CONT, b"x", "continuation of nothing", 1002),
    (FIN | 0x40 | BINARY, b"x", "extension", 1002),
    (FIN | 0x20 | BINARY, b"x", "extension", 1002),
    (FIN | 0x10 | BINARY, b"x", "extension", 1002),
    *((FIN | opcode, b"", "unknown kind", 1002) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
    (PING, b"x", "control frame in pieces", 1002),
    (CLOSE, b"", "control frame in pieces", 1002),
    (FIN | PING, bytes(126), "control frame in pieces", 1002),
    (FIN | CLOSE, bytes(65536), "control frame in pieces", 1002),
    (FIN | CLOSE, b"\x03", "valid code", 1002),
    *(
        (FIN | CLOSE, code.to_bytes(2, "big"), "valid code", 1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65535)
    ),
]


@roles
@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize(("first", "payload", "reason", "code"), WRONG)
def test_wrong_frames(role, first, payload, reason, code, single):
    side = make(role)
    wire = to(side, first, payload)[:400]
    with pytest.raises(DecodeError, match=reason):
        for piece in each(wire) if single else [wire]:
            side.feed(piece)
    assert side.take() == frame(FIN | CLOSE, code.to_bytes(2, "big"), masked=role == "client")
    assert "failed" in repr(side.machine)
    with pytest.raises(DecodeError, match=reason):
        side.feed(to(side, FIN | BINARY, b"more"))
    assert not side.data and not side.out and not side.machine.ended


@roles
def test_the_wrong_side_masks(role):
    side = make(role)
    reason = "that is masked" if role == "client" else "that is not masked"
    with pytest.raises(DecodeError, match=reason):
        side.feed(frame(FIN | BINARY, b"x", masked=role == "client"))


@roles
@pytest.mark.parametrize(
    ("length", "reason"),
    [
        (b"\x7e\x00\x7d", "minimal"),
        (b"\x7f\x00\x00\x00\x00\x00\x00\xff\xff", "minimal"),
        (b"\x7f" + (MAX_FRAME + 1).to_bytes(8, "big"), "are allowed"),
        (b"\x7f" + (2**63).to_bytes(8, "big"), "are allowed"),
        (b"\x7f" + b"\xff" * 8, "are allowed"),
    ],
)
def test_lengths_are_judged_by_the_header(role, length, reason):
    side = make(role)
    if role == "server":
        length = bytes((length[0] | 0x80,)) + length[1:]
    with pytest.raises(DecodeError, match=reason):
        side.feed(b"\x82" + length)
    code = 1002 if reason == "minimal" else 1009
    assert side.take() == frame(FIN | CLOSE, code.to_bytes(2, "big"), masked=role == "client")


@roles
def test_messages_do_not_nest(role):
    for first in (BINARY, FIN | BINARY):
        side = make(role)
        side.feed(to(side, BINARY, b"a"))
        with pytest.raises(DecodeError, match="inside another"):
            side.feed(to(side, first, b"b"))
        assert side.received == b"a"


@roles
def test_a_close_in_the_middle_of_a_message(role):
    side = make(role)
    side.feed(to(side, BINARY, b"a"))
    with pytest.raises(DecodeError, match="in the middle of a message"):
        side.feed(to(side, FIN | CLOSE, b"\x03\xe8"))
    assert not side.ended


@roles
def test_a_fault_after_our_close_says_nothing_more(role):
    side = make(role)
    side.machine.finish()
    with pytest.raises(DecodeError, match="text"):
        side.feed(to(side, FIN | TEXT))
    assert not side.out


# The end


@roles
def test_every_end_is_judged(role):
    head = ACCEPTED if role == "client" else REQUEST
    for length in range(len(head)):
        side = make(role, upgraded=False)
        side.feed(head[:length])
        with pytest.raises(HandshakeError, match="middle of the WebSocket upgrade"):
            side.machine.receive_eof()
    wire = to(make(role), BINARY, b"ab") + to(make(role), FIN | CONT, bytes(130))
    for length in range(1, len(wire)):
        side = make(role)
        side.feed(wire[:length])
        with pytest.raises(HandshakeError, match="middle of a WebSocket message"):
            side.machine.receive_eof()
    side = make(role)
    side.machine.receive_eof()
    side.feed(wire)
    side.machine.receive_eof()


@roles
def test_an_error_of_the_layer_above_ends_it(role):
    side = make(role)

    def fails(data, now):
        raise HandshakeError("from above")

    side.machine.on_data = fails
    for _ in range(2):
        with pytest.raises(HandshakeError, match="from above"):
            side.feed(to(side, FIN | BINARY, b"x") * 2)
    side = make(role)
    side.machine.on_data = lambda data, now: 1 / 0
    with pytest.raises(ZeroDivisionError):
        side.feed(to(side, FIN | BINARY, b"x"))
    with pytest.raises(DecodeError, match="division"):
        side.feed(to(side, FIN | BINARY, b"x"))


@roles
def test_callbacks_may_be_left_out(role):
    machine = WebSocket(initiator=role == "client", host="x", provider=LIBRARY, write=[].append)
    side = Side(machine, [])
    plain = WebSocket(initiator=role == "client", host="x", provider=LIBRARY, write=[].append)
    plain.receive(ACCEPTED if role == "client" else REQUEST, 0.0)
    plain.receive(to(side, FIN | BINARY, b"x") + to(side, FIN | CLOSE), 0.0)
    assert plain.ended


# Whatever comes


def pieces_of(data, cuts):
    cuts = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@roles
@settings(deadline=None, max_examples=200)
@given(
    messages=st.lists(
        st.tuples(
            st.sampled_from(["message", "fragments", "ping", "pong", "empty"]),
            st.binary(max_size=300),
        ),
        max_size=8,
    ),
    cuts=st.lists(st.integers(0, 4000), max_size=10),
)
def test_cuts_do_not_matter(role, messages, cuts):
    side = make(role)
    wire, expected = b"", b""
    for kind, payload in messages:
        match kind:
            case "message":
                wire += to(side, FIN | BINARY, payload)
                expected += payload
            case "fragments":
                wire += to(side, BINARY, payload) + to(side, FIN | PING, b"between")
                wire += to(side, CONT, b"") + to(side, FIN | CONT, payload)
                expected += 2 * payload
            case "empty":
                wire += to(side, FIN | BINARY)
            case _:
                wire += to(side, FIN | (PING if kind == "ping" else PONG), payload[:125])
    for piece in pieces_of(wire, cuts):
        side.feed(piece)
    assert side.received == expected
    side.machine.receive_eof()


@roles
@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=4), st.booleans())
def test_garbage_raises_typed_errors_or_waits(role, data, cuts, upgraded):
    side = make(role, upgraded=upgraded)
    try:
        for piece in pieces_of(data, cuts):
            side.feed(piece)
        side.machine.receive_eof()
    except RemoteError:
        pass
