"""Plays a script of the gossipsub interop tests as one node, on any loop.

    params.json: {"script": [instruction, ...]}

    initGossipSub      the host is made: StrictNoSign, ids are the first 8 bytes of the data
    connect            to nodes by their number
    subscribeToTopic, setTopicValidationDelay
    waitUntil          so many seconds after the start
    publish            8 bytes of id, big-endian, and zeros
    ifNodeIDEquals     another instruction, for one node

What a loop has to offer is ``Place``. Instructions about partial messages are not known.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from anyp2p.host import BaseHost
from anyp2p.providers.crypto import Cryptography
from anyp2p.pubsub import GossipConfig, Message, SignaturePolicy, Subscription, Verdict
from anyp2p_core.errors import ConnectionLost
from anyp2p_core.keys import PrivateKey

Instruction = dict[str, Any]

MAX_RPC = 10 << 20
QUEUED = 600
ID_SIZE = 8
NANOSECONDS = 1e9
POLL = 0.01

COUNTS = {
    "D": "d", "Dlo": "d_lo", "Dhi": "d_hi", "Dscore": "d_score", "Dout": "d_out",
    "HistoryLength": "history_length", "HistoryGossip": "history_gossip", "Dlazy": "d_lazy",
    "GossipFactor": "gossip_factor", "GossipRetransmission": "gossip_retransmission",
    "PrunePeers": "prune_peers", "DirectConnectTicks": "direct_ticks",
    "OpportunisticGraftTicks": "opportunistic_ticks",
    "OpportunisticGraftPeers": "opportunistic_peers",
    "MaxIHaveLength": "max_ihave_length", "MaxIHaveMessages": "max_ihave_messages",
    "MaxIDontWantLength": "max_idontwant_length",
    "MaxIDontWantMessages": "max_idontwant_messages",
    "IDontWantMessageThreshold": "idontwant_threshold", "IDontWantMessageTTL": "idontwant_ttl",
}  # fmt: skip
TIMES = {
    "HeartbeatInitialDelay": "heartbeat_delay", "HeartbeatInterval": "heartbeat",
    "FanoutTTL": "fanout_ttl", "PruneBackoff": "prune_backoff",
    "UnsubscribeBackoff": "unsubscribe_backoff", "GraftFloodThreshold": "graft_flood",
    "IWantFollowupTime": "iwant_followup",
}  # fmt: skip
"""Names of go peers and ours; these are nanoseconds and seconds."""


class Place(Protocol):
    """Where nodes live: a simulated world, or an event loop with sockets."""

    def host(
        self, number: int, config: GossipConfig
    ) -> AbstractAsyncContextManager[BaseHost[Any]]: ...

    def address(self, number: int) -> str:
        """Where a node can be dialed; empty as long as it has not started."""
        ...

    def now(self) -> float:
        """Seconds since the start, as the script counts them."""
        ...

    async def sleep(self, seconds: float) -> None: ...

    def spawn(self, function: Callable[..., Awaitable[None]], *arguments: Any) -> object: ...


@dataclass(slots=True)
class Log:
    """What all nodes did."""

    published: dict[int, tuple[int, str, float]] = field(default_factory=dict)
    """By message id: node, topic, time."""
    received: dict[int, dict[int, list[float]]] = field(default_factory=dict)
    """By message id and node: times."""
    subscribed: dict[str, set[int]] = field(default_factory=dict)


def node_key(number: int) -> PrivateKey:
    """Ed25519, whose seed is the number of the node, little-endian; not for real hosts."""
    return PrivateKey.generate(Cryptography(), lambda n: number.to_bytes(n, "little"))


def make_config(params: dict[str, Any]) -> GossipConfig:
    """What initGossipSub asks for."""
    given = {name: value for name, value in params.items() if value is not None}
    options = {ours: given[name] for name, ours in COUNTS.items() if name in given}
    options |= {ours: given[name] / NANOSECONDS for name, ours in TIMES.items() if name in given}
    return GossipConfig(
        policy=SignaturePolicy.STRICT_NO_SIGN,
        message_id=lambda message: (message.data or b"")[:ID_SIZE],
        max_rpc=MAX_RPC,
        max_queue_bytes=MAX_RPC,
        max_queue_count=QUEUED,
        flood_publish=False,
        **options,
    )


class Player:
    """One node."""

    def __init__(self, place: Place, number: int, script: list[Instruction], log: Log) -> None:
        self._place = place
        self._number = number
        own = (self._own(step) for step in script)
        self._script = [step for step in own if step is not None]
        self._log = log

    def _own(self, step: Instruction) -> Instruction | None:
        """The instruction if it is for this node."""
        if step["type"] != "ifNodeIDEquals":
            return step
        return self._own(step["instruction"]) if step["nodeID"] == self._number else None

    async def play(self) -> None:
        """Run the script to its end."""
        first, *steps = self._script
        if first["type"] != "initGossipSub":
            raise ValueError("the script begins with initGossipSub")
        config = make_config(first["gossipSubParams"])
        async with self._place.host(self._number, config) as host:
            for step in steps:
                await self._run(host, step)

    async def _run(self, host: BaseHost[Any], step: Instruction) -> None:
        match step["type"]:
            case "connect":
                for number in step["connectTo"]:
                    while not self._place.address(number):
                        await self._place.sleep(POLL)
                    await host.connect(self._place.address(number))
            case "subscribeToTopic":
                topic = step["topicID"]
                self._log.subscribed.setdefault(topic, set()).add(self._number)
                self._place.spawn(self._listen, host.pubsub.subscribe(topic))
            case "setTopicValidationDelay":
                self._delay(host, step["topicID"], step["delaySeconds"])
            case "waitUntil":
                await self._place.sleep(max(step["elapsedSeconds"] - self._place.now(), 0.0))
            case "publish":
                number, topic, size = step["messageID"], step["topicID"], step["messageSizeBytes"]
                data = number.to_bytes(ID_SIZE, "big") + bytes(max(size - ID_SIZE, 0))
                self._log.published[number] = self._number, topic, self._place.now()
                await host.pubsub.publish(topic, data)
            case other:
                raise ValueError(f"unknown instruction {other}")

    def _delay(self, host: BaseHost[Any], topic: str, seconds: float) -> None:
        async def accept(message: Message) -> Verdict:
            await self._place.sleep(seconds)
            return Verdict.ACCEPT

        host.pubsub.set_validator(topic, accept, limit=QUEUED)

    async def _listen(self, messages: Subscription) -> None:
        try:
            async for message in messages:
                number = int.from_bytes(message.data[:ID_SIZE], "big")
                nodes = self._log.received.setdefault(number, {})
                nodes.setdefault(self._number, []).append(self._place.now())
        except ConnectionLost:
            return  # the script is over
