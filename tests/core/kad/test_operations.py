"""The commands in whole networks: what they find, and what they leave where."""

import pytest
from core.kad.net import SMALL, Net, introduce
from core.kad.people import peer, public
from core.kad.test_operation import COMMANDS, KEY, crowd, idle
from core.kad.test_requests import echo

from anyp2p_core.errors import DialError
from anyp2p_core.kad import ipns
from anyp2p_core.kad.addresses import Reach
from anyp2p_core.kad.config import KadConfig
from anyp2p_core.kad.events import (
    DhtClosestFound,
    DhtFailed,
    DhtPeerFound,
    DhtProvided,
    DhtProviderFound,
    DhtProvidersSearched,
    DhtValueFound,
    DhtValueImproved,
    DhtValuePut,
)
from anyp2p_core.kad.messages import MAX_ADDRESSES, PROTOCOL, Message, Peer, Record, Type
from anyp2p_core.kad.operations import MAX_FOUND
from anyp2p_core.kad.query import Reason, State
from anyp2p_core.kad.store import StoredRecord
from anyp2p_core.limits import Limits
from anyp2p_core.multiaddr import Multiaddr

PUT = b"/x/a"


@pytest.fixture(scope="module")
def town():
    """Twenty servers that found each other."""
    net = Net()
    members = net.servers(20)
    net.join(*members)
    net.wait(60)
    return net, members


# Peers.


def test_closest_peers(town):
    net, members = town
    for number in range(5):
        key = b"%d" % number
        event = net.call(members[number], "closest_peers", key)
        others = [one for one in members if one is not members[number]]
        assert isinstance(event, DhtClosestFound) and event.reason is Reason.CONVERGED
        truth = [one.peer for one in net.closest(key, others)[:4]]
        assert [one.peer for one in event.peers] == truth
        assert State.FAILED not in {hop.state for hop in event.trace}
        assert event.key == key and not event.crowded


def test_find_peer(town):
    net, members = town
    me = net.add(KadConfig(walk=SMALL))
    introduce(me.kad, members[0], net.now)
    wanted = net.closest(bytes(members[0].peer), members)[-1]
    assert not me.node.is_connected(wanted.peer)
    event = net.call(me, "find_peer", wanted.peer)
    assert isinstance(event, DhtPeerFound) and event.connected
    assert (event.peer, event.addresses[0]) == (wanted.peer, wanted.address)
    assert me.node.is_connected(wanted.peer)
    again = net.call(me, "find_peer", wanted.peer)
    assert (again.connected, again.trace) == (True, ())


def test_find_peer_that_is_no_server(town):
    net, members = town
    me, wanted = net.add(KadConfig(walk=SMALL)), net.add(KadConfig(walk=SMALL))
    for one in members[:3]:
        net.connect(wanted, one)
        net.connect(me, one)
    net.wait(1)
    event = net.call(me, "find_peer", wanted.peer)
    assert event.connected and event.addresses == (wanted.address,)
    assert wanted.peer not in me.knows()


def test_find_peer_that_nobody_knows(town):
    net, members = town
    event = net.call(members[0], "find_peer", peer(5))
    assert isinstance(event, DhtFailed) and "nobody who was asked knows" in str(event.error)
    assert len(event.trace) >= 4


def telling(wanted, *answers):
    """Peers of which each tells another address of the wanted one."""
    return [
        lambda request, stream, answer=answer: Message(
            request.type, closer=[Peer(bytes(wanted), [bytes(one) for one in answer])]
        )
        for answer in answers
    ]


def test_find_peer_where_others_have_seen_it():
    net, me, _ = crowd([])
    wanted = net.puppet(echo)
    wrong = Multiaddr("/ip4/127.9.9.9/tcp/1")
    liars = telling(wanted.peer, [wrong], [wrong, wanted.address])
    for behave in liars:
        introduce(me.kad, net.puppet(behave), net.now)
    event = net.call(me, "find_peer", wanted.peer)
    assert event.connected and wrong in me.dialed
    # The same when it is silent where the first one said.
    net, me, _ = crowd([])
    wanted = net.puppet(echo)
    net.holes.add(wrong)
    for behave in telling(wanted.peer, [wrong], [wrong, wanted.address]):
        introduce(me.kad, net.puppet(behave), net.now)
    request = net.start(me, "find_peer", wanted.peer)
    net.wait(60)
    assert me.result(request).connected and idle(me)


def test_find_peer_that_is_gone():
    wrong = [Multiaddr(f"/ip4/127.9.9.{n}/tcp/1") for n in range(40)]
    net, me, _ = crowd(
        telling(peer(5), wrong[:3], wrong[:3], wrong[3:20], wrong[20:36], wrong[36:])
    )
    request = net.start(me, "find_peer", peer(5))
    net.wait(60)
    event = me.result(request)
    assert isinstance(event, DhtPeerFound) and not event.connected
    assert len(event.addresses) <= 3 * MAX_ADDRESSES and idle(me)


def test_find_peer_does_not_dial_another_network():
    lan = Multiaddr("/ip4/192.168.0.1/tcp/22")
    net, me, _ = crowd(telling(peer(5), [lan], [lan]), reach=Reach.WAN)
    for number, one in enumerate(net.members[1:]):
        me.kad.table.add(one.peer, net.now, addresses=(public(number),))
    event = net.call(me, "find_peer", peer(5))
    assert isinstance(event, DhtFailed) and lan not in me.dialed


def test_find_peer_when_there_is_no_room_for_another_try():
    net, me, _ = crowd([])
    wanted, wrong = peer(5), Multiaddr("/ip4/127.9.9.9/tcp/1")
    for behave in telling(wanted, [], [wrong]):
        introduce(me.kad, net.puppet(behave), net.now)
    request = net.start_only(me, "find_peer", wanted)
    net.run()
    event = me.result(request)
    assert isinstance(event, DhtPeerFound) and not event.connected
    # The last try cannot even be made: strangers are not dialed at one address twice in a row.
    net, me, _ = crowd([])
    me.kad.config.walk.alpha = 1
    for behave in telling(wanted, [public(7, 1)], [public(7, 2)]):
        introduce(me.kad, net.puppet(behave), net.now)
    event = net.call(me, "find_peer", wanted)
    assert not event.connected and len(event.addresses) == 2 and idle(me)
    assert me.dialed.count(public(7, 1)) + me.dialed.count(public(7, 2)) == 1


# Providers.


def test_provide_and_find(town):
    net, members = town
    event = net.call(members[3], "provide", KEY)
    assert isinstance(event, DhtProvided) and event.failed == 0
    others = [one for one in members if one is not members[3]]
    assert set(event.holders) == {one.peer for one in net.closest(KEY, others)[:4]}
    for one in (members[7], members[11]):
        request = net.start(one, "find_providers", KEY)
        *found, over = one.results(request)
        assert isinstance(over, DhtProvidersSearched) and over.found == 1
        assert all(isinstance(event, DhtProviderFound) for event in found)
        assert found[-1].provider.peer == members[3].peer
        assert members[3].address in found[-1].provider.addresses
    # It is asked itself, too, and says so without being a holder.
    lonely = net.add(KadConfig(walk=SMALL))
    net.connect(lonely, members[3])
    assert net.call(lonely, "find_providers", KEY, count=1).found == 1


def test_so_many_providers_are_enough(town):
    net, members = town
    key = b"\x12\x20" + b"many" * 8
    for one in members[:6]:
        net.call(one, "provide", key)
    whole = net.call(members[9], "find_providers", key, count=0)
    assert whole.found == 6 and whole.reason is Reason.CONVERGED
    some = net.call(members[9], "find_providers", key, count=2)
    assert some.found == 2 and some.reason is Reason.STOPPED
    # Holders know without asking.
    holder = next(one for one in members if len(one.kad.store.providers(key, 0.0)) >= 2)
    at_once = net.call(holder, "find_providers", key, count=1)
    assert (at_once.found, at_once.trace, at_once.reason) == (1, (), Reason.STOPPED)


def test_nobody_provides(town):
    net, members = town
    event = net.call(members[0], "find_providers", b"\x12\x20" + b"none" * 8)
    assert isinstance(event, DhtProvidersSearched) and event.found == 0


def test_only_announced_when_wanted():
    net = Net(limits=Limits(keepalive_interval=1e6))
    me, *others = net.servers(4, refresh_interval=1e5)
    net.acquaint(me, *others)
    event = net.call(me, "provide", KEY, announce=False)
    assert isinstance(event, DhtProvided) and event.holders == ()

    def found():
        lonely = net.add(KadConfig(walk=SMALL))
        introduce(lonely.kad, me, net.now)
        return net.call(lonely, "find_providers", KEY, count=1).found

    assert found() == 1
    net.wait(23 * 3600)
    wall = me.node.wall(net.now)
    assert not any(one.kad.store.providers(KEY, wall) for one in others)
    me.kad.stop_providing(KEY)
    assert found() == 0


def test_a_provider_is_told_again_when_its_addresses_come():
    def telling(*addresses):
        one = Peer(bytes(peer(9)), [bytes(address) for address in addresses])
        return lambda request, stream: Message(request.type, request.key, providers=[one])

    net, me, _ = crowd([telling(), telling(), telling(public(1)), telling(public(2))])
    request = net.start(me, "find_providers", KEY)
    *found, over = me.results(request)
    assert over.found == 1
    assert [bool(one.provider.addresses) for one in found] in ([True], [False, True])


def test_a_search_tells_of_so_many():
    def flooding(request, stream):
        first = stream.id * 10_000 + len(stream._mux.streams) * 100
        return Message(
            request.type, request.key, providers=[Peer(bytes(peer(first + n))) for n in range(128)]
        )

    net, me, others = crowd([flooding] * 6)
    counter = iter(range(10))
    for one in others:
        base = next(counter) * 1000
        one.puppet.behave = lambda request, stream, base=base: Message(
            request.type, request.key, providers=[Peer(bytes(peer(base + n))) for n in range(200)]
        )
    event = net.call(me, "find_providers", KEY, count=0)
    assert event.found == 6 * 128 < MAX_FOUND
    event = net.call(me, "find_providers", KEY, count=100)
    assert event.found == 100


def test_long_addresses_of_our_own_are_left_out():
    net, me, (other,) = crowd([echo])
    long = [Multiaddr("/dns4/" + "a" * 250 + f"{n}.example/tcp/1") for n in range(30)]
    me.node.listening(long, net.now)
    event = net.call(me, "provide", KEY)
    assert isinstance(event, DhtProvided)
    (told,) = [one for one in other.puppet.requests if one.type == Type.ADD_PROVIDER]
    assert 10 <= len(told.providers[0].addresses) <= MAX_ADDRESSES
    me.node.listening([public(n) for n in range(30)], net.now)
    net.call(me, "provide", KEY)
    assert len(other.puppet.requests[-1].providers[0].addresses) == MAX_ADDRESSES


# Values.


def test_put_and_get(town):
    net, members = town
    event = net.call(members[1], "put", PUT, b"good one")
    assert isinstance(event, DhtValuePut) and event.failed == 0 and len(event.holders) == 4
    for one in members[5:8]:
        found = net.call(one, "get", PUT)
        assert isinstance(found, DhtValueFound) and found.value == b"good one"
        assert set(found.holders) >= set(event.holders) - {one.peer}
        assert not set(found.behind) & set(event.holders) and found.rejected == 0
    # Whoever put it has it.
    assert net.call(members[1], "get", PUT, quorum=1).trace == ()


def test_every_kind_of_record(town):
    net, members = town
    me, other = members[2], members[12]
    key = b"/pk/" + bytes(me.peer)
    net.call(me, "put", key, me.node.key.public.encode())
    assert net.call(other, "get", key).value == me.node.key.public.encode()
    name = ipns.key_for(me.peer)
    for sequence in (1, 2):
        record = ipns.seal(me.node.key, b"/ipfs/x", sequence, me.node.wall(net.now))
        net.call(me, "put", name, record)
    assert net.call(other, "get", name).value == record


def holding(value):
    """A puppet that has this value, and takes what it is given."""
    given = []

    def behave(request, stream):
        if request.type == Type.GET_VALUE:
            record = Record(request.key, value) if value else None
            return Message(request.type, request.key, record)
        given.append(request.record.value)
        return Message(request.type, request.key, request.record)

    behave.given = given
    return behave


def test_the_best_value_wins_and_those_behind_are_corrected():
    kinds = [holding(one) for one in (b"good", b"good and long", b"", b"bad", b"good and long")]
    net, me, others = crowd(kinds)
    event = net.call(me, "get", PUT)
    assert (event.value, event.rejected) == (b"good and long", 1)
    assert set(event.holders) == {others[1].peer, others[4].peer}
    assert set(event.behind) == {others[0].peer, others[2].peer, others[3].peer}
    assert [one.given for one in kinds] == [
        [b"good and long"], [], [b"good and long"], [b"good and long"], [],
    ]  # fmt: skip
    assert me.kad.rejected == 1 and idle(me)
    # Who had something that is not valid is still a peer like any other.
    assert others[3].peer in me.knows()


def test_search_tells_of_every_improvement():
    kinds = [holding(b"good" + b"." * n) for n in (0, 2, 4, 2)]
    net, me, _ = crowd(kinds)
    request = net.start(me, "search", PUT)
    *better, over = me.results(request)
    assert isinstance(over, DhtValueFound) and over.value == b"good...."
    values = [one.value for one in better]
    assert all(isinstance(one, DhtValueImproved) for one in better)
    assert values == sorted(values, key=len) and values[-1] == over.value
    assert not [one for one in me.results(net.start(me, "get", PUT))[:-1]]


def test_a_quorum_ends_the_search():
    kinds = [holding(b"good")] * 6
    net, me, _ = crowd(kinds)
    event = net.call(me, "get", PUT, quorum=2)
    assert event.value == b"good" and len(event.holders) == 2 and len(event.trace) < 6
    mixed = [holding(b""), holding(b"good"), holding(b""), holding(b"good.")]
    net, me, others = crowd(mixed)
    event = net.call(me, "get", PUT, quorum=2)
    # Those that gave nothing may not be responsible: they are left alone.
    assert event.value == b"good." and event.behind == (others[1].peer,)
    assert [one.given for one in mixed] == [[], [b"good."], [], []]
    assert net.call(me, "get", PUT, quorum=99).value == b"good."


def test_our_own_value_counts_and_is_corrected():
    net, me, _ = crowd([holding(b"good and better")])
    wall = me.node.wall(net.now)
    me.kad.store.put(StoredRecord(PUT, b"good", wall, wall + 100), wall)
    event = net.call(me, "get", PUT)
    assert event.value == b"good and better" and me.peer not in event.holders
    assert me.kad.store.get(PUT, wall).value == b"good and better"
    event = net.call(me, "get", PUT)
    assert me.peer in event.holders
    # One that is not valid any more is forgotten.
    me.kad.store.put(StoredRecord(PUT, b"bad", wall, wall + 100), wall)
    event = net.call(me, "get", PUT)
    assert event.value == b"good and better" and me.peer not in event.holders
    assert me.kad.store.get(PUT, wall) is None


def test_row_79_a_record_for_another_key_is_a_fault():
    other_key = b"/x/other"

    def wrong(request, stream):
        return Message(request.type, request.key, Record(other_key, b"good and very long"))

    net, me, (honest, liar) = crowd([holding(b"good"), wrong])
    event = net.call(me, "get", PUT)
    assert event.value == b"good" and event.holders == (honest.peer,) and event.rejected == 1
    assert me.kad.rejected == 1 and liar.peer not in me.knows()
    assert {hop.peer: hop.state for hop in event.trace}[liar.peer] is State.FAILED


def test_nobody_has_a_value():
    net, me, _ = crowd([holding(b""), holding(b"bad")])
    event = net.call(me, "get", PUT)
    assert isinstance(event, DhtFailed) and isinstance(event.error, DialError)
    assert "valid value" in str(event.error)


def test_a_value_that_is_too_long_to_be_sent_on():
    long = b"good" + bytes(20_000)
    net, me, _ = crowd([holding(long), holding(b"good")])
    event = net.call(me, "get", PUT)
    assert event.value == long and len(event.behind) == 1 and idle(me)


def test_a_search_that_runs_out_of_time_still_tells_what_it_has():
    net, me, _ = crowd([holding(b"good"), lambda request, stream: None])
    me.kad.config.walk.timeout = 5.0
    request = net.start(me, "get", PUT)
    net.wait(5)
    assert me.result(request).value == b"good" and idle(me)


@pytest.mark.parametrize("command", COMMANDS)
def test_row_81_nobody_answers(command):
    net, me, _ = crowd([lambda request, stream: stream.reset()] * 3)
    event = net.call(me, command, *COMMANDS[command])
    assert isinstance(event, DhtFailed) and idle(me)


def test_providers_that_are_nowhere_are_told_once():
    one = Peer(bytes(peer(9)))
    net, me, _ = crowd([lambda request, stream: Message(request.type, providers=[one])] * 3)
    request = net.start(me, "find_providers", KEY)
    assert [type(event) for event in me.results(request)] == [
        DhtProviderFound, DhtProvidersSearched,
    ]  # fmt: skip


@pytest.mark.parametrize("command", ["provide", "put"])
def test_nobody_takes_what_is_to_be_stored(command):
    def refusing(request, stream):
        if request.type == Type.FIND_NODE:
            return Message(request.type)
        stream.reset()
        return None

    net, me, _ = crowd([refusing] * 3)
    for one in net.members[1:]:
        one.node._handlers[PROTOCOL] = one.puppet
    event = net.call(me, command, *COMMANDS[command])
    if command == "put":
        assert isinstance(event, DhtFailed) and "3 peers are responsible" in str(event.error)
    assert idle(me)
