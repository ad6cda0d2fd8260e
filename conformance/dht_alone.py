"""What one kind of node does by itself, most of it what peers are known to disagree about.

KNOWN says which programs differ in which cell. It is tried all the same, and it is a failure when
they do not differ any more.
"""

import asyncio
import statistics
from collections.abc import Awaitable, Callable

import dht_records
from cells import expect
from dht_cells import SPREAD, Differs, Pair, Untried, gets
from dht_records import Name
from network import OWN, Kind
from peer import Message, Peer, PeerFailed

LOOKUPS = 24
OTHER_LOOKUPS = 8
"""Those of other kinds stand beside ours, but are not judged."""
AT_ONCE = 6
FAST = 0.1
"""Seconds that a real find_providers of ours may take."""
OTHER_NETWORK = "/conformance/kad/1.0.0"
MEETING = 1.0
"""Seconds in which peers of one network would have come into each other's tables."""

KNOWN = {
    ("outsider", "rust"): "rust peers tell of nobody outside their table, hence of no client",
    ("large value", "rust"): "rust peers take no message longer than 16 KiB, so that they neither"
    " store such a value nor get it",
    ("older put", "js"): "js peers put what they are told to; what they put is refused by others",
    ("invalid put", "js"): "js peers put what they are told to; what they put is refused by others",
}
"""By column and program, why it differs."""


async def find_providers(pair: Pair) -> str:
    """How long a client takes, for keys that nodes of all kinds provide."""
    servers = [node.peer for kind in pair.network.kinds.values() for node in kind.servers]
    lookups = LOOKUPS if pair.who.program == OWN else OTHER_LOOKUPS
    keys = [dht_records.sha2_256() for _ in range(lookups)]
    slots = asyncio.Semaphore(AT_ONCE)

    async def provide(number: int, key: str) -> None:
        async with slots:
            await servers[number * 7 % len(servers)].call("dht_provide", multihash=key)

    await asyncio.gather(*(provide(number, key) for number, key in enumerate(keys)))
    await asyncio.sleep(SPREAD)
    medians = []
    for count in (1, 0):
        seconds = []
        for key in keys:
            answer = await pair.who.client.peer.call(
                "dht_find_providers", multihash=key, count=count
            )
            expect(len(answer["peers"]) == 1, f"{pair.who.name} found {answer['peers']}")
            seconds.append(answer["seconds"])
        medians.append(statistics.median(seconds))
    found, over = (f"{median * 1e3:.1f} ms" for median in medians)
    if pair.who.program == OWN:
        expect(medians[0] < FAST, f"the median of {lookups} lookups is {found}")
    return f"found after {found}, everybody asked after {over} (medians of {lookups})"


async def large_value(pair: Pair) -> str:
    """A value that does not fit into 16 KiB, put by a peer that sends longer messages."""
    kinds = pair.network.kinds
    giver = kinds.get("go") or kinds.get("js")
    if giver is None:
        raise Untried("only go and js put such values")
    record = dht_records.example(bytes(dht_records.LARGE))
    await giver.nodes[0].peer.call("dht_put", **record)
    asker = pair.who.client.peer
    if pair.who.program == OWN:
        own = dht_records.example(bytes(dht_records.LARGE))
        expect(await _refuses(asker, own), f"{asker.label} put what rust peers cannot take")
    try:
        await gets(asker, record)
    except PeerFailed as error:
        expect(asker.alive, f"{asker.label} did not survive it")
        raise Differs(str(error)) from None
    return ""


async def older_put(pair: Pair) -> str:
    """An older record is refused, and does not come back from anywhere."""
    name, peer = Name(), pair.asking()
    newer, older = name.record(2), name.record(1)
    await peer.call("dht_put", **newer)
    refused = await _refuses(peer, older)
    for kind in pair.network.kinds.values():
        await gets(kind.client.peer, newer)
    if not refused:
        raise Differs(f"{peer.label} put a record older than its own")
    return ""


async def invalid_put(pair: Pair) -> str:
    """Records that are forged or expired are refused, and do not come back from anywhere."""
    refused, peer = True, pair.asking()
    for record in (Name().forged(), Name().record(1, lifetime=0)):
        refused &= await _refuses(peer, record)
        for kind in pair.network.kinds.values():
            asker = kind.client.peer
            try:
                await asker.call("dht_get", key=record["key"])
            except PeerFailed:
                expect(asker.alive, f"{asker.label} did not survive it")
            else:
                expect(False, f"{asker.label} got a record that is not valid")
    if not refused:
        raise Differs(f"{peer.label} put a record that is not valid")
    return ""


async def _refuses(peer: Peer, record: Message) -> bool:
    try:
        await peer.call("dht_put", **record)
    except PeerFailed:
        expect(peer.alive, f"{peer.label} did not survive it")
        return True
    return False


async def other_network(pair: Pair) -> str:
    """Two nodes under another protocol name have each other and nobody else."""
    kinds = [kind for kind in pair.network.kinds.values() if not kind.is_guest]
    programs = {kind.program: kind for kind in kinds}
    names = list(programs)
    following = programs[names[(names.index(pair.who.program) + 1) % len(names)]]
    started: list[Peer] = []
    try:
        for kind in (pair.who, following):
            started.append(await _foreign(kind))
        here, there = started
        await here.call("dht_bootstrap", addresses=[there.address])
        record = dht_records.example(b"elsewhere")
        await here.call("dht_put", **record)
        await gets(there, record)
        native = pair.who.nodes[0].peer
        await here.call("dial", address=native.address)
        await asyncio.sleep(MEETING)
        for peer, stranger in ((here, native), (native, here)):
            listed = (await peer.call("dht_table"))["peers"]
            expect(stranger.id not in listed, f"{peer.label} lists {stranger.label}")
        try:
            await native.call("dht_get", key=record["key"])
        except PeerFailed:
            return ""
        expect(False, f"{native.label} got a value of another network")
    finally:
        await asyncio.gather(*(peer.stop() for peer in started))
    return ""


async def _foreign(kind: Kind) -> Peer:
    return await kind.start(
        dht="server", protocol=OTHER_NETWORK, label=f"{kind.name} of another network"
    )


COLUMNS: dict[str, Callable[[Pair], Awaitable[str]]] = {
    "find_providers": find_providers,
    "large value": large_value,
    "older put": older_put,
    "invalid put": invalid_put,
    "other network": other_network,
}
