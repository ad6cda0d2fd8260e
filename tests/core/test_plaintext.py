"""anyp2p_core.plaintext"""

import itertools
import time

import pytest
import vectors
from hypothesis import given, settings, strategies as st
from node_pair import CRYPTO, Pair, make_node
from stranger import KEYS, one_by_one

from anyp2p_core import (
    ConnectionOpened,
    DialFailed,
    HandshakeError,
    PeerIdentified,
    PeerIdMismatch,
    PrivateKey,
)
from anyp2p_core.plaintext import (
    EXCHANGE,
    MAX_EXCHANGE,
    PROTOCOL,
    Exchange,
    Plaintext,
    PlaintextSecurity,
)
from anyp2p_core.varint import delimited, encode

KEY, OTHER = KEYS[:2]


def exchange(peer=None, public_key=None, key=KEY):
    peer = bytes(key.peer_id) if peer is None else peer
    public_key = key.public.encode() if public_key is None else public_key
    return delimited(EXCHANGE.encode(Exchange(peer or None, public_key or None)))


GOOD = exchange()


def machine(expected=None, key=OTHER):
    """A channel, and what it wrote, opened (None) and passed on, in order."""
    out, seen = [], []
    channel = PlaintextSecurity(key, CRYPTO).start(
        initiator=expected is not None,
        expected=expected,
        wall=0.0,
        muxers=("/yamux/1.0.0",),
        write=out.append,
    )
    channel.on_open = lambda: seen.append((channel.peer, channel.public_key))
    channel.on_data = lambda data, now: seen.append((data, now))
    return channel, out, seen


def test_our_exchange_goes_out_at_once_and_in_one_piece():
    channel, out, seen = machine()
    assert out == [exchange(key=OTHER)] and seen == [] and channel.muxer is None
    assert PlaintextSecurity.protocol == PROTOCOL == "/plaintext/2.0.0"


def test_an_exchange_made_by_js():
    (case,) = (
        case
        for case in vectors.load("protobuf_messages_js")["cases"]
        if case["name"] == "plaintext Exchange"
    )
    data = bytes.fromhex(case["bytes"])
    decoded = EXCHANGE.decode(data)
    assert decoded.id.hex() == case["value"]["id"].removeprefix("hex:")
    assert EXCHANGE.encode(decoded) == data
    channel, _, seen = machine()
    channel.receive(delimited(data), 1.0)
    assert bytes(channel.peer) == decoded.id and len(seen) == 1
    assert channel.public_key.data.hex() == case["value"]["pubkey"]["Data"].removeprefix("hex:")


REST = b"and the bytes that follow"


def feed(channel, pieces):
    for piece in pieces:
        channel.receive(piece, 5.0)


@pytest.mark.parametrize("expected", [None, KEY.peer_id])
def test_split_everywhere(expected):
    data = GOOD + REST
    cuts = [[data], one_by_one(data), *([data[:n], data[n:]] for n in range(len(data) + 1))]
    for pieces in cuts:
        channel, _, seen = machine(expected)
        feed(channel, pieces)
        assert seen[0] == (KEY.peer_id, KEY.public)
        assert b"".join(piece for piece, _ in seen[1:]) == REST
        assert all(now == 5.0 for _, now in seen[1:])
        channel.receive_eof()


@given(st.lists(st.integers(0, 140), max_size=6))
def test_cut_anyhow(cuts):
    data = GOOD + REST
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    channel, _, seen = machine()
    feed(channel, [data[start:end] for start, end in itertools.pairwise(edges)])
    assert seen[0][0] == KEY.peer_id and b"".join(piece for piece, _ in seen[1:]) == REST


def test_open_before_data():
    channel, _, seen = machine()
    channel.receive(GOOD, 1.0)
    assert len(seen) == 1
    channel.receive(b"a", 2.0)
    channel.receive(b"b", 3.0)
    assert seen[1:] == [(b"a", 2.0), (b"b", 3.0)]


def test_nobody_has_to_listen():
    channel = Plaintext(own=b"", crypto=CRYPTO, expected=None, write=lambda data: None)
    channel.receive(GOOD + b"rest", 1.0)
    assert channel.peer == KEY.peer_id


def test_data_goes_out_as_it_is():
    channel, _, _ = machine()
    assert (
        channel.seal([b"a", b"", b"bc"]) == b"abc" and channel.seal([]) == b"" == channel.finish()
    )
    channel.on_end(1.0)  # nobody has to listen to that either


def test_an_end_in_the_middle():
    for size in range(len(GOOD)):
        channel, _, seen = machine()
        channel.receive(GOOD[:size], 1.0)
        with pytest.raises(HandshakeError, match="in the middle"):
            channel.receive_eof()
        assert seen == []


SPEC = vectors.load("peer_ids")["keys"]


def rsa_key(bits):
    """A public key as it may come from a peer, with a modulus of so many bits."""

    def der(tag, body):
        size = len(body)
        length = bytes((size,)) if size < 0x80 else b"\x82" + size.to_bytes(2)
        return bytes((tag,)) + length + body

    number = der(0x02, b"\0" + (1 << bits - 1 | 1).to_bytes(bits // 8))
    algorithm = bytes.fromhex("300d06092a864886f70d0101010500")
    inner = der(0x30, number + der(0x02, b"\1\0\1"))
    return b"\x08\x00\x12" + delimited(der(0x30, algorithm + der(0x03, b"\0" + inner)))


BAD = {
    "empty": delimited(b""),
    "no key": exchange(public_key=b""),
    "no id": exchange(peer=b""),
    "another id": exchange(peer=bytes(OTHER.peer_id)),
    "another key": exchange(public_key=OTHER.public.encode()),
    "id of a hash": exchange(peer=b"\x12\x20" + bytes(32)),
    "id and more": exchange(peer=bytes(KEY.peer_id) + b"\0"),
    "garbage as id": exchange(peer=b"\xff" * 50),
    "garbage as key": exchange(public_key=b"\xff" * 50),
    "unknown kind of key": exchange(public_key=b"\x08\x09\x12\x01k"),
    "cut key": exchange(public_key=KEY.public.encode()[:-1]),
    "RSA of 1024 bits": exchange(public_key=rsa_key(1024)),
    "RSA of 16384 bits": exchange(public_key=rsa_key(16384)),
    "garbage": delimited(b"\xff" * 90),
    "cut field": delimited(GOOD[1:-1]),
    "a group": delimited(b"\x0b\x0c"),
    "a length beyond the limit": encode(MAX_EXCHANGE + 1),
    "an endless length": b"\xff" * 20,
    "a length in too many bytes": b"\x80\x00",
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("bytewise", [False, True])
def test_malformed(name, bytewise):
    data = BAD[name]
    for expected in (None, KEY.peer_id):
        channel, _, seen = machine(expected)
        with pytest.raises(HandshakeError):
            feed(channel, one_by_one(data) if bytewise else [data])
        assert seen == [] and not hasattr(channel, "peer")


def test_row_18_a_huge_modulus_costs_nothing():
    data = exchange(public_key=rsa_key(64_000))
    best = float("inf")
    for _ in range(5):
        channel, _, _ = machine()
        start = time.process_time()
        with pytest.raises(HandshakeError):
            channel.receive(data, 1.0)
        best = min(best, time.process_time() - start)
    assert best < 0.001


@pytest.mark.parametrize("kind", [key["kind"] for key in SPEC])
def test_every_kind_of_key(kind):
    (spec,) = (key for key in SPEC if key["kind"] == kind)
    key = PrivateKey.decode(bytes.fromhex(spec["private"]), CRYPTO)
    channel, _, seen = machine()
    channel.receive(exchange(key=key), 1.0)
    assert seen == [(key.peer_id, key.public)]


def test_row_37_the_expected_peer_and_no_other():
    channel, _, seen = machine(expected=OTHER.peer_id)
    with pytest.raises(PeerIdMismatch, match=str(OTHER.peer_id)):
        channel.receive(GOOD + REST, 1.0)
    assert seen == []


def test_the_limit_is_judged_on_the_length():
    channel, _, seen = machine()
    channel.receive(encode(MAX_EXCHANGE), 1.0)
    channel.receive(bytes(1000), 1.0)  # zeros are no message, but that shows at its end
    assert seen == []
    channel, _, _ = machine()
    body = GOOD[1:] + b"\x1a" + delimited(bytes(MAX_EXCHANGE - len(GOOD) - 2))
    assert len(body) == MAX_EXCHANGE
    channel.receive(delimited(body), 1.0)
    assert channel.peer == KEY.peer_id


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=120), st.integers(0, 80), st.booleans())
def test_garbage(data, keep, framed):
    data = delimited(data) if framed else GOOD[:keep] + data
    results = []
    for pieces in ([data], one_by_one(data)):
        channel, _, seen = machine()
        try:
            feed(channel, pieces)
        except HandshakeError as error:
            results.append(str(error))
            assert seen == []
        else:
            results.append(seen[0] if seen else None)
            assert not seen or channel.peer == KEY.peer_id
    assert results[0] == results[1]


# In a node


def plain_node(key):
    return make_node(key, security=[PlaintextSecurity(key, CRYPTO)])


@pytest.mark.parametrize("cut", [None, one_by_one])
def test_two_nodes(cut):
    pair = Pair(plain_node(KEY), plain_node(OTHER), cut=cut)
    for here, there in pair.sides:
        (connection,) = here.node.connections()
        assert connection.peer == there.node.peer_id
        assert connection.negotiated.security == PROTOCOL
        assert here.of(PeerIdentified)
    assert any(b"/ipfs/id/1.0.0" in segment for segment in pair.b.received) == (cut is None)


def test_two_nodes_and_another_peer_was_meant():
    pair = Pair(plain_node(KEY), plain_node(OTHER), connect=False)
    pair.connect(expected=KEYS[2].peer_id)
    (event,) = pair.a.of(DialFailed)
    assert str(OTHER.peer_id) in str(event.error) and not pair.a.of(ConnectionOpened)


def test_it_is_off_unless_asked_for():
    assert list(make_node(KEY).security) == ["/noise"]
    pair = Pair(make_node(KEY), plain_node(OTHER))
    assert pair.a.of(DialFailed) and not pair.b.of(ConnectionOpened)
    pair = Pair(plain_node(KEY), make_node(OTHER))
    assert pair.a.of(DialFailed) and not pair.b.of(ConnectionOpened)
