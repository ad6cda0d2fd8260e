"""Random early drop: while validation is overloaded, whoever sends useless messages is heard less.

Spec: https://github.com/libp2p/specs/blob/master/pubsub/gossipsub/red.md

    off --throttled / validated > threshold--> on --quiet, or a smaller share--> off

While on, the messages of an RPC are looked at with the probability

    (1 + delivered) / (1 + delivered + 0.125 duplicate + ignored + 16 rejected)

of all peers at the same address; its control always is. Counters decay.
"""

from dataclasses import dataclass

from ..crypto import Choice
from ..errors import LocalError
from .score_params import decay

MAX_SOURCES = 4096
"""Addresses that are remembered."""


@dataclass(slots=True, kw_only=True)
class GaterParams:
    """go peers' defaults."""

    threshold: float = 0.33
    quiet: float = 60.0
    """Seconds without overload after which it turns off."""
    global_decay: float = decay(120)
    source_decay: float = decay(3600)
    decay_to_zero: float = 0.01
    duplicate_weight: float = 0.125
    ignore_weight: float = 1.0
    reject_weight: float = 16.0

    def check(self) -> None:
        """LocalError for numbers that make no sense."""
        if not (self.threshold > 0 and self.quiet >= 1):
            raise LocalError("gater: threshold is more than 0, and quiet at least 1 s")
        for name in ("global_decay", "source_decay", "decay_to_zero"):
            if not 0 < getattr(self, name) < 1:
                raise LocalError(f"gater: {name} lies between 0 and 1")
        if not (self.duplicate_weight > 0 and min(self.ignore_weight, self.reject_weight) >= 1):
            raise LocalError("gater: duplicate_weight is more than 0, the others are at least 1")


class Source:
    """What came from one address."""

    __slots__ = ("delivered", "duplicate", "ignored", "rejected")

    def __init__(self) -> None:
        self.delivered = self.duplicate = self.ignored = self.rejected = 0.0


class Gater:
    """Decides whether messages are looked at."""

    __slots__ = ("_choice", "_last", "_params", "_sources", "_throttled", "_validated")

    def __init__(self, params: GaterParams, choice: Choice) -> None:
        params.check()
        self._choice = choice
        self._last = float("-inf")
        self._params = params
        self._sources: dict[str, Source] = {}
        self._throttled = 0.0
        self._validated = 0.0

    def source(self, ip: str) -> Source:
        """The counters of an address; the one used longest ago makes room for a new one."""
        sources = self._sources
        found = sources.pop(ip, None) or Source()
        sources[ip] = found
        if len(sources) > MAX_SOURCES:
            del sources[next(iter(sources))]
        return found

    def validated(self) -> None:
        """A message was looked at."""
        self._validated += 1

    def throttled(self, now: float) -> None:
        """A message could not be looked at: too many are waiting."""
        self._throttled += 1
        self._last = now

    def accepts(self, ip: str, now: float) -> bool:
        """Whether to look at the messages of an RPC from here."""
        params = self._params
        if now - self._last > params.quiet or not self._throttled:
            return True
        if self._validated and self._throttled / self._validated < params.threshold:
            return True
        source = self.source(ip)
        good = 1 + source.delivered
        bad = (
            params.duplicate_weight * source.duplicate
            + params.ignore_weight * source.ignored
            + params.reject_weight * source.rejected
        )
        return self._choice.random() < good / (good + bad)

    def decay(self) -> None:
        """Call it once a second."""
        params = self._params
        zero = params.decay_to_zero
        self._throttled = _decayed(self._throttled, params.global_decay, zero)
        self._validated = _decayed(self._validated, params.global_decay, zero)
        gone = []
        for ip, source in self._sources.items():
            factor = params.source_decay
            source.delivered = _decayed(source.delivered, factor, zero)
            source.duplicate = _decayed(source.duplicate, factor, zero)
            source.ignored = _decayed(source.ignored, factor, zero)
            source.rejected = _decayed(source.rejected, factor, zero)
            if not (source.delivered or source.duplicate or source.ignored or source.rejected):
                gone.append(ip)
        for ip in gone:
            del self._sources[ip]


def _decayed(value: float, factor: float, zero: float) -> float:
    value *= factor
    return value if value >= zero else 0.0
