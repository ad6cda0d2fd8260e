"""Sets of numbers of public networks, and what is common to them.

    config = ethereum(topics=("/eth2/b5303f2a/beacon_block/ssz_snappy",))

Ethereum leaves P3 and P3b, the deliveries that are owed in a mesh, out: with the deficits that were
once published, silence in one topic could be paid for with another (CVE-2022-47547).
"""

from collections.abc import Iterable

from .config import GossipConfig
from .ids import Ethereum, MessageId, blake2b_of_data, from_and_seqno
from .score_params import PeerScoreParams, Thresholds, TopicScoreParams, decay
from .signing import SignaturePolicy

SLOT = 12.0
EPOCH = 32 * SLOT
MIB = 1024 * 1024

ETHEREUM_WEIGHTS = {
    "beacon_block": 0.8,
    "beacon_aggregate_and_proof": 0.5,
    "sync_committee_contribution_and_proof": 0.2,
    "voluntary_exit": 0.05,
    "proposer_slashing": 0.05,
    "attester_slashing": 0.05,
    "bls_to_execution_change": 0.05,
}
"""By the name inside of the topic; attestation and sync committee subnets share 1 and 0.4."""
ATTESTATION_SUBNETS = 64
SYNC_SUBNETS = 4

_MAX_IN_MESH = 10.0
_MAX_FIRST = 40.0


def default(
    *, message_id: MessageId = from_and_seqno, score: PeerScoreParams | None = None
) -> GossipConfig:
    """go peers' numbers, with an id function that is said instead of assumed."""
    return GossipConfig(message_id=message_id, score=score)


def plain_score(topics: Iterable[str]) -> PeerScoreParams:
    """Moderate judging for networks that have not measured anything yet.

    Being first is good, invalid messages and broken rules are bad; nobody owes deliveries.
    """
    topic = TopicScoreParams(
        weight=1.0,
        time_in_mesh_weight=0.01,
        time_in_mesh_quantum=1.0,
        time_in_mesh_cap=600.0,
        first_deliveries_weight=1.0,
        first_deliveries_decay=decay(120),
        first_deliveries_cap=20.0,
        invalid_weight=-100.0,
        invalid_decay=decay(600),
    )
    return PeerScoreParams(
        topics=dict.fromkeys(topics, topic),
        topic_cap=50.0,
        behaviour_weight=-10.0,
        behaviour_threshold=6.0,
        behaviour_decay=decay(600),
        retain=3600.0,
    )


PLAIN_THRESHOLDS = Thresholds(
    gossip=-100.0, publish=-200.0, graylist=-400.0, accept_px=10.0, opportunistic_graft=1.0
)


def ethereum_topic(weight: float, most: float, cap: float, epochs: float) -> TopicScoreParams:
    """``most``: what all topics together can give; ``cap``: first deliveries that count."""
    return TopicScoreParams(
        weight=weight,
        time_in_mesh_weight=_MAX_IN_MESH / (3600 / SLOT),
        time_in_mesh_quantum=SLOT,
        time_in_mesh_cap=3600 / SLOT,
        first_deliveries_weight=_MAX_FIRST / cap,
        first_deliveries_decay=decay(epochs * EPOCH, interval=SLOT),
        first_deliveries_cap=cap,
        invalid_weight=-most / weight,
        invalid_decay=decay(50 * EPOCH, interval=SLOT),
    )


def ethereum(*, topics: Iterable[str] = ()) -> GossipConfig:
    """The consensus layer: anonymous messages, ids of decompressed data, a heartbeat of 0.7 s.

    ``topics`` are those that are judged, as they are on the wire.
    """
    total = sum(ETHEREUM_WEIGHTS.values()) + 1.0 + 0.4
    most = (_MAX_IN_MESH + _MAX_FIRST) * total
    params = {topic: _ethereum_topic(topic, most) for topic in topics}
    return GossipConfig(
        policy=SignaturePolicy.STRICT_NO_SIGN,
        message_id=Ethereum(),
        d=8,
        d_lo=6,
        d_hi=12,
        d_lazy=6,
        heartbeat=0.7,
        history_length=6,
        history_gossip=3,
        seen_ttl=2 * EPOCH,
        max_rpc=10 * MIB,
        max_held=128 * MIB,
        max_queue_bytes=20 * MIB,
        floodsub=False,
        score=PeerScoreParams(
            topics=params,
            topic_cap=most / 2,
            app_weight=1.0,
            ip_weight=-most / 2,
            ip_threshold=10,
            behaviour_weight=-15.92,
            behaviour_threshold=6.0,
            behaviour_decay=decay(10 * EPOCH, interval=SLOT),
            decay_interval=SLOT,
            retain=100 * EPOCH,
            seen_ttl=2 * EPOCH,
        ),
        thresholds=Thresholds(
            gossip=-4000.0,
            publish=-8000.0,
            graylist=-16000.0,
            accept_px=100.0,
            opportunistic_graft=5.0,
        ),
    )


def _ethereum_topic(topic: str, most: float) -> TopicScoreParams:
    name = topic.split("/")[3] if topic.count("/") >= 4 else topic
    if name.startswith("beacon_attestation_"):
        return ethereum_topic(1.0 / ATTESTATION_SUBNETS, most, 24.0, 1.0)
    if name.startswith("sync_committee_") and name not in ETHEREUM_WEIGHTS:
        return ethereum_topic(0.4 / SYNC_SUBNETS, most, 25.0, 1.0)
    weight = ETHEREUM_WEIGHTS.get(name, 0.05)
    if name == "beacon_block":
        return ethereum_topic(weight, most, 23.0, 20.0)
    return ethereum_topic(weight, most, 179.0 if weight == 0.5 else 4.0, 1.0)


def filecoin_scores(
    *,
    blocks: str,
    messages: str,
    beacons: Iterable[str] = (),
) -> PeerScoreParams:
    """Filecoin's parameters: P3 is off, one invalid message costs more than a topic can give."""
    hour = decay(3600)
    topics = {
        blocks: TopicScoreParams(
            weight=0.1,
            time_in_mesh_weight=0.00027,
            time_in_mesh_cap=1.0,
            first_deliveries_weight=5.0,
            first_deliveries_decay=hour,
            first_deliveries_cap=100.0,
            invalid_weight=-1000.0,
            invalid_decay=hour,
        ),
        messages: TopicScoreParams(
            weight=0.1,
            time_in_mesh_weight=0.0002778,
            time_in_mesh_cap=1.0,
            first_deliveries_weight=0.5,
            first_deliveries_decay=decay(600),
            first_deliveries_cap=100.0,
            invalid_weight=-1000.0,
            invalid_decay=hour,
        ),
    }
    for beacon in beacons:
        topics[beacon] = TopicScoreParams(
            weight=0.5,
            time_in_mesh_weight=0.00027,
            time_in_mesh_cap=1.0,
            first_deliveries_weight=5.0,
            first_deliveries_decay=hour,
            first_deliveries_cap=25.0,
            invalid_weight=-1000.0,
            invalid_decay=hour,
        )
    return PeerScoreParams(
        topics=topics,
        app_weight=1.0,
        ip_weight=-100.0,
        ip_threshold=5,
        behaviour_weight=-10.0,
        behaviour_threshold=6.0,
        behaviour_decay=hour,
        retain=6 * 3600.0,
    )


def filecoin(network: str = "testnetnet", *, beacons: Iterable[str] = ()) -> GossipConfig:
    """Filecoin: signed messages, ids that are blake2b of the data. ``beacons``: drand topics."""
    return GossipConfig(
        message_id=blake2b_of_data,
        d=8,
        d_lo=6,
        d_hi=12,
        d_score=6,
        d_out=3,
        d_lazy=12,
        gossip_factor=0.1,
        history_length=10,
        iwant_followup=5.0,
        score=filecoin_scores(
            blocks=f"/fil/blocks/{network}", messages=f"/fil/msgs/{network}", beacons=beacons
        ),
        thresholds=Thresholds(
            gossip=-500.0,
            publish=-1000.0,
            graylist=-2500.0,
            accept_px=1000.0,
            opportunistic_graft=3.5,
        ),
    )
