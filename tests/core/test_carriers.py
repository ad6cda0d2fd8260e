"""What lies under the connections of a node, with layers that mark what goes through them."""

import pytest
from fake_layers import NOW, Maker

from anyp2p_core import HandshakeError, LocalError, Multiaddr
from anyp2p_core.carriers import PLAIN, Carriers
from anyp2p_core.route import route

HTTP = b"GET / HTTP/1.1\r\n\r\n"
HELLO = b"\x16\x03\x01\x02\x00\x01"
SELECT = b"\x13/multistream/1.0.0\n"

TCP, WS, WSS = (), ("ws",), ("tls", "ws")
ALL = (TCP, WS, WSS)


def to(end):
    return route(Multiaddr(f"/ip4/192.0.2.1/tcp/80{end}"))


def carriers(*, private=False, names=("ws", "tls"), keys=(b"", b"", b"")):
    """Their marks are w, t and p."""
    makers = {name: Maker(name[:1].encode(), key) for name, key in zip(names, keys, strict=False)}
    return Carriers(makers, Maker(b"p", keys[2]) if private else None)


class Accepted:
    """An accepted connection, and what became of it."""

    def __init__(self, made, offers):
        self.wire = []
        self.got = []
        self.opened = []
        self.ended = []
        self.layer = made.accepted(offers)(self.wire.append)
        self.layer.on_open = self.opened.append
        self.layer.on_data = lambda data, now: self.got.append(data)
        self.layer.on_end = self.ended.append

    def receive(self, data, *, whole=True):
        for pos in range(0, len(data), len(data) if whole else 1):
            self.layer.receive(data if whole else data[pos : pos + 1], NOW)

    @property
    def data(self):
        return b"".join(self.got)


@pytest.mark.parametrize(
    ("end", "private", "marks"),
    [
        ("", False, None),
        ("", True, b"<px>"),
        ("/ws", False, b"<wx>"),
        ("/ws", True, b"<w<px>>"),
        ("/tls/ws", False, b"<t<wx>>"),
        ("/wss", True, b"<t<w<px>>>"),
    ],
)
def test_what_is_under_a_connection(end, private, marks):
    made = carriers(private=private)
    assert made.private is private
    where = to(end)
    ways = (made.dialed(where), True, where), (made.accepted((where.layers,)), False, None)
    for make, initiator, target in ways:
        if marks is None:
            assert make is None
            continue
        layer = make([].append)
        assert layer.seal([b"x"]) == marks
        for maker in (*made._layers.values(), made._private):
            if maker is not None and maker.mark in marks:
                assert [entry[1:] for entry in maker.made] == [(initiator, target)]
                maker.made.clear()


def test_every_connection_has_its_own():
    make = carriers(private=True).dialed(to("/wss"))
    one, other = make([].append), make([].append)
    assert one is not other and one._lower is not other._lower


def test_what_a_layer_says_goes_to_whom_it_was_made_for():
    made = carriers(private=True, keys=(b"W", b"T", b"P"))
    wire = []
    layer = made.dialed(to("/wss"))(wire.append)
    layer.receive(b"TW", NOW)
    assert wire == [b"T", b"<tW>", b"<t<wP>>"]
    assert not layer.open
    layer.receive(b"P", NOW)
    assert layer.open


@pytest.mark.parametrize(
    ("names", "end", "problem"),
    [
        ((), "", None),
        ((), "/ws", r"anyp2p\[websocket\]"),
        (("ws",), "/ws", None),
        (("ws",), "/tls/ws", "web TLS needs a provider"),
        (("ws", "tls"), "/tls/ws", None),
    ],
)
def test_what_is_needed_must_be_there(names, end, problem):
    made = carriers(names=names)
    if problem is None:
        made.check(to(end))
    else:
        with pytest.raises(LocalError, match=problem):
            made.check(to(end))


def test_layers_are_asked_about_an_address():
    made = carriers()
    made.check(to("/tls/ws"))
    made._layers["tls"].problem = "no such name"
    made.check(to("/ws"))
    with pytest.raises(LocalError, match="no such name"):
        made.check(to("/tls/ws"))


def test_quic_has_no_private_networks():
    quic = route(Multiaddr("/ip4/192.0.2.1/udp/1/quic-v1"))
    carriers().check(quic)
    with pytest.raises(LocalError, match="private network"):
        carriers(private=True).check(quic)
    for address in ("/ip4/192.0.2.1/tcp/1", "/unix/a", "/memory/1"):
        carriers(private=True, names=()).check(route(Multiaddr(address)))


# Shared ports.


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("private", [True, False])
@pytest.mark.parametrize(
    ("first", "kind", "marks"), [(SELECT, TCP, b""), (HTTP, WS, b"w"), (HELLO, WSS, b"tw")]
)
@pytest.mark.parametrize("offers", [ALL, (TCP, WS), (TCP, WSS), (WSS, WS)])
def test_a_shared_port(offers, first, kind, marks, private, whole):
    accepted = Accepted(carriers(private=private), offers)
    assert not accepted.layer.open
    assert accepted.layer.finish() == b""
    if kind not in offers:
        with pytest.raises(HandshakeError, match="is not offered at this port"):
            accepted.receive(first, whole=whole)
        assert accepted.got == [] == accepted.opened == accepted.wire
        return
    accepted.receive(first, whole=whole)
    marks += b"p" * private
    assert accepted.layer.open and accepted.opened == [NOW]
    assert accepted.data == bytes(byte for byte in first if byte not in marks)
    sealed = b"x"
    for pos in range(len(marks), 0, -1):
        sealed = b"<" + marks[pos - 1 : pos] + sealed + b">"
    assert accepted.layer.seal([b"x"]) == sealed
    accepted.got.clear()
    accepted.receive(b"more", whole=whole)
    assert accepted.data == b"more"
    assert accepted.opened == [NOW]
    accepted.layer.receive_eof()
    assert accepted.layer.finish().endswith(marks[:1].upper())


@pytest.mark.parametrize(("first", "spoken"), [(SELECT, "plain TCP"), (HTTP, "ws")])
def test_the_error_says_what_the_peer_speaks(first, spoken):
    offers = tuple(offer for offer in ALL if "/".join(offer) != spoken and offer != TCP)
    with pytest.raises(HandshakeError, match=f"the peer speaks {spoken}, which is not offered"):
        Accepted(carriers(), (*offers, *offers)).receive(first)


def test_layers_that_open_later():
    accepted = Accepted(carriers(private=True, keys=(b"GETW", b"\x16\x03\x01T", b"P")), ALL)
    accepted.receive(b"GE")
    assert accepted.wire == []  # nobody knows yet what to say
    accepted.receive(b"T")
    assert accepted.wire == [b"GETW"] and not accepted.layer.open
    accepted.receive(b"W")
    assert accepted.wire[1:] == [b"<wP>"]
    with pytest.raises(HandshakeError, match="b'p' ended too early"):
        accepted.layer.receive_eof()
    assert accepted.opened == [] and accepted.data == b""
    accepted.receive(b"Ptext")
    assert accepted.opened == [NOW] and accepted.data == b"text"
    accepted.receive(b"~")
    assert accepted.ended == [NOW]


def test_callbacks_may_be_set_again_while_it_opens():
    accepted = Accepted(carriers(private=True), ALL)
    seen = []

    def opened(now):
        accepted.layer.on_data = lambda data, now: seen.append(data)

    accepted.layer.on_open = opened
    accepted.receive(SELECT)
    assert b"".join(seen) == SELECT.replace(b"p", b"") and accepted.got == []


@pytest.mark.parametrize("first", [b"", b"G", HTTP[:2], HELLO[:2]])
def test_the_end_before_it_is_known_what_it_is(first):
    accepted = Accepted(carriers(), ALL)
    accepted.receive(first) if first else None
    with pytest.raises(HandshakeError, match="before it said what it is"):
        accepted.layer.receive_eof()


def test_what_a_layer_refuses_is_an_error_of_the_connection():
    accepted = Accepted(carriers(), ALL)
    with pytest.raises(HandshakeError, match="b'w' was refused"):
        accepted.receive(b"GET#")
    assert accepted.wire == [b"X"]


def test_nothing_is_told_to_nobody():
    layer = carriers(private=True).accepted(ALL)([].append)
    layer.receive(SELECT + b"~", NOW)
    assert layer.open


def test_plain_is_one_offer():
    assert carriers().accepted(PLAIN) is None
