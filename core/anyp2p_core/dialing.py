"""Reaching one peer by any of its addresses: which to try next, and when to give up.

    start -> first attempt -> stagger passed, or an attempt failed -> next attempt
          -> an attempt is upgraded: success, the others are dropped at once
          -> nothing left and nothing under way: failure with every reason

After RFC 8305 (happy eyeballs): families alternate, attempts start 250 ms apart.
"""

from collections import deque
from collections.abc import Iterable

from .errors import DialError
from .multiaddr import Multiaddr
from .peer_id import PeerId


def plan(addresses: Iterable[Multiaddr]) -> list[Multiaddr]:
    """Order addresses: without repeats, IPv6 and the others in turns, as they came otherwise.

    >>> [str(a) for a in plan(map(Multiaddr, ["/ip4/1.1.1.1/tcp/1", "/ip4/1.1.1.1/tcp/2",
    ...                                       "/ip6/::1/tcp/3"]))]
    ['/ip6/::1/tcp/3', '/ip4/1.1.1.1/tcp/1', '/ip4/1.1.1.1/tcp/2']
    """
    unique = list(dict.fromkeys(addresses))
    six = [address for address in unique if address.components[0].name == "ip6"]
    rest = [address for address in unique if address.components[0].name != "ip6"]
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
