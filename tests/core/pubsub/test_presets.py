import pytest

from anyp2p_core.pubsub.ids import blake2b_of_data, from_and_seqno
from anyp2p_core.pubsub.presets import (
    PLAIN_THRESHOLDS,
    default,
    ethereum,
    filecoin,
    filecoin_scores,
    plain_score,
)
from anyp2p_core.pubsub.signing import SignaturePolicy

PREFIX = "/eth2/b5303f2a/"
TOPICS = [
    f"{PREFIX}{name}/ssz_snappy"
    for name in (
        "beacon_block", "beacon_aggregate_and_proof", "beacon_attestation_7", "sync_committee_2",
        "sync_committee_contribution_and_proof", "voluntary_exit", "attester_slashing", "new",
    )
]  # fmt: skip


def test_the_default_is_that_of_go():
    config = default()
    config.check()
    assert config.message_id is from_and_seqno and config.score is None
    scored = default(score=plain_score(["t"]))
    scored.check()
    PLAIN_THRESHOLDS.check()
    assert scored.score.most == 26.0


def test_ethereum():
    config = ethereum(topics=[*TOPICS, "something else"])
    config.check()
    assert config.policy is SignaturePolicy.STRICT_NO_SIGN and config.heartbeat == 0.7
    assert (config.d, config.d_lo, config.d_hi) == (8, 6, 12)
    assert config.seen_ttl == 768.0 and not config.floodsub
    topics = config.score.topics
    block = topics[TOPICS[0]]
    # Published figures: 0.03333 * 300, and 40 / 23.
    assert round(block.time_in_mesh_weight, 5) == 0.03333 and block.time_in_mesh_cap == 300
    assert block.first_deliveries_cap == 23 and block.most == pytest.approx(0.8 * 50)
    assert topics[TOPICS[2]].weight == 1 / 64 and topics[TOPICS[3]].weight == 0.1
    assert topics[TOPICS[4]].weight == 0.2 and topics["something else"].weight == 0.05
    # One invalid message in any topic costs as much as all topics can give.
    for topic in topics.values():
        assert -topic.weight * topic.invalid_weight >= config.score.most


def test_filecoin():
    config = filecoin(beacons=["/drand/pubsub/v0.0.0/x"])
    config.check()
    assert config.message_id is blake2b_of_data
    assert config.policy is SignaturePolicy.STRICT_SIGN
    params = filecoin_scores(blocks="b", messages="m", beacons=["d"])
    params.check()
    # What its authors say that a topic can give: 50, 5 and 62.5.
    assert [round(topic.most, 1) for topic in params.topics.values()] == [50.0, 5.0, 62.5]
    assert params.paid_for() == {}
