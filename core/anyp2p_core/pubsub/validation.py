"""What applications think of messages, at once or later.

    new --validator--> ACCEPT | REJECT | IGNORE
           '-- None --> waiting --report, within the time--> one of them
                           '-- too late: IGNORE
    too many are waiting: throttled, and nobody is blamed

A validator that raises, or returns something else, ignores the message: it is our fault.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from ..errors import LocalError
from .message import Message

THROTTLED = "validation throttled"
FAILED = "validation failed"
IGNORED = "validation ignored"


class Verdict(Enum):
    """What becomes of a message."""

    ACCEPT = "accept"
    """Deliver and forward it."""
    REJECT = "reject"
    """Drop it, and hold it against whoever sent it."""
    IGNORE = "ignore"
    """Drop it; nobody is to blame."""


Validator = Callable[[Message], Verdict | None]
"""None: ``report`` will tell."""


def later(message: Message) -> None:
    """The validator of who decides with ``report``."""


@dataclass(slots=True)
class Rule:
    """How a topic's messages are validated."""

    validator: Validator
    limit: int = 1024
    """Messages of the topic that may wait."""
    waiting: int = 0


@dataclass(slots=True)
class Waiting:
    """A message that waits for its verdict."""

    message: Message
    rule: Rule
    due: float


class Validation:
    """Messages that wait, bounded in time and number."""

    __slots__ = ("_limit", "_timeout", "_waiting")

    def __init__(self, *, limit: int, timeout: float) -> None:
        self._limit = limit
        self._timeout = timeout
        self._waiting: dict[bytes, Waiting] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def judge(self, rule: Rule, message: Message, now: float) -> Verdict | str | None:
        """The verdict; None: it waits; a text: why it cannot be validated."""
        if len(self._waiting) >= self._limit or rule.waiting >= rule.limit:
            return THROTTLED
        try:
            verdict = rule.validator(message)
        except Exception:
            return IGNORED
        if verdict is None:
            rule.waiting += 1
            self._waiting[message.id] = Waiting(message, rule, now + self._timeout)
        elif not isinstance(verdict, Verdict):
            return IGNORED
        return verdict

    def report(self, message_id: bytes) -> Message | None:
        """The message that waited; None if it does not, or not any more."""
        found = self._waiting.pop(message_id, None)
        if found is None:
            return None
        found.rule.waiting -= 1
        return found.message

    def late(self, now: float) -> list[Message]:
        """Messages that have waited too long; they do not wait any more."""
        found = []
        for waiting in self._waiting.values():
            if waiting.due > now:
                break
            found.append(waiting.message)
        for message in found:
            self.report(message.id)
        return found


def require_verdict(verdict: object) -> None:
    """LocalError for what is no verdict."""
    if not isinstance(verdict, Verdict):
        raise LocalError(f"{verdict!r} is no verdict: ACCEPT, REJECT or IGNORE")
