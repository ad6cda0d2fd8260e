from core.kad.people import peer

from anyp2p_core.pubsub.outbox import Kind
from anyp2p_core.pubsub.peers import Peer, Topic, unwanted_key
from anyp2p_core.pubsub.signing import SignaturePolicy
from anyp2p_core.pubsub.validation import Rule, later


def test_a_peer():
    one = Peer(peer(1), direct=True)
    one.protocol = "/meshsub/1.1.0"
    assert repr(one) == f"<Peer {peer(1)} /meshsub/1.1.0>"
    assert one.raw == bytes(peer(1)) and one.direct and one.version == -1
    assert {one: 1}[one] == 1 and one != Peer(peer(1), direct=True)


def test_what_a_peer_does_not_want():
    one = Peer(peer(1), direct=False)
    short, long = b"i" * 64, b"i" * 200
    one.unwanted[unwanted_key(short)] = 1
    assert one.is_unwanted(short) and not one.is_unwanted(long)
    one.unwanted[unwanted_key(long)] = 1
    assert one.is_unwanted(long) and len(unwanted_key(long)) == 32


def test_a_topic():
    topic = Topic("tö".encode(), SignaturePolicy.STRICT_SIGN, None)
    assert topic.name == "tö" and repr(topic) == "<Topic 'tö'>"
    assert Topic(b"\xff", SignaturePolicy.STRICT_SIGN, None).name == "\ufffd"


def test_who_would_miss_a_topic():
    def make():
        return Topic(b"t", SignaturePolicy.STRICT_SIGN, None)

    assert make().is_idle
    topic = make()
    topic.peers[Peer(peer(1), direct=False)] = None
    assert not topic.is_idle
    topic = make()
    topic.subscriptions = (1,)
    assert not topic.is_idle
    topic = make()
    topic.rule = Rule(later)
    assert not topic.is_idle
    topic = make()
    topic.fanout = {}
    assert not topic.is_idle


def test_kinds_are_ordered_by_importance():
    assert Kind.CONTROL < Kind.OWN < Kind.FORWARD < Kind.GOSSIP
