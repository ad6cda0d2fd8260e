"""What is done without being asked: filling the table, repeating, cleaning up."""

import pytest
from core.kad.net import SMALL, Net, introduce
from core.kad.people import peer

from anyp2p_core.errors import DialError, LocalError
from anyp2p_core.kad.config import KadConfig
from anyp2p_core.kad.events import DhtBootstrapped, DhtFailed
from anyp2p_core.kad.maintenance import MAX_BOOTSTRAP, MAX_REPUBLISHING
from anyp2p_core.kad.messages import Message
from anyp2p_core.kad.providers import REPUBLISH, RETRY
from anyp2p_core.kad.query import Walk
from anyp2p_core.kad.store import MemoryStore
from anyp2p_core.limits import Limits
from anyp2p_core.multiaddr import Multiaddr

HOUR = 3600.0
KEY = b"\x12\x20" + bytes(32)


def starters(net, count, **config):
    """Servers that know each other."""
    members = net.servers(count, **config)
    net.acquaint(*members)
    return members


def test_bootstrap_fills_the_table():
    net = Net()
    first, *_ = starters(net, 9)
    me = net.add(KadConfig(walk=SMALL, bootstrap=(first.full,)))
    event = net.call(me, "bootstrap")
    assert isinstance(event, DhtBootstrapped) and event.size == len(me.knows()) >= 8
    assert not me.kad._maintenance.waiting


def test_nobody_to_bootstrap_from():
    net = Net()
    nowhere = Multiaddr(f"/ip4/127.9.9.9/tcp/1/p2p/{peer(1)}")
    for bootstrap in ((), (nowhere,)):
        me = net.add(KadConfig(walk=SMALL, bootstrap=bootstrap))
        event = net.call(me, "bootstrap")
        assert isinstance(event, DhtFailed) and isinstance(event.error, DialError)
    # Ourselves among them: we are not asked.
    me = net.add(KadConfig(walk=SMALL))
    me.kad.config.bootstrap = (me.full,)
    assert isinstance(net.call(me, "bootstrap"), DhtFailed)
    assert me.dialed == []


def test_what_cannot_be_dialed_is_left_out():
    net = Net()
    (server,) = starters(net, 1)
    me = net.add(KadConfig(walk=SMALL, bootstrap=(server.full,)))
    me.node.limits.max_connections = 0
    assert isinstance(net.call(me, "bootstrap"), DhtFailed)


def test_bootstrapping_ends_in_time_when_all_are_silent():
    net = Net()
    members = [net.puppet(lambda request, stream: None) for _ in range(5)]
    me = net.add(KadConfig(walk=SMALL, bootstrap=tuple(one.full for one in members)))
    request = net.start(me, "bootstrap")
    net.wait(10)
    assert isinstance(me.result(request), DhtFailed)


def test_bootstraps_share_one_refresh_and_can_be_cancelled():
    net = Net()
    first, *_ = starters(net, 5)
    me = net.add(KadConfig(walk=SMALL, bootstrap=(first.full,)))
    requests = [me.kad.bootstrap(net.now) for _ in range(3)]
    me.kad.cancel(requests[1], net.now)
    me.kad.cancel(requests[1], net.now)
    net.touch(me)
    net.run()
    assert [len(me.results(one)) for one in requests] == [1, 0, 1]
    # All are told of the same, however often the first peer was asked.
    assert {me.result(one).size for one in (requests[0], requests[2])} == {len(me.knows())}


def test_a_nearly_empty_table_asks_bootstrap_peers_again():
    net = Net()
    puppets = [net.puppet(lambda request, stream: Message(request.type)) for _ in range(5)]
    me = net.add(KadConfig(walk=SMALL, bootstrap=tuple(one.full for one in puppets), low_peers=4))
    me.kad.start(net.now)
    me.kad.start(net.now)
    net.touch(me)
    net.run()
    assert len(me.knows()) == MAX_BOOTSTRAP
    net.wait(119)
    assert len(me.knows()) == MAX_BOOTSTRAP
    net.wait(600)
    assert 4 <= len(me.knows()) <= 5
    before = me.knows()
    net.wait(600)
    assert me.knows() == before  # enough: nobody else is asked


def test_refresh_meets_those_that_came_later():
    net = Net()
    members = starters(net, 6)
    net.connect(members[0], members[1])
    late = net.add()
    net.connect(late, members[5])
    net.wait(1300)
    assert late.peer in members[0].knows()
    assert len(late.knows()) >= 5


def test_the_size_of_the_network_is_learned():
    net = Net()
    members = starters(net, 30)
    me = members[0]
    me.kad.start(net.now)
    net.wait(1900)
    assert 15 <= me.kad.size.estimate <= 60


def test_refresh_without_anybody():
    net = Net()
    me = net.add()
    me.kad.start(net.now)
    net.wait(1300)
    assert me.events == [] and me.kad.size.estimate is None
    reasons = sorted(one for one in me.node.timers.reasons() if one.startswith("kad"))
    assert reasons == ["kad refresh", "kad republish", "kad sweep"]


def holders(members, key, wall):
    return [one for one in members if one.kad.store.providers(key, wall)]


def provide(net, me, key=KEY):
    event = net.call(me, "provide", key)
    assert event.holders
    return net.now


def test_republished_after_22_hours_before_it_expires_after_48():
    net = Net(limits=Limits(keepalive_interval=1e6))
    members = starters(net, 6, refresh_interval=6 * HOUR, republish_check=100.0)
    me = members[0]
    at = provide(net, me)

    def until():
        """When the first holder forgets it."""
        books = [one.kad.store._providers._keys.get(KEY, {}) for one in members[1:]]
        return min(book[me.peer] for book in books if book) - me.node.wall(0)

    assert until() == at + 48 * HOUR
    net.wait(22 * HOUR - 1)
    assert until() == at + 48 * HOUR
    net.wait(120)
    assert at + 70 * HOUR <= until() <= at + 70 * HOUR + 120
    # And again, until we stop.
    me.kad.stop_providing(KEY)
    net.wait(50 * HOUR)
    assert holders(members, KEY, me.node.wall(net.now)) == []
    assert all(len(one.kad.store._providers) == 0 for one in members)  # swept


def test_keys_of_an_earlier_run_are_provided_again():
    net = Net()
    store = MemoryStore()
    members = starters(net, 4)
    keys = [b"\x12\x20" + b"%032d" % n for n in range(3 * MAX_REPUBLISHING)]
    for key in keys:
        store.set_own(key, members[0].node.wall(net.now) - REPUBLISH)
    me = net.add(KadConfig(walk=SMALL), store=store)
    for one in members:
        introduce(me.kad, one, net.now)
    me.kad.start(net.now)
    net.wait(61)
    wall = me.node.wall(net.now)
    assert all(holders(members, key, wall) for key in keys)
    assert min(store.own_keys().values()) >= wall - 10
    assert not me.kad._maintenance._republishing


def test_nothing_is_said_while_nobody_could_be_told():
    net = Net()
    store = MemoryStore()
    store.set_own(KEY, 0.0)
    me = net.add(KadConfig(walk=SMALL), store=store, announce=[])
    (other,) = starters(net, 1)
    me.kad.start(net.now)
    net.wait(200)
    introduce(me.kad, other, net.now)
    net.wait(200)
    assert me.dialed == []  # without an address there is nothing to say
    me.node.listening([me.address], net.now)
    net.wait(61)
    assert holders([other], KEY, me.node.wall(net.now))


def test_what_fails_is_tried_again_and_blocks_nobody():
    net = Net()
    store = MemoryStore()
    for number in range(MAX_REPUBLISHING + 1):
        store.set_own(b"%d" % number, 0.0)
    me = net.add(KadConfig(walk=SMALL), store=store)
    (other,) = starters(net, 1)
    introduce(me.kad, other, net.now)
    other.silent = True
    me.kad.start(net.now)
    net.wait(140)
    due = me.kad.own_keys.due(me.node.wall(net.now), 9)
    assert due == []  # all have had their turn
    other.silent = False
    net.wait(2 * RETRY)
    wall = me.node.wall(net.now)
    assert all(holders([other], b"%d" % n, wall) for n in range(MAX_REPUBLISHING + 1))


def test_slow_republishing_does_not_pile_up():
    net = Net()
    store = MemoryStore()
    for number in range(20):
        store.set_own(b"%d" % number, 0.0)
    me = net.add(KadConfig(walk=Walk(k=4, beta=4, alpha=3, timeout=500.0, peer_timeout=400.0)),
                 store=store)  # fmt: skip
    (other,) = starters(net, 1)
    introduce(me.kad, other, net.now)
    other.silent = True
    me.kad.start(net.now)
    net.wait(300)
    assert len(me.kad._operations) == MAX_REPUBLISHING


class Broken(MemoryStore):
    """A store whose disk is full."""

    def sweep(self, wall):
        raise LocalError("the disk is full")


def test_a_store_that_fails_to_sweep_is_asked_again():
    net = Net()
    me = net.add(KadConfig(walk=SMALL, sweep_interval=10.0), store=Broken())
    me.kad.start(net.now)
    net.wait(100)
    assert "kad sweep" in me.node.timers.reasons()


@pytest.mark.parametrize("seed", range(3))
def test_everybody_learns_of_their_neighbours(seed):
    net = Net(seed)
    members = net.servers(12)
    net.join(*members)
    for one in members:
        others = [other for other in members if other is not one]
        nearest = {other.peer for other in net.closest(bytes(one.peer), others)[:4]}
        # The last of them may fall into a bucket that is full of others.
        assert len(nearest & one.knows()) >= 3
