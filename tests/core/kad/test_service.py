"""The service: commands and what they refuse, modes, streams of others, and whole networks."""

import pytest
from core.kad.net import SMALL, Broken, LongestValue, Net, introduce
from core.kad.people import peer, public
from core.kad.test_operation import KEY, idle

from anyp2p_core.errors import LocalError
from anyp2p_core.kad import messages
from anyp2p_core.kad.addresses import Reach
from anyp2p_core.kad.config import KadConfig
from anyp2p_core.kad.events import (
    DhtClosestFound,
    DhtFailed,
    DhtModeChanged,
    DhtPeerFound,
    DhtProviderFound,
    DhtValueFound,
)
from anyp2p_core.kad.messages import LAN_PROTOCOL, PROTOCOL, Message, Record, Type
from anyp2p_core.kad.service import Kad
from anyp2p_core.kad.store import MemoryStore
from anyp2p_core.limits import Limits
from anyp2p_core.varint import Delimited, delimited

HOUR = 3600.0
QUIET = Limits(keepalive_interval=1e6)
"""Days pass faster without pings."""


class Raw:
    """A stream of the protocol, opened by hand."""

    def __init__(self, net, me, other, protocol=PROTOCOL):
        self.net, self.me = net, me
        self.frames = Delimited(messages.MAX_RESPONSE)
        self.answers = []
        self.ended = None
        self.connection = me.node.connection(other.peer)
        self.connection.open_stream((protocol,), self.opened, self.failed, net.now)
        self.flush()

    def opened(self, stream, protocol, now):
        self.stream = stream
        stream.on_data = self.on_data
        stream.on_eof = lambda now: setattr(self, "ended", "eof")
        stream.on_reset = lambda code, now: setattr(self, "ended", code)

    def failed(self, error, now):
        self.ended = error

    def on_data(self, data, now):
        self.stream.credit(len(data), now)
        self.answers += [messages.MESSAGE.decode(one) for one in self.frames.receive(data)]

    def send(self, *requests):
        for one in requests:
            data = one if isinstance(one, bytes) else delimited(messages.MESSAGE.encode(one))
            self.stream.write(data)
        self.flush()
        return self.answers

    def flush(self):
        self.me.node.touch(self.connection)
        self.net.touch(self.me)
        self.net.run()


def pair(**config):
    """A client and a server, connected."""
    net = Net()
    me = net.add(KadConfig(walk=SMALL))
    server = net.add(KadConfig(server=True, walk=SMALL, **config))
    net.connect(me, server)
    return net, me, server


# Commands that are refused.


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("closest_peers", (b"",)),
        ("closest_peers", (bytes(1025),)),
        ("provide", (b"",)),
        ("provide", (bytes(81),)),
        ("find_providers", (bytes(81),)),
        ("put", (b"no slash", b"good")),
        ("put", (b"/y/a", b"good")),
        ("put", (b"/x/a", b"bad")),
        ("put", (b"/x/a", b"good" + bytes(17_000))),
        ("get", (b"no slash",)),
        ("get", (b"/y/a",)),
        ("search", (b"/y/a",)),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(command, arguments):
    net, me, _ = pair()
    with pytest.raises(LocalError):
        getattr(me.kad, command)(*arguments, now=net.now)
    assert idle(me) and me.kad.store.own_keys() == {}


def test_more_that_makes_no_sense():
    net, me, _ = pair()
    with pytest.raises(LocalError, match="itself"):
        me.kad.find_peer(me.peer, net.now)
    with pytest.raises(LocalError, match="quorum"):
        me.kad.get(b"/x/a", net.now, quorum=-1)
    with pytest.raises(LocalError, match="count"):
        me.kad.find_providers(KEY, net.now, count=-1)
    me.node.listening([], net.now)
    with pytest.raises(LocalError, match="listen first"):
        me.kad.provide(KEY, net.now)
    me.kad.provide(KEY, net.now, announce=False)
    with pytest.raises(LocalError):
        Kad(KadConfig(protocol="x"))


def test_a_worse_value_than_our_own_is_refused():
    net, me, _ = pair()
    net.call(me, "put", b"/x/a", b"good and long")
    with pytest.raises(LocalError, match="better"):
        me.kad.put(b"/x/a", b"good", net.now)
    assert net.call(me, "put", b"/x/a", b"good and very long").holders


def test_a_store_that_fails():
    net = Net()
    store = Broken()
    me, server = net.add(KadConfig(walk=SMALL), store=store), net.add(store=store)
    net.connect(me, server)
    for command, arguments in (("find_providers", (KEY,)), ("provide", (KEY,)),
                               ("put", (b"/x/a", b"good"))):  # fmt: skip
        with pytest.raises(LocalError, match="disk"):
            getattr(me.kad, command)(*arguments, now=net.now)
        assert idle(me)
    # A request of a peer that cannot be answered ends its stream.
    raw = Raw(net, me, server)
    raw.send(Message(Type.GET_PROVIDERS, KEY))
    assert raw.ended == 0 and server.kad.refused == 1
    # Only noting that others know fails: it is provided all the same.
    store.broken = False
    request = net.start_only(me, "provide", KEY)
    store.broken = True
    net.run()
    assert type(me.result(request)).__name__ in ("DhtProvided", "DhtFailed")


# Streams of others.


def test_requests_are_answered_in_order():
    net, me, server = pair()
    raw = Raw(net, me, server)
    raw.send(Message(Type.PING), Message(Type.FIND_NODE, b"key"), Message(Type.PING))
    assert [one.type for one in raw.answers] == [Type.PING, Type.FIND_NODE, Type.PING]
    assert server.kad.served >= 3
    raw.stream.write_eof()
    raw.flush()
    assert raw.ended == "eof"
    net.wait(61)
    assert server.kad._inbound == {} and idle(server)


def test_what_is_wrong_ends_the_stream():
    net, me, server = pair()
    for wrong in (Message(Type.FIND_NODE), b"\x03abc", delimited(b"\x08\x07")):
        raw = Raw(net, me, server)
        raw.send(wrong)
        assert raw.ended == 0 and raw.answers == []
    assert server.kad.refused >= 2 and server.kad.held.total == 0


def test_row_86_so_many_streams_of_one_peer():
    net, me, server = pair(max_inbound_streams=4)
    net.wait(70)
    raws = [Raw(net, me, server) for _ in range(10)]
    for raw in raws:
        raw.send(Message(Type.PING)) if raw.ended is None else None
    assert [raw.ended for raw in raws] == [None] * 4 + [0x1002] * 6
    other = net.add(KadConfig(walk=SMALL))
    net.connect(other, server)
    assert Raw(net, other, server).send(Message(Type.PING))
    net.wait(61)
    assert all(raw.ended is not None for raw in raws) and server.kad._inbound == {}


def test_row_74_so_many_puts():
    net, me, server = pair(put_rate=1.0, put_burst=5)
    puts = [Message(Type.PUT_VALUE, b"/any/%d" % n, Record(b"/any/%d" % n, b"v"))
            for n in range(9)]  # fmt: skip
    raw = Raw(net, me, server)
    raw.send(*puts)
    assert raw.ended == 0 and len(server.kad.store._records) == 5
    net.wait(2.5)
    raw = Raw(net, me, server)
    raw.send(*puts[:2])
    assert len(raw.answers) == 2 and raw.ended is None


# Modes.


def test_clients_do_not_answer_and_servers_do():
    net, me, server = pair()
    assert me.node.protocols.count(PROTOCOL) == 0 and PROTOCOL in server.node.protocols
    raw = Raw(net, server, me)
    assert isinstance(raw.ended, Exception)
    me.kad.set_server(True, net.now)
    me.kad.set_server(True, net.now)
    assert [one.server for one in me.of(DhtModeChanged)] == []
    net.touch(me)
    net.wait(1)
    assert [(one.protocol, one.server) for one in me.of(DhtModeChanged)] == [(PROTOCOL, True)]
    assert me.kad.server and me.peer in server.knows()
    raw, mute = Raw(net, server, me), Raw(net, server, me)
    mute.send(delimited(bytes(50))[:20])
    assert raw.send(Message(Type.PING))
    me.kad.set_server(False, net.now)
    net.touch(me)
    net.wait(1)
    assert (raw.ended, mute.ended) == (0, 0) and me.kad._inbound == {}
    assert me.kad.held.total == 0
    assert me.peer not in server.knows()
    assert isinstance(Raw(net, server, me).ended, Exception)


def test_streams_that_arrive_while_the_mode_changes():
    net, me, server = pair()
    raw = Raw(net, me, server)
    server.kad.server = False  # it has not got round to telling
    assert Raw(net, me, server).ended == 0x1002
    assert raw.send(Message(Type.PING))


def test_clients_are_in_nobodys_table():
    net = Net()
    members = net.servers(6)
    clients = [net.add(KadConfig(walk=SMALL)) for _ in range(4)]
    net.join(*members, *clients)
    for one in members + clients:
        assert len(one.knows()) >= 4
        assert not one.knows() & {other.peer for other in clients}
    # They use the network all the same.
    assert net.call(clients[0], "put", b"/x/a", b"good").holders
    assert net.call(clients[3], "get", b"/x/a").value == b"good"
    request = net.start(clients[1], "provide", KEY)
    assert len(clients[1].result(request).holders) == 4
    request = net.start(clients[2], "find_providers", KEY)
    found = [one for one in clients[2].results(request) if isinstance(one, DhtProviderFound)]
    assert found[-1].provider.peer == clients[1].peer


# Networks.


def test_networks_with_other_names_never_meet():
    net = Net()
    own = "/private/kad/1.0.0"
    ours, theirs = net.servers(3, protocol=own), net.servers(3)
    for one in (*ours[1:], *theirs):
        net.connect(one, ours[0])
    net.wait(1)
    assert ours[0].knows() == {one.peer for one in ours[1:]}
    assert all(one.knows() <= {other.peer for other in theirs} for one in theirs)
    net.call(ours[1], "put", b"/x/a", b"good")
    assert net.call(ours[2], "get", b"/x/a").value == b"good"
    assert isinstance(net.call(theirs[2], "get", b"/x/a"), DhtFailed)


def test_wan_and_lan_on_one_node():
    net = Net()

    def dual(**options):
        return net.add(
            KadConfig(server=True, walk=SMALL, reach=Reach.WAN),
            KadConfig(server=True, walk=SMALL, reach=Reach.LAN, protocol=LAN_PROTOCOL),
            **options,
        )

    near = [dual() for _ in range(4)]
    far = [dual(address=f"/ip4/130.{n}.1.1/tcp/4001") for n in range(4)]
    me = dual(address="/ip4/140.1.1.1/tcp/4001",
              announce=[public(77), near[0].address])  # fmt: skip
    for one in (*near, *far):
        net.connect(me, one)
    net.wait(30)
    wan, lan = me.kads
    assert {entry.peer for entry in wan.table.entries()} == {one.peer for one in far}
    assert {entry.peer for entry in lan.table.entries()} == {one.peer for one in near}
    assert wan.addresses(me.peer, net.now) == [public(77)]
    assert lan.addresses(me.peer, net.now) == [near[0].address]
    net.call(me, "put", b"/x/a", b"good", kad=1)
    assert net.call(near[1], "get", b"/x/a", kad=1).value == b"good"
    assert isinstance(net.call(far[1], "get", b"/x/a"), DhtFailed)


def test_values_and_providers_expire_after_48_hours():
    net = Net(limits=QUIET)
    me, *others = net.servers(5, refresh_interval=1e5, republish_interval=1e6)
    net.acquaint(me, *others)
    net.call(me, "put", b"/x/a", b"good")
    net.call(me, "provide", KEY)
    net.wait(48 * HOUR - 5)
    asker = others[0]
    assert isinstance(net.call(asker, "get", b"/x/a"), DhtValueFound)
    request = net.start(asker, "find_providers", KEY)
    told = [one for one in asker.results(request) if isinstance(one, DhtProviderFound)]
    assert told
    late = net.now
    # Whoever was corrected has a fresh copy; without that, all is gone.
    net.wait(49 * HOUR)
    assert net.now > late and isinstance(net.call(asker, "get", b"/x/a"), DhtFailed)
    me.kad.stop_providing(KEY)
    assert net.call(asker, "find_providers", KEY).found == 0


def test_conflicting_values_settle_on_the_best():
    net = Net()
    members = net.servers(8)
    net.acquaint(*members)
    # Two networks that were apart: each has put its own.
    net.call(members[0], "put", b"/x/a", b"good")
    for one in net.closest(b"/x/a", members)[:2]:
        one.kad.keep(b"/x/a", b"good and better", net.now)
    event = net.call(members[7], "get", b"/x/a")
    assert event.value == b"good and better"
    wall = members[0].node.wall(net.now)
    for one in net.closest(b"/x/a", members)[:4]:
        assert one.kad.store.get(b"/x/a", wall).value == b"good and better"


def test_find_peer_that_is_connected_needs_nobody():
    net, me, server = pair()
    event = net.call(me, "find_peer", server.peer)
    assert isinstance(event, DhtPeerFound) and event.connected and server.address in event.addresses


def test_health_and_reachability():
    net, me, server = pair()
    health = me.kad.health(net.now)
    assert (health.size, health.stale, len(health.buckets)) == (1, 0, 1)
    assert me.kad.is_reachable(server.peer, net.now)
    assert not me.kad.is_reachable(peer(1), net.now)


def test_a_key_that_is_not_provided_any_more_is_not_noted_again():
    net, me, server = pair()
    request = net.start_only(me, "provide", KEY)
    me.kad.stop_providing(KEY)
    net.run()
    assert me.result(request).holders == (server.peer,)
    assert KEY not in me.kad.own_keys and me.kad.store.own_keys() == {}
    server.silent = True
    request = net.start(me, "provide", KEY)
    me.kad.stop_providing(KEY)
    net.wait(60)
    assert isinstance(me.result(request), DhtFailed) and KEY not in me.kad.own_keys


def test_two_services_share_one_budget():
    shared = KadConfig(walk=SMALL, dial_rate=0.001, dial_burst=2)
    net = Net()
    budget = Kad(shared)._budget
    me = net.add(
        shared, KadConfig(walk=SMALL, protocol=LAN_PROTOCOL), budget=budget,
        validators={"x": LongestValue()},
    )  # fmt: skip
    for number in range(6):
        net.holes.add(public(number))
        for kad in me.kads:
            kad.context.peers.add_addresses(peer(number), [public(number)], net.now)
            kad.table.add(peer(number), net.now, addresses=(public(number),))
    before = len(me.kads[1].table)
    for kad in range(2):
        net.start(me, "closest_peers", KEY, kad=kad)
    net.wait(70)
    assert len(me.dialed) == 2
    # Nobody was asked, so nobody is to blame.
    assert len(me.kads[1].table) == before


def test_the_first_connection_starts_it():
    net = Net()
    me, server = net.add(KadConfig(walk=SMALL)), net.add()
    assert not any(one.startswith("kad") for one in me.node.timers.reasons())
    net.connect(me, server)
    assert "kad refresh" in me.node.timers.reasons()
    introduce(me.kad, server, net.now)
    assert isinstance(net.call(me, "closest_peers", KEY), DhtClosestFound)


def test_cancelling_and_tracing():
    net, me, server = pair()
    server.silent = True
    assert me.kad.trace(12345) == ()
    me.kad.cancel(12345, net.now)
    request = net.start(me, "find_peer", peer(5))
    assert [hop.peer for hop in me.kad.trace(request)] == [server.peer]
    me.kad.cancel(request, net.now)
    bootstrap = net.start(me, "bootstrap")
    me.kad.cancel(bootstrap, net.now)
    net.wait(60)
    assert me.results(request) == me.results(bootstrap) == [] and idle(me)


def test_so_many_commands():
    net, me, server = pair()
    server.silent = True
    me.kad.config.max_operations = 1
    net.start(me, "closest_peers", KEY)
    with pytest.raises(LocalError, match="max_operations"):
        me.kad.closest_peers(KEY, net.now)


def test_a_provider_that_nobody_heard_tries_again():
    net, me, server = pair()
    server.silent = True
    request = net.start(me, "provide", KEY)
    net.wait(60)
    assert isinstance(me.result(request), DhtFailed) and KEY in me.kad.own_keys
    server.silent = False
    net.connect(server, me)
    me.kad.members.on_server(server.peer, net.now)
    net.wait(800)
    assert server.kad.store.providers(KEY, me.node.wall(net.now))


def test_what_an_earlier_run_provided_is_told_to_those_who_ask():
    net = Net()
    store = MemoryStore()
    store.set_own(KEY, 0.0)
    server = net.add(store=store)
    me = net.add(KadConfig(walk=SMALL))
    net.connect(me, server)
    assert net.call(me, "find_providers", KEY, count=1).found == 1
