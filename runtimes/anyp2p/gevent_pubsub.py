"""``host.pubsub`` on gevent: the same commands, blocking, and subscriptions to iterate over.

with host.pubsub.subscribe("news") as messages:
    for message in messages:
        ...
"""

from anyp2p_core.peer_id import PeerId

from .gevent_iterator import Blocking
from .gevent_loop import finish
from .pubsub import PubSub as BasePubSub, Subscription as BaseSubscription, Verdict
from .pubsub_messages import MAX_BYTES, MAX_MESSAGES, Drop, Message
from .pubsub_validators import LIMIT, PlainValidator


class Subscription(Blocking[Message]):
    """The messages of a topic. Leaving ``with``, or ``close``, leaves the topic."""

    __slots__ = ("_subscription",)

    def __init__(self, subscription: BaseSubscription) -> None:
        super().__init__(subscription)
        self._subscription = subscription

    def __repr__(self) -> str:
        return repr(self._subscription)

    @property
    def topics(self) -> tuple[str, ...]:
        """What it is of."""
        return self._subscription.topics

    @property
    def closed(self) -> bool:
        """Whether it is over."""
        return self._subscription.closed

    @property
    def dropped(self) -> int:
        """Messages that had no room."""
        return self._subscription.dropped

    @property
    def waiting(self) -> int:
        """Messages that have come and were not taken."""
        return self._subscription.waiting

    def close(self) -> None:
        """Leave the topic. Harmless when repeated."""
        finish(self._subscription.close())


class PubSub:
    """A host's part in pubsub; see ``anyp2p.pubsub.PubSub`` for what each method does."""

    def __init__(self, pubsub: BasePubSub) -> None:
        self._pubsub = pubsub
        self.router = pubsub.router

    def __repr__(self) -> str:
        return repr(self._pubsub)

    def subscribe(
        self,
        *topics: str,
        drop: Drop = "oldest",
        max_messages: int = MAX_MESSAGES,
        max_bytes: int = MAX_BYTES,
    ) -> Subscription:
        """Take part in topics; ``for`` takes the messages."""
        return Subscription(
            self._pubsub.subscribe(
                *topics, drop=drop, max_messages=max_messages, max_bytes=max_bytes
            )
        )

    def publish(self, topic: str, data: bytes | bytearray | memoryview) -> bytes:
        """Send a message to whoever takes part in a topic; returns its id."""
        return finish(self._pubsub.publish(topic, data))

    def drain(self, timeout: float = 5.0) -> bool:
        """Wait until everything queued for peers was handed to their connections."""
        return finish(self._pubsub.drain(timeout))

    @property
    def dropped(self) -> int:
        """RPCs that were lost because a peer did not take what was queued for it."""
        return self._pubsub.dropped

    def set_validator(
        self,
        topic: str,
        validator: PlainValidator,
        *,
        blocking: bool = False,
        timeout: float | None = None,
        limit: int = LIMIT,
    ) -> None:
        """Judge what others send in a topic. ``blocking``: each call gets a greenlet of its own."""
        if not blocking:
            self._pubsub.set_validator(topic, validator, timeout=timeout, limit=limit)
            return

        async def run(message: Message) -> Verdict:
            return validator(message)  # type: ignore[return-value]

        self._pubsub.set_validator(topic, run, timeout=timeout, limit=limit)

    def remove_validator(self, topic: str) -> None:
        """Accept what others send in a topic, as before."""
        self._pubsub.remove_validator(topic)

    def report(self, message_id: bytes, verdict: Verdict) -> bool:
        """The verdict on a message that waits; False if it does not, or not any more."""
        return self._pubsub.report(message_id, verdict)

    @property
    def topics(self) -> list[str]:
        """Topics that we subscribed to."""
        return self._pubsub.topics

    def peers(self, topic: str | None = None) -> list[PeerId]:
        """Peers that take part in a topic, or all that speak pubsub with us."""
        return self._pubsub.peers(topic)

    def mesh(self, topic: str) -> list[PeerId]:
        """Peers that we exchange full messages of a topic with."""
        return self._pubsub.mesh(topic)

    def score(self, peer: PeerId | str) -> float:
        """What we think of a peer."""
        return self._pubsub.score(peer)

    def wait_for_peers(
        self, topic: str, count: int = 1, *, timeout: float | None = None
    ) -> list[PeerId]:
        """Wait until messages of ours in a topic go to so many peers; returns these."""
        return finish(self._pubsub.wait_for_peers(topic, count, timeout=timeout))
