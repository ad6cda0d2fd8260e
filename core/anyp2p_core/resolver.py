"""What turns names into records, as the machines see it.

    query(name, kind, answered, now) -> answered(records, now)      [] when there are none
                                     -> answered(an exception, now)

``dns.DnsClient`` is one, over datagrams. ``FakeResolver`` is one for tests and simulations.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

from .errors import RemoteError
from .timers import Timers

Kind = Literal["A", "AAAA", "TXT"]
Answered = Callable[[list[str] | Exception, float], object]
"""Gets the records as text: IP addresses, or the joined strings of each TXT record."""


class LookupFailed(RemoteError):
    """A name does not exist, has nothing that can be used, or nobody told."""


class Resolver(Protocol):
    """Looks names up."""

    def query(self, name: str, kind: Kind, answered: Answered, now: float) -> object:
        """Call ``answered`` exactly once, at once or later, with what is known of ``name``."""
        ...


class FakeResolver:
    """Knows what it was told: the same questions always get the same answers.

    ``records`` maps a name and a kind to texts, or to the exception to answer with; what is not in
    it does not exist. With ``timers`` an answer comes after ``delay`` seconds, without at once.

    >>> resolver = FakeResolver({("example.com", "A"): ["192.0.2.1"]})
    >>> resolver.query("Example.com", "A", lambda records, now: print(records), 0.0)
    ['192.0.2.1']
    """

    def __init__(
        self,
        records: Mapping[tuple[str, str], Sequence[str] | Exception],
        timers: Timers | None = None,
        delay: float = 0.0,
    ) -> None:
        self.records = dict(records)
        self.asked: list[tuple[str, str]] = []
        """Every question so far, in order."""
        self._timers = timers
        self._delay = delay

    def query(self, name: str, kind: Kind, answered: Answered, now: float) -> None:
        self.asked.append((name, kind))
        found = self.records.get((name.lower().rstrip("."), kind))
        answer: list[str] | Exception
        if found is None:
            answer = LookupFailed(f"there is no {name}")
        else:
            answer = found if isinstance(found, Exception) else list(found)
        if self._timers is None:
            answered(answer, now)
        else:
            self._timers.call_at(
                now + self._delay, "answer of the resolver", lambda now: answered(answer, now)
            )
