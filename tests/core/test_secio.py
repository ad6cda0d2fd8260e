"""anyp2p_core.secio"""

import copy
import itertools
import pickle

import pytest
import secio_peer
import vectors
from hypothesis import given, settings, strategies as st
from node_pair import CRYPTO, Pair, make_node
from secio_peer import Ours, Theirs, at_exchange, framed, opened, shaken
from stranger import one_by_one

from anyp2p.providers.entropy import OsEntropy
from anyp2p_core import ConnectionOpened, DialFailed, HandshakeError, LocalError, PeerIdMismatch
from anyp2p_core.errors import DecodeError
from anyp2p_core.keys import PrivateKey
from anyp2p_core.secio import (
    CIPHERS,
    EXCHANGES,
    HASHES,
    MAX_FRAME,
    MAX_HANDSHAKE,
    MAX_LIST,
    MAX_PLAINTEXT,
    PROTOCOL,
    SecioSecurity,
)
from anyp2p_core.security import SecureChannel, Security

KEY, PEER, OTHER = (
    PrivateKey.generate(CRYPTO, secio_peer.entropy("key", number)) for number in range(3)
)
SUITES = list(itertools.product(EXCHANGES, CIPHERS, HASHES))


def ours(**options):
    return Ours(KEY, CRYPTO, **options)


def our_lot(wins):
    """A scripted peer against which our side wins the lot, or loses it."""
    for number in range(64):
        side, peer = ours(), Theirs(PEER, number)
        peer.exchange_of = at_exchange(side, peer)
        peer.remote = secio_peer.PROPOSE.decode(peer.exchange_of)
        if peer.order() != wins:
            return number
    raise AssertionError("no such lot")


WON, LOST = our_lot(True), our_lot(False)


# The handshake


@pytest.mark.parametrize("number", [WON, LOST], ids=["won", "lost"])
@pytest.mark.parametrize("suite", SUITES, ids=" ".join)
def test_every_suite_against_the_script(suite, number):
    side, peer = ours(), Theirs(PEER, number, suite)
    opened(side, peer, suite)
    assert side.channel.peer == PEER.peer_id and side.channel.public_key == PEER.public
    assert side.channel.muxer is None
    side.feed(peer.sending.frame(b"one") + peer.sending.frame(b"two"))
    assert side.seen == [b"one", b"two"]
    assert peer.receiving.open(side.channel.seal([b"th", b"", b"ree"])[4:]) == b"three"


def test_the_winner_of_the_lot_has_its_way():
    backwards = tuple(",".join(reversed(names.split(","))) for names in secio_peer.LISTS)
    first, last = SUITES[0], SUITES[-1]
    opened(ours(), Theirs(PEER, WON, backwards), first)
    opened(ours(), Theirs(PEER, LOST, backwards), last)


def test_names_that_nobody_knows_are_passed_over():
    lists = ("Curve25519,,P-384", "Blowfish,AES-128,AES-128", "MD5,SHA1,SHA512, SHA256")
    for number in (WON, LOST):
        opened(ours(), Theirs(PEER, number, lists), ("P-384", "AES-128", "SHA512"))


def test_two_machines():
    a, b = ours(expected=PEER.peer_id), Ours(PEER, CRYPTO, name="theirs")
    for _ in range(3):
        said = a.take(), b.take()
        b.feed(said[0])
        a.feed(said[1])
    assert a.opened == b.opened == 1 and a.out == b.out == b""
    assert (a.channel.peer, b.channel.peer) == (PEER.peer_id, KEY.peer_id)
    b.feed(a.channel.seal([b"there"]))
    a.feed(b.channel.seal([b"back"]))
    assert (a.seen, b.seen) == ([b"back"], [b"there"])
    assert a.channel.finish() == b""
    a.channel.receive_eof()


@pytest.mark.parametrize("kind", [key["kind"] for key in vectors.load("peer_ids")["keys"]])
def test_every_kind_of_identity(kind):
    (spec,) = (key for key in vectors.load("peer_ids")["keys"] if key["kind"] == kind)
    key = PrivateKey.decode(bytes.fromhex(spec["private"]), CRYPTO)
    opened(side := ours(expected=key.peer_id), Theirs(key))
    assert side.channel.peer == key.peer_id
    opened(Ours(key, CRYPTO), Theirs(PEER))


def script(number=WON):
    """All that a peer says to a machine with our entropy, and the lengths of its parts."""
    side, peer = ours(), Theirs(PEER, number)
    shaken(side, peer)
    parts = [
        framed(peer.proposal),
        peer.exchange(proposal_of(), secio_peer.CHOSEN),
        peer.sending.frame(peer.remote.rand),
        peer.sending.frame(b"hello"),
        peer.sending.frame(b"world" * 50),
    ]
    return parts


def proposal_of():
    (proposal,) = ours().messages()
    return proposal


SCRIPT = script()
WHOLE = b"".join(SCRIPT)
HELLO = b"hello" + b"world" * 50


def test_the_script_repeats_itself():
    side = ours()
    side.feed(*SCRIPT)
    assert side.opened == 1 and side.data == HELLO


def test_split_everywhere():
    cuts = [[WHOLE], one_by_one(WHOLE)]
    cuts += [[WHOLE[:n], b"", WHOLE[n:]] for n in range(len(WHOLE) + 1)]
    for pieces in cuts:
        side = ours()
        side.feed(*pieces)
        assert side.opened == 1 and side.seen == [b"hello", b"world" * 50]
        side.channel.receive_eof()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, len(WHOLE)), max_size=10))
def test_cut_anyhow(cuts):
    edges = sorted({0, len(WHOLE), *cuts})
    side = ours()
    side.feed(*(WHOLE[start:end] for start, end in itertools.pairwise(edges)))
    assert side.data == HELLO


def test_an_end_at_every_byte():
    ends = set(itertools.accumulate(map(len, SCRIPT)))
    opening = len(b"".join(SCRIPT[:3]))
    for size in range(len(WHOLE)):
        side = ours()
        side.feed(WHOLE[:size])
        if size >= opening and size in ends:
            side.channel.receive_eof()
        else:
            why = "secio handshake" if size < opening else "a secio frame"
            with pytest.raises(HandshakeError, match=f"middle of (the|{why})"):
                side.channel.receive_eof()
        assert side.opened == (size >= opening)


def test_our_messages():
    side = ours()
    assert side.messages()[0].endswith(b"\x0fAES-256,AES-128\x2a\x0dSHA256,SHA512")
    side.feed(SCRIPT[0])
    assert len(side.messages()) == 1
    side.feed(SCRIPT[1])
    assert [len(message) for message in side.messages()] == [16 + 32]
    side.feed(*SCRIPT[2:])
    assert side.messages() == []


# What is refused


def refuses(side, why, *pieces, kind=HandshakeError):
    """The pieces end the channel, now and for ever."""
    with pytest.raises(kind, match=why) as first:
        side.feed(*pieces)
    assert type(first.value) is kind and not side.opened and not side.seen
    with pytest.raises(kind, match=why) as again:
        side.feed(b"")
    assert str(again.value) == str(first.value)
    assert "failed: " in repr(side.channel)
    with pytest.raises(LocalError, match="not open"):
        side.channel.seal([b"x"])


PROPOSALS = {
    "no nonce": ({"rand": None}, "malformed"),
    "no key": ({"public_key": None}, "malformed"),
    "no exchanges": ({"exchanges": None}, "malformed"),
    "no ciphers": ({"ciphers": None}, "malformed"),
    "no hashes": ({"hashes": None}, "malformed"),
    "short nonce": ({"rand": bytes(15)}, "15 bytes instead of 16"),
    "long nonce": ({"rand": bytes(17)}, "17 bytes instead of 16"),
    "empty key": ({"public_key": b""}, "malformed"),
    "unknown kind of key": ({"public_key": b"\x08\x09\x12\x01k"}, "malformed.*key type 9"),
    "cut key": ({"public_key": PEER.public.encode()[:-1]}, "malformed"),
    "our key": ({"public_key": KEY.public.encode()}, "talk to ourselves"),
    "empty exchanges": ({"exchanges": b""}, "no secio exchange of ours"),
    "empty ciphers": ({"ciphers": b""}, "no secio cipher of ours"),
    "empty hashes": ({"hashes": b""}, "no secio hash of ours"),
    "no common curve": ({"exchanges": b"P-224,Curve25519"}, r"P-256, P-384, P-521"),
    "CBC": ({"ciphers": b"AES-256-CBC,Blowfish"}, r"AES-256, AES-128"),
    "weak hashes": ({"hashes": b"MD5,SHA1"}, r"SHA256, SHA512"),
    "other case": ({"hashes": b"sha256"}, "no secio hash"),
    "blanks": ({"exchanges": b" P-256"}, "no secio exchange"),
    "all in one": ({"exchanges": b"P-256;P-384"}, "no secio exchange"),
    "no text": ({"exchanges": b"\xff\xfe"}, "no secio exchange"),
    "long exchanges": ({"exchanges": b"P-256," * 200}, "list of secio exchanges has 1200"),
    "long ciphers": ({"ciphers": b"," * (MAX_LIST + 1)}, "list of secio ciphers has 1025"),
    "long hashes": ({"hashes": b"x" * 10_000}, "list of secio hash"),
}


@pytest.mark.parametrize("number", [WON, LOST], ids=["won", "lost"])
@pytest.mark.parametrize("name", PROPOSALS)
def test_proposals(name, number):
    changes, why = PROPOSALS[name]
    refuses(ours(), why, Theirs(PEER, number).propose(**changes))
    refuses(ours(), why, *one_by_one(Theirs(PEER, number).propose(**changes)))


def test_the_longest_list_is_read():
    lists = list(secio_peer.LISTS)
    lists[0] = "x" * (MAX_LIST - 6) + ",P-521"
    opened(ours(), Theirs(PEER, LOST, tuple(lists)), ("P-521", "AES-256", "SHA256"))


def test_our_own_messages_sent_back():
    side = ours()
    refuses(side, "talk to ourselves", side.take())
    side = ours()
    nonce = secio_peer.PROPOSE.decode(side.messages()[0]).rand
    refuses(side, "repeats our own nonce", Theirs(PEER).propose(rand=nonce))


def stopped(number=WON, **options):
    """A machine that waits for the Exchange, its proposal, and the peer."""
    side, peer = ours(**options), Theirs(PEER, number)
    return side, at_exchange(side, peer), peer


EXCHANGED = {
    "no key": ({"point": None}, "malformed"),
    "no signature": ({"signature": None}, "malformed"),
    "empty signature": ({"signature": b""}, "did not sign"),
    "garbage": ({"signature": bytes(64)}, "did not sign"),
    "empty key": ({"point": b""}, "no uncompressed point"),
    "key of another curve": ({"point": b"\4" + bytes(96)}, "no uncompressed point"),
    "compressed key": ({"point": b"\2" + bytes(32)}, "no uncompressed point"),
    "no point": ({"point": b"\4" + bytes(64)}, "no point of the curve"),
    "infinity": ({"point": b"\0"}, "no uncompressed point"),
    "huge key": ({"point": b"\4" * 10_000}, "no uncompressed point"),
    "huge signature": ({"signature": b"\4" * 10_000}, "did not sign"),
}


@pytest.mark.parametrize("name", EXCHANGED)
def test_exchanges(name):
    changes, why = EXCHANGED[name]
    side, proposal, peer = stopped()
    refuses(side, why, peer.exchange(proposal, **changes))


def test_the_signature_is_of_this_handshake_and_by_this_peer():
    side, proposal, peer = stopped()
    other = Theirs(OTHER)
    other.proposal = peer.proposal
    refuses(side, "did not sign", other.exchange(proposal))
    for changed in (proposal[:-1], proposal + b"x"):
        side, proposal, peer = stopped()
        of_another = peer.key.sign(peer.proposal + changed + peer_point(peer, proposal))
        refuses(side, "did not sign", peer.exchange(proposal, signature=of_another))
    # A man in the middle took the better curves out of both proposals.
    side = ours()
    (proposal,) = side.messages()
    peer = Theirs(PEER)
    honest = peer.propose()
    side.feed(peer.propose(exchanges=b"P-256"))
    peer.proposal = honest[4:]
    refuses(side, "did not sign", peer.exchange(proposal))


def peer_point(peer, proposal):
    peer.exchange(proposal)
    return peer.point


def test_row_37_the_expected_peer_and_no_other():
    side, proposal, peer = stopped(expected=OTHER.peer_id)
    why = f"expected {OTHER.peer_id}, the peer is {PEER.peer_id}"
    refuses(side, why, peer.exchange(proposal), kind=PeerIdMismatch)
    # Who does not prove it is nobody.
    side, proposal, peer = stopped(expected=OTHER.peer_id)
    refuses(side, "did not sign", peer.exchange(proposal, signature=b"x"))


def test_the_first_frame_is_our_nonce():
    for wrong in (b"", bytes(16), Theirs(PEER, WON).nonce, None):
        side, peer = ours(), Theirs(PEER, WON)
        shaken(side, peer)
        nonce = peer.remote.rand + b"x" if wrong is None else wrong
        refuses(side, "does not hold our nonce", peer.sending.frame(nonce))


def test_frames_that_are_not_authentic():
    for before in (False, True):
        for wrong in (b"", b"x", bytes(31), bytes(32), bytes(1000)):
            side, peer = ours(), Theirs(PEER, WON)
            (opened if before else shaken)(side, peer)
            with pytest.raises(HandshakeError, match=r"no MAC|not authentic"):
                side.feed(framed(wrong))
            with pytest.raises(HandshakeError, match=r"no MAC|not authentic"):
                side.feed(peer.sending.frame(b"good again"))
            assert not side.seen
            if before:  # a last word is still possible
                assert peer.receiving.open(side.channel.seal([b"bye"])[4:]) == b"bye"


def test_frames_of_the_other_direction():
    side, peer = ours(), Theirs(PEER, WON)
    opened(side, peer)
    with pytest.raises(HandshakeError, match="not authentic"):
        side.feed(side.channel.seal([b"our own"]))


def test_what_the_protocol_cannot_see():
    """The reason for the warning: if this fails, the warning is too loud."""
    side, peer = ours(), Theirs(PEER, WON)
    opened(side, peer)
    frame = peer.sending.frame(b"pay once")
    side.feed(frame, frame)
    assert side.seen[0] == b"pay once" and side.seen[1] not in (b"", b"pay once")
    assert len(side.seen) == 2


def test_errors_of_the_layers_above_are_theirs():
    side, peer = ours(), Theirs(PEER, WON)
    opened(side, peer)

    def refuse(data, now):
        raise DecodeError("not mine")

    side.channel.on_data = refuse
    with pytest.raises(DecodeError, match="not mine"):
        side.feed(peer.sending.frame(b"x"))
    with pytest.raises(HandshakeError, match="not mine"):  # the rest of the piece is lost
        side.feed(peer.sending.frame(b"y"))


def test_empty_frames_are_nothing():
    side, peer = ours(), Theirs(PEER, WON)
    opened(side, peer)
    side.feed(peer.sending.frame(b""), peer.sending.frame(b"x"))
    assert side.seen == [b"x"]


# Bounds


def test_lengths_are_judged_at_once():
    for number, (limit, what) in enumerate(
        [(MAX_HANDSHAKE, "handshake message"), (MAX_HANDSHAKE, "handshake message")]
        + [(MAX_FRAME, "frame")] * 2
    ):
        for size in (limit + 1, 2**31, 2**32 - 1):
            for cut in (lambda data: [data], one_by_one):
                side = ours()
                side.feed(*SCRIPT[:number])
                with pytest.raises(HandshakeError, match=f"secio {what} of {size} bytes"):
                    side.feed(*cut(size.to_bytes(4, "big")))
        side = ours()
        side.feed(*SCRIPT[:number], limit.to_bytes(4, "big"))
        side.feed(bytes(1000))


def test_the_longest_frames():
    side, peer = ours(), Theirs(PEER, WON)
    opened(side, peer)
    data = bytes(MAX_FRAME - 32)
    side.feed(peer.sending.frame(data))
    frame = peer.sending.frame(data)
    side.feed(*(frame[pos : pos + 9999] for pos in range(0, len(frame), 9999)))
    assert side.seen == [data, data]


def test_long_data_goes_out_in_several_frames():
    side, peer = ours(), Theirs(PEER, WON)
    opened(side, peer)
    for size in (0, 1, MAX_PLAINTEXT, MAX_PLAINTEXT + 1, 3 * MAX_PLAINTEXT, 200_001):
        data = (b"0123456789" * (size // 10 + 1))[:size]
        side.out += side.channel.seal([data[:100], data[100:]])
        pieces = [peer.receiving.open(frame) for frame in side.messages()]
        assert b"".join(pieces) == data and len(pieces) == -(-size // MAX_PLAINTEXT)
    assert side.channel.seal([]) == b""


# Interfaces


def test_it_is_off_unless_asked_for():
    assert list(make_node(KEY).security) == ["/noise"]


def test_it_is_a_security():
    security: Security = SecioSecurity(KEY, CRYPTO, OsEntropy(), secio_peer.SECIO)
    channel: SecureChannel = security.start(
        initiator=True, expected=None, muxers=(), write=lambda data: None, wall=0.0
    )
    channel.on_open()
    channel.on_data(b"", 0.0)
    channel.on_end(0.0)
    assert security.protocol == PROTOCOL == "/secio/1.0.0"


@pytest.mark.parametrize(
    "offer",
    [{"exchanges": ["P-224"]}, {"ciphers": ["Blowfish"]}, {"hashes": ["SHA256", "MD5"]}],
)
def test_nothing_else_can_be_offered(offer):
    with pytest.raises(LocalError, match="is called"):
        ours(**offer)
    for name in offer:
        with pytest.raises(LocalError, match="at least one"):
            ours(**{name: []})


def test_an_offer_of_our_own():
    offer = {"exchanges": ["P-521"], "ciphers": ["AES-128"], "hashes": ["SHA512"]}
    for number in (WON, LOST):
        opened(ours(**offer), Theirs(PEER, number), ("P-521", "AES-128", "SHA512"))


def test_row_39_repr():
    side, peer = ours(), Theirs(PEER, WON)
    assert repr(side.channel) == "<Secio, in the handshake>"
    opened(side, peer)
    assert repr(side.channel) == f"<Secio, open to {PEER.peer_id}>"


@pytest.mark.parametrize("act", [pickle.dumps, copy.copy, copy.deepcopy])
def test_row_39_neither_pickled_nor_copied(act):
    side, peer = ours(), Theirs(PEER, WON)
    with pytest.raises(TypeError, match="neither pickled nor copied"):
        act(side.channel)
    opened(side, peer)
    with pytest.raises(TypeError, match="neither pickled nor copied"):
        act(side.channel)


# In a node


def old_node(key):
    security = SecioSecurity(key, CRYPTO, OsEntropy(), secio_peer.SECIO)
    return make_node(key, security=[security])


@pytest.mark.parametrize("cut", [None, one_by_one])
def test_two_nodes(cut):
    pair = Pair(old_node(KEY), old_node(PEER), cut=cut)
    for here, there in pair.sides:
        (connection,) = here.node.connections()
        assert connection.peer == there.node.peer_id
        assert connection.negotiated.security == PROTOCOL
    assert b"/ipfs/id/1.0.0" not in b"".join(pair.b.received)


def test_two_nodes_and_another_peer_was_meant():
    pair = Pair(old_node(KEY), old_node(PEER), connect=False)
    pair.connect(expected=OTHER.peer_id)
    (event,) = pair.a.of(DialFailed)
    assert str(PEER.peer_id) in str(event.error) and not pair.a.of(ConnectionOpened)
