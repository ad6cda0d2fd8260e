"""What gossipsub 1.1 and 1.2 look like on the wire: one peer among probes, a column each."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256

from cells import CellFailed, expect
from dht_cells import Differs
from peer import Peer
from pubsub_network import Kind
from pubsub_probe import Probe, declined, probes, pruned, sent, told

from anyp2p.providers.crypto import Cryptography
from anyp2p_core.envelope import open_peer_record, seal_peer_record
from anyp2p_core.peer_id import PeerId
from anyp2p_core.pubsub import rpc as wire

PRUNE_BACKOFF = 60
UNSUBSCRIBE_BACKOFF = 10
CROWD = 15
"""Probes that want to be in one mesh, more than d_hi, 12."""
D_HI = 12
LARGE = 5000
SILENCE = 1.5
"""Seconds after which what has not come does not come: more than a heartbeat."""
GRAFTS = 2
"""In backoff, the second one so soon that it counts twice: 10 below zero."""
DIALING = 4.0
ECHO = 0.3
FORGERIES = 4
GRAYLIST = -80
POLL = 0.05
PATIENCE = 8.0


@dataclass(slots=True)
class Subject:
    """The peer that is looked at, in a topic that is only this cell's."""

    kind: Kind
    peer: Peer
    topic: str

    async def mesh(self) -> set[str]:
        return set((await self.peer.call("pubsub_mesh", topic=self.topic))["peers"])

    async def has(self, data: bytes) -> bool:
        """Whether it got a message with this data."""
        digest = sha256(data).hexdigest()
        answer = await self.peer.call("pubsub_received", topic=self.topic)
        return any(one["sha256"] == digest for one in answer["messages"])

    async def score(self, probe: Probe) -> float:
        return float((await self.peer.call("pubsub_score", peer=probe.id))["score"])


async def until(what: str, true: Callable[[], Awaitable[bool]], timeout: float = PATIENCE) -> None:
    deadline = asyncio.get_running_loop().time() + timeout
    while not await true():
        if asyncio.get_running_loop().time() > deadline:
            raise CellFailed(f"{what} within {timeout:.0f} s: it did not happen")
        await asyncio.sleep(POLL)


async def _join(subject: Subject, *joining: Probe) -> None:
    """Bring probes into the topic and the mesh."""

    async def listed() -> bool:
        answer = await subject.peer.call("pubsub_peers", topic=subject.topic)
        return all(probe.id in answer["peers"] for probe in joining)

    async def meshed() -> bool:
        return {probe.id for probe in joining} <= await subject.mesh()

    await subject.peer.call("pubsub_subscribe", topic=subject.topic)
    await asyncio.gather(*(probe.join(subject.peer, subject.topic) for probe in joining))
    await until("all probes are in the topic", listed)
    for probe in joining:
        await probe.graft(subject.topic)
    await until("all probes are in the mesh", meshed)


async def backoff(subject: Subject) -> str:
    """PRUNE names a time, of 10 s if the topic was left; a GRAFT within it counts as bad."""
    async with probes(1) as (probe,):
        await _join(subject, probe)
        await subject.peer.call("pubsub_unsubscribe", topic=subject.topic)
        left = await probe.find("PRUNE", pruned(subject.topic))
        expect(left.backoff == UNSUBSCRIBE_BACKOFF, f"a backoff of {left.backoff} s when it left")
        await subject.peer.call("pubsub_subscribe", topic=subject.topic)
        for _ in range(GRAFTS):
            probe.forget()
            await probe.graft(subject.topic)
            again = await probe.find("PRUNE after a GRAFT in backoff", pruned(subject.topic))
            expect(again.backoff == PRUNE_BACKOFF, f"a backoff of {again.backoff} s")
            expect(not again.peers, "peers are named to who breaks the rules")

        async def bad() -> bool:
            return await subject.score(probe) < 0

        await until("a bad score", bad)
        expect(probe.id not in await subject.mesh(), "the probe is in the mesh")
    return ""


async def px_given(subject: Subject) -> str:
    """A mesh that is full names other peers to those whom it does not take."""
    async with probes(CROWD) as crowd:
        await subject.peer.call("pubsub_subscribe", topic=subject.topic)
        await asyncio.gather(*(probe.join(subject.peer, subject.topic) for probe in crowd))
        await asyncio.sleep(0.3)  # identify, whose records are passed on
        for probe in crowd:
            await probe.graft(subject.topic)
        found = await _first_named(crowd, subject.topic)
        expect(found.backoff == PRUNE_BACKOFF, f"a backoff of {found.backoff} s")
        ids = {bytes(probe.host.peer_id) for probe in crowd}
        expect({peer for peer, _ in found.peers} <= ids, "strangers are named")
        signed = [(peer, record) for peer, record in found.peers if record]
        for peer, record in signed:
            opened = open_peer_record(record, Cryptography())
            expect(opened.peer_id == PeerId(peer), "a record is of another peer")
            expect(bool(opened.addresses), "a record has no addresses")
        expect(len(await subject.mesh()) <= D_HI, "the mesh is too large")
    return f"{len(found.peers)} peers, {len(signed)} with records"


async def _first_named(crowd: list[Probe], topic: str) -> wire.Prune:
    """The first PRUNE that names peers."""
    look = pruned(topic)
    found: list[wire.Prune] = []

    async def named() -> bool:
        prunes = [look(rpc) for probe in crowd for rpc in probe.rpcs]
        found.extend(prune for prune in prunes if prune is not None and prune.peers)
        return bool(found)

    await until("a PRUNE that names peers", named)
    return found[0]


async def px_taken(subject: Subject) -> str:
    """Who is pruned connects to the peers that are named to it."""
    async with probes(2) as (probe, other):
        await _join(subject, probe)
        record = seal_peer_record(other.key, 1, other.host.addresses)
        named = [(bytes(other.host.peer_id), record)]
        await probe.prune(wire.Prune(subject.topic.encode(), named, PRUNE_BACKOFF))

        async def connected() -> bool:
            return subject.peer.id in map(str, other.host.peers)

        try:
            await until("a connection to the peer that was named", connected, DIALING)
        except CellFailed as error:
            raise Differs(str(error)) from None
    return ""


async def idontwant(subject: Subject) -> str:
    """A large message is declined where it may come from; and not sent to who declined it."""
    async with probes(2) as (giver, taker):
        await _join(subject, giver, taker)
        large = giver.message(subject.topic, b"large" * (LARGE // 5))
        await giver.publish(large)
        await taker.find("IDONTWANT", declined(large))
        await taker.find("large message", sent(large))
        expect(not giver.has(declined(large)), "IDONTWANT went to who has sent the message")
        unwanted = giver.message(subject.topic, b"other" * (LARGE // 5))
        wanted = giver.message(subject.topic, b"third" * (LARGE // 5))
        await taker.write(*wire.idontwant([unwanted.id]))
        await asyncio.sleep(0.1)
        await giver.publish(unwanted, wanted)
        await taker.find("message that it wants", sent(wanted))
        expect(await subject.has(b"other" * (LARGE // 5)), "the message was lost")
        await asyncio.sleep(SILENCE)
        expect(not taker.has(sent(unwanted)), "a message came that was not wanted")
    return ""


async def no_echo(subject: Subject) -> str:
    """A message that comes by way of somebody else is not sent back to its author."""
    async with probes(3) as (author, giver, taker):
        await _join(subject, author, giver, taker)
        message = author.message(subject.topic, b"echo")
        await giver.publish(message)
        await taker.find("message", sent(message))
        await asyncio.sleep(ECHO)
        expect(not giver.has(sent(message)), "the message came back to its sender")
        if author.has(sent(message)):
            raise Differs("the message came back to its author")
    return ""


async def gossip(subject: Subject) -> str:
    """Who is not in the mesh hears of a message, and gets it when it asks."""
    async with probes(2) as (giver, outsider):
        await _join(subject, giver, outsider)
        await outsider.prune(wire.Prune(subject.topic.encode(), [], PRUNE_BACKOFF))

        async def gone() -> bool:
            return outsider.id not in await subject.mesh()

        await until("the mesh without the probe", gone)
        message = giver.message(subject.topic, b"gossip")
        await giver.publish(message)
        await outsider.find("IHAVE", told(message))
        expect(not outsider.has(sent(message)), "the message came before it was asked for")
        await outsider.write(*wire.iwant([message.id]))
        await outsider.find("message that it asked for", sent(message))
    return ""


async def graylist(subject: Subject) -> str:
    """Who sends forged messages is not heard any more."""
    async with probes(2) as (forger, honest):
        await _join(subject, forger, honest)
        await forger.publish(forger.message(subject.topic, b"before"))

        def receives(data: bytes) -> Callable[[], Awaitable[bool]]:
            async def look() -> bool:
                return await subject.has(data)

            return look

        await until("a good message", receives(b"before"))
        # In one RPC: the third one alone would be the last that counts, 10 above what decays next.
        forged = [b"forged %d" % number for number in range(FORGERIES)]
        await forger.publish(*(forger.message(subject.topic, data, forged=True) for data in forged))

        async def bad() -> bool:
            return await subject.score(forger) < GRAYLIST

        await until("the score of the graylist", bad)
        score = await subject.score(forger)
        await forger.publish(forger.message(subject.topic, b"after"))
        await honest.publish(honest.message(subject.topic, b"honest"))
        await until("the message of an honest peer", receives(b"honest"))
        await asyncio.sleep(SILENCE)
        expect(not await subject.has(b"after"), "it listens to who forged messages")
        expect(not await subject.has(b"forged 0"), "it delivers a forged message")
        expect(forger.id not in await subject.mesh(), "who forged messages is in the mesh")
    return f"a score of {score:.0f}"


COLUMNS: dict[str, Callable[[Subject], Awaitable[str]]] = {
    "backoff": backoff,
    "PX given": px_given,
    "PX taken": px_taken,
    "no echo": no_echo,
    "gossip": gossip,
    "IDONTWANT": idontwant,
    "graylist": graylist,
}
