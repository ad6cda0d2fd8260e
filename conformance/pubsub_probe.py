"""A node that writes whatever RPCs a cell wants, and keeps what a peer writes to it.

probe                               the peer that is looked at
   |-- its own stream, hello: TOPIC ----->|
   |<- the peer's stream, its hello ------|
   |-- GRAFT, messages, PRUNE, ... ------>|   what the cell says
   |<- everything is kept: ``rpcs`` ------|

It is a host of ours without pubsub, that speaks gossipsub 1.2 by hand.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

from cells import CellFailed
from peer import Peer

from anyp2p.asyncio import Host, Stream
from anyp2p.providers.crypto import Cryptography
from anyp2p.providers.entropy import OsEntropy
from anyp2p_core.errors import Error
from anyp2p_core.keys import PrivateKey
from anyp2p_core.pubsub import message as messages, rpc as wire
from anyp2p_core.varint import Delimited

T = TypeVar("T")

PROTOCOL = "/meshsub/1.2.0"
MAX_RPC = 8 << 20
CHUNK = 1 << 16
POLL = 0.02
PATIENCE = 8.0


class Probe:
    """Use :func:`probes`."""

    def __init__(self, key: PrivateKey, host: Host, label: str) -> None:
        self.host = host
        self.id = str(host.peer_id)
        self.key = key
        self.label = label
        self.rpcs: list[wire.Rpc] = []
        """What the peer has written, in its order."""
        self._seqno = 0
        self._stream: Stream | None = None
        host.handle(PROTOCOL)(self._listen)

    async def _listen(self, stream: Stream) -> None:
        frames = Delimited(MAX_RPC)
        while data := await stream.read(CHUNK):
            self.rpcs += [wire.parse(frame, wire.WireLimits()) for frame in frames.receive(data)]

    async def join(self, peer: Peer, topic: str) -> None:
        """Connect to a peer, and take part in a topic, as it says."""
        await self.host.connect(peer.address)
        self._stream = await self.host.open_stream(peer.id, PROTOCOL, optimistic=False)
        await self.write(wire.subscriptions([(True, topic.encode())]))

    async def write(self, *rpcs: bytes) -> None:
        assert self._stream is not None
        try:
            await self._stream.write(b"".join(rpcs))
        except Error as error:
            raise CellFailed(f"{self.label} could not write: {error}") from None

    async def graft(self, topic: str) -> None:
        await self.write(wire.graft_prune([topic.encode()], []))

    async def prune(self, prune: wire.Prune) -> None:
        await self.write(wire.graft_prune([], [prune]))

    def message(self, topic: str, data: bytes, *, forged: bool = False) -> messages.Message:
        """A message of ours, with a signature that is good unless it is to be ``forged``."""
        self._seqno += 1
        author, seqno = bytes(self.host.peer_id), self._seqno.to_bytes(8, "big")
        message = messages.build(author, data, seqno, topic.encode())
        message.id = author + seqno
        signature = self.key.sign(message.signed)
        messages.sign(message, bytes(len(signature)) if forged else signature, None)
        return message

    async def publish(self, *sent: messages.Message) -> None:
        await self.write(wire.publish([message.raw for message in sent]))

    async def find(
        self, what: str, look: Callable[[wire.Rpc], T | None], *, timeout: float = PATIENCE
    ) -> T:
        """What ``look`` finds in an RPC that has come, or will; CellFailed if there is none."""
        deadline = asyncio.get_running_loop().time() + timeout
        at = 0
        while True:
            while at < len(self.rpcs):
                found = look(self.rpcs[at])
                if found is not None:
                    return found
                at += 1
            if asyncio.get_running_loop().time() > deadline:
                raise CellFailed(f"{self.label} got no {what} within {timeout:.0f} s")
            await asyncio.sleep(POLL)

    def has(self, look: Callable[[wire.Rpc], T | None]) -> bool:
        """Whether ``look`` finds something in what has come so far."""
        return any(look(rpc) is not None for rpc in self.rpcs)

    def forget(self) -> None:
        """Look only at what comes from now on."""
        self.rpcs.clear()


@asynccontextmanager
async def probes(count: int) -> AsyncIterator[list[Probe]]:
    """So many of them, each with a name for messages."""
    async with AsyncExitStack() as stack:
        found = []
        for number in range(count):
            key = PrivateKey.generate(Cryptography(), OsEntropy())
            host = await stack.enter_async_context(Host(key, listen=["/ip4/127.0.0.1/tcp/0"]))
            found.append(Probe(key, host, f"probe {number}"))
        yield found


# What to look for.


def pruned(topic: str) -> Callable[[wire.Rpc], wire.Prune | None]:
    def look(rpc: wire.Rpc) -> wire.Prune | None:
        found = rpc.control.prune if rpc.control is not None else []
        return next((prune for prune in found if prune.topic == topic.encode()), None)

    return look


def sent(message: messages.Message) -> Callable[[wire.Rpc], bytes | None]:
    def look(rpc: wire.Rpc) -> bytes | None:
        return next((raw for raw in rpc.publish if raw == message.raw), None)

    return look


def told(message: messages.Message) -> Callable[[wire.Rpc], bool | None]:
    """An IHAVE of a message."""

    def look(rpc: wire.Rpc) -> bool | None:
        found = rpc.control.ihave if rpc.control is not None else []
        return True if any(message.id in ids for _, ids in found) else None

    return look


def declined(message: messages.Message) -> Callable[[wire.Rpc], bool | None]:
    """An IDONTWANT of a message."""

    def look(rpc: wire.Rpc) -> bool | None:
        found = rpc.control.idontwant if rpc.control is not None else []
        return True if message.id in found else None

    return look
