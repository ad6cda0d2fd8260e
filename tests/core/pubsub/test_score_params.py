import math

import pytest
from hypothesis import given, settings, strategies as st

from anyp2p_core import LocalError
from anyp2p_core.pubsub.score_params import PeerScoreParams, Thresholds, TopicScoreParams, decay

BAD = [float("nan"), float("inf"), float("-inf"), "1", None]


@pytest.mark.parametrize(("seconds", "interval"), [(60, 1), (3600, 12), (10, 10)])
def test_decay(seconds, interval):
    factor = decay(seconds, interval=interval)
    assert math.isclose(factor ** (seconds // interval), 0.01)


@pytest.mark.parametrize("arguments", [(0,), (-1,), (5, 10), (5, 0)])
def test_decays_that_make_no_sense(arguments):
    seconds, *rest = arguments
    with pytest.raises(LocalError):
        decay(seconds, interval=rest[0] if rest else 1.0)
    with pytest.raises(LocalError):
        decay(60, to_zero=1.0)


@pytest.mark.parametrize("name", TopicScoreParams.__slots__)
@pytest.mark.parametrize("value", BAD)
def test_topics_are_made_of_numbers(name, value):
    used = {
        "time_in_mesh_weight": 1.0, "first_deliveries_weight": 1.0, "mesh_deliveries_weight": -1.0,
        "mesh_failure_weight": -1.0, "invalid_weight": -1.0,
    }  # fmt: skip
    with pytest.raises((LocalError, TypeError)):
        TopicScoreParams(**{**used, name: value}).check("t")


@pytest.mark.parametrize(
    "change",
    [
        {"weight": -1},
        {"time_in_mesh_weight": -1},
        {"time_in_mesh_quantum": 0},
        {"time_in_mesh_weight": 1, "time_in_mesh_cap": 0},
        {"first_deliveries_weight": -1},
        {"first_deliveries_weight": 1, "first_deliveries_decay": 0},
        {"first_deliveries_weight": 1, "first_deliveries_decay": 1},
        {"first_deliveries_decay": 1},
        {"first_deliveries_weight": 1, "first_deliveries_cap": 0},
        {"mesh_deliveries_weight": 1},
        {"mesh_deliveries_window": -1},
        {"mesh_deliveries_weight": -1, "mesh_deliveries_decay": 0},
        {"mesh_deliveries_weight": -1, "mesh_deliveries_threshold": 0},
        {"mesh_deliveries_weight": -1, "mesh_deliveries_cap": 0},
        {"mesh_deliveries_weight": -1, "mesh_deliveries_cap": 1},
        {"mesh_deliveries_weight": -1, "mesh_deliveries_activation": 0.5},
        {"mesh_failure_weight": 1},
        {"mesh_failure_weight": -1, "mesh_failure_decay": 0},
        {"invalid_weight": 1},
        {"invalid_weight": -1, "invalid_decay": 1},
    ],
)
def test_topics_that_make_no_sense(change):
    with pytest.raises(LocalError, match="score of topic t: "):
        PeerScoreParams(topics={"t": TopicScoreParams(**change)}).check()


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"first_deliveries_decay": 0},
        {"mesh_failure_decay": 0, "invalid_decay": 0, "mesh_deliveries_decay": 0},
        {"time_in_mesh_weight": 1, "first_deliveries_weight": 1, "invalid_weight": -1},
        {"mesh_deliveries_weight": -1, "mesh_failure_weight": -1},
    ],
)
def test_topics_that_do(change):
    PeerScoreParams(topics={"t": TopicScoreParams(**change)}).check()


@pytest.mark.parametrize(
    "change",
    [
        *({name: value} for value in BAD for name in ("topic_cap", "app_weight", "ip_weight")),
        *({name: value} for value in BAD for name in ("decay_interval", "retain", "seen_ttl")),
        {"topic_cap": -1},
        {"app_weight": -1},
        {"ip_weight": 1},
        {"ip_weight": -1, "ip_threshold": 0},
        {"behaviour_weight": 1},
        {"behaviour_weight": -1, "behaviour_decay": 0},
        {"behaviour_decay": 1},
        {"behaviour_threshold": -1},
        {"decay_interval": 0.9},
        {"decay_to_zero": 0},
        {"decay_to_zero": 1},
        {"retain": -1},
        {"seen_ttl": -1},
    ],
)
def test_scores_that_make_no_sense(change):
    with pytest.raises(LocalError, match="score: "):
        PeerScoreParams(**change).check()


@pytest.mark.parametrize("name", Thresholds.__slots__)
@pytest.mark.parametrize("value", BAD)
def test_thresholds_are_numbers(name, value):
    with pytest.raises(LocalError):
        Thresholds(**{name: value}).check()


@pytest.mark.parametrize(
    "change",
    [
        {"gossip": 1},
        {"gossip": -10, "publish": -5, "graylist": -20},
        {"gossip": -10, "publish": -20, "graylist": -15},
        {"accept_px": -1},
        {"opportunistic_graft": -1},
    ],
)
def test_thresholds_descend(change):
    with pytest.raises(LocalError, match="thresholds"):
        Thresholds(**change).check()


def test_good_thresholds():
    Thresholds().check()
    Thresholds(gossip=-10, publish=-50, graylist=-80, accept_px=10, opportunistic_graft=20).check()


OWED = TopicScoreParams(mesh_deliveries_weight=-1.0, mesh_deliveries_threshold=4.0)
PAYING = TopicScoreParams(first_deliveries_weight=1.0, first_deliveries_cap=15.0)


def test_what_can_be_bought():
    params = PeerScoreParams(topics={"owed": OWED, "paying": PAYING})
    assert params.most == 15.0 and OWED.silent == -16.0
    assert params.paid_for() == {}
    params.check()
    rich = TopicScoreParams(first_deliveries_weight=1.0, first_deliveries_cap=16.0)
    params = PeerScoreParams(topics={"owed": OWED, "paying": rich})
    assert params.paid_for() == {"owed": 0.0}
    with pytest.raises(LocalError, match="never delivers in owed can have 0"):
        params.check()
    PeerScoreParams(topics={"owed": OWED, "paying": rich}, tolerate=("owed",)).check()


def test_a_cap_does_not_make_silence_free():
    rich = TopicScoreParams(first_deliveries_weight=1.0, first_deliveries_cap=100.0)
    params = PeerScoreParams(topics={"owed": OWED, "rich": rich}, topic_cap=10.0)
    assert params.most == 10.0
    # The cap comes after the sum, so that it does not help.
    assert params.paid_for() == {"owed": 10.0}


def test_time_in_the_mesh_pays_for_silence_too():
    sitting = TopicScoreParams(
        mesh_deliveries_weight=-1.0,
        mesh_deliveries_threshold=4.0,
        time_in_mesh_weight=1.0,
        time_in_mesh_cap=20.0,
    )
    assert PeerScoreParams(topics={"t": sitting}).paid_for() == {"t": 4.0}


@settings(deadline=None, max_examples=50)
@given(st.floats(0, 100), st.floats(0.1, 100), st.floats(0.001, 3), st.floats(0.1, 5))
def test_no_topic_pays_for_itself(first, cap, weight, threshold):
    topic = TopicScoreParams(
        weight=weight,
        first_deliveries_weight=first,
        first_deliveries_cap=cap,
        mesh_deliveries_weight=-1.0,
        mesh_deliveries_threshold=threshold,
    )
    assert PeerScoreParams(topics={"t": topic}).paid_for() == {}
