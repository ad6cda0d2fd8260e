"""Lookups: they find the closest, and they end, whatever the others answer."""

from collections import Counter

import pytest
from core.kad.people import contact, peer, public
from core.kad.topology import (
    Topology,
    inventing,
    looping,
    refusing,
    silent,
    slow,
    useless,
)
from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from anyp2p_core.errors import LocalError
from anyp2p_core.kad.contacts import Contact
from anyp2p_core.kad.keys import key_of
from anyp2p_core.kad.query import Query, Reason, State, Walk

OWN = peer(0)
TARGET = key_of(b"target")


def by_distance(numbers):
    """Peers ordered by their distance to TARGET, closest first."""
    return sorted(map(peer, numbers), key=lambda one: key_of(bytes(one)) ^ TARGET)


def start(seeds, walk=None, now=0.0, **options):
    return Query(OWN, TARGET, [Contact(one) for one in seeds], now, walk, **options)


def asked(hops):
    return [hop.peer for hop in hops]


# One path, step by step.


def test_asks_the_closest_first_and_at_most_alpha():
    near = by_distance(range(1, 11))
    query = start(reversed(near), Walk(k=4, beta=4, alpha=2))
    assert asked(query.ask(0.0)) == near[:2]
    assert query.ask(0.0) == []
    query.answered(near[0], [], 1.0)
    assert asked(query.ask(1.0)) == near[2:3]
    assert query.waiting == near[1:3]


def test_an_answer_brings_closer_peers():
    near = by_distance(range(1, 11))
    query = start(near[8:], Walk(k=2, beta=2, alpha=1))
    assert asked(query.ask(0.0)) == [near[8]]
    query.answered(near[8], [Contact(near[0], (public(1),)), Contact(near[3])], 1.0)
    (hop,) = query.ask(1.0)
    assert (hop.peer, hop.told_by, hop.depth, hop.heard_at, hop.asked_at) == (
        near[0], near[8], 1, 1.0, 1.0,
    )  # fmt: skip
    assert hop.addresses == (public(1),)
    query.answered(near[0], [], 2.0)
    assert asked(query.ask(2.0)) == [near[3]]
    query.answered(near[3], [], 3.0)
    assert query.ask(3.0) == []
    assert query.done is Reason.CONVERGED
    assert asked(query.closest()) == [near[0], near[3]]
    assert [(hop.peer, hop.ended_at, hop.state) for hop in query.trace()] == [
        (near[8], 1.0, State.ANSWERED),
        (near[0], 2.0, State.ANSWERED),
        (near[3], 3.0, State.ANSWERED),
    ]


def test_it_starves_when_nobody_is_left():
    query = start([])
    assert query.ask(0.0) == []
    assert query.done is Reason.STARVED
    assert query.closest() == []
    query = start([peer(1), peer(2)])
    query.ask(0.0)
    query.failed(peer(1), 1.0)
    query.answered(peer(2), [], 1.0)
    assert query.ask(1.0) == []
    assert (query.done, asked(query.closest())) == (Reason.STARVED, [peer(2)])


def test_with_beta_the_rest_of_the_k_closest_is_asked_at_the_end():
    near = by_distance(range(1, 21))
    query = start(near[:6], Walk(k=5, beta=2, alpha=2))
    query.ask(0.0)
    for one in near[:2]:
        query.answered(one, [], 1.0)
    # The two closest have answered. The others are asked, and teach nothing any more.
    assert asked(query.ask(1.0)) == near[2:4]
    query.answered(near[2], [Contact(one) for one in near[6:]], 2.0)
    query.failed(near[3], 2.0)
    assert asked(query.ask(2.0)) == near[4:6]
    for one in near[4:6]:
        query.answered(one, [], 3.0)
    assert query.ask(3.0) == []
    assert (query.done, asked(query.closest())) == (
        Reason.CONVERGED, [*near[:3], *near[4:6]],
    )  # fmt: skip


def test_stragglers_that_do_not_matter_are_not_waited_for():
    near = by_distance(range(1, 21))
    query = start([near[10], near[11]], Walk(k=2, beta=2, alpha=4))
    query.ask(0.0)
    query.answered(near[10], [Contact(near[0]), Contact(near[1])], 1.0)
    query.ask(1.0)
    query.answered(near[0], [], 2.0)
    query.answered(near[1], [], 2.0)
    assert query.ask(2.0) == []
    assert (query.done, query.waiting) == (Reason.CONVERGED, [near[11]])
    # What it answers now is too late.
    query.answered(near[11], [Contact(near[2])], 3.0)
    assert query.ask(3.0) == [] and asked(query.closest()) == near[:2]


def test_alpha_does_not_keep_it_from_ending():
    near = by_distance(range(1, 21))
    query = start([near[0], near[9], near[10]], Walk(k=2, beta=1, alpha=2))
    query.ask(0.0)
    query.answered(near[0], [], 1.0)
    assert asked(query.ask(1.0)) == []  # near[9] is one of the two closest: it is waited for
    query.answered(near[9], [], 2.0)
    query.ask(2.0)
    assert query.done is Reason.CONVERGED


def test_answers_that_nobody_waits_for_are_ignored():
    near = by_distance(range(1, 11))
    query = start(near[:3], Walk(k=3, beta=3, alpha=1))
    query.answered(near[0], [Contact(near[5])], 0.0)
    query.failed(near[1], 0.0)
    assert asked(query.ask(0.0)) == [near[0]]
    query.failed(near[0], 1.0)
    query.answered(near[0], [Contact(near[6])], 2.0)
    query.answered(peer(999), [Contact(near[7])], 2.0)
    assert asked(query.ask(2.0)) == [near[1]]
    assert near[0] not in asked(query.closest())


def test_a_peer_that_failed_is_not_asked_again():
    near = by_distance(range(1, 11))
    query = start(near[:2], Walk(k=2, beta=2, alpha=1))
    query.ask(0.0)
    query.failed(near[0], 1.0)
    query.ask(1.0)
    query.answered(near[1], [Contact(near[0])], 2.0)
    assert query.ask(2.0) == []
    assert query.done is Reason.STARVED


def test_addresses_of_several_sources_are_joined():
    near = by_distance(range(1, 11))
    query = start(near[4:7], Walk(k=3, beta=3, alpha=3))
    query.ask(0.0)
    wrong = tuple(public(n) for n in range(40))
    query.answered(near[4], [Contact(near[9], wrong[:16])], 1.0)
    query.answered(near[5], [Contact(near[9], (public(99),)), Contact(near[9], wrong[:16])], 1.0)
    query.answered(near[6], [Contact(near[9], wrong[:16]), Contact(near[0], wrong[:1])], 1.0)
    query.answered(near[6], [], 1.0)
    query.ask(1.0)
    hop = next(hop for hop in query._hops.values() if hop.peer == near[9])
    assert hop.addresses == (*wrong[:16], public(99))
    # No source can bring more than 16, and there are at most 32.
    query = start(near[4:7], Walk(k=3, beta=3, alpha=3))
    query.ask(0.0)
    for one, first in zip(near[4:7], (0, 10, 20), strict=True):
        query.answered(one, [Contact(near[9], wrong[first : first + 20])], 1.0)
    hop = next(hop for hop in query._hops.values() if hop.peer == near[9])
    assert hop.addresses == (*wrong[:20], *wrong[20:26], *wrong[26:32])


# Time.


def test_row_81_silent_peers_are_given_up_and_the_deadline_holds():
    near = by_distance(range(1, 11))
    query = start(near[:4], Walk(alpha=2, timeout=25.0, peer_timeout=10.0))
    query.ask(0.1)
    assert query.next_timeout() == 10.1
    assert query.handle_timeout(10.0) == []
    assert query.handle_timeout(10.1) == near[:2]
    assert asked(query.ask(10.1)) == near[2:4]
    query.answered(near[2], [Contact(near[7])], 12.0)
    assert asked(query.ask(12.0)) == [near[7]]
    assert query.handle_timeout(20.1) == [near[3]]
    query.ask(20.1)
    assert query.next_timeout() == 22.0
    query.answered(near[7], [Contact(near[8])], 20.2)
    query.ask(20.2)
    assert query.next_timeout() == 25.0
    assert query.handle_timeout(25.0) == []
    assert query.done is Reason.TIMED_OUT
    assert query.ask(25.0) == [] and query.next_timeout() is None
    assert query.handle_timeout(99.0) == []
    assert asked(query.closest()) == sorted(
        (near[2], near[7]), key=lambda one: key_of(bytes(one)) ^ TARGET
    )


def test_the_deadline_without_anybody_waiting():
    query = start([peer(1)], Walk(timeout=5.0))
    assert query.next_timeout() == 5.0
    query.handle_timeout(5.0)
    assert query.done is Reason.TIMED_OUT


@pytest.mark.parametrize("reason", [Reason.STOPPED, Reason.CANCELLED])
def test_stopping(reason):
    query = start([peer(1), peer(2)], Walk(alpha=1))
    query.ask(0.0)
    query.stop(reason)
    query.stop(Reason.TIMED_OUT)
    assert query.done is reason
    assert query.ask(1.0) == []
    query.answered(peer(1), [contact(5)], 1.0)
    query.failed(peer(2), 1.0)
    assert len(query.trace()) == 1


@pytest.mark.parametrize(
    "wrong",
    [{"k": 0}, {"beta": 0}, {"beta": 21}, {"paths": 0}, {"paths": 11}, {"max_heard": 19},
     {"timeout": 0.0}, {"peer_timeout": -1.0}, {"timeout": float("nan")}, {"max_asked": 0},
     {"per_group": 0}],
)  # fmt: skip
def test_parameters_that_make_no_sense(wrong):
    with pytest.raises(LocalError):
        start([], Walk(**wrong))


# Limits.


def test_row_80_we_are_never_asked():
    query = start([OWN, peer(1)])
    assert asked(query.ask(0.0)) == [peer(1)]
    query.answered(peer(1), [Contact(OWN), contact(2)], 1.0)
    assert asked(query.ask(1.0)) == [peer(2)]


def test_row_78_no_more_than_40_peers_of_an_answer():
    taken = []

    def endless():
        for number in range(1000, 101_000):
            taken.append(number)
            yield contact(number)

    query = start([peer(1)])
    query.ask(0.0)
    query.answered(peer(1), endless(), 1.0)
    assert len(taken) <= 41
    assert len(query._hops) <= 41


def test_a_lookup_asks_no_more_than_so_many():
    query = start([peer(1)], Walk(k=2, beta=2, alpha=2, max_asked=9))
    number = 1
    for now in range(100):
        hops = query.ask(float(now))
        for hop in hops:
            closer = [contact(n) for n in range(number + 1, number + 30)]
            query.answered(hop.peer, closer, now + 0.5)
            number += 30
            # Only ever closer peers: it never converges.
        if query.done is not None:
            break
        query.asked and query.failed(query.asked[-1].peer, float(now))
    assert len(query.trace()) <= 9
    assert query.done is not None


def test_exhausted():
    near = by_distance(range(1, 200))
    query = start([near[-1]], Walk(k=2, beta=2, alpha=1, max_asked=5))
    for now in range(5):
        (hop,) = query.ask(float(now))
        query.answered(hop.peer, [Contact(near[100 - now * 10])], now + 0.5)
    assert query.ask(9.0) == []
    assert query.done is Reason.EXHAUSTED


def known(query):
    return [hop.peer for hop in query.candidates()]


def test_the_farthest_candidates_make_room():
    near = by_distance(range(1, 101))
    query = start(near[50:54], Walk(k=4, beta=4, alpha=4, max_heard=4))
    query.ask(0.0)
    query.answered(near[51], [Contact(one) for one in near[60:70]], 1.0)
    # Whoever was asked takes nobody's place; of the others there are four.
    assert known(query) == [*near[50:54], *near[60:64]]
    query.answered(near[52], [Contact(near[99]), Contact(near[1]), Contact(near[2])], 2.0)
    assert known(query) == [*near[1:3], *near[50:54], *near[60:62]]
    assert asked(query.ask(2.0)) == near[1:3]
    query.answered(near[1], [Contact(one) for one in near[3:10]], 2.0)
    assert known(query) == [*near[1:7], *near[50:54]]
    for _ in range(10):
        query.ask(3.0)
        for one in query.waiting:
            query.answered(one, [], 3.0)
    assert query.done is Reason.CONVERGED
    assert asked(query.closest()) == near[1:5]


def test_endless_closer_peers_take_no_more_memory_than_candidates_may():
    # The farthest of all was asked already: it must not keep the door open for the rest.
    near = by_distance(range(1, 2001))
    query = start(near[-1:], Walk(k=4, beta=4, alpha=1, max_heard=10, paths=1))
    ends = iter(range(len(near) - 41, 0, -40))
    while query.done is None:
        for hop in query.ask(0.0):
            end = next(ends, 0)
            query.answered(hop.peer, [Contact(one) for one in near[end : end + 40]], 1.0)
            assert len(query._hops) <= len(query.asked) + 10


def test_row_82_few_candidates_of_one_network():
    near = by_distance(range(1, 101))
    query = start(near[90:91], Walk(k=5, beta=5, alpha=5, per_group=2))
    query.ask(0.0)
    sybils = [Contact(one, (), (b"net",)) for one in near[10:20]]
    query.answered(near[90], [*reversed(sybils), Contact(near[50], (), (b"a", b"b"))], 1.0)
    # The two closest of the network stay, in whatever order they came.
    assert asked(query.ask(1.0)) == [*near[10:12], near[50]]
    query.answered(
        near[10], [Contact(near[1], (), (b"net",)), Contact(near[2], (), (b"net",))], 2.0
    )
    assert asked(query.ask(2.0)) == near[1:3]
    for one in (near[1], near[2], near[11], near[50]):
        query.answered(one, [], 3.0)
    query.ask(3.0)
    # All four were asked, but only two of the network count.
    assert asked(query.closest()) == [near[1], near[2], near[50], near[90]]


def test_a_failed_peer_makes_room_for_its_network():
    near = by_distance(range(1, 101))
    query = start(near[90:91], Walk(k=5, beta=5, alpha=5, per_group=1))
    query.ask(0.0)
    query.answered(near[90], [Contact(near[5], (), (b"net", b"v6"))], 1.0)
    query.ask(1.0)
    query.failed(near[5], 2.0)
    query = start(near[90:92], Walk(k=5, beta=5, alpha=5, per_group=1))
    query.ask(0.0)
    query.answered(near[90], [Contact(near[5], (), (b"net", b"v6"))], 1.0)
    query.ask(1.0)
    query.failed(near[5], 2.0)
    query.answered(near[91], [Contact(near[6], (), (b"net",))], 3.0)
    assert asked(query.ask(3.0)) == [near[6]]


def test_a_peer_of_two_networks_leaves_both():
    near = by_distance(range(1, 101))
    query = start(near[90:91], Walk(k=5, beta=5, alpha=1, per_group=1))
    query.ask(0.0)
    both = Contact(near[9], (), (b"4", b"6"))
    query.answered(
        near[90], [both, Contact(near[8], (), (b"4",)), Contact(near[7], (), (b"6",))], 1.0
    )
    assert asked(query.ask(1.0)) == [near[7]]
    assert near[9] not in query._hops and near[8] in query._hops
    query.answered(near[7], [Contact(near[6], (), (b"4", b"6"))], 2.0)
    assert asked(query.ask(2.0)) == [near[6]]
    assert near[8] not in query._hops and near[7] in query._hops


def test_row_82_ten_thousand_ids_of_one_network_near_the_target():
    topology = Topology(200, seed=3, per_group={})
    topology.groups = {one: (b"%d" % n,) for n, one in enumerate(topology.peers)}
    ground = sorted(map(peer, range(500_000, 510_000)), key=lambda p: key_of(bytes(p)) ^ TARGET)
    sybils = [Contact(one, (), (b"attacker",)) for one in ground[:200]]
    known = {one.peer for one in sybils}

    def attacking(topology, one, target):
        return 0.01, topology.random.sample(sybils, 40)

    for one in known:
        topology.behaviour[one] = attacking
    # A fifth of the honest peers has been made to believe in them.
    for one in topology.peers[:40]:
        topology.behaviour[one] = attacking
    query, _ = topology.lookup(topology.peers[-1], TARGET)
    found = asked(query.closest())
    assert len(found) == 20
    assert len([one for one in found if one in known]) <= 3


def test_a_region_is_asked_as_a_whole():
    near = by_distance(range(1, 41))
    region = key_of(bytes(near[29])) ^ TARGET
    query = start(near, Walk(k=5, beta=5, alpha=3), region=region)
    while query.done is None:
        for hop in query.ask(0.0):
            query.answered(hop.peer, [], 1.0)
    assert sorted(asked(query.trace())) == sorted(near[:30])
    # All of them, however small k is: the few honest ones may be the farthest.
    assert asked(query.closest()) == near[:30]


def test_whoever_fails_in_a_region_is_left_out_and_k_are_found_outside_of_it():
    near = by_distance(range(1, 41))
    region = key_of(bytes(near[2])) ^ TARGET
    query = start(near, Walk(k=5, beta=5, alpha=3), region=region)
    while query.done is None:
        for hop in query.ask(0.0):
            if hop.peer in near[:2]:
                query.failed(hop.peer, 1.0)
            else:
                query.answered(hop.peer, [], 1.0)
    assert asked(query.closest()) == near[2:7]


# Disjoint paths.


def test_paths_do_not_ask_the_same_peers():
    near = by_distance(range(1, 101))
    query = start(near[60:63], Walk(k=4, beta=4, alpha=3, paths=3))
    hops = query.ask(0.0)
    assert [(hop.peer, hop.path) for hop in hops] == list(zip(near[60:63], range(3), strict=True))
    closer = [Contact(one) for one in near[:5]]
    for one in near[60:63]:
        query.answered(one, closer, 1.0)
    hops = query.ask(1.0)
    assert [(hop.peer, hop.path) for hop in hops] == [(near[0], 0), (near[1], 1), (near[2], 2)]
    for one in near[:3]:
        query.answered(one, [], 2.0)
    for one in asked(query.ask(2.0)):
        query.failed(one, 3.0)
    while query.done is None:
        for one in asked(query.ask(3.0)):
            query.answered(one, [], 3.0)
    assert max(Counter(asked(query.trace())).values()) == 1
    assert asked(query.closest())[:3] == near[:3]


@pytest.mark.parametrize("honest_path", range(3))
def test_row_85_one_honest_path_is_enough(honest_path):
    topology = Topology(300, seed=honest_path)
    target = key_of(b"wanted")
    sybils = sorted(map(peer, range(900_000, 904_000)), key=lambda p: key_of(bytes(p)) ^ target)
    sybils = [Contact(one) for one in sybils[:60]]

    def steering(topology, one, target):
        return 0.01, sybils[:40]

    wrong = sybils[50:52]
    for one in sybils:
        topology.behaviour[one.peer] = steering
    honest = topology.contact(topology.closest(target, 300)[150])
    # Seeds are dealt to the paths by distance, and the honest one is the farthest.
    seeds = {0: [honest, *wrong], 1: [honest, *wrong], 2: [*wrong, honest]}[honest_path]
    truth = topology.closest(target, 6)
    fooled = Query(OWN, target, seeds, 0.0, Walk(alpha=3))
    topology.run(fooled)
    assert not set(truth) & set(asked(fooled.closest()))
    query = Query(OWN, target, seeds, 0.0, Walk(alpha=3, paths=3))
    topology.run(query)
    assert set(truth) <= set(asked(query.closest()))


# Whole networks.


@pytest.mark.parametrize("walk", [Walk(), Walk(beta=3), Walk(alpha=3), Walk(alpha=12, paths=4)])
def test_honest_networks_give_the_true_closest(walk):
    topology = Topology(300)
    for number in range(10):
        start_at, target = topology.peers[number], key_of(b"%d" % number)
        query, took = topology.lookup(start_at, target, walk)
        truth = [one for one in topology.closest(target, 21) if one != start_at][:20]
        assert asked(query.closest()) == truth
        assert query.done is Reason.CONVERGED
        assert took < 5.0
        assert len(query.trace()) < 100


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_row_81_it_always_ends_inside_its_deadline(data):
    count = data.draw(st.integers(100, 400))
    topology = Topology(count, seed=data.draw(st.integers(0, 50)))
    kinds = [silent, refusing, slow, useless, looping, inventing]
    bad = data.draw(st.integers(0, count - 1))
    for index, one in enumerate(topology.peers[:bad]):
        topology.behaviour[one] = kinds[(index * 7 + bad) % len(kinds)]
    walk = Walk(
        alpha=data.draw(st.integers(4, 10)),
        beta=data.draw(st.integers(1, 20)),
        paths=data.draw(st.integers(1, 4)),
        timeout=data.draw(st.sampled_from([1.0, 15.0, 60.0])),
    )
    start_at = topology.peers[-1]
    query, took = topology.lookup(start_at, key_of(b"%d" % count), walk)
    assert took <= walk.timeout
    assert query.done is not None
    people = asked(query.trace())
    assert len(people) == len(dict.fromkeys(people)) <= walk.max_asked
    assert start_at not in people
    if not bad and walk.timeout > 1:
        truth = topology.closest(query.target, 21)
        assert set(asked(query.closest())) == set([p for p in truth if p != start_at][:20])


@pytest.mark.parametrize("walk", [Walk(), Walk(alpha=12, paths=4)], ids=["one path", "four"])
def test_row_82_twenty_percent_of_sybils_in_three_networks_near_the_target(walk):
    found = 0
    for seed in range(10):
        topology = Topology(160, seed=seed)
        target = key_of(b"target %d" % seed)
        wanted = topology.closest(target, 1)[0]
        near = sorted(map(peer, range(700_000, 701_000)), key=lambda p: key_of(bytes(p)) ^ target)
        sybils = [Contact(one, (), (b"net %d" % (n % 3),)) for n, one in enumerate(near[:40])]
        topology.groups = {one.peer: one.groups for one in sybils}
        keys = {key_of(bytes(one.peer)): one for one in sybils}

        def lying(topology, one, target, sybils=sybils):
            return 0.01, topology.random.sample(sybils, 20)

        for key, one in keys.items():
            topology.behaviour[one.peer] = lying
            topology.by_key[key] = one.peer
            topology.key[one.peer] = key
        topology.keys = sorted(topology.by_key)
        for start_at in topology.peers[:20]:
            query, _ = topology.lookup(start_at, target, walk)
            found += start_at == wanted or wanted in asked(query.closest())
    assert found >= 198  # of 200


# Made once: hashing them is most of the work. A ninth of them has no IP group.
PEOPLE = [contact(n, *([b"%d" % (n % 9)] if n % 9 else [])) for n in range(150)]
NUMBERS = st.lists(st.integers(0, len(PEOPLE) - 1), max_size=20)


class QueryMachine(RuleBasedStateMachine):
    """Any order of answers, failures and waiting."""

    @initialize(
        seeds=NUMBERS,
        paths=st.integers(1, 3),
        beta=st.integers(1, 5),
        region=st.sampled_from([0, 2**250, 2**255]),
    )
    def begin(self, seeds, paths, beta, region):
        self.now = 0.0
        self.walk = Walk(
            k=5, beta=beta, alpha=4, paths=paths, max_asked=25, max_heard=5, per_group=2
        )
        contacts = [PEOPLE[n] for n in seeds]
        self.region = region
        self.query = Query(OWN, TARGET, contacts, 0.0, self.walk, region=region)
        self.asked = {}
        self.ended = {}

    @rule()
    def ask(self):
        was_done = self.query.done
        for hop in self.query.ask(self.now):
            assert was_done is None
            assert hop.peer not in self.asked and hop.peer != OWN
            self.asked[hop.peer] = self.now

    @precondition(lambda self: self.query.waiting)
    @rule(index=st.integers(0, 3), closer=NUMBERS)
    def answer(self, index, closer):
        one = self.query.waiting[index % len(self.query.waiting)]
        self.query.answered(one, [PEOPLE[n] for n in closer], self.now)
        self.ended[one] = True

    @precondition(lambda self: self.query.waiting)
    @rule(index=st.integers(0, 3))
    def fail(self, index):
        one = self.query.waiting[index % len(self.query.waiting)]
        self.query.failed(one, self.now)
        self.ended[one] = False

    @rule(number=st.integers(0, len(PEOPLE) - 2))
    def answer_of_a_stranger(self, number):
        one = PEOPLE[number].peer
        if one not in self.query.waiting:
            before = len(self.query._hops)
            self.query.answered(one, [PEOPLE[number + 1]], self.now)
            assert len(self.query._hops) == before

    @rule(seconds=st.sampled_from([0.1, 3.0, 10.0]))
    def wait(self, seconds):
        self.now += seconds
        for one in self.query.handle_timeout(self.now):
            assert self.asked[one] + self.walk.peer_timeout <= self.now
            self.ended[one] = False
        assert self.now < self.walk.timeout or self.query.done is not None

    @invariant()
    def holds(self):
        query, walk = self.query, self.walk
        waiting = query.waiting
        assert waiting == [one for one in self.asked if one not in self.ended]
        assert len(waiting) <= walk.alpha
        assert len(self.asked) <= walk.max_asked
        assert len(query._hops) <= len(self.asked) + walk.paths * walk.max_heard
        for path in query._paths:
            assert len(path._heard) <= walk.max_heard
            assert path.in_flight == sum(query._hops[one].path == path.index for one in waiting)
        closest = query.closest()
        inside = sum(self.ended[hop.peer] and hop.distance <= self.region for hop in query.asked
                     if hop.peer in self.ended)  # fmt: skip
        assert len(closest) <= max(walk.k, inside)
        distances = [hop.distance for hop in closest]
        assert distances == sorted(distances)
        assert all(self.ended[hop.peer] for hop in closest)
        due = query.next_timeout()
        if query.done is None:
            assert self.now < due <= walk.timeout
            assert all(due <= at + walk.peer_timeout for one, at in self.asked.items()
                       if one in waiting)  # fmt: skip
        else:
            assert due is None

    def teardown(self):
        if not hasattr(self, "query"):
            return
        # Whatever happened: answers that bring nothing new end it.
        for _ in range(100):
            self.ask()
            for one in self.query.waiting:
                self.query.answered(one, [], self.now)
        assert self.query.done is not None


TestQuery = QueryMachine.TestCase
TestQuery.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
