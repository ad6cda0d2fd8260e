"""anyp2p_core.dial_history"""

import pytest
from hypothesis import given, settings, strategies as st
from stranger import KEYS

from anyp2p_core import Multiaddr
from anyp2p_core.dial_history import (
    ALLOWED,
    BLOCKED,
    MAX_ENTRIES,
    PROBING,
    TTL,
    BlackHole,
    DialHistory,
)

PEER, OTHER, _ = (key.peer_id for key in KEYS)
ADDRESS = Multiaddr("/ip4/1.2.3.4/tcp/1")
UDP4 = Multiaddr("/ip4/1.2.3.4/udp/1/quic-v1")
UDP6 = Multiaddr("/ip6/2600::1/udp/1/quic-v1")
TCP6 = Multiaddr("/ip6/2600::1/tcp/1")


def allowed(history, *addresses, peer=PEER, now=1e6):
    return history.sift(peer, addresses, now)[0]


# Backoff


def test_failures_are_spared_longer_each_time():
    history, now, pauses = DialHistory(), 0.0, []
    for _ in range(22):
        history.failed(PEER, ADDRESS, now)
        pauses.append(history.spared_until(PEER, ADDRESS) - now)
        now += pauses[-1]
    assert pauses[:5] == [5.0, 6.0, 9.0, 14.0, 21.0]
    assert pauses[17] == 5.0 + 17**2 and pauses[18:] == [300.0] * 4


def test_an_address_is_spared_and_then_tried():
    history = DialHistory()
    assert history.sift(PEER, [ADDRESS], 0.0) == ([ADDRESS], [])
    history.failed(PEER, ADDRESS, 0.0)
    found, ((address, reason),) = history.sift(PEER, [ADDRESS, UDP4], 2.0)
    assert found == [UDP4] and address == ADDRESS
    assert reason == "it failed lately; spared for 3 s more"
    assert history.sift(PEER, [ADDRESS], 5.0) == ([ADDRESS], [])
    for who in (OTHER, None):  # of them nothing is known
        assert history.sift(who, [ADDRESS], 2.0) == ([ADDRESS], [])


def test_a_success_is_forgiveness():
    history = DialHistory()
    for who in (PEER, None, OTHER):
        history.failed(who, ADDRESS, 0.0)
    history.succeeded(PEER, ADDRESS)
    assert len(history) == 1
    assert [history.spared_until(who, ADDRESS) for who in (PEER, None, OTHER)] == [0.0, 0.0, 5.0]
    history.failed(PEER, ADDRESS, 100.0)
    assert history.spared_until(PEER, ADDRESS) == 105.0
    history.succeeded(PEER, UDP4)  # of which nothing was known


def test_failures_are_forgotten_in_time():
    history = DialHistory()
    for now in (0.0, 1.0):
        history.failed(PEER, ADDRESS, now)
    history.failed(PEER, UDP4, 2.0)
    assert len(history) == 2
    history.failed(PEER, ADDRESS, TTL + 1.0)  # starts again
    assert history.spared_until(PEER, ADDRESS) == TTL + 6.0
    history.failed(OTHER, ADDRESS, TTL + 2.0)
    assert len(history) == 2


def test_row_138_a_table_that_gossip_cannot_grow():
    history = DialHistory()
    for number in range(MAX_ENTRIES + 100):
        ip = ".".join(map(str, number.to_bytes(4)))
        history.failed(PEER, Multiaddr(f"/ip4/{ip}/tcp/1"), number * 1e-3)
    assert len(history) == MAX_ENTRIES
    assert history.spared_until(PEER, Multiaddr("/ip4/0.0.0.99/tcp/1")) == 0.0
    assert history.spared_until(PEER, Multiaddr("/ip4/0.0.0.100/tcp/1")) > 0.0


# Black holes


def test_a_hundred_failures_block():
    hole = BlackHole()
    for _ in range(99):
        hole.record(False)
        assert hole.request() == PROBING
    hole.record(False)
    assert hole.state == BLOCKED
    assert [hole.request() for _ in range(200)] == ([BLOCKED] * 99 + [PROBING]) * 2


def test_a_few_successes_allow():
    hole = BlackHole()
    for number in range(100):
        hole.record(number < 5)
    assert hole.state == ALLOWED and hole.request() == ALLOWED
    hole.record(False)  # the first success leaves the window
    assert hole.state == BLOCKED and hole.request() == BLOCKED
    hole.record(False)  # the probe
    assert hole.state == BLOCKED
    hole.record(True)
    assert hole.state == PROBING
    for _ in range(99):
        hole.record(False)
    assert hole.state == PROBING  # everything before is forgotten
    hole.record(False)
    assert hole.state == BLOCKED


def test_the_probe_is_counted_from_the_block_on():
    hole = BlackHole(window=10, least=1)
    for _ in range(2):
        for _ in range(10):
            hole.record(False)
        assert [hole.request() for _ in range(10)] == [BLOCKED] * 9 + [PROBING]
        for _ in range(5):
            hole.request()
        hole.record(True)


def test_too_few_successes_do_not():
    hole = BlackHole()
    for number in range(100):
        hole.record(number < 4)
    assert hole.state == BLOCKED


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=60), st.integers(1, 10), st.integers(1, 4))
def test_the_counter_is_right(results, window, least):
    hole = BlackHole(window=window, least=least)
    seen = []
    for result in results:
        blocked = hole.state == BLOCKED
        hole.record(result)
        seen = [] if blocked and result else [*seen, result][-window:]
        if len(seen) < window:
            assert hole.state == PROBING
        else:
            assert hole.state == (ALLOWED if sum(seen) >= least else BLOCKED)


def fail(history, address, times=100):
    for number in range(times):
        history.failed(OTHER, address, number * 1e-6)


def test_udp_and_ip6_are_counted_apart():
    history = DialHistory()
    fail(history, UDP4)
    assert (history.udp.state, history.ip6.state) == (BLOCKED, PROBING)
    history = DialHistory()
    fail(history, TCP6)
    assert (history.udp.state, history.ip6.state) == (PROBING, BLOCKED)
    history = DialHistory()
    fail(history, UDP6)
    assert (history.udp.state, history.ip6.state) == (BLOCKED, BLOCKED)


def test_what_is_blocked_is_left_out_and_probed_now_and_then():
    history = DialHistory()
    fail(history, UDP4)
    found, spared = history.sift(PEER, [ADDRESS, UDP4, TCP6, UDP6], 1e6)
    assert found == [ADDRESS, TCP6, UDP6]  # IPv6 is being probed
    assert spared == [(UDP4, "UDP does not get through from here")]
    fail(history, TCP6)
    two = Multiaddr("/ip4/1.2.3.5/udp/1/quic-v1")
    counts = [len(allowed(history, ADDRESS, UDP4, two)) for _ in range(99)]
    assert counts == [1] * 98 + [3]  # one dial in a hundred, all its addresses
    assert allowed(history, ADDRESS, UDP4) == [ADDRESS]
    assert allowed(history, TCP6, UDP6) == []
    _, spared = history.sift(PEER, [TCP6], 1e6)
    assert spared == [(TCP6, "IPv6 does not get through from here")]
    history.succeeded(PEER, UDP4)
    assert allowed(history, UDP4, UDP6, TCP6) == [UDP4, UDP6]


@pytest.mark.parametrize(
    "text",
    [
        "/ip4/10.0.0.1/udp/1/quic-v1",
        "/ip6/fd00::1/tcp/1",
        "/ip6/::1/udp/1/quic-v1",
        "/ip6zone/eth0/ip6/fe80::1/tcp/1",
        "/ip4/1.2.3.4/tcp/1",
        "/dns6/a.example/tcp/1",
    ],
)
def test_only_public_addresses_show_a_black_hole(text):
    history = DialHistory()
    fail(history, Multiaddr(text), 200)
    assert (history.udp.state, history.ip6.state) == (PROBING, PROBING)
    fail(history, UDP6)
    assert allowed(history, Multiaddr(text))
