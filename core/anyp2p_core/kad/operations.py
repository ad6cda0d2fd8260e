"""The commands: what each asks for, and what it makes of the answers."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..errors import DialError, Error, RemoteError
from ..multiaddr import Multiaddr
from ..peer_id import PeerId
from . import messages
from .addresses import within
from .contacts import Contact, read_addresses, read_contacts
from .events import (
    DhtClosestFound,
    DhtPeerFound,
    DhtProvided,
    DhtProviderFound,
    DhtProvidersSearched,
    DhtValueFound,
    DhtValueImproved,
    DhtValuePut,
)
from .messages import MAX_ADDRESSES, MAX_PROVIDERS, Message, Record, Type
from .operation import Operation, Then
from .providers import Provider
from .query import Hop, Reason, Walk
from .records import Search
from .store import StoredRecord

if TYPE_CHECKING:
    from .service import Kad

MAX_FOUND = 1000
"""Providers that one search tells of."""
MAX_TOLD = 4 * 1024
"""Bytes of our own addresses that others get to keep."""


class ClosestPeers(Operation):
    """Who is closest to a key."""

    def __init__(
        self, kad: "Kad", request: int, key: bytes, walk: Walk, then: Then | None = None
    ) -> None:
        super().__init__(kad, request, key, Message(Type.FIND_NODE, key), walk, then)

    def on_walked(self, now: float) -> None:
        closest = self.closest()
        if not closest:
            self.fail_alone(now)
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
        reach = self.kad.config.reach
        for one in answer.closer:
            if one.id == self.key and len(self._told) < 2 * MAX_ADDRESSES:
                self._told.update(dict.fromkeys(within(read_addresses(one.addresses), reach)))

    def on_failure(self, hop: Hop, error: Exception, now: float) -> None:
        if hop.peer == self.peer:
            self._tried = hop.addresses
            if self.kad.context.connections(self.peer):  # it is there, and no server
                self.enough()

    def on_walked(self, now: float) -> None:
        # Others may have said something else than the first one.
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
            if self.answered:
                error = DialError(f"nobody who was asked knows where {self.peer} is")
                self.fail(error, now)
            else:
                self.fail_alone(now)
            return
        addresses = tuple(dict.fromkeys(known))
        self.finish(DhtPeerFound(self.request, self.peer, addresses, connected, self.trace), now)


class Provide(Operation):
    """Tell the peers closest to a key that we provide it."""

    stores = True

    def __init__(
        self,
        kad: "Kad",
        request: int,
        key: bytes,
        addresses: Sequence[Multiaddr],
        walk: Walk,
        then: Then | None = None,
    ) -> None:
        super().__init__(kad, request, key, Message(Type.FIND_NODE, key), walk, then)
        own = messages.Peer(bytes(kad.context.peer_id), _fitting(map(bytes, addresses)))
        self._message = Message(Type.ADD_PROVIDER, key, providers=[own])

    def on_walked(self, now: float) -> None:
        self.store([hop.peer for hop in self.closest()], self._message, now)

    def on_stored(self, now: float) -> None:
        if not self._stored:
            self.kad.not_provided(self.key, now)
            self.fail_stored(now)
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
        if not self._found and not self.answered:
            self.fail_alone(now)
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
            self.fail_stored(now)
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
        self._own: StoredRecord | None = None
        self._search = Search(key, kad.validators, quorum)

    def start(self, now: float) -> None:
        kad = self.kad
        wall = kad.context.wall(now)
        own = self._own = kad.store.get(self.key, wall)
        if own is not None:
            try:
                self._take(kad.context.peer_id, Record(self.key, own.value), wall)
            except RemoteError:
                kad.store.remove(self.key)  # it has expired, or its validator has changed
                self._own = None
        super().start(now)

    def is_satisfied(self) -> bool:
        return self._search.enough

    def on_answer(self, hop: Hop, answer: Message, now: float) -> None:
        record = answer.record
        if record is None:
            return
        try:
            self._take(hop.peer, record, self.kad.context.wall(now))
        except RemoteError:
            if record.key != self.key:
                raise
            self.kad.rejected += 1  # it may have expired there: whom the peer tells of counts still
        if self._search.enough:
            self.enough()

    def on_walked(self, now: float) -> None:
        search, best = self._search, self._search.best
        if best is None:
            if self.answered:
                self.fail(DialError("nobody who was asked has a valid value"), now)
            else:
                self.fail_alone(now)
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
        if self._own is not None and self._own.value != best:
            self.kad.keep(self.key, best, now)
        try:
            self.store(behind, Message(Type.PUT_VALUE, self.key, Record(self.key, best)), now)
        except Error:  # too long to be sent on: some peers accept more than others
            self.on_stored(now)

    def on_stored(self, now: float) -> None:
        self.finish(None, now)

    def _take(self, peer: PeerId, record: Record, wall: float) -> None:
        if self._search.add(peer, record, wall) and self._incremental:
            assert self._search.best is not None
            best = self._search.best
            self.kad.context.emit(DhtValueImproved(self.request, self.key, best))


def _fitting(addresses: Iterable[bytes]) -> list[bytes]:
    """As many addresses as peers will keep, and as fit into a message."""
    fitting: list[bytes] = []
    room = MAX_TOLD
    for address in addresses:
        room -= len(address)
        if room < 0 or len(fitting) == MAX_ADDRESSES:
            break
        fitting.append(address)
    return fitting
