"""Rows 88 to 111 of the attack catalogue, and the attacks that go peers test."""

import math
import tracemalloc
from time import process_time

import pytest
from core.pubsub.net import Mock, Net, duel, make_key
from core.pubsub.test_fairness import OLD_ETHEREUM
from core.pubsub.test_service import Author, Counting, data_of, tell

from anyp2p_core import DecodeError, LocalError, Multiaddr, MuxerError
from anyp2p_core.envelope import seal_peer_record
from anyp2p_core.pubsub import rpc as wire
from anyp2p_core.pubsub.config import FloodConfig, GossipConfig
from anyp2p_core.pubsub.events import MessageReceived, PeerSubscribed
from anyp2p_core.pubsub.floodsub import FloodSub
from anyp2p_core.pubsub.gossipsub import GossipSub
from anyp2p_core.pubsub.message import build, sign
from anyp2p_core.pubsub.rpc import Prune, WireLimits
from anyp2p_core.pubsub.score_params import PeerScoreParams, Thresholds, TopicScoreParams, decay
from anyp2p_core.pubsub.validation import Verdict, later
from anyp2p_core.varint import delimited, encode as varint

MIB = 1024 * 1024
LENIENT = Thresholds(gossip=-100, publish=-500, graylist=-1000)


def scored(weight=-1.0, **topic):
    topics = {"t": TopicScoreParams(**topic)} if topic else {}
    return PeerScoreParams(
        topics=topics, behaviour_weight=weight, behaviour_decay=decay(60), retain=600.0
    )


def make(*protocols, **options):
    """A node with one attacker in its mesh."""
    options.setdefault("thresholds", LENIENT)
    net, member, mock = duel(GossipSub(GossipConfig(**options)), *protocols)
    member.pubsub.subscribe("t", net.now)
    mock.subscribe("t")
    net.run()
    return net, member, mock


def score_of(net, member):
    return member.pubsub.score.score(net.members[1].id)


def field(number, data):
    return varint(number << 3 | 2) + delimited(data)


@pytest.mark.parametrize("seconds", [2**63 - 1, 2**64 - 1])
def test_row_88_backoff_of_ages(seconds):
    net, member, mock = make()
    prune = field(
        4, field(1, b"t") + b"\x18" + b"\xff" * 8 + (b"\x7f" if seconds < 2**63 else b"\xff\x01")
    )
    mock.rpc(field(3, prune))
    net.run()
    backoff = member.pubsub.backoff.until(b"t", bytes(net.members[1].id))
    assert backoff == net.now + 3600 and member.pubsub.mesh("t") == []
    net.wait(3620)
    assert len(mock.control("graft")) == 2


def test_row_89_heartbeats_after_a_backoff_at_the_limit():
    net, member, mock = make()
    value = 9223372036854674580
    coded = b""
    while value > 127:
        coded += bytes((value & 127 | 128,))
        value >>= 7
    mock.rpc(field(3, field(4, field(1, b"t") + b"\x18" + coded + bytes((value,)))))
    net.wait(100)
    assert member.pubsub.ticks >= 100
    mock.graft("t")
    net.run()
    assert member.pubsub.mesh("t") == [] and len(mock.control("prune")) == 1


def test_row_91_graft_with_new_topics_for_ever():
    net, member, mock = make()
    before = len(member.pubsub._topics), len(member.pubsub.backoff)
    for number in range(200):
        mock.graft(*(f"{number} {one}" for one in range(20)))
        net.run()
    (peer,) = member.pubsub.all_peers.values()
    assert {topic.name for topic in peer.topics} == {"t"}
    assert (len(member.pubsub._topics), len(member.pubsub.backoff)) == before
    assert mock.control("prune") == []


def test_row_92_subscriptions_to_ever_new_topics():
    def attack(rounds):
        net, member, mock = make()
        for number in range(rounds):
            mock.write(wire.subscriptions((True, b"%d %d" % (number, n)) for n in range(5000)))
            net.run()
        return net, member, mock

    net, member, _ = attack(3)
    (peer,) = member.pubsub.all_peers.values()
    assert len(peer.topics) == 100 == len(member.of(PeerSubscribed))
    assert len(member.pubsub._topics) == 100
    net.cut(member, net.members[1])
    assert list(member.pubsub._topics) == [b"t"] and member.pubsub.all_peers == {}
    # Long names are not kept at all.
    net, member, mock = make()
    mock.write(wire.subscriptions([(True, b"x" * 1025), (True, b"y" * 1024)]))
    net.run()
    assert len(member.pubsub._topics) == 2


def test_row_92_many_peers_share_one_limit():
    net = Net()
    member = net.add(GossipSub(GossipConfig(max_topics=250)))
    for number in range(5):
        mock = Mock()
        net.link(net.add(mock), member)
        mock.subscribe(*(f"{number} {one}" for one in range(100)))
        net.run()
    assert len(member.pubsub._topics) == 250
    for other in net.members[1:]:
        net.cut(member, other)
    assert member.pubsub._topics == {}


EMPTY = {
    "subscriptions": b"\x0a\x00",
    "messages": b"\x12\x00",
    "control": b"\x1a\x00",
    "grafts": field(3, b"\x1a\x00" * 60),
}


@pytest.mark.parametrize("entry", EMPTY.values(), ids=EMPTY)
def test_row_93_an_rpc_of_empty_entries(entry):
    data = entry * (4 * MIB // len(entry))
    best = math.inf
    for _ in range(5):
        start = process_time()
        with pytest.raises(DecodeError):
            wire.parse(data, WireLimits())
        best = min(best, process_time() - start)
    tracemalloc.start()
    with pytest.raises(DecodeError):
        wire.parse(data, WireLimits())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert best < 0.02  # on a busy machine; under 5 ms on a quiet one
    assert peak < MIB


@pytest.mark.parametrize(
    ("service", "protocol"),
    [(FloodSub(FloodConfig()), "/floodsub/1.0.0"), (GossipSub(), "/meshsub/1.2.0")],
)
def test_row_93_the_stream_ends(service, protocol):
    net, member, mock = duel(service, protocol)
    mock.raw(varint(4 * MIB) + b"\x0a\x00" * 100)  # the announced length alone ends it
    net.run()
    assert mock.resets == 1 and member.pubsub.streams.held == 0
    mock.open(member.id, net.now)
    mock.rpc(b"\x0a\x00" * 50_000)
    net.run()
    assert mock.resets == 2


@pytest.mark.parametrize(
    "control",
    [
        field(1, field(1, b"t") + b"\x12\x00" * 30_000),
        field(2, b"\x0a\x00" * 30_000),
        field(5, b"\x0a\x00" * 30_000),
        field(1, field(1, b"t") + b"".join(field(2, b"%d" % n) for n in range(20_000))),
        field(2, b"".join(field(1, bytes(60) + b"%d" % n) for n in range(3_000))),
        field(4, field(1, b"t") + field(2, field(1, b"p")) * 5000),
    ],
    ids=["ihave", "iwant", "idontwant", "ids", "bytes", "px"],
)
def test_row_94_control_without_end(control):
    net, member, mock = make(score=scored())
    mock.rpc(field(3, control))
    net.run()
    assert score_of(net, member) == -1.0
    (peer,) = member.pubsub.all_peers.values()
    assert len(peer.unwanted) <= 10 and peer.asked <= 5000
    assert len(mock.control("iwant")) <= 5000


def test_row_95_announcements_of_what_never_comes():
    """go: 10 IHAVE and 5000 ids per heartbeat, promises of 3 s."""
    net, member, mock = make(score=scored(-10.0), thresholds=LENIENT)
    asked = []
    for number in range(5):
        for one in range(30):
            mock.write(*wire.ihave(b"t", [b"%d %d %d" % (number, one, n) for n in range(600)]))
        net.run()
        asked.append(len(mock.control("iwant")))
        net.wait(1)
    steps = [later - before for before, later in zip([0, *asked], asked, strict=False)]
    assert max(steps) <= 5000 and steps[0] == 5000 and steps[1] == 5000
    net.wait(3)
    assert score_of(net, member) < -1000
    before = len(mock.control("iwant"))
    mock.write(*wire.ihave(b"t", [b"more"]))
    net.run()
    assert len(mock.control("iwant")) == before


def test_row_95_go_spam_ihave():
    net, member, mock = make(score=scored())
    for number in range(30):
        mock.write(*wire.ihave(b"t", [b"someid%d" % number]))
    net.run()
    first = sum(bool(rpc.control and rpc.control.iwant) for rpc in mock.rpcs)
    assert 0 < first <= 10 and score_of(net, member) == 0.0
    net.wait(1)
    for number in range(30):
        mock.write(*wire.ihave(b"t", [b"someid%d" % (number + 100)]))
    net.run()
    second = sum(bool(rpc.control and rpc.control.iwant) for rpc in mock.rpcs)
    assert first < second <= first + 10
    net.wait(10)
    assert score_of(net, member) < 0


def test_row_96_go_spam_iwant():
    net, member, mock = make()
    message_id = member.pubsub.publish("t", b"x", net.now)
    for _ in range(20):
        mock.write(*wire.iwant([message_id] * 5))
        net.run()
    assert len(mock.messages()) == 1 + 3


def test_row_96_amplification_is_bounded_in_bytes():
    net, member, mock = make(iwant_bytes=1_000_000)
    ids = [member.pubsub.publish("t", bytes([n]) * 100_000, net.now) for n in range(20)]
    net.run()
    before = len(mock.messages())
    mock.write(*wire.iwant(ids))
    net.run()
    assert len(mock.messages()) - before == 9
    # Nor does it come back with a new connection.
    net.cut(member, net.members[1])
    assert all(entry.sent for entry in (member.pubsub.cache.get(one) for one in ids[:9]))


def test_row_97_go_spam_idontwant():
    """go: 1000 RPCs with 10 ids each per heartbeat, kept for 3 heartbeats."""
    net, member, mock = make(flood_publish=False, message_id=lambda message: message.data)
    for number in range(1001):
        mock.write(*wire.idontwant([b"%d" % number]))
        if number % 100 == 0:
            net.run()
    net.run()
    member.pubsub.publish("t", b"999", net.now)
    member.pubsub.publish("t", b"1000", net.now)
    net.run()
    assert [message.data for message in mock.messages()] == [b"1000"]
    net.wait(1.2)
    mock.write(*wire.idontwant([b"again"]))
    net.run()
    member.pubsub.publish("t", b"again", net.now)
    net.run()
    assert [message.data for message in mock.messages()] == [b"1000"]


def test_row_97_go_handle_idontwant_spam():
    net, member, mock = make()
    mock.write(*wire.idontwant([b"idontwant-%d" % number for number in range(11)]))
    net.run()
    (peer,) = member.pubsub.all_peers.values()
    assert peer.dontwants == 1
    assert peer.is_unwanted(b"idontwant-9") and not peer.is_unwanted(b"idontwant-10")


def test_row_97_go_idontwant_is_cleaned_up():
    net, member, mock = make()
    (peer,) = member.pubsub.all_peers.values()
    mock.rpc(field(3, b""))
    mock.rpc(field(3, field(5, b"")))
    net.run()
    assert peer.unwanted == {}
    mock.write(*wire.idontwant([b"one"]))
    net.run()
    assert peer.is_unwanted(b"one")
    net.wait(3.5)
    assert peer.unwanted == {}
    for number in range(1000):
        mock.write(*wire.idontwant([b"%d %d" % (number, n) * 40 for n in range(10)]))
        if number % 20 == 0:
            net.run()
    net.run()
    assert len(peer.unwanted) == 10_000 and max(map(len, peer.unwanted)) <= 64
    net.cut(member, net.members[1])
    assert member.pubsub.all_peers == {}


def test_row_98_go_graft_for_a_topic_that_does_not_exist():
    net, member, mock = make(px=True)
    for _ in range(3):
        net.link(net.add(Mock()), member)
        net.members[-1].pubsub.subscribe("t")
    mock.graft("non-existent")
    net.run()
    assert mock.control("prune") == []
    # Not even beside a topic that we would have to refuse.
    mock.write(wire.graft_prune((), [Prune(b"t")]))
    mock.graft("non-existent", "t")
    net.run()
    (prune,) = mock.control("prune")
    assert prune.topic == b"t" and prune.peers == []


def test_row_99_go_graft_during_backoff():
    net, member, mock = make(
        score=scored(-100.0), prune_backoff=0.2, graft_flood=0.1, backoff_slack=0.05, heartbeat=60.0
    )
    assert mock.control("prune") == []
    mock.write(wire.graft_prune((), [Prune(b"t")]))
    net.run()
    assert mock.control("prune") == []
    net.wait(0.11)
    mock.graft("t")
    net.run()
    assert len(mock.control("prune")) == 1
    first = score_of(net, member)
    assert first == -100.0
    mock.graft("t")  # within the flood threshold: it counts twice
    net.run()
    assert len(mock.control("prune")) == 2
    second = score_of(net, member)
    assert second == -900.0
    mock.graft("t")
    net.run()
    assert len(mock.control("prune")) == 3
    assert score_of(net, member) == -2500.0
    net.wait(0.3)
    mock.graft("t")  # graylisted: no answer any more
    net.run()
    assert len(mock.control("prune")) == 3 and member.pubsub.mesh("t") == []


def test_row_100_a_thousand_grafts_at_once():
    net = Net()
    member = net.add(GossipSub(GossipConfig()), limits=None)
    member.node.limits.max_inbound_connections = member.node.limits.max_connections = 2000
    member.node.limits.inbound_rate_per_ip = 1e9
    member.node.limits.inbound_burst_per_ip = 10**9
    member.pubsub.subscribe("t", net.now)
    mocks = [Mock() for _ in range(60)]
    for mock in mocks:
        net.link(net.add(mock), member)
        mock.subscribe("t")
    net.run()
    for _ in range(17):  # 1020 in one go
        for mock in mocks:
            mock.graft("t")
    while member.node.writable():
        net._drain(member)
    for _ in range(10_000):
        if not any(net._drain(one) for one in net.members) and not net._wire:
            break
        net.run()
        assert len(member.pubsub.mesh("t")) <= 12
    assert len(member.pubsub.mesh("t")) == 12
    net.wait(1.2)
    assert len(member.pubsub.mesh("t")) == 6


@pytest.mark.parametrize(
    "change",
    [
        {"history_length": 0},
        {"history_length": 0, "history_gossip": 0},
        {"d": 3, "d_lo": 5},
        {"d_hi": 4},
        {"d_out": 6},
        {"heartbeat": 0},
        {"d_score": 100},
    ],
)
def test_row_100_numbers_at_their_edges(change):
    with pytest.raises(LocalError):
        GossipSub(GossipConfig(**change))


def test_row_100_the_smallest_numbers_that_are_allowed():
    config = GossipConfig(
        d=1, d_lo=1, d_hi=1, d_out=0, d_score=0, d_lazy=0, history_length=1, history_gossip=0,
        gossip_factor=0.0, opportunistic_ticks=1, direct_ticks=1, max_ihave_length=0,
    )  # fmt: skip
    net = Net()
    for _ in range(4):
        net.add(GossipSub(config))
    net.mesh()
    for member in net.members:
        member.pubsub.subscribe("t", net.now)
    net.wait(5)
    for member in net.members:
        assert len(member.pubsub.mesh("t")) <= 1
        member.pubsub.publish("t", bytes([member.number]), net.now)
    net.wait(5)
    assert [len(data_of(member)) for member in net.members] == [3] * 4


def test_row_101_peers_that_an_attacker_names():
    victim = Multiaddr("/ip4/8.8.8.8/tcp/25")

    def named(number):
        key = make_key(f"sybil {number}")
        return bytes(key.peer_id), seal_peer_record(key, 1, [victim])

    def attack(px, **options):
        net, member, mock = make(**options)
        mock.write(wire.graft_prune((), [Prune(b"t", px)]))
        net.run()
        return net, member, mock

    net, member, mock = attack([named(n) for n in range(16)])
    assert member.dials == [victim]
    # Again: once a minute, and only when it was in the mesh meanwhile.
    for _ in range(5):
        mock.write(wire.graft_prune((), [Prune(b"t", [named(n) for n in range(16, 32)], 1)]))
        net.run()
        mock.graft("t")
        net.wait(5)
    assert member.dials == [victim]
    unsigned = [(bytes(make_key(n).peer_id), b"") for n in range(16)]
    assert attack(unsigned)[1].dials == []
    (a, record), (b, _) = named(1), named(2)
    assert attack([(b, record)])[1].dials == [] and a
    strict = Thresholds(accept_px=1.0, graylist=-1.0, publish=-1.0)
    assert attack([named(1)], thresholds=strict)[1].dials == []
    # More than sixteen are not looked at.
    many = [named(n) for n in range(40)]
    net, member, mock = attack(many)
    assert member.pubsub._px.pending <= 16


def test_row_102_go_invalid_messages():
    params = PeerScoreParams(
        topics={
            "t": TopicScoreParams(
                weight=0.25,
                time_in_mesh_weight=0.0027,
                first_deliveries_weight=0.664,
                first_deliveries_decay=0.9916,
                first_deliveries_cap=1500.0,
                invalid_weight=-99.0,
                invalid_decay=0.9994,
            )
        },
        decay_interval=5.0,
        retain=10.0,
    )
    thresholds = Thresholds(gossip=-100, publish=-200, graylist=-300)
    net, member, mock = make(score=params, thresholds=thresholds)
    assert score_of(net, member) == 0.0
    for number in range(100):
        message = build(bytes(net.members[1].id), b"some data%d" % number, b"\1", b"t")
        tell(net, mock, message)
    assert score_of(net, member) < -300
    net.wait(1.2)
    assert len(mock.control("prune")) == 1 and data_of(member) == []


def test_row_102_bad_signatures_at_line_rate():
    net, member, mock = make()
    counting = Counting(member)
    author = Author()
    for number in range(40):
        batch = []
        for one in range(25):
            message = author(b"%d %d" % (number, one))
            forged = build(message.from_, b"forged", message.seqno, b"t")
            sign(forged, bytes(64), None)
            batch.append(forged)
        tell(net, mock, *batch)
        net.wait(0.1)
    # 1000 in 4 s: a burst of 20, then 5 per second.
    assert counting.count <= 20 + 5 * 4 + 3
    other = Mock()
    net.link(net.add(other), member)
    tell(net, other, author(b"good"))
    assert data_of(member) == [b"good"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: setattr(m, "raw", m.raw[:-66]),  # no signature
        lambda m: setattr(m, "raw", m.raw[:-66] + field(5, bytes(63))),
        lambda m: setattr(m, "raw", m.raw + field(6, b"junk")),
        lambda m: setattr(m, "raw", m.raw + field(6, b"")),
        lambda m: setattr(m, "raw", field(2, b"x") + field(4, b"t") + field(5, bytes(64))),
        lambda m: setattr(m, "raw", m.raw.replace(field(3, m.seqno), b"")),
        lambda m: setattr(m, "raw", m.raw.replace(field(3, m.seqno), field(3, b"\1"))),
        lambda m: setattr(m, "raw", field(1, b"nobody") + m.raw[40:]),
    ],
)
def test_row_104_malformed_keys_signatures_and_numbers(spoil):
    net, member, mock = make(score=scored(invalid_weight=-1.0))
    message = Author()()
    spoil(message)
    tell(net, mock, message)
    assert data_of(member) == [] and score_of(net, member) == -1.0
    assert mock.resets == 0


def test_row_105_a_replay_after_the_cache_has_forgotten():
    net, member, mock = make(seen_ttl=5.0)
    message = Author()()
    tell(net, mock, message)
    newest = {}

    def monotonic(message):
        """Optional: an author's numbers have to grow. A few authors are enough here."""
        number = int.from_bytes(message.seqno, "big")
        if number <= newest.get(message.from_, -1):
            return Verdict.IGNORE
        newest[message.from_] = number
        return Verdict.ACCEPT

    net.wait(7)
    tell(net, mock, message)
    assert data_of(member) == [b"x", b"x"]  # what it would be without
    member.pubsub.set_validator("t", monotonic)
    author = Author()
    first, second = author(b"1"), author(b"2")
    for _ in range(3):
        tell(net, mock, first, second)
        net.wait(7)
    assert data_of(member) == [b"x", b"x", b"1", b"2"]


def test_row_106_silence_in_a_topic_that_is_paid_for_elsewhere():
    with pytest.raises(LocalError, match="never delivers in"):
        GossipSub(GossipConfig(score=PeerScoreParams(topics=OLD_ETHEREUM)))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_row_107_weights_that_are_no_numbers(value):
    for params in (
        PeerScoreParams(behaviour_weight=value),
        PeerScoreParams(topic_cap=value),
        PeerScoreParams(topics={"t": TopicScoreParams(weight=value)}),
        PeerScoreParams(topics={"t": TopicScoreParams(invalid_weight=value)}),
    ):
        with pytest.raises(LocalError):
            GossipSub(GossipConfig(score=params))


@pytest.mark.parametrize("value", [0.0, 1.0, 1.5, -0.5])
def test_row_107_decays_that_do_not_decay(value):
    topic = TopicScoreParams(invalid_weight=-1.0, invalid_decay=value)
    for params in (
        PeerScoreParams(topics={"t": topic}),
        PeerScoreParams(behaviour_weight=-1.0, behaviour_decay=value),
    ):
        with pytest.raises(LocalError):
            GossipSub(GossipConfig(score=params))


def test_row_108_a_peer_that_reads_nothing():
    net, member, mock = make(flood_publish=False)
    reader = Mock()
    net.link(net.add(reader), member)
    reader.subscribe("t")
    net.run()
    mock.reads = False
    source = Mock()
    net.link(net.add(source), member)
    source.subscribe("t")
    net.run()
    author = Author()
    for _ in range(60):
        tell(net, source, *[author(bytes(10_000)) for _ in range(5)])
    assert len(reader.messages()) == 300  # nobody else notices
    peer = member.pubsub.all_peers[net.members[1].id]
    assert peer.outbox.size <= MIB and peer.outbox.count <= 1024
    assert member.pubsub.dropped > 100
    # What matters more takes the place of what matters less.
    mine = member.pubsub.publish("t", bytes([7]) * 50_000, net.now)
    member.pubsub.subscribe("u", net.now)
    mock.reads = True
    stream, _ = mock.streams[0]
    stream.credit(stream.unread, net.now)
    mock.context.touch(mock.connection)
    net.run()
    got = mock.messages()
    assert any(one.from_ + one.seqno == mine for one in got) and len(got) < 200
    assert [(True, b"u")] in [rpc.subscriptions for rpc in mock.rpcs]


def test_row_109_keys_come_as_bytes_or_text():
    net, member, mock = make()
    tell(net, mock, Author()(bytes(2000)))
    mock.write(*wire.idontwant([b"i"]), *wire.ihave(b"t", [b"j"]))
    net.run()
    pubsub = member.pubsub
    (peer,) = pubsub.all_peers.values()
    tables = (
        pubsub._topics, pubsub.seen._times, pubsub.cache._entries, pubsub.promises._by_id,
        peer.unwanted,
    )  # fmt: skip
    for table in tables:
        assert table and {type(key) for key in table} == {bytes}


@pytest.mark.parametrize("junk", [None, 7, "id", b"", bytes(300), [], object()])
def test_row_111_an_id_function_that_returns_junk(junk):
    net, member, mock = make(message_id=lambda message: junk, score=scored(invalid_weight=-1.0))
    tell(net, mock, Author()())
    assert data_of(member) == [] and score_of(net, member) == 0.0
    with pytest.raises(LocalError):
        member.pubsub.publish("t", b"x", net.now)


@pytest.mark.parametrize("error", [KeyError, RecursionError, AssertionError, MuxerError])
def test_row_111_functions_of_the_application_that_fail(error):
    def fails(message):
        raise error("a mistake")

    net, member, mock = make(message_id=fails)
    tell(net, mock, Author()())
    assert data_of(member) == []
    net, member, mock = make(score=scored(invalid_weight=-1.0))
    member.pubsub.set_validator("t", fails)
    tell(net, mock, Author()())
    assert data_of(member) == [] and score_of(net, member) == 0.0
    assert len(member.node.connections()) == 1


def test_row_111_a_verdict_that_never_comes():
    net, member, mock = make(max_validating=50, validation_timeout=5.0)
    member.pubsub.set_validator("t", later, limit=30)
    author = Author()
    for _ in range(10):
        tell(net, mock, *[author(b"%d" % n) for n in range(20)])
        assert len(member.pubsub.validation) <= 30
    net.wait(7)
    assert len(member.pubsub.validation) == 0 and member.of(MessageReceived) == []
