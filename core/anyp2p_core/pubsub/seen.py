"""Ids of messages that were seen, for a while: what comes again is a duplicate.

add -> remembered --ttl after it was first seen, or too many: oldest first--> forgotten
"""


class SeenCache:
    """Bounded in time and number.

    >>> seen = SeenCache(ttl=120.0, size=2)
    >>> seen.add(b"a", 0.0), seen.add(b"a", 1.0)
    (True, False)
    >>> seen.sweep(121.0)
    >>> b"a" in seen
    False
    """

    __slots__ = ("_size", "_times", "_ttl")

    def __init__(self, *, ttl: float, size: int) -> None:
        self._size = size
        self._times: dict[bytes, float] = {}
        self._ttl = ttl

    def __contains__(self, message_id: bytes) -> bool:
        return message_id in self._times

    def __len__(self) -> int:
        return len(self._times)

    def add(self, message_id: bytes, now: float) -> bool:
        """Remember an id; False if it was known already."""
        times = self._times
        if message_id in times:
            return False
        times[message_id] = now
        if len(times) > self._size:
            del times[next(iter(times))]
        return True

    def sweep(self, now: float) -> None:
        """Forget what is too old; call it now and then."""
        times, limit = self._times, now - self._ttl
        old = []
        for message_id, at in times.items():
            if at >= limit:
                break
            old.append(message_id)
        for message_id in old:
            del times[message_id]
