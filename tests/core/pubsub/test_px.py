import pytest
from core.kad.people import peer
from core.pubsub.net import NULL, Choice, make_key

from anyp2p_core import Limits, LocalError, Multiaddr
from anyp2p_core.envelope import seal_peer_record
from anyp2p_core.events import DialFailed, PeerConnected, PeerIdentified
from anyp2p_core.peerstore import Peerstore
from anyp2p_core.pubsub.config import GossipConfig
from anyp2p_core.pubsub.px import PeerExchange

OWN = make_key("own")


class Context:
    """A node of which only dials can be seen."""

    crypto = NULL
    peer_id = OWN.peer_id

    def __init__(self):
        self.choice = Choice(1)
        self.peers = Peerstore(Limits())
        self.connected = []
        self.dialed = []
        self.at_once = None

    def connections(self, peer):
        return [peer] if peer in self.connected else []

    def dial(self, peer, addresses, now, *, hearsay):
        assert hearsay
        self.dialed.append((peer, addresses))
        if self.at_once is not None:
            self.at_once(len(self.dialed))
        return len(self.dialed)


def named(number, address=None, *, key=None, raw=None):
    key = key or make_key(number)
    address = Multiaddr(address or f"/ip4/8.8.{number >> 8}.{number & 255}/tcp/1")
    return raw or bytes(key.peer_id), seal_peer_record(key, 1, [address])


def make(**options):
    context = Context()
    return PeerExchange(context, GossipConfig(**options)), context


def test_records_are_passed_on():
    px, context = make()
    peers = [make_key(number).peer_id for number in range(8)]
    for number, size in enumerate((100, 0, 2048, 2049, 2048, 2048, 2048, 2048)):
        context.peers.learn(peers[number]).record = bytes(size)
    stranger = peer(1)
    found = px.records([*peers, stranger])
    assert [len(record) for _, record in found] == [100, 2048, 2048, 2048, 2048]
    assert found[0] == (bytes(peers[0]), bytes(100))


def test_who_is_named_is_dialed():
    px, context = make()
    px.learn([named(1)], 0.0)
    ((who, addresses),) = context.dialed
    assert who == make_key(1).peer_id and addresses == [Multiaddr("/ip4/8.8.0.1/tcp/1")]
    assert px.pending == 1
    px.on_event(PeerConnected(1, who, 5), 0.0)
    assert px.pending == 0


@pytest.mark.parametrize(
    "one",
    [
        (bytes(make_key(1).peer_id), b""),
        (bytes(make_key(1).peer_id), b"junk"),
        named(1, raw=bytes(make_key(2).peer_id)),
        named(0, key=OWN),
        named(7),  # connected
    ],
)
def test_who_is_not(one):
    px, context = make()
    context.connected.append(make_key(7).peer_id)
    px.learn([one], 0.0)
    assert context.dialed == [] and px.pending == 0


def test_only_some_at_once():
    px, context = make(px_connectors=2, prune_peers=16)
    px.learn([named(number) for number in range(1, 6)], 0.0)
    assert len(context.dialed) == 2 and px.pending == 5
    px.on_event(DialFailed(1, OSError()), 0.0)
    assert len(context.dialed) == 3
    px.on_event(DialFailed(77, OSError()), 0.0)  # not ours
    px.on_event(PeerIdentified(1, OWN.peer_id, None, False), 0.0)
    assert len(context.dialed) == 3
    waiting = {make_key(number).peer_id for number in range(1, 6)}
    waiting -= {who for who, _ in context.dialed}
    context.connected += waiting  # in another way
    px.on_event(DialFailed(2, OSError()), 0.0)
    px.on_event(DialFailed(3, OSError()), 0.0)
    assert len(context.dialed) == 3 and px.pending == 0


def test_the_number_is_bounded():
    px, _ = make(px_connectors=2, px_pending=5, prune_peers=4)
    px.learn([named(number) for number in range(10)], 0.0)
    assert px.pending == 4
    px.learn([named(number) for number in range(20, 30)], 0.0)
    assert px.pending == 5


def test_one_address_is_dialed_once_a_minute():
    px, context = make()
    for now in (0.0, 1.0, 59.0):
        px.learn([named(number, "/ip4/8.8.8.8/tcp/1") for number in range(5)], now)
        assert len(context.dialed) == 1
    px.learn([named(9, "/ip4/8.8.8.8/tcp/2")], 61.0)
    assert len(context.dialed) == 2


def test_a_dial_that_is_over_at_once():
    px, context = make()
    context.at_once = lambda dial: px.on_event(DialFailed(dial, OSError()), 0.0)
    px.learn([named(1), named(2)], 0.0)
    assert len(context.dialed) == 2 and px.pending == 0


def test_a_dial_that_is_refused():
    px, context = make()

    def refuse(dial):
        raise LocalError("too many")

    context.at_once = refuse
    px.learn([named(1), named(2)], 0.0)
    assert len(context.dialed) == 2 and px.pending == 0
