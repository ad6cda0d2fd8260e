import math
from ipaddress import ip_network

import pytest
from core.kad.people import peer

from anyp2p_core import LocalError, Multiaddr
from anyp2p_core.pubsub import score as module
from anyp2p_core.pubsub.score import PeerScore
from anyp2p_core.pubsub.score_params import PeerScoreParams, TopicScoreParams

A, B, C = peer(1), peer(2), peer(3)
T = b"t"


def make(*peers, topic=None, **params):
    topics = {} if topic is None else {"t": TopicScoreParams(**topic)}
    score = PeerScore(PeerScoreParams(topics=topics, **params))
    for one in peers or (A,):
        score.connected(one, ())
    return score


def ip(text):
    return [Multiaddr(f"/{'ip6' if ':' in text else 'ip4'}/{text}/tcp/1")]


def test_who_is_not_known_has_none():
    score = make(topic={"first_deliveries_weight": 1.0}, behaviour_weight=-1.0)
    score.penalize(B, 5)
    score.graft(B, T, 0.0)
    score.prune(B, T)
    score.invalid(B, T)
    score.delivered(B, T, b"m", 0.0)
    score.disconnected(B, 0.0)
    assert score.score(B) == score.snapshot(B).score == 0.0 and len(score) == 1


def test_topics_that_are_not_judged():
    score = make(topic={"first_deliveries_weight": 1.0})
    score.delivered(A, b"other", b"m", 0.0)
    score.duplicate(A, b"other", b"m", 0.0)
    score.invalid(A, b"other")
    score.decay(1.0)
    assert score.score(A) == 0.0 and score.records == 0


def test_p1_time_in_the_mesh():
    score = make(
        topic={
            "weight": 0.5, "time_in_mesh_weight": 2.0, "time_in_mesh_quantum": 10.0,
            "time_in_mesh_cap": 5.0,
        }
    )  # fmt: skip
    score.graft(A, T, 100.0)
    for now, expected in ((109.0, 0), (119.0, 1), (120.0, 2), (1000.0, 5)):
        score.decay(now)
        assert score.score(A) == expected
    score.prune(A, T)
    assert score.score(A) == 0.0
    score.graft(A, T, 1000.0)
    assert score.score(A) == 0.0


def test_p2_first_deliveries():
    score = make(
        A,
        B,
        topic={
            "first_deliveries_weight": 3.0, "first_deliveries_decay": 0.5,
            "first_deliveries_cap": 4.0,
        },
    )  # fmt: skip
    for number in range(9):
        score.delivered(A, T, bytes([number]), 0.0)
        score.duplicate(B, T, bytes([number]), 0.0)
    assert score.snapshot(A).score == 12.0 and score.score(B) == 0.0
    score.decay(1.0)
    assert score.score(A) == 6.0
    for now in range(20):
        score.decay(float(now))
    assert score.score(A) == 0.0


OWED = {
    "mesh_deliveries_weight": -1.0, "mesh_deliveries_threshold": 4.0, "mesh_deliveries_cap": 6.0,
    "mesh_deliveries_decay": 0.5, "mesh_deliveries_window": 1.0, "mesh_deliveries_activation": 10.0,
    "mesh_failure_weight": -2.0, "mesh_failure_decay": 0.5,
}  # fmt: skip


def test_p3_what_is_owed_in_the_mesh():
    score = make(A, B, topic=OWED)
    score.graft(A, T, 0.0)
    score.decay(10.0)
    assert score.score(A) == 0.0  # not yet
    score.decay(10.1)
    assert score.score(A) == -16.0 and score.score(B) == 0.0
    score.delivered(A, T, b"1", 11.0)
    assert score.snapshot(A).score == -9.0
    for number in range(9):
        score.delivered(A, T, bytes([number]) * 2, 11.0)
    assert score.snapshot(A).score == 0.0
    score.decay(12.0)
    assert score.score(A) == -1.0  # the cap of 6 halved: 3 of 4


def test_p3_near_first_deliveries_count():
    score = make(A, B, C, topic=OWED)
    for one in (A, B, C):
        score.graft(one, T, 0.0)
    score.decay(11.0)
    score.validating(b"m", 11.0)
    score.duplicate(B, T, b"m", 11.0)
    score.duplicate(B, T, b"m", 11.0)
    score.duplicate(A, T, b"m", 11.0)
    score.delivered(A, T, b"m", 50.0)  # B came while it was judged
    score.duplicate(C, T, b"m", 51.0)
    score.duplicate(C, T, b"m", 51.0)
    assert [score.snapshot(one).score for one in (A, B, C)] == [-9.0] * 3
    score.delivered(A, T, b"n", 60.0)
    score.duplicate(C, T, b"n", 61.1)  # too late
    score.delivered(A, T, b"n", 62.0)
    assert score.snapshot(C).score == -9.0
    gone = peer(9)
    score.validating(b"o", 70.0)
    score.duplicate(gone, T, b"o", 70.0)
    score.delivered(A, T, b"o", 70.0)
    score.duplicate(gone, T, b"n", 60.0)
    assert score.score(gone) == 0.0


def test_p3_deliveries_outside_of_the_mesh_do_not_count():
    score = make(topic=OWED)
    score.delivered(A, T, b"m", 0.0)
    score.graft(A, T, 0.0)
    score.decay(11.0)
    assert score.score(A) == -16.0


def test_p3b_deficits_stay_when_the_mesh_is_left():
    score = make(topic=OWED)
    score.graft(A, T, 0.0)
    score.prune(A, T)
    assert score.score(A) == 0.0  # not long enough in it
    score.graft(A, T, 0.0)
    score.decay(11.0)
    score.prune(A, T)
    score.prune(A, T)
    assert score.score(A) == -32.0
    score.decay(12.0)
    assert score.score(A) == -16.0


INVALID = {"invalid_weight": -1.0, "invalid_decay": 0.5, "weight": 2.0}


def test_p4_invalid_messages():
    score = make(A, B, C, topic=INVALID)
    score.invalid(A, T)
    assert score.score(A) == -2.0
    score.validating(b"m", 0.0)
    score.duplicate(B, T, b"m", 0.0)
    score.duplicate(A, T, b"m", 0.0)
    score.rejected(A, T, b"m", 0.0)
    score.rejected(A, T, b"m", 0.0)
    score.duplicate(C, T, b"m", 1.0)
    assert [score.score(one) for one in (A, B, C)] == [-8.0, -2.0, -2.0]
    score.decay(1.0)
    assert score.score(A) == -2.0


def test_nobody_is_blamed_for_what_is_ignored():
    score = make(A, B, topic={**INVALID, "first_deliveries_weight": 1.0})
    score.validating(b"m", 0.0)
    score.duplicate(B, T, b"m", 0.0)
    score.ignored(b"m", 0.0)
    score.duplicate(A, T, b"m", 0.0)
    score.rejected(A, T, b"m", 0.0)
    score.ignored(b"m", 0.0)
    assert score.score(A) == score.score(B) == 0.0
    score.rejected(A, T, b"n", 0.0)
    score.ignored(b"n", 0.0)
    score.duplicate(B, T, b"n", 0.0)
    assert score.score(B) == -2.0


def test_a_duplicate_of_what_nobody_remembers():
    score = make(topic=INVALID)
    score.duplicate(A, T, b"m", 0.0)
    assert score.score(A) == 0.0 and score.records == 0


def test_p5_the_application():
    score = make(app=lambda one: 3.0 if one == A else -1.0, app_weight=2.0)
    assert score.score(A) == 6.0 and score.snapshot(A).app == 3.0
    score.connected(B, ())
    assert score.score(B) == -2.0


def test_p6_peers_at_one_address():
    score = make(ip_weight=-1.0, ip_threshold=2)
    peers = [peer(number) for number in range(10, 15)]
    for number, one in enumerate(peers):
        score.connected(one, ip("9.9.9.9"))
        surplus = max(number - 1, 0)
        assert [score.score(other) for other in peers[: number + 1]] == (
            [-(surplus**2)] * (number + 1)
        )
    score.connected(peers[0], ip("9.9.9.8"))
    assert score.score(peers[0]) == 0.0 and score.score(peers[1]) == -4.0
    score.connected(peers[0], ip("9.9.9.8"))
    # Who has gone with a bad score is still counted; who had a good one is not.
    score.disconnected(peers[1], 0.0)
    assert score.score(peers[2]) == -4.0
    score.decay(4000.0)
    assert score.score(peers[2]) == -1.0 and len(score) == 5


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("1.2.3.4", "1.2.3.4", True),
        ("1.2.3.4", "1.2.3.5", False),
        ("127.0.0.1", "127.0.0.1", False),
        ("::1", "::1", False),
        ("2001:db8::1", "2001:db8::1", True),
        ("2001:db8::1", "2001:db8::2", True),  # one network
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:1.2.3.4", "1.2.3.4", True),
        ("::ffff:127.0.0.1", "127.0.0.1", False),
    ],
)
def test_p6_which_addresses_are_one(one, other, together):
    score = make(ip_weight=-1.0, ip_threshold=1)
    score.connected(A, ip(one))
    score.connected(B, ip(other))
    assert (score.score(B) < 0) is together


def test_p6_what_is_not_counted():
    score = make(ip_weight=-1.0, ip_threshold=1, ip_allowed=(ip_network("10.0.0.0/8"),))
    for one in (A, B):
        score.connected(one, [*ip("10.1.1.1"), None, Multiaddr("/dns/x.org/tcp/1")])
    assert score.score(A) == 0.0
    for one in (A, B):
        score.connected(one, ip("11.1.1.1"))
    assert score.score(A) == -1.0
    for one in (A, B):
        score.connected(one, ip("2001:db8::1"))
    assert score.score(A) == -2.0


def test_p7_broken_rules():
    score = make(behaviour_weight=-2.0, behaviour_threshold=3.0, behaviour_decay=0.5)
    score.penalize(A, 3)
    assert score.score(A) == 0.0
    score.penalize(A, 2)
    assert score.score(A) == -8.0 and score.snapshot(A).behaviour == 5.0
    score.decay(1.0)
    assert score.score(A) == 0.0
    for now in range(20):
        score.decay(float(now))
    assert score.snapshot(A).behaviour == 0.0


def test_the_cap_of_topics():
    topic = {"first_deliveries_weight": 1.0, "first_deliveries_cap": 100.0}
    score = make(topic=topic, topic_cap=5.0, app=lambda one: 1.0)
    for number in range(9):
        score.delivered(A, T, bytes([number]), 0.0)
    snapshot = score.snapshot(A)
    assert snapshot.score == 6.0 and snapshot.topics == {"t": 9.0}


def test_who_goes_with_a_good_score_is_forgotten():
    score = make(topic={"first_deliveries_weight": 1.0, **INVALID})
    score.delivered(A, T, b"m", 0.0)
    score.disconnected(A, 0.0)
    assert len(score) == 0
    score.connected(A, ())
    assert score.score(A) == 0.0


def test_who_goes_with_a_bad_one_is_not():
    score = make(topic={"first_deliveries_weight": 1.0, **OWED}, retain=100.0)
    score.delivered(A, T, b"m", 0.0)
    score.graft(A, T, 0.0)
    score.decay(11.0)
    score.disconnected(A, 11.0)
    assert score.score(A) == -32.0  # the deficit became permanent, the delivery is gone
    score.penalize(A, 1)
    score.decay(50.0)  # nothing decays meanwhile
    assert score.snapshot(A).topics == {"t": -32.0}
    score.connected(A, ())
    assert score.score(A) == -32.0
    score.disconnected(A, 60.0)
    score.decay(160.1)
    assert len(score) == 0 and score.score(A) == 0.0


def test_nothing_is_retained_if_so_wanted():
    score = make(behaviour_weight=-1.0, retain=0.0)
    score.penalize(A, 1)
    score.disconnected(A, 0.0)
    assert len(score) == 0


def test_tables_are_bounded(monkeypatch):
    monkeypatch.setattr(module, "MAX_RETAINED", 3)
    monkeypatch.setattr(module, "MAX_RECORDS", 4)
    score = make(topic=INVALID, behaviour_weight=-1.0)
    for number in range(10):
        one = peer(number + 100)
        score.connected(one, ip("1.1.1.1"))
        score.penalize(one, 1)
        score.disconnected(one, 0.0)
        score.validating(bytes([number]), 0.0)
    assert len(score) == 4 and score.records == 4
    assert score.score(peer(109)) == -1.0 and score.score(peer(100)) == 0.0


def test_records_have_their_time():
    score = make(topic=INVALID, seen_ttl=10.0)
    score.validating(b"a", 0.0)
    score.validating(b"b", 5.0)
    score.decay(10.1)
    assert score.records == 1
    score.decay(20.0)
    assert score.records == 0


def test_a_score_is_computed_when_something_got_worse():
    calls = []
    score = make(app=lambda one: calls.append(one) or 0.0, behaviour_weight=-1.0)
    assert score.score(A) == score.score(A) == 0.0 and len(calls) == 1
    score.penalize(A, 1)
    assert score.score(A) == -1.0 and len(calls) == 2
    score.decay(1.0)
    assert score.score(A) > -1.0 and len(calls) == 3


def test_parameters_can_be_changed():
    params = PeerScoreParams(topics={"t": TopicScoreParams(first_deliveries_weight=1.0, **OWED)})
    score = PeerScore(params)
    score.connected(A, ())
    score.connected(B, ())
    score.graft(A, T, 0.0)
    for number in range(9):
        score.delivered(A, T, bytes([number]), 0.0)
    assert score.snapshot(A).score == 9.0
    lower = TopicScoreParams(
        first_deliveries_weight=2.0, first_deliveries_cap=2.0, mesh_deliveries_cap=1.0
    )
    score.set_topic(T, lower)
    assert score.score(A) == 4.0
    score.set_topic(b"new", lower)
    score.delivered(B, b"new", b"m", 0.0)
    assert score.snapshot(B).score == 2.0
    with pytest.raises(LocalError):
        score.set_topic(T, TopicScoreParams(weight=math.nan))
    assert score.score(A) == 4.0
    assert params.topics["t"].first_deliveries_weight == 1.0 and "new" not in params.topics


def test_parameters_are_checked():
    with pytest.raises(LocalError):
        PeerScore(PeerScoreParams(topic_cap=-1.0))
