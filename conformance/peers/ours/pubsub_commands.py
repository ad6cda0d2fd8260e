"""What the pubsub_ commands of PROTOCOL.md do on ``host.pubsub``.

Like ``commands``, nothing here knows the event loop.
"""

from argparse import Namespace
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from anyp2p.host import BaseHost
from anyp2p.pubsub import (
    FloodConfig,
    FloodSub,
    GossipConfig,
    GossipSub,
    PubSub,
    Router,
    SignaturePolicy,
    Subscription,
)
from anyp2p_core.peer_id import PeerId
from anyp2p_core.pubsub.score_params import PeerScoreParams, Thresholds, TopicScoreParams

if TYPE_CHECKING:
    from commands import Message

MAX_RPC = 4 << 20
MAX_QUEUE = 16 << 20
MAX_MESSAGES = 100_000
MAX_BYTES = 256 << 20

POLICIES = {
    "sign": SignaturePolicy.STRICT_SIGN,
    "unsigned": SignaturePolicy.LAX_NO_SIGN,
    "nosign": SignaturePolicy.STRICT_NO_SIGN,
}
SCORE = PeerScoreParams(behaviour_weight=-10, behaviour_threshold=2, behaviour_decay=0.9)
TOPIC_SCORE = TopicScoreParams(invalid_weight=-10, invalid_decay=0.9)
THRESHOLDS = Thresholds(gossip=-10, publish=-50, graylist=-80)


def make_pubsub(options: Namespace) -> Router | None:
    """The router that --pubsub, --pubsub-policy and --pubsub-score name."""
    if options.pubsub == "off":
        return None
    policy = POLICIES[options.pubsub_policy]
    if options.pubsub == "floodsub":
        return FloodSub(FloodConfig(policy=policy, max_rpc=MAX_RPC, max_queue_bytes=MAX_QUEUE))
    return GossipSub(
        GossipConfig(
            policy=policy,
            max_rpc=MAX_RPC,
            max_queue_bytes=MAX_QUEUE,
            px=True,
            score=SCORE if options.pubsub_score == "on" else None,
            thresholds=THRESHOLDS,
        )
    )


@dataclass(slots=True)
class Inbox:
    """What came in one topic, by author and hash."""

    subscription: Subscription
    messages: dict[tuple[str | None, str], dict[str, Any]] = field(default_factory=dict)

    async def update(self) -> None:
        """Take what has come."""
        while self.subscription.waiting:
            message = await anext(self.subscription)
            author = str(message.author) if message.author is not None else None
            digest = sha256(message.data).hexdigest()
            entry = self.messages.setdefault(
                (author, digest),
                {"from": author, "size": len(message.data), "sha256": digest, "count": 0},
            )
            entry["count"] += 1


class PubSubCommands:
    """One method for each command; its keyword arguments are the command's."""

    _host: BaseHost[Any]
    _inboxes: dict[str, Inbox]

    async def pubsub_subscribe(self, topic: str) -> "Message":
        pubsub = self._host.pubsub
        if isinstance(pubsub.router, GossipSub):
            pubsub.router.set_topic_score(topic, TOPIC_SCORE)
        self._inboxes[topic] = Inbox(
            pubsub.subscribe(topic, max_messages=MAX_MESSAGES, max_bytes=MAX_BYTES)
        )
        return {}

    async def pubsub_unsubscribe(self, topic: str) -> "Message":
        inbox = self._inbox(topic)
        await inbox.update()
        await inbox.subscription.close()
        return {}

    async def pubsub_publish(
        self, topic: str, data: str = "", seed: str = "", size: int = 0
    ) -> "Message":
        content = _content(seed, size) if seed else bytes.fromhex(data)
        await self._host.pubsub.publish(topic, content)
        return {"sha256": sha256(content).hexdigest()}

    async def pubsub_received(self, topic: str) -> "Message":
        inbox = self._inbox(topic)
        if not inbox.subscription.closed:
            await inbox.update()
        return {"messages": list(inbox.messages.values())}

    async def pubsub_peers(self, topic: str) -> "Message":
        return {"peers": [str(peer) for peer in self._host.pubsub.peers(topic)]}

    async def pubsub_mesh(self, topic: str) -> "Message":
        return {"peers": [str(peer) for peer in self._host.pubsub.mesh(topic)]}

    async def pubsub_score(self, peer: str) -> "Message":
        pubsub: PubSub = self._host.pubsub
        return {"score": pubsub.score(PeerId.parse(peer))}

    def _inbox(self, topic: str) -> Inbox:
        if topic not in self._inboxes:
            raise ValueError("not subscribed to that topic")
        return self._inboxes[topic]


def _content(seed: str, size: int) -> bytes:
    """The seed, and as much of the pattern as makes ``size`` bytes."""
    from commands import pattern

    return seed.encode() + pattern(max(size - len(seed.encode()), 0))
