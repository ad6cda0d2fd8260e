"""anyp2p_core.identify"""

import itertools
import random
import time

import pytest
import vectors
from hypothesis import given, settings, strategies as st
from node_pair import CRYPTO, LOCAL, REMOTE, Pair, make_key, make_node
from stranger import KEYS, Stranger, meet, one_by_one

from anyp2p_core import (
    IdentifyFailed,
    Limits,
    LocalError,
    Multiaddr,
    NegotiationError,
    PeerIdentified,
    PrivateKey,
    RemoteError,
    Service,
    TimedOut,
)
from anyp2p_core.envelope import open_peer_record, seal, seal_peer_record
from anyp2p_core.errors import ConnectionLost, DecodeError
from anyp2p_core.identify import (
    IDENTIFY,
    MAX_MESSAGE,
    MAX_SENT_MESSAGE,
    MAX_TOTAL,
    PROTOCOL,
    PUSH,
    PUSH_DELAY,
    RATE_LIMITED,
    Identify,
    Message,
    decode_addresses,
    merge,
    printable,
)
from anyp2p_core.peer_id import PeerId
from anyp2p_core.varint import Delimited, delimited

THEIR_KEY = KEYS[2]
THEM = THEIR_KEY.peer_id
US = KEYS[0].peer_id
HERE = Multiaddr("/ip4/127.0.0.1/tcp/7")
THERE = Multiaddr("/ip4/127.0.0.1/tcp/8")
LEGACY = ("libp2p-routing-state", b"/libp2p/routing-state-record")


def said(**fields):
    """One message as it stands on a stream."""
    return delimited(IDENTIFY.encode(Message(**fields)))


def padded(size, **fields):
    """One message of ``size`` bytes, behind its length: an unknown field fills it up."""
    body = IDENTIFY.encode(Message(**fields))
    filler = size - len(body) - 4
    assert 0x80 <= filler < 0x4000
    body += b"\x9a\x01" + bytes((filler & 0x7F | 0x80, filler >> 7)) + bytes(filler)
    assert len(body) == size
    return delimited(body)


def record(*addresses, seq=1, key=THEIR_KEY):
    return seal_peer_record(key, seq, addresses)


def answering(*messages):
    """For ``meet``: the stranger's answer to identify."""
    return {PROTOCOL: lambda wire: wire.finish(b"".join(messages))}


def info_of(pair):
    (event,) = pair.ours.of(PeerIdentified)
    assert (event.conn, event.peer, event.pushed) == (pair.ours.conn, THEM, False)
    assert pair.node.identified(THEM) is event.info
    return event.info


def failure_of(pair):
    """Why identify failed; the connection goes on."""
    assert not pair.ours.of(PeerIdentified)
    (event,) = pair.ours.of(IdentifyFailed)
    assert (event.conn, event.peer) == (pair.ours.conn, THEM)
    assert pair.node.connections(THEM) and pair.node.identified(THEM) is None
    return event.error


def push(pair, *messages):
    wire = pair.them.open(PUSH, pair.now)
    wire.finish(b"".join(messages))
    pair.run()
    return wire


def pushed(pair):
    return [event.info for event in pair.ours.of(PeerIdentified) if event.pushed]


def stored(pair):
    return pair.node.peers.addresses(THEM, pair.now)


def messages_of(node, observed=REMOTE, now=1.0):
    """What the node would say, message by message."""
    service = Identify()
    service.attach(node)
    return Delimited(MAX_MESSAGE).receive(service.encode(observed, now))


# Known answers


@pytest.mark.parametrize(
    "capture", vectors.load("live_captures")["identify"], ids=lambda capture: capture["source"]
)
def test_what_other_peers_wrote(capture):
    peer = PeerId.parse(capture["peerId"])
    (frame,) = Delimited(MAX_MESSAGE).receive(bytes.fromhex(capture["bytes"]))
    message = IDENTIFY.decode(frame)
    assert IDENTIFY.decode(IDENTIFY.encode(message)) == message
    assert PeerId.from_public_key(message.public_key) == peer
    assert {PROTOCOL, PUSH, "/ipfs/ping/1.0.0"} <= set(message.protocols)
    addresses = decode_addresses(message.listen_addrs, peer)
    assert addresses and len(addresses) == len(message.listen_addrs)
    sealed = open_peer_record(message.signed_peer_record, CRYPTO)
    assert sealed.peer_id == peer
    assert sorted(sealed.addresses) == sorted(addresses)
    # From a peer that is somebody else the record counts for nothing, and all the rest is used.
    pair = meet(answering(bytes.fromhex(capture["bytes"])))
    info = info_of(pair)
    assert info.agent == message.agent_version and info.agent.isascii()
    assert info.protocols == tuple(message.protocols)
    assert info.public_key == THEIR_KEY.public and not info.signed_record
    assert list(info.addresses) == addresses


def test_a_message_made_by_js():
    (case,) = (
        case
        for case in vectors.load("protobuf_messages_js")["cases"]
        if case["name"] == "identify.Identify"
    )
    value = case["value"]
    expected = Message(
        public_key=unhex(value["publicKey"]),
        listen_addrs=[unhex(one) for one in value["listenAddrs"]],
        protocols=value["protocols"],
        observed_addr=unhex(value["observedAddr"]),
        protocol_version=value["protocolVersion"],
        agent_version=value["agentVersion"],
    )
    data = bytes.fromhex(case["bytes"])
    assert IDENTIFY.decode(data) == expected
    ours = IDENTIFY.encode(expected)  # they write the fields in another order
    assert IDENTIFY.decode(ours) == expected and sorted(ours) == sorted(data)


def unhex(text):
    return bytes.fromhex(text.removeprefix("hex:"))


PARSED = [
    (b"", Message()),
    (b"\x0a\x01k", Message(public_key=b"k")),
    (b"\x12\x01a\x12\x00\x12\x01b", Message(listen_addrs=[b"a", b"", b"b"])),
    (b"\x1a\x02/a\x1a\x02/b", Message(protocols=["/a", "/b"])),
    (b"\x1a\x02\xff/", Message(protocols=["\ufffd/"])),
    (b"\x22\x01o\x2a\x01v", Message(observed_addr=b"o", protocol_version="v")),
    (b"\x32\x01a\x32\x01b", Message(agent_version="b")),
    (b"\x38\x07\x42\x01r", Message(signed_peer_record=b"r")),  # 7, seq, is not used
    (b"\x0a\x02k", DecodeError),
    (b"\x0a", DecodeError),
    (b"\x08\x01", DecodeError),
    (b"\x1b", DecodeError),
    (b"\x1a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", DecodeError),
]


@pytest.mark.parametrize(("data", "expected"), PARSED)
def test_the_wire_message(data, expected):
    if expected is DecodeError:
        with pytest.raises(DecodeError):
            IDENTIFY.decode(data)
        assert isinstance(failure_of(meet(answering(delimited(data)))), DecodeError)
    else:
        assert IDENTIFY.decode(data) == expected
        assert IDENTIFY.decode(data + b"\xa2\x06\x03new") == expected


# Both sides


@pytest.mark.parametrize("cut", [None, one_by_one], ids=["whole", "bytewise"])
def test_both_sides_say_who_they_are(cut):
    a = make_node(KEYS[0], agent="a/1", epoch=1.7e9)
    b = make_node(KEYS[1], agent="b/2")
    a.addresses, b.addresses = [HERE], [THERE, Multiaddr("/ip4/10.0.0.1/tcp/1")]
    b.handle("/app/1.0.0", 0.0)
    pair = Pair(a, b, cut=cut)
    info = pair.a.last(PeerIdentified).info
    assert (info.peer, info.agent, info.protocol_version) == (b.peer_id, "b/2", "ipfs/0.1.0")
    assert info.protocols == (PROTOCOL, PUSH, "/ipfs/ping/1.0.0", "/app/1.0.0")
    assert info.addresses == tuple(b.addresses)
    assert (info.observed, info.public_key) == (REMOTE, KEYS[1].public)
    assert info.signed_record
    other = pair.b.last(PeerIdentified).info
    assert (other.peer, other.agent, other.observed) == (a.peer_id, "a/1", LOCAL)
    assert a.identified(b.peer_id) is info and b.identified(a.peer_id) is other
    for node, peer in ((a, info), (b, other)):
        known = node.peers.get(peer.peer)
        assert (known.agent, known.protocols) == (peer.agent, peer.protocols)
        assert known.public_key == peer.public_key
        assert open_peer_record(known.record, CRYPTO).addresses == list(known.certified)
        assert not {"identify", "push identify"} & set(node.timers.reasons())
        (connection,) = node.connections()
        assert not connection.muxer.streams and connection.muxer.unread == 0
    pair.hang_up(*pair.sides[0])
    assert a.identified(b.peer_id) is None and b.identified(a.peer_id) is None


@settings(deadline=None, max_examples=40)
@given(st.randoms(use_true_random=False), st.integers(1, 700))
def test_however_the_bytes_are_cut(source, size):
    def cut(data):
        pieces = []
        while data:
            length = source.randint(1, size)
            pieces.append(data[:length])
            data = data[length:]
        return pieces

    pair = Pair(make_node(KEYS[0]), make_node(KEYS[1], agent="b"), cut=cut)
    assert pair.a.last(PeerIdentified).info.agent == "b"
    assert pair.b.last(PeerIdentified).info.peer == US


# Merging


FIRST = {"agent_version": "a/1", "protocols": ["/a"], "listen_addrs": [bytes(HERE)]}


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([b"\0"], {"agent": "", "protocols": (), "addresses": (), "protocol_version": ""}),
        ([said(**FIRST)], {"agent": "a/1", "protocols": ("/a",), "addresses": (HERE,)}),
        ([said(**FIRST), b"\0", b"\0"], {"agent": "a/1", "protocols": ("/a",)}),
        (
            [said(**FIRST), said(agent_version="a/2"), said(protocol_version="x/1")],
            {"agent": "a/2", "protocol_version": "x/1", "protocols": ("/a",)},
        ),
        (
            [said(**FIRST), said(protocols=["/b", "/a", "/c"], listen_addrs=[bytes(THERE)])],
            {"protocols": ("/a", "/b", "/c"), "addresses": (HERE, THERE)},
        ),
        (
            [said(**FIRST), said(signed_peer_record=record(THERE))],
            {"addresses": (THERE,), "signed_record": True, "agent": "a/1"},
        ),
        (
            [said(signed_peer_record=record(HERE)), said(signed_peer_record=record(THERE, seq=2))],
            {"addresses": (THERE,), "signed_record": True},
        ),
        (
            [said(observed_addr=bytes(HERE)), said(observed_addr=bytes(THERE))],
            {"observed": THERE},
        ),
        ([said(observed_addr=b"\x04")], {"observed": None}),
        ([said(observed_addr=bytes(HERE / f"/p2p/{US}"))], {"observed": HERE}),
        ([said(observed_addr=bytes(HERE / f"/p2p/{THEM}"))], {"observed": None}),
        ([said(public_key=KEYS[1].public.encode())], {"public_key": THEIR_KEY.public}),
        ([said(public_key=b"no key")], {"public_key": THEIR_KEY.public}),
        ([said(protocols=["/a", "", "/b"])], {"protocols": ("/a", "/b")}),
        ([said(protocols=["/\x1b[2J\n"])], {"protocols": ("/\ufffd[2J\ufffd",)}),
    ],
)
@pytest.mark.parametrize("bytewise", [False, True])
def test_messages_are_merged(messages, expected, bytewise):
    def answer(wire):
        data = b"".join(messages)
        for piece in one_by_one(data) if bytewise else [data]:
            wire.send(piece)
        wire.finish()

    info = info_of(meet({PROTOCOL: answer}))
    assert {name: getattr(info, name) for name in expected} == expected


def test_merge_by_itself():
    limits = Limits(max_protocols_per_peer=3, max_addresses_per_peer=2)
    into = Message(protocols=["/a"], listen_addrs=[b"1"])
    part = Message(b"k", [b"2", b"3"], ["/b", "/c", "/d"], b"o", "v", "a", b"r")
    merge(into, part, limits)
    assert into == Message(b"k", [b"1", b"2"], ["/a", "/b", "/c"], b"o", "v", "a", b"r")
    merge(into, part, limits)
    merge(into, Message(), limits)
    assert into == Message(b"k", [b"1", b"2"], ["/a", "/b", "/c"], b"o", "v", "a", b"r")


def test_texts_can_be_printed():
    assert printable("a/1 \u00e9") == "a/1 \u00e9"
    assert printable("\x00\x1b\x7f\u202e\u2028\U000e0001") == "\ufffd" * 6


def test_addresses_are_those_of_the_peer():
    own, other = f"/p2p/{THEM}", f"/p2p/{US}"
    encoded = [
        bytes(HERE),
        bytes(THERE / own),
        bytes(Multiaddr(own)),
        bytes(HERE / other),
        bytes(Multiaddr(f"/ip4/1.2.3.4/tcp/1{other}/p2p-circuit{own}")),
        b"",
        b"\xff",
        bytes(2000),
    ]
    assert decode_addresses(encoded, THEM) == [
        HERE, THERE, Multiaddr(f"/ip4/1.2.3.4/tcp/1{other}/p2p-circuit"),
    ]  # fmt: skip


# Limits


def test_row_67_ten_messages_and_no_more():
    assert info_of(meet(answering(*[said(agent_version="a")] * 10))).agent == "a"
    for count in (11, 1000):
        error = failure_of(meet(answering(*[said(agent_version="a")] * count)))
        assert type(error) is RemoteError and "10 identify messages" in str(error)


def test_8_kib_are_the_longest_message():
    assert info_of(meet(answering(padded(MAX_MESSAGE, agent_version="a")))).agent == "a"
    too_long = delimited(bytes(MAX_MESSAGE + 1))
    for data in (too_long, too_long[:2]):  # the length is enough
        assert isinstance(failure_of(meet(answering(data))), DecodeError)


def test_64_kib_are_the_most_in_all():
    full = padded(MAX_MESSAGE - 2, agent_version="a")  # its prefix has two bytes
    assert info_of(meet(answering(*[full] * 8))).agent == "a"
    error = failure_of(meet(answering(*[full] * 8, b"\0")))
    assert f"longer than {MAX_TOTAL} bytes" in str(error)


def test_row_63_at_most_256_protocols_of_1024_bytes():
    names = [f"/{number}" for number in range(8000)]
    data = [said(protocols=names[at : at + 1000]) for at in range(0, 8000, 1000)]
    pair = meet(answering(*data))
    assert info_of(pair).protocols == tuple(names[:256])
    assert pair.node.peers.get(THEM).protocols == tuple(names[:256])
    data = [said(protocols=names[at : at + 100]) for at in range(0, 1000, 100)]
    info = info_of(meet(answering(*data), limits=Limits(max_protocols_per_peer=150)))
    assert info.protocols == tuple(names[:150])
    fits, too_long = "/" + "x" * 1023, "/" + "x" * 1024
    wide, too_wide = "/" + "\u20ac" * 341, "/" + "\u20ac" * 342
    info = info_of(meet(answering(said(protocols=[fits, too_long, wide, too_wide]))))
    assert info.protocols == (fits, wide)


def test_row_64_at_most_64_addresses():
    many = [Multiaddr(f"/ip4/127.0.0.1/tcp/{port}") for port in range(1, 1001)]
    encoded = [b"", *map(bytes, many)]
    pair = meet(
        answering(*[said(listen_addrs=encoded[at : at + 200]) for at in range(0, 1001, 200)])
    )
    assert info_of(pair).addresses == tuple(many[:63])  # and one that was empty
    assert stored(pair) == [LOCAL, *many[:63]]
    for number in range(12):
        push(pair, said(listen_addrs=encoded[1 + 60 * number : 61 + 60 * number]))
        assert len(stored(pair)) <= 64
    assert stored(pair)[-1] == many[719]
    info = info_of(meet(answering(said(signed_peer_record=record(*many)))))
    assert len(info.addresses) == 64


def test_five_seconds_are_the_limit_even_when_bytes_drip():
    pair = meet()
    (wire,) = pair.them.of(PROTOCOL)
    wire.send(b"\xff\x3f")
    for _ in range(49):
        wire.send(b"\x9a")
        pair.run()
        pair.wait(0.1)
    assert not pair.ours.of(IdentifyFailed) and "identify" in pair.node.timers.reasons()
    pair.wait(0.2)
    assert isinstance(failure_of(pair), TimedOut)
    assert wire.reset is not None
    assert "identify" not in pair.node.timers.reasons()
    pair.wait(60)
    assert len(pair.ours.of(IdentifyFailed)) == 1


@pytest.mark.parametrize(("negotiation", "deadline"), [(10.0, 5.0), (3.0, 3.0)])
def test_a_peer_that_does_not_even_agree(negotiation, deadline):
    """Whichever deadline comes first, there is one failure, and a reset for the peer."""
    lost = []

    def cut(data):
        if not pair.them.of(PROTOCOL):
            return [data]
        lost.append(data)
        return []

    limits = Limits(negotiation_timeout=negotiation)
    pair = meet(node=make_node(KEYS[0], limits=limits), cut=cut, connect=False)
    pair.connect()
    pair.wait(deadline - 0.1)
    assert not pair.ours.of(IdentifyFailed)
    (stream,) = pair.node.connections()[0].muxer.streams.values()
    lost.clear()
    pair.wait(0.2)
    assert isinstance(failure_of(pair), TimedOut) and stream.is_reset
    assert len(lost) == 1
    assert "identify" not in pair.node.timers.reasons()
    pair.wait(15.0)
    assert len(pair.ours.of(IdentifyFailed)) == 1


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (lambda wire: wire.finish(), "ended in the middle"),
        (lambda wire: wire.finish(b"\x05"), "ended in the middle"),
        (lambda wire: wire.finish(said(agent_version="a")[:-1]), "ended in the middle"),
        (lambda wire: wire.finish(said(agent_version="a") + b"\x05"), "ended in the middle"),
        (lambda wire: wire.abort(7), "code 0x7"),
        (lambda wire: (wire.send(said(agent_version="a")), wire.abort(0)), "code 0x0"),
    ],
)
def test_half_an_answer_is_none(answer, problem):
    pair = meet({PROTOCOL: answer})
    error = failure_of(pair)
    assert type(error) is RemoteError and problem in str(error)
    assert "identify" not in pair.node.timers.reasons()
    assert not pair.node.connections()[0].muxer.streams
    # The connection is as good as before.
    pair.node.ping(THEM, pair.now)
    pair.run()
    assert pair.them.of("/ipfs/ping/1.0.0")


def test_a_reset_after_the_end_changes_nothing():
    """It meets our FIN on the way."""
    pair = meet()
    (wire,) = pair.them.of(PROTOCOL)
    wire.finish(said(agent_version="a"))
    for step in (wire.abort, lambda: None):
        data = pair.them.data_to_send(pair.theirs.conn, pair.now)
        pair.node.receive(pair.ours.conn, data, pair.now)
        step()
    pair.run()
    assert info_of(pair).agent == "a" and not pair.ours.of(IdentifyFailed)
    assert not pair.node.connections()[0].muxer.streams


def test_a_peer_that_does_not_speak_identify():
    them = Stranger()
    them.refused = (PROTOCOL,)
    error = failure_of(meet(them=them))
    assert isinstance(error, NegotiationError)


def test_the_connection_is_lost_meanwhile():
    pair = meet()
    pair.hang_up(pair.theirs, pair.ours)
    (event,) = pair.ours.of(IdentifyFailed)
    assert isinstance(event.error, ConnectionLost)
    assert pair.node.timers.reasons() == []
    pair.wait(60)
    assert len(pair.ours.of(IdentifyFailed)) == 1


def test_no_stream_can_be_opened():
    pair = meet(limits=Limits(max_outbound_streams=0))
    assert isinstance(failure_of(pair), LocalError)
    assert "identify" not in pair.node.timers.reasons()


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=300), st.booleans(), st.lists(st.integers(0, 300), max_size=4))
def test_garbage(data, framed, cuts):
    def answer(wire):
        whole = delimited(data) if framed else data
        edges = sorted({0, *(cut for cut in cuts if cut < len(whole)), len(whole)})
        for start, end in itertools.pairwise(edges):
            wire.send(whole[start:end])
        wire.finish()

    pair = meet({PROTOCOL: answer})
    if pair.ours.of(IdentifyFailed):
        assert isinstance(failure_of(pair), RemoteError)
    else:
        info = info_of(pair)
        assert all(text.isprintable() for text in (info.agent, *info.protocols))
    push(pair, data)
    assert pair.node.connections(THEM)


def test_row_68_one_byte_at_a_time_is_linear():
    """The callbacks alone: the layers below join bytes that come in one frame."""

    class Stream:
        def credit(self, size, now):
            pass

        def reset(self, code=0):
            raise AssertionError("refused")

        write_eof = reset

    node = make_node(KEYS[0])
    service = Identify()
    service.attach(node)

    def cost(messages):
        data = one_by_one(padded(8000, agent_version="a") * messages)
        best = float("inf")
        for _ in range(3):
            stream = Stream()
            service.on_stream(meeting, stream, PUSH, 0.0)
            start = time.process_time()
            for byte in data:
                stream.on_data(byte, 0.0)
            best = min(best, time.process_time() - start)
        return best

    (meeting,) = meet(node=node).node.connections()
    assert cost(8) / cost(2) <= 4 * 1.6


def test_one_byte_at_a_time_is_the_same():
    wire_data = said(agent_version="a/1", protocols=["/a"]) + said(signed_peer_record=record(HERE))
    pair = meet()
    (wire,) = pair.them.of(PROTOCOL)
    for byte in one_by_one(wire_data):
        wire.send(byte)
        pair.run()
    wire.finish()
    pair.run()
    info = info_of(pair)
    assert (info.agent, info.protocols, info.addresses) == ("a/1", ("/a",), (HERE,))
    assert wire.ended and not pair.node.connections()[0].muxer.streams


def test_row_70_the_agent_can_be_printed_and_is_short():
    evil = "a\x1b[31m\n\r\0\u202e" + "x" * 3500
    info = info_of(meet(answering(said(agent_version=evil, protocol_version=evil))))
    for text in (info.agent, info.protocol_version):
        assert len(text) == 128 and text.isprintable() and text.startswith("a\ufffd[31m\ufffd")
    assert repr(info).isprintable()


# Signed records


@pytest.mark.parametrize("legacy", [False, True], ids=["standard", "legacy"])
def test_the_addresses_of_a_signed_record_are_used(legacy):
    sealed = record(HERE)
    if legacy:
        payload = b"\x0a" + delimited(bytes(THEM)) + b"\x10\x01"
        payload += b"\x1a" + delimited(b"\x0a" + delimited(bytes(HERE)))
        sealed = seal(THEIR_KEY, *LEGACY, payload)
    pair = meet(answering(said(listen_addrs=[bytes(THERE)], signed_peer_record=sealed)))
    info = info_of(pair)
    assert info.addresses == (HERE,) and info.signed_record
    known = pair.node.peers.get(THEM)
    assert (known.record, known.record_seq, known.certified) == (sealed, 1, (HERE,))
    assert stored(pair) == [HERE, LOCAL]  # and where we dialed it


def bad_records():
    good = record(HERE)
    yield "empty", b""
    yield "garbage", b"\xff" * 100
    yield "cut", good[:-1]
    yield "another domain", seal(THEIR_KEY, "other", b"\x03\x01", b"")
    for bit in range(0, 8 * len(good), 97):
        changed = bytearray(good)
        changed[bit // 8] ^= 1 << bit % 8
        yield f"bit {bit}", bytes(changed)
    yield "random signature", good[:-64] + random.Random(0).randbytes(64)


@pytest.mark.parametrize("bad", [pytest.param(bad, id=name) for name, bad in bad_records()])
def test_row_14_and_37_a_tampered_record_is_ignored_and_the_rest_is_used(bad):
    message = said(listen_addrs=[bytes(THERE)], agent_version="a", signed_peer_record=bad)
    pair = meet(answering(message))
    info = info_of(pair)
    assert (info.addresses, info.signed_record, info.agent) == ((THERE,), False, "a")
    known = pair.node.peers.get(THEM)
    assert (known.record, known.record_seq, known.certified) == (b"", -1, ())
    assert stored(pair) == [LOCAL, THERE]


def test_row_15_and_16_the_record_of_another_peer_is_ignored():
    stolen = record(HERE, key=KEYS[1])
    pair = meet(answering(said(listen_addrs=[bytes(THERE)], signed_peer_record=stolen)))
    assert info_of(pair).addresses == (THERE,)
    push(pair, said(signed_peer_record=stolen))
    # Signed by the peer, for somebody else.
    payload = b"\x0a" + delimited(bytes(KEYS[1].peer_id)) + b"\x10\x09"
    forged = seal(THEIR_KEY, "libp2p-peer-record", b"\x03\x01", payload)
    push(pair, said(signed_peer_record=forged))
    assert [info.signed_record for info in pushed(pair)] == [False, False]
    assert KEYS[1].peer_id not in pair.node.peers
    assert pair.node.peers.get(THEM).record == b""


def test_row_17_nothing_is_stored_of_peers_that_were_never_connected():
    pair = meet(answering(b"\0"))
    for _ in range(12):
        key = make_key()
        push(pair, said(signed_peer_record=record(HERE, key=key), public_key=key.public.encode()))
        assert key.peer_id not in pair.node.peers
    assert len(pair.node.peers) == 1


def test_row_65_a_newer_record_replaces_the_certified_addresses():
    pair = meet(answering(said(signed_peer_record=record(HERE, THERE, seq=5))), dialed=False)
    assert stored(pair) == [HERE, THERE]
    push(pair, said(signed_peer_record=record(THERE, seq=6)))
    assert stored(pair) == [THERE] and pushed(pair)[-1].addresses == (THERE,)
    push(pair, said(signed_peer_record=record(seq=7)))
    assert stored(pair) == [] and pushed(pair)[-1].addresses == ()


def test_an_older_record_is_ignored():
    pair = meet(answering(said(signed_peer_record=record(HERE, seq=5))), dialed=False)
    push(pair, said(signed_peer_record=record(THERE, seq=4), agent_version="new"))
    (info,) = pushed(pair)
    assert (info.agent, info.addresses, info.signed_record) == ("new", (HERE,), True)
    assert stored(pair) == [HERE] and pair.node.peers.get(THEM).record_seq == 5
    push(pair, said(signed_peer_record=record(THERE, seq=5)))  # some count seconds
    assert stored(pair) == [THERE]


class Counting(type(CRYPTO)):
    def __init__(self):
        self.loaded = 0

    def load_public(self, kind, data):
        self.loaded += 1
        return super().load_public(kind, data)


def test_the_same_record_is_verified_once():
    pair = meet(answering(said(signed_peer_record=record(HERE, seq=5))), dialed=False)
    crypto = pair.node.crypto = Counting()
    push(pair, said(signed_peer_record=record(HERE, seq=5)))
    assert pushed(pair)[-1].addresses == (HERE,) and pushed(pair)[-1].signed_record
    assert crypto.loaded == 0
    push(pair, said(signed_peer_record=record(HERE, seq=6)))
    assert crypto.loaded == 1
    # Also when it comes back, and is somewhere else now.
    pair.hang_up(*pair.sides[0])
    sealed = record(HERE, seq=6)
    again = meet(
        answering(said(signed_peer_record=sealed)),
        node=pair.node,
        dialed=False,
        at=Multiaddr("/ip4/10.0.0.1/tcp/1"),
    )
    assert crypto.loaded == 1
    info = again.ours.of(PeerIdentified)[-1].info
    assert info.signed_record and info.addresses == ()


def test_addresses_that_cannot_be_reached_from_here_are_dropped():
    public, private = Multiaddr("/ip4/8.8.8.8/tcp/1"), Multiaddr("/ip4/10.0.0.1/tcp/1")
    everywhere = [public, private, HERE]
    for at, kept in ((HERE, everywhere), (private, everywhere[:2]), (public, everywhere[:1])):
        for message in (
            said(signed_peer_record=record(*everywhere)),
            said(listen_addrs=list(map(bytes, everywhere))),
        ):
            pair = meet(answering(message), dialed=False, at=at)
            assert info_of(pair).addresses == tuple(kept)
            assert stored(pair) == kept
            # All of them stay certified: the peer may be nearer another time.
            assert pair.node.peers.get(THEM).certified in ((), tuple(everywhere))


def test_the_address_of_an_inbound_connection_is_not_stored():
    pair = meet(answering(said(agent_version="a")), dialed=False)
    assert stored(pair) == []


def test_the_address_that_we_dialed_stays():
    """A server behind a forwarded port signs private addresses only."""
    public, private = Multiaddr("/ip4/8.8.8.8/tcp/1"), Multiaddr("/ip4/10.0.0.1/tcp/1")
    pair = meet(answering(said(signed_peer_record=record(private))), at=public)
    assert info_of(pair).addresses == ()
    assert stored(pair) == [public]


# Push


def test_a_partial_push_keeps_what_it_does_not_carry():
    everything = {
        "agent_version": "a/1",
        "protocol_version": "x/1",
        "protocols": ["/a", "/b"],
        "listen_addrs": [bytes(HERE)],
        "observed_addr": bytes(THERE),
    }
    pair = meet(answering(said(**everything)))
    before = info_of(pair)
    changes = [
        ({"agent_version": "a/2"}, {"agent": "a/2"}),
        ({"protocol_version": "x/2"}, {"protocol_version": "x/2"}),
        ({"protocols": ["/c"]}, {"protocols": ("/c",)}),
        ({"listen_addrs": [bytes(THERE)]}, {"addresses": (THERE,)}),
        ({"observed_addr": bytes(HERE)}, {"observed": HERE}),
        ({}, {}),
        (
            {"signed_peer_record": record(HERE)},
            {"addresses": (HERE,), "signed_record": True},
        ),
        ({"agent_version": "", "protocol_version": ""}, {"agent": "", "protocol_version": ""}),
    ]
    names = ("agent", "protocol_version", "protocols", "addresses", "observed", "signed_record")
    expected = {name: getattr(before, name) for name in names}
    for fields, change in changes:
        push(pair, said(**fields))
        expected |= change
        info = pushed(pair)[-1]
        assert {name: getattr(info, name) for name in names} == expected
        assert pair.node.identified(THEM) is info
        known = pair.node.peers.get(THEM)
        assert (known.agent, known.protocols) == (info.agent, info.protocols)
    assert before.agent == "a/1"  # what the application holds does not change


def test_row_66_a_push_replaces_the_protocols():
    pair = meet(answering(said(protocols=["/a", "/b"])))
    push(pair, said(protocols=["/b"]), said(protocols=["/c"]))
    assert pushed(pair)[-1].protocols == ("/b", "/c")
    assert pair.node.peers.get(THEM).protocols == ("/b", "/c")


def test_row_66_pushes_are_rate_limited():
    pair = meet(answering(b"\0"))
    for batch in range(10):
        wires = []
        for number in range(100):
            wire = pair.them.open(PUSH, pair.now)
            wire.finish(said(agent_version=f"{batch}.{number}"))
            wires.append(wire)
        pair.run()
        if batch:
            assert [wire.reset for wire in wires] == [RATE_LIMITED] * 100
    assert [info.agent for info in pushed(pair)] == [f"0.{number}" for number in range(12)]
    assert "identify" not in pair.node.timers.reasons()
    assert not pair.node.connections()[0].muxer.streams
    pair.wait(59.9)
    assert push(pair, b"\0").reset == RATE_LIMITED
    pair.wait(0.1)
    wires = [push(pair, said(agent_version="later")) for _ in range(13)]
    assert [wire.reset for wire in wires] == [None] * 12 + [RATE_LIMITED]
    assert pushed(pair)[-1].agent == "later"


def test_a_push_before_the_answer():
    pair = meet()
    (wire,) = pair.them.of(PROTOCOL)
    push(pair, said(agent_version="pushed"))
    assert pair.node.identified(THEM).agent == "pushed"
    wire.finish(said(protocols=["/a"]))
    pair.run()
    info = pair.node.identified(THEM)
    assert (info.agent, info.protocols) == ("", ("/a",))  # an answer is complete


@pytest.mark.parametrize(
    "spoil",
    [
        lambda wire: wire.finish(b"\xff\xff\xff"),
        lambda wire: wire.finish(b"\x05"),
        lambda wire: wire.finish(),
        lambda wire: wire.abort(3),
        lambda wire: wire.send(b"\x05"),
    ],
)
def test_a_bad_push_is_ignored(spoil):
    pair = meet(answering(said(agent_version="a")))
    spoil(pair.them.open(PUSH, pair.now))
    pair.run()
    pair.wait(5.0)
    assert not pushed(pair) and not pair.ours.of(IdentifyFailed)
    assert pair.node.identified(THEM).agent == "a"
    assert "identify" not in pair.node.timers.reasons()
    assert not pair.node.connections()[0].muxer.streams


def pair_of_two(pair):
    """A second connection of the same two nodes."""
    second = Pair(pair.a.node, pair.b.node, connect=False)
    second.now = pair.now
    second.a, second.b = type(pair.a)(pair.a.node), type(pair.b)(pair.b.node)
    second.connect(expected=None)
    return second


def test_what_one_connection_says_holds_for_all():
    a, b = make_node(KEYS[0]), make_node(KEYS[1], agent="b")
    first = Pair(a, b)
    second = pair_of_two(first)
    assert len(a.connections(b.peer_id)) == 2
    wire_info = a.identified(b.peer_id)
    assert wire_info.observed == REMOTE

    # A push over the second one only.
    connection = b.connections()[1]
    service = Identify()
    service.attach(b)

    def on_open(stream, protocol, now):
        stream.write(said(agent_version="b/2", protocols=["/new"], observed_addr=bytes(HERE)))
        stream.write_eof()

    connection.open_stream((PUSH,), on_open, lambda error, now: None, second.now)
    b.touch(connection)
    second.run()
    info = a.identified(b.peer_id)
    assert (info.agent, info.protocols, info.observed) == ("b/2", ("/new",), REMOTE)
    assert wire_info.agent == "b"


# What we say


def test_row_69_what_peers_claim_to_observe_is_never_advertised():
    node = make_node(KEYS[0])
    node.addresses = [HERE]
    false = Multiaddr("/ip4/6.6.6.6/tcp/666")
    for _ in range(6):
        them = Stranger(make_key())
        pair = meet(answering(said(observed_addr=bytes(false))), node=node, them=them)
        assert pair.ours.last(PeerIdentified).info.observed == false
        wire = pair.them.open(PROTOCOL, pair.now)
        pair.run()
        (frame,) = Delimited(MAX_MESSAGE).receive(bytes(wire.received))
        message = IDENTIFY.decode(frame)
        assert message.listen_addrs == [bytes(HERE)] and message.observed_addr == bytes(LOCAL)
        assert open_peer_record(message.signed_peer_record, CRYPTO).addresses == [HERE]
    assert node.addresses == [HERE]


def test_our_message():
    node = make_node(KEYS[0], agent="x" * 500)
    node.addresses = [HERE, THERE]
    (frame,) = messages_of(node)
    message = IDENTIFY.decode(frame)
    sealed = message.signed_peer_record
    assert message == Message(
        KEYS[0].public.encode(),
        [bytes(HERE), bytes(THERE)],
        [PROTOCOL, PUSH, "/ipfs/ping/1.0.0"],
        bytes(REMOTE),
        "ipfs/0.1.0",
        "x" * 128,
        sealed,
    )
    assert IDENTIFY.encode(message) == frame  # fields in ascending order
    assert open_peer_record(sealed, CRYPTO).addresses == [HERE, THERE]
    (frame,) = messages_of(node, observed=None)
    assert IDENTIFY.decode(frame).observed_addr is None


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 100),
    st.sampled_from(
        ["/ip4/127.0.0.1/tcp/{}", "/dns4/" + "x" * 60 + "/tcp/{}", "/dns4/" + "x" * 900 + "/tcp/{}"]
    ),
    st.lists(st.integers(1, 500), max_size=120),
    st.integers(0, 200),
    st.sampled_from([None, REMOTE, Multiaddr("/dns4/" + "y" * 1000 + "/tcp/1")]),
)
def test_the_first_message_fits_into_4_kib_and_nothing_is_lost_without_need(
    addresses, pattern, names, agent, observed
):
    node = make_node(KEYS[0], agent="\u20ac" * agent)
    node.addresses = [Multiaddr(pattern.format(port)) for port in range(1, addresses + 1)]
    for number, size in enumerate(names):
        node.handle(f"/{number}/".ljust(size, "x"), 0.0)
    frames = messages_of(node, observed)
    assert all(len(frame) <= MAX_SENT_MESSAGE for frame in frames)
    assert len(frames) <= 10
    merged = Message()
    for frame in frames:
        merge(merged, IDENTIFY.decode(frame), Limits(max_protocols_per_peer=1000))
    first = IDENTIFY.decode(frames[0])
    assert first.public_key and first.agent_version == "\u20ac" * min(agent, 128)
    assert merged.protocols == node.protocols[:256] or len(node.protocols) > 256
    assert first.listen_addrs == [bytes(one) for one in node.addresses[: len(first.listen_addrs)]]
    if addresses <= 64 and len(pattern) < 30:
        assert len(first.listen_addrs) == addresses
    certified = open_peer_record(merged.signed_peer_record, CRYPTO).addresses
    assert list(map(bytes, certified)) == first.listen_addrs
    if observed is REMOTE:
        assert first.observed_addr == bytes(observed)


def test_a_record_that_does_not_fit_comes_second():
    node = make_node(KEYS[0])
    node.addresses = [Multiaddr(f"/dns4/{'x' * 40}/tcp/{port}") for port in range(1, 40)]
    for number in range(10):
        node.handle(f"/app/{number}/{'x' * 100}", 0.0)
    first, second = map(IDENTIFY.decode, messages_of(node))
    assert first.signed_peer_record is None
    assert second == Message(signed_peer_record=second.signed_peer_record)
    assert len(open_peer_record(second.signed_peer_record, CRYPTO).addresses) > 30


def test_protocols_that_do_not_fit_come_last_and_are_merged_by_the_reader():
    a, b = make_node(KEYS[0]), make_node(KEYS[1])
    for number in range(200):
        b.handle(f"/app/{number}/{'x' * 40}/1.0.0", 0.0)
    assert len(messages_of(b)) > 2
    pair = Pair(a, b)
    assert pair.a.last(PeerIdentified).info.protocols == tuple(b.protocols)
    assert pair.a.last(PeerIdentified).info.signed_record


def test_ten_thousand_protocols_are_cut():
    """And names that no peer would keep do not stop the rest."""

    class Many(Service):
        protocols = ("/" + "x" * 5000, *(f"/{number}/{'y' * 60}" for number in range(10_000)))

    node = make_node(KEYS[0], services=[Many()])
    frames = messages_of(node)
    assert 9 <= len(frames) <= 10 and sum(map(len, frames)) < MAX_TOTAL
    assert max(map(len, frames)) <= MAX_SENT_MESSAGE
    assert all(len(name) < 100 for frame in frames for name in IDENTIFY.decode(frame).protocols)


def test_an_rsa_key_fits_too():
    keys = vectors.load("peer_ids")["keys"]
    (rsa,) = (key for key in keys if key["kind"].lower() == "rsa")
    node = make_node(PrivateKey.decode(bytes.fromhex(rsa["private"]), CRYPTO))
    node.addresses = [Multiaddr(f"/ip4/127.0.0.1/tcp/{port}") for port in range(1, 65)]
    frames = messages_of(node)
    assert all(len(frame) <= MAX_SENT_MESSAGE for frame in frames)
    assert len(IDENTIFY.decode(frames[0]).listen_addrs) == 64


def test_our_record_grows_with_each_change_and_over_restarts():
    def seq(service, now):
        (frame,) = Delimited(MAX_MESSAGE).receive(service.encode(None, now))
        return open_peer_record(IDENTIFY.decode(frame).signed_peer_record, CRYPTO).seq

    node = make_node(KEYS[0], epoch=1.7e9)
    service = Identify()
    service.attach(node)
    first = seq(service, 5.0)
    assert first == int((1.7e9 + 5.0) * 1e9)
    assert seq(service, 9.0) == first  # made once
    service.changed(5.0)
    assert seq(service, 5.0) == first + 1
    service.changed(6.0)
    assert seq(service, 6.0) == int((1.7e9 + 6.0) * 1e9)
    restarted = Identify()
    restarted.attach(make_node(KEYS[0], epoch=1.7e9 + 60))
    assert seq(restarted, 0.0) > first + 10**9


def test_a_peer_that_sends_something_to_identify_gets_its_answer():
    pair = meet(answering(b"\0"))
    wire = pair.them.open(PROTOCOL, pair.now)
    for _ in range(40):  # more than a window
        wire.send(bytes(65536))
        pair.run()
    assert Delimited(MAX_MESSAGE).receive(bytes(wire.received)) and wire.ended
    wire.finish()
    pair.run()
    assert not pair.node.connections()[0].muxer.streams


# What we push


def told(pair):
    """What we pushed to the stranger."""
    messages = []
    for wire in pair.them.of(PUSH):
        assert wire.ended
        merged = Message()
        for frame in Delimited(MAX_MESSAGE).receive(bytes(wire.received)):
            merge(merged, IDENTIFY.decode(frame), Limits())
        messages.append(merged)
    return messages


WILLING = answering(said(protocols=[PUSH]))


def test_changes_are_gathered_and_pushed():
    pair = meet(WILLING)
    pair.node.listening([HERE], pair.now)
    pair.node.listening([HERE, THERE], pair.now)
    pair.node.handle("/app", pair.now)
    pair.wait(PUSH_DELAY - 0.01)
    assert told(pair) == []
    pair.wait(0.02)
    (message,) = told(pair)
    assert message.listen_addrs == [bytes(HERE), bytes(THERE)] and "/app" in message.protocols
    assert open_peer_record(message.signed_peer_record, CRYPTO).addresses == [HERE, THERE]
    pair.node.unhandle("/app", pair.now)
    pair.wait(1.0)
    assert len(told(pair)) == 2 and "/app" not in told(pair)[1].protocols
    pair.wait(20.0)
    assert len(told(pair)) == 2


def test_a_node_and_a_node():
    pair = Pair(make_node(KEYS[0]), make_node(KEYS[1]))
    pair.b.node.handle("/app", pair.now)
    pair.b.node.listening([THERE], pair.now)
    pair.wait(1.0)
    event = pair.a.last(PeerIdentified)
    assert event.pushed and "/app" in event.info.protocols and event.info.addresses == (THERE,)
    assert event.info.signed_record


def test_no_push_for_those_who_do_not_speak_it():
    pair = meet(answering(said(protocols=["/app"])))
    pair.node.handle("/app", pair.now)
    pair.wait(1.0)
    assert told(pair) == []
    push(pair, said(protocols=[PUSH]))  # it does from now on, and never asked
    pair.node.handle("/app/2", pair.now)
    pair.wait(1.0)
    assert len(told(pair)) == 1


def test_no_push_for_those_who_asked_after_the_change():
    pair = meet(WILLING)
    pair.node.handle("/app", pair.now)
    pair.them.open(PROTOCOL, pair.now)
    pair.run()
    pair.wait(1.0)
    assert told(pair) == []


def test_a_peer_that_asked_before_the_change_and_answered_after_it_is_told():
    pair = meet()
    pair.them.open(PROTOCOL, pair.now)
    pair.run()
    pair.node.handle("/app", pair.now)
    pair.wait(1.0)
    assert told(pair) == []  # nobody knows what it speaks
    (wire,) = pair.them.of(PROTOCOL)
    wire.finish(said(protocols=[PUSH]))
    pair.run()
    pair.wait(1.0)
    assert len(told(pair)) == 1 and "/app" in told(pair)[0].protocols


def test_no_timer_without_connections():
    node = make_node(KEYS[0])
    node.handle("/app", 1.0)
    assert node.timers.reasons() == []
    pair = meet(WILLING, node=node)
    pair.node.handle("/app/2", pair.now)
    assert "push identify" in node.timers.reasons()
    pair.hang_up(*pair.sides[0])
    pair.wait(1.0)
    assert node.timers.reasons() == []


@pytest.mark.parametrize("spoil", ["refused", "reset", "no room", "closing"])
def test_a_push_that_fails_is_nobodys_problem(spoil):
    them = Stranger()
    limits = Limits()
    if spoil == "refused":
        them.refused = (PUSH,)
    if spoil == "reset":
        them.answers[PUSH] = lambda wire: wire.abort()
    pair = meet(WILLING, them=them, limits=limits)
    pair.node.handle("/app", pair.now)
    if spoil == "no room":
        limits.max_outbound_streams = 0
    if spoil == "closing":
        pair.node.connections()[0].closing = True
    before = len(pair.ours.events)
    pair.wait(1.0)
    assert len(pair.ours.events) == before
    assert not pair.node.connections() or not pair.node.connections()[0].muxer.streams


def test_a_service_that_is_added_late_is_told():
    class Late(Service):
        protocols = ("/late",)

    pair = meet(WILLING)
    pair.node.add_service(Late())
    pair.wait(1.0)
    assert "/late" in told(pair)[0].protocols
