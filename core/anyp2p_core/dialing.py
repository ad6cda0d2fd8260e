"""Reaching one peer by any of its addresses: which to try next, and when to give up.

    start -> first attempt -> stagger passed, or an attempt failed -> next attempt
          -> an attempt is upgraded: success, the others are dropped at once
          -> nothing left and nothing under way: failure with every reason

After RFC 8305 (happy eyeballs): families alternate, attempts start 250 ms apart.
"""

from collections import deque
from collections.abc import Iterable
from typing import Protocol

from .errors import DialError, LimitReached, TimedOut
from .events import Action, CloseConnection, Dial, DialFailed, Event, PeerConnected
from .limits import Limits
from .multiaddr import Multiaddr
from .peer_id import PeerId
from .timers import Timers


def plan(addresses: Iterable[Multiaddr]) -> list[Multiaddr]:
    """Order addresses: without repeats, IPv6 and the others in turns, as they came otherwise.

    >>> [str(a) for a in plan(map(Multiaddr, ["/ip4/1.1.1.1/tcp/1", "/ip4/1.1.1.1/tcp/2",
    ...                                       "/ip6/::1/tcp/3"]))]
    ['/ip6/::1/tcp/3', '/ip4/1.1.1.1/tcp/1', '/ip4/1.1.1.1/tcp/2']
    """
    unique = list(dict.fromkeys(addresses))
    six = [address for address in unique if address.names[0] == "ip6"]
    rest = [address for address in unique if address.names[0] != "ip6"]
    ordered: list[Multiaddr] = []
    for pair in zip(six, rest, strict=False):
        ordered += pair
    shorter = min(len(six), len(rest))
    return ordered + six[shorter:] + rest[shorter:]


class PeerDial:
    """One dial, shared by everyone who waits for the same peer."""

    __slots__ = ("attempts", "failures", "id", "peer", "queue", "timer", "_seen")

    def __init__(self, dial: int, peer: PeerId | None) -> None:
        self.id = dial
        self.peer = peer
        self.queue: deque[Multiaddr] = deque()
        self.attempts: dict[int, tuple[Multiaddr, int]] = {}
        """Connections under way: where they go, and the timer that ends them."""
        self.failures: list[tuple[str, str]] = []
        self.timer = 0
        self._seen: dict[Multiaddr, None] = {}

    def add(self, addresses: Iterable[Multiaddr], limit: int) -> None:
        """Queue addresses that were not tried; at most ``limit`` in all."""
        for address in plan(addresses):
            if address not in self._seen and len(self._seen) < limit:
                self._seen[address] = None
                self.queue.append(address)

    def failed(self, conn: int, error: Exception) -> None:
        """An attempt ended without success."""
        address, _ = self.attempts.pop(conn)
        self.failures.append((str(address), str(error) or type(error).__name__))

    @property
    def exhausted(self) -> bool:
        return not self.queue and not self.attempts

    def error(self) -> DialError:
        """Why the dial failed, address by address."""
        who = f"peer {self.peer}" if self.peer is not None else "the peer"
        if not self.failures:
            return DialError(f"cannot dial {who}: no address is known; connect to a full address")
        reasons = "; ".join(f"{address}: {reason}" for address, reason in self.failures)
        return DialError(f"cannot dial {who}: {reasons}", tuple(self.failures))


class Owner(Protocol):
    """What dialing needs from its node."""

    limits: Limits
    peer_id: PeerId
    timers: Timers

    def next_id(self) -> int: ...
    def act(self, action: Action) -> object: ...
    def emit(self, event: Event) -> object: ...
    def fail(self, conn: int, error: Exception, now: float) -> bool:
        """End a connection that exists; False when the transport is not open yet."""
        ...


class Dialing:
    """All dials of a node."""

    __slots__ = ("_attempts", "_by_peer", "_dials", "_owner")

    def __init__(self, owner: Owner) -> None:
        self._attempts: dict[int, PeerDial] = {}
        self._by_peer: dict[PeerId, PeerDial] = {}
        self._dials: dict[int, PeerDial] = {}
        self._owner = owner

    def __len__(self) -> int:
        """Dials under way."""
        return len(self._dials)

    def attempt(self, conn: int) -> PeerDial | None:
        """The dial that a connection is made for."""
        return self._attempts.get(conn)

    def dial(self, peer: PeerId | None, addresses: Iterable[Multiaddr], now: float) -> int:
        """Start a dial, or join the one to the same peer; returns its number."""
        owner = self._owner
        if peer == owner.peer_id:
            request = owner.next_id()
            owner.emit(DialFailed(request, DialError(f"{peer} is this node itself")))
            return request
        dial = self._by_peer.get(peer) if peer is not None else None
        if dial is None:
            limit = owner.limits.max_pending_dials
            if len(self._dials) >= limit:
                raise LimitReached(
                    f"{limit} peers are being dialed already (limit max_pending_dials): "
                    "wait for some, or raise it"
                )
            dial = PeerDial(owner.next_id(), peer)
            self._dials[dial.id] = dial
            if peer is not None:
                self._by_peer[peer] = dial
        dial.add(addresses, owner.limits.max_dial_addresses)
        if not dial.timer:  # else its turn comes
            self._next(dial, now)
        return dial.id

    def cancel(self, dial: int) -> None:
        """Give up a dial; one that is over is ignored."""
        found = self._dials.get(dial)
        if found is not None:
            self._forget(found)
            self._drop_attempts(found)

    def failed(self, conn: int, error: Exception, now: float) -> None:
        """A connection did not come about; ignored when it belongs to no dial."""
        dial = self._attempts.pop(conn, None)
        if dial is not None:
            self._owner.timers.cancel(dial.attempts[conn][1])
            dial.failed(conn, error)
            self._next(dial, now)

    def connected(self, conn: int, peer: PeerId) -> Multiaddr | None:
        """A peer is connected, by us or by itself: every dial to it has succeeded.

        Returns the address that we dialed, None if the peer came to us. Then what is under way for
        the dial goes on: the peer may be dropping its own connection in favour of one of ours.
        """
        address = None
        dial = self._attempts.pop(conn, None)
        if dial is not None:
            address, timer = dial.attempts.pop(conn)
            self._owner.timers.cancel(timer)
            self._succeeded(dial, peer, conn)
            self._drop_attempts(dial)
        dial = self._by_peer.get(peer)
        if dial is not None:
            self._succeeded(dial, peer, conn)
            if address is not None:
                self._drop_attempts(dial)
        return address

    def _succeeded(self, dial: PeerDial, peer: PeerId, conn: int) -> None:
        if dial.id in self._dials:
            self._forget(dial)
            self._owner.emit(PeerConnected(dial.id, peer, conn))

    def _next(self, dial: PeerDial, now: float) -> None:
        """Start the next address, or end the dial when none is left and none is under way."""
        owner = self._owner
        if dial.id not in self._dials:
            return  # the last of its attempts are ending
        timers, limits = owner.timers, owner.limits
        timers.cancel(dial.timer)
        dial.timer = 0
        if dial.exhausted:
            self._forget(dial)
            owner.emit(DialFailed(dial.id, dial.error()))
            return
        if not dial.queue or len(dial.attempts) >= limits.max_parallel_dials:
            return  # until an attempt fails
        address = dial.queue.popleft()
        conn = owner.next_id()
        timer = timers.call_at(
            now + limits.dial_timeout, "dial", lambda now: self._expired(conn, now)
        )
        dial.attempts[conn] = (address, timer)
        self._attempts[conn] = dial
        owner.act(Dial(conn, address))
        if dial.queue and len(dial.attempts) < limits.max_parallel_dials:
            dial.timer = timers.call_at(
                now + limits.dial_stagger,
                "dial the next address",
                lambda now: self._next(dial, now),
            )

    def _expired(self, conn: int, now: float) -> None:
        owner = self._owner
        error = TimedOut(f"no answer within {owner.limits.dial_timeout:g} s")
        if not owner.fail(conn, error, now):
            owner.act(CloseConnection(conn, abort=True))
            self.failed(conn, error, now)

    def _forget(self, dial: PeerDial) -> None:
        """A dial is over: nothing new is started for it."""
        self._owner.timers.cancel(dial.timer)
        del self._dials[dial.id]
        if dial.peer is not None:
            del self._by_peer[dial.peer]

    def _drop_attempts(self, dial: PeerDial) -> None:
        owner = self._owner
        for conn, (_, timer) in dial.attempts.items():
            owner.timers.cancel(timer)
            del self._attempts[conn]
            owner.act(CloseConnection(conn, abort=True))
        dial.attempts.clear()
