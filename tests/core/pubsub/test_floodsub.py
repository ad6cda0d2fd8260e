import pytest
from core.pubsub.net import Net, duel

from anyp2p_core.pubsub import rpc as wire
from anyp2p_core.pubsub.config import FloodConfig
from anyp2p_core.pubsub.events import MessageReceived
from anyp2p_core.pubsub.floodsub import FloodSub


def line(count, **options):
    net = Net(**options)
    for _ in range(count):
        net.add(FloodSub())
    for one, other in zip(net.members, net.members[1:], strict=False):
        net.link(one, other)
    for member in net.members:
        member.pubsub.subscribe("t", net.now)
    net.run()
    return net


def test_a_message_goes_down_the_line_and_nowhere_twice():
    net = line(5)
    data = b"hello"
    message_id = net.members[1].pubsub.publish("t", data, net.now)
    net.run()
    counts = [len(member.of(MessageReceived)) for member in net.members]
    assert counts == [1, 0, 1, 1, 1]
    event = net.members[4].of(MessageReceived)[0]
    assert event.topic == "t" and event.message.data == data and event.message.id == message_id
    assert event.message.author == net.members[1].id
    assert event.message.received_from == net.members[3].id


def test_a_ring_ends():
    net = line(4)
    net.link(net.members[3], net.members[0])
    net.members[0].pubsub.publish("t", b"x", net.now)
    net.run()
    assert [len(member.of(MessageReceived)) for member in net.members] == [0, 1, 1, 1]


def test_who_did_not_subscribe_does_not_get_it():
    net = Net()
    one, two, three = (net.add(FloodSub(FloodConfig())) for _ in range(3))
    net.link(one, two)
    net.link(one, three)
    two.pubsub.subscribe("t", net.now)
    net.run()
    assert one.pubsub.peers("t") == [two.id]
    one.pubsub.publish("t", b"x", net.now)
    net.run()
    assert len(two.of(MessageReceived)) == 1 and not three.of(MessageReceived)


@pytest.mark.parametrize("size", [10, 100_000, 1_000_000])
def test_any_size(size):
    net = line(3)
    net.members[0].pubsub.publish("t", bytes(size), net.now)
    net.run()
    assert [len(m.message.data) for m in net.members[2].of(MessageReceived)] == [size]


def test_a_stranger_sees_floodsub():
    net, member, mock = duel(FloodSub(), "/floodsub/1.0.0")
    member.pubsub.subscribe("t", net.now)
    mock.subscribe("t")
    net.run()
    member.pubsub.publish("t", b"x", net.now)
    net.run()
    assert mock.rpcs[0].subscriptions == [(True, b"t")]
    assert [one.data for one in mock.messages()] == [b"x"]
    assert mock.streams[0][1] == "/floodsub/1.0.0"
    (raw,) = mock.rpcs[-1].publish
    mock.write(wire.publish([raw]))  # back to its author
    net.run()
    assert len(mock.messages()) == 1 and not member.of(MessageReceived)
