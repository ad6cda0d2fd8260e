import pytest

from anyp2p_core import LocalError
from anyp2p_core.pubsub.config import FloodConfig, GossipConfig, PubSubConfig
from anyp2p_core.pubsub.gater import GaterParams
from anyp2p_core.pubsub.rpc import WireLimits
from anyp2p_core.pubsub.score_params import PeerScoreParams, Thresholds

NAN = float("nan")
COUNTS = (
    "d", "d_lo", "d_score", "d_out", "d_lazy", "backoff_slack", "graft_flood",
    "opportunistic_peers", "history_gossip", "gossip_retransmission", "max_ihave_messages",
    "max_ihave_length", "idontwant_threshold", "max_idontwant_messages", "max_idontwant_length",
    "idontwant_ttl", "max_unwanted", "prune_peers",
)  # fmt: skip
MORE = (
    "prune_backoff", "unsubscribe_backoff", "max_backoff", "max_backoffs", "opportunistic_ticks",
    "fanout_ttl", "history_length", "max_history", "iwant_followup", "iwant_bytes",
    "direct_ticks", "px_pending", "px_connectors", "px_interval",
)  # fmt: skip
COMMON = (
    "max_rpc", "max_held", "max_topics_per_peer", "max_topics", "seen_ttl", "max_seen",
    "bad_signatures_burst", "bad_signatures_rate", "max_validating", "validation_timeout",
    "max_queue_bytes", "max_queue_count", "open_attempts", "open_delay", "max_open_delay",
    "open_forget", "heartbeat", "heartbeat_delay",
)  # fmt: skip


def test_the_defaults():
    config = GossipConfig()
    config.check()
    FloodConfig().check()
    assert (config.d, config.d_lo, config.d_hi, config.d_score, config.d_out) == (6, 5, 12, 4, 2)
    assert config.protocols == (
        "/meshsub/1.3.0", "/meshsub/1.2.0", "/meshsub/1.1.0", "/meshsub/1.0.0", "/floodsub/1.0.0",
    )  # fmt: skip
    assert FloodConfig().protocols == PubSubConfig().protocols == ("/floodsub/1.0.0",)
    assert GossipConfig(floodsub=False, versions=("/meshsub/1.1.0",)).protocols == (
        "/meshsub/1.1.0",
    )


@pytest.mark.parametrize("name", COMMON)
@pytest.mark.parametrize("value", [0, -1, NAN])
@pytest.mark.parametrize("kind", [FloodConfig, GossipConfig])
def test_what_is_more_than_nothing(name, value, kind):
    with pytest.raises(LocalError, match=name):
        kind(**{name: value}).check()


@pytest.mark.parametrize("name", MORE)
@pytest.mark.parametrize("value", [0, -1, NAN])
def test_what_is_more_than_nothing_in_gossipsub(name, value):
    with pytest.raises(LocalError, match=name):
        GossipConfig(**{name: value}).check()


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [-1, NAN])
def test_what_is_not_negative(name, value):
    with pytest.raises(LocalError, match=name):
        GossipConfig(**{name: value}).check()


@pytest.mark.parametrize("name", WireLimits.__slots__)
def test_what_an_rpc_may_hold(name):
    with pytest.raises(LocalError, match=name):
        FloodConfig(wire=WireLimits(**{name: 0})).check()


@pytest.mark.parametrize(
    "change",
    [
        {"max_held": 1000, "max_rpc": 1001},
        {"gossip_factor": 1.1},
        {"gossip_factor": -0.1},
        {"gossip_factor": NAN},
        {"history_gossip": 6},
        {"d": 4},
        {"d": 13},
        {"d_lo": 7},
        {"d_hi": 5},
        {"d_out": 5},
        {"d_out": 4, "d_lo": 5},
        {"d_score": 7},
        {"versions": ()},
        {"versions": ("/meshsub/2.0.0",)},
        {"score": PeerScoreParams(topic_cap=-1)},
        {"thresholds": Thresholds(gossip=1)},
        {"gater": GaterParams(threshold=0)},
    ],
)
def test_what_makes_no_sense_together(change):
    with pytest.raises(LocalError):
        GossipConfig(**change).check()


@pytest.mark.parametrize(
    "change",
    [
        {"d": 0, "d_lo": 0, "d_hi": 0, "d_out": 0, "d_score": 0},
        {"d": 8, "d_lo": 6, "d_hi": 12, "d_out": 4},
        {"d": 1, "d_lo": 1, "d_hi": 1, "d_out": 0, "d_score": 0},
        {"history_length": 1, "history_gossip": 1},
        {"gater": GaterParams(), "score": PeerScoreParams()},
    ],
)
def test_what_does(change):
    GossipConfig(**change).check()
