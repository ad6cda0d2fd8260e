"""How often one source may do something: token buckets in a table that cannot grow.

tokens = min(burst, tokens + rate * elapsed); one is taken per event
"""


class RateLimiter:
    """Allows ``burst`` events at once and ``rate`` per second after that, for each source.

    At most ``size`` sources are remembered; the one heard of longest ago is forgotten first.

    >>> limiter = RateLimiter(rate=1.0, burst=2, size=10)
    >>> [limiter.allow("a", 0.0), limiter.allow("a", 0.0), limiter.allow("a", 0.0)]
    [True, True, False]
    >>> limiter.allow("a", 1.0)
    True
    """

    __slots__ = ("_buckets", "_burst", "_rate", "_size")

    def __init__(self, *, rate: float, burst: int, size: int = 4096) -> None:
        self._buckets: dict[str, tuple[float, float]] = {}
        self._burst = float(burst)
        self._rate = rate
        self._size = size

    def allow(self, source: str, now: float) -> bool:
        """Take one token of ``source``; False when it has none."""
        buckets = self._buckets
        tokens, at = buckets.pop(source, (self._burst, now))
        tokens = min(self._burst, tokens + (now - at) * self._rate)
        allowed = tokens >= 1.0
        buckets[source] = (tokens - 1.0 if allowed else tokens, now)
        if len(buckets) > self._size:
            del buckets[next(iter(buckets))]
        return allowed
