"""Kademlia among peers that follow no rules: one test per row of the security catalogue."""

import tracemalloc
from random import Random

import pytest
from core.kad.net import EPOCH, SMALL, Net, Seeded, introduce
from core.kad.people import peer, public
from core.kad.test_operation import COMMANDS, idle
from core.kad.test_requests import echo
from core.kad.test_service import Raw
from core.kad.topology import Topology
from node_pair import CRYPTO

from anyp2p_core import Multiaddr, PrivateKey
from anyp2p_core.errors import DecodeError, TimedOut
from anyp2p_core.kad import ipns, rfc3339
from anyp2p_core.kad.addresses import groups
from anyp2p_core.kad.config import KadConfig
from anyp2p_core.kad.contacts import Contact
from anyp2p_core.kad.events import DhtFailed, DhtValueFound
from anyp2p_core.kad.keys import key_of
from anyp2p_core.kad.messages import MESSAGE, Message, Peer, Record, Type
from anyp2p_core.kad.providers import Providers
from anyp2p_core.kad.query import Query, Walk
from anyp2p_core.kad.size import NetworkSize, is_crowded, region
from anyp2p_core.kad.store import MemoryStore
from anyp2p_core.kad.table import Table
from anyp2p_core.varint import delimited, encode

KEY = b"\x12\x20" + bytes(32)
DAY = 86_400.0
WALL = EPOCH


def meet(*, hostile=None, **config):
    """A server, and a hostile peer that is connected to it and answers as told."""
    net = Net()
    me = net.add(KadConfig(server=True, walk=SMALL, **config))
    other = net.puppet(hostile or echo)
    net.connect(other, me)
    return net, me, other


def victim(*behaves, **config):
    """A server that knows puppets that behave so."""
    net = Net()
    me = net.add(KadConfig(server=True, walk=SMALL, **config))
    others = [net.puppet(behave) for behave in behaves]
    for one in others:
        introduce(me.kad, one, net.now)
    return net, me, others


def written(answer):
    return delimited(MESSAGE.encode(answer))


def far(*numbers):
    """Peers that do not exist, each at a public address of its own network."""
    return [Peer(bytes(peer(n)), [bytes(public(n))]) for n in numbers]


@pytest.mark.parametrize("key", [b"a", b"", b"\x00\xff\x01", b"/", b"//", b"/x", b"/x/", b"x/y/z",
                                 b"/unknown/a", b"/\xff/a", b"/x" * 600])  # fmt: skip
def test_row_74_keys_without_a_validator_are_not_stored(key):
    net, me, other = meet()
    raw = Raw(net, other, me)
    raw.send(Message(Type.PUT_VALUE, key, Record(key, b"good")))
    assert raw.ended == 0 and raw.answers == [] and len(me.kad.store._records) == 0


def test_row_74_one_peer_cannot_fill_the_store():
    net, me, other = meet(put_rate=1e9, put_burst=10**9)
    raw = Raw(net, other, me)
    for first in range(0, 2000, 100):
        keys = [b"/any/%d" % n for n in range(first, first + 100)]
        raw.send(*(Message(Type.PUT_VALUE, key, Record(key, b"v")) for key in keys))
    assert len(raw.answers) == 2000 and len(me.kad.store._records) == 1024 // 20
    raw.send(Message(Type.PUT_VALUE, b"/any/x", Record(b"/any/x", bytes(64 * 1024 + 1))))
    assert raw.ended == 0 and me.kad.store.get(b"/any/x", WALL) is None


@pytest.mark.parametrize("prefix", [2**40, 1024 * 1024 + 1, 4 * 1024 * 1024 + 1, 2**63 - 1])
def test_row_75_a_length_is_judged_before_anything_is_kept(prefix):
    net, me, other = meet()
    raw = Raw(net, other, me)
    raw.send(encode(prefix) + bytes(100))
    assert raw.ended == 0 and me.kad.held.total == 0
    if prefix <= 4 * 1024 * 1024:
        return
    net, me, (other,) = victim(lambda request, stream: encode(prefix) + bytes(100))
    event = net.call(me, "closest_peers", KEY)
    assert isinstance(event, DhtFailed) and other.puppet.streams[0].is_reset and idle(me)


def test_row_75_empty_messages_both_ways():
    net, me, other = meet()
    raw = Raw(net, other, me)
    raw.send(b"\x00")  # a PUT_VALUE without anything
    assert raw.ended == 0
    for command, arguments in COMMANDS.items():
        net, me, _ = victim(lambda request, stream: b"\x00")
        assert isinstance(net.call(me, command, *arguments), DhtFailed), command
        assert idle(me)


def test_row_75_incomplete_messages_are_bounded_for_one_peer_and_for_all():
    net, me, other = meet(max_held=1024 * 1024)
    part = encode(900_000) + bytes(50_000)
    for _ in range(30):
        Raw(net, other, me).send(part)
        assert me.kad.held.total <= 300_000
    friend = net.puppet(echo)
    net.connect(friend, me)
    slow = Raw(net, friend, me)
    slow.send(encode(20)[:1])
    assert slow.ended is None and slow.send(MESSAGE.encode(Message(Type.PING, bytes(16)))[:20])
    net.wait(10)
    assert me.kad.held.total == 0


def test_row_76_a_peer_announces_itself_only():
    net, me, other = meet()
    addresses = [bytes(other.address)]
    for providers in ([Peer(bytes(peer(7)), addresses)], [], [Peer(bytes(other.peer))]):
        raw = Raw(net, other, me)
        raw.send(Message(Type.ADD_PROVIDER, KEY, providers=providers))
        assert raw.ended == 0
    raw = Raw(net, other, me)
    raw.send(Message(Type.ADD_PROVIDER, bytes(81), providers=[Peer(bytes(other.peer), addresses)]))
    assert raw.ended == 0 and me.kad.store.providers(KEY, WALL) == []
    mixed = [Peer(bytes(peer(7)), addresses), Peer(bytes(other.peer), addresses)]
    raw = Raw(net, other, me)
    raw.send(Message(Type.ADD_PROVIDER, KEY, providers=mixed))
    assert [one.peer for one in me.kad.store.providers(KEY, WALL)] == [other.peer]


def test_row_76_a_flood_of_keys_keeps_memory_flat():
    # A twentieth of the row's million: what is kept is full after the first 10,000 keys.
    book = Providers()
    people = [peer(n) for n in range(100)]

    def flood(first, last):
        for number in range(first, last):
            book.add(b"%032d" % number, people[number % 100], (public(1),), WALL)

    flood(0, 15_000)
    tracemalloc.start()
    flood(15_000, 30_000)
    before = tracemalloc.get_traced_memory()[0]
    flood(30_000, 50_000)
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(book) == 10_000 and after - before < 200_000


def test_row_76_one_peer_floods_over_the_wire():
    net, me, other = meet()
    me.kad.store.add_provider(KEY, peer(1), (public(1),), WALL)
    own = Peer(bytes(other.peer), [bytes(other.address)])
    raw = Raw(net, other, me)
    for first in range(0, 1000, 200):
        keys = [b"%032d" % n for n in range(first, first + 200)]
        raw.send(*(Message(Type.ADD_PROVIDER, key, providers=[own]) for key in keys))
    assert len(me.kad.store._providers) == 10_000 // 20 + 1
    assert me.kad.store.providers(KEY, WALL) != []


def test_row_77_twenty_sybils_do_not_lock_out_a_closer_provider():
    store = MemoryStore()
    near = sorted(map(peer, range(100)), key=lambda one: key_of(bytes(one)) ^ key_of(KEY))
    for one in near[40:60]:
        assert store.add_provider(KEY, one, (), WALL)
    assert store.add_provider(KEY, near[0], (public(1),), WALL)
    assert near[0] in [one.peer for one in store.providers(KEY, WALL)]
    assert len(store.providers(KEY, WALL)) == 20


def test_row_78_forty_peers_of_an_answer_with_sixteen_addresses_each():
    one = b"".join(b"\x12\x08" + bytes((4, 127, 9, 9, n % 250, 6, 0, n % 250)) for n in range(200))

    def flooding(request, stream):
        answer = written(Message(request.type))[1:]
        for number in range(1700):
            item = b"\x0a\x26" + bytes(peer(number)) + one
            answer += b"\x42" + delimited(item)
        return delimited(answer)

    net, me, (other,) = victim(flooding)
    assert len(flooding(Message(Type.FIND_NODE), None)) > 3 * 1024 * 1024
    request = net.start(me, "closest_peers", KEY)
    (operation,) = me.kad._operations.values() if me.kad._operations else (None,)
    known = operation.query.candidates() if operation else me.result(request).trace
    told = [hop for hop in known if hop.peer != other.peer]
    assert 1 <= len(told) <= 40
    assert all(len(hop.addresses) <= 16 for hop in told)
    net.wait(70)
    event = me.result(request)
    assert len(event.trace) <= 41 and idle(me)
    assert all(len(me.node.peers.addresses(peer(n), net.now)) == 0 for n in range(50))


def test_row_79_a_valid_record_of_another_key_is_rejected_and_counted():
    key = PrivateKey.generate(CRYPTO, Seeded("name"))
    record = ipns.seal(key, b"/ipfs/x", 9, WALL + 2000)
    theirs, asked = ipns.key_for(key.peer_id), ipns.key_for(peer(1))

    def swapping(request, stream):
        return Message(request.type, request.key, Record(theirs, record))

    def renaming(request, stream):
        return Message(request.type, request.key, Record(request.key, record))

    net, me, (swapper, _) = victim(swapping, renaming)
    assert isinstance(net.call(me, "get", asked), DhtFailed)
    assert me.kad.rejected == 2 and swapper.peer not in me.knows()
    assert net.call(me, "get", theirs).value == record


def test_row_80_we_are_never_dialed():
    me = None

    def naming(request, stream):
        other = Peer(bytes(peer(3)), [bytes(me.address)])
        return Message(request.type, closer=[Peer(bytes(me.peer), [bytes(public(9))]), other])

    net, me, _ = victim(naming)
    for command, arguments in COMMANDS.items():
        event = net.call(me, command, *arguments)
        trace = getattr(event, "trace", ())
        assert me.peer not in [hop.peer for hop in trace]
    assert public(9) not in me.dialed
    # Somebody else at our own address is not us, and nobody else answers there.
    assert not me.node.is_connected(me.peer) and me.peer not in me.kad.table
    assert peer(3) not in me.knows() and idle(me)


WRONG = {
    "silence": lambda request, stream: None,
    "half an answer": lambda request, stream: b"\x20\x08",
    "a reset": lambda request, stream: stream.reset(),
    "the end": lambda request, stream: stream.write_eof(),
    "junk": lambda request, stream: b"\x04junk",
    "a bad record": lambda request, stream: Message(
        request.type, request.key, Record(request.key, b"bad")
    ),
    "itself": lambda request, stream: Message(request.type, closer=far(1, 2, 3)),
    "loops": lambda request, stream: Message(request.type, closer=[
        Peer(bytes(peer(n)), [bytes(Multiaddr("/ip4/127.0.0.2/tcp/4001"))]) for n in range(40)
    ]),
}  # fmt: skip


@pytest.mark.parametrize("behave", WRONG.values(), ids=WRONG)
def test_row_81_every_command_ends_and_its_slots_return(behave):
    net, me, _ = victim(*[behave] * 5)
    requests = [net.start(me, name, *arguments) for name, arguments in COMMANDS.items()]
    net.wait(61)
    assert all(me.result(one) is not None for one in requests[:-1])
    net.wait(100)
    assert me.result(requests[-1]) is not None and idle(me)


def test_row_81_one_honest_peer_among_all_of_them_is_enough():
    def honest(request, stream):
        return Message(request.type, request.key, Record(request.key, b"good"))

    net = Net()
    me = net.add(KadConfig(server=True, walk=Walk(k=20, beta=20, alpha=4)))
    for behave in (*WRONG.values(), *WRONG.values(), honest):
        introduce(me.kad, net.puppet(behave), net.now)
    request = net.start(me, "get", b"/x/a")
    net.wait(60)
    event = me.result(request)
    assert isinstance(event, DhtValueFound) and event.value == b"good" and idle(me)


def test_row_82_ten_thousand_ids_of_one_network_do_not_get_into_the_table():
    table = Table(peer(0))
    group = groups([Multiaddr("/ip4/130.1.2.3/tcp/1")])
    for number in range(1, 10_001):
        table.add(peer(number), 0.0, groups=group)
    assert len(table) == 3
    assert max(bucket.size for bucket in table.health(0.0).buckets) <= 2
    # An eclipse: the honest are still among the closest to anything.
    honest = [peer(n) for n in range(20_000, 20_100)]
    for number, one in enumerate(honest):
        table.add(one, 0.0, groups=groups([public(number)]))
    for number in range(20):
        closest = [entry.peer for entry in table.closest(key_of(b"%d" % number), 20)]
        assert len(set(closest) & set(honest)) >= 17


def test_row_82_connections_of_one_network_through_the_node():
    net = Net()
    me = net.add(KadConfig(walk=SMALL))
    for number in range(12):
        net.connect(me, net.puppet(echo, address=f"/ip4/130.7.{number}.1/tcp/4001"))
    assert len(me.knows()) == 3


def test_row_83_sybils_around_a_key_are_detected_and_the_region_is_asked():
    found = detected = 0
    for seed in range(20):
        topology = Topology(400, seed=seed)
        size = NetworkSize()
        for number in range(8):
            query, _ = topology.lookup(topology.peers[number], key_of(b"%d" % number))
            size.learn([hop.distance for hop in query.closest()], 20)
        target = key_of(b"censored %d" % seed)
        truth = topology.closest(target, 20)
        nearest = topology.key[truth[0]] ^ target
        # Ids that cost more hashes than a test has time for are made up.
        sybils = [Fake(target ^ (nearest * n // 50)) for n in range(1, 46)]
        distances = sorted(one.key ^ target for one in sybils)[:20]
        detected += is_crowded(distances, 20, size.estimate)
        within = region(20, size.estimate)
        found += sum(topology.key[one] ^ target <= within for one in truth) >= 15
    assert detected == 20 and found >= 19


class Fake:
    def __init__(self, key):
        self.key = key


def test_row_84_who_cannot_be_reached_does_not_enter_the_table():
    ghosts = [Peer(bytes(peer(n)), [bytes(Multiaddr(f"/ip4/127.9.9.{n}/tcp/1"))])
              for n in range(1, 30)]  # fmt: skip
    net, me, (other,) = victim(lambda request, stream: Message(request.type, closer=ghosts))
    mute = net.puppet(lambda request, stream: None)
    ghosts.append(Peer(bytes(mute.peer), [bytes(mute.address)]))
    request = net.start(me, "closest_peers", bytes(mute.peer))
    net.wait(70)
    assert me.result(request) is not None
    assert mute.puppet.requests and me.node.is_connected(mute.peer)
    assert me.knows() == {other.peer}


def test_row_85_with_three_paths_one_honest_one_is_enough():
    topology = Topology(300, seed=1)
    target = key_of(b"wanted")
    ground = sorted(map(peer, range(900_000, 903_000)), key=lambda p: key_of(bytes(p)) ^ target)
    sybils = [Contact(one) for one in ground[:60]]
    for one in sybils:
        topology.behaviour[one.peer] = lambda topology, one, target: (0.01, sybils[:40])
    honest = topology.contact(topology.closest(target, 300)[200])
    seeds = [*sybils[55:57], honest]
    truth = set(topology.closest(target, 6))
    results = []
    for paths in (1, 3):
        query = Query(peer(0), target, seeds, 0.0, Walk(alpha=3, paths=paths))
        topology.run(query)
        results.append(truth <= {hop.peer for hop in query.closest()})
    assert results == [False, True]


def test_row_86_a_thousand_idle_streams():
    net, me, other = meet()
    other.node.limits.max_outbound_streams = 5000
    net.wait(61)
    raws = [Raw(net, other, me) for _ in range(200)]
    assert len(me.kad._inbound[other.peer].open) == 32
    assert sum(raw.ended is None for raw in raws) == 32
    net.wait(61)
    assert all(raw.ended is not None for raw in raws) and me.kad._inbound == {} and idle(me)


def test_row_86_a_request_that_drips():
    net, me, other = meet()
    raw = Raw(net, other, me)
    data = delimited(MESSAGE.encode(Message(Type.FIND_NODE, bytes(60))))
    for one in data[:9]:
        raw.send(bytes((one,)))
        net.wait(1)
        assert raw.ended is None
    net.wait(1)
    assert raw.ended == 0 and me.kad._inbound == {}


def test_row_86_answers_that_nobody_reads():
    net, me, other = meet()
    net.acquaint(me, *net.servers(8))
    raw = Raw(net, other, me)
    raw.stream.on_data = lambda data, now: None  # no credit
    for _ in range(3):
        if raw.ended is None:
            raw.send(*[Message(Type.FIND_NODE, bytes(60))] * 1000)
    assert raw.ended == 0 and me.kad._inbound == {}


EXTREMES = [0, 1, 2**31, 2**63, 2**64 - 1]


@pytest.mark.parametrize("ttl", EXTREMES)
@pytest.mark.parametrize("received", ["", "9999999999-13-40", "9999-12-31T23:59:59Z", "\x00" * 99])
def test_row_87_times_at_their_extremes(ttl, received):
    net, me, other = meet()
    raw = Raw(net, other, me)
    record = Record(b"/x/a", b"good", received, b"publisher", ttl)
    raw.send(Message(Type.PUT_VALUE, b"/x/a", record))
    wall = me.node.wall(net.now)
    life = me.kad.store.get(b"/x/a", wall).expires - wall
    assert 0 < life <= 2 * DAY and raw.ended is None
    assert me.kad.store.get(b"/x/a", wall + 2 * DAY) is None
    # And in an answer.
    net, me, _ = victim(lambda request, stream: Message(request.type, request.key, record))
    assert net.call(me, "get", b"/x/a").value == b"good"
    assert all(entry[0] < net.now + 4000 for entry in me.node.timers._heap)


@pytest.mark.parametrize("text", ["9999999999-13-40", "-0001-01-01T00:00:00Z", "", "Z" * 40,
                                  "1970-01-01T00:00:00+99:99", "2024-02-30T00:00:00Z"])  # fmt: skip
def test_row_87_times_of_ipns_records(text):
    with pytest.raises(DecodeError):
        rfc3339.parse(text)


@pytest.mark.parametrize("sequence", [0, 2**63, 2**64 - 1])
def test_row_87_ipns_sequences_and_lifetimes(sequence):
    key = PrivateKey.generate(CRYPTO, Seeded("name"))
    name = ipns.key_for(key.peer_id)
    newer = ipns.seal(key, b"/b", sequence, WALL + 2000, lifetime=ipns.MAX_LIFETIME)
    dead = ipns.seal(key, b"/a", sequence, WALL - 2000, lifetime=0)

    def holder(value):
        return lambda request, stream: Message(
            request.type, request.key, Record(request.key, value)
        )

    net, me, _ = victim(holder(newer), holder(dead))
    event = net.call(me, "get", name)
    assert event.value == newer and event.rejected == 1


def test_row_139_a_network_of_liars_cannot_aim_us():
    # Each answer names 40 strangers at one victim's address, and one at 16 addresses of others.
    aim = public(5)
    numbers = iter(range(10**9))

    def aiming(request, stream):
        closer = [Peer(bytes(peer(next(numbers))), [bytes(aim)]) for _ in range(39)]
        many = [bytes(public(next(numbers) + 10)) for _ in range(16)]
        return Message(request.type, closer=[*closer, Peer(bytes(peer(next(numbers))), many)])

    net, me, _ = victim(*[aiming] * 4)
    dials = []
    for _ in range(60):
        for number in range(3):
            net.start(me, "closest_peers", b"%d" % number)
        net.wait(1)
        dials += [(net.now, one) for one in me.dialed[len(dials):]]  # fmt: skip
    aimed = [now for now, address in dials if address == aim]
    strangers = [address for _, address in dials if address.get("ip4")[:4] != "127."]
    assert 1 <= len(aimed) <= 7  # once per 10 s
    # 10 peers per second beyond the burst, each at 4 addresses at most.
    assert len(strangers) <= (30 + 60 * 10) * 4
    assert max(map(strangers.count, strangers[:50])) <= 7


def test_row_139_what_waits_for_the_budget_is_bounded_and_ends():
    numbers = iter(range(10**9))

    def naming(request, stream):
        return Message(request.type, closer=far(*(next(numbers) for _ in range(40))))

    net, me, _ = victim(*[naming] * 4, dial_rate=1.0, dial_burst=1)
    net.holes.update(public(n) for n in range(2000))
    requests = [net.start(me, "closest_peers", b"%d" % n) for n in range(20)]
    net.wait(61)
    assert all(me.result(one) is not None for one in requests)
    assert len(me.dialed) <= 70 and len(me.kad.requests._starting) < 300
    assert not isinstance(me.result(requests[0]), TimedOut)
    net.wait(100)
    assert idle(me)


# All together.


def test_200_nodes_with_20_percent_sybils_near_the_target():
    net = Net()
    honest = [
        net.add(KadConfig(server=True), address=f"/ip4/{130 + n % 80}.{n}.1.1/tcp/4001")
        for n in range(160)
    ]
    target = KEY
    seeded, key = Seeded("sybils"), key_of(target)
    keys = [PrivateKey.generate(CRYPTO, seeded) for _ in range(1500)]
    keys.sort(key=lambda one: key_of(bytes(one.peer_id)) ^ key)
    random = Random(1)
    sybils = []

    def lying(request, stream):
        closer = [Peer(bytes(one.peer), [bytes(one.address)]) for one in random.sample(sybils, 20)]
        return Message(request.type, request.key, closer=closer)

    for number, one in enumerate(keys[:40]):
        address = f"/ip4/{220 + number % 3}.1.{number}.1/tcp/4001"
        sybils.append(net.puppet(lying, key=one, address=address))
    for one in honest:
        others = [other for other in (*honest, *sybils) if other is not one]
        random.shuffle(others)
        for other in others:
            one.kad.table.add(other.peer, net.now, addresses=(other.address,),
                              groups=groups([other.address]))  # fmt: skip
    wanted = net.closest(target, honest)[0]
    askers = [one for one in honest if one is not wanted][:40]
    successes = 0
    for one in askers:
        request = net.start(one, "closest_peers", target)
        for _ in range(30):
            if one.results(request):
                break
            net.wait(1)
        found = [contact.peer for contact in one.result(request).peers]
        successes += wanted.peer in found
        assert len(set(found) & {sybil.peer for sybil in sybils}) <= 9  # 3 of each network
    assert successes >= 0.99 * len(askers)
