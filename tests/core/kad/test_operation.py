"""What all commands share: they end once, in time, and leave nothing, whatever happens."""

import pytest
from core.kad.net import Broken, Net, introduce
from core.kad.people import peer
from core.kad.test_requests import echo

from anyp2p_core.errors import DialError, LimitReached, LocalError, TimedOut
from anyp2p_core.kad.config import KadConfig
from anyp2p_core.kad.events import DhtClosestFound, DhtFailed, DhtProvided, DhtValuePut
from anyp2p_core.kad.keys import BITS, key_of
from anyp2p_core.kad.messages import Message, Peer, Record, Type
from anyp2p_core.kad.query import Reason, State, Walk
from anyp2p_core.varint import delimited

KEY = b"\x12\x20" + bytes(32)
COMMANDS = {
    "find_peer": (peer(77),),
    "closest_peers": (KEY,),
    "provide": (KEY,),
    "find_providers": (KEY,),
    "put": (b"/x/a", b"good"),
    "get": (b"/x/a",),
    "search": (b"/x/a",),
    "bootstrap": (),
}


def idle(member):
    """Whether no command has left anything."""
    kad = member.kad
    requests = kad.requests
    assert kad._operations == {} and not kad._maintenance.waiting and not kad.members._probes
    assert not (requests._waiting or requests._dials)
    assert all(not (link.busy or link.queue) for link in requests._links.values())
    assert kad.held.total == 0
    left = {one for one in member.node.timers.reasons() if one.startswith("kad ")}
    allowed = {"kad refresh", "kad republish", "kad sweep", "kad idle", "kad close"}
    assert left <= {*allowed, "kad request"}, left
    return True


def crowd(behaves, **config):
    """A node that knows puppets of all these kinds."""
    net = Net()
    me = net.add(KadConfig(server=True, walk=Walk(k=6, beta=6, alpha=3), **config))
    others = [net.puppet(behave) for behave in behaves]
    for one in others:
        introduce(me.kad, one, net.now)
    return net, me, others


@pytest.mark.parametrize("command", COMMANDS)
def test_alone(command):
    net = Net()
    me = net.add()
    event = net.call(me, command, *COMMANDS[command])
    assert isinstance(event, DhtFailed) and isinstance(event.error, DialError)
    assert event.trace == () and "bootstrap" in str(event.error) and idle(me)


def answering(reply):
    return lambda request, stream: reply


KINDS = {
    "silent": answering(None),
    "resetting": lambda request, stream: stream.reset(),
    "closing": lambda request, stream: stream.write_eof(),
    "babbling": answering(delimited(b"\xff" * 20)),
    "endless": answering(b"\xff\xff\xff\xff\x7f"),
    "dripping": answering(b"\x7f\x01"),
    "of another kind": lambda request, stream: Message((request.type + 1) % 6),
    "echoing": echo,
    "naming junk": lambda request, stream: Message(
        request.type, closer=[Peer(b"junk", [b"junk"]), Peer(bytes(peer(1)), [b"\xff"])]
    ),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_row_81_every_command_ends_inside_its_deadline(command):
    net, me, _ = crowd(KINDS.values())
    start = net.now
    request = net.start(me, command, *COMMANDS[command])
    while not [one for one in me.results(request) if type(one).__name__ != "DhtProviderFound"]:
        net.wait(1)
        assert net.now <= start + 61
    net.wait(100)
    assert me.result(request) is not None
    assert idle(me)


@pytest.mark.parametrize("command", [one for one in COMMANDS if one != "bootstrap"])
@pytest.mark.parametrize("timeout", [0.5, 15.0])
def test_row_81_all_are_silent(command, timeout):
    net, me, _ = crowd([KINDS["silent"]] * 6)
    walk = Walk(k=4, beta=4, alpha=2, timeout=timeout)
    request = net.start(me, command, *COMMANDS[command], walk=walk)
    net.wait(timeout)
    event = me.result(request)
    assert isinstance(event, DhtFailed) and isinstance(event.error, TimedOut)
    net.wait(40)
    assert idle(me)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", KINDS)
def test_cancelling_frees_everything_at_any_point(command, kind):
    for steps in (0, 1, 2, 4, 8, 16, 32):
        net, me, others = crowd([KINDS[kind]] * 3)
        net.connect(me, others[0])
        net.wait(11)
        before = len(me.events)
        request = getattr(me.kad, command)(*COMMANDS[command], now=net.now)
        net.touch(me)
        net.run(steps)
        done = [one for one in me.results(request)]
        me.kad.cancel(request, net.now)
        me.kad.cancel(request, net.now)
        assert me.kad.trace(request) == ()
        net.touch(me)
        net.wait(150)
        assert me.results(request) == done, me.events[before:]
        assert idle(me)


@pytest.mark.parametrize("command", COMMANDS)
def test_connections_lost_at_any_point(command):
    for steps in range(0, 60, 3):
        net = Net()
        members = net.servers(5)
        net.acquaint(*members)
        me = members[0]
        request = net.start_only(me, command, *COMMANDS[command])
        net.run(steps)
        for other in members[1:4]:
            net.cut(me, other)
        net.wait(200)
        assert me.result(request) is not None
        assert all(idle(one) for one in members)


def test_the_trace_of_a_command_that_is_under_way():
    net, me, others = crowd([KINDS["silent"]] * 2)
    request = net.start(me, "closest_peers", KEY)
    assert {hop.peer for hop in me.kad.trace(request)} == {one.peer for one in others}
    net.wait(10)
    event = me.result(request)
    assert "none of the 2 peers" in str(event.error) and len(event.trace) == 2
    assert me.kad.trace(request) == ()


def test_so_many_commands_at_once():
    net, me, _ = crowd([KINDS["silent"]], max_operations=3)
    requests = [net.start(me, "closest_peers", b"%d" % n) for n in range(2)]
    requests.append(net.start(me, "bootstrap"))
    for command, arguments in COMMANDS.items():
        with pytest.raises(LimitReached, match="max_operations"):
            getattr(me.kad, command)(*arguments, now=net.now)
    for request in requests[:2]:
        me.kad.cancel(request, net.now)
    net.start(me, "closest_peers", KEY)


def test_a_peer_that_stores_something_else_has_not_stored_it():
    def lying(request, stream):
        if request.type == Type.PUT_VALUE:
            return Message(Type.PUT_VALUE, request.key, Record(request.key, b"good grief"))
        return echo(request, stream)

    def forgetful(request, stream):
        return Message(request.type, request.key)

    def storing(request, stream):
        return Message(request.type, request.key, request.record)

    net, me, (one, *_) = crowd([storing, lying, forgetful])
    event = net.call(me, "put", b"/x/a", b"good")
    assert isinstance(event, DhtValuePut)
    assert (event.holders, event.failed) == ((one.peer,), 2)
    net, me, _ = crowd([lying, forgetful])
    event = net.call(me, "put", b"/x/a", b"good")
    assert isinstance(event, DhtFailed) and "2 peers are responsible" in str(event.error)


def test_storing_ends_inside_the_deadline_too():
    def slow(request, stream):
        return None if request.type == Type.PUT_VALUE else echo(request, stream)

    net, me, _ = crowd([slow] * 3)
    start = net.now
    walk = Walk(k=4, beta=4, alpha=3, timeout=8.0, peer_timeout=10.0)
    request = net.start(me, "put", b"/x/a", b"good", walk=walk)
    net.wait(8.0)
    assert isinstance(me.result(request).error, TimedOut) and net.now == start + 8.0
    assert idle(me)


def test_whoever_cannot_be_sent_to_has_not_stored_it():
    net, me, (quick, slow) = crowd([echo, KINDS["silent"]])
    request = net.start(me, "put", b"/x/a", b"good")
    net.kill(quick)
    me.node.peers.set_addresses(quick.peer, [], net.now)
    net.wait(10)
    event = me.result(request)
    assert isinstance(event, DhtFailed) and "1 peers are responsible" in str(event.error)
    assert len(slow.puppet.requests) == 1 and idle(me)


def test_row_83_a_crowded_key_is_looked_for_in_its_whole_region():
    net = Net()
    members = net.servers(40)
    me = members[0]
    key = KEY
    net.acquaint(*members)
    size = 40
    # Sybils: servers whose ids were made for this key; more than anybody would expect there.
    target = key_of(key)
    edge = min(key_of(bytes(one.peer)) ^ target for one in members)
    sybils = []
    number = 1000
    while len(sybils) < 4:
        net.members.extend([None] * (number - len(net.members)))
        sybil = net.puppet(echo)
        number += 1
        if key_of(bytes(sybil.peer)) ^ target < edge:
            sybils.append(sybil)
    net.members = [one for one in net.members if one in members or one in sybils]
    for sybil in sybils:
        for one in members:
            introduce(one.kad, sybil, net.now)
    event = net.call(me, "provide", key)
    honest = {one.peer for one in members}
    censored = not honest & set(event.holders)
    assert isinstance(event, DhtProvided) and censored and not event.crowded
    for _ in range(9):
        me.kad.size.learn([(n + 1 << BITS) // size for n in range(4)], 4)
    event = net.call(me, "provide", key)
    assert event.crowded
    assert len(honest & set(event.holders)) >= 2
    finder = net.closest(key, members)[-1]
    finder.kad.size = me.kad.size
    found = net.call(finder, "find_providers", key)
    assert found.crowded and found.found == 1
    asked = [hop.peer for hop in found.trace]
    assert len(asked) > len(set(asked))  # the first walk is in the trace, too


def test_disjoint_paths():
    net = Net()
    members = net.servers(20)
    net.acquaint(*members)
    walk = Walk(k=4, beta=4, alpha=4, paths=2)
    event = net.call(members[0], "closest_peers", KEY, walk=walk)
    assert isinstance(event, DhtClosestFound) and event.reason is Reason.CONVERGED
    assert {hop.path for hop in event.trace} == {0, 1}
    truth = [one.peer for one in net.closest(KEY, members[1:])[:4]]
    assert [one.peer for one in event.peers] == truth


def test_peers_that_are_nowhere_are_not_asked():
    ghost = peer(123)
    net, me, _ = crowd([lambda request, stream: Message(request.type, closer=[Peer(bytes(ghost))])])
    event = net.call(me, "closest_peers", KEY)
    assert [hop.peer for hop in event.trace] == [one.peer for one in event.peers]
    # But one that is connected can be asked all the same.
    other = net.puppet(echo, announce=[])
    me.kad.config.max_probes = 0
    net.connect(other, me)
    net.members[1].puppet.behave = lambda request, stream: Message(
        request.type, closer=[Peer(bytes(other.peer))]
    )
    event = net.call(me, "closest_peers", KEY)
    assert other.peer in {one.peer for one in event.peers}


def test_a_command_that_needs_nobody():
    net, me, _ = crowd([echo])
    me.kad.store.add_provider(KEY, peer(1), (), me.node.wall(net.now))
    event = net.call(me, "find_providers", KEY, count=1)
    assert (event.reason, event.trace) == (Reason.STOPPED, ())


def test_a_command_that_has_enough_on_the_way():
    def holding(request, stream):
        return Message(request.type, request.key, Record(request.key, b"good"))

    net, me, _ = crowd([holding] * 5)
    event = net.call(me, "get", b"/x/a", quorum=1)
    assert event.value == b"good" and len(event.trace) == 3 and idle(me)


def test_a_command_that_cannot_even_begin():
    net = Net()
    me = net.add(store=Broken())
    with pytest.raises(LocalError, match="disk"):
        me.kad.find_providers(KEY, net.now)
    assert idle(me)


def test_a_peer_whose_answer_is_wrong_has_failed():
    def wrong(request, stream):
        return Message(request.type, request.key, Record(b"/x/other", b"good"))

    net, me, (one, _) = crowd([wrong, echo])
    event = net.call(me, "get", b"/x/a")
    assert {hop.peer: hop.state for hop in event.trace}[one.peer] is State.FAILED
    assert me.kad.rejected == 1


def test_a_peer_that_cannot_be_asked_has_failed():
    net, me, (one,) = crowd([echo])
    me.kad.table.add(peer(5), net.now)
    event = net.call(me, "closest_peers", KEY)
    assert [found.peer for found in event.peers] == [one.peer]
    assert len(event.trace) == 2
