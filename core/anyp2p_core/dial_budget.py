"""How often we connect to addresses that others told us of: nobody may aim us at a victim.

    dial -> public addresses: each IP at most once per ``interval``, the others are left out
         -> of one peer at most 4
         -> a token of ``rate`` per second; none left: how long to wait for one

Addresses that are not public are not counted: whoever is in the same network needs no help.
"""

from collections.abc import Iterable

from .multiaddr import Multiaddr
from .ratelimit import RateLimiter
from .scope import PUBLIC, scope

MAX_TARGETS = 4096
"""IP addresses that are remembered."""
MAX_PER_PEER = 4
"""Public IP addresses that strangers can make us try for one peer."""


class DialBudget:
    """Shared by everything that dials on hearsay.

    >>> budget = DialBudget(rate=1.0, burst=1, interval=10.0)
    >>> address = Multiaddr("/ip4/1.2.3.4/tcp/1")
    >>> budget.wait(0.0), budget.wait(0.0)
    (0.0, 1.0)
    >>> [len(budget.allowed([address], now)) for now in (0.0, 5.0, 10.0)]
    [1, 0, 1]
    """

    __slots__ = ("_at", "_burst", "_rate", "_targets", "_tokens")

    def __init__(self, *, rate: float, burst: int, interval: float) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._tokens = float(burst)
        self._at = 0.0
        self._targets = RateLimiter(rate=1 / interval, burst=1, size=MAX_TARGETS)

    def wait(self, now: float) -> float:
        """Take a token and return 0, or the seconds until there is one."""
        self._tokens = min(self._burst, self._tokens + max(now - self._at, 0.0) * self._rate)
        self._at = now
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self._rate

    def allowed(
        self, addresses: Iterable[Multiaddr], now: float, *, known: Iterable[Multiaddr] = ()
    ) -> list[Multiaddr]:
        """The addresses that may be dialed now, the known ones first. They count as dialed.

        ``known`` are dialed together or not at all. Of the others so many that the peer has no
        more than MAX_PER_PEER public IPs.
        """
        verdicts: dict[str, bool] = {}
        found: dict[Multiaddr, None] = {}
        for address in known:
            if not self._allow(address, verdicts, now):
                return []
            found[address] = None
        for address in addresses:
            target = _target(address)
            if target not in verdicts and len(verdicts) >= MAX_PER_PEER and target is not None:
                continue
            if self._allow(address, verdicts, now):
                found[address] = None
        return list(found)

    def _allow(self, address: Multiaddr, verdicts: dict[str, bool], now: float) -> bool:
        target = _target(address)
        if target is None:
            return True
        if target not in verdicts:
            verdicts[target] = self._targets.allow(target, now)
        return verdicts[target]


def is_counted(addresses: Iterable[Multiaddr]) -> bool:
    """Whether a dial to these addresses leaves this network."""
    return any(scope(address) == PUBLIC for address in addresses)


def _target(address: Multiaddr) -> str | None:
    """What a public address is counted by: IP address or name."""
    if scope(address) != PUBLIC:
        return None
    first = address.components[0]
    return f"{first.name}/{first.value.lower()}"
