"""``host.pubsub``: topics to publish in and to subscribe to, on every event loop.

    from anyp2p.pubsub import GossipConfig

    async with Host(pubsub=GossipConfig()) as host:
        async with host.pubsub.subscribe("news") as messages:
            await host.pubsub.publish("news", b"hello")
            async for message in messages:
                print(message.author, message.data)

    command            -> router, at once
    MessageReceived    -> Subscription, whose queue is bounded
    ValidationRequested -> a task that runs the application's validator -> router.report

The state machine under it is ``router``, of ``anyp2p_core.pubsub``.
"""

from typing import TYPE_CHECKING, Any, TypeAlias

from anyp2p_core.errors import LocalError, TimedOut
from anyp2p_core.peer_id import PeerId
from anyp2p_core.pubsub.config import FloodConfig, GossipConfig, TopicConfig
from anyp2p_core.pubsub.events import (
    MessageReceived,
    PeerSubscribed,
    PubSubPeerAdded,
    ValidationRequested,
)
from anyp2p_core.pubsub.floodsub import FloodSub
from anyp2p_core.pubsub.gossipsub import GossipSub
from anyp2p_core.pubsub.service import PubSub as Router
from anyp2p_core.pubsub.signing import SignaturePolicy
from anyp2p_core.pubsub.validation import Verdict
from anyp2p_core.stream import require_bytes

from .pubsub_messages import MAX_BYTES, MAX_MESSAGES, Drop, Message, Subscription
from .pubsub_trace import TraceFile
from .pubsub_validators import LIMIT, Validator, Validators

if TYPE_CHECKING:
    from .host import BaseHost

__all__ = [
    "Drop",
    "FloodConfig",
    "FloodSub",
    "GossipConfig",
    "GossipSub",
    "Message",
    "Option",
    "PubSub",
    "Router",
    "SignaturePolicy",
    "Subscription",
    "TopicConfig",
    "TraceFile",
    "Validator",
    "Verdict",
]

Option: TypeAlias = GossipConfig | FloodConfig | Router

BURST = 16 * 1024
"""Bytes published before the loop gets a turn to send them: half of what a peer's stream takes."""
OVERHEAD = 256
"""What a message costs besides its data."""
POLL = 0.01


class PubSub:
    """A host's part in pubsub."""

    def __init__(self, host: "BaseHost[Any]", router: Router) -> None:
        self.host = host
        self.router = router
        """The state machine, for what has no method here."""
        self._subscriptions: dict[int, Subscription] = {}
        self._validators = Validators(host, router)
        self._unsent = 0
        self._peers_changed = host.node.next_id()
        host.watch(MessageReceived, self._on_message)
        host.watch(ValidationRequested, self._validators.on_requested)
        host.watch(PeerSubscribed, self._on_peer)
        host.watch(PubSubPeerAdded, self._on_peer)

    def __repr__(self) -> str:
        name = type(self.router).__name__
        return f"<PubSub {name}, {len(self.topics)} topics, {len(self.peers())} peers>"

    # Messages.

    def subscribe(
        self,
        *topics: str,
        drop: Drop = "oldest",
        max_messages: int = MAX_MESSAGES,
        max_bytes: int = MAX_BYTES,
    ) -> Subscription:
        """Take part in a topic, or in several, from now until the subscription is closed.

        Use it with ``async with``, and take the messages with ``async for``. So many messages and
        bytes wait for whoever takes them; then the oldest of them is dropped, or the newest, which
        is the one that comes, and counted in ``dropped``. Several subscriptions of one topic get
        every message each. Our own messages do not come, unless ``deliver_own`` is configured.
        """
        host = self.host
        host._check_usable()
        if drop not in ("oldest", "newest"):
            raise LocalError(f"drop is 'oldest' or 'newest', not {drop!r}")
        if max_messages < 1 or max_bytes < 1:
            raise LocalError("a subscription has room for one message at least")
        if not topics:
            raise LocalError("subscribe to one topic at least")
        topics = tuple(dict.fromkeys(topics))
        numbers: list[int] = []
        try:
            for topic in topics:
                numbers.append(self.router.subscribe(topic, host.now()))
        except BaseException:
            for number in numbers:
                self.router.unsubscribe(number, host.now())
            raise
        found = Subscription(self, numbers, topics, drop, max_messages, max_bytes)
        self._subscriptions |= dict.fromkeys(numbers, found)
        host._flush_soon()
        return found

    async def publish(self, topic: str, data: bytes | bytearray | memoryview) -> bytes:
        """Send a message to whoever takes part in a topic, subscribed or not; returns its id.

        It is queued for each peer and never waits for a slow one, whose queue drops what it cannot
        hold: see ``dropped``. With nobody there it goes nowhere, see ``wait_for_peers``. LocalError
        when it is too large, ``max_rpc``, or has the id of another one. When cancelled, it was
        published all the same.
        """
        host = self.host
        host._check_usable()
        require_bytes(data)
        message_id = self.router.publish(topic, bytes(data), host.now())
        host._flush_soon()
        self._unsent += len(data) + OVERHEAD
        if self._unsent > BURST:
            self._unsent = 0
            await self._sleep(0.0)
        return message_id

    async def drain(self, timeout: float = 5.0) -> bool:
        """Wait until everything queued for peers was handed to their connections, before closing.

        Returns whether that is so: peers that do not read are given up after ``timeout`` seconds.
        """
        host = self.host
        host._check_usable()
        until = host.now() + timeout
        while any(
            peer.outbox is not None and (peer.outbox.count or peer.outbox.stream.unsent)
            for peer in self.router.all_peers.values()
        ):
            if host.now() >= until:
                return False
            await self._sleep(POLL)
        return True

    @property
    def dropped(self) -> int:
        """RPCs that were lost because a peer did not take what was queued for it."""
        return self.router.dropped

    # Validation.

    def set_validator(
        self,
        topic: str,
        validator: Validator,
        *,
        timeout: float | None = None,
        limit: int = LIMIT,
    ) -> None:
        """Judge what others send in a topic, before it is delivered and forwarded.

        ``validator`` takes a ``Message`` and returns a ``Verdict``. A plain function is called at
        once, and must be quick; returning None it says that ``report`` will tell. An async function
        runs in a task of its own, for at most ``timeout`` seconds (that of the configuration, 10 s,
        unless it says less), and is cancelled then and with the host. At most ``limit`` messages
        wait at once. What comes beyond these bounds, and what a validator raises on, is ignored.
        """
        self._check_thread()
        self._validators.set(topic, validator, timeout, limit)

    def remove_validator(self, topic: str) -> None:
        """Accept what others send in a topic, as before."""
        self._check_thread()
        self.router.remove_validator(topic)

    def report(self, message_id: bytes, verdict: Verdict) -> bool:
        """The verdict on a message that waits; False if it does not, or not any more."""
        self.host._check_usable()
        waited = self.router.report(message_id, verdict, self.host.now())
        self.host._flush_soon()
        return waited

    # State.

    @property
    def topics(self) -> list[str]:
        """Topics that we subscribed to."""
        return self.router.topics()

    def peers(self, topic: str | None = None) -> list[PeerId]:
        """Peers that take part in a topic, or all that speak pubsub with us."""
        return self.router.peers(topic)

    def mesh(self, topic: str) -> list[PeerId]:
        """Peers that we exchange full messages of a topic with; none in floodsub, or unless
        subscribed."""
        return self.router.mesh(topic) if isinstance(self.router, GossipSub) else []

    def score(self, peer: PeerId | str) -> float:
        """What we think of a peer; 0 where nobody is judged. ``router.inspect`` tells why."""
        peer = peer if isinstance(peer, PeerId) else PeerId.parse(peer)
        return self.router.inspect(peer).score if isinstance(self.router, GossipSub) else 0.0

    async def wait_for_peers(
        self, topic: str, count: int = 1, *, timeout: float | None = None
    ) -> list[PeerId]:
        """Wait until messages of ours in a topic go to so many peers; returns these.

        ``TimedOut`` after ``timeout`` seconds.
        """
        host = self.host
        until = None if timeout is None else host.now() + timeout
        timer = 0
        try:
            while True:
                host._check_usable()
                able = dict.fromkeys(self.router.peers())
                found = [peer for peer in self.router.peers(topic) if peer in able]
                if len(found) >= count:
                    return found
                if until is not None:
                    if host.now() >= until:
                        who = f"only {len(found)} of {count} peers" if found else "nobody"
                        raise TimedOut(f"{who} took part in {topic} within {timeout:g} s")
                    if not timer:
                        timer = host.node.call_at(until, "pubsub peers", self._on_peer)
                await host._outcome(self._peers_changed)
        finally:
            if timer:
                host.node.cancel(timer)

    # Inside.

    def forget(self, numbers: list[int]) -> None:
        """A subscription was closed."""
        host = self.host
        for number in numbers:
            self._subscriptions.pop(number, None)
            if host._state in ("running", "closing"):
                self.router.unsubscribe(number, host.now())
        if host._state == "running":
            host._flush_soon()

    def _on_message(self, event: MessageReceived) -> None:
        message = Message(event.message, event.topic)
        for number in event.subscriptions:
            found = self._subscriptions.get(number)
            if found is not None:
                found.on_message(message)

    def _on_peer(self, event: object) -> None:
        self.host._resolve(self._peers_changed, None)

    async def _sleep(self, seconds: float) -> None:
        """Let the loop have a turn, and at least so much time pass."""
        host = self.host
        key = host.node.next_id()
        host.node.call_at(host.now() + seconds, "pubsub", lambda now: host._resolve(key, None))
        await host._outcome(key)

    def _check_thread(self) -> None:
        if self.host._state == "running":
            self.host._check_thread()


def make_router(option: Option) -> Router:
    """The service that a host's ``pubsub`` option asks for."""
    if isinstance(option, GossipConfig):
        return GossipSub(option)
    if isinstance(option, FloodConfig):
        return FloodSub(option)
    if not isinstance(option, Router):
        hint = "; call it, a preset is a function" if callable(option) else ""
        raise LocalError(
            f"pubsub takes GossipConfig, FloodConfig, GossipSub or FloodSub, not {option!r}{hint}"
        )
    if hasattr(option, "context"):
        name = type(option).__name__
        raise LocalError(f"this {name} is another host's: make one for each, or give its config")
    return option
