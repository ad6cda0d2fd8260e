"""The dial budget: so many per second, and each address now and then."""

from core.kad.people import public

from anyp2p_core.dial_budget import MAX_PER_PEER, MAX_TARGETS, DialBudget, is_counted
from anyp2p_core.multiaddr import Multiaddr

LAN = Multiaddr("/ip4/192.168.1.1/tcp/1")


def budget(rate=10.0, burst=5, interval=10.0):
    return DialBudget(rate=rate, burst=burst, interval=interval)


def test_row_139_a_burst_then_so_many_per_second():
    tokens = budget()
    assert [tokens.wait(0.0) for _ in range(5)] == [0.0] * 5
    assert abs(tokens.wait(0.0) - 0.1) < 1e-9
    dialed = sum(not tokens.wait(now / 100) for now in range(1, 1001))
    assert 99 <= dialed <= 101
    # Sleeping for long saves up no more than the burst, and a clock that stands still gives none.
    assert sum(not tokens.wait(5000.0) for _ in range(50)) == 5
    assert tokens.wait(4000.0) > 0


def test_row_139_one_target_once_per_interval():
    tokens = budget()
    one, other = public(1, 4001), public(1, 4002)
    assert tokens.allowed([one, other], 0.0) == [one, other]  # one IP address: one dial
    assert tokens.allowed([one], 5.0) == []
    assert tokens.allowed([other, public(2)], 9.0) == [public(2)]
    assert tokens.allowed([other], 10.0) == [other]


def test_names_are_targets_too_whatever_their_case():
    tokens = budget()
    name, loud = Multiaddr("/dns4/example.com/tcp/1"), Multiaddr("/dns4/EXAMPLE.com/tcp/2")
    assert tokens.allowed([name], 0.0) == [name]
    assert tokens.allowed([loud], 1.0) == []


def test_this_network_is_not_counted():
    tokens = budget()
    for now in range(5):
        assert tokens.allowed([LAN], float(now)) == [LAN]
        assert tokens.allowed([], float(now), known=[LAN]) == [LAN]
    assert not is_counted([LAN]) and not is_counted([])
    assert is_counted([LAN, public(1)])


def test_row_139_one_peer_brings_few_targets():
    tokens = budget()
    allowed = tokens.allowed([LAN, *map(public, range(16)), public(0, 9)], 0.0)
    assert allowed == [LAN, *map(public, range(MAX_PER_PEER)), public(0, 9)]
    # Those that were left out were not dialed, and may be for somebody else.
    assert tokens.allowed([public(10)], 0.0) == [public(10)]


def test_what_is_known_is_dialed_together_or_not_at_all():
    tokens = budget()
    known = [public(n) for n in range(6)]
    assert tokens.allowed([public(7)], 0.0, known=known) == known
    assert tokens.allowed([public(8), public(0)], 1.0, known=[public(9)]) == [public(9), public(8)]
    assert tokens.allowed([public(10)], 2.0, known=[public(11), public(3)]) == []


def test_the_memory_is_bounded():
    tokens = budget()
    for number in range(MAX_TARGETS + 100):
        tokens.allowed([public(number)], 0.0)
    assert len(tokens._targets._buckets) == MAX_TARGETS
