"""Who enters the table and who leaves it."""

from core.kad.net import SMALL, Net, introduce
from core.kad.people import peer
from core.kad.test_requests import echo

from anyp2p_core.kad.addresses import Reach
from anyp2p_core.kad.config import KadConfig
from anyp2p_core.kad.events import DhtTableChanged
from anyp2p_core.kad.messages import LAN_PROTOCOL, PROTOCOL, Type
from anyp2p_core.kad.table import GRACE
from anyp2p_core.multiaddr import Multiaddr


def client(net, **config):
    return net.add(KadConfig(walk=SMALL, **config))


def changes(member):
    return [(one.peer, one.added, one.size) for one in member.of(DhtTableChanged)]


def test_servers_are_probed_and_kept():
    net = Net()
    me, server = client(net), net.add()
    net.connect(me, server)
    assert me.knows() == {server.peer}
    assert changes(me) == [(server.peer, True, 1)]
    assert me.of(DhtTableChanged)[0].protocol == PROTOCOL
    assert server.knows() == set()  # nobody asks a client


def test_row_84_whoever_does_not_answer_stays_out():
    net = Net()
    me, mute = client(net), net.puppet(lambda request, stream: None)
    net.connect(me, mute)
    assert me.knows() == set()
    assert [one.type for one in mute.puppet.requests] == [Type.FIND_NODE]
    net.wait(60)
    assert me.knows() == set() and changes(me) == []
    assert len(mute.puppet.requests) == 1 and not me.kad.members._probes


def test_a_client_that_becomes_a_server_and_back():
    net = Net()
    me, other = client(net), client(net)
    net.connect(me, other)
    assert me.knows() == set()
    other.kad.set_server(True, net.now)
    net.touch(other)
    net.wait(1)
    assert me.knows() == {other.peer}
    other.kad.set_server(False, net.now)
    net.touch(other)
    net.wait(1)
    assert me.knows() == set()
    assert [added for _, added, _ in changes(me)] == [True, False]


def test_other_networks_are_none_of_ours():
    net = Net()
    me = client(net)
    stranger = net.add(KadConfig(server=True, protocol="/other/kad/1.0.0"))
    net.connect(me, stranger)
    assert me.knows() == set()


def test_addresses_of_another_reach_do_not_count():
    net = Net()
    me = net.add(
        KadConfig(walk=SMALL, reach=Reach.WAN),
        KadConfig(walk=SMALL, reach=Reach.LAN, protocol=LAN_PROTOCOL),
    )
    both = [
        KadConfig(server=True, walk=SMALL, reach=Reach.WAN),
        KadConfig(server=True, walk=SMALL, reach=Reach.LAN, protocol=LAN_PROTOCOL),
    ]
    near = net.add(*both)
    far = net.add(*both, address="/ip4/130.1.2.3/tcp/4001")
    net.connect(me, near)
    net.connect(me, far)
    wan, lan = me.kads
    assert [one.peer for one in wan.table.entries()] == [far.peer]
    assert [one.peer for one in lan.table.entries()] == [near.peer]
    # Also when it answers, for whatever reason it was asked.
    wan.members.on_useful(near.peer, net.now)
    assert near.peer not in wan.table


def test_it_leaves_when_it_fails_and_stays_when_that_is_our_fault():
    net = Net()
    me, one, other = client(net), net.add(), net.add()
    net.connect(me, one)
    net.connect(me, other)
    net.kill(one)
    net.call(me, "closest_peers", b"key")
    assert me.knows() == {other.peer}
    # Offline: everybody fails, and nobody is to blame.
    net.kill(other)
    net.call(me, "closest_peers", b"key")
    assert me.knows() == {other.peer}


def test_so_many_are_probed_at_once():
    net = Net()
    me = client(net, max_probes=2)
    mutes = [net.puppet(lambda request, stream: None) for _ in range(4)]
    for mute in mutes:
        net.connect(me, mute)
    assert [len(mute.puppet.requests) for mute in mutes] == [1, 1, 0, 0]
    # The same one is not asked twice at a time.
    me.kad.members.on_server(mutes[0].peer, net.now)
    me.kad.config.max_probes = 9
    me.kad.members.on_server(mutes[0].peer, net.now)
    net.touch(me)
    net.run()
    assert len(mutes[0].puppet.requests) == 1


def test_a_member_that_moves():
    net = Net()
    me, server = client(net), net.add()
    net.connect(me, server)
    moved = Multiaddr("/ip4/127.0.0.99/tcp/1")
    server.node.listening([moved], net.now)
    net.touch(server)
    net.wait(1)
    assert moved in me.kad.table.get(server.peer).addresses
    assert len(changes(me)) == 1


def test_row_82_few_of_one_network():
    net = Net()
    me = net.add(KadConfig(walk=SMALL, max_per_group=2))
    for number in range(4):
        net.connect(me, net.add(address=f"/ip4/130.1.{number}.1/tcp/4001"))
    assert len(me.knows()) == 2
    # Already before they are asked.
    assert not me.kad.members._probes
    entry = me.kad.table.entries()[0]
    assert entry.groups == (b"\x04\x82\x01",)


def test_crowded_when_they_answer():
    net = Net()
    me = net.add(KadConfig(walk=SMALL, max_per_group=1))
    mutes = [
        net.puppet(echo, address=f"/ip4/130.1.{number}.1/tcp/4001", announce=[])
        for number in range(2)
    ]
    for mute in mutes:
        net.connect(me, mute)
        introduce_address(me, mute, net)
        me.kad.members.on_useful(mute.peer, net.now)
    assert me.knows() == {mutes[0].peer}


def introduce_address(me, other, net):
    me.node.peers.add_addresses(other.peer, [other.address], net.now)


def test_a_probe_that_cannot_be_sent():
    net = Net()
    me, other = client(net), net.add()
    introduce(me.kad, other, net.now)
    me.kad.members.probe_all(me.kad.table.entries(), net.now)
    net.touch(me)
    net.run()
    assert me.knows() == {other.peer} and me.node.is_connected(other.peer)
    me.kad.table.add(peer(5), net.now)
    me.kad.members.probe_all(me.kad.table.entries(), net.now)
    net.run()
    assert me.knows() == {other.peer}  # nobody knows where that one is


def test_members_that_were_silent_for_long_are_asked():
    net = Net()
    me = client(net)
    members = net.servers(12)
    for one in members:
        introduce(me.kad, one, net.now)
        net.kill(one)
    net.connect(me, net.add())
    net.now += GRACE
    stale = len(me.kad.table.stale(net.now))
    assert stale >= 8
    me.kad.members.probe_all(me.kad.table.stale(net.now), net.now)
    net.touch(me)
    net.run()
    assert len(me.kad.table.stale(net.now)) == stale - 8  # so many at a time


def test_where_a_member_was_is_remembered_longer_than_elsewhere():
    net = Net()
    me, other = client(net), net.add()
    introduce(me.kad, other, net.now)
    me.node.peers.set_addresses(other.peer, [], net.now)
    assert me.kad.addresses(other.peer, net.now) == [other.address]
    assert me.kad.addresses(peer(1), net.now) == []
    assert me.kad.addresses(me.peer, net.now) == [me.address]
