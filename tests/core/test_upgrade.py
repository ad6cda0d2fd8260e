"""How a byte stream becomes a connection, through every layer, and what it says at the end."""

import pytest
from connection_pair import KEYS, MPLEX, MPLEXES, YAMUX, YAMUXES, Link, noise, plaintext, tls
from node_pair import LOCAL, REMOTE, make_key

from anyp2p_core.errors import HandshakeError, MuxerError, NegotiationError, PeerIdMismatch
from anyp2p_core.multistream import encode
from anyp2p_core.upgrade import FLUSH

# The upgrade.


@pytest.mark.parametrize("piece", [1 << 30, 1, 13])
@pytest.mark.parametrize(
    "ours, theirs, security, early",
    [
        ((noise,), (noise,), "/noise", True),
        ((noise,), (plaintext, noise), "/noise", True),
        ((plaintext, noise), (noise,), "/noise", True),
        ((noise, plaintext), (noise, plaintext), "/noise", True),
        ((plaintext, noise), (noise, plaintext), "/plaintext/2.0.0", False),
        ((plaintext,), (plaintext,), "/plaintext/2.0.0", False),
        ((tls,), (tls,), "/tls/1.0.0", True),
        ((noise, tls), (tls, noise), "/noise", True),
        ((noise, tls), (tls,), "/tls/1.0.0", True),
    ],
)
def test_upgrade(ours, theirs, security, early, piece):
    link = Link(ours, theirs, run=False)
    link.piece = piece
    link.now = 2.0
    link.run()
    assert (link.a.local, link.a.remote) == (link.b.remote, link.b.local) == (REMOTE, LOCAL)
    for connection, owner, key in ((link.a, link.owner_a, 1), (link.b, link.owner_b, 0)):
        assert connection.negotiated.security == security
        assert connection.negotiated.muxer == YAMUX
        assert connection.negotiated.early_muxer is early
        assert connection.peer == KEYS[key].peer_id
        assert connection.public_key == KEYS[key].public
        assert (owner.upgraded, owner.upgraded_at) == (1, 2.0)
        assert connection.usable and not connection.wants_write
        assert connection.data_to_send(link.now) == b""
    assert link.a.muxer.rtt is not None
    assert link.timers == []


def test_without_a_common_security_protocol():
    link = Link((plaintext,), (noise,), run=False)
    with pytest.raises(NegotiationError):  # what follows the proposal at once is no other one
        link.b.receive(link.a.data_to_send(link.now), link.now)
    with pytest.raises(NegotiationError, match="supports none of /plaintext"):
        link.a.receive(link.b.data_to_send(link.now), link.now)
    assert not link.owner_a.upgraded and not link.owner_b.upgraded


def test_row_37_the_expected_peer_or_nobody():
    link = Link(expected=make_key(), run=False)
    with pytest.raises(PeerIdMismatch):
        link.run()
    assert link.a.peer is None and link.a.muxer is None and not link.owner_a.upgraded


def test_anybody_when_nobody_is_expected():
    assert Link(expected=None).a.peer == KEYS[1].peer_id


def test_without_a_common_muxer():
    link = Link((plaintext,), (plaintext,), run=False)
    link.b.receive(link.a.data_to_send(link.now), link.now)
    link.a.receive(link.b.data_to_send(link.now), link.now)
    data = link.a.data_to_send(link.now)
    assert data.endswith(encode(YAMUX))
    link.b.receive(data.replace(encode(YAMUX), encode("/mplex/6.7")), link.now)
    with pytest.raises(NegotiationError, match="supports none of /yamux"):
        link.a.receive(link.b.data_to_send(link.now), link.now)


@pytest.mark.parametrize("security", [noise, tls, plaintext])
def test_the_peer_closes_during_the_upgrade(security):
    link = Link((security,), (security,), run=False)
    while not link.a.muxer or not link.b.muxer:
        for here, there in ((link.a, link.b), (link.b, link.a)):
            if not there.muxer:
                with pytest.raises(HandshakeError):
                    there.receive_eof()
            there.receive(here.data_to_send(link.now), link.now)
    link.a.receive_eof()
    link.b.receive_eof()


def test_the_peer_closes_in_the_middle_of_a_sealed_message():
    link = Link()
    stream, _ = link.open()
    stream.write(b"x")
    link.b.receive(link.a.data_to_send(link.now)[:-1], link.now)
    with pytest.raises(HandshakeError, match="middle of a noise message"):
        link.b.receive_eof()


def test_one_flush_is_one_noise_message():
    link = Link()
    stream, _ = link.open()
    link.run()
    stream.write(bytes(200_000))
    sizes = []
    while link.a.wants_write:
        data = link.a.data_to_send(link.now)
        sizes.append(len(data))
        link.b.receive(data, link.now)
    assert sizes == [FLUSH + 18] * 3 + [sizes[-1]]


def test_nothing_is_sent_once_it_is_finished():
    link = Link(run=False)
    assert link.a.wants_write
    link.a.finished = True
    assert not link.a.wants_write


# The muxer.


@pytest.mark.parametrize("security", [noise, tls, plaintext])
@pytest.mark.parametrize(
    ("ours", "theirs", "muxer"),
    [
        (YAMUXES | MPLEXES, YAMUXES | MPLEXES, YAMUX),
        (MPLEXES | YAMUXES, YAMUXES | MPLEXES, MPLEX),  # the dialer's order counts
        (MPLEXES | YAMUXES, YAMUXES, YAMUX),
        (MPLEXES, YAMUXES | MPLEXES, MPLEX),
        (MPLEXES, YAMUXES, None),
    ],
)
def test_the_muxer(security, ours, theirs, muxer):
    link = Link((security,), (security,), muxers=(ours, theirs), run=False)
    if muxer is None:
        with pytest.raises((HandshakeError, NegotiationError)):
            link.run()
        assert not link.owner_a.upgraded and not link.owner_b.upgraded
        return
    link.run()
    for connection, kind in ((link.a, link.owner_a.muxers), (link.b, link.owner_b.muxers)):
        assert connection.negotiated.muxer == muxer
        assert connection.negotiated.early_muxer is (security is not plaintext)
        assert type(connection.muxer) is kind[muxer]
    link.open()[0].write(b"hello")
    link.run()
    assert link.owner_b.streams[0][0].unread == 5


def test_what_follows_the_choice_of_the_muxer_at_once_is_for_the_muxer():
    link = Link((plaintext,), (plaintext,), run=False)
    while link.b.muxer is None:
        link.b.receive(link.a.data_to_send(link.now), link.now)
        if link.b.muxer is None:
            link.a.receive(link.b.data_to_send(link.now), link.now)
    link.open(opener=link.b)[0].write(b"hello")
    assert link.a.muxer is None
    link.a.receive(link.b.data_to_send(link.now), link.now)
    assert link.a.muxer is not None
    assert link.owner_a.streams[0][0].unread == 5


# What is below.


class Under:
    """A fake at each end; they wait for a word of the other."""

    def __init__(self, ours=b"", theirs=b""):
        self.layers = []
        self.carriers = (self.making(ours), self.making(theirs))

    def making(self, key):
        def make(write):
            layer = Marked(key, write)
            self.layers.append(layer)
            return layer

        return make


class Marked:
    """Counts what goes through, and XORs it: what does not go through is not understood."""

    def __init__(self, key, write):
        self.open = not key
        self.on_open = self.on_data = self.on_end = lambda *_: None
        self.sealed = 0
        self.ended = 0
        self.write = write
        self._key = key
        if key:
            write(key)

    def receive(self, data, now):
        if not self.open:
            size = len(self._key)
            assert self._key.startswith(data[:size])
            self._key, data = self._key[len(data) :], data[size:]
            if self._key:
                return
            self.open = True
            self.on_open(now)
        if data:
            self.on_data(xor(data), now)

    def receive_eof(self):
        self.ended += 1
        if not self.open:
            raise HandshakeError("the layer is not open")

    def seal(self, chunks):
        assert self.open
        self.sealed += 1
        return xor(b"".join(chunks))

    def finish(self):
        return b"bye" if self.open else b""


def xor(data):
    return bytes(byte ^ 0x55 for byte in data)


@pytest.mark.parametrize("piece", [1 << 30, 1])
@pytest.mark.parametrize("security", [noise, tls, plaintext])
@pytest.mark.parametrize("key", [b"", b"a word"])
def test_a_layer_below_carries_everything(security, key, piece):
    under = Under(key, key)
    link = Link((security,), (security,), carriers=under.carriers, run=False)
    link.piece = piece
    link.run()
    assert link.owner_a.upgraded == link.owner_b.upgraded == 1
    before = under.layers[0].sealed
    link.open()[0].write(b"hello")
    link.open()[0].write(b"world")
    assert link.a.wants_write
    link.run()
    assert [stream.unread for stream, _ in link.owner_b.streams] == [5, 5]
    assert under.layers[0].sealed == before + 1  # once per flush
    for connection in (link.a, link.b):
        assert not connection.wants_write and connection.data_to_send(link.now) == b""


def test_nothing_goes_through_a_layer_that_is_not_open():
    under = Under(b"a word", b"a word")
    link = Link(carriers=under.carriers, run=False)
    for connection in (link.a, link.b):
        assert connection.wants_write
        assert connection.data_to_send(link.now) == b"a word"
        assert not connection.wants_write  # the proposal waits
        assert connection.data_to_send(link.now) == b""
    link.a.receive(b"a word", link.now)
    assert link.a.wants_write and not link.b.wants_write
    under.layers[0].write(b"...")
    data = link.a.data_to_send(link.now)
    assert data.startswith(b"..." + xor(b"\x13/multistream/1.0.0\n"))  # the layer's own words first


def test_what_a_layer_says_when_it_fails_goes_out():
    under = Under(b"a word", b"a word")
    link = Link(carriers=under.carriers, run=False)
    link.b.data_to_send(link.now)
    under.layers[1].write(b"400 Bad Request")
    link.b.fail(HandshakeError("no HTTP"), link.now)
    assert link.b.wants_write
    assert link.b.data_to_send(link.now) == b"400 Bad Request"
    assert not link.b.wants_write


def test_why_the_connection_ends_goes_through_all_layers():
    under = Under()
    link = Link(carriers=under.carriers)
    link.a.fail(MuxerError("a broken rule", 2), link.now)
    link.run()
    assert link.b.muxer.peer_gone_away == 2


def test_the_peer_closes_before_the_layer_is_open():
    under = Under(b"a word", b"a word")
    link = Link(carriers=under.carriers, run=False)
    with pytest.raises(HandshakeError, match="the layer is not open"):
        link.a.receive_eof()
    link.b.receive(b"a word", link.now)
    with pytest.raises(HandshakeError, match="closed the connection during negotiation"):
        link.b.receive_eof()


# Whether it speaks at all.


@pytest.mark.parametrize("carried", [False, True])
def test_whether_the_peer_has_greeted(carried):
    under = Under()
    link = Link((tls,), (noise,), carriers=under.carriers if carried else (None, None), run=False)
    assert not link.a.greeted and not link.b.greeted
    with pytest.raises(NegotiationError):  # the words of TLS are no proposal
        link.b.receive(link.a.data_to_send(link.now), link.now)
    assert link.b.greeted and not link.a.greeted
    with pytest.raises(NegotiationError, match="supports none of"):
        link.a.receive(link.b.data_to_send(link.now), link.now)
    assert link.a.greeted


# The end that the peer tells.


def test_the_end_that_a_layer_is_told():
    under = Under()
    link = Link(carriers=under.carriers)
    assert not link.a.peer_ended
    under.layers[0].on_end(link.now)
    assert link.a.peer_ended and not link.b.peer_ended
    link.a.receive_eof()
    assert under.layers[0].ended == 0  # it is the one that knows
    link.b.receive_eof()
    assert under.layers[1].ended == 1


def test_the_end_that_a_layer_is_told_in_the_middle_of_a_sealed_message():
    under = Under()
    link = Link(carriers=under.carriers)
    link.open()[0].write(b"x")
    link.b.receive(link.a.data_to_send(link.now)[:-1], link.now)
    under.layers[1].on_end(link.now)
    with pytest.raises(HandshakeError, match="middle of a noise message"):
        link.b.receive_eof()


def test_the_end_that_the_secure_channel_is_told():
    link = Link((tls,), (tls,))
    link.a.finished = True
    link.a.take_leave()
    link.b.receive(link.a.data_to_send(link.now), link.now)
    assert link.b.peer_ended
    link.b.receive_eof()


# Last words.


@pytest.mark.parametrize(("security", "says"), [(noise, False), (plaintext, False), (tls, True)])
def test_last_words_of_the_secure_channel(security, says):
    link = Link((security,), (security,))
    assert not link.a.wants_write
    link.a.take_leave()
    link.a.finished = True
    assert link.a.wants_write is says
    data = link.a.data_to_send(link.now)
    assert bool(data) is says
    assert not link.a.wants_write and link.a.data_to_send(link.now) == b""
    if says:
        link.b.receive(data, link.now)
        assert link.b.peer_ended


@pytest.mark.parametrize("security", [noise, tls])
def test_last_words_of_the_layers(security):
    under = Under()
    link = Link((security,), (security,), carriers=under.carriers)
    under.layers[0].write(b"pong")
    link.a.take_leave()
    link.a.finished = True
    data = link.a.data_to_send(link.now)
    assert data.startswith(b"pong") and data.endswith(b"bye")
    inner = data[4:-3]
    assert bool(inner) is (security is tls)
    if inner:
        link.b.receive(inner, link.now)
        assert link.b.peer_ended
    assert not link.a.wants_write


@pytest.mark.parametrize("key", [b"", b"a word"])
@pytest.mark.parametrize("security", [noise, tls])
def test_last_words_during_the_upgrade(security, key):
    """Whoever has not been heard says nothing but what its lowest layer has to say."""
    under = Under(key, key)
    link = Link((security,), (security,), carriers=under.carriers, run=False)
    link.a.data_to_send(link.now)
    link.a.take_leave()
    link.a.finished = True
    assert link.a.data_to_send(link.now) == (b"" if key else b"bye")
    bare = Link((security,), (security,), run=False)
    bare.a.take_leave()
    bare.a.finished = True
    assert not bare.a.wants_write


def test_what_was_never_sent_is_no_last_word():
    link = Link((tls,), (tls,))
    link.open()[0].write(b"late")
    link.a.take_leave()
    link.a.finished = True
    link.b.receive(link.a.data_to_send(link.now), link.now)
    assert link.b.peer_ended and link.owner_b.streams == []


def test_a_connection_that_is_dropped_says_nothing():
    under = Under()
    link = Link((tls,), (tls,), carriers=under.carriers)
    link.a.take_leave()
    link.a.drop()
    assert not link.a.wants_write and link.a.data_to_send(link.now) == b""
    link.open(opener=link.b)[0].write(b"x")
    link.b.drop()
    assert not link.b.wants_write and link.b.data_to_send(link.now) == b""
