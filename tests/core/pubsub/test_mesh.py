import pytest
from core.kad.people import peer
from core.pubsub.net import Choice
from hypothesis import given, settings, strategies as st

from anyp2p_core.pubsub.config import GossipConfig
from anyp2p_core.pubsub.mesh import excess, median
from anyp2p_core.pubsub.peers import Peer

CONFIG = GossipConfig()


def make(outbound):
    found = []
    for number, is_outbound in enumerate(outbound):
        one = Peer(peer(number), direct=False)
        one.outbound = is_outbound
        found.append(one)
    return found


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 3)), min_size=6, max_size=30),
    st.integers(0, 100),
)
def test_who_is_pruned(peers, seed):
    made = make(one for one, _ in peers)
    scores = {one: score for one, (_, score) in zip(made, peers, strict=True)}
    leaving = excess(list(made), scores.__getitem__, CONFIG, Choice(seed))
    staying = [one for one in made if one not in leaving]
    assert len(staying) == CONFIG.d and len(leaving) == len(made) - CONFIG.d
    assert len(set(map(id, leaving))) == len(leaving)
    available = sum(one.outbound for one in made)
    assert sum(one.outbound for one in staying) >= min(CONFIG.d_out, available)
    # Of those with the best scores, at most d_out give way to peers that we dialed.
    best = sorted(scores.values(), reverse=True)[CONFIG.d_score - 1]
    better = [one for one in made if scores[one] > best]
    assert sum(one in leaving for one in better) == 0


def test_who_stays_without_scores_is_random():
    made = make([False] * 12)
    kept = {
        tuple(one.id for one in excess(list(made), lambda _: 0.0, CONFIG, Choice(seed)))
        for seed in range(10)
    }
    assert len(kept) == 10


@pytest.mark.parametrize(
    ("scores", "middle"), [([1.0], 1.0), ([3.0, 1.0, 2.0], 2.0), ([4.0, 1.0, 3.0, 2.0], 3.0)]
)
def test_the_median(scores, middle):
    made = make([False] * len(scores))
    table = dict(zip(made, scores, strict=True))
    assert median(made, table.__getitem__) == middle
