"""What a node does for its network without being asked: fill the table, repeat, clean up.

refresh     every 10 minutes, and when the first peer is known:
            look up ourselves --> look into each bucket that nobody looked into, one by one
low         every 2 minutes while few peers are known: ask bootstrap peers, then refresh
republish   every minute: provide again what was provided 22 h ago, some keys at a time
sweep       every hour: forget what has expired
"""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from ..errors import DialError, Error, LocalError
from ..events import Event
from ..multiaddr import Multiaddr
from ..peer_id import PeerId
from .events import DhtBootstrapped, DhtClosestFound, DhtFailed, DhtProvided
from .keys import key_of, preimage
from .messages import Message, Type
from .operations import ClosestPeers, Provide

if TYPE_CHECKING:
    from .service import Kad

MAX_BOOTSTRAP = 2
"""Bootstrap peers that are asked at once when the table is low."""
MAX_REPUBLISHING = 4
"""Keys that are provided again at the same time."""


class Maintenance:
    """The timers of one network and what they do."""

    def __init__(self, kad: "Kad") -> None:
        self.waiting: dict[int, None] = {}
        """Commands that wait for the end of a refresh."""
        self._buckets: deque[int] = deque()
        """Those that the refresh under way has still to look into."""
        self._kad = kad
        self._refreshing = False
        self._republishing: dict[bytes, None] = {}
        self._started = False

    def start(self, now: float) -> None:
        """Arm the timers, once."""
        if self._started:
            return
        self._started = True
        config = self._kad.config
        self._every(config.refresh_interval, "kad refresh", self.refresh, now)
        self._every(config.republish_check, "kad republish", self._republish, now)
        self._every(config.sweep_interval, "kad sweep", self._sweep, now)
        if config.bootstrap:
            self._every(config.low_interval, "kad low", self._check_low, now)
            self._check_low(now)

    def bootstrap(self, request: int, now: float) -> None:
        """Ask all bootstrap peers, then refresh; ``DhtBootstrapped`` or ``DhtFailed`` follows."""
        self.waiting[request] = None
        if not self._ask_bootstrap(len(self._kad.config.bootstrap), now):
            self.refresh(now)

    def refresh(self, now: float) -> None:
        """Look up ourselves, then something in every bucket that nobody has looked into lately."""
        if self._refreshing:
            return
        self._refreshing = True
        kad = self._kad
        kad.members.probe_all(kad.table.stale(now), now)
        self._look(bytes(kad.context.peer_id), self._on_self_found, now)

    def _every(
        self, interval: float, reason: str, function: Callable[[float], object], now: float
    ) -> None:
        context = self._kad.context

        def tick(now: float) -> None:
            context.call_at(now + interval, reason, tick)
            function(now)

        context.call_at(now + interval, reason, tick)

    # Refreshing.

    def _on_self_found(self, event: Event | None, now: float) -> None:
        kad = self._kad
        self._buckets.extend(kad.table.to_refresh(now, kad.config.refresh_interval))
        self._refresh_next(now)

    def _on_bucket_found(self, event: Event | None, now: float) -> None:
        if isinstance(event, DhtClosestFound):
            target = key_of(event.key)
            distances = [key_of(bytes(one.peer)) ^ target for one in event.peers]
            self._kad.size.learn(distances, self._kad.config.walk.k)
        self._refresh_next(now)

    def _refresh_next(self, now: float) -> None:
        kad = self._kad
        if self._buckets:
            key = preimage(kad.table.key, self._buckets.popleft(), kad.context.choice)
            self._look(key, self._on_bucket_found, now)
            return
        self._refreshing = False
        waiting = list(self.waiting)
        self.waiting.clear()
        size = len(kad.table)
        for request in waiting:
            if size:
                kad.context.emit(DhtBootstrapped(request, size))
            else:
                error = DialError("no bootstrap peer answered: name some that are online")
                kad.context.emit(DhtFailed(request, error, ()))

    def _look(self, key: bytes, then: Callable[[Event | None, float], object], now: float) -> None:
        kad = self._kad
        walk, timeout = kad.config.walk, kad.config.refresh_timeout
        walk = replace(walk, timeout=timeout, peer_timeout=min(timeout, walk.peer_timeout))
        kad.run(ClosestPeers(kad, kad.context.next_id(), key, walk, then), now)

    # Bootstrap peers.

    def _check_low(self, now: float) -> None:
        kad = self._kad
        if len(kad.table) < kad.config.low_peers:
            self._ask_bootstrap(MAX_BOOTSTRAP, now)

    def _ask_bootstrap(self, count: int, now: float) -> bool:
        """Ask some bootstrap peers for ourselves, then refresh; False if nobody can be asked."""
        kad = self._kad
        own = kad.context.peer_id
        by_peer: dict[PeerId, list[Multiaddr]] = {}
        for address in kad.config.bootstrap:
            by_peer.setdefault(PeerId(address.components[-1].raw), []).append(address)
        by_peer.pop(own, None)
        message = Message(Type.FIND_NODE, bytes(own))
        timeout = kad.config.walk.peer_timeout
        waiting: dict[PeerId, None] = {}

        def done(peer: PeerId, answer: Message | None, error: Exception | None, now: float) -> None:
            del waiting[peer]
            if error is None:
                kad.members.on_useful(peer, now)
            if not waiting:
                self.refresh(now)

        for peer, addresses in kad.context.choice.sample(list(by_peer.items()), count):
            with suppress(Error):
                kad.requests.send(peer, addresses, message, timeout, partial(done, peer), now)
                waiting[peer] = None
        return bool(waiting)

    # Repeating and cleaning up.

    def _republish(self, now: float) -> None:
        kad = self._kad
        addresses = kad.addresses(kad.context.peer_id, now)
        if not addresses or not len(kad.table):
            return
        under_way = self._republishing
        due = kad.own_keys.due(kad.context.wall(now), MAX_REPUBLISHING + len(under_way))
        for key in due:
            if key not in under_way and len(under_way) < MAX_REPUBLISHING:
                under_way[key] = None
                then = partial(self._on_republished, key)
                request = kad.context.next_id()
                kad.run(Provide(kad, request, key, addresses, kad.config.walk, then), now)

    def _on_republished(self, key: bytes, event: Event | None, now: float) -> None:
        del self._republishing[key]
        if isinstance(event, DhtProvided):  # else others first, at the next check
            self._republish(now)

    def _sweep(self, now: float) -> None:
        kad = self._kad
        with suppress(LocalError):  # it is tried again
            kad.store.sweep(kad.context.wall(now))
