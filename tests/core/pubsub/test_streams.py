from contextlib import suppress

import pytest
from core.pubsub.net import Mock, Net, duel

from anyp2p_core import LimitReached, Limits
from anyp2p_core.pubsub import rpc as wire
from anyp2p_core.pubsub.config import FloodConfig, GossipConfig
from anyp2p_core.pubsub.events import PubSubPeerAdded, PubSubPeerRemoved
from anyp2p_core.pubsub.floodsub import FloodSub
from anyp2p_core.pubsub.gossipsub import GossipSub
from anyp2p_core.varint import encode as varint

ONE = "/floodsub/1.0.0"


def make(**options):
    net, member, mock = duel(FloodSub(FloodConfig(**options)), ONE)
    member.pubsub.subscribe("t", net.now)
    net.run()
    return net, member, mock


def the_peer(member):
    (peer,) = member.pubsub.all_peers.values()
    return peer


@pytest.mark.parametrize(
    ("spoken", "agreed", "version"),
    [
        (("/meshsub/1.3.0", "/meshsub/1.0.0"), "/meshsub/1.3.0", 3),
        (("/meshsub/1.0.0", "/meshsub/1.2.0"), "/meshsub/1.2.0", 2),
        (("/floodsub/1.0.0", "/meshsub/1.1.0"), "/meshsub/1.1.0", 1),
        (("/meshsub/1.0.0",), "/meshsub/1.0.0", 0),
        (("/floodsub/1.0.0",), "/floodsub/1.0.0", -1),
    ],
)
def test_the_best_that_a_peer_speaks(spoken, agreed, version):
    net = Net()
    member, mock = net.add(GossipSub(GossipConfig())), Mock(*spoken)
    mock.on_event = lambda event, now: None
    net.add(mock)
    net.link(net.members[1], member)
    assert mock.streams[0][1] == agreed
    assert the_peer(member).version == version and the_peer(member).protocol == agreed


def test_who_dialed():
    net, member, _ = make()
    assert not the_peer(member).outbound
    net = Net()
    member, other = net.add(FloodSub()), net.add(Mock(ONE))
    net.link(member, other)
    assert the_peer(member).outbound


def test_a_stream_that_the_peer_resets_is_opened_again_some_times():
    net, member, mock = make()
    for number in range(1, 7):
        mock.streams[-1][0].reset()
        mock.context.touch(mock.connection)
        net.run()
        assert member.pubsub.peers() == []
        net.wait(0.05)
        assert len(mock.streams) == min(number, 4)
        net.wait(3)
        assert len(mock.streams) == min(number + 1, 4)
    assert len(member.of(PubSubPeerAdded)) == len(member.of(PubSubPeerRemoved)) == 4
    # After a while it is tried again when there is a reason to.
    net.wait(600)
    mock.out.reset()
    mock.open(member.id, net.now)
    net.run()
    assert len(mock.streams) == 5 and len(member.pubsub.peers()) == 1


def test_what_the_peer_writes_on_our_stream_is_dropped():
    net, member, mock = make()
    stream, _ = mock.streams[0]
    stream.write(bytes(300_000))
    stream.write_eof()  # it closes its direction, which does not matter
    mock.context.touch(mock.connection)
    net.run()
    assert member.pubsub.peers() == [net.members[1].id]
    member.pubsub.subscribe("u", net.now)
    net.run()
    assert mock.rpcs[-1].subscriptions == [(True, b"u")]


def test_a_peer_that_refuses_what_it_announced():
    net = Net()
    member, mock = net.add(FloodSub()), Mock(ONE)
    other = net.add(mock)
    mock.on_event = lambda event, now: None
    mock.on_stream = lambda connection, stream, protocol, now: stream.reset()
    net.link(other, member)
    net.wait(20)
    assert member.pubsub.peers() == []
    assert len(member.of(PubSubPeerAdded)) == len(member.of(PubSubPeerRemoved)) == 4
    assert len(member.node.connections()) == 1


def test_a_peer_that_speaks_none_of_several():
    net = Net()
    member, other = net.add(GossipSub()), net.add(Mock(ONE))
    other.pubsub.on_event = lambda event, now: None
    net.link(member, other)
    pubsub, peer = member.pubsub, the_peer(member)
    pubsub.streams.abandon(peer, net.now)
    pubsub.streams.open(peer, ("/meshsub/1.1.0", "/meshsub/1.0.0"), net.now)
    net.run()
    assert peer.outbox is None and not peer.opening
    pubsub.streams.abandon(peer, net.now)  # there is nothing to abandon


def test_a_peer_that_does_not_speak_what_was_assumed():
    net, member, mock = make()
    pubsub, peer = member.pubsub, the_peer(member)
    pubsub.streams.abandon(peer, net.now)
    net.run()
    assert len(mock.streams) == 1
    pubsub.streams.open(peer, ("/meshsub/1.0.0",), net.now)
    assert peer.outbox is not None  # until the refusal comes
    net.run()
    assert peer.outbox is None
    net.wait(20)
    assert len(member.of(PubSubPeerRemoved)) == 4


def test_no_stream_can_be_opened():
    net = Net()
    member = net.add(FloodSub(), limits=Limits(max_outbound_streams=2))
    mock = Mock(ONE)
    other = net.add(mock)
    mock.on_event = lambda event, now: None
    streams = member.pubsub.streams
    open_, taken = streams.open, []

    def full(peer, protocols, now):
        (connection,) = member.node.connections(peer.id)
        with suppress(LimitReached):
            while True:
                taken.append(connection.open_stream(("/x",), lambda *a: None, lambda *a: None, now))
        open_(peer, protocols, now)
        streams.open = open_

    streams.open = full
    net.link(member, other)
    assert member.pubsub.peers() == [] and taken
    net.wait(5)
    assert member.pubsub.peers() == [other.id]


def test_opening_twice_is_once():
    net, member, mock = make()
    pubsub, peer = member.pubsub, the_peer(member)
    pubsub.streams.open(peer, (ONE,), net.now)
    pubsub.streams.abandon(peer, net.now)
    peer.attempts = 0
    pubsub.streams.open(peer, (), net.now)
    pubsub.streams.open(peer, ("/meshsub/1.0.0", ONE), net.now)
    assert peer.opening
    pubsub.streams.open(peer, (ONE,), net.now)
    net.run()
    assert len(mock.streams) == 2 and not peer.opening


def test_a_stream_that_opens_when_its_peer_has_gone():
    net, member, _ = make()
    pubsub, peer = member.pubsub, the_peer(member)
    pubsub.streams.abandon(peer, net.now)
    peer.attempts = 0
    pubsub.streams.open(peer, ("/meshsub/1.0.0", ONE), net.now)
    del pubsub.all_peers[peer.id]
    net.run()
    assert peer.outbox is None and pubsub.peers() == []


def test_a_second_stream_of_a_peer_replaces_the_first():
    net, member, mock = make()
    first = mock.out
    mock.subscribe("a")
    net.run()
    mock.open(member.id, net.now)
    mock.subscribe("b")
    net.run()
    assert first.is_reset
    assert {topic.name for topic in the_peer(member).topics} == {"a", "b"}
    assert not mock.out.is_reset


def test_the_end_of_a_stream():
    net, member, mock = make()
    mock.subscribe("a")
    mock.out.write_eof()
    net.run()
    assert the_peer(member).inbound is None and mock.out.eof_received
    assert member.pubsub.peers("a") == [net.members[1].id]


@pytest.mark.parametrize("cut", [1, 3, 1000])
def test_rpcs_in_pieces(cut):
    net, member, mock = make()
    data = b"".join(wire.subscriptions([(True, bytes([letter]))]) for letter in b"abcdefgh")
    for at in range(0, len(data), cut):
        mock.raw(data[at : at + cut])
        net.run()
    assert [topic.name for topic in the_peer(member).topics] == list("abcdefgh")
    assert member.pubsub.streams.held == 0


@pytest.mark.parametrize("data", [varint(2000), b"\x80\x00", b"\x02\x12\x05"])
def test_what_is_no_rpc_ends_the_stream(data):
    net, member, mock = make(max_rpc=1999)
    malformed = []
    member.pubsub.on_malformed = lambda peer, now: malformed.append(peer)
    mock.raw(data)
    net.run()
    assert mock.resets == 1 and malformed == [the_peer(member)]
    assert member.pubsub.peers() == [net.members[1].id]


def test_nothing_is_read_any_more_when_an_rpc_was_the_last():
    net, member, mock = make()
    pubsub = member.pubsub
    rpcs = []

    def on_rpc(peer, data, now):
        rpcs.append(data)
        peer.inbound.close(now)

    pubsub.on_rpc = on_rpc
    mock.subscribe("a")
    mock.subscribe("b")
    net.run()
    assert len(rpcs) == 1


def test_who_holds_most_is_cut_off_when_all_hold_too_much():
    net = Net()
    member = net.add(FloodSub(FloodConfig(max_rpc=50_000, max_held=100_000)))
    mocks = [Mock(ONE) for _ in range(4)]
    for mock in mocks:
        net.link(net.add(mock), member)
    for mock, size in zip(mocks, (30_000, 45_000, 20_000, 4_000), strict=True):
        mock.raw(varint(50_000) + bytes(size))
        net.run()
        assert member.pubsub.streams.held <= 100_000
    mocks[3].raw(bytes(2_000))
    net.run()
    assert [mock.resets for mock in mocks] == [0, 1, 0, 0]
    assert member.pubsub.streams.held == 56_000 + 9
    for other in net.members[1:]:
        net.cut(member, other)
    assert member.pubsub.streams.held == 0 and member.pubsub.all_peers == {}


def test_what_is_incomplete_is_forgotten_with_its_stream():
    net, member, mock = make()
    mock.raw(varint(500) + bytes(100))
    net.run()
    assert member.pubsub.streams.held == 102
    mock.out.reset()
    mock.context.touch(mock.connection)
    net.run()
    assert member.pubsub.streams.held == 0


def test_a_connection_that_is_lost_after_the_end_of_a_stream():
    net, member, mock = make()
    (conn,) = member.links
    member.node.blocked(conn, True, net.now)  # so that our end of it is not sent
    mock.out.write_eof()
    mock.context.touch(mock.connection)
    net.run()
    assert the_peer(member).inbound is None
    net.cut(member, net.members[1])
    assert member.pubsub.all_peers == {}
