import pytest
from core.pubsub.net import Mock, Net, duel, make_key
from core.pubsub.test_service import Author, data_of, tell

from anyp2p_core import LocalError, Multiaddr, Service
from anyp2p_core.pubsub import rpc as wire
from anyp2p_core.pubsub.config import FloodConfig, GossipConfig
from anyp2p_core.pubsub.events import ExtensionReceived, MessageReceived, ValidationRequested
from anyp2p_core.pubsub.floodsub import FloodSub
from anyp2p_core.pubsub.gater import GaterParams
from anyp2p_core.pubsub.gossipsub import GossipSub
from anyp2p_core.pubsub.rpc import Prune
from anyp2p_core.pubsub.score_params import PeerScoreParams, Thresholds, TopicScoreParams
from anyp2p_core.pubsub.trace import Type
from anyp2p_core.pubsub.validation import Verdict, later

LENIENT = Thresholds(gossip=-1000, publish=-1000, graylist=-1000)
PENALTY = PeerScoreParams(behaviour_weight=-1.0, behaviour_decay=0.99)


def make(*protocols, **options):
    """A subscribed member, a mock in its mesh."""
    net, member, mock = duel(GossipSub(GossipConfig(**options)), *protocols)
    member.pubsub.subscribe("t", net.now)
    mock.subscribe("t")
    net.run()
    return net, member, mock


def crowd(count, config=None, *, dialed=0, **options):
    """A member with many mocks that subscribed; it dialed some of them."""
    net = Net()
    traced = []
    member = net.add(GossipSub(config or GossipConfig(**options), trace=traced.append))
    member.traced = traced
    mocks = []
    for number in range(count):
        mock = Mock()
        other = net.add(mock)
        mocks.append(mock)
        mock.id = other.id
        net.link(*((member, other) if number < dialed else (other, member)))
    return net, member, mocks


def everybody(count, config=None, **options):
    """A net of gossipsub nodes, all linked, all subscribed."""
    net = Net(**options)
    for _ in range(count):
        net.add(GossipSub(config() if config else GossipConfig()))
    net.mesh()
    for member in net.members:
        member.pubsub.subscribe("t", net.now)
    net.run()
    return net


def the_peer(member):
    (peer,) = member.pubsub.all_peers.values()
    return peer


# Meshes.


def test_two_nodes():
    net = everybody(2)
    one, two = net.members
    assert one.pubsub.mesh("t") == [two.id] and two.pubsub.mesh("t") == [one.id]
    assert one.pubsub.mesh("other") == one.pubsub.fanout("t") == one.pubsub.fanout("x") == []
    assert one.pubsub.scores() == {two.id: 0.0} and one.pubsub.inspect(two.id).score == 0.0
    message_id = one.pubsub.publish("t", b"x", net.now)
    net.run()
    assert data_of(two) == [b"x"] and two.of(MessageReceived)[0].message.id == message_id


def test_a_mesh_settles_and_everybody_hears_everything():
    net = everybody(20)
    net.wait(5)
    for number, member in enumerate(net.members):
        member.pubsub.publish("t", bytes([number]), net.now)
        net.run()
    for member in net.members:
        assert 5 <= len(member.pubsub.mesh("t")) <= 12
        assert sorted(data_of(member)) == sorted(
            bytes([number]) for number in range(20) if net.members[number] is not member
        )


def test_a_mesh_that_is_too_small_takes_in_who_subscribes():
    net, member, mocks = crowd(8)
    member.pubsub.subscribe("t", net.now)
    for mock in mocks:
        mock.subscribe("t")
        net.run()
    assert len(member.pubsub.mesh("t")) == 6
    assert [mock.control("graft") for mock in mocks] == [[b"t"]] * 6 + [[]] * 2
    net.cut(member, net.members[1])
    net.wait(1.5)
    assert len(member.pubsub.mesh("t")) == 5  # that is enough
    net.cut(member, net.members[2])
    net.wait(1.5)
    assert len(member.pubsub.mesh("t")) == 6


def test_joining_takes_d_peers():
    net, member, mocks = crowd(20)
    for mock in mocks:
        mock.subscribe("t")
    net.run()
    member.pubsub.subscribe("t", net.now)
    net.run()
    assert len(member.pubsub.mesh("t")) == 6
    assert sum(len(mock.control("graft")) for mock in mocks) == 6
    assert [one.type for one in member.traced].count(Type.GRAFT) == 6


def test_leaving_tells_the_mesh():
    net, member, mock = make()
    ((subscription,),) = [t.subscriptions for t in member.pubsub._topics.values()]
    member.pubsub.unsubscribe(subscription, net.now)
    net.run()
    assert mock.control("prune") == [Prune(b"t", [], 10)]
    assert member.pubsub.mesh("t") == []
    # Who was pruned is not asked again too soon.
    member.pubsub.subscribe("t", net.now)
    net.wait(9)
    assert mock.control("graft") == [b"t"] and member.pubsub.mesh("t") == []
    net.wait(4)
    assert mock.control("graft") == [b"t"] * 2


def test_a_mesh_that_is_too_large_is_pruned():
    net, member, mocks = crowd(12, dialed=3)
    member.pubsub.subscribe("t", net.now)
    for mock in mocks:
        mock.subscribe("t")
        mock.graft("t")
    net.run()
    assert len(member.pubsub.mesh("t")) == 12
    net.wait(1.5)
    mesh = member.pubsub.mesh("t")
    assert len(mesh) == 6
    assert sum(mock.id in mesh for mock in mocks[:3]) >= 2
    pruned = [mock for mock in mocks if mock.control("prune")]
    assert len(pruned) == 6 and all(mock.id not in mesh for mock in pruned)
    assert pruned[0].control("prune") == [Prune(b"t", [], 60)]
    assert [one.type for one in member.traced].count(Type.PRUNE) == 6


def test_the_mesh_is_never_larger_than_d_hi():
    net, member, mocks = crowd(16, dialed=2, px=True)
    member.pubsub.subscribe("t", net.now)
    for mock in reversed(mocks):
        mock.subscribe("t")
        mock.graft("t", "t")
        net.run()
        assert len(member.pubsub.mesh("t")) <= 12
    refused = [mock for mock in mocks if mock.control("prune")]
    assert len(refused) == 4 and mocks[0] in refused
    # What nodes tell of themselves is passed on: here their signed records.
    (prune,) = mocks[0].control("prune")
    assert len(prune.peers) == 15 and all(record for _, record in prune.peers)


def test_enough_peers_are_those_that_we_dialed():
    net, member, mocks = crowd(9, dialed=3)
    for mock in mocks[3:]:
        mock.subscribe("t")
    net.run()
    member.pubsub.subscribe("t", net.now)
    net.run()
    for mock in mocks[:3]:
        mock.subscribe("t")
    net.run()
    mesh = member.pubsub.mesh("t")
    assert len(mesh) == 6 and not any(mock.id in mesh for mock in mocks[:3])
    net.wait(1.5)
    mesh = member.pubsub.mesh("t")
    assert len(mesh) == 8 and sum(mock.id in mesh for mock in mocks[:3]) == 2


def test_whoever_leaves_a_topic_leaves_the_mesh():
    net, member, mock = make()
    mock.write(wire.subscriptions([(False, b"t")]))
    net.run()
    assert member.pubsub.mesh("t") == [] and mock.control("prune") == []


def test_a_stream_that_starts_anew_leaves_the_mesh():
    net, member, mock = make()
    mock.open(member.id, net.now)
    net.run()
    assert member.pubsub.mesh("t") == []
    net.wait(1.5)
    assert mock.control("graft") == [b"t"] * 2
    mock.streams[-1][0].reset()
    mock.context.touch(mock.connection)
    net.run()
    assert member.pubsub.mesh("t") == []
    net.wait(1.5)
    assert mock.control("graft") == [b"t"] * 3


# GRAFT and PRUNE of others.


def test_a_prune_is_obeyed():
    net, member, mock = make()
    mock.write(wire.graft_prune((), [Prune(b"t", [], 30), Prune(b"unknown", [], 30)]))
    net.run()
    assert member.pubsub.mesh("t") == []
    net.wait(29)
    assert mock.control("graft") == [b"t"]
    net.wait(5)
    assert mock.control("graft") == [b"t"] * 2
    mock.write(wire.graft_prune((), [Prune(b"t")]))  # as 1.0 has it
    net.run()
    mock.write(wire.graft_prune((), [Prune(b"t")]))
    net.wait(59)
    assert mock.control("graft") == [b"t"] * 2
    net.wait(20)
    assert mock.control("graft") == [b"t"] * 3


def test_a_graft_after_the_backoff_is_welcome():
    net, member, mock = make(score=PENALTY)
    mock.write(wire.graft_prune((), [Prune(b"t", [], 5)]))
    net.wait(5.1)
    mock.graft("t")
    net.run()
    assert len(member.pubsub.mesh("t")) == 1 and mock.control("prune") == []
    assert member.pubsub.scores()[net.members[1].id] == 0.0


def test_a_peer_with_a_bad_score_is_refused():
    score = PeerScoreParams(app=lambda peer: -1.0)
    net, member, mock = make(score=score, thresholds=Thresholds(gossip=-5, publish=-5, graylist=-9))
    assert member.pubsub.mesh("t") == [] and mock.control("graft") == []
    mock.graft("t")
    net.run()
    assert member.pubsub.mesh("t") == [] and mock.control("prune") == [Prune(b"t", [], 60)]


def test_who_gets_bad_leaves_the_mesh():
    scores = {}
    score = PeerScoreParams(app=lambda peer: scores.get(peer, 0.0))
    net, member, mock = make(score=score, thresholds=Thresholds(gossip=-5, publish=-5, graylist=-9))
    assert len(member.pubsub.mesh("t")) == 1
    scores[net.members[1].id] = -1.0
    net.wait(2.5)
    assert member.pubsub.mesh("t") == [] and mock.control("prune") == [Prune(b"t", [], 60)]


@pytest.mark.parametrize("protocol", ["/meshsub/1.0.0", "/floodsub/1.0.0"])
def test_old_protocols(protocol):
    net, member, mock = make(protocol, px=True)
    flood = protocol == "/floodsub/1.0.0"
    assert len(member.pubsub.mesh("t")) == (not flood)
    mock.graft("t")
    net.run()
    assert mock.control("prune") == ([Prune(b"t")] if flood else [])
    tell(net, mock, Author()())
    other = net.add(GossipSub())
    net.link(other, member)
    other.pubsub.subscribe("t", net.now)
    net.run()
    other.pubsub.publish("t", bytes(3000), net.now)
    net.wait(2)
    # Full messages either way; gossip and IDONTWANT not before their time.
    assert [len(message.data) for message in mock.messages()] == [3000]
    assert mock.control("idontwant") == []
    ((subscription,),) = [t.subscriptions for t in member.pubsub._topics.values()]
    member.pubsub.unsubscribe(subscription, net.now)
    net.run()
    assert mock.control("prune") == [Prune(b"t")]


def test_opportunistic_grafting():
    scores = {}
    config = GossipConfig(
        score=PeerScoreParams(app=lambda peer: scores.get(peer, 0.0)),
        thresholds=Thresholds(opportunistic_graft=5.0),
        opportunistic_ticks=3,
    )
    net, member, mocks = crowd(12, config)
    for mock in mocks:
        mock.subscribe("t")
    net.run()
    member.pubsub.subscribe("t", net.now)
    net.run()
    before = member.pubsub.mesh("t")
    for mock in mocks:
        if mock.id not in before:
            scores[mock.id] = 3.0
    net.wait(6.5)
    assert len(member.pubsub.mesh("t")) == 10  # twice two
    for mock in mocks:
        scores[mock.id] = 6.0
    net.wait(3)
    assert len(member.pubsub.mesh("t")) == 10


# Publishing.


def test_flood_publishing():
    net, member, mocks = crowd(20, flood_publish=True)
    member.pubsub.subscribe("t", net.now)
    for mock in mocks:
        mock.subscribe("t")
    net.wait(2)
    member.pubsub.publish("t", b"x", net.now)
    net.run()
    assert [len(mock.messages()) for mock in mocks] == [1] * 20


def test_without_it_only_the_mesh():
    net, member, mocks = crowd(20, flood_publish=False)
    member.pubsub.subscribe("t", net.now)
    for mock in mocks:
        mock.subscribe("t")
    net.wait(2)
    member.pubsub.publish("t", b"x", net.now)
    net.run()
    mesh = member.pubsub.mesh("t")
    assert [len(mock.messages()) for mock in mocks] == [mock.id in mesh for mock in mocks]


def test_bad_peers_get_nothing_of_ours():
    score = PeerScoreParams(app=lambda peer: -2.0)
    for flood in (True, False):
        net, member, mock = make(
            "/floodsub/1.0.0",
            score=score,
            thresholds=Thresholds(publish=-1.0, graylist=-9.0),
            flood_publish=flood,
        )
        member.pubsub.publish("t", b"x", net.now)
        net.run()
        assert mock.messages() == []


def test_fanout():
    scores = {}
    config = GossipConfig(
        flood_publish=False,
        fanout_ttl=10.0,
        score=PeerScoreParams(app=lambda peer: scores.get(peer, 0.0)),
    )
    net, member, mocks = crowd(12, config)
    member.pubsub.publish("nobody", b"x", net.now)
    for mock in mocks[:8]:
        mock.subscribe("t")
    net.run()
    member.pubsub.publish("t", b"1", net.now)
    net.run()
    fanout = member.pubsub.fanout("t")
    assert len(fanout) == 6
    assert [len(mock.messages()) for mock in mocks] == [mock.id in fanout for mock in mocks]
    # Those outside hear of it.
    net.wait(1.5)
    others = [mock for mock in mocks[:8] if mock.id not in fanout]
    assert all(mock.control("ihave") for mock in others)
    # Who gets worse, or leaves, is replaced.
    scores[fanout[0]] = -1.0
    gone = next(mock for mock in mocks if mock.id == fanout[1])
    gone.write(wire.subscriptions([(False, b"t")]))
    net.run()
    net.wait(1.5)
    assert len(member.pubsub.fanout("t")) == 6
    assert not {fanout[0], fanout[1]} & set(member.pubsub.fanout("t"))
    # Who comes late is told what there is.
    mocks[9].subscribe("t")
    member.pubsub.publish("t", b"2", net.now)
    net.run()
    assert mocks[9].control("ihave") or mocks[9].messages()
    net.wait(12)
    assert member.pubsub.fanout("t") == [] and b"nobody" not in member.pubsub._topics


def test_a_fanout_becomes_a_mesh():
    net, member, mocks = crowd(5, flood_publish=False)
    for mock in mocks[:4]:
        mock.subscribe("t")
    net.run()
    member.pubsub.publish("t", b"1", net.now)
    mocks[4].subscribe("t")
    net.run()
    fanout = member.pubsub.fanout("t")
    assert len(fanout) == 4
    member.pubsub.subscribe("t", net.now)
    assert member.pubsub.fanout("t") == [] and member.pubsub.mesh("t")[:4] == fanout
    assert len(member.pubsub.mesh("t")) == 5
    net.wait(100)
    assert len(member.pubsub.mesh("t")) == 5


def test_messages_are_not_sent_back():
    net, member, mock = make()
    author = Author(net.members[1].node.key)
    other = net.add(Mock())
    net.link(other, member)
    other.pubsub.subscribe("t")
    net.run()
    stranger = Author()
    tell(net, mock, stranger(b"1"))
    assert mock.messages() == [] and len(other.pubsub.messages()) == 1
    tell(net, other.pubsub, author(b"2"))  # by way of another peer
    assert mock.messages() == [] and data_of(member) == [b"1", b"2"]


# Gossip.


def test_gossip_goes_to_some_who_are_not_in_the_mesh():
    net, member, mocks = crowd(40, d_lazy=6, gossip_factor=0.25)
    for mock in mocks:
        mock.subscribe("t")
    net.run()
    member.pubsub.subscribe("t", net.now)
    net.run()
    tell(net, mocks[0], Author()())
    net.wait(0.5)
    mesh = member.pubsub.mesh("t")
    told = [mock for mock in mocks if mock.control("ihave")]
    assert len(told) == 8 and all(mock.id not in mesh for mock in told)  # a quarter of 34
    net.wait(10)
    assert all(len(mock.control("ihave")) <= 3 for mock in mocks)


def test_what_is_announced_is_asked_for_once():
    net, member, mock = make()
    message = Author()()
    message_id = message.from_ + message.seqno
    mock.write(*wire.ihave(b"t", [message_id, message_id, b""]))
    mock.write(*wire.ihave(b"unknown", [b"1"]))
    net.run()
    assert mock.control("iwant") == [message_id]
    tell(net, mock, message)
    assert len(member.pubsub.promises) == 0
    mock.write(*wire.ihave(b"t", [message_id]))
    net.run()
    assert mock.control("iwant") == [message_id]


def test_what_is_asked_for_is_sent():
    net, member, mock = make()
    message_id = member.pubsub.publish("t", b"x", net.now)
    mock.write(*wire.iwant([message_id, b"unknown"]))
    net.run()
    assert [message.data for message in mock.messages()] == [b"x", b"x"]
    mock.write(*wire.idontwant([message_id]), *wire.iwant([message_id]))
    net.run()
    assert len(mock.messages()) == 2
    net.wait(6)
    mock.write(*wire.iwant([message_id]))
    net.run()
    assert len(mock.messages()) == 2  # it is too old


def test_whoever_is_not_good_enough_gets_no_gossip():
    score = PeerScoreParams(app=lambda peer: -2.0)
    net, member, mock = make(
        score=score, thresholds=Thresholds(gossip=-1.0, publish=-5.0, graylist=-9.0)
    )
    message_id = member.pubsub.publish("t", b"x", net.now)
    net.run()
    mock.write(*wire.iwant([message_id]), *wire.ihave(b"t", [b"new"]))
    net.wait(3)
    assert len(mock.messages()) == 1
    assert mock.control("iwant") == mock.control("ihave") == []


def test_long_histories_are_told_in_parts():
    net, member, mock = make(max_ihave_length=5)
    mock.write(wire.graft_prune((), [Prune(b"t")]))
    net.run()
    ids = [member.pubsub.publish("t", bytes([number]), net.now) for number in range(20)]
    net.wait(0.5)
    ((topic, told),) = mock.control("ihave")
    assert topic == b"t" and len(set(told)) == 5 and set(told) <= set(ids)


def test_whoever_subscribes_is_told_what_there_is():
    net = Net()
    one, two = net.add(GossipSub()), net.add(GossipSub())
    net.link(one, two)
    one.pubsub.subscribe("t", net.now)
    one.pubsub.publish("t", b"x", net.now)
    net.run()
    assert data_of(two) == []
    two.pubsub.subscribe("t", net.now)
    net.run()
    assert data_of(two) == [b"x"]


# IDONTWANT.


def test_large_messages_are_announced_as_had():
    net, member, mock = make("/meshsub/1.2.0")
    old, new = Mock("/meshsub/1.1.0"), Mock("/meshsub/1.2.0")
    for one in (old, new):
        net.link(net.add(one), member)
        one.subscribe("t")
    net.run()
    large = Author()(bytes(1024))
    tell(net, mock, large, Author()(bytes(1023)))
    assert new.control("idontwant") == [large.from_ + large.seqno]
    assert old.control("idontwant") == mock.control("idontwant") == []


def test_it_is_not_said_of_forgeries():
    net, member, mock = make()
    other = Mock()
    net.link(net.add(other), member)
    other.subscribe("t")
    net.run()
    large = Author()(bytes(3000))
    large.raw = large.raw[:-64] + bytes(64)
    tell(net, mock, large)
    assert other.control("idontwant") == []


@pytest.mark.parametrize("own", [True, False])
def test_what_a_peer_does_not_want_is_not_sent(own):
    net, member, mock = make(flood_publish=False, message_id=lambda message: message.data)
    other = Mock()
    net.link(net.add(other), member)
    other.subscribe("t")
    net.run()
    mock.write(*wire.idontwant([b"x"]))
    net.run()
    if own:
        member.pubsub.publish("t", b"x", net.now)
        net.run()
    else:
        tell(net, other, Author()(b"x"))
    assert mock.messages() == []
    net.wait(4)
    assert the_peer_of(member, net.members[1]).unwanted == {}


def the_peer_of(member, other):
    return member.pubsub.all_peers[other.id]


def test_what_waits_and_is_not_wanted_is_not_sent():
    net, member, mock = make()
    mock.reads = False
    ids = [member.pubsub.publish("t", bytes([number]) * 50_000, net.now) for number in range(15)]
    net.run()
    assert the_peer(member).outbox.count > 3
    mock.write(*wire.idontwant(ids[-2:]))
    net.run()
    mock.reads = True
    stream, _ = mock.streams[0]
    stream.credit(stream.unread, net.now)
    mock.context.touch(mock.connection)
    net.run()
    assert [message.data[0] for message in mock.messages()] == list(range(13))


# Validation and judging.


def test_verdicts_count_in_the_score():
    score = PeerScoreParams(
        topics={"t": TopicScoreParams(first_deliveries_weight=1.0, invalid_weight=-10.0)}
    )
    net, member, mock = make(score=score, gater=GaterParams(), thresholds=LENIENT)
    peer = net.members[1].id
    member.pubsub.set_validator("t", later)
    author = Author()
    tell(net, mock, author(b"1"), author(b"2"), author(b"3"), author(b"4"))
    verdicts = (Verdict.ACCEPT, Verdict.REJECT, Verdict.IGNORE)
    for asked, verdict in zip(member.of(ValidationRequested), verdicts, strict=False):
        member.pubsub.report(asked.message.id, verdict, net.now)
    assert member.pubsub.inspect(peer).score == -9.0
    bad = author(b"5")
    bad.raw = bad.raw[:-64] + bytes(64)
    tell(net, mock, bad, author(b"6"))
    assert member.pubsub.inspect(peer).topics == {"t": -39.0}
    last = member.of(ValidationRequested)[-1].message.id
    net.cut(member, net.members[1])
    member.pubsub.report(last, Verdict.ACCEPT, net.now)
    assert member.pubsub.score.score(peer) == -40.0  # kept, without the delivery


@pytest.mark.parametrize("verdict", list(Verdict))
def test_verdicts_on_messages_of_who_has_gone(verdict):
    net, member, mock = make(gater=GaterParams())
    member.pubsub.set_validator("t", later)
    tell(net, mock, Author()())
    net.cut(member, net.members[1])
    (asked,) = member.of(ValidationRequested)
    member.pubsub.report(asked.message.id, verdict, net.now)
    net.wait(1.5)
    assert len(data_of(member)) == (verdict is Verdict.ACCEPT)


def test_what_cannot_be_looked_at_costs_nobody_anything():
    score = PeerScoreParams(topics={"t": TopicScoreParams(invalid_weight=-10.0)})
    net, member, mock = make(
        score=score,
        gater=GaterParams(),
        thresholds=LENIENT,
        max_validating=1,
        bad_signatures_burst=1,
    )
    peer = net.members[1].id
    member.pubsub.set_validator("t", later)
    author = Author()
    message = author(b"3")
    tell(net, mock, author(b"1"), author(b"2"), message, message)
    assert member.pubsub.scores() == {peer: 0.0}
    bad = []
    for number in range(4):
        forged = author(bytes([number]))
        forged.raw = forged.raw[:-64] + bytes(64)
        bad.append(forged)
    tell(net, mock, *bad)
    assert member.pubsub.inspect(peer).topics["t"] == -90.0  # three were looked at
    # Messages that are dropped now count for the gater; control is heard all the same.
    gater = member.pubsub._gater
    assert not all(gater.accepts("10.0.1.1", net.now) for _ in range(50))
    for _ in range(30):
        tell(net, mock, author())
    mock.subscribe("u")
    net.run()
    assert len(member.pubsub.peers("u")) == 1
    net.wait(3)


def test_an_ignored_id_is_no_record():
    score = PeerScoreParams(topics={"t": TopicScoreParams(invalid_weight=-10.0)})
    net, member, mock = make(score=score, message_id=lambda message: b"")
    tell(net, mock, Author()())
    assert member.pubsub.score.records == 0


def test_who_is_graylisted_is_not_heard():
    scores = {}
    score = PeerScoreParams(app=lambda peer: scores.get(peer, 0.0))
    net, member, mock = make(score=score, thresholds=Thresholds(gossip=-1, publish=-1, graylist=-2))
    scores[net.members[1].id] = -3.0
    net.wait(1.5)
    tell(net, mock, Author()())
    assert data_of(member) == []
    scores.clear()
    net.wait(1.5)
    tell(net, mock, Author()())
    assert data_of(member) == [b"x"]


def test_topic_scores_can_be_changed():
    net, member, mock = make(score=PeerScoreParams())
    member.pubsub.set_topic_score("t", TopicScoreParams(first_deliveries_weight=4.0))
    tell(net, mock, Author()())
    assert member.pubsub.inspect(net.members[1].id).score == 4.0
    net, member, mock = make()
    member.pubsub.set_topic_score("t", TopicScoreParams(first_deliveries_weight=4.0))
    assert member.pubsub.inspect(net.members[1].id).score == 0.0


def test_decay_has_its_own_pace():
    params = PeerScoreParams(behaviour_weight=-1.0, behaviour_decay=0.5, decay_interval=5.0)
    net, member, _mock = make(score=params)
    net.wait(1)
    member.pubsub.score.penalize(net.members[1].id, 2)
    net.wait(3)
    assert member.pubsub.scores() == {net.members[1].id: -4.0}
    net.wait(3)
    assert member.pubsub.scores() == {net.members[1].id: -1.0}


def test_malformed_rpcs_and_too_much_control_are_held_against_the_peer():
    net, member, mock = make(score=PENALTY, thresholds=LENIENT, wire=wire.WireLimits(max_ids=5))
    peer = net.members[1].id
    mock.write(*wire.iwant([b"x"] * 6))
    net.run()
    assert member.pubsub.scores()[peer] == -1.0
    mock.raw(b"\x01\x02")
    net.run()
    assert member.pubsub.scores()[peer] == -4.0


# Direct peers, connections, extensions.


def test_direct_peers():
    key = make_key("friend")
    address = Multiaddr("/ip4/10.0.0.1/tcp/4001")
    config = GossipConfig(
        direct={key.peer_id: [address], make_key("nobody").peer_id: []},
        direct_ticks=5,
        score=PeerScoreParams(app=lambda peer: -100.0),
        thresholds=Thresholds(graylist=-50.0),
        gater=GaterParams(),
    )
    net = Net()
    friend = net.add(Mock(), key=key)
    net.by_address[address] = friend
    member = net.add(GossipSub(config))
    member.pubsub.subscribe("t", net.now)
    net.wait(0.5)
    assert member.pubsub.peers() == [friend.id]
    mock = friend.pubsub
    mock.subscribe("t")
    mock.graft("t")
    net.run()
    assert member.pubsub.mesh("t") == [] and mock.control("prune") == [Prune(b"t", [], 60)]
    tell(net, mock, Author()())
    assert data_of(member) == [b"x"]
    member.pubsub.publish("t", b"mine", net.now)
    net.run()
    assert [message.data for message in mock.messages()] == [b"mine"]
    other = net.add(GossipSub())
    net.link(other, member)
    net.cut(member, friend)
    assert member.pubsub.peers() == [other.id]
    net.wait(6)
    assert member.pubsub.peers() == [other.id, friend.id]
    net.wait(6)
    assert len(member.node.connections(friend.id)) == 1


def test_forwarding_to_direct_and_floodsub_peers():
    net = Net()
    keys = [make_key("friend")]
    member = net.add(GossipSub(GossipConfig(direct={keys[0].peer_id: []})))
    friend = net.add(Mock(), key=keys[0])
    flood, source, other = net.add(FloodSub(FloodConfig())), net.add(Mock()), net.add(Mock())
    for one in (friend, flood, source, other):
        net.link(one, member)
    member.pubsub.subscribe("t", net.now)
    flood.pubsub.subscribe("t", net.now)
    friend.pubsub.subscribe("t")
    source.pubsub.subscribe("t")
    net.run()
    tell(net, source.pubsub, Author()())
    assert len(friend.pubsub.messages()) == 1 and data_of(flood) == [b"x"]
    assert other.pubsub.messages() == []
    flood.pubsub.publish("t", b"y", net.now)
    net.run()
    assert data_of(member) == [b"x", b"y"] and len(friend.pubsub.messages()) == 2


def test_addresses_are_those_of_all_connections():
    score = PeerScoreParams(ip_weight=-1.0, ip_threshold=1)
    net = Net()
    net.ips = {1: "9.9.9.9"}
    member, one = net.add(GossipSub(GossipConfig(score=score))), net.add(GossipSub())
    two = net.add(GossipSub())
    for a, b in ((member, one), (one, member)):
        a.node.dial(b.id, [b.address], net.now)
    net.run()
    assert len(member.links) == 2
    net.link(two, member)
    assert member.pubsub.scores() == {one.id: 0.0, two.id: 0.0}
    assert member.pubsub.all_peers[one.id].ip == "9.9.9.9"
    net.drop(member, next(iter(member.links)))
    assert member.pubsub.score.score(one.id) == 0.0


def test_a_connection_that_a_peer_without_pubsub_makes():
    net = Net()
    member, other = net.add(GossipSub()), net.add(Service())
    net.link(other, member)
    net.cut(other, member)
    assert member.pubsub.all_peers == {}


def test_the_test_extension():
    net = Net()
    one, two = (net.add(GossipSub(GossipConfig(test_extension=True))) for _ in range(2))
    net.link(one, two)
    assert one.of(ExtensionReceived) == [ExtensionReceived(two.id)]
    assert two.of(ExtensionReceived) == [ExtensionReceived(one.id)]


@pytest.mark.parametrize("ours", [True, False])
def test_the_handshake_of_extensions(ours):
    net, member, mock = duel(
        GossipSub(GossipConfig(test_extension=ours, score=PENALTY, thresholds=LENIENT)),
        "/meshsub/1.3.0",
    )
    peer = net.members[1].id
    assert bool(mock.rpcs) == ours
    if ours:
        assert mock.rpcs[0].control.test_extension
    mock.rpc(wire.OUR_EXTENSIONS)
    mock.write(wire.TEST_EXTENSION_RPC)
    net.run()
    assert any(rpc.test_extension for rpc in mock.rpcs) == ours
    assert len(member.of(ExtensionReceived)) == ours
    assert member.pubsub.scores()[peer] == 0.0
    mock.rpc(wire.OUR_EXTENSIONS)  # a second time is misbehaviour
    net.run()
    assert member.pubsub.scores()[peer] == -100.0


def test_extensions_after_the_first_rpc_do_not_count():
    net, member, mock = duel(GossipSub(GossipConfig(test_extension=True)), "/meshsub/1.3.0")
    mock.subscribe("t")
    mock.rpc(wire.OUR_EXTENSIONS)
    mock.write(wire.TEST_EXTENSION_RPC)
    net.run()
    assert member.of(ExtensionReceived) == []
    assert not any(rpc.test_extension for rpc in mock.rpcs)


def test_a_node_that_only_gossips():
    config = GossipConfig(d=0, d_lo=0, d_hi=0, d_out=0, d_score=0)
    net, member, mock = duel(GossipSub(config))
    member.pubsub.subscribe("t", net.now)
    mock.subscribe("t")
    mock.graft("t")
    net.run()
    assert member.pubsub.mesh("t") == [] and len(mock.control("prune")) == 1
    member.pubsub.publish("t", b"x", net.now)
    net.wait(1.5)
    assert len(mock.control("ihave")) >= 1


def test_a_subscription_that_comes_before_our_stream_is_open():
    net = Net()
    member, mock = net.add(GossipSub()), Mock()
    other = net.add(mock)
    member.pubsub.subscribe("t", net.now)
    open_ = member.pubsub.streams.open
    member.pubsub.streams.open = lambda peer, protocols, now: None
    net.link(other, member)
    mock.subscribe("t")
    mock.graft("t")
    net.run()
    assert member.pubsub.peers("t") == [other.id] and member.pubsub.mesh("t") == []
    open_(member.pubsub.all_peers[other.id], ("/meshsub/1.2.0",), net.now)
    net.run()
    assert member.pubsub.mesh("t") == [other.id]


def test_a_second_connection_changes_the_address():
    net, member, _mock = make()
    other = net.members[1]
    conn = member.node.connected(None, member.address, Multiaddr("/ip4/9.9.9.9/tcp/1"), net.now)
    (connection,) = member.node.connections(other.id)
    calls = []
    member.pubsub.on_addresses = lambda peer, now: calls.append(peer.id)
    member.pubsub.on_connected(connection, net.now)
    assert calls == [other.id] and conn


def test_gossip_has_limits_per_heartbeat():
    net, member, mock = make(
        max_ihave_messages=2, max_ihave_length=3, iwant_bytes=600, gossip_retransmission=2,
        max_idontwant_messages=2, max_idontwant_length=3, max_unwanted=4,
    )  # fmt: skip
    peer = the_peer(member)
    mock.write(*wire.ihave(b"t", [b"1", b"2"]), *wire.ihave(b"t", [b"3", b"4"]))
    mock.write(*wire.ihave(b"t", [b"5"]))
    net.run()
    assert len(mock.control("iwant")) == 3 and len(member.pubsub.promises) == 2
    large = member.pubsub.publish("t", bytes(400), net.now)
    small = member.pubsub.publish("t", b"x", net.now)
    net.run()
    mock.write(*wire.iwant([small] * 5), *wire.iwant([large]))
    net.run()
    assert len(mock.messages()) == 4
    mock.write(*(wire.idontwant([bytes([n, m]) for m in range(5)])[0] for n in range(3)))
    net.run()
    assert list(peer.unwanted) == [b"\0\2", b"\1\0", b"\1\1", b"\1\2"]
    net.wait(0.5)
    mock.write(*wire.ihave(b"t", [b"6"]), *wire.iwant([large]), *wire.idontwant([b"7"]))
    net.run()
    assert len(mock.messages()) == 5 and b"6" in mock.control("iwant") and b"7" in peer.unwanted
    net.wait(2)
    assert list(peer.unwanted) == [b"7"]
    net.wait(2)
    assert peer.unwanted == {}


def test_promises_that_are_broken_count():
    net, member, mock = make(score=PENALTY, thresholds=LENIENT)
    mock.write(*wire.ihave(b"t", [b"lie"]))
    net.wait(3)
    assert member.pubsub.scores() == {net.members[1].id: 0.0}
    net.wait(1.5)
    assert -1.0 <= member.pubsub.scores()[net.members[1].id] < -0.9


@pytest.mark.parametrize(("after", "penalty"), [(5.0, 2), (30.0, 1)])
def test_a_graft_in_the_backoff_counts(after, penalty):
    params = PeerScoreParams(behaviour_weight=-1.0, behaviour_decay=0.999999)
    net, member, mock = make(score=params, thresholds=LENIENT, px=True)
    for _ in range(3):
        net.link(net.add(Mock()), member)
        net.members[-1].pubsub.subscribe("t")
    mock.write(wire.graft_prune((), [Prune(b"t")]))
    net.wait(after)
    mock.graft("t")
    net.run()
    assert mock.control("prune") == [Prune(b"t", [], 60)]
    assert member.pubsub.inspect(net.members[1].id).behaviour == pytest.approx(penalty)


def test_whom_others_are_named_to():
    net, member, mocks = crowd(15, px=True)
    member.pubsub.subscribe("t", net.now)
    for mock in mocks:
        mock.subscribe("t")
    for mock in mocks[:12]:
        mock.graft("t")
    net.run()
    mocks[12].graft("t")
    mocks[13].graft("unknown", "t")  # who guesses topics learns of nobody
    net.run()
    assert [len(mock.control("prune")) for mock in mocks[12:]] == [1, 1, 0]
    (full,), (guessed,) = mocks[12].control("prune"), mocks[13].control("prune")
    assert len(full.peers) == 14 and guessed.peers == []


def test_grafts_for_what_nobody_knows_are_ignored():
    net, member, mock = make()
    member.pubsub.subscribe("u", net.now)
    mock.graft("unknown", "u")  # to the second, it did not subscribe
    net.run()
    assert mock.control("prune") == [] and member.pubsub.mesh("u") == []


def test_a_peer_that_names_others_is_believed_if_it_is_good():
    for threshold, dialed in ((0.0, True), (1.0, False)):
        net = Net()
        member = net.add(GossipSub(GossipConfig(thresholds=Thresholds(accept_px=threshold))))
        mock, third = Mock(), net.add(GossipSub())
        other = net.add(mock)
        net.link(other, member)
        net.link(other, third)
        member.pubsub.subscribe("t", net.now)
        mock.subscribe("t")
        net.run()
        record = other.node.peers.get(third.id).record
        prune = Prune(b"t", [(bytes(third.id), record)])
        mock.write(wire.graft_prune((), [prune]))
        net.run()
        assert (third.id in member.node.connected_peers()) == dialed
    member.pubsub.set_topic_score("t", TopicScoreParams())
    # Who was not in the mesh is not asked for others.
    mock.write(wire.graft_prune((), [prune]))
    net.run()


def test_direct_peers_that_cannot_be_dialed():
    net = Net()
    friend = make_key("friend").peer_id
    member = net.add(GossipSub(GossipConfig(direct={friend: []}, direct_ticks=1)))
    member.pubsub.subscribe("t", net.now)

    def refuses(peer, addresses, now):
        raise LocalError("no")

    member.node.dial = refuses
    net.wait(3)
    assert member.pubsub.peers() == []


def test_subscribing_again_and_again_gains_nothing():
    net, member, mock = make(flood_publish=False)
    for number in range(150):
        member.pubsub.publish("t", bytes([number]), net.now)
    net.run()
    mock.rpcs.clear()
    for _ in range(20):
        mock.write(wire.subscriptions([(False, b"t"), (True, b"t")] * 20))
        net.run()
    told = [one for _, ids in mock.control("ihave") for one in ids]
    assert len(told) == 200
    net.wait(0.5)
    mock.write(wire.subscriptions([(False, b"t"), (True, b"t")]))
    net.run()
    assert len([one for _, ids in mock.control("ihave") for one in ids]) == 350
