"""What a server answers, request by request."""

import pytest
from core.kad.net import LongestValue
from core.kad.people import peer, public

from anyp2p_core.errors import DecodeError
from anyp2p_core.kad.addresses import Reach
from anyp2p_core.kad.keys import key_of
from anyp2p_core.kad.messages import (
    MAX_PROVIDER_KEY,
    ConnectionType,
    Message,
    Peer,
    Record,
    Type,
)
from anyp2p_core.kad.records import AcceptAll, Validators
from anyp2p_core.kad.server import Responder
from anyp2p_core.kad.store import MemoryStore, StoredRecord
from anyp2p_core.kad.table import Table
from anyp2p_core.multiaddr import Multiaddr

OWN, ASKER = peer(0), peer(999)
WALL = 1_700_000_000.0
DAY = 86_400.0
LAN = Multiaddr("/ip4/192.168.0.1/tcp/1")


class Expiring:
    """Values are "n" and a time at which they end."""

    def validate(self, key, value, wall):
        if float(value.split()[1]) <= wall:
            raise DecodeError("it has ended")

    def select(self, key, values):
        return max(range(len(values)), key=lambda index: values[index].split()[0])


class Server:
    def __init__(self, known=30, **options):
        self.table = Table(OWN)
        self.store = MemoryStore()
        self.known = {OWN: [public(0)], **{peer(n): [public(n)] for n in range(1, known + 1)}}
        for number in range(1, known + 1):
            self.table.add(peer(number), 0.0)
        self.connected = set()
        self.own_keys = []
        self.responder = Responder(
            own=OWN,
            table=self.table,
            store=self.store,
            own_keys=self.own_keys,
            validators=Validators({"x": LongestValue(), "e": Expiring(), "any": AcceptAll()}),
            addresses=lambda one, now: self.known.get(one, []),
            connected=self.connected.__contains__,
            reach=options.get("reach", Reach.WAN),
            record_age=2 * DAY,
        )

    def ask(self, kind, key=b"key", *, sender=ASKER, wall=WALL, **fields):
        return self.responder.answer(sender, Message(kind, key, **fields), 0.0, wall)

    def put(self, key, value, *, sender=ASKER, wall=WALL, ttl=0):
        record = Record(key, value, ttl=ttl)
        return self.ask(Type.PUT_VALUE, key, sender=sender, wall=wall, record=record)

    def get(self, key, wall=WALL):
        return self.ask(Type.GET_VALUE, key, wall=wall).record

    def closest(self, key, count=20):
        known = sorted(self.table.entries(), key=lambda e: e.key ^ key_of(key))
        return [bytes(entry.peer) for entry in known if entry.peer != ASKER][:count]


def ids(peers):
    return [one.id for one in peers]


def test_ping_is_echoed():
    answer = Server().ask(Type.PING, b"", cluster_level=7)
    assert answer == Message(Type.PING, cluster_level=7)


def test_find_node_gives_the_closest_and_where_they_are():
    server = Server()
    server.connected.add(peer(1))
    answer = server.ask(Type.FIND_NODE, cluster_level=3)
    assert ids(answer.closer) == server.closest(b"key")
    assert (answer.type, answer.key, answer.cluster_level) == (Type.FIND_NODE, b"", 3)
    whole = Server(5)
    whole.connected.add(peer(1))
    found = {one.id: one for one in whole.ask(Type.FIND_NODE).closer}
    assert found[bytes(peer(1))].connection == ConnectionType.CONNECTED
    assert found[bytes(peer(2))].connection == ConnectionType.NOT_CONNECTED
    assert found[bytes(peer(2))].addresses == [bytes(public(2))]


def test_the_asker_and_those_that_are_nowhere_are_left_out():
    server = Server(3)
    server.table.add(ASKER, 0.0)
    server.known[ASKER] = [public(50)]
    server.known[peer(2)] = []
    assert set(ids(server.ask(Type.FIND_NODE).closer)) == {bytes(peer(1)), bytes(peer(3))}
    full = Server(30)
    full.table.add(ASKER, 0.0)
    assert len(full.ask(Type.FIND_NODE, bytes(ASKER)).closer) == 20


def test_the_wanted_peer_comes_first_also_if_it_is_no_server():
    server = Server()
    server.known[peer(500)] = [public(500)]
    answer = server.ask(Type.FIND_NODE, bytes(peer(500)))
    assert ids(answer.closer) == [bytes(peer(500)), *server.closest(bytes(peer(500)))]
    # Once only, not without an address, and neither ourselves nor the asker.
    assert ids(server.ask(Type.FIND_NODE, bytes(peer(1))).closer).count(bytes(peer(1))) == 1
    for one in (peer(501), OWN, ASKER):
        server.known[ASKER] = [public(9)]
        assert bytes(one) not in ids(server.ask(Type.FIND_NODE, bytes(one)).closer)


def test_values_are_put_and_got():
    server = Server()
    answer = server.put(b"/x/a", b"good")
    assert (answer.type, answer.key, answer.record) == (
        Type.PUT_VALUE, b"/x/a", Record(b"/x/a", b"good"),
    )  # fmt: skip
    answer = server.ask(Type.GET_VALUE, b"/x/a")
    assert ids(answer.closer) == server.closest(b"/x/a")
    assert (answer.record.value, answer.record.time_received) == (
        b"good", "2023-11-14T22:13:20.000000000Z",
    )  # fmt: skip
    assert server.get(b"/x/b") is None


def test_worse_values_are_refused_and_better_ones_replace():
    server = Server()
    server.put(b"/x/a", b"good 12")
    with pytest.raises(DecodeError, match="worse"):
        server.put(b"/x/a", b"good 1")
    server.put(b"/x/a", b"good 12345")
    assert server.get(b"/x/a").value == b"good 12345"


def test_a_value_that_has_ended_is_no_obstacle():
    server = Server()
    server.put(b"/e/a", b"9 %d" % (WALL + 10))
    with pytest.raises(DecodeError, match="worse"):
        server.put(b"/e/a", b"5 %d" % (WALL + 100), wall=WALL + 9)
    server.put(b"/e/a", b"5 %d" % (WALL + 100), wall=WALL + 10)
    assert server.get(b"/e/a").value.startswith(b"5")


def test_records_get_old():
    server = Server()
    server.put(b"/x/a", b"good")
    assert server.get(b"/x/a", WALL + 2 * DAY - 1)
    assert server.get(b"/x/a", WALL + 2 * DAY) is None
    # Also if the store keeps them for longer.
    server.store.put(StoredRecord(b"/x/b", b"good", WALL, WALL + 9 * DAY), WALL)
    assert server.get(b"/x/b", WALL + 2 * DAY) is None


@pytest.mark.parametrize("ttl", [0, 1, 2**31, 2**63, 2**64 - 1])
def test_row_87_a_ttl_only_shortens(ttl):
    server = Server()
    server.put(b"/x/a", b"good", ttl=ttl)
    life = min(ttl or 2 * DAY, 2 * DAY)
    assert server.store.get(b"/x/a", WALL).expires == WALL + life
    assert server.get(b"/x/a", WALL + life - 0.5) is not None
    assert server.get(b"/x/a", WALL + life) is None


def test_who_repeats_a_record_neither_ends_its_life_nor_owns_it():
    server = Server()
    server.put(b"/x/a", b"good", sender=peer(1))
    server.put(b"/x/a", b"good", sender=peer(2), ttl=1)
    kept = server.store.get(b"/x/a", WALL)
    assert (kept.expires, kept.sender) == (WALL + 2 * DAY, bytes(peer(1)))
    server.put(b"/x/a", b"good", sender=peer(1), wall=WALL + DAY)
    assert server.store.get(b"/x/a", WALL).expires == WALL + 3 * DAY


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"record": Record(b"/x/b", b"good")},
        {"record": Record(b"", b"good")},
        {"record": Record(b"/x/a", b"bad")},
        {"record": Record(b"/x/a", b"good" + bytes(70_000))},
    ],
)
def test_what_is_not_put(fields):
    server = Server()
    with pytest.raises(DecodeError):
        server.ask(Type.PUT_VALUE, b"/x/a", **fields)
    assert server.get(b"/x/a") is None


@pytest.mark.parametrize("kind", [kind for kind in Type if kind is not Type.PING])
def test_a_key_is_needed(kind):
    with pytest.raises(DecodeError, match="without a key"):
        Server().ask(kind, b"", record=Record(b"", b"good"))


def test_no_room():
    server = Server()
    server.responder._store = MemoryStore(max_records=1)
    server.responder._store.put(StoredRecord(b"/x/own", b"v", WALL, WALL + DAY), WALL)
    with pytest.raises(DecodeError, match="no room"):
        server.put(b"/x/a", b"good")


def provider(one, *addresses):
    return Peer(bytes(one), [bytes(address) for address in addresses])


def test_providers_are_added_without_an_answer_and_found():
    server = Server()
    added = [provider(peer(5), public(5)), provider(ASKER, LAN, public(7))]
    assert server.ask(Type.ADD_PROVIDER, providers=added) is None
    server.connected.add(ASKER)
    answer = server.ask(Type.GET_PROVIDERS, sender=peer(1), cluster_level=1)
    (found,) = answer.providers  # only the sender itself, and only where it is public
    assert found == Peer(bytes(ASKER), [bytes(public(7))], ConnectionType.CONNECTED)
    assert (answer.key, answer.cluster_level) == (b"key", 1)
    assert bytes(peer(1)) not in ids(answer.closer) and len(answer.closer) == 20


def test_we_provide_too():
    server = Server()
    server.own_keys.append(b"key")
    answer = server.ask(Type.GET_PROVIDERS)
    assert answer.providers == [provider(OWN, public(0))]


def test_addresses_that_are_too_old_come_from_what_is_known():
    server = Server()
    server.ask(Type.ADD_PROVIDER, providers=[provider(ASKER, public(7))])
    server.known[ASKER] = [public(8)]
    (found,) = server.ask(Type.GET_PROVIDERS, wall=WALL + 1.5 * DAY).providers
    assert found.addresses == [bytes(public(8))]
    assert server.ask(Type.GET_PROVIDERS, wall=WALL + 2 * DAY).providers == []


@pytest.mark.parametrize(
    "providers",
    [[], [provider(peer(5), public(5))], [provider(ASKER)], [Peer(bytes(ASKER), [b"junk"])]],
)
def test_row_76_providers_must_be_the_sender_and_be_somewhere(providers):
    server = Server()
    with pytest.raises(DecodeError):
        server.ask(Type.ADD_PROVIDER, providers=providers)
    assert server.ask(Type.GET_PROVIDERS).providers == []


@pytest.mark.parametrize("kind", [Type.ADD_PROVIDER, Type.GET_PROVIDERS])
def test_row_76_keys_of_providers_are_short(kind):
    server = Server()
    one = [provider(ASKER, public(7))]
    server.ask(kind, bytes(MAX_PROVIDER_KEY), providers=one)
    with pytest.raises(DecodeError, match="80"):
        server.ask(kind, bytes(MAX_PROVIDER_KEY + 1), providers=one)
