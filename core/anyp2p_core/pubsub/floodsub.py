"""floodsub: every message to everybody who subscribed to its topic.

Spec: https://github.com/libp2p/specs/blob/master/pubsub/README.md

    message --> all peers of the topic, but not to who sent it, nor to its author
"""

from . import rpc as wire
from .config import FloodConfig
from .message import Message
from .outbox import Kind
from .peers import Topic
from .service import PubSub
from .trace import Sink


class FloodSub(PubSub):
    """The floodsub router."""

    def __init__(self, config: FloodConfig | None = None, *, trace: Sink | None = None) -> None:
        super().__init__(config or FloodConfig(), trace=trace)

    def route(self, topic: Topic, message: Message, now: float) -> None:
        source, author = message.received_from, message.from_
        sender = bytes(source) if source is not None else None
        kind = Kind.OWN if source is None else Kind.FORWARD
        data = wire.publish((message.raw,))
        for peer in topic.peers:
            if peer.raw != sender and peer.raw != author:
                self.send(peer, data, kind, now, message.id)
