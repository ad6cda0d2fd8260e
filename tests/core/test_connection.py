"""One connection: the layers joined, without a node."""

import pytest
from node_pair import CRYPTO, LOCAL, REMOTE, make_key

from anyp2p.providers.entropy import OsEntropy
from anyp2p_core.connection import FLUSH, YAMUX, Connection
from anyp2p_core.errors import (
    ConnectionLost,
    HandshakeError,
    LimitReached,
    LocalError,
    MuxerError,
    NegotiationError,
    PeerIdMismatch,
    RemoteError,
    TimedOut,
)
from anyp2p_core.limits import Limits
from anyp2p_core.multistream import encode
from anyp2p_core.negotiation import NEGOTIATION_FAILED
from anyp2p_core.plaintext import PlaintextSecurity
from anyp2p_core.security import NoiseSecurity
from anyp2p_core.stream import RESOURCE_LIMIT
from anyp2p_core.timers import Timers

KEYS = (make_key(), make_key())


def noise(key):
    return NoiseSecurity(key, CRYPTO, OsEntropy())


def plaintext(key):
    return PlaintextSecurity(key, CRYPTO)


class Owner:
    """What a connection needs, and a record of what it said."""

    def __init__(self, security, **limits):
        self.limits = Limits(**limits)
        self.security = {one.protocol: one for one in security}
        self.timers = Timers()
        self.unread = 0
        self.upgraded = 0
        self.sheds = 0
        self.touched = 0
        self.streams = []
        self.protocols = ["/app"]
        self.call_at = self.timers.call_at
        self.cancel = self.timers.cancel

    def supports(self, protocol):
        return protocol in self.protocols

    def touch(self, connection):
        self.touched += 1

    def shed(self, now):
        self.sheds += 1

    def on_upgraded(self, connection, now):
        assert connection.muxer is not None
        self.upgraded += 1
        self.upgraded_at = now

    def on_stream(self, connection, stream, protocol, now):
        self.streams.append((stream, protocol))


class Link:
    """Two connections; ``a`` dialed ``b``."""

    def __init__(self, ours=(noise,), theirs=(noise,), *, expected=KEYS[1], run=True, **limits):
        self.now = 1.0
        self.piece = 1 << 30
        self.owner_a = Owner([make(KEYS[0]) for make in ours], **limits)
        self.owner_b = Owner([make(KEYS[1]) for make in theirs], **limits)
        self.a = Connection(
            1,
            initiator=True,
            owner=self.owner_a,
            local=REMOTE,
            remote=LOCAL,
            expected=expected.peer_id if expected else None,
            now=self.now,
        )
        self.b = Connection(
            2,
            initiator=False,
            owner=self.owner_b,
            local=LOCAL,
            remote=REMOTE,
            expected=None,
            now=self.now,
        )
        if run:
            self.run()

    def run(self):
        while self.a.wants_write or self.b.wants_write:
            for here, there in ((self.a, self.b), (self.b, self.a)):
                data = here.data_to_send(self.now)
                for pos in range(0, len(data), self.piece):
                    there.receive(data[pos : pos + self.piece], self.now)

    def open(self, *protocols, opener=None, **options):
        """Open a stream by ``a``; what became of it is in the list."""
        told = []
        stream = (opener or self.a).open_stream(
            protocols or ("/app",),
            lambda stream, protocol, now: told.append(protocol),
            lambda error, now: told.append(error),
            self.now,
            **options,
        )
        return stream, told

    def wait(self, seconds):
        self.now += seconds
        for owner in (self.owner_a, self.owner_b):
            owner.timers.run(self.now)
        self.run()

    @property
    def timers(self):
        return self.owner_a.timers.reasons() + self.owner_b.timers.reasons()


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


def test_repr_says_where_to_and_who():
    link = Link()
    assert repr(link.a) == f"<Connection 1 dialed {LOCAL} peer={KEYS[1].peer_id}>"
    assert repr(link.b) == f"<Connection 2 accepted {REMOTE} peer={KEYS[0].peer_id}>"


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


@pytest.mark.parametrize("security", [noise, plaintext])
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


# Streams.


def test_streams_in_both_directions():
    link = Link()
    for opener, owner in ((link.a, link.owner_b), (link.b, link.owner_a)):
        stream, told = link.open(opener=opener)
        assert told == ["/app"]
        stream.write(b"hello")
        link.run()
        (accepted, protocol) = owner.streams[0]
        assert protocol == "/app" and accepted.unread == 5
    assert link.timers == ["negotiate streams"] * 2
    link.wait(10)
    assert link.timers == []


def test_the_best_protocol_that_the_peer_supports():
    link = Link()
    link.owner_b.protocols = ["/c", "/b"]
    _, told = link.open("/a", "/b", "/c")
    assert told == []
    link.run()
    assert told == ["/b"] and link.owner_b.streams[0][1] == "/b"


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


def test_streams_are_refused_before_the_upgrade_and_when_closing():
    link = Link(run=False)
    with pytest.raises(LocalError, match="still negotiating"):
        link.open()
    link.run()
    link.a.closing = True
    with pytest.raises(LocalError, match="closing"):
        link.open()


def test_streams_are_refused_once_the_peer_goes_away():
    link = Link()
    link.b.muxer.go_away()
    link.run()
    assert not link.a.usable
    with pytest.raises(LocalError, match="closing"):
        link.open()


@pytest.mark.parametrize("protocols", [(), ("app",), ("/ok", "not ok"), "/app", ("/a\n",)])
def test_what_cannot_be_proposed_opens_nothing(protocols):
    link = Link()
    with pytest.raises(LocalError):
        link.a.open_stream(protocols, None, None, link.now)
    assert not link.a.muxer.streams and not link.a.wants_write
    assert link.timers == []


def test_a_connection_that_closes_refuses_streams_of_the_peer():
    link = Link()
    link.b.closing = True
    stream, _ = link.open()
    codes = []
    stream.on_reset = lambda code, now: codes.append(code)
    link.run()
    assert codes == [RESOURCE_LIMIT]
    assert link.owner_b.streams == []


def test_limit_max_negotiating_streams():
    link = Link(max_negotiating_streams=3)
    link.owner_b.protocols = []
    silent = [link.a.muxer.open(link.now) for _ in range(4)]
    codes = []
    for stream in silent:
        stream.on_reset = lambda code, now: codes.append(code)
    link.run()
    assert codes == [RESOURCE_LIMIT] and len(link.b.muxer.streams) == 3
    silent[0].reset()  # which makes room for one
    for stream in (link.a.muxer.open(link.now), link.a.muxer.open(link.now)):
        stream.on_reset = lambda code, now: codes.append(code)
    link.run()
    assert codes == [RESOURCE_LIMIT] * 2 and len(link.b.muxer.streams) == 3


def test_limit_max_outbound_streams():
    link = Link(max_outbound_streams=2)
    link.open()
    link.open()
    with pytest.raises(LimitReached, match="max_outbound_streams"):
        link.open()


@pytest.mark.parametrize("optimistic", [True, False])
def test_limit_negotiation_timeout_for_our_streams(optimistic):
    link = Link(negotiation_timeout=4.0)
    stream, told = link.open(optimistic=optimistic)
    before = [] if not optimistic else ["/app"]
    link.owner_a.timers.run(4.9)
    assert told == before
    link.owner_a.timers.run(5.0)
    assert told[:-1] == before and isinstance(told[-1], TimedOut)
    assert stream.is_reset
    assert link.owner_a.touched and link.timers == []


def test_limit_negotiation_timeout_for_streams_of_the_peer():
    link = Link(negotiation_timeout=4.0)
    stream = link.a.muxer.open(link.now)
    codes = []
    stream.on_reset = lambda code, now: codes.append(code)
    link.run()
    link.wait(3.9)
    assert codes == []
    touched = link.owner_b.touched
    link.wait(0.1)
    assert codes == [NEGOTIATION_FAILED]
    assert link.owner_b.touched == touched + 1  # else the reset would wait for another reason
    assert link.timers == []


def test_one_timer_serves_all_negotiations():
    link = Link(negotiation_timeout=10.0)
    failed = []
    for n in range(5):
        stream = link.a.open_stream(
            ("/app",),
            lambda *_: None,
            lambda error, now, n=n: failed.append((n, now)),
            link.now,
        )
        if n == 2:
            stream.reset()  # nobody hears of it
        if n == 3:  # this one is answered
            link.run()
        assert link.owner_a.timers.reasons() == ["negotiate streams"]
        link.now += 1.0
        link.owner_a.timers.run(link.now)
    silent, _ = link.open()
    assert failed == []
    link.owner_a.timers.run(15.9)
    assert failed == [(4, 15.9)]
    assert link.owner_a.timers.next_timeout() == 16.0
    link.owner_a.timers.run(16.0)
    assert silent.is_reset and len(link.owner_a.timers) == 0


def test_row_143_streams_that_are_reset_at_once_do_not_pile_up():
    link = Link(max_outbound_streams=10)
    for _ in range(1000):
        link.open()[0].reset()
    assert len(link.timers) == 1
    assert 0 < len(link.a._proposing) <= 20
    link.wait(10)
    assert link.timers == [] and not link.a._proposing
    link.open()[0].reset()
    link.a.lost(None, link.now)
    assert link.timers == [] and not link.a._proposing


def test_a_negotiation_that_ends_the_connection_while_others_are_late():
    link = Link()
    told = []

    def end(error, now):
        told.append(error)
        link.a.lost(None, now)

    for _ in range(3):
        link.a.open_stream(("/a", "/b"), lambda *_: None, end, link.now)
    link.owner_a.timers.run(11.0)
    assert isinstance(told[0], TimedOut)
    assert [type(error) for error in told[1:]] == [NegotiationError] * 2
    assert link.timers == []


def test_a_failure_that_opens_the_next_stream_keeps_the_timer():
    link = Link()
    failed = []

    def again(error, now):
        failed.append(now)
        link.a.open_stream(("/app",), lambda *_: None, again, now)

    link.a.open_stream(("/app",), lambda *_: None, again, link.now)
    for when in (11.0, 21.0, 31.0):
        link.owner_a.timers.run(when)
    assert failed == [11.0, 21.0, 31.0]
    assert link.owner_a.timers.reasons() == ["negotiate streams"]


# Ends.


def test_a_broken_rule_is_told_to_the_peer():
    link = Link()
    stream, _ = link.open()
    link.run()
    resets = []
    stream.on_reset = lambda code, now: resets.append(link.a.error)
    link.a.fail(MuxerError("a broken rule", 1), link.now)
    assert isinstance(link.a.error, ConnectionLost) and "a broken rule" in str(link.a.error)
    assert link.a.error.__cause__ is link.a.reason
    assert resets == [link.a.error]  # known before the streams hear of it
    assert not link.a.usable
    link.run()
    assert link.b.muxer.peer_gone_away == 1
    link.b.receive_eof()
    link.b.lost(None, link.now)
    assert isinstance(link.b.reason, MuxerError)
    assert "the peer ended the session with code 0x1" in str(link.b.reason)
    assert link.timers == []


def test_other_errors_are_not():
    link = Link()
    link.a.fail(HandshakeError("tampered"), link.now)
    assert not link.a.wants_write
    assert str(link.a.error).endswith("ended: tampered")


def test_a_session_that_the_peer_ends_with_code_0_is_in_order():
    link = Link()
    link.b.muxer.go_away(0)
    link.run()
    link.a.lost(None, link.now)
    assert link.a.reason is None
    assert str(link.a.error).endswith("was closed")


def test_the_first_reason_stays():
    link = Link()
    link.a.lost(RemoteError("first"), link.now)
    error = link.a.error
    link.a.lost(RemoteError("second"), link.now)
    link.a.lost(None, link.now)
    assert link.a.error is error and str(link.a.reason) == "first"


def test_lost_during_the_upgrade():
    link = Link(run=False)
    link.a.lost(None, link.now)
    assert str(link.a.error) == f"the connection to {LOCAL} was closed"
    assert link.a.unsent() == 0


def test_nothing_is_sent_once_it_is_finished():
    link = Link(run=False)
    assert link.a.wants_write
    link.a.finished = True
    assert not link.a.wants_write


def test_unsent_is_what_the_streams_still_hold():
    link = Link()
    assert link.a.unsent() == 0
    stream, _ = link.open()
    assert link.a.unsent() == stream.unsent > 0
    link.run()
    assert link.a.unsent() == 0
    window = stream.send_window
    assert stream.write(bytes(262144)) == 262144
    link.run()
    assert link.a.unsent() == 262144 - window
    stream.reset()
    assert link.a.unsent() == 0


# The ledger.


def test_limit_max_unread_total():
    link = Link(max_unread_total=100)
    stream, _ = link.open()
    stream.write(bytes(101))
    link.run()
    accepted, _ = link.owner_b.streams[0]
    link.b.on_unread(100, link.now)
    assert (link.owner_b.unread, link.owner_b.sheds) == (100, 0)
    link.b.on_unread(1, link.now)
    assert (link.owner_b.unread, link.owner_b.sheds) == (101, 1)
    link.b.on_read(accepted, 101, link.now)
    assert link.owner_b.unread == accepted.unread == 0
