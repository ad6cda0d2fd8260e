"""What earlier attempts taught us: which addresses to spare for a while, and which kinds are lost.

    address     ok --failure--> spared for 5 s + 1 s x (failures before)^2, at most 5 min
                   <--success, or 10 min without a failure--

    black hole  PROBING --100 results, fewer than 5 successes--> BLOCKED, but for one in 100 dials
                ALLOWED --the same, of the last 100-------------> BLOCKED
                BLOCKED --a success: the network has changed----> PROBING from the start

Black holes are networks that swallow all UDP or all IPv6: only results with public addresses count.
"""

from collections import deque
from collections.abc import Iterable

from .multiaddr import Multiaddr
from .peer_id import PeerId
from .scope import PUBLIC, scope

BASE = 5.0
"""Seconds after the first failure."""
COEFFICIENT = 1.0
LONGEST = 300.0
TTL = 600.0
"""Seconds after which a failure is forgotten."""
MAX_ENTRIES = 8192
"""Addresses that are remembered; the one that failed longest ago is forgotten first."""

PROBING, ALLOWED, BLOCKED = "probing", "allowed", "blocked"


class BlackHole:
    """Whether one kind of address ever works from here.

    >>> hole = BlackHole(window=2, least=1)
    >>> hole.record(False); hole.record(False)
    >>> [hole.request() for _ in range(3)]
    ['blocked', 'probing', 'blocked']
    """

    __slots__ = ("state", "_least", "_requests", "_results", "_successes", "_window")

    def __init__(self, *, window: int = 100, least: int = 5) -> None:
        """``least`` successes in the last ``window`` results show that it works."""
        self.state = PROBING
        self._least = least
        self._requests = 0
        self._results: deque[bool] = deque()
        self._successes = 0
        self._window = window

    def request(self) -> str:
        """What a dial may do with such addresses; one of ``window`` dials probes while BLOCKED."""
        if self.state != BLOCKED:
            return self.state
        self._requests += 1
        return PROBING if self._requests % self._window == 0 else BLOCKED

    def record(self, success: bool) -> None:
        """An attempt ended by itself."""
        if success and self.state == BLOCKED:
            self.state = PROBING
            self._results.clear()
            self._successes = 0
            return
        self._results.append(success)
        self._successes += success
        if len(self._results) > self._window:
            self._successes -= self._results.popleft()
        if len(self._results) < self._window:
            return
        if self._successes >= self._least:
            self.state = ALLOWED
        elif self.state != BLOCKED:
            self.state = BLOCKED
            self._requests = 0


class DialHistory:
    """The attempts of one node. A success or failure is one of a peer, or of nobody in particular.

    >>> history, address = DialHistory(), Multiaddr("/ip4/192.0.2.1/tcp/1")
    >>> history.failed(None, address, 0.0)
    >>> history.sift(None, [address], 4.0)
    ([], [(Multiaddr('/ip4/192.0.2.1/tcp/1'), 'it failed lately; spared for 1 s more')])
    """

    __slots__ = ("ip6", "udp", "_entries")

    def __init__(self) -> None:
        self.ip6 = BlackHole()
        self.udp = BlackHole()
        # Failures so far, when the last one was, and until when it is spared; oldest first.
        self._entries: dict[tuple[PeerId | None, Multiaddr], tuple[int, float, float]] = {}

    def __len__(self) -> int:
        """Addresses that are remembered."""
        return len(self._entries)

    def failed(self, peer: PeerId | None, address: Multiaddr, now: float) -> None:
        """An attempt failed by itself: not one that was dropped because another one won."""
        self._record(address, False)
        entries = self._entries
        before = entries.pop((peer, address), None)
        tries = before[0] if before is not None and now < before[1] + TTL else 0
        pause = min(BASE + COEFFICIENT * tries**2, LONGEST)
        entries[peer, address] = (tries + 1, now, now + pause)
        self._forget(now)

    def succeeded(self, peer: PeerId, address: Multiaddr) -> None:
        """A peer was reached at an address."""
        self._record(address, True)
        self._entries.pop((peer, address), None)
        self._entries.pop((None, address), None)

    def spared_until(self, peer: PeerId | None, address: Multiaddr) -> float:
        """Until when an address is not tried; in the past if it may be."""
        entry = self._entries.get((peer, address))
        return 0.0 if entry is None else entry[2]

    def sift(
        self, peer: PeerId | None, addresses: Iterable[Multiaddr], now: float
    ) -> tuple[list[Multiaddr], list[tuple[Multiaddr, str]]]:
        """The addresses that one dial may try, and why not the others."""
        allowed: list[Multiaddr] = []
        spared: list[tuple[Multiaddr, str]] = []
        states: dict[str, str] = {}
        for address in addresses:
            reason = self._reason(peer, address, states, now)
            if reason is None:
                allowed.append(address)
            else:
                spared.append((address, reason))
        return allowed, spared

    def _reason(
        self, peer: PeerId | None, address: Multiaddr, states: dict[str, str], now: float
    ) -> str | None:
        left = self.spared_until(peer, address) - now
        if left > 0:
            return f"it failed lately; spared for {left:.3g} s more"
        kinds = self._holes(address)
        for kind, hole in kinds:
            if kind not in states:
                states[kind] = hole.request()
        blocked = [kind for kind, _ in kinds if states[kind] == BLOCKED]
        # An IPv6 UDP address that one of the two wants to probe is tried.
        if not blocked or any(states[kind] == PROBING for kind, _ in kinds):
            return None
        return f"{blocked[0]} does not get through from here"

    def _holes(self, address: Multiaddr) -> list[tuple[str, BlackHole]]:
        names = address.names
        if names[0] not in ("ip4", "ip6") or scope(address) != PUBLIC:
            return []
        found = [("UDP", self.udp)] if "udp" in names else []
        return [*found, ("IPv6", self.ip6)] if names[0] == "ip6" else found

    def _record(self, address: Multiaddr, success: bool) -> None:
        for _, hole in self._holes(address):
            hole.record(success)

    def _forget(self, now: float) -> None:
        entries = self._entries  # of which the last one is fresh
        while len(entries) > MAX_ENTRIES or next(iter(entries.values()))[1] + TTL <= now:
            del entries[next(iter(entries))]
