"""One connection: its streams, the ledger, and how it ends. How it begins is in test_upgrade."""

import pytest
from connection_pair import KEYS, Link
from node_pair import CRYPTO, LOCAL, REMOTE

from anyp2p_core.errors import (
    ConnectionLost,
    HandshakeError,
    LimitReached,
    LocalError,
    MuxerError,
    NegotiationError,
    RemoteError,
    TimedOut,
)
from anyp2p_core.muxer import RESOURCE_LIMIT
from anyp2p_core.negotiation import NEGOTIATION_FAILED
from anyp2p_core.quic_connection import QuicConnection


def test_repr_says_where_to_and_who():
    link = Link()
    assert repr(link.a) == f"<Connection 1 dialed {LOCAL} peer={KEYS[1].peer_id}>"
    assert repr(link.b) == f"<Connection 2 accepted {REMOTE} peer={KEYS[0].peer_id}>"


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


# What a transport may leave as it is.


def test_a_transport_that_has_no_words_of_its_own():
    link = Link(run=False)
    quic = QuicConnection(
        3,
        initiator=True,
        owner=link.owner_a,
        crypto=CRYPTO,
        local=LOCAL,
        remote=REMOTE,
        expected=None,
    )
    assert quic.greeted  # nobody gets that far without
    quic.drop()
    assert quic.finished
