"""One lookup: asks ever closer peers until nobody closer is left. Pure decisions, no I/O.

Spec: https://github.com/libp2p/specs/blob/master/kad-dht/README.md#peer-routing

    HEARD --ask--> WAITING --answered--> ANSWERED
                      `-----failed, or silent for ``peer_timeout``--> FAILED

    caller                                query
      ask(now)                       ->   hops to ask now, at most alpha in flight
      answered / failed / timeout    ->   ... and ask again, until ``done`` says why it is over

It has CONVERGED when the beta closest peers that did not fail have answered; then those of the k
closest that were not asked yet are asked too, so that all k are known to be alive. With beta = k
the two are the same.

With several paths (S/Kademlia) each has its own candidates and asks peers that no other path asks:
liars on one path steer that path only.

What a hostile answer can do: name 40 peers, of which those are kept that are among the closest of
their IP group. Nobody is asked twice, nobody is asked after the deadline, at most ``max_asked``
are asked at all, and we never are.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, IntEnum
from itertools import islice, zip_longest
from operator import attrgetter

from ..errors import LocalError
from ..multiaddr import Multiaddr
from ..peer_id import PeerId
from .contacts import Contact
from .keys import Key, key_of
from .messages import MAX_ADDRESSES, MAX_CLOSER

_distance = attrgetter("distance")


class State(IntEnum):
    """Where a peer is in a lookup."""

    HEARD = 0
    WAITING = 1
    ANSWERED = 2
    FAILED = 3


class Reason(Enum):
    """Why a lookup is over."""

    CONVERGED = "converged"
    STARVED = "starved"
    """Nobody is left to ask, and fewer than k answered."""
    STOPPED = "stopped"
    """The caller has what it wanted."""
    CANCELLED = "cancelled"
    TIMED_OUT = "timed out"
    EXHAUSTED = "exhausted"
    """As many peers were asked as one lookup may ask."""


@dataclass(slots=True, kw_only=True)
class Walk:
    """How to look things up."""

    k: int = 20
    alpha: int = 10
    """Peers asked at the same time, shared by all paths."""
    beta: int = 20
    """How many of the closest peers must have answered before the rest is only checked: 3 as in go
    peers asks a quarter less, k as in rust peers finds more among liars."""
    paths: int = 1
    """Disjoint paths."""
    timeout: float = 60.0
    peer_timeout: float = 10.0
    """Seconds for one peer, from asking it; with the dial, if there is one."""
    max_asked: int = 256
    max_heard: int = 256
    """Candidates of one path that were not asked yet."""
    per_group: int = 3
    """Peers of one IP group among the candidates of one path, and in the result."""

    def check(self) -> None:
        """LocalError for numbers that make no sense."""
        if not (1 <= self.beta <= self.k <= self.max_heard and 1 <= self.paths <= self.alpha):
            raise LocalError("a lookup needs 1 <= beta <= k <= max_heard, 1 <= paths <= alpha")
        if not (self.timeout > 0 and self.peer_timeout > 0 and self.max_asked > 0):
            raise LocalError("a lookup needs time, and somebody to ask")
        if self.per_group < 1:
            raise LocalError("a lookup that trusts no IP group finds nobody")


@dataclass(slots=True, eq=False)
class Hop:
    """A peer in a lookup: who told of it, when, how far it is, and what became of it."""

    peer: PeerId
    distance: int
    addresses: tuple[Multiaddr, ...]
    groups: tuple[bytes, ...]
    told_by: PeerId | None
    """None: we knew it before."""
    depth: int
    """Answers that led to it: 0 for peers that we knew before."""
    heard_at: float
    asked_at: float | None = None
    ended_at: float | None = None
    state: State = State.HEARD
    path: int = -1
    """Which path asked it."""


class Query:
    """One lookup towards ``target``, from ``seeds`` on."""

    __slots__ = (
        "asked", "deadline", "done", "target", "walk",
        "_hops", "_own", "_paths", "_region", "_waiting",
    )  # fmt: skip

    def __init__(
        self,
        own: PeerId,
        target: Key,
        seeds: Iterable[Contact],
        now: float,
        walk: Walk | None = None,
        *,
        region: int = 0,
    ) -> None:
        """``region``: ask everybody up to this distance too, however many they are."""
        self.walk = walk = walk or Walk()
        walk.check()
        self.target = target
        self.deadline = now + walk.timeout
        self.done: Reason | None = None
        self.asked: list[Hop] = []
        """Everybody who was asked, in order: the trace of this lookup."""
        self._own = own
        self._region = region
        self._hops: dict[PeerId, Hop] = {}
        self._waiting: dict[PeerId, Hop] = {}  # in the order of asking
        self._paths = [_Path(walk, index, region) for index in range(walk.paths)]
        known = {one.peer: self._hop(one, None, now) for one in seeds if one.peer != own}
        for index, hop in enumerate(sorted(known.values(), key=_distance)):
            self._add(hop, self._paths[index % walk.paths])

    @property
    def waiting(self) -> list[PeerId]:
        """Peers whose answer is awaited, in the order in which they were asked."""
        return list(self._waiting)

    def ask(self, now: float) -> list[Hop]:
        """Whom to ask now. Call after every input; empty also when it is over, see ``done``."""
        if self.done is not None:
            return []
        walk = self.walk
        share = max(walk.alpha // walk.paths, 1)
        hops: list[Hop] = []
        busy = False
        for path in self._paths:
            while (hop := path.next()) is not None:
                if path.in_flight >= share or len(self.asked) >= walk.max_asked:
                    break
                hop.state, hop.asked_at, hop.path = State.WAITING, now, path.index
                path.in_flight += 1
                for other in self._paths:
                    other.asked(hop)
                self._waiting[hop.peer] = hop
                self.asked.append(hop)
                hops.append(hop)
            busy = busy or not path.over
        if not busy:
            self._finish()
        elif not self._waiting:  # max_asked
            self.done = Reason.EXHAUSTED
        return hops

    def answered(self, peer: PeerId, closer: Iterable[Contact], now: float) -> None:
        """A peer answered, and told of others. Ignored unless its answer is awaited."""
        hop = self._end(peer, State.ANSWERED, now)
        if hop is None or self.done is not None:
            return
        path = self._paths[hop.path]
        for contact in islice(closer, MAX_CLOSER):
            if contact.peer == self._own:
                continue
            known = self._hops.get(contact.peer)
            if known is None:
                known = self._hop(contact, hop, now)
            elif known.state is State.HEARD:
                known.addresses = _merge(known.addresses, contact.addresses)
            self._add(known, path)

    def failed(self, peer: PeerId, now: float) -> None:
        """A peer could not be reached or did not answer properly."""
        hop = self._end(peer, State.FAILED, now)
        if hop is not None:
            for path in self._paths:
                path.discard(hop)

    def stop(self, reason: Reason = Reason.STOPPED) -> None:
        """End the lookup now; harmless when it is over."""
        if self.done is None:
            self.done = reason

    def next_timeout(self) -> float | None:
        """When to call ``handle_timeout``; None when it is over."""
        if self.done is not None:
            return None
        for hop in self._waiting.values():
            assert hop.asked_at is not None
            return min(self.deadline, hop.asked_at + self.walk.peer_timeout)
        return self.deadline

    def handle_timeout(self, now: float) -> list[PeerId]:
        """Give up peers that are silent for too long, or everything at the deadline.

        Returns the peers that were given up; whatever was sent to them is of no use any more.
        """
        if self.done is not None:
            return []
        patience = self.walk.peer_timeout
        late = []
        for hop in self._waiting.values():
            assert hop.asked_at is not None
            if hop.asked_at + patience > now:  # as in next_timeout, to the last bit
                break
            late.append(hop.peer)
        for peer in late:
            self.failed(peer, now)
        if now >= self.deadline:
            self.done = Reason.TIMED_OUT
        return late

    def closest(self) -> list[Hop]:
        """The k closest peers that answered, and all in the region, closest first.

        Few of them are from one IP group. Every path has an equal say: one honest path among liars
        is enough to be heard.
        """
        walk = self.walk
        found: dict[PeerId, Hop] = {}
        if self._region:
            for hop in self.asked:
                if hop.state is State.ANSWERED and hop.distance <= self._region:
                    found[hop.peer] = hop
        for rank in zip_longest(*(path.answered() for path in self._paths)):
            for hop in rank:
                if hop is not None and len(found) < walk.k:
                    found[hop.peer] = hop
        return sorted(found.values(), key=_distance)

    def candidates(self) -> list[Hop]:
        """Everybody who is known and did not fail, closest first."""
        known = [hop for hop in self._hops.values() if hop.state is not State.FAILED]
        return sorted(known, key=_distance)

    def trace(self) -> tuple[Hop, ...]:
        """Everybody who was asked, in order."""
        return tuple(self.asked)

    def _hop(self, contact: Contact, told_by: Hop | None, now: float) -> Hop:
        distance = key_of(bytes(contact.peer)) ^ self.target
        if told_by is None:
            return Hop(contact.peer, distance, contact.addresses, contact.groups, None, 0, now)
        return Hop(
            contact.peer,
            distance,
            contact.addresses,
            contact.groups,
            told_by.peer,
            told_by.depth + 1,
            now,
        )

    def _add(self, hop: Hop, path: "_Path") -> None:
        """Make a peer a candidate of a path, in place of others if need be."""
        if not path.admits(hop):
            return
        self._hops[hop.peer] = hop
        for gone in path.add(hop):
            if not any(gone in other for other in self._paths):
                del self._hops[gone.peer]

    def _end(self, peer: PeerId, state: State, now: float) -> Hop | None:
        hop = self._waiting.pop(peer, None)
        if hop is not None:
            hop.state, hop.ended_at = state, now
            self._paths[hop.path].in_flight -= 1
        return hop

    def _finish(self) -> None:
        enough = sum(hop.state is State.ANSWERED for hop in self.asked) >= self.walk.k
        self.done = Reason.CONVERGED if enough else Reason.STARVED


class _Path:
    """The candidates of one path, closest first."""

    __slots__ = (
        "following", "in_flight", "index", "over", "_distances", "_groups", "_heard", "_hops",
        "_region", "_walk",
    )  # fmt: skip

    def __init__(self, walk: Walk, index: int, region: int) -> None:
        self.index = index
        self.in_flight = 0
        self.following = False
        """The beta closest have answered: those of the k closest that are left are asked, and
        answers bring no new candidates."""
        self.over = False
        self._distances: list[int] = []  # sorted
        self._groups: dict[bytes, list[int]] = {}  # distances, sorted
        self._heard: list[int] = []  # distances of those that nobody asked yet, sorted
        self._hops: dict[int, Hop] = {}
        self._region = region
        self._walk = walk

    def __contains__(self, hop: Hop) -> bool:
        return hop.distance in self._hops

    def next(self) -> Hop | None:
        """The closest peer that should be asked. None: wait for others, or it is over."""
        walk = self._walk
        while not self.over:
            limit = walk.k if self.following else walk.beta
            complete = True
            for position, hop in enumerate(self._view()):
                needed = position < limit or hop.distance <= self._region
                if not needed and (complete or self.following):
                    break
                if hop.state is State.HEARD:
                    return hop
                if needed and hop.state is State.WAITING:
                    complete = False
            if not complete:
                return None
            if self.following or walk.beta == walk.k:
                self.over = True
            self.following = True
        return None

    def admits(self, hop: Hop) -> bool:
        """Whether a peer is close enough, for its IP groups and at all."""
        distance, heard = hop.distance, self._heard
        if self.following or hop.state is State.FAILED or distance in self._hops:
            return False
        if len(heard) >= self._walk.max_heard and distance > heard[-1]:
            return False
        for group in hop.groups:
            same = self._groups.get(group)
            if same and len(same) >= self._walk.per_group and distance > same[-1]:
                return False
        return True

    def add(self, hop: Hop) -> list[Hop]:
        """Take in a peer that is admitted; returns those that it replaces."""
        gone: list[Hop] = []
        for group in hop.groups:
            same = self._groups.get(group, [])
            if len(same) >= self._walk.per_group:
                # Whoever was asked already stays, but counts no more.
                self._drop(self._hops[same.pop()], gone)
            insort(self._groups.setdefault(group, same), hop.distance)
        if len(self._heard) >= self._walk.max_heard:
            self._drop(self._hops[self._heard[-1]], gone)
        insort(self._distances, hop.distance)
        self._hops[hop.distance] = hop
        if hop.state is State.HEARD:
            insort(self._heard, hop.distance)
        return gone

    def asked(self, hop: Hop) -> None:
        """A peer, maybe one of these, is no mere candidate any more."""
        if hop.distance in self._hops:
            _remove(self._heard, hop.distance)

    def answered(self) -> Iterator[Hop]:
        """Those that answered, on this path or another, without those of crowded IP groups."""
        hops = (self._hops[one] for one in self._distances)
        answered = (hop for hop in hops if hop.state is State.ANSWERED)
        return _diverse(answered, self._walk.per_group)

    def discard(self, hop: Hop) -> None:
        """Forget a peer that is of no use, if it is here."""
        if self._hops.pop(hop.distance, None) is not None:
            _remove(self._distances, hop.distance)
            for group in hop.groups:
                same = self._groups.get(group, [])
                if hop.distance in same:
                    same.remove(hop.distance)
                    if not same:
                        del self._groups[group]

    def _drop(self, hop: Hop, gone: list[Hop]) -> None:
        if hop.state is State.HEARD:
            self.discard(hop)
            _remove(self._heard, hop.distance)
            gone.append(hop)

    def _view(self) -> Iterator[Hop]:
        """The candidates by distance, without those of crowded IP groups."""
        return _diverse((self._hops[one] for one in self._distances), self._walk.per_group)


def _remove(ascending: list[int], distance: int) -> None:
    """Take a distance out of a sorted list that has it."""
    del ascending[bisect_left(ascending, distance)]


def _diverse(hops: Iterable[Hop], per_group: int) -> Iterator[Hop]:
    """Leave out peers if ``per_group`` closer ones are of their IP group."""
    counts: dict[bytes, int] = {}
    for hop in hops:
        if any(counts.get(group, 0) >= per_group for group in hop.groups):
            continue
        for group in hop.groups:
            counts[group] = counts.get(group, 0) + 1
        yield hop


def _merge(known: tuple[Multiaddr, ...], told: tuple[Multiaddr, ...]) -> tuple[Multiaddr, ...]:
    """Addresses of several sources: no single one can fill the list with wrong ones."""
    if known == told:
        return known
    return tuple(islice(dict.fromkeys(known + told[:MAX_ADDRESSES]), 2 * MAX_ADDRESSES))
