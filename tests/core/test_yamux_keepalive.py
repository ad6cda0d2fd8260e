import pytest

from anyp2p_core.errors import TimedOut
from anyp2p_core.yamux_frame import PING, SYN, decode
from anyp2p_core.yamux_keepalive import Keepalive

NEVER = float("-inf")


def sent(now: float = 0.0) -> Keepalive:
    keepalive = Keepalive(30.0, 10.0)
    keepalive.sent(now)
    return keepalive


def test_the_first_ping_is_queued_and_has_no_deadline_before_it_is_sent() -> None:
    keepalive = Keepalive(30.0, 10.0)
    assert keepalive.queued
    assert decode(keepalive.request()) == (PING | SYN, 0, 0)
    assert keepalive.due is None
    assert not keepalive.handle_timeout(1e9, NEVER)
    keepalive.sent(5.0)
    assert not keepalive.queued
    assert keepalive.due == 15.0


def test_a_pong_gives_the_round_trip_time_and_the_next_ping_follows_the_interval() -> None:
    keepalive = sent()
    keepalive.pong(0, 0.25)
    assert keepalive.rtt == 0.25
    assert keepalive.due == 30.0
    assert not keepalive.handle_timeout(29.9, NEVER)
    assert keepalive.handle_timeout(30.0, NEVER)
    assert keepalive.queued
    assert decode(keepalive.request()) == (PING | SYN, 0, 1)
    assert keepalive.due == 40.0
    keepalive.sent(30.5)
    assert keepalive.due == 40.0  # counted from when it was due, not from when it could be sent
    keepalive.pong(1, 31.25)
    assert keepalive.rtt == 0.5  # halfway between 0.25 and 0.75
    assert keepalive.due == 60.0


def test_pongs_that_answer_nothing_are_ignored() -> None:
    keepalive = Keepalive(30.0, 10.0)
    keepalive.pong(0, 0.0)  # queued, but not sent
    assert keepalive.rtt is None
    keepalive.sent(0.0)
    keepalive.pong(7, 1.0)
    assert keepalive.rtt is None
    keepalive.pong(0, 2.0)
    keepalive.pong(0, 3.0)
    assert keepalive.rtt == 2.0


def test_silence_ends_the_session() -> None:
    keepalive = sent()
    assert not keepalive.handle_timeout(9.9, NEVER)
    with pytest.raises(TimedOut, match="10 s"):
        keepalive.handle_timeout(10.0, NEVER)


def test_a_ping_that_cannot_be_sent_ends_the_session_too() -> None:
    keepalive = sent()
    keepalive.pong(0, 0.1)
    assert keepalive.handle_timeout(30.0, NEVER)
    with pytest.raises(TimedOut):
        keepalive.handle_timeout(40.0, 25.0)


def test_a_peer_that_still_sends_is_given_more_time() -> None:
    keepalive = sent()
    assert not keepalive.handle_timeout(10.0, 8.0)
    assert keepalive.due == 18.0
    assert not keepalive.handle_timeout(18.0, 17.0)
    keepalive.pong(0, 26.0)
    assert keepalive.rtt == 26.0
    assert keepalive.due == 30.0
