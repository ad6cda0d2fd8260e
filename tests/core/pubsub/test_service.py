from itertools import count

import pytest
from core.pubsub.net import NULL, Mock, Net, duel, make_key

from anyp2p_core import IdentifyFailed, LocalError, Service, TimedOut
from anyp2p_core.pubsub import rpc as wire, trace
from anyp2p_core.pubsub.config import FloodConfig, PubSubConfig, TopicConfig
from anyp2p_core.pubsub.events import (
    MessageReceived,
    PeerSubscribed,
    PeerUnsubscribed,
    PubSubPeerAdded,
    PubSubPeerRemoved,
    ValidationRequested,
)
from anyp2p_core.pubsub.floodsub import FloodSub
from anyp2p_core.pubsub.ids import sha256_of_data
from anyp2p_core.pubsub.message import build, sign
from anyp2p_core.pubsub.outbox import Kind
from anyp2p_core.pubsub.service import PubSub
from anyp2p_core.pubsub.signing import SignaturePolicy, Signing
from anyp2p_core.pubsub.trace import Type
from anyp2p_core.pubsub.validation import Verdict, later

STRANGER = make_key("stranger")


class Author:
    """Signs messages of a stranger."""

    walls = count(1_700_000_000)

    def __init__(self, key=STRANGER):
        self._signing = Signing(key, NULL)

    def __call__(self, data=b"x", topic=b"t", policy=SignaturePolicy.STRICT_SIGN):
        return self._signing.make(topic, data, policy, next(self.walls))


def pair(config=None, **options):
    """A subscribed member, a mock of floodsub that subscribed too."""
    traced = []
    service = FloodSub(config or FloodConfig(**options), trace=traced.append)
    net, member, mock = duel(service, "/floodsub/1.0.0")
    member.pubsub.subscribe("t", net.now)
    mock.subscribe("t")
    net.run()
    return net, member, mock, traced


def tell(net, mock, *messages):
    mock.write(wire.publish([message.raw for message in messages]))
    net.run()


def data_of(member):
    return [event.message.data for event in member.of(MessageReceived)]


def reasons(traced):
    return [one.detail.reason for one in traced if one.type is Type.REJECT_MESSAGE]


def test_peers_and_topics_come_and_go():
    net, member, mock, _ = pair()
    peer = net.members[1].id
    assert member.of(PubSubPeerAdded) == [PubSubPeerAdded(peer, "/floodsub/1.0.0")]
    assert member.of(PeerSubscribed) == [PeerSubscribed(peer, "t")]
    assert member.pubsub.topics() == ["t"]
    assert member.pubsub.peers() == member.pubsub.peers("t") == [peer]
    assert member.pubsub.peers("other") == []
    mock.write(wire.subscriptions([(False, b"t"), (False, b"t"), (False, b"never")]))
    net.run()
    assert member.of(PeerUnsubscribed) == [PeerUnsubscribed(peer, "t")]
    mock.subscribe("t", "u")
    net.run()
    net.cut(member, net.members[1])
    assert len(member.of(PeerUnsubscribed)) == 3
    assert member.of(PubSubPeerRemoved) == [PubSubPeerRemoved(peer)]
    assert member.pubsub.peers() == [] and list(member.pubsub._topics) == [b"t"]


def test_subscriptions_share_a_topic():
    net, member, mock, traced = pair()
    first, second = 0, member.pubsub.subscribe("t", net.now)
    tell(net, mock, Author()())
    ((first, also),) = [event.subscriptions for event in member.of(MessageReceived)]
    assert also == second
    member.pubsub.unsubscribe(second, net.now)
    member.pubsub.unsubscribe(second, net.now)
    tell(net, mock, Author()(b"y"))
    assert member.of(MessageReceived)[-1].subscriptions == (first,)
    member.pubsub.unsubscribe(first, net.now)
    net.run()
    tell(net, mock, Author()(b"z"))
    assert data_of(member) == [b"x", b"y"] and member.pubsub.topics() == []
    told = [change for rpc in mock.rpcs for change in rpc.subscriptions]
    assert told == [(True, b"t"), (False, b"t")]
    kinds = [one.type for one in traced]
    assert kinds.count(Type.JOIN) == kinds.count(Type.LEAVE) == 1


def test_what_we_subscribed_to_is_said_first():
    service = FloodSub()
    net = Net()
    member = net.add(service)
    member.pubsub.subscribe("a", net.now)
    member.pubsub.subscribe("b", net.now)
    member.pubsub.set_validator("c", later)
    net2, other = net, net.add(FloodSub())
    net2.link(other, member)
    assert other.of(PeerSubscribed) == [PeerSubscribed(member.id, t) for t in "ab"]


def test_our_own_messages():
    net, member, mock, traced = pair()
    message_id = member.pubsub.publish("t", b"mine", net.now)
    net.run()
    assert [one.id or one.from_ + one.seqno for one in mock.messages()] == [message_id]
    assert data_of(member) == []
    assert [one.type for one in traced].count(Type.PUBLISH_MESSAGE) == 1
    net, member, mock, _ = pair(deliver_own=True)
    member.pubsub.publish("t", b"mine", net.now)
    member.pubsub.publish("other", b"mine", net.now)
    net.run()
    assert data_of(member) == [b"mine"]


@pytest.mark.parametrize("topic", ["", "t" * 1025, "\ud800"])
def test_topics_have_names(topic):
    net, member, _, _ = pair()
    for act in (
        lambda: member.pubsub.subscribe(topic, net.now),
        lambda: member.pubsub.publish(topic, b"", net.now),
        lambda: member.pubsub.set_validator(topic, later),
    ):
        with pytest.raises(LocalError):
            act()


def test_what_cannot_be_published():
    def no_id(message):
        return b"" if message.data == b"bad" else message.data

    net, member, _, _ = pair(max_rpc=5000, message_id=no_id)
    with pytest.raises(LocalError, match="max_rpc is 5000"):
        member.pubsub.publish("t", bytes(5000), net.now)
    member.pubsub.publish("t", b"once", net.now)
    with pytest.raises(LocalError, match="seen already"):
        member.pubsub.publish("t", b"once", net.now)
    with pytest.raises(LocalError, match="no id"):
        member.pubsub.publish("u", b"bad", net.now)
    assert list(member.pubsub._topics) == [b"t"]


class Counting:
    """Counts how often a signature is looked at."""

    def __init__(self, member):
        self.count = 0
        self._signing = member.pubsub._signing
        member.pubsub._signing = self

    def __getattr__(self, name):
        return getattr(self._signing, name)

    def verify(self, message):
        self.count += 1
        return self._signing.verify(message)


def test_a_duplicate_is_known_before_its_signature_is_looked_at():
    net, member, mock, traced = pair()
    counting = Counting(member)
    message = Author()()
    tell(net, mock, message, message)
    tell(net, mock, message)
    assert data_of(member) == [b"x"] and counting.count == 1
    assert [one.type for one in traced].count(Type.DUPLICATE_MESSAGE) == 2


def test_a_forger_cannot_suppress_a_message():
    net, member, mock, traced = pair()
    message = Author()()
    forged = build(message.from_, b"forged", message.seqno, b"t")
    sign(forged, b"s" * 64, None)
    tell(net, mock, forged)
    assert data_of(member) == [] and reasons(traced) == ["invalid signature"]
    tell(net, mock, message)
    assert data_of(member) == [b"x"]


def test_a_message_under_the_name_of_somebody_else():
    net, member, mock, traced = pair()
    liar = make_key("liar")
    message = build(bytes(STRANGER.peer_id), b"lie", bytes(8), b"t")
    sign(message, liar.sign(message.signed), liar.public.encode())
    tell(net, mock, message)
    assert data_of(member) == [] and reasons(traced) == ["invalid signature"]


def test_messages_of_topics_that_we_did_not_subscribe_to():
    net, member, mock, traced = pair()
    counting = Counting(member)
    mock.subscribe("known")
    tell(net, mock, Author()(topic=b"known"), Author()(topic=b"unknown"))
    assert data_of(member) == [] and counting.count == 0 and reasons(traced) == []


def test_messages_under_our_name():
    net, member, mock, traced = pair()
    tell(net, mock, Author(member.node.key)())
    assert data_of(member) == [] and reasons(traced) == ["self originated message"]


def test_our_own_messages_may_come_back():
    net, member, mock, traced = pair()
    member.pubsub.publish("t", b"echoed", net.now)
    net.run()
    (message,) = mock.messages()
    tell(net, mock, message)
    assert data_of(member) == [] and reasons(traced) == []
    assert len(mock.messages()) == 1


def test_bad_signatures_are_not_checked_for_ever():
    net, member, mock, traced = pair(bad_signatures_burst=3, bad_signatures_rate=1.0)
    counting = Counting(member)
    author = Author()
    bad = []
    for number in range(30):
        message = author(bytes([number]))
        forged = build(message.from_, b"forged", message.seqno, b"t")
        sign(forged, b"s" * 64, None)
        bad.append(forged)
    tell(net, mock, *bad)
    assert counting.count == 5
    assert reasons(traced)[-1] == "validation throttled"
    tell(net, mock, author(b"good"))
    assert data_of(member) == []
    net.wait(10)
    tell(net, mock, author(b"good again"))
    assert data_of(member) == [b"good again"]


@pytest.mark.parametrize(
    ("policy", "sent", "reason"),
    [
        ("STRICT_SIGN", "STRICT_SIGN", None),
        ("STRICT_SIGN", "STRICT_NO_SIGN", "missing signature"),
        ("STRICT_SIGN", "LAX_NO_SIGN", "missing signature"),
        ("STRICT_NO_SIGN", "STRICT_NO_SIGN", None),
        ("STRICT_NO_SIGN", "STRICT_SIGN", "unexpected signature"),
        ("STRICT_NO_SIGN", "LAX_NO_SIGN", "unexpected auth info"),
        ("LAX_SIGN", "STRICT_SIGN", None),
        ("LAX_SIGN", "LAX_NO_SIGN", None),
        ("LAX_SIGN", "STRICT_NO_SIGN", "validation ignored"),  # it has no id
        ("LAX_NO_SIGN", "LAX_NO_SIGN", None),
    ],
)
def test_policies(policy, sent, reason):
    net, member, mock, traced = pair(policy=SignaturePolicy[policy])
    tell(net, mock, Author()(policy=SignaturePolicy[sent]))
    assert reasons(traced) == ([] if reason is None else [reason])
    assert len(data_of(member)) == (reason is None)
    member.pubsub.publish("t", b"ours", net.now)
    net.run()
    assert (mock.messages()[-1].signature is not None) == (policy in ("STRICT_SIGN", "LAX_SIGN"))


def test_topics_can_differ():
    config = FloodConfig(
        topics={"anonymous": TopicConfig(policy=SignaturePolicy.STRICT_NO_SIGN),
                "hashed": TopicConfig(message_id=sha256_of_data)}
    )  # fmt: skip
    net, member, mock, _ = pair(config)
    for topic in ("anonymous", "hashed"):
        member.pubsub.subscribe(topic, net.now)
        mock.subscribe(topic)
    author = Author()
    plain = author(topic=b"anonymous", policy=SignaturePolicy.STRICT_NO_SIGN)
    tell(net, mock, plain, *(author(b"y", b"hashed") for _ in range(2)), author())
    assert [event.topic for event in member.of(MessageReceived)] == ["anonymous", "hashed", "t"]


@pytest.mark.parametrize("junk", [None, "text", b"", bytes(257), 5, b"i" * 256])
def test_ids_that_are_none(junk):
    net, member, mock, traced = pair(message_id=lambda message: junk)
    tell(net, mock, Author()())
    good = junk == b"i" * 256
    assert data_of(member) == ([b"x"] if good else [])
    assert reasons(traced) == ([] if good else ["validation ignored"])


def test_an_id_function_that_fails():
    def fails(message):
        raise KeyError("a mistake of the application")

    net, member, mock, traced = pair(message_id=fails)
    tell(net, mock, Author()())
    assert data_of(member) == [] and reasons(traced) == ["validation ignored"]
    assert traced[-1].detail.message_id is None


def test_the_blacklist():
    bad = STRANGER.peer_id
    net, member, mock, traced = pair(blacklist=lambda peer: peer == bad)
    tell(net, mock, Author()(), Author(make_key("other"))(b"y"))
    assert data_of(member) == [b"y"] and reasons(traced) == ["blacklisted source"]
    net, member, mock, traced = pair(blacklist=lambda peer: True)
    tell(net, mock, Author()())
    assert data_of(member) == [] and member.pubsub.peers("t") == [] and reasons(traced) == []
    net, member, mock, traced = pair(
        blacklist=lambda peer: peer == bad, policy=SignaturePolicy.STRICT_NO_SIGN
    )
    tell(net, mock, Author()(policy=SignaturePolicy.STRICT_NO_SIGN))
    assert data_of(member) == [b"x"]


@pytest.mark.parametrize(
    ("verdict", "delivered", "reason"),
    [
        (Verdict.ACCEPT, [b"x"], []),
        (Verdict.REJECT, [], ["validation failed"]),
        (Verdict.IGNORE, [], ["validation ignored"]),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_validators(verdict, delivered, reason, at_once):
    net, member, mock, traced = pair()
    member.pubsub.set_validator("t", (lambda message: verdict) if at_once else later)
    message = Author()()
    tell(net, mock, message)
    if not at_once:
        assert data_of(member) == [] == reasons(traced)
        (asked,) = member.of(ValidationRequested)
        assert asked.topic == "t" and asked.message.data == b"x"
        tell(net, mock, message)  # a duplicate meanwhile
        assert member.pubsub.report(asked.message.id, verdict, net.now)
        assert not member.pubsub.report(asked.message.id, verdict, net.now)
        net.run()
    assert data_of(member) == delivered and reasons(traced) == reason
    tell(net, mock, message)
    assert data_of(member) == delivered and reasons(traced) == reason


def test_validators_fail_and_are_removed():
    net, member, mock, traced = pair()
    member.pubsub.set_validator("t", lambda message: 1 / 0)
    tell(net, mock, Author()())
    assert reasons(traced) == ["validation ignored"]
    member.pubsub.remove_validator("t")
    member.pubsub.remove_validator("unknown")
    tell(net, mock, Author()(b"y"))
    assert data_of(member) == [b"y"]
    member.pubsub.set_validator("u", later)
    member.pubsub.remove_validator("u")
    assert list(member.pubsub._topics) == [b"t"]
    with pytest.raises(LocalError):
        member.pubsub.set_validator("t", later, limit=0)
    with pytest.raises(LocalError):
        member.pubsub.report(b"id", "accept", net.now)


def test_too_many_messages_wait():
    net, member, mock, traced = pair(max_validating=5)
    member.pubsub.set_validator("t", later)
    author = Author()
    tell(net, mock, *[author(bytes([number])) for number in range(8)])
    assert len(member.of(ValidationRequested)) == 5
    assert reasons(traced) == ["validation throttled"] * 3


def test_a_verdict_that_does_not_come():
    net, member, mock, traced = pair(validation_timeout=5.0)
    member.pubsub.set_validator("t", later)
    tell(net, mock, Author()())
    net.wait(4)
    assert reasons(traced) == []
    net.wait(3)
    assert reasons(traced) == ["validation ignored"] and len(member.pubsub.validation) == 0


def test_a_verdict_that_comes_when_nobody_wants_the_message_any_more():
    net, member, mock, _ = pair()
    member.pubsub.set_validator("t", later)
    tell(net, mock, Author()(), Author()(b"y"))
    first, second = member.of(ValidationRequested)
    ((subscription,),) = [t.subscriptions for t in member.pubsub._topics.values()]
    member.pubsub.unsubscribe(subscription, net.now)
    assert member.pubsub.report(first.message.id, Verdict.ACCEPT, net.now)
    member.pubsub.remove_validator("t")
    mock.write(wire.subscriptions([(False, b"t")]))
    net.run()
    assert member.pubsub._topics == {}
    assert member.pubsub.report(second.message.id, Verdict.ACCEPT, net.now)
    net.run()
    assert data_of(member) == []


def test_the_subscription_filter():
    net, member, mock, _ = pair(subscription_filter=lambda topic: len(topic) < 4)
    with pytest.raises(LocalError, match="subscription_filter"):
        member.pubsub.subscribe("long", net.now)
    mock.subscribe("abc", "long")
    mock.write(wire.subscriptions([(True, b"\xff"), (True, b"")]))
    net.run()
    assert [event.topic for event in member.of(PeerSubscribed)] == ["t", "abc"]


def test_subscriptions_are_bounded():
    net, member, mock, _ = pair(max_topics_per_peer=3, max_topics=4)
    mock.subscribe(*"abcdef")
    net.run()
    assert [event.topic for event in member.of(PeerSubscribed)] == ["t", "a", "b"]
    mock.write(wire.subscriptions([(False, b"a"), (False, b"b"), (True, b"c")]))
    net.run()
    assert [event.topic for event in member.of(PeerSubscribed)] == ["t", "a", "b", "c"]
    member.pubsub.set_validator("x", later)
    member.pubsub.set_validator("y", later)
    mock.write(wire.subscriptions([(True, b"new"), (True, b"x"), (True, b"x")]))
    net.run()
    assert [event.topic for event in member.of(PeerSubscribed)][4:] == ["x"]


def test_seen_messages_are_forgotten():
    net, member, mock, _ = pair(seen_ttl=5.0)
    message = Author()()
    tell(net, mock, message)
    net.wait(4)
    tell(net, mock, message)
    net.wait(3)
    assert len(member.pubsub.seen) == 0
    tell(net, mock, message)
    assert data_of(member) == [b"x", b"x"]


def test_what_a_subclass_has_to_say():
    with pytest.raises(TypeError, match="route"):
        PubSub(PubSubConfig())


def test_everything_is_traced():
    net, member, mock, traced = pair()
    tell(net, mock, Author()())
    member.pubsub.publish("t", b"mine", net.now)
    net.run()
    kinds = {one.type for one in traced}
    assert kinds == {
        Type.JOIN, Type.ON_NEW_OUTBOUND_STREAM, Type.SEND_RPC, Type.RECV_RPC, Type.DELIVER_MESSAGE,
        Type.PUBLISH_MESSAGE,
    }  # fmt: skip
    net.cut(member, net.members[1])
    assert traced[-1].type is Type.ON_CLOSED_OUTBOUND_STREAM
    assert trace.decode(b"".join(map(trace.encode, traced))) == traced


def test_a_peer_that_reads_nothing_loses_messages_and_then_its_stream():
    net, member, mock, traced = pair(max_queue_bytes=100_000, max_queue_count=20)
    mock.reads = False
    for number in range(60):
        member.pubsub.publish("t", bytes([number]) * 10_000, net.now)
        net.run()
    assert member.pubsub.dropped > 0 and Type.DROP_RPC in {one.type for one in traced}
    (peer,) = member.pubsub.all_peers.values()
    assert peer.outbox.count <= 20 and peer.outbox.size <= 100_000
    for number in range(40):
        member.pubsub.subscribe(f"topic {number}", net.now)
    net.run()
    assert member.of(PubSubPeerRemoved) == []
    net.wait(0.05)
    assert len(member.of(PubSubPeerRemoved)) == 1 and peer.outbox is None
    mock.reads = True
    net.wait(1)
    assert len(mock.streams) == 2  # and the new one starts with all subscriptions
    assert len([rpc for rpc in mock.rpcs if len(rpc.subscriptions) == 41]) == 1


def test_a_peer_without_pubsub():
    net = Net()
    member, other = net.add(FloodSub()), net.add(Service())
    net.link(member, other)
    assert member.pubsub.all_peers == {} and member.pubsub.peers() == []
    net.cut(member, other)


def test_a_peer_that_did_not_say_what_it_speaks():
    net = Net()
    member, mock = net.add(FloodSub()), Mock("/floodsub/1.0.0")
    other = net.add(mock)
    # It is asked, since nobody knows; it speaks floodsub after all.
    failed = IdentifyFailed(1, other.id, TimedOut("no answer"))
    member.node.emit(failed)  # not connected
    member.pubsub.on_event = lambda event, now: None
    mock.on_event = lambda event, now: None
    net.link(member, other)
    del member.pubsub.on_event
    assert member.pubsub.peers() == []
    member.node.emit(failed)
    net.run()
    assert member.pubsub.peers() == [other.id]


def test_without_a_trace():
    net = Net()
    one, two = (net.add(FloodSub(max_queue())) for _ in range(2))
    net.link(one, two)
    subscription = two.pubsub.subscribe("t", net.now)
    net.run()
    one.pubsub.publish("t", b"x", net.now)
    net.run()
    assert data_of(two) == [b"x"]
    (raw,) = [event.message.raw for event in two.of(MessageReceived)]
    (peer,) = one.pubsub.all_peers.values()
    one.pubsub.send(peer, wire.publish([raw, raw[:-64] + bytes(64)]), Kind.OWN, net.now)
    net.run()
    assert data_of(two) == [b"x"]
    two_peer = two.pubsub.all_peers[one.id]
    two.pubsub.streams.abandon(two_peer, net.now)
    other = two.pubsub.subscribe("unheard of", net.now)
    net.run()
    assert one.pubsub.peers("unheard of") == []
    two.pubsub.unsubscribe(other, net.now)
    one.pubsub.send(peer, wire.publish([build(None, b"z", None, b"t").raw]), Kind.OWN, net.now)
    net.run()
    for _ in range(20):
        one.pubsub.send(peer, wire.publish([bytes(40_000)]), Kind.OWN, net.now)
    assert one.pubsub.dropped == 18
    net.wait(1)
    two.pubsub.unsubscribe(subscription, net.now)
    net.run()
    assert one.pubsub.peers("t") == []


def max_queue():
    return FloodConfig(max_queue_bytes=1)


def test_a_second_connection():
    net = Net()
    one, two = net.add(FloodSub()), net.add(FloodSub())
    for member, other in ((one, two), (two, one)):
        member.node.dial(other.id, [other.address], net.now)
    net.run()
    assert len(one.links) == 2
    two.pubsub.subscribe("t", net.now)
    net.run()
    for conn in list(one.links):
        one.pubsub.publish("t", bytes([conn % 256]), net.now)
        net.run()
        if len(one.links) == 2:
            net.drop(one, conn)
            net.wait(1)
    assert len(data_of(two)) == 2 and one.pubsub.peers("t") == [two.id]
    net.drop(one, next(iter(one.links)))
    assert one.pubsub.all_peers == two.pubsub.all_peers == {}
    net.wait(100)
    reasons = set(one.node.timers.reasons())
    assert reasons == {"pubsub heartbeat"}
