"""What two kinds of nodes must be able to do in one network: one function per column.

One kind acts, and the other is who it depends on: at whose node it joins, who provides, who puts,
who alone knows a peer. A cell raises CellFailed or PeerFailed, or returns a remark.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import dht_records
from cells import CellFailed, expect
from dht_records import Name
from network import Kind, Network, Node, position
from peer import Message, Peer, PeerFailed

from anyp2p_core.crypto import KeyType

SPREAD = 0.15
"""Seconds after which provider records have arrived: ADD_PROVIDER has no answer."""
TABLES_TIMEOUT = 30.0
"""Seconds until every node must know most servers."""
JOIN_TIMEOUT = 10.0
REFRESHING = 4
"""Nodes that refresh their tables at the same time."""
CLOSE = 3
"""Servers closest to a peer of which one has to know it: go peers ask no further for addresses."""

ONLY_THE_TABLE = ("rust",)
"""Programs that tell of nobody outside their table, hence of no client."""


class Differs(Exception):
    """What is known of a peer, and not as the others do it; the message says what it did."""


class Untried(Exception):
    """The peers that this cell needs are not there; the message names them."""


@dataclass(slots=True)
class Pair:
    """``who`` acts, and depends on ``other``. ``turn`` counts attempts: nodes take turns."""

    network: Network
    who: Kind
    other: Kind
    turn: int = 0

    def asking(self, number: int = 0) -> Peer:
        return self.who.nodes[(number + self.turn) % len(self.who.nodes)].peer

    def giving(self, number: int = 0) -> Peer:
        """A node of the other kind; never the one that is asking."""
        nodes = self.other.nodes
        return nodes[(number + 1 + self.turn) % len(nodes)].peer


# Joining.


def joining(pair: Pair) -> Node | None:
    """The node of one kind that joins at the other one."""
    doors = {node.door: node for node in pair.who.nodes}
    return doors.get(pair.other.name)


async def bootstrap(pair: Pair) -> str:
    """A node that knows one address gets into the network."""
    node = joining(pair)
    assert node is not None
    door = pair.other.nodes[0].peer
    answer = await node.peer.call("dht_bootstrap", addresses=[door.address])
    expect(answer["size"] > 0, f"{node.peer.label} has an empty table")
    return f"{answer['size']} peers"


async def refresh(network: Network) -> None:
    """Let all join once more: who came early learns of those who came late.

    The implementations do that by themselves, every 5 or 10 minutes.
    """
    slots = asyncio.Semaphore(REFRESHING)

    async def again(node: Node) -> None:
        async with slots:
            await rejoin(network, node)

    await asyncio.gather(*map(again, network))


async def rejoin(network: Network, node: Node) -> None:
    """Let one look around once more."""
    with suppress(PeerFailed):  # the bootstrap cells tell of it
        door = network.kinds[node.door].nodes[0].peer
        await node.peer.call("dht_bootstrap", addresses=[door.address])


async def table(pair: Pair) -> str:
    """Tables hold most servers of the other kind, and none of its clients."""
    deadline = asyncio.get_running_loop().time() + TABLES_TIMEOUT
    wanted = {node.peer.id for node in pair.other.servers}
    while True:
        least, where = len(wanted), ""
        lonely = []
        for node in pair.who.nodes:
            mode = (await node.peer.call("dht_mode"))["mode"]
            asked = "server" if node.server else "client"
            expect(mode == asked, f"{node.peer.label} is a {mode}, not a {asked}")
            peers = set((await node.peer.call("dht_table"))["peers"])
            for one in pair.other.nodes:
                listed = one.peer.id in peers and not one.server
                expect(not listed, f"{node.peer.label} lists {one.peer.label}, a client")
            others = wanted - {node.peer.id}
            if len(peers & others) * 2 < len(others):
                least, where = min(least, len(peers & others)), node.peer.label
                lonely.append(node)
        if not where:
            return ""
        if asyncio.get_running_loop().time() > deadline:
            raise CellFailed(f"{where} knows {least} of {len(wanted)} servers of {pair.other.name}")
        for node in lonely:  # a busy machine makes peers miss each other's deadlines
            await rejoin(pair.network, node)
        await asyncio.sleep(0.5)


# Records.


async def providers(pair: Pair) -> str:
    """A client finds who provides something."""
    return await _provide(pair, dht_records.sha2_256())


async def long_hash(pair: Pair) -> str:
    """The same for a hash of 64 bytes."""
    return await _provide(pair, dht_records.sha2_512())


async def _provide(pair: Pair, multihash: str) -> str:
    giver, asker = pair.giving(), pair.who.client.peer
    if giver is asker:
        asker = pair.asking()
    await giver.call("dht_provide", multihash=multihash)
    await asyncio.sleep(SPREAD)
    answer = await asker.call("dht_find_providers", multihash=multihash, count=1, timeout=20)
    found = answer["peers"]
    expect(found == [giver.id], f"{asker.label} found {found}, not {giver.label} ({giver.id})")
    return f"{answer['seconds'] * 1e3:.0f} ms"


async def public_key(pair: Pair) -> str:
    """A public key whose peer id is its hash: those that are long."""
    return await _carry(pair, dht_records.public_key(KeyType.RSA))


async def inline_key(pair: Pair) -> str:
    """A public key that is short, and stands in its peer id itself."""
    return await _carry(pair, dht_records.public_key(KeyType.ED25519))


async def example(pair: Pair) -> str:
    """A value of the namespace that all peers were given for these tests."""
    return await _carry(pair, dht_records.example(pair.who.name.encode()))


async def _carry(pair: Pair, record: Message) -> str:
    await pair.giving().call("dht_put", **record)
    await gets(pair.asking(), record)
    return ""


async def gets(peer: Peer, record: Message) -> None:
    answer = await peer.call("dht_get", key=record["key"])
    same = answer["value"] == record["value"]
    expect(same, f"{peer.label} got {answer['value'][:64]}, not {record['value'][:64]}")


async def ipns(pair: Pair) -> str:
    """A record, then a newer one in its place that comes from the other side."""
    name, giver, asker = Name(), pair.giving(), pair.asking()
    await giver.call("dht_put", **name.record(1))
    first = await asker.call("dht_get", key=name.key)
    expect(bool(first["value"]), f"{asker.label} got an empty record")
    newer = name.record(2)
    await asker.call("dht_put", **newer)
    for peer in (giver, asker):
        await gets(peer, newer)
    return ""


async def find_peer(pair: Pair) -> str:
    """A peer that only one node knows, which is of the other kind.

    That peer is no part of the DHT, unless the node that knows it would not tell of it then.
    """
    listed = pair.other.program in ONLY_THE_TABLE
    return await _find(pair, dht="server" if listed else "off")


async def find_outsider(pair: Pair) -> str:
    """A peer that is no part of the DHT, where that was not tried yet."""
    return await _find(pair, dht="off")


async def _find(pair: Pair, dht: str) -> str:
    """Let a peer connect to one server that others will ask, then look for it at once."""
    programs = {kind.program: kind for kind in pair.network.kinds.values()}
    target_kind = programs.get("rust") or programs.get("go") or pair.other
    servers = [node for node in pair.network if node.server]
    asker = pair.who.client.peer
    while True:
        target = await target_kind.start(dht=dht, label=f"a {target_kind.name} peer")
        try:
            by_distance = sorted(servers, key=lambda node: node.key ^ position(target.id))
            near = [node.peer for node in by_distance[:CLOSE] if node.kind == pair.other.name]
            if not near:
                continue  # another one
            await target.call("dial", address=near[0].address)
            await near[0].call("identify", peer=target.id)
            if dht == "server":
                await _is_listed(near[0], target)
            try:
                answer = await asker.call("dht_find_peer", peer=target.id)
            except PeerFailed as error:
                if dht == "off" and pair.other.program in ONLY_THE_TABLE and asker.alive:
                    raise Differs(str(error)) from None
                raise
            found = [address.partition("/p2p/")[0] for address in answer["addresses"]]
            expect(
                target.address.partition("/p2p/")[0] in found,
                f"{asker.label} found {target.label} at {found}, not {target.address}",
            )
            return ""
        finally:
            await target.stop()


async def _is_listed(peer: Peer, target: Peer) -> None:
    deadline = asyncio.get_running_loop().time() + JOIN_TIMEOUT
    while target.id not in (await peer.call("dht_table"))["peers"]:
        if asyncio.get_running_loop().time() > deadline:
            raise CellFailed(f"{target.label} did not come into the table of {peer.label}")
        await asyncio.sleep(0.005)


NEEDS = {
    "table": "dht_table",
    "example": "dht example",
    "large value": "dht example",
    "other network": "dht_protocol",
}
"""What peers may be unable to do, by column."""

COLUMNS: dict[str, Callable[[Pair], Awaitable[str]]] = {
    "bootstrap": bootstrap,
    "table": table,
    "providers": providers,
    "long hash": long_hash,
    "pk": public_key,
    "pk inline": inline_key,
    "ipns": ipns,
    "example": example,
    "find peer": find_peer,
    "outsider": find_outsider,
}
