"""What can be proved of peer scores, and what was found wrong with a published set of numbers.

Properties: https://arxiv.org/abs/2212.05197, restated
    1  worse behaviour never raises a score
    2  who has earned nothing in any topic, and done harm in one, has a negative score
    3  good deeds never lower a score
    4  what a peer owes in one topic cannot be paid for with another
"""

import pytest
from core.kad.people import peer
from hypothesis import assume, find, given, settings, strategies as st
from hypothesis.errors import NoSuchExample

from anyp2p_core import LocalError
from anyp2p_core.pubsub.presets import ethereum, filecoin_scores, plain_score
from anyp2p_core.pubsub.score import PeerScore, PeerStats, TopicStats
from anyp2p_core.pubsub.score_params import PeerScoreParams, TopicScoreParams, decay

WHO = peer(1)
QUICK = settings(deadline=None, max_examples=120)


def old_topic(weight, first, cap, owed, threshold, activation, invalid):
    """A topic of Ethereum as it was, with deliveries owed."""
    return TopicScoreParams(
        weight=weight,
        time_in_mesh_weight=0.03333,
        time_in_mesh_quantum=12.0,
        time_in_mesh_cap=300.0,
        first_deliveries_weight=first,
        first_deliveries_decay=decay(20 * 384),
        first_deliveries_cap=cap,
        mesh_deliveries_weight=-owed,
        mesh_deliveries_decay=decay(5 * 384),
        mesh_deliveries_cap=139.0,
        mesh_deliveries_threshold=threshold,
        mesh_deliveries_window=2.0,
        mesh_deliveries_activation=activation,
        mesh_failure_weight=-owed,
        mesh_failure_decay=decay(5 * 384),
        invalid_weight=-invalid,
        invalid_decay=decay(50 * 384),
    )


OLD_ETHEREUM = {
    "beacon_block": old_topic(0.5, 1.0, 23.0, 0.717, 1.0, 384.0, 140.4475),
    "beacon_aggregate_and_proof": old_topic(0.5, 0.5, 23.0, 0.5, 1.0, 192.0, 140.4475),
    "beacon_attestation_0": old_topic(0.25, 0.336, 23.0, 0.336, 4.0, 204.0, 34.55),
    "sync_committee_0": old_topic(0.4, 0.5, 23.0, 0.5, 2.0, 192.0, 70.22),
}
FILECOIN = filecoin_scores(blocks="blocks", messages="messages", beacons=["drand"])

number = st.floats(0, 100, allow_nan=False)
positive = st.floats(0.01, 100, allow_nan=False)


@st.composite
def topics(draw):
    threshold = draw(st.floats(0.5, 50))
    return TopicScoreParams(
        weight=draw(st.just(0.0) | st.floats(0.001, 3)),
        time_in_mesh_weight=draw(st.sampled_from([0.0, 0.01, 1.0])),
        time_in_mesh_quantum=draw(positive),
        time_in_mesh_cap=draw(positive),
        first_deliveries_weight=draw(number),
        first_deliveries_cap=draw(positive),
        mesh_deliveries_weight=-draw(st.sampled_from([0.0, 0.5, 50.0])),
        mesh_deliveries_threshold=threshold,
        mesh_deliveries_cap=threshold + draw(number),
        mesh_failure_weight=-draw(number),
        invalid_weight=-draw(number),
    )


@st.composite
def sets(draw, *, tolerant=False):
    """Sets of numbers that can be built; ``tolerant``: also unfair ones, by their own word."""
    names = ("a", "b", "c")[: draw(st.integers(1, 3))]
    params = PeerScoreParams(
        topics={name: draw(topics()) for name in names},
        topic_cap=draw(st.sampled_from([0.0, 5.0, 500.0])),
        ip_weight=-draw(number),
        ip_threshold=draw(st.integers(1, 5)),
        behaviour_weight=-draw(number),
        behaviour_threshold=draw(number),
        tolerate=names if tolerant else (),
    )
    try:
        params.check()
    except LocalError:
        assume(False)
    return params


@st.composite
def counters(draw, params):
    stats = PeerStats()
    for name, topic in params.topics.items():
        one = stats.topics[name.encode()] = TopicStats()
        one.in_mesh = draw(st.booleans())
        one.active = one.in_mesh and draw(st.booleans())
        one.time_in_mesh = draw(st.floats(0, 10_000))
        one.first_deliveries = draw(st.floats(0, 1)) * topic.first_deliveries_cap
        one.mesh_deliveries = draw(st.floats(0, 1)) * topic.mesh_deliveries_cap
        one.mesh_failures = draw(number)
        one.invalid = draw(number)
    stats.behaviour = draw(number)
    stats.ips = ("1.2.3.4",)
    return stats


def judge(params, stats, together=1):
    score = PeerScore(params)
    score._peers[WHO] = stats
    score._ips["1.2.3.4"] = dict.fromkeys(map(peer, range(together)))
    return score.snapshot(WHO).score


@QUICK
@given(st.data(), sets(tolerant=True))
def test_worse_behaviour_never_raises_a_score(data, params):
    stats = data.draw(counters(params))
    before = judge(params, stats)
    name = data.draw(st.sampled_from(list(stats.topics)))
    topic = stats.topics[name]
    what = data.draw(st.sampled_from(["invalid", "failures", "silence", "behaviour", "ip"]))
    more = data.draw(positive)
    together = 1
    if what == "invalid":
        topic.invalid += more
    elif what == "failures":
        topic.mesh_failures += more
    elif what == "silence":
        topic.mesh_deliveries = max(topic.mesh_deliveries - more, 0.0)
    elif what == "behaviour":
        stats.behaviour += more
    else:
        together = 30
    assert judge(params, stats, together) <= before


@QUICK
@given(st.data(), sets(tolerant=True))
def test_good_deeds_never_lower_a_score(data, params):
    stats = data.draw(counters(params))
    before = judge(params, stats)
    name = data.draw(st.sampled_from(list(stats.topics)))
    topic = stats.topics[name]
    what = data.draw(st.sampled_from(["first", "time", "mesh"]))
    if what == "first":
        topic.first_deliveries += data.draw(positive)
    elif what == "time":
        topic.time_in_mesh += data.draw(positive)
    else:
        topic.mesh_deliveries += data.draw(positive)
    assert judge(params, stats) >= before


@QUICK
@given(st.data(), sets(tolerant=True))
def test_who_does_harm_and_earns_nothing_is_negative(data, params):
    stats = data.draw(counters(params))
    for topic in stats.topics.values():
        topic.first_deliveries = topic.time_in_mesh = 0.0
    score = judge(params, stats)
    assert score <= 0
    parts = [
        PeerScore._topic_score(one, params.topics[name.decode()])
        for name, one in stats.topics.items()
    ]
    assert all(part <= 0 for part in parts)
    if min(parts) < 0:
        assert score < 0


def silent(params, name):
    """The score of a peer that sits in one mesh for ever, delivers nothing there, and is perfect
    in all other topics."""
    stats = PeerStats()
    for other, topic in params.topics.items():
        one = stats.topics[other.encode()] = TopicStats()
        one.in_mesh = one.active = True
        one.time_in_mesh = 1e9
        if other != name:
            one.first_deliveries = topic.first_deliveries_cap
            one.mesh_deliveries = topic.mesh_deliveries_cap
    return judge(params, stats)


def owes(params):
    """Topics in which deliveries are wanted."""
    return [name for name, one in params.topics.items() if one.mesh_deliveries_weight * one.weight]


@QUICK
@given(sets())
def test_no_set_can_be_built_in_which_silence_is_paid_for(params):
    for name in owes(params):
        assert silent(params, name) < 0


@QUICK
@given(sets(tolerant=True))
def test_the_search_for_what_can_be_paid_for_is_exact(params):
    found = params.paid_for()
    for name in owes(params):
        assert (silent(params, name) >= 0) == (name in found)


def scenarios(params):
    """What a peer can do: free choice of deeds in all topics, silence in one."""
    return st.tuples(
        st.sampled_from(owes(params) or list(params.topics)),
        st.dictionaries(st.sampled_from(list(params.topics)), st.floats(0, 1)),
    )


def gets_away(params, scenario):
    """Whether a peer that owes a topic everything has a good score."""
    name, deeds = scenario
    if name not in owes(params):
        return False
    stats = PeerStats()
    for other, topic in params.topics.items():
        share = 0.0 if other == name else deeds.get(other, 0.0)
        one = stats.topics[other.encode()] = TopicStats()
        one.in_mesh = one.active = True
        one.time_in_mesh = 3600.0
        one.first_deliveries = share * topic.first_deliveries_cap
        one.mesh_deliveries = share * topic.mesh_deliveries_cap
    return judge(params, stats) >= 0


def test_the_flaw_of_the_old_ethereum_set_is_found_again():
    """CVE-2022-47547."""
    params = PeerScoreParams(topics=OLD_ETHEREUM, tolerate=tuple(OLD_ETHEREUM))
    name, _ = find(
        scenarios(params),
        lambda scenario: gets_away(params, scenario),
        settings=settings(deadline=None, max_examples=500, database=None),
    )
    assert name in params.paid_for()
    assert set(params.paid_for()) == set(OLD_ETHEREUM)
    with pytest.raises(LocalError, match="never delivers in beacon_block can have"):
        PeerScore(PeerScoreParams(topics=OLD_ETHEREUM))


@pytest.mark.parametrize(
    "params",
    [
        FILECOIN,
        ethereum(topics=[f"/eth2/0/{name}/ssz_snappy" for name in OLD_ETHEREUM]).score,
        plain_score(["a", "b"]),
    ],
    ids=["filecoin", "ethereum", "plain"],
)
def test_the_sets_that_are_ready_made_have_no_such_flaw(params):
    params.check()
    assert params.paid_for() == {}
    with pytest.raises(NoSuchExample):
        find(
            scenarios(params),
            lambda scenario: gets_away(params, scenario),
            settings=settings(deadline=None, max_examples=100, database=None),
        )
    # Harm is not for sale either: whatever was earned, a few invalid messages are too many.
    for name, topic in params.topics.items():
        stats = PeerStats()
        for other, one in params.topics.items():
            best = stats.topics[other.encode()] = TopicStats()
            best.in_mesh = True
            best.time_in_mesh = 1e9
            best.first_deliveries = one.first_deliveries_cap
        assert judge(params, stats) > 0
        stats.topics[name.encode()].invalid = 3.0
        assert judge(params, stats) < 0 and topic.invalid_weight < 0
