"""The commands under way: each drives a lookup with requests of its kind, then maybe stores.

    walking --converged--> crowded? --yes--> walking the region --.
       |                      |                                    |
       |                      '--no--------------------------------+--> storing --> final event
       '-- enough found, deadline, cancelled ----------------------'

A command ends by its deadline whatever peers do: walking leaves time for storing, every request
has a deadline of its own.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from ..errors import DialError, Error, RemoteError, TimedOut
from ..events import Event
from ..multiaddr import Multiaddr
from ..peer_id import PeerId
from . import messages
from .addresses import within
from .contacts import Contact, read_addresses, read_contacts
from .events import (
    DhtClosestFound,
    DhtFailed,
    DhtPeerFound,
    DhtProvided,
    DhtProviderFound,
    DhtProvidersSearched,
    DhtValueFound,
    DhtValueImproved,
    DhtValuePut,
)
from .keys import key_of
from .messages import MAX_PROVIDERS, Message, Record, Type
from .providers import Provider
from .query import Hop, Query, Reason, State, Walk
from .records import Search
from .requests import Request
from .size import is_crowded, region

if TYPE_CHECKING:
    from .service import Kad

MAX_FOUND = 1000
"""Providers that one search tells of."""


class Operation:
    """One command, or a lookup of our own, from its start to its final event."""

    stores = False
    """Whether something is stored after the walk, which needs a part of the time."""

    def __init__(self, kad: "Kad", request: int, key: bytes, ask: Message, walk: Walk) -> None:
        self.kad = kad
        self.request = request
        self.key = key
        self.walk = walk
        self.query: Query | None = None
        self.crowded = False
        self._data = messages.encode(ask)
        self._deadline = 0.0
        self._kind = ask.type
        self._requests: dict[PeerId, Request] = {}
        self._steps: list[Hop] = []
        """The trace of an earlier walk of the same command."""
        self._timer = 0
        self._stored: list[PeerId] = []
        self._refused = 0
        self.then: Callable[[Event | None, float], object] | None = None
        """Called with the final event instead of emitting it."""

    @property
    def trace(self) -> tuple[Hop, ...]:
        """Everybody who was asked so far."""
        return (*self._steps, *(self.query.trace() if self.query is not None else ()))

    def start(self, now: float) -> None:
        """Begin to walk from the closest peers in the table."""
        kad, walk = self.kad, self.walk
        self._deadline = now + walk.timeout
        if self.stores:
            walk = replace(walk, timeout=max(walk.timeout - walk.peer_timeout, walk.timeout / 2))
        target = key_of(self.key)
        closest = kad.table.closest(target, walk.k)
        seeds = [Contact(one.peer, one.addresses, one.groups) for one in closest]
        query = Query(kad.context.peer_id, target, seeds, now, walk)
        if self.is_satisfied():
            query.stop()
        self._begin(query, now)

    def cancel(self, now: float) -> None:
        """Forget the command; no event follows."""
        if self.query is not None:
            self.query.stop(Reason.CANCELLED)
        self._clear(now)

    # What commands do differently.

    def is_satisfied(self) -> bool:
        """Whether nobody has to be asked at all."""
        return False

    def on_answer(self, hop: Hop, answer: Message, now: float) -> None:
        """Look at an answer. Raise RemoteError if it is wrong; call ``enough`` to end the walk."""

    def on_failure(self, hop: Hop, error: Exception, now: float) -> None:
        """A peer did not answer."""

    def on_walked(self, now: float) -> None:
        """The walk is over."""

    def on_stored(self, now: float) -> None:
        """Everybody who was to store something has, or has not."""

    # For them.

    @property
    def reason(self) -> Reason:
        assert self.query is not None and self.query.done is not None
        return self.query.done

    def enough(self) -> None:
        """End the walk; ``on_walked`` follows."""
        assert self.query is not None
        self.query.stop()

    def closest(self) -> list[Hop]:
        """Who is responsible for the key, of those who answered."""
        assert self.query is not None
        return self.query.closest()

    def store(self, peers: Iterable[PeerId], message: Message, now: float) -> None:
        """Send a message to peers; ``on_stored`` follows when all have answered or failed."""
        kind, data = message.type, messages.encode(message)
        timeout = max(min(self.walk.peer_timeout, self._deadline - now), 0.0)
        for peer in peers:
            done = partial(self._on_stored, peer, message)
            try:
                self._requests[peer] = self.kad.requests.send_encoded(
                    peer, (), kind, data, timeout, done, now
                )
            except Error:
                self._refused += 1
        if not self._requests:
            self.on_stored(now)

    def finish(self, event: Event | None, now: float) -> None:
        """The command is over."""
        self._clear(now)
        self.kad.finished(self, event, now)

    def fail(self, error: Exception, now: float) -> None:
        """The command is over, without success."""
        self.finish(DhtFailed(self.request, error, self.trace), now)

    # Inside.

    def _begin(self, query: Query, now: float) -> None:
        self.query = query
        context = self.kad.context
        self._timer = context.call_at(query.deadline, "kad lookup", self._expire)
        self._advance(now)

    def _advance(self, now: float) -> None:
        query, requests = self.query, self.kad.requests
        assert query is not None
        while hops := query.ask(now):
            for hop in hops:
                done = partial(self._on_answer, hop)
                try:
                    self._requests[hop.peer] = requests.send_encoded(
                        hop.peer, hop.addresses, self._kind, self._data, self.walk.peer_timeout,
                        done, now,
                    )  # fmt: skip
                except Error as error:
                    self._on_failure(hop, error, now)
        if query.done is not None:
            self._walked(query, now)

    def _on_answer(
        self, hop: Hop, answer: Message | None, error: Exception | None, now: float
    ) -> None:
        query, kad = self.query, self.kad
        assert query is not None
        self._requests.pop(hop.peer, None)
        if answer is not None:
            try:
                self.on_answer(hop, answer, now)
            except RemoteError as wrong:
                kad.rejected += 1
                error = wrong
        if error is not None:
            self._on_failure(hop, error, now)
        elif answer is not None:
            kad.on_useful(hop.peer, now)
            query.answered(hop.peer, self._contacts(answer, now), now)
        self._advance(now)

    def _on_failure(self, hop: Hop, error: Exception, now: float) -> None:
        assert self.query is not None
        self.query.failed(hop.peer, now)
        self.kad.on_useless(hop.peer, error, now)
        self.on_failure(hop, error, now)

    def _contacts(self, answer: Message, now: float) -> list[Contact]:
        """Whom an answer tells of, without those that nobody could reach."""
        kad = self.kad
        own, reach = kad.context.peer_id, kad.config.reach
        return [
            one
            for one in read_contacts(answer.closer, own, reach)
            if one.addresses or kad.is_reachable(one.peer, now)
        ]

    def _expire(self, now: float) -> None:
        assert self.query is not None
        self.query.handle_timeout(now)
        self._walked(self.query, now)

    def _walked(self, query: Query, now: float) -> None:
        """Nobody else is asked. A crowded key is walked once more, in a wider circle."""
        self._clear(now)
        kad = self.kad
        over = query.done in (Reason.CONVERGED, Reason.STARVED)
        if over:
            kad.table.refreshed(query.target, now)
            size = kad.size.estimate
            distances = [hop.distance for hop in query.closest()]
            if (
                size is not None
                and not self.crowded
                and is_crowded(distances, query.walk.k, size)
                and query.deadline > now
            ):
                self.crowded = True
                self._widen(query, region(query.walk.k, size), now)
                return
        self.on_walked(now)

    def _widen(self, query: Query, distance: int, now: float) -> None:
        self._steps += query.trace()
        walk = replace(query.walk, timeout=query.deadline - now)
        seeds = [Contact(hop.peer, hop.addresses, hop.groups) for hop in query.candidates()]
        own = self.kad.context.peer_id
        self._begin(Query(own, query.target, seeds, now, walk, region=distance), now)

    def _on_stored(
        self,
        peer: PeerId,
        message: Message,
        answer: Message | None,
        error: Exception | None,
        now: float,
    ) -> None:
        self._requests.pop(peer, None)
        if error is None and answer is not None and message.record is not None:
            echo = answer.record
            if echo is None or echo.value != message.record.value:
                error = RemoteError("the peer did not store the value")
        if error is None:
            self._stored.append(peer)
        else:
            self._refused += 1
        if not self._requests:
            self.on_stored(now)

    def _clear(self, now: float) -> None:
        kad = self.kad
        kad.context.cancel(self._timer)
        waiting = list(self._requests.values())
        self._requests.clear()
        for request in waiting:
            kad.requests.cancel(request, now)


class ClosestPeers(Operation):
    """Who is closest to a key."""

    def __init__(self, kad: "Kad", request: int, key: bytes, walk: Walk) -> None:
        super().__init__(kad, request, key, Message(Type.FIND_NODE, key), walk)

    def on_walked(self, now: float) -> None:
        closest = self.closest()
        if not closest and self.reason is not Reason.STOPPED:
            self.fail(_nobody(self.reason), now)
            return
        peers = tuple(Contact(hop.peer, hop.addresses, hop.groups) for hop in closest)
        self.finish(
            DhtClosestFound(self.request, self.key, peers, self.reason, self.crowded, self.trace),
            now,
        )


class FindPeer(Operation):
    """Where a peer is: told by others, and proven by connecting to it."""

    def __init__(self, kad: "Kad", request: int, peer: PeerId, walk: Walk) -> None:
        key = bytes(peer)
        super().__init__(kad, request, key, Message(Type.FIND_NODE, key), walk)
        self.peer = peer
        self._told: dict[Multiaddr, None] = {}
        self._tried: tuple[Multiaddr, ...] = ()

    def on_answer(self, hop: Hop, answer: Message, now: float) -> None:
        if hop.peer == self.peer:
            self.enough()
            return
        for one in answer.closer:
            if one.id == self.key and len(self._told) < 2 * messages.MAX_ADDRESSES:
                self._told.update(dict.fromkeys(read_addresses(one.addresses)))

    def on_failure(self, hop: Hop, error: Exception, now: float) -> None:
        if hop.peer == self.peer:
            self._tried = hop.addresses
            if self.kad.context.connections(self.peer):  # it is there, and no server
                self.enough()

    def on_walked(self, now: float) -> None:
        # Others may have said something else than the first one, or something of another reach.
        fresh = [address for address in self._told if address not in self._tried]
        left = self._deadline - now
        if not fresh or left <= 0 or self.kad.context.connections(self.peer):
            self._conclude(now)
            return
        try:
            self._requests[self.peer] = self.kad.requests.send_encoded(
                self.peer, fresh, self._kind, self._data, min(self.walk.peer_timeout, left),
                self._on_last_try, now,
            )  # fmt: skip
        except Error:
            self._conclude(now)

    def _on_last_try(self, answer: Message | None, error: Exception | None, now: float) -> None:
        self._requests.clear()
        self._conclude(now)

    def _conclude(self, now: float) -> None:
        context = self.kad.context
        connected = bool(context.connections(self.peer))
        known = [*context.peers.addresses(self.peer, now), *self._told]
        if not known and not connected:
            error: Exception = DialError(f"nobody who was asked knows where {self.peer} is")
            if not self.trace:
                error = _nobody(self.reason)
            self.fail(error, now)
            return
        addresses = tuple(dict.fromkeys(known))
        self.finish(DhtPeerFound(self.request, self.peer, addresses, connected, self.trace), now)


class Provide(Operation):
    """Tell the peers closest to a key that we provide it."""

    stores = True

    def __init__(
        self, kad: "Kad", request: int, key: bytes, addresses: Sequence[Multiaddr], walk: Walk
    ) -> None:
        super().__init__(kad, request, key, Message(Type.FIND_NODE, key), walk)
        own = messages.Peer(bytes(kad.context.peer_id), [bytes(one) for one in addresses])
        self._message = Message(Type.ADD_PROVIDER, key, providers=[own])

    def on_walked(self, now: float) -> None:
        self.store([hop.peer for hop in self.closest()], self._message, now)

    def on_stored(self, now: float) -> None:
        if not self._stored:
            self.fail(_nobody(self.reason), now)
            return
        self.kad.provided(self.key, now)
        self.finish(
            DhtProvided(
                self.request, self.key, tuple(self._stored), self._refused, self.crowded, self.trace
            ),
            now,
        )


class FindProviders(Operation):
    """Who provides a key, told as soon as it is known."""

    def __init__(self, kad: "Kad", request: int, key: bytes, count: int, walk: Walk) -> None:
        super().__init__(kad, request, key, Message(Type.GET_PROVIDERS, key), walk)
        self._count = min(count, MAX_FOUND) if count else MAX_FOUND
        self._found: dict[PeerId, bool] = {}

    def start(self, now: float) -> None:
        kad = self.kad
        for provider in kad.store.providers(self.key, kad.context.wall(now)):
            kept = tuple(within(provider.addresses, kad.config.reach))
            self._tell(Provider(provider.peer, kept))
        super().start(now)

    def is_satisfied(self) -> bool:
        return len(self._found) >= self._count

    def on_answer(self, hop: Hop, answer: Message, now: float) -> None:
        kad = self.kad
        own = kad.context.peer_id
        for one in read_contacts(answer.providers, own, kad.config.reach, MAX_PROVIDERS):
            self._tell(Provider(one.peer, one.addresses))
        if self.is_satisfied():
            self.enough()

    def on_walked(self, now: float) -> None:
        if not self._found and not any(hop.state is State.ANSWERED for hop in self.trace):
            self.fail(_nobody(self.reason), now)
            return
        self.finish(
            DhtProvidersSearched(
                self.request, self.key, len(self._found), self.reason, self.crowded, self.trace
            ),
            now,
        )

    def _tell(self, provider: Provider) -> None:
        known = self._found.get(provider.peer)
        if known or (known is None and len(self._found) >= self._count):
            return
        if known is None or provider.addresses:
            self._found[provider.peer] = bool(provider.addresses)
            self.kad.context.emit(DhtProviderFound(self.request, self.key, provider))


class Put(Operation):
    """Store a value at the peers closest to its key."""

    stores = True

    def __init__(self, kad: "Kad", request: int, key: bytes, value: bytes, walk: Walk) -> None:
        super().__init__(kad, request, key, Message(Type.FIND_NODE, key), walk)
        self._message = Message(Type.PUT_VALUE, key, Record(key, value))
        messages.encode(self._message)  # refuses what is too long for others, at once

    def on_walked(self, now: float) -> None:
        self.store([hop.peer for hop in self.closest()], self._message, now)

    def on_stored(self, now: float) -> None:
        if not self._stored:
            self.fail(_nobody(self.reason), now)
            return
        self.finish(
            DhtValuePut(
                self.request, self.key, tuple(self._stored), self._refused, self.crowded, self.trace
            ),
            now,
        )


class GetValue(Operation):
    """The best value of a key; those who have a worse one, or none, are told."""

    stores = True

    def __init__(
        self, kad: "Kad", request: int, key: bytes, quorum: int, incremental: bool, walk: Walk
    ) -> None:
        super().__init__(kad, request, key, Message(Type.GET_VALUE, key), walk)
        self._incremental = incremental
        self._search = Search(key, kad.validators, quorum)

    def start(self, now: float) -> None:
        kad = self.kad
        wall = kad.context.wall(now)
        own = kad.store.get(self.key, wall)
        if own is not None:
            try:
                self._take(kad.context.peer_id, Record(self.key, own.value), wall)
            except RemoteError:
                kad.store.remove(self.key)  # it has expired, or its validator has changed
        super().start(now)

    def is_satisfied(self) -> bool:
        return self._search.enough

    def on_answer(self, hop: Hop, answer: Message, now: float) -> None:
        if answer.record is not None:
            self._take(hop.peer, answer.record, self.kad.context.wall(now))
            if self._search.enough:
                self.enough()

    def on_walked(self, now: float) -> None:
        search, best = self._search, self._search.best
        if best is None:
            answered = any(hop.state is State.ANSWERED for hop in self.trace)
            error = DialError("nobody who was asked has a valid value") if answered else None
            self.fail(error or _nobody(self.reason), now)
            return
        # When the walk ended early, those who gave nothing may not be responsible at all.
        behind = search.behind(hop.peer for hop in self.closest())
        if self.reason is Reason.STOPPED:
            behind = [peer for peer in behind if search.gave(peer)]
        holders = tuple(search.holders())
        self.kad.context.emit(
            DhtValueFound(
                self.request, self.key, best, holders, tuple(behind), search.rejected,
                self.crowded, self.trace,
            )
        )  # fmt: skip
        try:
            self.store(behind, Message(Type.PUT_VALUE, self.key, Record(self.key, best)), now)
        except Error:  # too long to be sent on: some peers accept more than others
            self.on_stored(now)

    def on_stored(self, now: float) -> None:
        self.finish(None, now)

    def _take(self, peer: PeerId, record: Record, wall: float) -> None:
        if self._search.add(peer, record, wall) and self._incremental:
            assert self._search.best is not None
            value = self._search.best
            self.kad.context.emit(DhtValueImproved(self.request, self.key, value))


def _nobody(reason: Reason) -> Exception:
    """Why nothing was found, when nobody answered."""
    if reason is Reason.TIMED_OUT:
        return TimedOut("no peer answered in time")
    return DialError("no peer could be asked: connect to one, or name a bootstrap peer")
