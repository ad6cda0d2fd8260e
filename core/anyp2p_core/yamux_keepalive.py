"""The ping of a yamux session: is the peer alive, and how far away is it?

Spec: https://github.com/hashicorp/yamux/blob/master/spec.md

    QUEUED --sent--> WAITING --pong--> IDLE --interval--> QUEUED
    QUEUED, WAITING --nothing heard for the timeout--> TimedOut

The first ping is queued from the start: windows grow by the round-trip time it measures.
"""

from .errors import TimedOut
from .yamux_frame import PING, SYN, encode


class Keepalive:
    """One ping at a time. ``rtt`` is in seconds, smoothed, None before the first pong.

    A late pong alone is not fatal: it may stand behind megabytes that the peer sends us.
    """

    __slots__ = ("rtt", "due", "queued", "_interval", "_timeout", "_value", "_next", "_sent_at")

    def __init__(self, interval: float, timeout: float) -> None:
        self.rtt: float | None = None
        self.due: float | None = None
        self.queued = True
        self._interval = interval
        self._timeout = timeout
        self._value = 0
        self._next: float | None = None
        self._sent_at: float | None = None

    def request(self) -> bytes:
        """Return the frame of the ping that is queued."""
        return encode(PING | SYN, 0, self._value)

    def sent(self, now: float) -> None:
        """The queued ping left at ``now``."""
        self.queued = False
        self._sent_at = now
        if self._next is None:  # the first one: nobody knew the time when it was queued
            self._start(now)

    def pong(self, value: int, now: float) -> None:
        """Take a pong. One that answers no ping is ignored."""
        if self._sent_at is None or value != self._value:
            return
        sample = now - self._sent_at
        self.rtt = sample if self.rtt is None else (self.rtt + sample) / 2
        self._sent_at = None
        self._value += 1
        self.due = self._next

    def handle_timeout(self, now: float, heard_at: float) -> bool:
        """Say whether to send ``request()`` now. ``heard_at`` is when bytes last arrived.

        Raises TimedOut when neither the pong nor anything else came for the timeout.
        """
        if self.due is None or now < self.due:
            return False
        if not self.queued and self._sent_at is None:
            self.queued = True
            self._start(now)
            return True
        if now < heard_at + self._timeout:
            self.due = heard_at + self._timeout
            return False
        raise TimedOut(f"the peer was silent and did not answer a ping for {self._timeout:g} s")

    def _start(self, now: float) -> None:
        self._next = now + self._interval
        self.due = now + self._timeout
