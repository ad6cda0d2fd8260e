"""anyp2p_core.security"""

import pytest
from node_pair import CRYPTO, Pair, make_node
from stranger import KEYS, one_by_one

from anyp2p.providers.entropy import OsEntropy
from anyp2p_core import DialFailed, PeerIdentified, PeerIdMismatch
from anyp2p_core.noise import Noise
from anyp2p_core.plaintext import PlaintextSecurity
from anyp2p_core.security import NoiseSecurity

KEY, OTHER = KEYS[:2]
MUXERS = ("/yamux/1.0.0",)


def noise(key):
    return NoiseSecurity(key, CRYPTO, OsEntropy())


def plaintext(key):
    return PlaintextSecurity(key, CRYPTO)


class End:
    """One end of a channel, with everything that the interface has."""

    def __init__(self, security, initiator, expected=None):
        self.out = []
        self.seen = []
        self.channel = security.start(
            initiator=initiator,
            expected=expected,
            muxers=MUXERS,
            write=self.out.append,
            wall=0.0,
        )
        self.channel.on_open = lambda: self.seen.append("open")
        self.channel.on_data = lambda data, now: self.seen.append((data, now))

    def feed(self, other, cut):
        while self.out:
            for piece in cut(self.out.pop(0)):
                other.channel.receive(piece, 3.0)


@pytest.mark.parametrize("make", [noise, plaintext])
@pytest.mark.parametrize("cut", [lambda data: [data], one_by_one], ids=["whole", "bytewise"])
def test_every_channel_behaves_alike(make, cut):
    a = End(make(KEY), True, OTHER.peer_id)
    b = End(make(OTHER), False)
    for _ in range(3):
        a.feed(b, cut)
        b.feed(a, cut)
    for end, peer in ((a, OTHER), (b, KEY)):
        assert end.seen == ["open"]
        assert (end.channel.peer, end.channel.public_key) == (peer.peer_id, peer.public)
        end.channel.receive_eof()
    assert a.channel.muxer == b.channel.muxer
    for end, other in ((a, b), (b, a)):
        end.out.append(end.channel.seal([b"hello ", b"world"]))
        end.feed(other, cut)
        assert b"".join(data for data, _ in other.seen[1:]) == b"hello world"
        assert all(now == 3.0 for _, now in other.seen[1:])


@pytest.mark.parametrize("make", [noise, plaintext])
def test_every_channel_checks_who_answers(make):
    a = End(make(KEY), True, KEYS[2].peer_id)
    b = End(make(OTHER), False)

    def exchange():
        for _ in range(3):
            a.feed(b, one_by_one)
            b.feed(a, one_by_one)

    with pytest.raises(PeerIdMismatch):
        exchange()
    assert a.seen == []


def test_noise_is_noise():
    security = noise(KEY)
    assert security.protocol == "/noise"
    channels = [End(security, initiator).channel for initiator in (True, False)]
    assert all(isinstance(channel, Noise) for channel in channels)


def test_the_muxer_is_agreed_on_in_the_handshake():
    a, b = End(noise(KEY), True), End(noise(OTHER), False)
    for _ in range(2):
        a.feed(b, one_by_one)
        b.feed(a, one_by_one)
    assert a.channel.muxer == b.channel.muxer == MUXERS[0]


@pytest.mark.parametrize(
    ("dialer", "listener", "agreed"),
    [
        ((noise,), (noise,), "/noise"),
        ((noise, plaintext), (plaintext,), "/plaintext/2.0.0"),
        ((noise,), (plaintext, noise), "/noise"),
        ((plaintext, noise), (noise, plaintext), "/plaintext/2.0.0"),
        ((noise, plaintext), (plaintext, noise), "/noise"),
        ((plaintext,), (noise,), None),
    ],
)
@pytest.mark.parametrize("cut", [None, one_by_one], ids=["whole", "bytewise"])
def test_nodes_agree_on_what_the_dialer_prefers(dialer, listener, agreed, cut):
    a = make_node(KEY, security=[make(KEY) for make in dialer])
    b = make_node(OTHER, security=[make(OTHER) for make in listener])
    pair = Pair(a, b, cut=cut)
    if agreed is None:
        assert pair.a.of(DialFailed) and not b.connected_peers()
    else:
        (connection,) = a.connections()
        assert connection.negotiated.security == agreed
        assert pair.a.of(PeerIdentified) and pair.b.of(PeerIdentified)
