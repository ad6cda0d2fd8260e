"""Reaching one peer by any of its addresses: which to try next, and when to give up.

    start -> names are looked up, addresses ranked -> first attempt
          -> its turn has come, or an attempt failed -> next attempt
          -> an attempt is upgraded: success, the others are dropped at once
          -> nothing left, nothing under way, no name looked up: failure with every reason

The order and the turns are those of ``ranking``. What ``names`` finds joins the queue as it comes.
Addresses that somebody asked for are always tried. Of those that are known from before, or that
others told of, the ones are spared that failed lately (``dial_history``) or lead nowhere.
"""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from .dial_history import DialHistory
from .errors import DialError, LimitReached, TimedOut
from .events import Action, CloseConnection, Dial, DialFailed, Event, PeerConnected
from .limits import Limits
from .multiaddr import Multiaddr
from .names import Names, Resolution, Resolved, is_name
from .peer_id import PeerId
from .ranking import WhyNot, rank, unusable
from .resolver import Resolver
from .timers import Timers

MAX_HEARSAY = 4
"""IP addresses that names lead to which others told of: a name must not aim us at many victims."""
MAX_REFUSED = 64
"""Addresses that were not tried, and are listed in the error of one dial."""
PATIENCE = 0.05
"""Seconds that the first address found waits for better ones; rfc8305 calls it resolution delay."""
NEEDS_DNS = "looking it up needs anyp2p[dns]"


class Attempt(NamedTuple):
    """One connection under way."""

    address: Multiaddr
    """As it was asked for, or what a /dnsaddr stands for: with the name if it has one."""
    timer: int
    """What ends it."""
    target: Multiaddr
    """Where the transport goes: ``address`` with an IP address, if a resolver found it."""
    peer: PeerId | None
    """Who has to answer, None if anybody may."""


class _Way(NamedTuple):
    """One way to reach the peer; see ``Attempt``."""

    address: Multiaddr
    target: Multiaddr
    peer: PeerId | None = None

    @property
    def key(self) -> tuple[Multiaddr | None, Multiaddr]:
        """Equal for what makes no difference: names matter to WebSocket and TLS only."""
        names = self.address.names
        return self.address if "ws" in names or "wss" in names else None, self.target


class PeerDial:
    """One dial, shared by everyone who waits for the same peer."""

    __slots__ = (
        "attempts", "due", "failures", "found", "hearsay", "held", "id", "names", "peer", "queue",
        "refused", "stepping", "timer", "tried", "wanted",
    )  # fmt: skip

    def __init__(self, dial: int, peer: PeerId | None) -> None:
        self.id = dial
        self.peer = peer
        self.stepping = False
        """Something is done for it: what that causes at once is looked at when it is finished."""
        self.attempts: dict[int, Attempt] = {}
        """Connections under way."""
        self.queue: deque[tuple[float, _Way]] = deque()
        """What is tried next, each with the seconds between it and the one before."""
        self.due = 0.0
        """When the turn of the first in the queue is."""
        self.held = False
        """Whether that turn is put off, for better addresses that may be found."""
        self.timer = 0
        self.failures: list[tuple[str, str]] = []
        self.refused: dict[str, str] = {}
        """Addresses that were not tried, and why."""
        self.names: Resolution | None = None
        self.found = 0
        """Addresses that names stood for."""
        self.hearsay = 0
        """Those of names that nobody asked for."""
        self.wanted: dict[Multiaddr, bool] = {}
        """All that was given and can be used; False: known from before."""
        self.tried: dict[tuple[Multiaddr | None, Multiaddr], None] = {}
        """All that was ever queued, by ``_Way.key``."""

    @property
    def exhausted(self) -> bool:
        if self.queue or self.attempts:
            return False
        return self.names is None or not self.names.busy

    def expected(self, conn: int) -> PeerId | None:
        """Who has to answer on a connection of this dial, None if anybody may."""
        return self.attempts[conn].peer

    def refuse(self, address: Multiaddr, reason: str) -> None:
        """An address is not tried."""
        if len(self.refused) < MAX_REFUSED:
            self.refused[str(address)] = reason

    def error(self) -> DialError:
        """Why the dial failed, address by address."""
        who = f"peer {self.peer}" if self.peer is not None else "the peer"
        failures = (*self.failures, *self.refused.items())
        if not failures:
            return DialError(f"cannot dial {who}: no address is known; connect to a full address")
        reasons = "; ".join(f"{address}: {reason}" for address, reason in failures)
        if not self.failures:
            reasons = f"no address can be dialed: {reasons}"
        return DialError(f"cannot dial {who}: {reasons}", failures)


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
    """All dials of a node.

    ``why_not`` tells what is missing to dial an address. Without a ``resolver`` names go to the
    transport as they are, but for those that only a resolver understands.
    """

    __slots__ = ("history", "_attempts", "_by_peer", "_dials", "_names", "_owner", "_why_not")

    def __init__(
        self, owner: Owner, *, resolver: Resolver | None = None, why_not: WhyNot | None = None
    ) -> None:
        self.history = DialHistory()
        self._attempts: dict[int, PeerDial] = {}
        self._by_peer: dict[PeerId, PeerDial] = {}
        self._dials: dict[int, PeerDial] = {}
        self._names = Names(owner, resolver) if resolver is not None else None
        self._owner = owner
        self._why_not = why_not

    def __len__(self) -> int:
        """Dials under way."""
        return len(self._dials)

    def attempt(self, conn: int) -> PeerDial | None:
        """The dial that a connection is made for."""
        return self._attempts.get(conn)

    def dial(
        self,
        peer: PeerId | None,
        addresses: Iterable[Multiaddr],
        now: float,
        *,
        known: Iterable[Multiaddr] = (),
    ) -> int:
        """Start a dial, or join the one to the same peer; returns its number.

        ``addresses`` are always tried, ``known`` ones as far as experience does not speak against
        them.
        """
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
        names: list[Multiaddr] = []
        ways = self._take(dial, addresses, names, True, now)
        ways += self._take(dial, known, names, False, now)
        self._enqueue(dial, ways, now)
        self._look_up(dial, names, now)
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
            attempt = dial.attempts.pop(conn)
            self._owner.timers.cancel(attempt.timer)
            self.history.failed(dial.peer, attempt.target, now)
            dial.failures.append((str(attempt.address), str(error) or type(error).__name__))
            self._next(dial, now, at_once=True)

    def connected(self, conn: int, peer: PeerId) -> Multiaddr | None:
        """A peer is connected, by us or by itself: every dial to it has succeeded.

        Returns the address that we dialed, None if the peer came to us. Then what is under way for
        the dial goes on: the peer may be dropping its own connection in favour of one of ours.
        """
        address = None
        dial = self._attempts.pop(conn, None)
        if dial is not None:
            attempt = dial.attempts.pop(conn)
            address = attempt.address
            self._owner.timers.cancel(attempt.timer)
            self.history.succeeded(peer, attempt.target)
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

    def _take(
        self,
        dial: PeerDial,
        addresses: Iterable[Multiaddr],
        names: list[Multiaddr],
        asked_for: bool,
        now: float,
    ) -> list[_Way]:
        """Choose what to try, the best ones if there are too many.

        What is to be looked up first goes into ``names``.
        """
        room = max(0, self._owner.limits.max_dial_addresses - len(dial.wanted))
        plain: list[Multiaddr] = []
        named: list[Multiaddr] = []
        for address in dict.fromkeys(addresses):
            if address in dial.wanted or not self._possible(dial, address):
                continue
            if not asked_for and address.names[0] == "dnsaddr":
                dial.refuse(address, "what others say is not looked up")
                continue
            direct = not is_name(address) or (self._names is None and _for_transport(address))
            (plain if direct else named).append(address)
        if not asked_for:
            plain = self._spare(dial, plain, now)
        ranked = [address for _, address in rank(plain)]
        for address in [*ranked, *named][:room]:
            dial.wanted[address] = asked_for
            dial.refused.pop(str(address), None)
        names += [address for address in named if address in dial.wanted]
        return [_Way(address, address) for address in ranked if address in dial.wanted]

    def _possible(self, dial: PeerDial, address: Multiaddr) -> bool:
        """Whether this node can dial an address, or see what a /dnsaddr stands for."""
        reason = None
        if self._names is None and is_name(address) and not _for_transport(address):
            reason = NEEDS_DNS
        elif self._why_not is not None and address.names[0] != "dnsaddr":
            reason = self._why_not(address)
        if reason is not None:
            dial.refuse(address, reason)
        return reason is None

    def _spare(self, dial: PeerDial, addresses: Iterable[Multiaddr], now: float) -> list[Multiaddr]:
        """Leave out what leads nowhere."""
        usable: list[Multiaddr] = []
        for address in addresses:
            reason = unusable(address)
            if reason is None:
                usable.append(address)
            else:
                dial.refuse(address, reason)
        usable, spared = self.history.sift(dial.peer, usable, now)
        for address, reason in spared:
            dial.refuse(address, reason)
        return usable

    def _enqueue(self, dial: PeerDial, ways: Iterable[_Way], now: float) -> bool:
        """Put what was not tried yet where it belongs among what waits. False if there is none."""
        fresh: list[_Way] = []
        for way in ways:
            if way.key not in dial.tried:
                dial.tried[way.key] = None
                fresh.append(way)
        if not fresh:
            return False
        if not dial.queue:
            dial.due = now
        by_target: dict[Multiaddr, list[_Way]] = {}
        for way in (*(way for _, way in dial.queue), *fresh):
            by_target.setdefault(way.target, []).append(way)
        dial.queue.clear()
        before = 0.0
        for delay, target in rank(by_target, stagger=self._owner.limits.dial_stagger):
            for way in by_target[target]:
                dial.queue.append((delay - before, way))
                before = delay
        return True

    def _look_up(self, dial: PeerDial, addresses: Iterable[Multiaddr], now: float) -> None:
        """Resolve names. Those of one dial share their limits."""
        if self._names is None:
            return
        dial.stepping = True  # answers may come at once
        for address in addresses:
            if dial.names is None:
                dial.names = self._names.start(
                    lambda asked, found, now: self._found(dial, asked, found, now),
                    lambda asked, error, now: self._looked_up(dial, asked, error, now),
                )
            dial.names.add(address, dial.peer, now)
        dial.stepping = False

    def _found(self, dial: PeerDial, asked: Multiaddr, found: Resolved, now: float) -> None:
        """A name stands for an address."""
        if dial.found >= self._owner.limits.max_dial_addresses:
            return
        dial.found += 1
        if not self._possible(dial, found.address):
            return
        if not dial.wanted[asked]:
            if dial.hearsay >= MAX_HEARSAY or not self._spare(dial, [found.target], now):
                return
            dial.hearsay += 1
        empty = not dial.queue
        if self._enqueue(dial, [_Way(*found)], now) and empty:
            dial.due = now + PATIENCE
            dial.held = True
            self._next(dial, now)

    def _looked_up(
        self, dial: PeerDial, asked: Multiaddr, error: Exception | None, now: float
    ) -> None:
        """All is known that can be known of a name."""
        if error is not None:
            dial.failures.append((str(asked), str(error)))
        assert dial.names is not None
        if not dial.names.busy and dial.held:
            dial.due = min(dial.due, now)
        self._next(dial, now)

    def _next(self, dial: PeerDial, now: float, *, at_once: bool = False) -> None:
        """Start what is due, or end the dial when nothing is left and nothing under way."""
        owner = self._owner
        if dial.id not in self._dials:
            return  # the last of its attempts are ending
        if at_once:
            dial.due = min(dial.due, now)
        if dial.stepping:
            return
        timers, queue = owner.timers, dial.queue
        timers.cancel(dial.timer)
        dial.timer = 0
        dial.stepping = True
        while queue and len(dial.attempts) < owner.limits.max_parallel_dials:
            if dial.due > now:
                dial.timer = timers.call_at(
                    dial.due, "dial the next address", lambda now: self._next(dial, now)
                )
                break
            _, way = queue.popleft()
            dial.held = False
            if queue:
                dial.due = now + queue[0][0]
            self._start(dial, way, now)  # which may fail at once
        dial.stepping = False
        if dial.exhausted:
            self._forget(dial)
            owner.emit(DialFailed(dial.id, dial.error()))

    def _start(self, dial: PeerDial, way: _Way, now: float) -> None:
        owner = self._owner
        conn = owner.next_id()
        timer = owner.timers.call_at(
            now + owner.limits.dial_timeout, "dial", lambda now: self._expired(conn, now)
        )
        peer = way.peer if dial.peer is None else dial.peer
        dial.attempts[conn] = Attempt(way.address, timer, way.target, peer)
        self._attempts[conn] = dial
        owner.act(Dial(conn, way.target))

    def _expired(self, conn: int, now: float) -> None:
        owner = self._owner
        error = TimedOut(f"no answer within {owner.limits.dial_timeout:g} s")
        if not owner.fail(conn, error, now):
            owner.act(CloseConnection(conn, abort=True))
            self.failed(conn, error, now)

    def _forget(self, dial: PeerDial) -> None:
        """A dial is over: nothing new is started for it."""
        self._owner.timers.cancel(dial.timer)
        if dial.names is not None:
            dial.names.cancel()
        del self._dials[dial.id]
        if dial.peer is not None:
            del self._by_peer[dial.peer]

    def _drop_attempts(self, dial: PeerDial) -> None:
        owner = self._owner
        for conn, attempt in dial.attempts.items():
            owner.timers.cancel(attempt.timer)
            del self._attempts[conn]
            owner.act(CloseConnection(conn, abort=True))
        dial.attempts.clear()


def _for_transport(address: Multiaddr) -> bool:
    """Whether a runtime can look the name up by itself while it connects."""
    return address.names[0] != "dnsaddr" and "tcp" in address.names
